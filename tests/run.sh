#!/usr/bin/env bash
# Runs the tests; makes the environments first if they are missing (see launch/environment.sh).
#
#   tests/run.sh [PYTEST ARGS]              those that are quick and need no other framework
#   tests/run.sh --all [PYTEST ARGS]        the slow ones; installs torch, TensorFlow and Beam
#   tests/run.sh --nightly [PYTEST ARGS]    those that take minutes
#
# Paths in ARGS are relative to the repository root; a -m in them counts instead of ours; -n 0
# runs all in one process.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/../launch/environment.sh"

tier='not slow and not nightly' all=yes
case ${1:-} in
  --all) tier='slow and not nightly' && shift ;;
  --nightly) tier=nightly && shift ;;
  *) all= ;;
esac

cd "$ROOT"
locks=(requirements.txt tests/requirements.txt)
if [[ $all ]]; then
  # torch's build for CPUs is a twentieth of the other; a mirror of its own is left as it is.
  cpu=https://download.pytorch.org/whl/cpu
  if [[ ! ${PIP_EXTRA_INDEX_URL:-} ]] && curl -fsIm 5 "$cpu/torch/" >/dev/null 2>&1; then
    export PIP_EXTRA_INDEX_URL=$cpu
  fi
  (VENV=$ROOT/.venv-beam ACCELERATOR=cpu make_environment tests/beam.txt)
  locks+=(tests/peers.txt)
fi
make_environment "${locks[@]}"

tests() {
  "$VENV/bin/python" -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile \
    -m "$tier" "$@"
}
if [[ ! $all ]]; then
  tests "$@"
  exit
fi
# One run for each framework, since two in one process can crash it, and the most tests last.
# Code 5: a run found no test, as where ARGS name files.
failed='' ran=''
for peer in torch tensorflow none; do
  status=0
  tests --peer "$peer" "$@" || status=$?
  if ((status != 5)); then ran=yes; fi
  if ((status != 0 && status != 5)); then failed=$status; fi
done
if [[ ! $ran ]]; then exit 5; fi
exit "${failed:-0}"
