#!/usr/bin/env bash
# Runs the tests; makes the environment first if it is missing (see launch/environment.sh).
#
#   tests/run.sh [PYTEST ARGS]    paths in ARGS are relative to the repository root; -n 0 runs them
#                                 in one process
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/../launch/environment.sh"

make_environment requirements.txt tests/requirements.txt
cd "$ROOT"
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
exec "$VENV/bin/python" -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile "$@"
