#!/usr/bin/env bash
# Trains on this machine; creates the environment first if it is missing (see environment.sh).
#
#   launch/local.sh [--dry-run]         prepares data/python-docs, trains configs/tiny.py in runs/tiny
#   launch/local.sh [--dry-run] ARGS    python -m albert_jax.train ARGS
#
# --dry-run only prints the commands. Paths in ARGS are relative to the current directory.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

run() {
  if [[ -n $dry_run ]]; then
    local line
    printf -v line '%q ' "$@"
    echo "${line% }"
  else
    "$@"
  fi
}

dry_run=
if [[ ${1:-} == --dry-run ]]; then
  dry_run=yes
  shift
else
  make_environment requirements.txt
fi

if (($# == 0)); then
  run cd "$ROOT"
  # prepare writes the manifest last: without it, the data is not complete.
  if [[ ! -f $ROOT/data/python-docs/manifest.json ]]; then
    run "$VENV/bin/python" -m albert_jax.prepare \
      --input python-docs --output data/python-docs --vocab_size 8000 --seq_len 32 128 \
      --validation_fraction 0.02
  fi
  set -- --config configs/tiny.py --workdir runs/tiny
fi
# On a CPU, glibc returns large blocks to the kernel after every step, and the kernel zeroes them
# again in the next. Keeping them, in huge pages, made configs/tiny.py's steps 20 to 25 % faster.
run export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184}"
train=("$VENV/bin/python" -m albert_jax.train "$@")
# exec: a signal sent to this script (such as a preemption notice) reaches the training itself.
if [[ -n $dry_run ]]; then run "${train[@]}"; else exec "${train[@]}"; fi
