"""Every format of fine-tuning data as examples; columns and tables: test_task_tables.py."""

import json

import pytest

from albert_jax.tasks.examples import NOT_FOUND, Answer, TextExample
from albert_jax.tasks.readers.squad import read_squad, split_by_article
from albert_jax.tasks.registry import read_task


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def tsv(*rows):
    return "".join(row.replace("|", "\t") + "\n" for row in rows)


def squad(questions, context="One two three two.", title="T"):
    paragraphs = [{"context": context, "qas": questions}]
    return {"title": title, "paragraphs": paragraphs}


def asked(identity, *answers, **more):
    found = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": identity, "question": "What?", "answers": found, **more}


def passage(identity, answers="AB", **more):
    count = len(answers)
    return {
        "id": identity,
        "article": "Text.",
        "questions": [f"Q{i}?" for i in range(count)],
        "options": [["a", "b", "c", "d"]] * count,
        "answers": list(answers),
        **more,
    }


# ---- real files; counts as their README has them ----


@pytest.mark.parametrize(
    ("task", "counts", "labels", "first"),
    [
        ("cola", {"train": 8551, "validation": 1043}, "unacceptable acceptable", 1),
        ("sst2", {"train": 67349, "validation": 872}, "negative positive", 0),
        ("mrpc", {"train": 3667, "validation": 408}, "not_equivalent equivalent", 1),
        ("stsb", {"train": 5749, "validation": 1500}, "", 5.0),
        ("rte", {"train": 2490, "validation": 277}, "entailment not_entailment", 1),
    ],
)
def test_real_glue(shared_data, task, counts, labels, first):
    data = read_task(f"glue/{task}", shared_data / "glue")
    assert {split: len(examples) for split, examples in data.splits.items()} == counts
    assert data.labels == tuple(labels.split())
    assert data.notes == ()
    assert data.splits["train"][0].label == first
    assert [e.id for e in data.splits["train"]] == [str(i) for i in range(counts["train"])]
    every = [e for examples in data.splits.values() for e in examples]
    assert {e.pair is None for e in every} == {task in ("cola", "sst2")}
    known = range(len(data.labels)) if labels else [e.label for e in every if 0 <= e.label <= 5]
    assert {e.label for e in every} == set(known)


def test_real_squad(shared_data):
    file = shared_data / "squad" / "dev-v2.0-cs224n.json"
    examples = read_squad(str(file), notes := [])
    assert len(examples) == 6078
    assert sum(not e.answers for e in examples) == 3168
    assert all(e.context[a.start :].startswith(a.text) for e in examples for a in e.answers)
    assert notes == []
    data = read_task("squad/v2.0", shared_data / "squad")
    assert (data.splits["train"], data.splits["validation"]) == split_by_article(examples)
    assert data.splits == read_task("squad/v2.0", file).splits
    [note] = data.notes
    assert note.startswith(
        f"{file}: the name does not show a split; split by article into 5082 questions"
    )
    assert len({e.title for e in data.splits["validation"]}) == 3  # a fifth of 16 articles


def test_real_race(shared_data):
    data = read_task("race", shared_data / "race")
    assert {s: len(v) for s, v in data.splits.items()} == {"train": 6130, "validation": 2747}
    assert len({e.context for e in data.splits["validation"]}) <= 1389
    assert {e.label for e in data.splits["train"]} == {0, 1, 2, 3}
    first = data.splits["validation"][0]
    assert (first.id, first.label) == ("asc00000-0", 1)
    assert first.options[1].startswith("sought to eliminate monopolies")
    with pytest.raises(ValueError, match=r"sample\.jsonl:1: passage asc00000: .*neither middle"):
        read_task("race/high", shared_data / "race")


def test_real_conll(shared_data):
    data = read_task("conll2003", shared_data / "conll2003")
    train, validation = data.splits["train"], data.splits["validation"]
    assert (len(train), sum(len(e.words) for e in train)) == (14041, 203621)
    assert (len(validation), sum(len(e.words) for e in validation)) == (3250, 51362)
    assert data.labels == ("O", *(f"{p}-{t}" for t in ("LOC", "MISC", "ORG", "PER") for p in "BI"))

    def entities(examples):
        opened = [data.labels[t][2:] for e in examples for t in e.tags if t % 2]
        return [opened.count(kind) for kind in ("LOC", "MISC", "ORG", "PER")]

    # Source: Tjong Kim Sang and De Meulder (2003), table 2.
    assert entities(train) == [7140, 3438, 6321, 6600]
    assert entities(validation) == [1837, 922, 1341, 1842]
    [note] = data.notes
    assert "eng.train:152428: 2 entities open with B-, but 23427 with I-" in note


# ---- GLUE ----


