# shellcheck shell=bash
# The environment in .venv at the repository root; sourced by launch/local.sh, tests/run.sh and
# .ci/run, which call `make_environment` with the lock files they need. The package is installed
# with them in editable mode.
#
#   PYTHON=python3.12     interpreter (default: the newest usable one on PATH)
#   ACCELERATOR=cuda13    cpu, cuda12, cuda13 or tpu (default: what the NVIDIA driver can do, or cpu)
#
# Both apply when .venv is created. If set explicitly to something else than .venv has, .venv is
# recreated. .venv/installed records what a finished .venv holds; without it, .venv is incomplete.
# Setting another VENV after sourcing selects another environment.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
# The range of requires-python in pyproject.toml: 3.OLDEST to 3.NEWEST.
OLDEST=11
NEWEST=13

say() { printf 'environment: %s\n' "$*" >&2; }

# Prints "MINOR PATH" of the interpreter behind command $1; fails if it does not run (such as a
# pyenv shim without a version), is out of range or cannot create environments.
probe() {
  "$1" -I -c "
import ensurepip, os, sys, venv
version = sys.version_info
if sys.implementation.name != 'cpython' or not (3, $OLDEST) <= version[:2] <= (3, $NEWEST):
    sys.exit(1)
print(version[1], os.path.realpath(sys._base_executable))
" </dev/null 2>/dev/null
}

# Prints the output of `probe` for the newest interpreter on PATH that it accepts.
newest_python() {
  local minor path found best='' names=()
  for ((minor = NEWEST; minor >= OLDEST; minor--)); do names+=("python3.$minor"); done
  while read -r path; do
    found=$(probe "$path") || continue
    if ((${found%% *} > ${best:+${best%% *}} + 0)); then best=$found; fi
  done < <(type -aP "${names[@]}" python3 python)
  if [[ -z $best ]]; then
    say "no CPython 3.$OLDEST to 3.$NEWEST with venv and ensurepip on PATH; set PYTHON=/path/to/it"
    return 1
  fi
  echo "$best"
}

# Prints the accelerator to install JAX for.
choose_accelerator() {
  local driver
  case ${ACCELERATOR:-} in
    cpu | cuda12 | cuda13 | tpu) echo "$ACCELERATOR" ;;
    '')
      driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null) || driver=
      driver=${driver%%.*}
      # Source: NVIDIA's CUDA release notes; CUDA 13 needs driver 580, CUDA 12 needs 525.
      if [[ ! $driver =~ ^[0-9]+$ ]] || ((driver < 525)); then
        echo cpu
      elif ((driver < 580)); then
        echo cuda12
      else
        echo cuda13
      fi
      ;;
    *)
      say "ACCELERATOR=$ACCELERATOR must be one of cpu, cuda12, cuda13, tpu"
      return 1
      ;;
  esac
}

# Succeeds if .venv is finished and matches PYTHON (as reported by `probe`) and ACCELERATOR.
usable() {
  if [[ ! -f $VENV/installed ]] || ! probe "$VENV/bin/python" >/dev/null; then return 1; fi
  if [[ -n $python ]] && ! grep -qxF "python $python" "$VENV/installed"; then return 1; fi
  [[ -z ${ACCELERATOR:-} ]] || grep -qxF "accelerator $ACCELERATOR" "$VENV/installed"
}

# Prints the lines of .venv/installed for the lock files $@ and the package. Only the package's
# commands and location are copied into .venv, so nothing else of it matters.
contents() {
  cksum "$@" pyproject.toml
  echo "package $ROOT"
}

# Succeeds if .venv is usable and holds the package and the contents of the lock files $@.
ready() {
  local line
  usable || return 1
  while read -r line; do
    grep -qxF "$line" "$VENV/installed" || return 1
  done < <(contents "$@")
}

# Creates .venv if there is no usable one, then installs the lock files $@ and the package.
install() {
  local accelerator identity file arguments=(--editable .) name=${VENV##*/}
  if usable; then
    identity=$(grep -E '^(python|accelerator) ' "$VENV/installed")
  else
    [[ -n $python ]] || python=$(newest_python)
    accelerator=$(choose_accelerator)
    identity=$(printf 'python %s\naccelerator %s' "$python" "$accelerator")
    if [[ -f $VENV/installed ]]; then
      say "replacing $name of $(sed -n 's/^python [0-9]* //p' "$VENV/installed")"
      rm "$VENV/installed"
    elif [[ -e $VENV ]]; then
      say "replacing a half-made $name"
    fi
    say "making $name with Python 3.${python%% *} (${python#* }) for $accelerator"
    "${python#* }" -m venv --clear "$VENV"
  fi
  accelerator=${identity##* }
  for file in "$@"; do arguments+=(--requirement "$file"); done
  if [[ $accelerator != cpu ]]; then arguments+=("jax[$accelerator]"); fi
  say "installing $* into $name (takes minutes the first time)"
  rm -f "$VENV/installed"
  "$VENV/bin/python" -m pip install -qq --disable-pip-version-check "${arguments[@]}"
  { echo "$identity" && contents "$@"; } >"$VENV/installed.new"
  mv "$VENV/installed.new" "$VENV/installed"
  say "ready"
}

# make_environment FILE...: sets up .venv with the package and the lock files FILE (relative to
# ROOT). Does nothing if it is up to date; of several concurrent calls, one works, the others wait.
make_environment() (
  set -e
  cd "$ROOT"
  python=
  if [[ -n ${PYTHON:-} ]] && ! python=$(probe "$PYTHON"); then
    say "PYTHON=$PYTHON is not a CPython 3.$OLDEST to 3.$NEWEST with venv and ensurepip"
    exit 1
  fi
  if ready "$@"; then exit; fi
  if command -v flock >/dev/null; then
    exec 9>>"$VENV.lock"
    flock 9
    if ready "$@"; then exit; fi
  fi
  install "$@"
)
