"""The report printed at the end of a run."""

import itertools
from collections.abc import Iterable, Mapping

import numpy as np

from albert_jax.data.row_reader import open_rows
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.predict.load import load
from albert_jax.train.curves import METRICS_FILE, read_metrics
from albert_jax.train.experiment import Experiment


def cloze(
    rows: Iterable[Mapping[str, np.ndarray]], tokenizer: Tokenizer, count: int
) -> list[tuple[str, str]]:
    """Returns sentences with one word masked, to show how a model fills it in.

    Args:
      rows: prepared rows.
      tokenizer: the rows' tokenizer.
      count: the number of sentences, each from a different row.

    Returns:
      A (text with "[MASK]", masked word) pair for each sentence.
    """
    found = []
    for row in itertools.islice(rows, 20 * count):
        ends = np.cumsum(row["sentence_lengths"])
        for end, length in zip(ends, row["sentence_lengths"], strict=True):
            ids = row["pieces"][end - length : end].tolist()
            pieces = tokenizer.pieces(ids)
            words = [  # whole words that are a single piece
                i
                for i, (piece, after) in enumerate(itertools.pairwise(pieces))
                if piece[1:].isalpha() and len(piece) > 4 and piece[0] == after[0] == "▁"
            ]
            if 10 <= length <= 30 and words:
                i = words[len(words) // 2]
                before, after = tokenizer.decode(ids[:i]), tokenizer.decode(ids[i + 1 :])
                found.append((f"{before} [MASK] {after}".strip(), pieces[i][1:]))
                break
        if len(found) == count:
            break
    return found


def _report(experiment: Experiment) -> list[str]:
    """Returns lines that summarize a finished run; for pretraining, with filled-in masks."""
    lines = [
        m for m in read_metrics(experiment.workdir / METRICS_FILE) if m["split"] == "validation"
    ]
    if experiment.best is not None:
        name = experiment.best
        best = max(lines, key=lambda m: m[name])
        return [f"best {name} {best[name]:.4f} at step {best['step']}"]
    model = load(experiment.workdir)
    loss, entropy = lines[-1]["mlm_loss"], experiment.baselines["mlm_loss"]
    said = [f"held-out MLM loss {loss:.3f} nats per token; unigram entropy {entropy:.3f}"]
    rows = open_rows(experiment.config.data.path, "validation")
    for text, answer in cloze((rows[i] for i in range(len(rows))), model.tokenizer, count=5):
        (candidates,) = model.fill_mask(text, top_k=4)
        shown = ", ".join(f"{c.piece.lstrip('▁')} {c.probability:.2f}" for c in candidates)
        said.append(f"  {text}\n    [MASK] → {shown}   (was: {answer})")
    return said