def test_glue_test_files_and_folders(tmp_path):
    parts = {
        "train": ["index|sentence1|sentence2|label1|gold_label", '0|"P|H|x|neutral'],
        "dev_matched": ["sentence1|sentence2|gold_label", "P|H|contradiction"],
        "dev_mismatched": ["sentence1|sentence2|gold_label", "P|H|entailment"],
        "test_mismatched": ["index|sentence1|sentence2", "9|P|H"],
        "diagnostic": ["index|sentence1|sentence2", "0|A|B"],
    }
    for name, rows in parts.items():
        write(tmp_path / "MNLI" / f"{name}.tsv", tsv(*rows))
    data = read_task("glue/mnli", tmp_path)
    assert data.labels == ("entailment", "neutral", "contradiction")
    assert list(data.splits.items()) == [
        ("train", [TextExample("0", '"P', "H", 1)]),
        ("validation_matched", [TextExample("0", "P", "H", 2)]),
        ("validation_mismatched", [TextExample("0", "P", "H", 0)]),
        ("test_mismatched", [TextExample("9", "P", "H", None)]),
    ]
    ax = read_task("glue/ax", tmp_path)
    assert ax == ({"test": [TextExample("0", "A", "B", None)]}, data.labels, ())
    assert read_task("glue/ax", tmp_path / "MNLI" / "diagnostic.tsv") == ax
    write(tmp_path / "cola" / "test.tsv", tsv("index|sentence", "0|He\x85 go."))
    [test] = read_task("glue/cola", tmp_path).splits["test"]
    assert test == TextExample("0", "He\x85 go.", None, None)


@pytest.mark.parametrize(
    ("task", "header", "labels"),
    [
        ("QNLI", "index|question|sentence|label", "entailment not_entailment"),
        ("WNLI", "index|sentence1|sentence2|label", "not_entailment entailment"),
        ("RTE", "index|sentence1|sentence2|label", "entailment not_entailment"),
    ],
)
def test_glue_label_orders(tmp_path, task, header, labels):
    label = "0" if task == "WNLI" else "entailment"
    write(tmp_path / task / "dev.tsv", tsv(header, f"0|A|B|{label}"))
    data = read_task(f"glue/{task.lower()}", tmp_path)
    assert data.splits == {"validation": [TextExample("0", "A", "B", 0)]}
    assert data.labels == tuple(labels.split())


def test_qqp_as_it_is(tmp_path):
    header = "id|qid1|qid2|question1|question2|is_duplicate"
    rows = [header, "7|1|2|A|B|1", '8|1|2|"A', '"|B?|0', "9|1|2|A||0"]
    write(tmp_path / "train.tsv", tsv(*rows))
    write(tmp_path / "test.tsv", tsv("id|question1|question2", "5|A|B"))
    data = read_task("glue/qqp", tmp_path)
    assert data.splits["train"] == [TextExample("0", "A", "B", 1), TextExample("3", "A", "", 0)]
    assert data.splits["test"] == [TextExample("5", "A", "B", None)]
    assert [n.partition("train.tsv: ")[2] for n in data.notes] == [
        "left out 2 rows with missing columns (lines 3, 4)",
        "kept 1 rows with an empty question",
    ]


def test_mrpc_original_files(tmp_path):
    header = "\ufeffQuality|#1 ID|#2 ID|#1 String|#2 String"
    rows = ["1|10|11|A|B", "0|12|13|C|D", "0|14|15|E|F"]
    write(tmp_path / "msr_paraphrase_train.txt", tsv(header, *rows))
    write(tmp_path / "msr_paraphrase_test.txt", tsv(header, *rows[:1]).replace("\n", "\r\n"))
    data = read_task("glue/mrpc", tmp_path)
    assert {s: len(v) for s, v in data.splits.items()} == {"train": 3, "test": 1}
    assert data.splits["test"] == [TextExample("0", "A", "B", 1)]
    assert "no mrpc_dev_ids.tsv next to it" in data.notes[0]
    write(tmp_path / "mrpc_dev_ids.tsv", "12\t13\n")
    data = read_task("glue/mrpc", tmp_path)
    assert list(data.splits) == ["train", "validation", "test"]
    assert [e.id for e in data.splits["train"]] == ["0", "2"]
    assert data.splits["validation"] == [TextExample("1", "C", "D", 0)]
    assert data.notes == ()


# ---- SQuAD ----


