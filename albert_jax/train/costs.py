"""What a compiled step costs on a chip: memory, time by part of the model, communication.

Two times are given, since neither is a measurement. `compiler` adds up XLA's own estimate of each
instruction, which counts what is bound by memory about 2.5 times too dear. `roofline` takes for
each instruction the larger of its FLOPs at 0.9 of peak and its bytes at the memory's rate, as if
everything were perfectly pipelined. XLA makes an estimate only for TPUs. Neither knows
hand-written kernels or links between chips, which are added to both: kernels at the share of peak
that their schedule has, links at the makers' rates with nothing hidden.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from albert_jax.config import Config
from albert_jax.model.flops import model_flops
from albert_jax.model.sharding import mesh_sizes
from albert_jax.train.ahead import Compiled, compile_step
from albert_jax.train.chips import Chip
from albert_jax.train.hlo import Instruction
from albert_jax.train.program import NO_WORK, Collective, Program

# A share of peak that matrix products reach. Source: XLA's own estimate of one product of 8192³ is
# 0.88 to 0.90 of peak on v5e and v5p.
_PRODUCT_SHARE = 0.9
# Scope in the program (`jax.named_scope`) -> what the table calls it.
_SCOPES = {
    "attention": "attention",
    "feed_forward": "feed-forward",
    "embeddings": "embeddings",
    "masked_lm": "vocabulary",
    "sentence": "sentence pairs",
    "optimizer": "optimizer",
}
KERNELS, COPIES, STACKS, LINKS, OTHER = (
    "attention kernel",
    "copies",
    "stacks",
    "between chips",
    "other",
)


class Memory(NamedTuple):
    """Bytes a device. `largest`: size, type, operation and source line of the largest arrays."""

    parameters: int
    optimizer: int
    gradients: int
    activations: int
    total: int
    largest: list[tuple[int, str, str, str]]


class Time(NamedTuple):
    """Seconds of a step by part of the model, after one of the two ways of counting."""

    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        """Seconds of a step."""
        return sum(self.parts.values())


def memory_of(compiled: Compiled, program: Program) -> Memory:
    """Returns where a device's memory goes.

    Gradients are counted as float32 of what the device has of the parameters in a step; what is
    left of the temporaries is called activations.
    """
    parameters = _bytes_a_device(compiled.state.params)
    gradients = min(_gradient_bytes(compiled.state.params), compiled.temporaries)
    return Memory(
        parameters,
        _bytes_a_device(compiled.state.opt_state),
        gradients,
        compiled.temporaries - gradients,
        compiled.arguments + compiled.temporaries,
        _largest(program),
    )


def _gradient_bytes(params: Any) -> int:
    """Returns the bytes of what a device has of the gradients: only `tensor` divides them."""
    total = 0
    for leaf in jax.tree.leaves(params):
        parts = leaf.sharding.mesh.shape["tensor"] if "tensor" in leaf.sharding.spec else 1
        total += leaf.size * leaf.dtype.itemsize // parts
    return total


def _bytes_a_device(tree: Any) -> int:
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _largest(program: Program, count: int = 5) -> list[tuple[int, str, str, str]]:
    """Returns the largest arrays that instructions make, those alike once."""
    found: dict[tuple[str, str], tuple[int, str, str, str]] = {}
    for one in program.instructions:
        if one.opcode in NO_WORK or one.opcode.endswith("-start"):
            continue
        for array in one.results:
            line = program.sources.line(one) or ""
            operation = one.op_name.rpartition("/")[2] or one.opcode
            found.setdefault((str(array), line), (array.bytes, str(array), operation, line))
    return sorted(found.values(), reverse=True)[:count]


def _times(program: Program, chip: Chip, config: Config, num_devices: int) -> dict[str, Time]:
    """Returns the time of a step after each way of counting; see the module.

    None in float32, for which the chips' figures are not known.
    """
    if config.train.dtype != "bfloat16":
        return {}

    def by_compiler(one: Instruction) -> float:
        return (one.number("estimated_cycles") or 0) / (chip.clock or 1)

    def by_roofline(one: Instruction) -> float:
        products = program.flops(one) / (_PRODUCT_SHARE * chip.flops)
        return max(products, program.traffic(one) / chip.bandwidth)

    ways = {"roofline": by_roofline}
    if chip.clock is not None:
        ways = {"compiler": by_compiler, **ways}
    return {name: _time(program, chip, config, num_devices, way) for name, way in ways.items()}


def _time(
    program: Program,
    chip: Chip,
    config: Config,
    num_devices: int,
    seconds: Callable[[Instruction], float],
) -> Time:
    parts: defaultdict[str, float] = defaultdict(float)
    for one in program.instructions:
        if one.kernel:
            parts[KERNELS] += one.times * _kernel_seconds(one, chip, config)
        else:
            parts[part_of(one)] += one.times * seconds(one)
    for collective in program.collectives():
        parts[LINKS] += collective.times * _link_seconds(collective, chip, num_devices)
    return Time({name: parts[name] for name in sorted(parts, key=parts.__getitem__, reverse=True)})


def part_of(one: Instruction) -> str:
    """Returns the part of the model that an instruction belongs to."""
    if one.opcode.startswith("copy"):
        return COPIES
    scopes = one.op_name.replace("(", "/").replace(")", "/").split("/")
    if "while" in scopes and any("dynamic" in scope for scope in scopes[-2:]):
        return STACKS
    return next((name for scope, name in _SCOPES.items() if scope in scopes), OTHER)


def _kernel_seconds(one: Instruction, chip: Chip, config: Config) -> float:
    """Returns the time of attention's kernel: 2 products forward, 5 backward, of slots × slots."""
    is_backward = "backward" in (one.kernel or "").lower()
    head_size = config.model.hidden_size // config.model.num_attention_heads
    forward, backward = chip.kernels[min(chip.kernels, key=lambda size: abs(size - head_size))]
    products, share = (5, backward) if is_backward else (2, forward)
    flops = products * 2 * math.prod(one.results[0].dims) * config.data.seq_len
    return flops / (share * chip.flops)


