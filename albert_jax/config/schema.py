"""All settings of a run, as frozen dataclasses.

Defaults are defined only here. `config_from_dict` raises an error for unknown keys, wrong types
and values that cannot work on any devices.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ml_collections

from albert_jax.config.checks import check_values
from albert_jax.config.choices import choice
from albert_jax.config.conversion import Options, convert, names
from albert_jax.config.embedding import EmbeddingConfig
from albert_jax.config.translation import DecoderConfig, TranslationConfig

_NO_OPTIONS, _DECODER, _TRANSLATION = Options(), DecoderConfig(), TranslationConfig()
_EMBEDDING = EmbeddingConfig()


@dataclass(frozen=True)
class ModelConfig:
    """The network, in the names of `albert_config.json`. Defaults: ALBERT base v2.

    Attributes:
      hidden_act: a name in `model.layers.ACTIVATIONS`.
      share: the blocks whose weights all layers of a group share.
      project_embeddings: project from E to D even if E = D, as transformers' ALBERT does and
        google-research/albert does not; if E ≠ D it is always done.
      decoder: that of a model that translates; others have none.

    Source: arXiv:1909.11942, Table 1, and the published `albert_config.json` files.
    """

    vocab_size: int = 30000
    embedding_size: int = 128
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_hidden_groups: int = 1
    inner_group_num: int = 1
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu_new"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    share: str = choice("all", "attention", "ffn", "none")
    project_embeddings: bool = False
    decoder: DecoderConfig = _DECODER

    @property
    def decoder_layers(self) -> int:
        """Layers of the decoder."""
        return self.decoder.num_layers or self.num_hidden_layers

    @property
    def has_projection(self) -> bool:
        """Whether the encoder starts with a projection from E to D."""
        return self.project_embeddings or self.embedding_size != self.hidden_size


TFDS_PREFIX = "tfds:"  # before the name of a TFDS data set, where paths may stand too


@dataclass(frozen=True)
class DataConfig:
    """Prepared rows and how examples are drawn from them.

    Attributes:
      path: a folder written by `python -m albert_jax.prepare`.
      seq_len: row length in tokens; must match the prepared rows.
      packing: whether rows hold several chunks each; must match the prepared rows.
      phases: shorter rows for the first part of the run, as LENGTH:SHARE of the steps, such as
        `128:0.9`; the remaining steps have rows of `seq_len`. See `config.phases`.
      mask_rate: fraction of the tokens to predict.
      eval_mask_rate: that of held-out examples; 0 takes `mask_rate`.
      max_ngram: longest run of whole words masked together; p(n) is proportional to 1/n.
      sentence_objective: sentence order (`sop`), next sentence (`nsp`), or `none`; one of
        `sentence_pairs.OBJECTIVES`.
      sentence_weight: weight of the sentence loss; masked LM has 1. With few sentence pairs a
        step, their gradient is mostly noise, and a small weight lets masked LM learn faster.
      num_workers: reader processes; 0 reads in threads of this process.
    """

    path: str = ""
    seq_len: int = 512
    packing: bool = True
    phases: tuple[str, ...] = names()
    mask_rate: float = 0.15
    eval_mask_rate: float = 0.0
    max_ngram: int = 3
    sentence_objective: str = "sop"
    sentence_weight: float = 1.0
    num_workers: int = 0

    @property
    def held_out_mask_rate(self) -> float:
        """Fraction of the held-out tokens to predict."""
        return self.eval_mask_rate or self.mask_rate


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and the learning rate schedule, in optimizer steps.

    Attributes:
      name: `lamb`, `adamw` or `muon`, or the name of an optax optimizer.
      warmup_fraction: fraction of the steps to warm up, in place of `warmup_steps`, with
        `train.num_epochs`.
      schedule: after the warmup, `linear` and `cosine` decay to zero at the last step; `wsd`
        stays at the peak and decays linearly over the last `decay_fraction`; `inverse_sqrt` falls
        with the square root of the step.
      clip_norm: largest global gradient norm; 0 disables clipping.
      b1, b2, eps: for lamb and adamw.
      bias_correction: whether to divide Adam's moments by 1 - b^t; for lamb and adamw. The ALBERT
        reference's LAMB does not; AdamW as published does.
      options: arguments of any other optimizer, under their optax names, such as
        `--config.optimizer.options.ns_steps=6`.

    Source: arXiv:1909.11942, section 4.1; google-research/albert lamb_optimizer.py.
    """

    name: str = "lamb"
    learning_rate: float = 0.00176
    warmup_steps: int = 3125
    warmup_fraction: float = 0.0
    schedule: str = choice("linear", "cosine", "wsd", "inverse_sqrt")
    decay_fraction: float = 0.1
    weight_decay: float = 0.01
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-6
    clip_norm: float = 1.0
    bias_correction: bool = False
    options: Options = _NO_OPTIONS


