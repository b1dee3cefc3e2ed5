"""Damaged files of rows are errors that name them, as early as they can be known."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.runs import error_line
from support.tiny_runs import tiny_settings, write_config

from albert_jax.data.row_reader import DamagedRowsError, open_rows
from albert_jax.train.__main__ import main


@pytest.fixture
def rows(rows: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(rows, tmp_path / "rows"))


def shard(rows: Path, split: str) -> Path:
    (path,) = rows.glob(f"*{split}.array_record*")
    return path


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def swap(path: Path) -> None:
    """Another whole file of rows takes its place."""
    other = "validation" if "train" in path.name else "train"
    path.write_bytes(shard(path.parent, other).read_bytes())


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "lost": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": halve,
    "longer": lengthen,
    "another": swap,
}


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("how", DAMAGES)
def test_a_file_that_is_not_whole_is_refused_before_anything_is_written(
    rows, tmp_path, capsys, how, split
):
    path = shard(rows, split)
    DAMAGES[how](path)
    write_config(tmp_path / "some.py", tiny_settings(rows))
    workdir = tmp_path / "run"
    assert main(["--config", str(tmp_path / "some.py"), "--workdir", str(workdir)]) == 1
    line = error_line(capsys.readouterr().err)
    assert line.startswith(f"error: {path} is damaged: ")
    assert "prepare the data again" in line
    assert not workdir.exists()


def test_no_flipped_bit_changes_a_row_unnoticed(text_folder, rows):
    """Bits all over the file: each row reads as before, or is an error that names the file."""
    path, draw = shard(rows, "train"), np.random.default_rng(0)
    before, expected = path.read_bytes(), read_all(text_folder / "rows")
    assert not any(isinstance(row, str) for row in expected)
    errors = 0
    for place in draw.integers(len(before), size=60).tolist():
        data = bytearray(before)
        data[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(data)
        found = read_all(rows)
        named = [row for row in found if isinstance(row, str)]
        assert all(text.startswith(f"{path} is damaged: ") for text in named)
        if len(found) == len(expected):
            assert all(a == b for a, b in zip(found, expected, strict=True) if a not in named)
        else:
            assert found == named
            assert len(named) == 1  # the file could not be opened
        errors += bool(named)
    assert errors > 20


def read_all(folder: Path) -> list[Any]:
    """Every training row, or what is said in its place."""
    try:
        source = open_rows(folder, "train")
    except DamagedRowsError as error:
        return [str(error)]
    return [read_one(source, i) for i in range(len(source))]


def read_one(source: Any, i: int) -> Any:
    try:
        return {name: values.tolist() for name, values in source[i].items()}
    except DamagedRowsError as error:
        return str(error)


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize(
    "num_workers", [0, pytest.param(2, marks=pytest.mark.slow)], ids=["threads", "processes"]
)
def test_a_flipped_bit_ends_the_run_in_a_line(rows, tmp_path, capsys, split, num_workers):
    path = shard(rows, split)
    data = bytearray(path.read_bytes())
    for place in range(2000, len(data) // 2, 200):  # in the data of many rows
        data[place] ^= 4
    path.write_bytes(data)
    settings = tiny_settings(rows, data={"num_workers": num_workers}, train={"eval_every": 1})
    write_config(tmp_path / "some.py", settings)
    assert main(["--config", str(tmp_path / "some.py"), "--workdir", str(tmp_path / "run")]) == 1
    line = error_line(capsys.readouterr().err)
    assert line.startswith(f"error: {path} is damaged: ")
    assert re.search(r"mismatch|Corrupted", line)