def _link_seconds(collective: Collective, chip: Chip, num_devices: int) -> float:
    """Returns the time of a ring over the devices of a group, with nothing hidden."""
    group = max(collective.groups, key=len, default=range(num_devices))  # none: all
    is_island = len({device // chip.island for device in group}) == 1
    count, size = len(group), collective.bytes
    if collective.kind == "reduce-scatter":
        size *= count  # its result is a part
    passes = 2 if collective.kind == "all-reduce" else 1
    return passes * (count - 1) / count * size / (chip.links if is_island else chip.beyond)


def axes_of(groups: Sequence[Sequence[int]], mesh: Mapping[str, int]) -> str:
    """Returns the mesh axes that a collective's groups span, such as `data·fsdp`; ? if none do."""
    wanted = {frozenset(group) for group in groups}
    places = np.arange(math.prod(mesh.values())).reshape(tuple(mesh.values()))
    wide = [axis for axis, size in mesh.items() if size > 1]
    for count in range(1, len(wide) + 1):
        for axes in itertools.combinations(wide, count):
            order = [i for i, axis in enumerate(mesh) if axis not in axes]
            order += [i for i, axis in enumerate(mesh) if axis in axes]
            size = math.prod(mesh[axis] for axis in axes)
            if {
                frozenset(g) for g in places.transpose(order).reshape(-1, size).tolist()
            } == wanted:
                return "·".join(axes)
    return "?"


def step_flops(config: Config, rows: float) -> float:
    """Returns the model FLOPs of a step with `rows` rows, each one chunk that fills it."""
    tokens = rows * config.data.seq_len
    predictions = config.data.mask_rate * tokens
    return model_flops(config.model, tokens, tokens * config.data.seq_len, predictions, rows)


class Estimate(NamedTuple):
    """What a step of a phase costs.

    Attributes:
      config: the settings of the phase.
      steps: how many such steps the run has.
      memory: bytes a device.
      fits: whether a device has as much; None where its memory is not known.
      links: each kind of collective, with its bytes, how often it runs and over which axes.
      times: seconds by `compiler`, if XLA makes an estimate, and by `roofline`, if the chip's
        figures are known, which they are in bfloat16; see the module.
      flops: model FLOPs of a device.
      compile_seconds: what tracing and compiling took.
      text: the program.
    """

    config: Config
    steps: int
    memory: Memory
    fits: bool | None
    links: list[dict[str, Any]]
    times: dict[str, Time]
    flops: float
    compile_seconds: float
    text: str


# What a program may use of a GPU's memory. Source: XLA_CLIENT_MEM_FRACTION in launch/multi_gpu.sh.
_GPU_SHARE = 0.92


def room(chip: Chip) -> float:
    """Returns the bytes that a program may use of a chip's memory."""
    return chip.memory if chip.clock else _GPU_SHARE * chip.memory


def estimate_step(
    config: Config, steps: int, chip: Chip | None, devices: Sequence[Any]
) -> Estimate:
    """Compiles the step of a run, or of one of its phases, and adds up what it costs.

    Args:
      config: settings, with one length of rows.
      steps: how many such steps the run has.
      chip: the kind of device; None for a CPU, of which no figures are known.
      devices: all that the run has, from `describe_devices`.

    Raises:
      ValueError: if settings and devices do not go together.
      DoesNotFitError: if the compiler finds that a device has too little memory.
    """
    compiled = compile_step(config, devices)
    program = Program(compiled.text)
    memory = memory_of(compiled, program)
    sizes = mesh_sizes(config.mesh, len(devices))
    return Estimate(
        config=config,
        steps=steps,
        memory=memory,
        fits=memory.total <= room(chip) if chip else None,
        links=_links(program, sizes),
        times=_times(program, chip, config, len(devices)) if chip else {},
        flops=step_flops(config, config.train.batch_size) / len(devices),
        compile_seconds=compiled.trace_seconds + compiled.compile_seconds,
        text=compiled.text,
    )


def _links(program: Program, mesh: Mapping[str, int]) -> list[dict[str, Any]]:
    """Returns the collectives, those of the same kind, axes and dtype together."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for one in program.collectives():
        axes = axes_of(one.groups, mesh) if one.groups else "all"
        entry = found.setdefault(
            (one.kind, axes, one.dtype),
            {"kind": one.kind, "axes": axes, "dtype": one.dtype, "runs": 0, "bytes": 0},
        )
        entry["runs"] += one.times
        entry["bytes"] += one.times * one.bytes
        entry["in_loop"] = entry.get("in_loop", False) or one.times > 1
    return sorted(found.values(), key=lambda entry: -entry["bytes"])
