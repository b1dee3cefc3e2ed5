"""Passages of documents, their index on disk, search, and answers with their places."""

import dataclasses
import itertools
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples
from support.finetuned import CONFIG, make_weights
from support.models import tiny_config
from support.texts import WORDS, make_sentence

from albert_jax.config import TaskConfig
from albert_jax.convert import write_run
from albert_jax.data.tokenizers import Tokenizer, load_tokenizer
from albert_jax.predict import ask, index
from albert_jax.predict.finetuned import FinetunedModel
from albert_jax.predict.load import load
from albert_jax.predict.retrieval.collection import (
    Collection,
    evaluate_collection,
    open_collection,
    recall,
)
from albert_jax.predict.retrieval.index import RECORD, Index, build_index
from albert_jax.prepare.corpus import Document
from albert_jax.prepare.passages import passages_of, text_of
from albert_jax.prepare.sentences import language_of, split_sentences
from albert_jax.tasks.examples import Answer, QuestionExample

SQUAD = TaskConfig(name="squad/v2.0", max_length=64, max_question=16, stride=16)


@pytest.fixture(scope="module")
def tokenizer(vocabulary: Path) -> Tokenizer:
    return load_tokenizer(vocabulary)


@pytest.fixture(scope="module")
def make_model(tokenizer: Tokenizer) -> Callable[..., FinetunedModel]:
    def make(task: TaskConfig = SQUAD, **fields: Any) -> FinetunedModel:
        weights = make_weights("question_answering", task=task, **fields)
        return FinetunedModel(weights, weights.params, tokenizer)

    return make


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """The texts of twelve documents, each with a word of its own in every sentence."""
    draw = random.Random(0)
    documents = [[make_sentence(draw, 4, 9) for _ in range(8)] for _ in range(12)]
    return [
        "\n".join(sentence[:-1] + f" é{number}." for sentence in sentences)
        for number, sentences in enumerate(documents)
    ]


