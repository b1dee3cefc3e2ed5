"""The same training step in transformers, with the usual optimizations.

It is compiled by torch, with scaled dot product attention, autocast if the dtype is bfloat16, and
fused AdamW. step.py starts this and writes a line for each answer that it wants: first the
seconds of compiling, then the seconds of a step on each batch.

    python peer.py ROWS.npz MODEL_SETTINGS DTYPE
"""

import json
import sys
import time

import numpy as np
import torch
from transformers import AlbertConfig, AlbertForPreTraining

_SETTINGS = (
    "vocab_size", "embedding_size", "hidden_size", "num_hidden_layers", "num_hidden_groups",
    "inner_group_num", "num_attention_heads", "intermediate_size", "hidden_act",
    "hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings",
    "type_vocab_size",
)  # fmt: skip


def main(rows: str, settings: str, dtype: str) -> None:
    """Answers until nothing more is asked."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    with np.load(rows) as file:
        count = 1 + max(int(name.partition("/")[2]) for name in file.files)
        batches = [
            {
                name.partition("/")[0]: torch.from_numpy(file[name]).to(device)
                for name in file.files
                if name.endswith(f"/{i}")
            }
            for i in range(count)
        ]
    model_settings = {name: json.loads(settings)[name] for name in _SETTINGS}
    config = AlbertConfig(**model_settings, attn_implementation="sdpa")
    model = AlbertForPreTraining(config).to(device).train()
    forward = torch.compile(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def seconds_of(batch: dict[str, torch.Tensor]) -> float:
        start = time.perf_counter()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = forward(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()  # waits for the device
        return time.perf_counter() - start

    sys.stdin.readline()
    compiling = sum(seconds_of(batch) for batch in batches[:1] * 3)
    print(json.dumps([compiling]), flush=True)
    while sys.stdin.readline():
        print(json.dumps([seconds_of(batch) for batch in batches]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
