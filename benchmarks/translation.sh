#!/usr/bin/env bash
# Translates from English to German with and without a pretrained ALBERT, three seeds each, on CPUs.
#
#   benchmarks/translation.sh START DATA RUNS [ARMS]
#
#   START  a pretrained run of both languages, of the sizes below
#   DATA   Multi30k: train.en, train.de, val.en, val.de, test_2016_flickr.en and .de
#   RUNS   gets a directory for each arm; started again, the script goes on from what is there
#   ARMS   names of some arms, as "random albert"
#
# benchmarks/translation.py draws the table and the figure.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/../launch/environment.sh"
start=$(realpath "$1") data=$(realpath "$2") runs=$3 only=${4:-}
python=${PYTHON:-$VENV/bin/python}
# As in launch/local.sh.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184}"
# What one run compiled, the others find.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$(realpath -m "$runs")/compiled}"

# arm NAME INIT_FROM [SETTINGS]
arm() {
  local name=$1 init=$2
  shift 2
  [[ -z $only || " $only " == *" $name "* ]] || return 0
  "$python" -m albert_jax.train --config "$ROOT/configs/translation/albert.py" \
    --workdir "$runs/$name" --config.init_from="$init" --config.task.data="$data" \
    --config.task.tokenizer="$start" --config.task.seeds='[0,1,2]' \
    --config.model.vocab_size=10000 --config.model.hidden_size=128 \
    --config.model.num_hidden_layers=3 --config.model.num_attention_heads=4 \
    --config.model.intermediate_size=512 --config.model.max_position_embeddings=128 \
    --config.model.initializer_range=0.05 --config.train.batch_tokens=2048 \
    --config.train.num_steps=1000 --config.train.eval_every=200 \
    --config.train.checkpoint_every=1000 --config.train.keep_checkpoints=1 \
    --config.optimizer.learning_rate=0.005 --config.optimizer.warmup_steps=200 "$@"
  for seed in 0 1 2; do
    local folder=$runs/$name/seed_$seed
    [[ -f $folder/test.txt ]] || "$python" -m albert_jax.predict --checkpoint "$folder" \
      --input "$data/test_2016_flickr.en" --output "$folder/test" | tee "$folder/test.txt"
  done
}

mkdir -p "$runs"
own=--config.model.decoder.share_encoder=False
arm random scratch
arm albert "$start"
arm albert_own "$start" $own
arm albert_new_first "$start" --config.task.freeze_encoder=True --config.task.freeze_steps=200