@dataclass(frozen=True)
class TrainConfig:
    """The training loop. A step is one optimizer update.

    Attributes:
      batch_size: rows per step, over all devices and accumulation steps.
      batch_tokens: tokens per step of fine-tuning, in place of rows: a batch holds as many rows
        of like length as fit, padding included. Of a pair to translate, the longer side counts.
      num_epochs: passes over the training examples of a fine-tuning task, in place of
        `num_steps`; the run is then evaluated and saved ten times. 0 uses `num_steps`.
      dtype: dtype of the matrix products; parameters and sums stay float32.
      remat: what the backward pass recomputes: nothing (`none`); everything except dense layers
        and attention's output (`dots`); or the whole layer (`full`).
      attention: the implementation: XLA's (`xla`), cuDNN's (`cudnn`), our kernel for TPUs (`tpu`),
        or the fastest that devices, dtype and sizes allow (`auto`).
      unroll: layers compiled into one iteration of the loop over them. More take longer to compile
        and spare copies into and out of stacks, a third of a step on TPUs and GPUs.
      eval_batches: held-out batches per evaluation; 0 reads the whole split.
      checkpoint_minutes: also save once this many minutes have passed since the last save,
        checked every `log_every` steps; 0 saves only by step count.
      keep_checkpoints: number of newest checkpoints to keep.
      loggers: where metrics go besides metrics.jsonl, names in `train.loggers.LOGGERS`.
      max_bad_steps: this many bad steps in a row end the run. A step is bad if its loss or
        gradient is not finite, in which case its update is skipped, or if its loss jumps.
      max_loss_rise: nats that a step's loss may exceed the mean of the last 100 good steps by; 0
        allows any jump.
      debug_nans: end the run at the first step that is not finite, and report the operation that
        produced the NaN; waits for each step.
    """

    batch_size: int = 4096
    batch_tokens: int = 0
    num_steps: int = 125_000
    num_epochs: float = 0.0
    grad_accum_steps: int = 1
    dtype: str = choice("bfloat16", "float32")
    remat: str = choice("none", "dots", "full")
    attention: str = "auto"
    unroll: int = 1
    seed: int = 0
    log_every: int = 100
    eval_every: int = 2500
    eval_batches: int = 0
    checkpoint_every: int = 2500
    checkpoint_minutes: float = 0.0
    keep_checkpoints: int = 3
    loggers: tuple[str, ...] = names("tensorboard", "terminal")
    max_bad_steps: int = 10
    max_loss_rise: float = 0.0
    debug_nans: bool = False


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; -1 (on at most one axis) takes all remaining devices."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclass(frozen=True)
class TaskConfig:
    """The task to train on. All settings but the name are for fine-tuning.

    Attributes:
      name: `pretrain`, or a task of the table in `tasks.registry`.
      data: a directory of the task's official files, a file, or `tfds:NAME`.
      tokenizer: a SentencePiece model or a WordPiece vocab.txt, for `init_from="scratch"`.
      max_length: row length in tokens, including special ones.
      classifier_dropout: dropout before the new head. Source: arXiv:1909.11942, Table 14.
      freeze_encoder: whether to train only what is new: the head, or the decoder.
      freeze_steps: for how many steps; 0 for the whole run.
      seeds: seeds of several runs, one run per seed, in place of `train.seed`.
      stride: stride of the windows over a long context (squad), in tokens.
      max_question: tokens kept of a question (squad).
      max_answer: maximum tokens of an answer (squad).
      n_best: answers listed for a question (squad). Source of these four:
        google-research/albert run_squad_v2.py.
      translation: settings of `translation/…`.
      embedding: settings of `embedding/…`.
    """

    name: str = "pretrain"
    data: str = ""
    tokenizer: str = ""
    max_length: int = 512
    classifier_dropout: float = 0.1
    freeze_encoder: bool = False
    freeze_steps: int = 0
    seeds: tuple[int, ...] = ()
    stride: int = 128
    max_question: int = 64
    max_answer: int = 30
    n_best: int = 20
    translation: TranslationConfig = _TRANSLATION
    embedding: EmbeddingConfig = _EMBEDDING

    def with_full_search(self) -> "TaskConfig":
        """Returns the settings for use after training: evaluations search with the full beam."""
        found = self.translation
        found = dataclasses.replace(found, validation_beam=found.beam)
        return dataclasses.replace(self, translation=found)


@dataclass(frozen=True)
class Config:
    """All settings of a run.

    Attributes:
      init_from: the weights that a new run starts from instead of random parameters, named in any
        way that `albert_jax.load` accepts.
    """

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    mesh: MeshConfig = MeshConfig()
    task: TaskConfig = TaskConfig()
    init_from: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as nested plain dicts."""
        return dataclasses.asdict(self)


def default_config() -> ml_collections.ConfigDict:
    """Returns a ConfigDict of all keys with their defaults, for config files to modify."""
    return ml_collections.ConfigDict(Config().to_dict())


def config_from_dict(values: Mapping[str, Any]) -> Config:
    """Converts nested dicts to a `Config`; missing keys take their defaults.

    Raises:
      ValueError: if a key is unknown or a value has the wrong type or range.
    """
    config = convert(Config, values, "config")
    check_values(config)
    return config
