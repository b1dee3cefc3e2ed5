"""Bad input, a table over all commands: told in one line, and nothing is written.

A case is a command, what makes its input bad, and what the message must say. `{tmp}` is an empty
folder of its own; `{good}` holds sound input: a text, its vocabulary and rows, a config, a table,
a model, and for slow tests a run and models of every kind. The exit code is not 0; the last line
on standard error is the only one that begins with `error: `, and what stands before it is
progress; neither folder has changed.
"""

import gzip
import json
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import zstandard
from sound_input import (
    Change,
    as_nobody,
    copy,
    cut,
    edit_json,
    edit_tensors,
    fifo,
    link,
    make_models,
    make_texts,
    read_only,
    remove,
    sentencepiece,
    snapshot,
    write,
)
from support.pieces import train_tokenizer
from support.texts import make_sentence

import albert_jax
from albert_jax import convert, evaluate, inspect
from albert_jax.config import DataConfig
from albert_jax.config.errors import USER_ERRORS, fail
from albert_jax.config.load import load_config
from albert_jax.data.loader import Rows
from albert_jax.data.row_reader import open_rows
from albert_jax.data.tokenizers import load_tokenizer
from albert_jax.predict import __main__ as predict
from albert_jax.prepare import __main__ as prepare
from albert_jax.sweep import __main__ as sweep
from albert_jax.train import __main__ as train


def load(words: Sequence[str]) -> int:
    """`albert_jax.load` as if it were a command."""
    try:
        albert_jax.load(words[0])
    except USER_ERRORS as error:
        return fail(error)
    return 0


MAINS: dict[str, Callable[[Sequence[str]], int]] = {
    "prepare": prepare.main,
    "train": train.main,
    "evaluate": evaluate.main,
    "predict": predict.main,
    "convert": convert.main,
    "inspect": inspect.main,
    "sweep": sweep.main,
    "load": load,
}


class Case(NamedTuple):
    """A command, its words, a part of the message (regular expression), what makes input bad.

    Also the mark of a package that it needs.
    """

    command: str
    words: str
    message: str
    changes: tuple[Change, ...] = ()
    peer: str = ""


def of_config(text: str, message: str, more: str = "") -> Case:
    words = f"--config {{tmp}}/config.py --workdir {{tmp}}/run {more}"
    return Case("train", words, message, (write("config.py", text),))


def of_override(words: str, message: str) -> Case:
    return Case("train", f"--config {{good}}/config.py --workdir {{tmp}}/run {words}", message)


def of_corpus(name: str, content: str | bytes, message: str, more: str = "") -> Case:
    words = f"--input {{tmp}}/in/{name} --output {{tmp}}/out --tokenizer {{good}}/tokenizer.model"
    return Case("prepare", f"{words} {more}", message, (write(f"in/{name}", content),))


def of_input(words: str, message: str, *changes: Change) -> Case:
    more = "--output {tmp}/out --tokenizer {good}/tokenizer.model"
    return Case("prepare", f"{words} {more}", message, changes)


def of_tokenizer(content: str | bytes, message: str) -> Case:
    words = "--input {good}/texts.jsonl --output {tmp}/out --tokenizer {tmp}/a.model"
    return Case("prepare", words, message, (write("a.model", content),))


def of_rows(message: str, *changes: Change) -> Case:
    words = "--config {good}/config.py --workdir {tmp}/run --config.data.path={tmp}/rows"
    return Case("train", words, message, (copy("rows", "rows"), *changes))


def of_model(source: str, message: str, *changes: Change) -> Case:
    words = "--input {tmp}/in --output {tmp}/out --to orbax"
    peer = "tensorflow" if source == "tf" else ""
    return Case("convert", words, message, (copy(source, "in"), *changes), peer)


def of_load(message: str, *changes: Change, name: str = "{tmp}/in", peer: str = "") -> Case:
    return Case("load", name, message, changes, peer)


GET = "from albert_jax.config import default_config\n\n\ndef get_config():\n    "
PREPARE = "--input {good}/texts.jsonl --tokenizer {good}/tokenizer.model --seq_len 64"
TRAIN = "--config {good}/config.py --workdir"
PREDICT = "--checkpoint {good}/classifier --input {good}/examples"
CONVERT = "--input {good}/hf --to orbax"

