"""Config files, overrides, and the refusal of what cannot work.

More refusals, as a command says them, are in faults/test_bad_input.py.
"""

import dataclasses
from pathlib import Path

import pytest
from ml_collections import ConfigDict
from support.paths import ROOT

from albert_jax.config import Config, MeshConfig, config_from_dict, default_config
from albert_jax.config.load import find_config, load_config
from albert_jax.config.presets import albert_preset, bert_preset
from albert_jax.model.sharding import mesh_sizes, validate_for_devices

FILES = sorted((ROOT / "configs").glob("*.py"))


@pytest.fixture
def config_file(tmp_path: Path) -> str:
    file = tmp_path / "some.py"
    file.write_text(
        "from albert_jax.config import default_config\n"
        "def get_config(steps='9000'):\n"
        "    config = default_config()\n"
        "    config.train.num_steps = int(steps)\n"
        "    return config\n"
    )
    return str(file)


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_config_files_load_and_are_documents(file):
    config = load_config(str(file))
    assert config.data.path
    text = file.read_text()
    assert text.startswith('"""')
    assert f"--config configs/{file.name}" in text


def test_the_home_directory_is_expanded_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text(
        "from albert_jax.config import default_config\nget_config = default_config\n"
    )
    words = [f"--config.{name}=~/x" for name in ("data.path", "task.data", "task.tokenizer")]
    config = load_config("~/mine.py", [*words, "--config.init_from=~/y"])
    home = str(tmp_path)
    assert config.data.path == config.task.data == config.task.tokenizer == f"{home}/x"
    assert config.init_from == f"{home}/y"
    assert load_config("~/mine.py", ["--config.task.data=tfds:~/x"]).task.data == "tfds:~/x"


def test_a_config_of_the_package_is_named_where_its_file_is_not_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("configs/tiny.py", "tiny.py", "configs/finetune/sst2.py"):
        known = name.removeprefix("configs/").removesuffix(".py")
        with pytest.raises(FileNotFoundError, match=f"here; '{known}' without .py is the inst"):
            load_config(name)
        load_config(known)


def test_versions_are_an_argument():
    base = str(FILES[0].parent / "base.py")
    assert load_config(base).model.hidden_dropout_prob == 0.0
    assert load_config(f"{base}:v1").model.hidden_dropout_prob == 0.1
    with pytest.raises(ValueError, match="versions are v1, v2"):
        load_config(f"{base}:v3")
    assert albert_preset("xxlarge", "v1")["hidden_dropout_prob"] == 0
    with pytest.raises(ValueError, match="sizes are base, large"):
        bert_preset("xlarge")


def test_our_files_go_by_their_names_from_anywhere(tmp_path, monkeypatch):
    folder = FILES[0].parent
    monkeypatch.chdir(tmp_path)
    assert load_config("base:v1") == load_config(f"{folder}/base.py:v1")
    assert load_config("finetune/sst2") == load_config(f"{folder}/finetune/sst2.py")
    assert find_config("paper/table5") == str(folder / "paper/table5.py")
    (tmp_path / "tiny.py").write_text("x = 1\n")
    assert find_config("tiny") == str(folder / "tiny.py")
    assert find_config("tiny.py") == "tiny.py"
    for name, known in (("tinny", "did you mean 'tiny'"), ("x", "known: base, .*finetune/cola")):
        with pytest.raises(FileNotFoundError, match=rf"'{name}' does not exist; {known}"):
            load_config(name)


