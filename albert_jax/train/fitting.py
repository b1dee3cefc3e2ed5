"""Finds settings with which a run fits its devices, by compiling it."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from albert_jax.config import Config
from albert_jax.model.sharding import mesh_sizes
from albert_jax.train.ahead import DoesNotFitError
from albert_jax.train.chips import Chip
from albert_jax.train.costs import Estimate, estimate_step, room

REMATS = ("none", "dots", "full")  # from the fastest to the smallest


class Fit(NamedTuple):
    """The most rows that a device takes at once with a `remat` and `fsdp`, and what they cost."""

    remat: str
    fsdp: int
    rows: int
    estimate: Estimate

    @property
    def overrides(self) -> str:
        """The settings, as arguments of a command."""
        train, mesh = self.estimate.config.train, self.estimate.config.mesh
        return (
            f"--config.train.grad_accum_steps={train.grad_accum_steps} "
            f"--config.train.remat={self.remat} --config.mesh.data={mesh.data} "
            f"--config.mesh.fsdp={mesh.fsdp}"
        )


def settings_that_fit(
    config: Config, steps: int, chip: Chip, devices: Sequence[Any], say: Callable[[str], None]
) -> Fit | None:
    """Returns the first settings that fit: the config's, then more remat, then sharded weights."""
    remats = REMATS[REMATS.index(config.train.remat) :]
    meshes = [config] if config.mesh.fsdp != 1 else [config, _sharded(config, len(devices))]
    tried = (largest_fit(one, steps, chip, devices, r, say) for one in meshes for r in remats)
    return next((fit for fit in tried if fit), None)


def largest_fit(
    config: Config,
    steps: int,
    chip: Chip,
    devices: Sequence[Any],
    remat: str,
    say: Callable[[str], None],
) -> Fit | None:
    """Returns the largest rows a device that fit and divide the batch; None if not even one does.

    Memory grows evenly with the rows, so that two small programs tell about where the limit is;
    what is returned was compiled.
    """
    sizes = mesh_sizes(config.mesh, len(devices))
    rows_a_device = config.train.batch_size // (sizes["data"] * sizes["fsdp"])
    divisors = [n for n in range(1, rows_a_device + 1) if rows_a_device % n == 0]

    def attempt(rows: int) -> Estimate | None:
        say(f"compiling {rows} rows a device, remat {remat}")
        accum_steps = rows_a_device // rows
        train = dataclasses.replace(config.train, remat=remat, grad_accum_steps=accum_steps)
        try:
            return estimate_step(dataclasses.replace(config, train=train), steps, chip, devices)
        except DoesNotFitError:
            return None

    small = [n for n in divisors if n <= 8][-2:]
    small = divisors[:2] if len(small) < 2 else small
    known = {n: attempt(n) for n in small}
    for rows in _promising(divisors, known, room(chip)):
        found = known[rows] if rows in known else attempt(rows)
        if found and found.fits:
            return Fit(remat, sizes["fsdp"], rows, found)
    return None


def _promising(
    divisors: Sequence[int], known: dict[int, Estimate | None], limit: float
) -> Iterator[int]:
    """Yields rows from the largest that should fit, by a line through two known sizes, down."""
    points = [(n, found.memory.total) for n, found in known.items() if found]
    if len(points) == 2:
        (n, low), (m, high) = points
        slope = max(high - low, 1) / (m - n)
        most = m + (limit - high) / slope
    else:
        most = max(known)
    return (n for n in reversed(divisors) if n <= max(most, 1))


def _sharded(config: Config, num_devices: int) -> Config:
    """Returns the config with weights and moments sharded over as many devices as divide them."""
    shards = math.gcd(num_devices // config.mesh.tensor, config.model.hidden_size)
    return dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, data=-1, fsdp=shards))