CONFIGS = [
    Case("train", "--config {tmp}/no.py --workdir {tmp}/run", r"config file '.*no\.py' does not"),
    Case("train", "--config {tmp} --workdir {tmp}/run", "config file '.*' does not exist"),
    of_config("def get_config(:\n", r"config\.py:1: SyntaxError: invalid syntax"),
    of_config("\x00", r"config\.py.*SyntaxError: .*null bytes"),
    of_config(GET + "return missing\n", r"config\.py:5: NameError: name 'missing' is not defined"),
    of_config("import no_such_module\n", r"config\.py:1: ModuleNotFoundError: No module named"),
    of_config(
        GET + "return default_config().train.sead\n",
        r"config\.py:5: AttributeError",
    ),
    of_config("steps = 3\n", r"config\.py' defines no get_config"),
    of_config("get_config = 3\n", r"config\.py' defines no get_config"),
    of_config(GET + "return None\n", r"config\.py'.*must return a ConfigDict, not NoneType"),
    of_config(GET + "return [1, 2]\n", r"config\.py'.*must return a ConfigDict, not list"),
    of_config(GET + "return {'trian': {}}\n", "unknown key config.trian; did you mean 'train'"),
    of_config(GET + "return {3: 4}\n", "unknown key config.3; known: model"),
    of_config(GET + "return {'train': 4}\n", "config.train must be a group of settings, not 4"),
    of_config(GET + "return {'train': {'seed': '1'}}\n", "config.train.seed must be of type int"),
    of_config(GET + "return {'train': {'seed': None}}\n", "config.train.seed must be of type int"),
    of_config(GET + "return {'task': {'seeds': [1.5]}}\n", "config.task.seeds must be whole numb"),
    of_config(GET + "return {'train': {'num_steps': 9}}\n", "warmup_steps=3125 must be from 0 to"),
    Case(
        "train", "--config {good}/config.py:v9 --workdir {tmp}/run", "config.py.*TypeError: get_"
    ),
]
OVERRIDES = [
    of_override("--config.train.num_step=3", "unknown key config.train.num_step; did you mean"),
    of_override("--config.train", "--config.train has no value; write --config.train=VALUE"),
    of_override("--config.=3", "unknown key config.;"),
    of_override("--config.train.seed=x", "config.train.seed must be int, not 'x'"),
    of_override("--config.train.seed=0x10", "config.train.seed must be int, not '0x10'"),
    of_override("--confg.train.seed=1", "unknown argument '--confg.train.seed=1'; write settings"),
    of_override(
        "--config.train.num_steps=1" + "0" * 30, "num_steps=10+ must be from 1 to 2147483"
    ),
    of_override(
        "--config.model.hidden_size=1" + "0" * 5000, "config.model.hidden_size must be int"
    ),
    of_override("--config.optimizer.eps=-1", "config.optimizer.eps=-1.0 must be at least 0"),
    of_override("--config.mesh.data=3", "mesh {'data': 3, .* does not fit 8 device"),
    of_override("--config.mesh.data=0", "mesh sizes must be positive, or -1 on one axis"),
    of_override("--config.mesh.fsdp=-1", "mesh.data and mesh.fsdp are both -1; set all but one"),
    of_override(
        "--config.mesh.tensor=8", "model.vocab_size=60 does not divide over mesh.tensor=8"
    ),
    of_override("--config.train.batch_size=12", "batch_size=12 .* make it a multiple of 8"),
    of_override(
        "--config.model.vocab_size=61", "have a vocabulary of 60; set model.vocab_size=60"
    ),
    of_override("--config.data.path=", "data.path '': no such folder; prepare it with"),
    of_override("--config.data.sentence_objective=snp", "sentence_objective must be one of sop"),
    of_override(
        "--config.task.name=glue/cola --config.task.max_length=64",
        "config.init_from is empty: set it to the initial weights",
    ),
    of_override(
        "--config.task.seeds=[1,x]", r"config.task.seeds must be whole numbers, such as \[0,1"
    ),
    of_override("--config.init_from={tmp}/nothing", "there is no model at .*nothing'"),
    of_override(
        "--config.init_from={good}/hf --config.model.hidden_size=64",
        "is a different model: model.hidden_size is 32, but this run has 64",
    ),
]
JSON = '{"text": "One."}\n'
CORPORA = [
    of_corpus(
        "a.txt", b"One.\nTwo \xff.\n", r"a\.txt: invalid UTF-8 at byte 9 \(line 2\); conver"
    ),
    of_corpus("a.txt", "One.".encode("utf-16")[:-1], r"a\.txt: damaged UTF-16 text"),
    of_corpus("a.txt", "", r"a\.txt: contains no text; is --format correct"),
    of_corpus("a.txt", " \n\t\n\r\n", r"a\.txt: contains no text"),
    of_corpus("a.txt.gz", gzip.compress(b"One two. " * 99)[:-9], r"a\.txt\.gz: damaged \.gz file"),
    of_corpus("a.txt.gz", b"One two.\n", r"a\.txt\.gz: damaged \.gz file \(Not a gzipped file"),
    of_corpus("a.txt.gz", gzip.compress(b"One \xff"), r"a\.txt\.gz: invalid UTF-8 at byte 4"),
    of_corpus("a.txt.zst", zstandard.compress(b"One. " * 99)[:-4], r"zst: damaged \.zst file"),
    of_corpus("a.txt.zst", b"One two.\n", r"a\.txt\.zst: damaged \.zst file"),
    of_corpus("a.jsonl", JSON + '{"text": "Tw\n', r"a\.jsonl:2: not JSON \("),
    of_corpus(
        "a.jsonl", JSON * 2 + '{"body": "x"}\n', r"a\.jsonl:3: no text in field 'text' \(has: "
    ),
    of_corpus("a.jsonl", JSON + '{"text": null}\n', r"a\.jsonl:2: no text in field 'text'"),
    of_corpus("a.jsonl", JSON + '{"text": "\\ud800"}\n', r"a\.jsonl:2: .*half a surrogate pair"),
    of_corpus("a.jsonl", JSON + "[" * 99_999, r"a\.jsonl:2: not JSON \(nested too deeply\)"),
    of_corpus("a.jsonl", JSON + "1" * 5000, r"a\.jsonl:2: not JSON \("),
    of_corpus("a.pdf", b"%PDF-1.4", r"a\.pdf: not a known kind of text file; convert it"),
    of_corpus(
        "a.txt", "plain\n", r"a\.txt:1: text outside <doc>; pass another --format", "--format wiki"
    ),
    of_corpus(
        "a.txt", "One.\n", "1 documents .* are not enough for a", "--validation_fraction 0.5"
    ),
    of_input("--input {tmp}/*.txt", r"input .*\*\.txt: matches no file"),
    of_input("--input {tmp}/none", "input .*none: no such file or folder"),
    of_input(
        "--input {tmp}/in",
        "input .*in: this folder contains no files",
        write("in/.hidden", "One."),
    ),
    of_input("--input {tmp}/in/a", "in/a: .*symbolic links.*", link("in/a", "a")),
    of_input("--input {tmp}/in", "in/a: .*symbolic links.*", link("in/a", "b"), link("in/b", "a")),
    of_input(
        "--input {tmp}/in",
        "in/b.txt: no such file",
        write("in/a.txt", "One."),
        link("in/b.txt", "gone"),
    ),
    of_input("--input {tmp}/pipe", "pipe: is neither a file nor a folder", fifo("pipe")),
    of_input(
        "--input {tmp}/in",
        "in/pipe: is neither a file nor a folder",
        write("in/a", "A."),
        fifo("in/pipe"),
    ),
    of_input(
        "--input tfds:no_such_data_set --data_dir {tmp}", "tfds:no_such_data_set: TFDS has no such"
    ),
    of_input("--input tfds:../../etc --data_dir {tmp}", r"tfds:\.\./\.\./etc"),
    of_input("--input {good}/texts.jsonl --seq_len 8", "seq_len 8: must be from 16 to 65535"),
    of_input("--input {good}/texts.jsonl --num_workers 0", "num_workers 0: must be at least 1"),
    of_input(
        "--input {good}/texts.jsonl --short_seq_prob nan", "short_seq_prob nan: must be from 0"
    ),
    Case(
        "prepare",
        "--input {good}/texts.jsonl --output {tmp}/out --vocab_size 9",
        "vocab_size 9: must be from",
    ),
    Case(
        "prepare",
        "--input {good}/texts.jsonl --output {tmp}/out --vocab_size 60000",
        "vocab_size 60000: this text has too few different words",
    ),
]
TOKENIZERS = [
    of_tokenizer("This is no model.", r"tokenizer .*a\.model: not a SentencePiece model"),
    of_tokenizer("", r"tokenizer .*a\.model: not a SentencePiece model"),
    Case(
        "prepare",
        "--input {good}/texts.jsonl --output {tmp}/out --tokenizer {tmp}/a.model",
        r"tokenizer .*a\.model: has no piece .*; train a model with prepare --vocab_size",
        (sentencepiece("a.model"),),
    ),
    Case(
        "prepare",
        "--input {good}/texts.jsonl --output {tmp}/out --tokenizer {tmp}",
        "tokenizer .*: no such file; pass a SentencePiece .model file",
    ),
    Case(
        "prepare",
        "--input {good}/texts.jsonl --output {tmp}/out --tokenizer {tmp}/no",
        "no such file",
    ),
    of_rows("rows/tokenizer.model: not a SentencePiece model", write("rows/tokenizer.model", "x")),
    of_rows(
        "sha256 of tokenizer.model is .* manifest.json says .*; prepare the data again",
        edit_json("rows/manifest.json", tokenizer_sha256="0"),
    ),
    of_rows("tokenizer .*rows/tokenizer.model: no such file", remove("rows/tokenizer.model")),
]
ROWS = [
    of_rows("no manifest.json in it; prepare it with", remove("rows/manifest.json")),
    of_rows(
        r"manifest\.json:\d+: not JSON \(.*; is the file trunc", cut("rows/manifest.json", 99)
    ),
    of_rows(r"manifest\.json: must be a JSON object, not list", write("rows/manifest.json", "[]")),
    of_rows(r"manifest\.json: missing format_version", write("rows/manifest.json", "{}")),
    of_rows(r"manifest\.json: missing .*print", edit_json("rows/manifest.json", fingerprint=...)),
    of_rows(
        "format_version is 9, but this version reads 1",
        edit_json("rows/manifest.json", format_version=9),
    ),
    of_rows(
        "data.seq_len 64: the rows .* seq_len 32", edit_json("rows/manifest.json", seq_len=32)
    ),
    of_rows(
        "data.packing True: the rows .*packing False",
        edit_json("rows/manifest.json", packing=False),
    ),
    of_rows(
        "rows of train is .* manifest.json says 9",
        edit_json("rows/manifest.json", rows={"train": 9, "validation": 1}),
    ),
    of_rows("have a vocabulary of 50", edit_json("rows/manifest.json", vocab_size=50)),
    of_rows("contains no TFDS data set; prepare", remove("rows/dataset_info.json")),
    of_rows(r"rows.*prepare the data again", write("rows/dataset_info.json", "{")),
    of_rows(r"rows.*prepare the data again", write("rows/features.json", "{")),
    Case(
        "train",
        f"{TRAIN} {{tmp}}/run --config.data.path={{tmp}}/rows --config.model.vocab_size=50",
        "vocab_size of tokenizer.model is 60, but manifest.json says 50; prepare the data again",
        (copy("rows", "rows"), edit_json("rows/manifest.json", vocab_size=50)),
    ),
]
TENSORS, WORD_TABLE = "in/model.safetensors", "albert.embeddings.word_embeddings.weight"
INDEX = "in/model.safetensors.index.json"
MODELS = [
    of_model("hf", r"in/config\.json:\d+: not JSON", cut("in/config.json", 50)),
    of_model(
        "hf", r"in/config\.json: must be a JSON object, not list", write("in/config.json", "[1]")
    ),
    of_model(
        "hf",
        r"in/config\.json: model_type is 'gpt2'; supported are 'albert', 'bert'",
        edit_json("in/config.json", model_type="gpt2"),
    ),
    of_model(
        "hf",
        r"in/config\.json: model_type is \['albert'\]",
        edit_json("in/config.json", model_type=["albert"]),
    ),
    of_model(
        "hf", r"in/config\.json: architectures are 7", edit_json("in/config.json", architectures=7)
    ),
    of_model(
        "hf", r"in/config\.json: missing hidden_size", edit_json("in/config.json", hidden_size=...)
    ),
    of_model(
        "hf", r"hidden_size=-32 must be from 1", edit_json("in/config.json", hidden_size=-32)
    ),
    of_model(
        "hf",
        r"num_hidden_layers=1000000000 must be from 1",
        edit_json("in/config.json", num_hidden_layers=10**9),
    ),
    of_model(
        "hf", r"in/config\.json: albert_jax must be", edit_json("in/config.json", albert_jax=5)
    ),
    of_model("hf", "has shape", edit_json("in/config.json", intermediate_size=128)),
    of_model(
        "hf",
        "unexpected: albert.encoder.*missing|missing: albert.encoder",
        edit_json("in/config.json", num_hidden_groups=2),
    ),
    of_model("hf", r"model\.safetensors: damaged: .*; restore it from a copy", cut(TENSORS, -100)),
    of_model("hf", r"model\.safetensors: damaged: ", write(TENSORS, "")),
    of_model("hf", r"model\.safetensors: damaged: ", write(TENSORS, b"\xff" * 64)),
    of_model("hf", "has none of model.safetensors", remove(TENSORS)),
    of_model(
        "hf",
        "unexpected: more",
        edit_tensors(TENSORS, lambda t: t.update(more=np.ones(3, np.float32))),
    ),
    of_model("hf", f"missing: {WORD_TABLE}", edit_tensors(TENSORS, lambda t: t.pop(WORD_TABLE))),
    of_model(
        "hf",
        r"shape \(60, 15\), but the config",
        edit_tensors(TENSORS, lambda t: t.update({WORD_TABLE: t[WORD_TABLE][:, 1:].copy()})),
    ),
    of_model(
        "hf",
        "is of type int32, but must be floating",
        edit_tensors(TENSORS, lambda t: t.update({WORD_TABLE: t[WORD_TABLE].astype(np.int32)})),
    ),
    of_model("hf", "not an index of shards", remove(TENSORS), write(INDEX, '{"weight_map": 3}')),
    of_model(
        "hf",
        "names the shard 'b.safetensors', which does not exist",
        remove(TENSORS),
        write(INDEX, '{"weight_map": {"a": "b.safetensors"}}'),
    ),
    of_model(
        "hf",
        r"tokenizer .*/in: not a SentencePiece model",
        write("in/spiece.model", "x"),
    ),
    of_model(
        "hf_classifier", r"config\.json: id2label", edit_json("in/config.json", id2label=["a"])
    ),
    of_model(
        "hf_classifier",
        r"config\.json: id2label",
        edit_json("in/config.json", id2label={"one": "a", "two": "b"}),
    ),
    of_model(
        "hf_classifier",
        r"in/config\.json: id2label names 1 classes, but the model has 2",
        edit_json("in/config.json", id2label={"0": "a"}),
    ),
    of_model("tf", r"albert_config\.json:\d+: not JSON", cut("in/albert_config.json", 20)),
    of_model(
        "tf", r"albert_config\.json: must be a JSON object", write("in/albert_config.json", "3")
    ),
    of_model(
        "tf",
        r"albert_config\.json: .*hidden_size must be of type int",
        edit_json("in/albert_config.json", hidden_size="64"),
    ),
    of_model(
        "tf", "must hold one checkpoint", remove("in/checkpoint"), remove("in/model.ckpt-0.index")
    ),
    of_model("tf", "cannot be read as a checkpoint", cut("in/*.data-*", 500)),
    of_model("run", r"in/config\.json:\d+: not JSON", cut("in/config.json", 60)),
    of_model("run", r"in/config\.json: missing config", edit_json("in/config.json", config=...)),
    of_model(
        "run",
        r"in/config\.json: unknown key config\.modle",
        edit_json("in/config.json", config={"modle": {}}),
    ),
    of_model("run", "holds no complete checkpoint yet", remove("in/checkpoints")),
    of_model(
        "run",
        "does not match the model in config.json",
        edit_json("in/config.json", config={"data": {"seq_len": 64}}),
    ),
    Case(
        "convert",
        "--input {good}/hf --output {tmp}/out --to hf --step 3",
        "is not a run directory, so it has no step 3",
    ),
    Case(
        "convert",
        "--input {good}/run --output {tmp}/out --to hf --step 3",
        r"no checkpoint of step 3 in .*: \[2\]",
    ),
    Case(
        "convert",
        "--input {tmp} --output {tmp}/out --to hf",
        "is not a run directory: it has no config.json",
    ),
    Case(
        "convert",
        "--input hf:../../etc --output {tmp}/out --to hf",
        r"hf:\.\./\.\./etc: cannot be fetched from",
    ),
    Case(
        "convert",
        "--input {good}/hf_classifier --output {tmp}/out --to tf",
        "tf checkpoints have no variable for 'classifier'",
    ),
]
LOADS = [
    of_load("there is no model at", name="{tmp}/none"),
    of_load("is not a run directory", name="{tmp}"),
    of_load("is not a run directory", name="{good}/rows"),
    of_load("is not a run directory", name="{good}/config.py"),
    of_load("holds no complete checkpoint yet", copy("run", "in"), remove("in/checkpoints/2")),
    of_load(
        "cannot be read as weights only",
        copy("hf", "in"),
        remove(TENSORS),
        write("in/pytorch_model.bin", pickle.dumps({"a": 1})),
        peer="torch",
    ),
    of_load(
        "cannot be read as weights only",
        copy("hf", "in"),
        remove(TENSORS),
        write("in/pytorch_model.bin", b""),
        peer="torch",
    ),
    of_load(
        "the vocabulary has 60 tokens, but the model only 50",
        copy("hf", "in"),
        edit_json("in/config.json", vocab_size=50),
        edit_tensors(
            TENSORS,
            lambda t: t.update(
                {
                    WORD_TABLE: t[WORD_TABLE][:50].copy(),
                    "predictions.bias": t["predictions.bias"][:50].copy(),
                }
            ),
        ),
    ),
    of_load("cannot be fetched from the Hugging Face Hub", name="hf:"),
]
OTHERS = [
    Case("evaluate", "--workdir {tmp}", "is not a run directory: it has no config.json"),
    Case(
        "evaluate",
        "--workdir {good}/hf",
        r"hf/config\.json: missing config.*is this a run dir",
    ),
    Case("evaluate", "--workdir {good}/run --step 7", r"no checkpoint of step 7 in .*: \[2\]"),
    Case(
        "evaluate",
        "--workdir {tmp}/run",
        "data.path '.*gone': no such folder",
        (copy("run", "run"), lambda tmp, good: _move_rows(tmp)),
    ),
    Case(
        "evaluate",
        "--workdir {tmp}/run",
        "no (complete )?checkpoint",
        (copy("run", "run"), remove("run/checkpoints")),
    ),
    Case("inspect", "--workdir {tmp}", "is not a run directory"),
    Case("inspect", "--workdir {good}/run --step 0", "step 0"),
    Case("inspect", "--workdir {good}/run --step 3", "step 3"),
    Case("inspect", "--workdir {good}/run --row 8", "row 8"),
    Case("inspect", "--workdir {good}/run --document 999999", "document 999999"),
    Case("inspect", "--workdir {good}/run --data {tmp}", "no manifest.json in it"),
    Case("inspect", "--workdir {good}/classifier", "is a run of classification, not pretraining"),
    Case(
        "predict",
        "--checkpoint {good}/run --input {good}/examples --output {tmp}/out",
        "was not fine-tuned for a task",
    ),
    Case(
        "predict",
        "--checkpoint {good}/classifier --input {tmp} --output {tmp}/out",
        "holds none of train",
    ),
    Case(
        "predict",
        PREDICT + " --output {tmp}/out --split test",
        "--split 'test' must be one of train, validation",
    ),
    Case(
        "predict",
        "--checkpoint {good}/classifier --input {tmp}/dev.tsv --output {tmp}/out",
        r"dev\.tsv:3: invalid UTF-8",
        (write("dev.tsv", b"text\tlabel\na\tgood\n\xff\tbad\n"),),
    ),
    Case(
        "predict",
        "--checkpoint {good}/classifier --input {tmp}/dev.tsv --output {tmp}/out",
        "the model has no class 'ugly'",
        (write("dev.tsv", "text\tlabel\na\tugly\nb\tgood\n"),),
    ),
    Case(
        "train",
        f"{TRAIN} {{tmp}}/run --config.task.name=classification --config.task.data={{tmp}} "
        "--config.init_from={good}/hf --config.task.max_length=64",
        "holds none of train",
    ),
    Case("sweep", "{tmp}/none.py --output {tmp}/out", r"config file .*none\.py. does not exist"),
    Case("sweep", "{good}/config.py --output {tmp}/out --row a", "are for the paper's tables, n"),
    Case("sweep", "{good}/table.py --output {tmp}/out --try a=1", "are for configs, not for the"),
    Case("sweep", "{good}/config.py --output {tmp}/out --try a", "--try 'a' must be KEY=VALUE,V"),
    Case("sweep", "{good}/config.py --output {tmp}/out --try nokey=1", "unknown key.*nokey"),
    Case("sweep", "{good}/config.py --output {tmp}/out --jobs 0", "--jobs=0 must be at least 1"),
    Case(
        "sweep",
        "{tmp}/table.py --output {tmp}/out",
        r"table\.py:1: SyntaxError",
        (write("table.py", "ROWS = {"),),
    ),
    Case(
        "sweep",
        "{tmp}/table.py --output {tmp}/out",
        r"ROWS.*must be",
        (write("table.py", "ROWS = [1]"),),
    ),
    Case(
        "sweep", "{good}/table.py --output {tmp}/out --row none", "no row 'none'; choose from only"
    ),
]


