"""The reader of parallel texts: what people bring, and what is refused."""

import json
from pathlib import Path

import pytest

from albert_jax.tasks.readers.parallel import read_parallel
from albert_jax.tasks.registry import read_task, spec_of

NAME = "translation/en-de"
EN, DE = ["a dog", "two cats", "one bird"], ["ein Hund", "zwei Katzen", "ein Vogel"]


def write(path: Path, lines: list[str], end: str = "\n") -> None:
    path.write_text("".join(line + end for line in lines), "utf-8", newline="")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split in ("train", "val", "test_2016"):
        write(tmp_path / f"{split}.en", EN)
        write(tmp_path / f"{split}.de", DE)
    return tmp_path


def texts(data, split: str = "train") -> list[tuple[str, str | None]]:
    return [(e.source, e.target) for e in data.splits[split]]


def test_two_files_of_lines_in_either_direction(folder):
    data = read_task(NAME, folder)
    assert list(data.splits) == ["train", "validation", "test_2016"]
    assert texts(data) == list(zip(EN, DE, strict=True))
    back = read_task("translation/de-en", folder)
    assert texts(back, "validation") == list(zip(DE, EN, strict=True))


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl", "json"])
def test_tables_of_pairs(tmp_path, kind, inner):
    pairs = [{"en": e, "de": d} for e, d in zip(EN, DE, strict=True)]
    if kind in ("jsonl", "json"):
        rows = [{"translation": pair} if inner else pair for pair in pairs]
        text = json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows))
    else:
        between = {"tsv": "\t", "csv": ","}[kind]
        text = "\n".join(between.join(row) for row in [("en", "de"), *zip(EN, DE, strict=True)])
    (tmp_path / f"train.{kind}").write_text(text)
    assert texts(read_parallel(NAME, str(tmp_path))) == list(zip(EN, DE, strict=True))


def test_line_ends_and_unusual_characters_stay_in_step(tmp_path):
    write(tmp_path / "train.en", ["a\u2028b", "c\x85d", "e\x0cf"], "\r\n")
    write(tmp_path / "train.de", ["1", "2", "3"])
    data = read_parallel(NAME, str(tmp_path))
    assert texts(data) == [("a\u2028b", "1"), ("c\x85d", "2"), ("e\x0cf", "3")]


def test_blank_sides_are_left_out_of_training_and_counted(tmp_path):
    write(tmp_path / "train.en", ["a", "", "c", " "])
    write(tmp_path / "train.de", ["1", "2", "", "4"])
    data = read_parallel(NAME, str(tmp_path))
    assert texts(data) == [("a", "1")]
    assert any("3 pairs left out" in note for note in data.notes)


def test_a_blank_side_elsewhere_is_named(tmp_path):
    write(tmp_path / "val.en", ["a", "b"])
    write(tmp_path / "val.de", ["1", ""])
    with pytest.raises(ValueError, match=r"val.en:2: a side is blank"):
        read_parallel(NAME, str(tmp_path))


def test_different_numbers_of_lines_are_refused(tmp_path):
    write(tmp_path / "train.en", EN)
    write(tmp_path / "train.de", DE[:2])
    with pytest.raises(ValueError, match=r"train.en has 3 lines, but .*train.de 2"):
        read_parallel(NAME, str(tmp_path))


def test_a_file_to_translate_keeps_every_line(tmp_path):
    write(tmp_path / "news.txt", ["a", "", "b"])
    data = read_parallel(NAME, str(tmp_path / "news.txt"), to_predict=True)
    assert texts(data, next(iter(data.splits))) == [("a", None), ("", None), ("b", None)]


def test_a_file_beside_its_translation_is_read_with_it(folder):
    path = str(folder / "test_2016.en")
    data = read_parallel(NAME, path, to_predict=True)
    assert texts(data, "test_2016") == list(zip(EN, DE, strict=True))


def test_a_file_in_the_other_language_is_refused(tmp_path):
    write(tmp_path / "news.de", DE)
    with pytest.raises(ValueError, match="translates from en"):
        read_parallel(NAME, str(tmp_path / "news.de"), to_predict=True)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds neither"),
        ({"train.en": "a\n"}, "translations are missing"),
        ({"train.tsv": "en\tfr\na\tb\n"}, "no text under 'de'"),
        ({"train.jsonl": '{"en": "a", "de": 3}\n'}, "no text under 'de'"),
        ({"train.en": "a\n", "train.de": "1\n", "train.tsv": "en\tde\na\t1\n"}, "keep one"),
        ({"train.en": " \n", "train.de": "1\n"}, "file is empty"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_parallel(NAME, str(tmp_path))


@pytest.mark.parametrize("name", ["translation/", "translation/en", "translation/EN-DE"])
def test_a_task_is_named_after_two_languages(name):
    with pytest.raises(ValueError, match="such as translation/en-de"):
        spec_of(name)


def test_a_test_file_needs_no_translations(folder):
    (folder / "test_2016.de").unlink()
    data = read_parallel(NAME, str(folder))
    assert texts(data, "test_2016") == [(text, None) for text in EN]


def test_codes_of_regions_keep_their_capitals(tmp_path):
    for split in ("train", "val", "test"):
        write(tmp_path / f"{split}.pt_BR", EN)
        write(tmp_path / f"{split}.en", DE)
    data = read_parallel("translation/pt_BR-en", str(tmp_path))
    assert texts(data) == list(zip(EN, DE, strict=True))
    data = read_parallel("translation/pt_BR-en", str(tmp_path / "test.pt_BR"), to_predict=True)
    assert texts(data, "test") == list(zip(EN, DE, strict=True))


def test_two_files_of_a_test_split_are_refused(folder):
    (folder / "test_2016.tsv").write_text("en\tde\na\tb\n")
    with pytest.raises(ValueError, match=r"both test_2016.en and test_2016.tsv .* keep one"):
        read_parallel(NAME, str(folder))


def test_some_missing_translations_are_counted(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"en": "a", "de": "b"}\n{"en": "c", "de": null}\n')
    data = read_parallel(NAME, str(tmp_path / "x.jsonl"), to_predict=True)
    assert texts(data, "x") == [("a", "b"), ("c", None)]
    assert any("1 of 2 have no translation" in note for note in data.notes)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        read_task(NAME, tmp_path / "absent")
