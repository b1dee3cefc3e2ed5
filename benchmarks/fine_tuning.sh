#!/usr/bin/env bash
# Fine-tunes a small model on eight tasks, three seeds each, in sizes for CPU cores.
#
#   benchmarks/fine_tuning.sh START TOKENIZER DATA RUNS [TASKS]
#
#   START      a pretrained run directory, or scratch: random weights of the sizes of
#              configs/small.py
#   TOKENIZER  the tokenizer.model of the pretrained run, for scratch
#   DATA       holds glue/, conll2003/, race/ and squad/ as tests/texts.py finds them
#   RUNS       gets a directory a task; started again, the script goes on from what is there
#   TASKS      names of some tasks, as "sst2 cola"
#
# benchmarks/fine_tuning.py draws the table.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/../launch/environment.sh"
start=$1 tokenizer=$2 data=$(realpath "$3") runs=$4 only=${5:-}
python=${PYTHON:-$VENV/bin/python}
# As in launch/local.sh.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184}"
# What one seed compiled, the others find.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$(realpath -m "$runs")/compiled}"

# The recipes are for published sizes; so small a model wants a larger rate and has less time.
# task NAME CONFIG DATA STEPS BATCH LENGTH [RATE]
task() {
  [[ -z $only || $only == *$1* ]] || return 0
  local name=$1 config=$2 path=$3 steps=$4 batch=$5 length=$6 rate=${7:-5e-4}
  "$python" -m albert_jax.train --config "$ROOT/configs/finetune/$config.py" \
    --workdir "$runs/$name" --config.init_from="$start" --config.task.data="$path" \
    --config.task.tokenizer="$tokenizer" --config.task.seeds='[0,1,2]' \
    --config.model.vocab_size=8000 --config.model.hidden_size=128 \
    --config.model.num_hidden_layers=2 --config.model.num_attention_heads=4 \
    --config.model.intermediate_size=512 --config.model.initializer_range=0.05 \
    --config.task.max_length="$length" --config.train.batch_size="$batch" \
    --config.train.num_steps="$steps" --config.train.eval_every="$steps" \
    --config.train.checkpoint_every="$steps" \
    --config.optimizer.learning_rate="$rate" --config.optimizer.warmup_steps=$((steps / 10)) \
    --config.train.dtype=float32
}

mkdir -p "$runs"
"$python" "$ROOT/benchmarks/small_sets.py" "$data" "$runs/sets"

task sst2 sst2 "$data/glue" 1800 32 64
task cola cola "$data/glue" 800 32 64
task conll2003 conll2003 "$data/conll2003" 440 32 128 2e-3
task stsb stsb "$data/glue" 800 32 128
task mrpc mrpc "$data/glue" 400 32 128
task rte rte "$data/glue" 250 32 128
task squad squad_v2 "$runs/sets/squad" 250 16 160
task race race "$runs/sets/race" 100 8 128