def _move_rows(tmp: Path) -> None:
    path = tmp / "run" / "config.json"
    record = json.loads(path.read_text())
    record["config"]["data"]["path"] = str(tmp / "gone")
    path.write_text(json.dumps(record))


WRITERS = {
    "prepare": f"{PREPARE} --output",
    "train": TRAIN,
    "convert": f"{CONVERT} --output",
    "predict": f"{PREDICT} --output",
    "sweep": "{good}/table.py --output",
}
MINE = write("out/mine.txt", "keep")
FILE = write("out", "a file")
READ_FOLDER = "--input {tmp}/in --tokenizer {good}/tokenizer.model --output"
OUTPUTS = [
    Case("prepare", f"{WRITERS['prepare']} {{tmp}}/out", "is not prepared data; choose", (MINE,)),
    Case("train", f"{WRITERS['train']} {{tmp}}/out", "is not empty but has no config", (MINE,)),
    Case("convert", f"{WRITERS['convert']} {{tmp}}/out", "is not empty; choose a new", (MINE,)),
    Case("prepare", f"{WRITERS['prepare']} {{tmp}}/out", "is not prepared data; choose", (FILE,)),
    Case("train", f"{WRITERS['train']} {{tmp}}/out", "there is a file where a folder", (FILE,)),
    Case("convert", f"{WRITERS['convert']} {{tmp}}/out", "is not empty; choose a new", (FILE,)),
    Case("predict", f"{WRITERS['predict']} {{tmp}}/out", "file exists; choose another", (FILE,)),
    Case("sweep", f"{WRITERS['sweep']} {{tmp}}/out", "file exists; choose another", (FILE,)),
    *(
        Case(command, f"{words} {{tmp}}/out/deep/er", "there is a file where a folder", (FILE,))
        for command, words in WRITERS.items()
    ),
    *(
        Case(command, f"{words} {{tmp}}/{'x' * 300}", "file name too long; choose a shorter")
        for command, words in WRITERS.items()
    ),
    Case(
        "prepare",
        f"{READ_FOLDER} {{tmp}}/in/rows",
        "rows: is inside the input .*in and would become part of it; choose another",
        (copy("texts.jsonl", "in/a.jsonl"),),
    ),
    Case(
        "prepare",
        f"{READ_FOLDER} {{tmp}}/in",
        "in: exists but is not prepared data; choose another --output",
        (copy("texts.jsonl", "in/a.jsonl"),),
    ),
]
QUICK = [*CONFIGS, *OVERRIDES, *CORPORA, *TOKENIZERS, *ROWS]
SLOW = [*MODELS, *LOADS, *OTHERS, *OUTPUTS]  # they need models


