"""Fine-tuning data from TFDS: local sets with the features of TFDS's own."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from albert_jax.data import tfds as tfds_splits
from albert_jax.tasks.examples import Answer, PairExample, TextExample
from albert_jax.tasks.readers.clue import XNLI_LANGUAGES
from albert_jax.tasks.registry import read_task

Text, Sequence, ClassLabel = tfds.features.Text, tfds.features.Sequence, tfds.features.ClassLabel
# Source: tensorflow_datasets 4.9.10.
VERSIONS = {
    "xnli": "1.1.0",
    "glue": "2.0.0",
    "squad": "3.0.0",
    "race": "2.0.0",
    "conll2003": "1.0.0",
}
NLI = ClassLabel(names=["entailment", "neutral", "contradiction"])
GLUE_PAIR = {"sentence1": Text(), "sentence2": Text(), "idx": np.int32}
SQUAD = {
    "id": np.str_,
    "title": Text(),
    "context": Text(),
    "question": Text(),
    "answers": Sequence({"text": Text(), "answer_start": np.int32}),
}
RACE = {
    "article": Text(),
    "questions": Sequence(Text()),
    "answers": Sequence(Text()),
    "options": Sequence(Sequence(Text())),
    "example_id": Text(),
}
TAGS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
CONLL = {
    "tokens": Sequence(Text()),
    "pos": Sequence(ClassLabel(names=["NN"])),
    "chunks": Sequence(ClassLabel(names=["O"])),
    "ner": Sequence(ClassLabel(names=TAGS)),
}


def make(data_dir, name, features, file_format="array_record", **splits):
    name, _, config = name.partition("/")
    version = VERSIONS.get(name, "1.0.0")
    folder = data_dir / name / config / version
    folder.mkdir(parents=True)
    identity = tfds.core.DatasetIdentity(
        name=name,
        version=tfds.core.Version(version),
        data_dir=str(folder),
        module_name="x",
        config_name=config or None,
    )
    info = tfds.core.DatasetInfo(
        builder=identity, features=tfds.features.FeaturesDict(features), description="x"
    )
    writer = tfds.core.SequentialWriter(info, 1000, file_format=file_format)
    writer.initialize_splits(list(splits))
    writer.add_examples(splits)
    writer.close_all()


def read(task, source, data_dir):
    return read_task(task, f"tfds:{source}", str(data_dir))


def test_glue(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_splits, "WINDOW", 2)
    nli = {"premise": Text(), "hypothesis": Text(), "label": NLI, "idx": np.int32}
    rows = [
        {"premise": f"P{i}é", "hypothesis": "H", "label": i % 3, "idx": 9 - i} for i in range(5)
    ]
    unlabelled = [row | {"label": -1} for row in rows]
    make(tmp_path, "glue/mnli", nli, train=rows, validation_matched=rows, test_matched=unlabelled)
    data = read("glue/mnli", "glue/mnli", tmp_path)
    assert data.labels == ("entailment", "neutral", "contradiction")
    assert list(data.splits) == ["train", "validation_matched", "test_matched"]
    assert data.splits["train"][1] == TextExample("8", "P1é", "H", 1)
    assert [e.label for e in data.splits["train"]] == [0, 1, 2, 0, 1]
    assert [e.label for e in data.splits["test_matched"]] == [None] * 5
    make(tmp_path, "glue/ax", nli, test=unlabelled[:1])
    ax = TextExample("9", "P0é", "H", None)
    assert read("glue/ax", "glue/ax", tmp_path) == ({"test": [ax]}, data.labels, ())
    with pytest.raises(ValueError, match=r"tfds:glue/ax: no feature 'sentence1' \(has: .*premise"):
        read("glue/rte", "glue/ax", tmp_path)


def test_glue_scores_and_blanks(tmp_path):
    row = {"sentence1": "A", "sentence2": "B", "idx": 0}
    scored, unscored = row | {"label": 2.5}, row | {"label": -1.0}
    features = {**GLUE_PAIR, "label": np.float32}
    make(tmp_path, "glue/stsb", features, train=[scored], test=[unscored])
    data = read("glue/stsb", "glue/stsb:2.0.0", tmp_path)
    assert data.splits == {
        "train": [TextExample("0", "A", "B", 2.5)],
        "test": [TextExample("0", "A", "B", None)],
    }
    with pytest.raises(ValueError, match="the classes are scores, not those of glue/rte"):
        read("glue/rte", "glue/stsb", tmp_path)
    names = ClassLabel(names=["not_duplicate", "duplicate"])
    qqp = {"question1": Text(), "question2": Text(), "label": names, "idx": np.int32}
    row = {"question1": "A", "question2": "", "label": 1, "idx": 3}
    make(tmp_path, "glue/qqp", qqp, train=[row])
    data = read("glue/qqp", "glue/qqp", tmp_path)
    assert data.splits["train"] == [TextExample("3", "A", "", 1)]


def test_squad(tmp_path):
    answered = {
        "id": "a",
        "title": "T",
        "context": "Öne two.",
        "question": "?",
        "answers": {"text": ["two", "Öne"], "answer_start": [3, 0]},
    }
    make(tmp_path, "squad/v1.1", SQUAD, train=[answered])
    data = read("squad/v1.1", "squad/v1.1", tmp_path)
    [example] = data.splits["train"]
    assert example == ("a", "T", "Öne two.", "?", (Answer("two", 4), Answer("Öne", 0)))
    [note] = data.notes
    assert note.startswith("tfds:squad/v1.1 train: 1 answers were not at their answer_start")
    none = {"text": [], "answer_start": []}
    plausible = {"plausible_answers": {"text": ["One"], "answer_start": [0]}}
    rows = [
        answered | {"is_impossible": False, "plausible_answers": none},
        answered | {"id": "b", "is_impossible": True, "answers": none} | plausible,
    ]
    v2 = {"is_impossible": np.bool_, "plausible_answers": SQUAD["answers"]}
    make(tmp_path, "squad/v2.0", SQUAD | v2, train=rows, validation=rows)
    data = read("squad/v2.0", "squad/v2.0", tmp_path)
    assert [e.id for e in data.splits["validation"]] == ["a", "b"]
    assert [len(e.answers) for e in data.splits["validation"]] == [2, 0]
    with pytest.raises(ValueError, match=r"v2.0 train:1.*question b\): is_impossible does"):
        read("squad/v1.1", "squad/v2.0", tmp_path)


@pytest.mark.slow
@pytest.mark.tensorflow  # TFDS writes lists of lists of text by it
def test_race(tmp_path):
    for level in ("middle", "high"):
        row = {
            "article": "Text.",
            "questions": ["Q?", "R?"],
            "answers": ["D", "A"],
            "options": [["a", "b", "c", "d"]] * 2,
            "example_id": f"{level}1.txt",
        }
        make(tmp_path, f"race/{level}", RACE, train=[row], dev=[row])
    middle = read("race/middle", "race", tmp_path)
    assert list(middle.splits) == ["train", "validation"]
    first, second = middle.splits["train"]
    assert first == ("middle1.txt-0", "Text.", "Q?", ("a", "b", "c", "d"), 3)
    assert (second.id, second.label) == ("middle1.txt-1", 0)
    both = read("race", "race:2.0.0", tmp_path).splits["validation"]
    assert [e.id[:-6] for e in both] == ["middle1", "middle1", "high1", "high1"]
    assert read("race/high", "race/high", tmp_path) == read("race", "race/high", tmp_path)
    with pytest.raises(
        ValueError, match="tfds:race/high: does not match the task race/middle; use tfds:race"
    ):
        read("race/middle", "race/high", tmp_path)


def tagged(words, tags):
    zeros = [0] * len(words)
    return {"tokens": words, "pos": zeros, "chunks": zeros, "ner": tags}


def test_conll(tmp_path):
    rows = [tagged(["Ann", "Lee", "ran"], [1, 2, 0]), tagged(["UN"], [3])]
    empty = tagged([], [])
    make(tmp_path, "conll2003/conll2003", CONLL, train=[*rows, empty], dev=rows[:1])
    data = read("conll2003", "conll2003", tmp_path)
    assert data.labels == ("O", "B-ORG", "I-ORG", "B-PER", "I-PER")
    assert data.splits["train"] == [
        ("0", ("Ann", "Lee", "ran"), (3, 4, 0)),
        ("1", ("UN",), (1,)),
    ]
    assert list(data.splits) == ["train", "validation"]


def test_any_set_with_text_and_label(tmp_path):
    named = {"text": Text(), "label": ClassLabel(names=["neg", "pos"])}
    row = {"text": "A", "label": 1}
    make(tmp_path, "reviews", named, train=[row, row], unsupervised=[row | {"label": -1}])
    data = read("classification", "reviews", tmp_path)
    assert data.splits == {"train": [TextExample(str(i), "A", None, 1) for i in range(2)]}
    assert data.labels == ("neg", "pos")
    assert data.notes == ("tfds:reviews: skipped splits: unsupervised",)
    numbers = {"sentence": Text(), "sentence2": Text(), "label": np.int64}
    rows = [{"sentence": "A", "sentence2": "B", "label": label} for label in (10, 9)]
    make(tmp_path, "pairs", numbers, train=rows)
    data = read("classification", "pairs", tmp_path)
    assert data.labels == ("9", "10")
    assert data.splits["train"][0] == TextExample("0", "A", "B", 1)
    scored = {"text": Text(), "score": np.float32}
    make(tmp_path, "scores", scored, train=[{"text": "A", "score": s} for s in (-1.0, np.nan)])
    with pytest.raises(ValueError, match="tfds:scores train:1: score nan is not a finite number"):
        read("regression", "scores", tmp_path)
    with pytest.raises(ValueError, match=r"tfds:scores: needs one feature 'label' \(has: "):
        read("classification", "scores", tmp_path)
    with pytest.raises(ValueError, match="tfds:reviews: feature 'label' holds classes, not"):
        read("regression", "reviews", tmp_path)


@pytest.mark.slow
@pytest.mark.tensorflow
def test_a_set_without_random_access_is_named(tmp_path):
    features = {"text": Text(), "label": np.int64}
    make(tmp_path, "slow", features, "tfrecord", train=[{"text": "A", "label": 1}])
    with pytest.raises(ValueError, match=r"tfds:slow: no random access .*; prepare"):
        read("classification", "slow", tmp_path)


def test_bad_sets_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="tfds:absent_one: TFDS has no such data set"):
        read("classification", "absent_one", tmp_path)
    features = {"text": Text(), "label": np.int64}
    make(tmp_path, "other", features, extra=[{"text": "A", "label": 1}])
    with pytest.raises(ValueError, match="tfds:other: no train, validation or test split"):
        read("classification", "other", tmp_path)
    make(tmp_path, "broken", features, train=[{"text": b"A\xff", "label": 1}])
    with pytest.raises(ValueError, match="tfds:broken train:0: invalid UTF-8 at byte 1"):
        read("classification", "broken", tmp_path)
    make(tmp_path, "blank", features, train=[{"text": " ", "label": 1}])
    with pytest.raises(ValueError, match="tfds:blank train:0: no text in 'text'"):
        read("classification", "blank", tmp_path)
    make(tmp_path, "unlabelled", features, train=[{"text": "A", "label": -1}])
    with pytest.raises(ValueError, match="tfds:unlabelled train:0: no label"):
        read("classification", "unlabelled", tmp_path)
    with pytest.raises(ValueError, match="tfds:blank: no feature 'tokens'"):
        read("conll2003", "blank", tmp_path)


@pytest.mark.slow
@pytest.mark.tensorflow
def test_records_that_lack_features_of_the_set_are_named(tmp_path):
    # Only with TensorFlow does TFDS know the features of a set by its code.
    part = {key: CONLL[key] for key in ("tokens", "ner")}
    make(tmp_path, "conll2003/conll2003", part, train=[{"tokens": ["A"], "ner": [0]}])
    with pytest.raises(
        ValueError, match=r"tfds:conll2003 train:0: .* not have the set's features"
    ):
        read("conll2003", "conll2003", tmp_path)


def test_no_tensorflow(repo_root, tmp_path):
    rows = [tagged(["Ann"], [1]), tagged([], [])]
    make(tmp_path, "conll2003/conll2003", CONLL, train=rows)
    code = f"""
