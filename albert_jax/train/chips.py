"""Accelerators that a run can be compiled for: their figures, and devices that are not here."""

import contextlib
import os
import re
from importlib import metadata, util
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from albert_jax.config.choices import nearest
from albert_jax.model.flops import peak_flops


class Chip(NamedTuple):
    """One device.

    Attributes:
      kind: how jax names it, from the start.
      bandwidth: of its memory, bytes/s.
      memory: bytes that a program may use.
      clock: cycles/s of XLA's estimate; None if XLA makes none.
      kernels: head size -> the share of peak of attention's forward and backward kernel.
      island: devices that share the fast links.
      links: bytes/s of a device to the others of its island, in one direction.
      beyond: bytes/s of a device to other islands.
    """

    kind: str
    bandwidth: float
    memory: float
    clock: float | None
    kernels: dict[int, tuple[float, float]]
    island: int
    links: float
    beyond: float

    @property
    def flops(self) -> float:
        """Its dense bfloat16 peak, FLOP/s."""
        peak = peak_flops(self.kind, "bfloat16")
        assert peak, f"model/flops.py has no peak of {self.kind}"
        return peak


GIB = 2**30
# Of TPUs: the instructions in XLA's schedule of a kernel (`benchmarks/kernel_schedule.py`, rows of
# 512, 2026-11-27) against the FLOPs it takes; heads of 64 fill half of a matrix unit 128 wide. v4
# and v5e are counted as v5p, though v5e's schedules are a tenth shorter.
_V5_KERNELS = {64: (0.31, 0.35), 128: (0.50, 0.65)}
_V6_KERNELS = {64: (0.12, 0.13), 128: (0.17, 0.22)}
# Of GPUs: cuDNN on an H100 at 512 slots. Source: arXiv:2407.08608, Figure 5 (335 and 497 TFLOP/s
# forward). No source for the backward pass: taken to reach two thirds of that.
_CUDNN = {64: (0.34, 0.23), 128: (0.50, 0.33)}

# Source: the makers' data sheets; clocks and the memory left to programs from XLA.
CHIPS = {
    "v4": Chip("TPU v4", 1228e9, 30.75 * GIB, 1.05e9, _V5_KERNELS, 4096, 150e9, 150e9),
    "v5e": Chip("TPU v5 lite", 819e9, 15.75 * GIB, 1.5e9, _V5_KERNELS, 256, 100e9, 25e9),
    "v5p": Chip("TPU v5", 2765e9, 95.74 * GIB, 1.75e9, _V5_KERNELS, 8960, 300e9, 300e9),
    "v6e": Chip("TPU v6 lite", 1640e9, 31.25 * GIB, 1.75e9, _V6_KERNELS, 256, 224e9, 25e9),
    "a100-40": Chip("NVIDIA A100-SXM4-40GB", 1555e9, 40e9, None, _CUDNN, 8, 300e9, 25e9),
    "a100-80": Chip("NVIDIA A100-SXM4-80GB", 2039e9, 80e9, None, _CUDNN, 8, 300e9, 25e9),
    "h100": Chip("NVIDIA H100", 3350e9, 80e9, None, _CUDNN, 8, 450e9, 50e9),
    "h200": Chip("NVIDIA H200", 4800e9, 141e9, None, _CUDNN, 8, 450e9, 50e9),
    "b200": Chip("NVIDIA B200", 8000e9, 180e9, None, _CUDNN, 8, 900e9, 50e9),
}
# What XLA wants to know of a GPU: compute capability, cores, units a core, bytes of shared memory
# a core and a block, of second-level cache, GHz. Source: NVIDIA's architecture whitepapers.
_GPUS = {
    "a100-40": ((8, 0), 108, 64, 167936, 166912, 40 * 2**20, 1.41),
    "a100-80": ((8, 0), 108, 64, 167936, 166912, 40 * 2**20, 1.41),
    "h100": ((9, 0), 132, 128, 233472, 232448, 50 * 2**20, 1.98),
    "h200": ((9, 0), 132, 128, 233472, 232448, 50 * 2**20, 1.98),
    "b200": ((10, 0), 148, 128, 233472, 232448, 126 * 2**20, 1.965),
}
# Number of chips -> the slice that is usually had. Source: Cloud TPU's tables of configurations.
_FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_CUBES = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8",
          256: "4x8x8", 512: "8x8x8", 1024: "8x8x16"}  # fmt: skip
_SLICES = {"v4": _CUBES, "v5e": _FLAT, "v5p": _CUBES, "v6e": _FLAT}