def test_overrides(config_file):
    words = [
        "--config.train.batch_size=64",
        "--config.optimizer.learning_rate", "3",
        "--config.data.packing=false",
        "--config.model.share=ffn",
        "--config.mesh.data=-1",
    ]  # fmt: skip
    config = load_config(config_file, words)
    assert config.train.batch_size == 64
    assert config.optimizer.learning_rate == 3.0
    assert isinstance(config.optimizer.learning_rate, float)
    assert config.data.packing is False
    assert (config.model.share, config.mesh.data) == ("ffn", -1)
    assert load_config(f"{config_file}:7000").train.num_steps == 7000


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--config.trian.batch_size=3", r"unknown key config\.trian; did you mean 'train'"),
        ("--config.train.batch_size.x=3", r"unknown key config\.train\.batch_size"),
        ("--config.train.batch_size=1.5", r"must be int, not '1\.5'"),
        ("--config.data.packing=maybe", r"config\.data\.packing must be true or false"),
        ("--config.model=3", r"config\.model is a group of settings"),
        ("--config.model.share=al", r"share must be one of .* did you mean 'all'"),
        ("--config.optimizer.learning_rate=nan", r"learning_rate must be finite"),
        ("--config.model.num_attention_heads=7", r"hidden_size=768 is not divisible .*heads=7"),
        (
            "--config.model.num_hidden_groups=13",
            r"num_hidden_groups=13 must not exceed .*layers=12",
        ),
        ("--config.data.seq_len=1024", r"seq_len=1024 must not exceed .*embeddings=512"),
        ("--config.train.grad_accum_steps=3", r"batch_size=4096 is not divisible .*accum_steps=3"),
        ("--config.train.batch_size=0", r"train\.batch_size=0 must be from 1 to 2147483647"),
        ("--config.data.mask_rate=1.5", r"data\.mask_rate=1\.5 must be"),
        ("--config.model.hidden_dropout_prob=1", r"hidden_dropout_prob=1\.0 must be"),
        ("--config.train.seed=-1", r"train\.seed=-1 must be"),
    ],
)
def test_wrong_settings_are_refused_by_name(config_file, word, message):
    with pytest.raises(ValueError, match=message):
        load_config(config_file, [word])


def test_options_are_plain_values_of_any_name(config_file):
    words = ["--config.optimizer.options.a=3", "--config.optimizer.options.b=0.5"]
    words += ["--config.optimizer.options.c=true", "--config.optimizer.options.d=bfloat16"]
    options = load_config(config_file, words).optimizer.options
    assert options == {"a": 3, "b": 0.5, "c": True, "d": "bfloat16"}
    assert {type(value) for value in options.values()} == {int, float, bool, str}
    for word, message in {
        "--config.optimizer.options.a.b=1": r"unknown key config.optimizer.options.a.b; options",
        "--config.optimizer.options.a=nan": "options.a must be a finite number",
        "--config.optimizer.options=1": "options",
    }.items():
        with pytest.raises(ValueError, match=message):
            load_config(config_file, [word])


def test_cudnn_is_refused_where_it_cannot_compute(config_file):
    words = ["--config.train.attention=cudnn", "--config.train.dtype=float32"]
    load_config(config_file, words[:1])  # bfloat16 is the default
    with pytest.raises(
        ValueError, match=r"attention='cudnn' does not support train\.dtype='float32'"
    ):
        load_config(config_file, words)


def test_a_bool_is_no_int():
    with pytest.raises(ValueError, match=r"must be of type int, not bool"):
        config_from_dict({"train": {"batch_size": True}})


def test_round_trip():
    assert config_from_dict(Config().to_dict()) == Config()
    assert isinstance(default_config(), ConfigDict)
    assert config_from_dict(default_config().to_dict()) == Config()


def test_mesh_sizes():
    assert mesh_sizes(MeshConfig(), 8) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert mesh_sizes(MeshConfig(data=2, fsdp=-1, tensor=2), 8)["fsdp"] == 2
    for mesh, message in (
        (MeshConfig(data=3), "does not fit 8"),
        (MeshConfig(data=-1, fsdp=3), "does not fit 8"),
        (MeshConfig(data=-1, fsdp=-1), "both -1"),
        (MeshConfig(data=0), "must be positive"),
        (MeshConfig(data=4, fsdp=1), "does not fit 8"),
    ):
        with pytest.raises(ValueError, match=message):
            mesh_sizes(mesh, 8)


def changed(**groups: dict) -> Config:
    return config_from_dict(groups)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed(train={"batch_size": 12}), r"batch_size=12 .* data·fsdp=8; make it a multiple"),
        (changed(train={"batch_size": 16, "grad_accum_steps": 4}), r"is 4 rows, .*multiple of 32"),
        (changed(mesh={"tensor": 8}), r"num_attention_heads=12 does not divide .*tensor=8"),
        (
            changed(mesh={"tensor": 4}, model={"vocab_size": 30001}),
            r"vocab_size=30001 does not divide",
        ),
    ],
)
def test_what_does_not_divide_over_the_mesh_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        validate_for_devices(config, 8)
    validate_for_devices(dataclasses.replace(config, mesh=MeshConfig()), 1)