def test_squad_versions_side_by_side(tmp_path):
    for name, questions in {
        "train-v1.1": [asked("a", ("two", 4))],
        "train-v2.0": [asked("a", ("two", 4)), asked("b", is_impossible=True)],
        "dev-v2.0": [asked("c", ("One", 0), ("One two", 0))],
        "test-v2.0": [{"id": "d", "question": "?"}],
        "predictions": [],
    }.items():
        write(tmp_path / f"{name}.json", json.dumps({"data": [squad(questions)]}))
    v2 = read_task("squad/v2.0", tmp_path).splits
    assert {s: [e.id for e in v] for s, v in v2.items()} == {
        "train": ["a", "b"],
        "validation": ["c"],
        "test": ["d"],
    }
    assert v2["train"][0].answers == (Answer("two", 4),)
    assert v2["train"][1].answers == v2["test"][0].answers == ()
    assert len(v2["validation"][0].answers) == 2
    assert list(read_task("squad/v1.1", tmp_path).splits) == ["train"]
    assert list(read_task("squad/v2.0", tmp_path / "train-v1.1.json").splits) == ["train"]


def test_squad_answers_are_aligned(tmp_path):
    near, far = (
        asked("a", ("two", 13)),
        asked("b", ("two", 5), (" three ", 0), (" One", 4), ("four", 0)),
    )
    file = write(tmp_path / "dev-v2.0.json", json.dumps({"data": [squad([near, far])]}))
    data = read_task("squad/v2.0", file)
    first, second = data.splits["validation"]
    assert first.answers == (Answer("two", 14),)
    assert second.answers == (
        Answer("two", 4),
        Answer(" three ", 7),
        Answer("One", 0),
        Answer("four", NOT_FOUND),
    )
    assert [n.partition("json: ")[2] for n in data.notes] == [
        "4 answers were not at their answer_start; moved to the nearest occurrence",
        "1 answers do not occur in their context; they cannot be trained on",
    ]


def test_split_by_article_is_the_same_for_ever(tmp_path):
    articles = [squad([asked(f"{t}{i}", ("two", 4)) for i in range(3)], title=t) for t in "abcde"]
    file = write(tmp_path / "mine.json", json.dumps({"data": articles}))
    examples = read_squad(str(file))
    train, validation = split_by_article(examples)
    assert [e.id for e in validation] == ["d0", "d1", "d2"]
    assert [e.id for e in train] == [f"{t}{i}" for t in "abce" for i in range(3)]
    assert {split_by_article(examples, 0.2, seed)[1][0].title for seed in range(20)} == {*"abcde"}
    assert len(split_by_article(examples, 0.6)[1]) == 9
    for few, fraction in ((examples[:3], 0.5), (examples, 1.0), (examples, 0.95)):
        with pytest.raises(ValueError, match="articles cannot be split"):
            split_by_article(few, fraction)


# ---- RACE ----


@pytest.mark.parametrize("top", ["", "RACE"])
def test_race_official_folders(tmp_path, top):
    for name, answers in {
        "train/middle/10": "AB",
        "train/middle/2": "C",
        "train/high/1": "D",
        "dev/high/3": "A",
    }.items():
        level, number = name.split("/")[1:]
        text = json.dumps(passage(f"{level}{number}.txt", answers))
        write(tmp_path / top / f"{name}.txt", text)
    with pytest.raises(FileNotFoundError, match=r"dev.middle: no folder with"):
        read_task("race", tmp_path)
    splits = read_task("race/high", tmp_path).splits
    assert [(e.id, e.label) for e in splits["train"]] == [("high1.txt-0", 3)]
    assert [e.id for e in splits["validation"]] == ["high3.txt-0"]
    write(tmp_path / top / "dev/middle/1.txt", json.dumps(passage("middle1.txt")))
    splits = read_task("race", tmp_path).splits
    assert [(e.id, e.label) for e in splits["train"]] == [
        ("middle2.txt-0", 2),
        ("middle10.txt-0", 0),
        ("middle10.txt-1", 1),
        ("high1.txt-0", 3),
    ]


def test_race_lines(tmp_path):
    first = passage("middle1", options=[["a", "a", "c", " "]] * 2)
    second = passage("high1", "A")
    write(tmp_path / "train.jsonl", "\n\n".join(map(json.dumps, (first, second))))
    unanswered = passage("high9")
    del unanswered["answers"]
    write(tmp_path / "test_1.jsonl", json.dumps(unanswered))
    data = read_task("race", tmp_path)
    assert [e.id for e in data.splits["train"]] == ["middle1-0", "middle1-1", "high1-0"]
    assert [e.label for e in data.splits["test"]] == [None, None]
    assert data.splits["train"][0].options == ("a", "a", "c", " ")
    assert [n.partition("jsonl: ")[2] for n in data.notes] == [
        "kept 2 questions or options without text"
    ]
    high = read_task("race/high", tmp_path)
    assert [e.id for e in high.splits["train"]] == ["high1-0"]
    assert read_task("race/middle", tmp_path / "train.jsonl").splits["train"][1].id == "middle1-1"
