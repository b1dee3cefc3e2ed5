#!/usr/bin/env bash
# Trains on all hosts of a Cloud TPU, after queueing for it and creating it.
#
#   launch/tpu_pod.sh [--dry-run] --config configs/base.py --workdir runs/base [ARGS]
#   launch/tpu_pod.sh [--dry-run] delete
#
# ARGS are those of python -m albert_jax.train; paths in them are relative to $FOLDER, where this
# repository is copied to. All hosts share that file system, so after a preemption the TPU is
# recreated and the run resumes from its newest checkpoint. --dry-run prints the commands of one
# pass. Runs until training ends: start it in tmux, on a machine that stays on.
set -euo pipefail

# Settings; existing environment variables take precedence.
NAME=${NAME:-albert-jax}                       # of the queued resource and of the TPU
PROJECT=${PROJECT:-}                           # default: that of gcloud's configuration
ZONE=${ZONE:-us-east5-b}
TYPE=${TYPE:-v6e-16}                           # accelerator type: 16 chips, 4 hosts
RUNTIME=${RUNTIME:-v2-alpha-tpuv6e}            # software version that fits the type
CAPACITY=${CAPACITY---spot}                    # --spot, --reserved, or nothing for on demand
SHARED=${SHARED:-10.0.0.2:/share}              # NFS export (Filestore) in the TPU's network
FOLDER=${FOLDER:-/mnt/shared/albert_jax}       # of this repository on the hosts, below /mnt/shared
WAIT=${WAIT:-60}                               # seconds between two looks at the queue

where=(--zone="$ZONE" ${PROJECT:+--project="$PROJECT"})
queue=(gcloud compute tpus queued-resources)
vm=(gcloud compute tpus tpu-vm)

run() {
  if [[ -n $dry_run ]]; then
    local line
    printf -v line '%q ' "$@"
    echo "${line% }"
  else
    "$@"
  fi
}

on_hosts() { run "${vm[@]}" ssh "$NAME" "${where[@]}" --worker="$1" --command="$2"; }

# Prints the state of the queued resource; nothing if there is none.
state() {
  "${queue[@]}" list "${where[@]}" --filter="name~/$NAME\$" --format='value(state.state)'
}

delete() { run "${queue[@]}" delete "$NAME" "${where[@]}" --force --quiet; }

create() {
  run "${queue[@]}" create "$NAME" "${where[@]}" --node-id="$NAME" --accelerator-type="$TYPE" \
    --runtime-version="$RUNTIME" ${CAPACITY:+"$CAPACITY"}
}

# Returns when the TPU is ready; recreates it if it was preempted.
wait_for_tpu() {
  local now
  if [[ -n $dry_run ]]; then
    create
    return
  fi
  while true; do
    now=$(state)
    case $now in
      ACTIVE) return ;;
      '') create ;;
      FAILED | SUSPENDED) delete ;;
      *) echo "tpu_pod.sh: $NAME is $now" >&2 && sleep "$WAIT" ;;
    esac
  done
}

# All steps are idempotent: repeating them changes nothing.
prepare() {
  local parts=(albert_jax configs launch README.md pyproject.toml requirements.txt)
  on_hosts all "sudo apt-get -qq update && sudo apt-get -qq install -y nfs-common python3.11-venv \
&& sudo mkdir -p /mnt/shared && { mountpoint -q /mnt/shared || sudo mount $SHARED /mnt/shared; }" &&
    on_hosts 0 "sudo install -d -o \$USER $FOLDER" &&
    run "${vm[@]}" scp "${parts[@]/#/$ROOT/}" "$NAME:$FOLDER" "${where[@]}" --worker=0 --recurse &&
    on_hosts 0 "cd $FOLDER && ACCELERATOR=tpu bash -c \
'. launch/environment.sh && make_environment requirements.txt'"
}

# Prints the chips of a type as albert_jax.estimate names them; v4 and v5p types count two cores.
chips() {
  local count=${TYPE##*-}
  case $TYPE in
    v4-* | v5p-*) echo "${TYPE%-*}:$((count / 2))" ;;
    v5litepod-*) echo "v5e:$count" ;;
    *) echo "${TYPE%-*}:$count" ;;
  esac
}

dry_run=
if [[ ${1:-} == --dry-run ]]; then
  dry_run=yes
  shift
fi
if [[ ${1:-} == delete ]]; then
  delete
  exit
fi
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
printf -v train '%q ' launch/local.sh "$@"
if [[ $dry_run ]]; then
  echo "# What it takes: python -m albert_jax.estimate --devices $(chips) ${train#launch/local.sh }"
fi
while true; do
  wait_for_tpu
  status=0
  { prepare && on_hosts all "cd $FOLDER && ${train% }"; } || status=$?
  # If the TPU still exists, the error is the run's own.
  if ((status == 0)) || [[ $(state) == ACTIVE ]]; then exit "$status"; fi
  echo "tpu_pod.sh: $NAME was taken away; it is queued for again" >&2
done