@pytest.fixture(scope="module")
def folder(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of the documents, given twice; to be read only."""
    place = tmp_path_factory.mktemp("collection")
    lines = [
        json.dumps({"text": text.split("\n"), "title": f"No. {i}"}) for i, text in enumerate(texts)
    ]
    (place / "texts.jsonl").write_text("\n".join(lines * 2))
    counts = build_index([place / "texts.jsonl"], place / "index", passage_words=20)
    assert (counts["documents"], counts["duplicates"]) == (12, 12)
    assert counts["passages"] > 3 * 12
    return place / "index"


@pytest.fixture(scope="module")
def collection(folder: Path, make_model: Callable[..., FinetunedModel]) -> Collection:
    return open_collection(folder, make_model())


ATOMS = st.sampled_from(
    ["tan", "Siling", "e\u0301t", "語", "今", "。", ". ", "! ", " ", "\t", "”"]
)
PARAGRAPHS = st.lists(
    st.lists(ATOMS | st.sampled_from(["kel " * 9, "x" * 150]), min_size=1, max_size=40)
    .map(lambda atoms: "".join(atoms).strip())
    .filter(bool),
    min_size=1,
    max_size=4,
)


@examples(500)
@given(PARAGRAPHS, st.integers(1, 12), st.booleans())
def test_passages_are_all_of_a_document_in_whole_sentences(paragraphs, most, is_sentences):
    document = Document(0, paragraphs, is_sentences)
    text = text_of(document)
    places = list(passages_of(document, most))
    covered = {i for begin, end in places for i in range(begin, end)}
    assert all(i in covered for i, character in enumerate(text) if not character.isspace())
    for begin, end in places:
        assert text[begin:end] == text[begin:end].strip() != ""
        assert count_words(text[begin:end]) <= most
    language, spans, at = language_of(paragraphs), [], 0
    for sentence in paragraphs if is_sentences else split_sentences(paragraphs, language):
        begin = text.index(sentence, at)
        spans.append((begin, at := begin + len(sentence)))
        if count_words(sentence) <= most:
            assert any(first <= begin and at <= end for first, end in places)
    for (_, end), (begin, _) in itertools.pairwise(places):
        if begin < end:
            (shared,) = [span for span in spans if span[0] < end and begin < span[1]]
            assert shared == (begin, end) or count_words(text[slice(*shared)]) > most


def count_words(text: str) -> int:
    unspaced = [c for c in text if c in "語今。"]
    spaced = "".join(" " if c in "語今。" else c for c in text).split()
    return len(unspaced) + sum(-(-len(word) // 64) for word in spaced)


def test_neighbours_share_a_sentence_if_it_fits():
    document = Document(
        0, ["One is two. So be. It was. He came by bus. No one knew of her age."], False
    )
    text = text_of(document)
    found = [text[begin:end] for begin, end in passages_of(document, 5)]
    assert found == [
        "One is two. So be.",
        "So be. It was.",
        "He came by bus.",
        "No one knew of her",
        "age.",
    ]


def test_search_finds_the_document_and_the_place(folder, texts):
    opened = Index(folder)
    for number, text in enumerate(texts):
        assert opened.document_text(number) == text
        found = opened.search(f"É{number}?", top_k=100)
        assert len(found) > 3
        for passage in found:
            assert (passage.number, passage.document) == (number, f"No. {number}")
            assert passage.text == text[passage.start : passage.end]
        assert (
            sorted(found, key=lambda p: -p.score)
            == found
            == Index(folder).search(f"é{number}", 100)
        )
        assert opened.search(f"é{number}", 2) == found[:2]
    assert opened.search("nowhere ?") == opened.search("?!") == []


def test_words_of_any_script_are_found(tmp_path):
    texts = ["मैं हिन्दी पढ़ता हूँ।", "नमस्ते दुनिया।", "今天天气很好。", "ไปโรงเรียน", "Cafe\u0301 FERMÉ."]
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.txt").write_text(text)
    build_index([tmp_path], tmp_path / "index")
    opened = Index(tmp_path / "index")
    for question, number in [
        ("हिन्दी", 0),
        ("दुनिया", 1),
        ("天气", 2),
        ("โรง", 3),
        ("caf\u00e9", 4),
    ]:
        assert {passage.number for passage in opened.search(question)} == {number}
    assert opened.search("हूँ") != opened.search("ह") == []  # a word is not its letters


def test_documents_have_names(tmp_path):
    (tmp_path / "a.txt").write_text("One\u00a0tan.")
    (tmp_path / "b.jsonl").write_text(
        '{"text": "Two tan.", "title": "T &amp; w"}\n{"text": "Three tan.", "id": 3}\n'
        '{"text": "Four tan.", "title": " "}'
    )
    (tmp_path / "c.wiki").write_text(
        '<doc id="5" title="Five &amp; more">\nFive tan.\n</doc>\n<doc id="6">\nSix tan.\n</doc>\n'
    )
    build_index([tmp_path], tmp_path / "index")
    found = {p.text: p.document for p in Index(tmp_path / "index").search("tan")}
    assert found == {
        "One\u00a0tan.": f"{tmp_path}/a.txt",
        "Two tan.": "T &amp; w",
        "Three tan.": "3",
        "Four tan.": f"{tmp_path}/b.jsonl#2",
        "Five tan.": "Five & more",
        "Six tan.": f"{tmp_path}/c.wiki#1",
    }


def test_answers_have_their_place_in_the_document(collection, texts):
    found = collection.answer("é3 tan?", top_k=10**6)
    assert len(found) > 50
    for answer in found:
        if answer.text:
            assert answer.text == texts[answer.number][answer.start : answer.end]
            assert answer.text in answer.passage
            assert answer.passage in texts[answer.number]
            assert answer.document == f"No. {answer.number}"
    assert [a[:3] for a in found if not a.text] == [
        ("", pytest.approx(found[0].probability, rel=1e9), 0)
    ]
    probabilities = [answer.probability for answer in found]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-6)
    assert collection.answer("é3 tan?", top_k=3) == found[:3]
    assert {a.number for a in collection.answer("é3 tan?", passages=1) if a.text} == {3}


def test_an_answer_in_two_passages_counts_once_at_its_best(collection, make_model):
    question = "é3?"
    passages = collection.search(question, 20)
    contexts = [passage.text for passage in passages]
    read = make_model().answer_batch([question] * len(passages), contexts, 10**6)
    scores: dict[tuple[int, int], list[float]] = {}
    for passage, answers in zip(passages, read, strict=True):
        for a in answers:
            if a.text:
                place = passage.start + a.start, passage.start + a.end
                scores.setdefault(place, []).append(a.score)
    assert max(map(len, scores.values())) == 2
    found = [a for a in collection.answer(question, 10**6) if a.text]
    assert {(a.start, a.end): a.score for a in found} == {
        place: pytest.approx(max(several), abs=1e-4) for place, several in scores.items()
    }
    assert len(found) == len(scores)


def test_the_threshold_of_the_run_decides_whether_there_is_an_answer(folder, make_model):
    model = make_model()
    collection = open_collection(folder, model)

    def answers(threshold: float) -> list[Any]:
        model.validation = {"null_threshold": threshold}
        return collection.answer("é3?", top_k=10**6)

    assert answers(-100)[0] == ("", pytest.approx(1), 0, "", 0, 0, "", 0, -1)
    assert answers(100)[-1][:3] == ("", pytest.approx(0), 0)
    best = max(a.score for a in answers(0) if a.text)
    assert answers(0.01 - best)[0].text
    assert not answers(-0.01 - best)[0].text


def test_a_model_that_always_answers_does_so(folder, make_model):
    task = dataclasses.replace(SQUAD, name="squad/v1.1")
    collection = open_collection(folder, make_model(task=task))
    found = collection.answer("é3?", top_k=10**6)
    assert all(answer.text for answer in found)
    with pytest.raises(ValueError, match=r"null_threshold=1.0: this model always answers; leave"):
        collection.answer("é3?", null_threshold=1.0)
    example = QuestionExample("0", "", "", "é3?", (Answer(found[0].text, -1),))
    scores = evaluate_collection(collection, [example])
    assert (scores["exact"], "best_exact" in scores) == (1, False)
    assert sum(answer.probability for answer in found) == pytest.approx(1, abs=1e-6)


def test_the_weight_of_the_search_favours_its_first_passages(collection):
    question = " ".join(collection.search("é3")[3].text.split()[:6])
    first = collection.search(question, 1)[0]
    answers = [a for a in collection.answer(question, 10**6, retrieval_weight=100.0) if a.text]
    plain = {a[3:6]: a.score for a in collection.answer(question, 10**6)}
    assert answers[0].passage == first.text
    assert any(a.score < plain[a[3:6]] - 1 for a in answers)
    kept = [a for a in answers if a.passage == first.text]
    assert any(a.score == plain[a[3:6]] for a in kept)
    assert all(a.score <= plain[a[3:6]] for a in answers)


def test_without_a_word_in_common_there_is_no_answer(collection):
    assert collection.answer("nowhere?") == [("", 1, 0, "", 0, 0, "", 0, -1)]


def test_a_moved_index_gives_the_same(folder, collection, make_model, tmp_path):
    folder.rename(tmp_path / "moved")
    try:
        moved = open_collection(tmp_path / "moved", make_model())
        assert moved.answer("é5 tan?") == collection.answer("é5 tan?")
        assert moved.search("é5 tan") == collection.search("é5 tan")
    finally:
        (tmp_path / "moved").rename(folder)


def gold(texts: list[str], number: int, line: int) -> QuestionExample:
    """A question whose answer is the words of a line but its last."""
    text = texts[number]
    answer = text.splitlines()[line].rpartition(" ")[0]
    question = f"{' '.join(answer.split()[:3])} é{number}?"
    answers = (Answer(answer, text.index(answer)),)
    return QuestionExample(f"{number}-{line}", "", f" {text}\n", question, answers)


def test_recall_tells_the_text_from_the_place(folder, texts):
    asked = [gold(texts, number, number % 8) for number in range(12)]
    opened = Index(folder)
    found = recall(opened, asked)
    assert found["contains@20"] == found["gold@20"] == 1
    assert found["gold@1"] <= found["gold@5"]
    # The paragraph need not be all of the document.
    later = [gold(texts, number, 7) for number in range(12)]
    parts = ["\n".join(e.context.strip().splitlines()[6:]) for e in later]
    later = [
        e._replace(context=part, answers=(Answer(text := e.answers[0].text, part.index(text)),))
        for e, part in zip(later, parts, strict=True)
    ]
    found = recall(opened, later, [1])
    assert found["gold@1"] == found["contains@1"] > 0.7
    misled = [e._replace(question=other.question) for e, other in zip(later, asked, strict=True)]
    misled = [e for e, other in zip(misled, asked, strict=True) if int(other.id[-1]) < 4]
    assert recall(opened, misled, [1]) == {"contains@1": 0, "gold@1": 0}
    elsewhere = [e._replace(context="Tan. " + e.context) for e in asked]
    assert recall(opened, elsewhere, [20]) == {"contains@20": 1, "gold@20": 0}
    shifted = [e._replace(answers=(Answer(e.answers[0].text + "!", 0),)) for e in asked]
    found = recall(opened, shifted, [20])
    assert (found["contains@20"], found["gold@20"] > 0.9) == (0, True)
    assert recall(opened, [asked[0]._replace(answers=())]) == {}


def test_answers_are_scored(folder, make_model, texts):
    collection = open_collection(folder, make_model(validation={"null_threshold": 100}))
    question = gold(texts, 3, 0).question
    best = next(a for a in collection.answer(question) if a.text)
    answers = (Answer(best.text, best.start),)
    example = QuestionExample("0", "", texts[best.number], question, answers)
    heard = []
    wrong = example._replace(id="1", answers=(Answer("Siling. Tan", 0),))
    found = evaluate_collection(
        collection, [example, wrong], 2, told=lambda e, answers: heard.append((e.id, answers))
    )
    assert found["exact"] == found["best_exact"] == found["HasAns_exact"] == 0.5
    assert found["seconds"] > 0
    assert heard == [(e.id, collection.answer(question, 2)) for e in (example, wrong)]


def test_the_measured_threshold_is_the_best(folder, make_model, texts):
    collection = open_collection(folder, make_model(validation={"null_threshold": 0}))
    asked = [gold(texts, number, number % 8) for number in range(12)]
    best = {e.id: collection.answer(e.question)[0] for e in asked}
    asked = [
        e._replace(answers=(Answer(best[e.id].text, -1),) if i % 3 else ())
        for i, e in enumerate(asked)
    ]

    def f1(threshold: float) -> float:
        return evaluate_collection(collection, asked, null_threshold=threshold)["f1"]

    measured = evaluate_collection(collection, asked, null_threshold=-1.0)["null_threshold"]
    assert measured == pytest.approx(evaluate_collection(collection, asked)["null_threshold"])
    tried = {threshold: f1(threshold) for threshold in np.linspace(-10, 10, 41)}
    assert f1(measured + 1e-4) >= max(tried.values()) > min(tried.values())


@pytest.fixture(scope="module")
def run(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = make_weights("question_answering", task=SQUAD, vocabulary=tokenizer.vocabulary)
    place = tmp_path_factory.mktemp("run") / "run"
    config = tiny_config(
        model=dataclasses.asdict(CONFIG),
        task={"name": "squad/v2.0", "max_length": 64, "max_question": 16},
    )
    write_run(weights, place, config)
    return place


@pytest.fixture(scope="module")
def vectors(run: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same documents, indexed by the vectors of `run`; to be read only."""
    output = tmp_path_factory.mktemp("vectors") / "index"
    source = folder.parent / "texts.jsonl"
    counts = build_index([source], output, passage_words=20, embedder=run)
    assert counts == Index(folder).counts | {"passages_cut": 0}
    return output


def test_vectors_find_passages_by_their_cosines(vectors, run, folder):
    model, question = load(run), "tan é3 siling?"
    found = Index(vectors).search(question, 10**6)
    assert len(found) == Index(folder).counts["passages"]
    cosines_P = model.embed([p.text for p in found]) @ model.embed([question])[0]
    np.testing.assert_allclose([p.score for p in found], cosines_P, atol=1e-5)
    assert list(cosines_P) == sorted(cosines_P, reverse=True)
    assert len(set(cosines_P)) > len(found) / 2
    assert Index(vectors).search(question, 2) == found[:2]
    answers = open_collection(vectors, model).answer(question, passages=1)
    assert {a.passage for a in answers if a.text} == {found[0].text}


def test_passages_that_an_embedder_cuts_are_counted(run, tmp_path, capsys):
    (tmp_path / "a.txt").write_text(" ".join(WORDS * 9))
    words = ["--input", f"{tmp_path}/a.txt", "--output", f"{tmp_path}/index", "--embedder", run]
    assert index.main([*map(str, words), "--passage_words", "5000"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("1 documents, 0 duplicates, 1 passages")
    assert second.startswith("1 passages have more tokens than the embedder takes")
    assert Index(tmp_path / "index", load(run)).counts["passages_cut"] == 1


def test_vectors_need_the_model_that_made_them(vectors, run, folder, make_model, tokenizer):
    model = load(run)
    weights = make_weights("question_answering", task=SQUAD)
    other = FinetunedModel(weights, jax.tree.map(jnp.negative, weights.params), tokenizer)
    with pytest.raises(ValueError, match=r"another model made these vectors; open it .*") as error:
        Index(vectors, other)
    assert "cannot be opened" not in str(error.value)  # it is not damaged
    with pytest.raises(ValueError, match="is an index of words; leave out the embedder"):
        Index(folder, model)
    run.rename(run.with_name("moved"))
    try:
        with pytest.raises(FileNotFoundError, match=r"vectors is missing .*run.*; give its new"):
            open_collection(vectors, make_model())
        assert open_collection(vectors, make_model(), model).search("tan?")
    finally:
        run.with_name("moved").rename(run)


def test_the_commands_make_a_collection_and_answer_from_it(run, texts, tmp_path, capsys):
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.txt").write_text(text.replace("\n", "\n\n"))
    made = ["--input", f"{tmp_path}/*.txt", "--output", f"{tmp_path}/index"]
    assert index.main([*made, "--passage_words", "20"]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}/index: 12 documents, 0 duplicates, ")
    asking = ["--checkpoint", str(run), "--index", f"{tmp_path}/index", "--top_k", "2"]
    assert ask.main([*asking, "--question", "é3?"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["question"] for line in lines] == ["é3?"] * 2
    assert any(line["document"] == f"{tmp_path}/3.txt" for line in lines)
    (tmp_path / "questions").write_text("é3?\n\n é4? \n")
    assert ask.main([*asking, "--input", f"{tmp_path}/questions"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["id"] for line in said] == ["0", "0", "2", "2"]
    assert said[0] == lines[0]
    example = gold(texts, 4, 2)
    answers = [{"text": example.answers[0].text, "answer_start": example.answers[0].start + 1}]
    row = {"id": "a", "context": example.context, "question": example.question, "answers": answers}
    (tmp_path / "squad.jsonl").write_text(json.dumps(row))
    assert ask.main([*asking, "--input", f"{tmp_path}/squad.jsonl"]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert json.loads(last).keys() > {"exact", "f1", "contains@1", "gold@20", "seconds"}


def call(
    *, source: Path, output: Path, folder: Path, model: Callable[..., FinetunedModel]
) -> dict[str, Callable[[], Any]]:
    collection = open_collection(folder, model())
    return {
        "no such file or folder": lambda: build_index([output], output),
        "contains no text": lambda: build_index([source / "blank.txt"], output),
        "no_word.txt: contains no text": lambda: build_index([source / "no_word.txt"], output),
        "--output .* exists and is not empty": lambda: build_index([source], source),
        "passage_words=0 must be at least 1": lambda: build_index([source], output, 0),
        "sources='a.txt' must be a list": lambda: build_index("a.txt", output),
        "language 'english': must be": lambda: build_index([source], output, 9, "english"),
        "stop_words 'en' and an embedder": lambda: build_index(
            [source], output, stop_words="en", embedder=source
        ),
        "stop_words 'klingon'": lambda: build_index([source], output, stop_words="klingon"),
        "must be a string, not blank: ' '": lambda: collection.answer(" "),
        "must be a string, not blank: None": lambda: collection.search(None),  # pyright: ignore
        "top_k=0 must": lambda: collection.answer("tan?", top_k=0),
        "top_k=-1 must": lambda: collection.search("tan?", -1),
        "passages=0 must": lambda: collection.answer("tan?", passages=0),
        "retrieval_weight=-1.0 must": lambda: collection.answer("tan?", retrieval_weight=-1.0),
        "retrieval_weight=nan must": lambda: collection.answer("tan?", retrieval_weight=math.nan),
        "null_threshold=inf must": lambda: collection.answer("tan?", null_threshold=math.inf),
        "is not an index": lambda: Index(source),
        "for classification, not for question_answering": lambda: classifier(collection),
    }


def classifier(collection: Collection) -> Any:
    weights = make_weights("classification")
    return Collection(collection.index, FinetunedModel(weights, weights.params, None)).answer(
        "tan é1"
    )


def test_what_is_refused_leaves_nothing_behind(folder, make_model, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "blank.txt").write_text(" \n")
    (source / "no_word.txt").write_text("?! ...")
    calls = call(source=source, output=tmp_path / "out", folder=folder, model=make_model)
    for message, refused in calls.items():
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            refused()
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_without_the_library_it_says_what_to_install(monkeypatch, folder):
    monkeypatch.setitem(__import__("sys").modules, "bm25s", None)
    with pytest.raises(ValueError, match=r"pip install 'albert_jax\[retrieval\]'$"):
        Index(folder)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text(" ".join(WORDS))
    build_index([tmp_path / "a.txt"], tmp_path / "index")
    return tmp_path / "index"


def test_a_damaged_index_is_refused(damaged):
    files = [file for file in sorted(damaged.rglob("*")) if file.is_file()]
    assert len(files) == 11
    for file in files:
        data = file.read_bytes()
        file.write_bytes(data[:-2])
        with pytest.raises(
            ValueError, match=f"{file.name}.*(build|restore|is the file truncated)"
        ):
            Index(damaged)
        file.unlink()
        with pytest.raises(FileNotFoundError, match=f"{file.name}"):
            Index(damaged)
        file.write_bytes(bytes(len(data)))
        if file.suffix in (".npy", ".json"):
            with pytest.raises(ValueError, match=r"cannot be opened|not JSON"):
                Index(damaged)
        file.write_bytes(data)
    assert Index(damaged).search(WORDS[0])


@pytest.mark.parametrize(
    ("record", "message"),
    [("{", "not JSON"), ("[]", "must be a JSON object"), ('{"format": 1}', "format 1 is not 2"),
     ('{"format": 2}', "no counts, settings and files")],
)  # fmt: skip
def test_an_index_of_another_kind_is_refused(record, message, damaged):
    (damaged / RECORD).write_text(record)
    with pytest.raises(ValueError, match=message):
        Index(damaged)