def as_parameter(case: Case, is_slow: bool) -> Any:
    marks = [getattr(pytest.mark, name) for name in ("slow" * is_slow, case.peer) if name]
    return pytest.param(case, marks=marks, id=f"{case.command}-{case.message[:40]}")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory, text_folder: Path) -> Path:
    return make_texts(tmp_path_factory.mktemp("texts"), text_folder)


@pytest.fixture(scope="module")
def models(
    tmp_path_factory: pytest.TempPathFactory, text_folder: Path, pytestconfig: pytest.Config
) -> Path:
    return make_models(tmp_path_factory.mktemp("models"), text_folder, pytestconfig.option.peer)


@pytest.fixture
def good(request: pytest.FixtureRequest) -> Path:
    """Sound input; for a slow test models too."""
    is_slow = request.node.get_closest_marker("slow")
    return request.getfixturevalue("models" if is_slow else "texts")


def words_of(case: Case, tmp: Path, good: Path) -> list[str]:
    return [w.replace("{tmp}", str(tmp)).replace("{good}", str(good)) for w in case.words.split()]


def check(case: Case, code: int, said: str) -> None:
    """Checks what a command said on standard error."""
    assert code == 1, said
    *progress, last = said.splitlines()
    assert last.startswith("error: "), said
    assert all(re.match(r"reading .* MB$", line) for line in progress), said
    assert re.search(case.message, last), last