def describe_devices(name: str) -> tuple[Chip | None, list[Any]]:
    """Returns the kind of chip (None for a CPU) and devices to compile for, present or not.

    To be called before anything else has used JAX, which then looks for no TPU and divides a CPU
    into as many devices.

    Args:
      name: `v5p:4x4x4`, `v5p:64`, `h100:8`, `cpu:8`: a chip, and a slice or a number of them.

    Raises:
      ValueError: if there is no such chip or slice, or its compiler is not installed.
    """
    chip, _, size = name.lower().partition(":")
    if chip not in (*CHIPS, "cpu"):
        raise ValueError(f"--devices {name!r}: no chip {chip!r}{nearest(chip, (*CHIPS, 'cpu'))}")
    if chip in _SLICES:
        return CHIPS[chip], _tpus(name, chip, size)
    if not re.fullmatch(r"[1-9]\d{0,5}", size):
        raise ValueError(f"--devices {name!r}: write {chip}:N with a number, such as {chip}:8")
    if chip == "cpu":
        return None, _cpus(name, int(size))
    return CHIPS[chip], _gpus(name, chip, int(size))


def _cpus(name: str, count: int) -> list[Any]:
    jax.config.update("jax_platforms", "cpu")
    with contextlib.suppress(RuntimeError):  # JAX is in use already
        jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices()
    if len(devices) < count:
        raise ValueError(f"--devices {name!r}: this process has {len(devices)}; start a new one")
    return devices[:count]


def _tpus(name: str, chip: str, size: str) -> list[Any]:
    slices = _SLICES[chip]
    shape = slices.get(int(size)) if re.fullmatch(r"[0-9]+", size) else size
    example = f"{chip}:{slices[8]} or {chip}:8"
    if shape is None or not re.fullmatch(r"\d+(x\d+)*", shape):
        known = ", ".join(map(str, slices))
        raise ValueError(f"--devices {name!r}: write {example}; numbers of chips are {known}")
    if util.find_spec("libtpu") is None:
        raise ValueError(
            f"--devices {name!r} needs the TPU's compiler, which runs on any x86 Linux: "
            f"pip install 'jax[tpu]=={metadata.version('jax')}'"
        )
    # Else it asks Google's metadata server which TPU is here, and waits for an answer.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # it holds no TPU, so need no lock
    jax.config.update("jax_platforms", "cpu")  # nothing is run
    # One device is both cores of a chip, as everywhere but on a v4 by default.
    options = {"chip_config_name": "megacore"} if chip == "v4" else {}
    try:
        topology = topologies.get_topology_desc(
            platform="tpu", topology_name=f"{chip}:{shape}", **options
        )
    except Exception as error:  # jaxlib raises several types
        raise ValueError(
            f"--devices {name!r}: the compiler knows no such slice ({_first_line(error)}); "
            f"write {example}"
        ) from error
    return list(topology.devices)


def _gpus(name: str, chip: str, count: int) -> list[Any]:
    if not any(util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)):
        raise ValueError(
            f"--devices {name!r} needs XLA's compiler for GPUs, which runs on any x86 Linux: "
            f"pip install 'jax[cuda13]=={metadata.version('jax')}'"
        )
    if count > 8 and count % 8:
        raise ValueError(
            f"--devices {name!r}: GPUs come in hosts of 8; write {chip}:{count // 8 * 8}"
        )
    # Autotuning would run each choice on the GPU.
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_autotune_level=0".strip()
    jax.config.update("jax_platforms", "cpu")
    hosts, each = max(1, count // 8), min(count, 8)
    _let_cuda_be_absent()
    try:
        topology = topologies.get_topology_desc(
            platform="cuda",
            topology_name=chip,
            topology=f"{hosts}x1x{each}",  # processes, hosts of each, GPUs of each
            target_config=_target_config(chip),
        )
    except Exception as error:  # jaxlib raises several types
        raise ValueError(
            f"--devices {name!r}: the compiler rejects this GPU ({_first_line(error)}); try h100:8"
        ) from error
    return list(topology.devices)


def _let_cuda_be_absent() -> None:
    """Lets "cuda" name a platform that is not here; JAX looks for its devices otherwise.

    Source: jax-ml/jax issue 23971.
    """
    from jax._src import xla_bridge

    known = xla_bridge.canonicalize_platform
    xla_bridge.canonicalize_platform = lambda name: (
        "cuda" if name in ("gpu", "cuda") else known(name)
    )


def _target_config(chip: str) -> str:
    """Returns a GPU's description in XLA's text format."""
    (major, minor), cores, units, shared, shared_block, cache, clock = _GPUS[chip]
    figures = CHIPS[chip]
    feature = " feature_extension: ACCELERATED_FEATURES" if major >= 9 else ""
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: {shared}
  shared_memory_per_block_optin: {shared_block}
  core_count: {cores} fpus_per_core: {units} clock_rate_ghz: {clock}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: {figures.bandwidth:.0f} l2_cache_size: {cache}
  device_memory_size: {figures.memory:.0f} device_address_bits: 64
  cuda_compute_capability {{ major: {major} minor: {minor}{feature} }}
  device_vendor: "NVIDIA Corporation" name: "{figures.kind}"
  driver_version: "13.0.0" runtime_version: "12.9.0" compile_time_toolkit_version: "12.9.0"
  dnn_version: "9.10.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
runtime_version {{ major: 12 minor: 9 patch: 0 }}
device_description_str: "{figures.kind}"
"""


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
