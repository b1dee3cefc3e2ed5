#!/usr/bin/env bash
# Fine-tunes a small model on eight tasks, three seeds each, in sizes for CPU cores.
#
#   benchmarks/fine_tuning.sh START DATA RUNS
#
#   START  a pretrained run directory, or scratch: random weights of the sizes of configs/small.py
#   DATA   holds glue/, conll2003/, race/ and squad/ as tests/texts.py finds them, and
#          albert_vocab/30k-clean.model
#   RUNS   gets a directory a task; started again, the script goes on from what is there
#
# benchmarks/fine_tuning.py draws the table.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/../launch/environment.sh"
start=$1 data=$(realpath "$2") runs=$3
python=${PYTHON:-$VENV/bin/python}
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"

# The recipes are for published sizes; so small a model wants a larger rate and has less time.
# task NAME CONFIG DATA STEPS BATCH LENGTH
task() {
  local name=$1 config=$2 path=$3 steps=$4 batch=$5 length=$6
  "$python" -m albert_jax.train --config "$ROOT/configs/finetune/$config.py" \
    --workdir "$runs/$name" --config.init_from="$start" --config.task.data="$path" \
    --config.task.tokenizer="$data/albert_vocab/30k-clean.model" --config.task.seeds='[0,1,2]' \
    --config.model.hidden_size=128 --config.model.num_hidden_layers=4 \
    --config.model.num_attention_heads=2 --config.model.intermediate_size=512 \
    --config.task.max_length="$length" --config.train.batch_size="$batch" \
    --config.train.num_steps="$steps" --config.train.eval_every=$((steps / 2)) \
    --config.train.checkpoint_every=$((steps / 2)) \
    --config.optimizer.learning_rate=5e-4 --config.optimizer.warmup_steps=$((steps / 10)) \
    --config.train.dtype=float32
}

mkdir -p "$runs"
# SQuAD's file is one: every fourth article is held out.
"$python" "$ROOT/benchmarks/split_squad.py" "$data/squad/dev-v2.0-cs224n.json" "$runs/squad_data"

task sst2 sst2 "$data/glue" 1000 32 64
task cola cola "$data/glue" 800 32 64
task mrpc mrpc "$data/glue" 340 32 128
task rte rte "$data/glue" 230 32 128
task stsb stsb "$data/glue" 540 32 128
task conll2003 conll2003 "$data/conll2003" 880 32 128
task squad squad_v2 "$runs/squad_data" 450 16 192
task race race "$data/race" 200 8 128
