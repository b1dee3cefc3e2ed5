"""The network.

Arrays carry their axes in their names: B batch, T query position, S key position,
D hidden, E embedding, N heads, H head size, F feed-forward, V vocabulary,
P predictions, C chunk of a packed row, L layers, G groups.

Parameters are a nested dict; paths mirror the variable scopes of google-research/albert, such as
`encoder/group_0/inner_group_0/attention/query/kernel`.
"""

from albert_jax.model.albert import Albert
from albert_jax.model.encoder import is_stacked, layers_of_groups
from albert_jax.model.heads import PRETRAINING
from albert_jax.model.layers import Compute

__all__ = ["PRETRAINING", "Albert", "Compute", "is_stacked", "layers_of_groups"]
