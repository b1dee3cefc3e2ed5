"""Phases of a pretraining run: most steps on short rows, the rest on rows of the full length.

Attention costs less on short rows, and contexts of a few words, which a model learns first, fit
into them. Every phase has the same number of tokens per step.

Source: arXiv:1810.04805, appendix A.2 (90 % of the steps at 128, the rest at 512).
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from albert_jax.config.checks import short_phases
from albert_jax.config.schema import DataConfig, TrainConfig


class Phase(NamedTuple):
    """Consecutive steps on rows of one length.

    Attributes:
      data: the location of its rows, and how examples are drawn from them.
      batch_size: rows per step; more of the shorter ones, so that tokens per step stay the same.
      first_step: the number of steps before it.
      num_steps: the number of its steps, at least 1.
    """

    data: DataConfig
    batch_size: int
    first_step: int
    num_steps: int

    @property
    def last_step(self) -> int:
        """Its last step; steps count from 1."""
        return self.first_step + self.num_steps


def folder_of_length(path: str | Path, seq_len: int) -> Path:
    """Returns the folder of shorter rows within that of the longest."""
    return Path(path) / f"seq_len_{seq_len}"


def phases_of(data: DataConfig, train: TrainConfig) -> tuple[Phase, ...]:
    """Returns the phases of a run in order, the last one with rows of `data.seq_len`.

    A share of less than half a step gives no phase.
    """
    found, first, done = [], 0, 0.0
    for length, share in short_phases(data.phases):
        done += share
        last = round(done * train.num_steps)
        path = str(folder_of_length(data.path, length))
        own = dataclasses.replace(data, path=path, seq_len=length, phases=())
        batch_size = train.batch_size * (data.seq_len // length)
        found.append(Phase(own, batch_size, first, last - first))
        first = last
    own = dataclasses.replace(data, phases=())
    found.append(Phase(own, train.batch_size, first, train.num_steps - first))
    return tuple(phase for phase in found if phase.num_steps)


def phase_at(phases: Sequence[Phase], step: int) -> Phase:
    """Returns the phase of a step; steps count from 1. Others go to the nearest."""
    return next((phase for phase in phases if step <= phase.last_step), phases[-1])


def joint_fingerprint(fingerprints: Sequence[str]) -> str:
    """Returns one digest of the rows of all phases; for a single phase, its own."""
    if len(fingerprints) == 1:
        return fingerprints[0]
    return hashlib.sha256(" ".join(fingerprints).encode()).hexdigest()