import sys
from importlib.machinery import PathFinder

find = PathFinder.find_spec
gone = ("tensorflow", "jax", "pandas")
PathFinder.find_spec = lambda name, *a: None if name.split(".")[0] in gone else find(name, *a)
from albert_jax.tasks.readers.tfds import conll_from_tfds
data = conll_from_tfds("conll2003", "tfds:conll2003", {str(tmp_path)!r})
assert data.splits["train"][0].words == ("Ann",), data
"""
    subprocess.run([sys.executable, "-c", code], cwd=repo_root, check=True)


def test_xnli_has_a_text_in_each_language(tmp_path):
    features = {
        "premise": tfds.features.Translation(languages=XNLI_LANGUAGES),
        "hypothesis": tfds.features.TranslationVariableLanguages(languages=XNLI_LANGUAGES),
        "label": ClassLabel(names=["entailment", "neutral", "contradiction"]),
    }
    texts = {code: f"text in {code}" for code in XNLI_LANGUAGES}
    row = {"premise": texts, "hypothesis": texts, "label": 2}
    make(tmp_path, "xnli", features, validation=[row], test=[row])
    data = read("xnli/th", "xnli", tmp_path)
    (example,) = data.splits["validation"]
    assert (example.text, example.pair, example.label) == ("text in th", "text in th", 2)


def test_what_downloads_need_is_installed():
    assert tfds.builder("squad/v1.1").url_infos


def test_pairs_to_translate(tmp_path):
    rows = [{"de": "ein Hund", "en": "a dog"}, {"de": "zwei Äpfel", "en": "two\napples"}]
    make(tmp_path, "wmt14_translate/de-en", {"de": Text(), "en": Text()}, train=rows, test=rows)
    data = read("translation/en-de", "wmt14_translate/de-en", tmp_path)
    assert data.splits["train"] == [
        PairExample("0", "a dog", "ein Hund"),
        PairExample("1", "two apples", "zwei Äpfel"),
    ]
    back = read("translation/de-en", "wmt14_translate/de-en", tmp_path)
    assert back.splits["test"][0] == PairExample("0", "ein Hund", "a dog")
    with pytest.raises(ValueError, match="no feature 'fr'"):
        read("translation/en-fr", "wmt14_translate/de-en", tmp_path)
