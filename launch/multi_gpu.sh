#!/usr/bin/env bash
# Trains on all GPUs of this host (or those in CUDA_VISIBLE_DEVICES) in one process.
#
#   launch/multi_gpu.sh [--dry-run] --config configs/base.py --workdir runs/base [ARGS]
#
# ARGS are those of python -m albert_jax.train; --dry-run only prints the commands.
set -euo pipefail

# Settings; existing environment variables take precedence. Asynchronous collectives, Triton and
# CUDA graphs need no flag: JAX 0.10 to 0.12 enable them by default.
settings=(
  # Fraction of each GPU's memory that JAX takes; its default is 0.75.
  XLA_CLIENT_MEM_FRACTION="${XLA_CLIENT_MEM_FRACTION:-0.92}"
  # Cache of compiled steps, reused when a run resumes.
  JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/albert_jax}"
  # Overlaps communication with computation, which is off by default. Later flags win.
  XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true${XLA_FLAGS:+ $XLA_FLAGS}"
)

here=$(dirname "${BASH_SOURCE[0]}")
if ! gpus=$(nvidia-smi --list-gpus 2>/dev/null) || [[ -z $gpus ]]; then
  echo "multi_gpu.sh: nvidia-smi finds no GPU; launch/local.sh trains on what there is" >&2
  exit 1
fi
if [[ ${1:-} == --dry-run ]]; then
  # The chip as albert_jax.estimate names it.
  case $gpus in
    *A100*40GB*) chip=a100-40 ;;
    *A100*) chip=a100-80 ;;
    *H200*) chip=h200 ;;
    *B200*) chip=b200 ;;
    *) chip=h100 ;;
  esac
  printf '# What it takes: python -m albert_jax.estimate --devices %s' "$chip:$(wc -l <<<"$gpus")"
  printf ' %q' "${@:2}" && echo
  printf 'export %q\n' "${settings[@]}"
fi
export "${settings[@]}"
exec "$here/local.sh" "$@"