@pytest.mark.parametrize(
    "case", [as_parameter(c, False) for c in QUICK] + [as_parameter(c, True) for c in SLOW]
)
def test_bad_input_is_one_line_and_leaves_nothing(case, good, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for change in case.changes:
        change(tmp_path, good)
    before = snapshot(tmp_path), snapshot(good)
    code = MAINS[case.command](words_of(case, tmp_path, good))
    check(case, code, capsys.readouterr().err)
    assert (snapshot(tmp_path), snapshot(good)) == before


@pytest.mark.slow
@pytest.mark.parametrize("command", WRITERS)
def test_a_read_only_place_is_told(command, good, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "place"
    place.mkdir()
    message = "place.*: read-only file system; choose a writable place"
    case = Case(command, f"{WRITERS[command]} {{tmp}}/place/out", message)
    before = snapshot(tmp_path), snapshot(good)
    with read_only(place):
        code = MAINS[command](words_of(case, tmp_path, good))
    check(case, code, capsys.readouterr().err)
    assert (snapshot(tmp_path), snapshot(good)) == before


FORBIDDEN = [
    Case(
        "prepare", "--input {tmp}/a.txt --output {tmp}/out", r"a\.txt: permission denied; choose"
    ),
    Case("prepare", "--input {tmp}/deep --output {tmp}/out", "closed: permission denied; choose"),
    Case("train", "--config {tmp}/a.py --workdir {tmp}/out", r"a\.py.*[Pp]ermission"),
    Case("evaluate", "--workdir {tmp}/run", r"config\.json: permission denied"),
    Case("sweep", "{tmp}/a.py --output {tmp}/out", r"a\.py.*[Pp]ermission"),
]


@pytest.mark.parametrize("case", FORBIDDEN, ids=[f"{c.command}-{c.message}" for c in FORBIDDEN])
def test_what_may_not_be_read_is_told(case, capsys, monkeypatch):
    # Not `tmp_path`: pytest's folders are closed to other users, as whom this runs in part.
    with tempfile.TemporaryDirectory() as name:
        tmp = Path(name)
        tmp.chmod(0o777)
        monkeypatch.chdir(tmp)
        for file in ("a.txt", "a.py", "run/config.json", "deep/closed/a.txt", "deep/open.txt"):
            write(file, "ROWS = {}")(tmp, tmp)
        for closed in ("a.txt", "a.py", "run/config.json", "deep/closed"):
            (tmp / closed).chmod(0)
        before = snapshot(tmp)
        with as_nobody():
            code = MAINS[case.command](words_of(case, tmp, tmp))
        check(case, code, capsys.readouterr().err)
        (tmp / "deep" / "closed").chmod(0o700)
        assert snapshot(tmp) == before


USAGE = [
    ("prepare", "--output out"),
    ("prepare", "--input a --output out --seq_len many"),
    ("prepare", "--input a --output out --tokenizer x --vocab_size 9"),
    ("train", "--workdir out"),
    ("evaluate", "--workdir out --step two"),
    ("convert", "--input a --output out --to onnx"),
    ("inspect", "--workdir out --row x"),
    ("sweep", "table --scale huge"),
]


@pytest.mark.parametrize(("command", "words"), USAGE)
def test_wrong_words_end_in_the_usage(command, words, tmp_path, capsys, monkeypatch):
    """As argparse has it: the usage, then one line of error, code 2."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        MAINS[command](words.split())
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("usage: ")
    assert len(re.findall("^.*error: .*$", said, re.MULTILINE)) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", [name for name in MAINS if name != "load"])
def test_as_a_process(command, good, tmp_path, repo_root):
    """One case of each command as users start it: nothing is said but what the table says."""
    case = next(c for c in reversed(QUICK + SLOW) if c.command == command and not c.peer)
    for change in case.changes:
        change(tmp_path, good)
    before = snapshot(tmp_path)
    words = [sys.executable, "-m", f"albert_jax.{command}", *words_of(case, tmp_path, good)]
    env = os.environ | {"PYTHONPATH": str(repo_root)}
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=tmp_path, env=env, check=False
    )
    check(case, done.returncode, done.stderr)
    assert snapshot(tmp_path) == before


def prepared(tmp_path: Path, good: Path, inputs: str, *more: str) -> tuple[dict, str]:
    """The manifest of what is prepared, and the text of all its documents in order."""
    words = ["--input", inputs, "--tokenizer", str(good / "tokenizer.model"), "--seq_len", "64"]
    words += ["--output", str(tmp_path / "out"), "--validation_fraction", "0.3", *more]
    assert prepare.main([*words, "--num_workers", "1"]) == 0
    tokenizer = load_tokenizer(tmp_path / "out" / "tokenizer.model")
    pieces: dict[int, list[int]] = {}
    for split in ("train", "validation"):
        rows = open_rows(tmp_path / "out", split)
        for row in (rows[i] for i in range(len(rows))):
            ends = np.cumsum(row["sentence_lengths"], dtype=int)[
                np.cumsum(row["chunk_sentences"], dtype=int) - 1
            ]
            for document, part in zip(
                row["chunk_documents"], np.split(row["pieces"], ends[:-1]), strict=True
            ):
                pieces.setdefault(int(document), []).extend(part.tolist())
    texts = [tokenizer.decode(pieces[document]) for document in sorted(pieces)]
    return json.loads((tmp_path / "out" / "manifest.json").read_text()), " ".join(texts)


SOME = [f"{make_sentence(random.Random(i), 4, 9)}" for i in range(30)]
ODD_TEXTS = {
    "NULs": ["\0" + s.replace(" ", "\0 ", 1) for s in SOME],
    "control characters": [s.replace(" ", " \x07\x1b", 1) for s in SOME],
    "a line of two megabytes": [*SOME, " ".join(SOME * 1000)],
    "no space in 100 kB": [*SOME, "morpax" * 17_000],
    "carriage returns": [s + "\r" for s in SOME],
    "a byte-order mark": ["\ufeff" + SOME[0], *SOME[1:]],
    "unassigned characters": [s + " \U000e0fff\uffff" for s in SOME],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ODD_TEXTS)
def test_odd_text_is_text(kind, good, tmp_path):
    """What is legal, if odd, is read; all of its words arrive, and are counted."""
    lines = ODD_TEXTS[kind]
    (tmp_path / "in").mkdir()
    for i, line in enumerate(lines):
        (tmp_path / "in" / f"{i:02}.txt").write_text(line + "\n", "utf-8")
    manifest, text = prepared(tmp_path, good, str(tmp_path / "in"), "--keep_duplicates")
    assert manifest["documents"] == len(lines)
    assert sum(manifest["pieces"].values()) > 0
    words = re.findall("[a-z]+", " ".join(lines).lower())
    # Chunks of one document may lie in rows in any order.
    assert sorted(re.findall("[a-z]+", text)) == sorted(words)


@pytest.mark.slow
def test_links_between_folders_are_followed_once(good, tmp_path):
    for i, sentence in enumerate(SOME):
        write(f"{'in' if i % 2 else 'elsewhere'}/{i:02}.txt", sentence)(tmp_path, good)
    link("in/more", "{tmp}/elsewhere")(tmp_path, good)
    link("in/again", "{tmp}/in")(tmp_path, good)  # leads back
    for inputs in (f"{tmp_path}/in", f"{tmp_path}/in/**/*.txt"):
        manifest, _ = prepared(tmp_path, good, inputs, "--keep_duplicates")
        assert manifest["documents"] == len(SOME)
        shutil.rmtree(tmp_path / "out")


def test_the_last_of_two_overrides_counts(good):
    words = ["--config.train.seed=1", "--config.train.seed", "2"]
    assert load_config(str(good / "config.py"), words).train.seed == 2


def test_rows_of_a_larger_vocabulary_are_refused(good, tmp_path):
    """Where manifest and tokenizer agree, and only the rows give it away."""
    copy("rows", "rows")(tmp_path, good)
    train_tokenizer(SOME * 9, tmp_path / "rows" / "tokenizer.model", 45)
    tokenizer = load_tokenizer(tmp_path / "rows" / "tokenizer.model")
    changes = {"vocab_size": 45, "tokenizer_sha256": tokenizer.sha256}
    edit_json("rows/manifest.json", **changes)(tmp_path, good)
    rows = Rows(DataConfig(path=str(tmp_path / "rows"), seq_len=64), "train")
    with pytest.raises(
        ValueError, match=r"row 0 holds piece (4[5-9]|5\d), but the vocabulary has 45"
    ):
        rows.make_example(0, 0, 0)
