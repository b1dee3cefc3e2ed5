"""Using a fine-tuned model: every method on every kind, and what is refused."""

import dataclasses
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.finetuned import CONFIG, TAGS, make_weights
from support.models import tiny_config
from support.params import random_params
from support.texts import WORDS, make_sentence

import albert_jax
from albert_jax.checkpoints.formats.huggingface import write_hf
from albert_jax.config import TaskConfig
from albert_jax.convert import write_run
from albert_jax.data.tokenizers import Tokenizer, load_tokenizer
from albert_jax.model.heads import KINDS
from albert_jax.predict.finetuned import FinetunedModel
from albert_jax.tasks.examples import QuestionExample, TaggedExample
from albert_jax.tasks.features import length_of

FOREIGN = "語"  # unknown to the vocabulary


@pytest.fixture(scope="module")
def tokenizer(vocabulary) -> Tokenizer:
    return load_tokenizer(vocabulary)


@pytest.fixture(scope="module")
def make_model(tokenizer: Tokenizer) -> Callable[..., FinetunedModel]:
    def make(kind: str, **fields: Any) -> FinetunedModel:
        weights = make_weights(kind, **fields)
        return FinetunedModel(weights, weights.params, tokenizer)

    return make


def make_texts(count: int, longest: int = 12) -> list[str]:
    draw = random.Random(0)
    return [make_sentence(draw, 1, longest) for _ in range(count)]


def test_texts_are_classified_in_order_alike_alone_and_in_batches(make_model):
    model = make_model("classification")
    texts = make_texts(75, 40)  # some longer than a row
    with pytest.warns(UserWarning, match="34 of 75 texts were cut to 64 tokens"):
        found = model.classify(texts)
    assert len({one.probabilities["bad"] for one in found}) > 70
    for text, one in zip(texts, found, strict=True):
        assert list(one.probabilities) == ["bad", "good", "neither"]
        assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-6)
        assert one.label == max(one.probabilities, key=lambda label: one.probabilities[label])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (alone,) = model.classify([text])
        assert alone.probabilities == pytest.approx(one.probabilities, abs=1e-5)
    short = [text for text in texts if len(model.tokenizer.encode(text)) < 60][:3]
    assert model.classify(np.array(short)) == model.classify(tuple(short))


def test_pairs_are_classified_together(make_model):
    model, texts = make_model("classification"), make_texts(40)
    pairs = texts[::-1]
    found = model.classify(texts, pairs)
    swapped = model.classify(pairs, texts)
    without = model.classify(texts)
    for i, (a, b) in enumerate(zip(texts, pairs, strict=True)):
        (alone,) = model.classify([a], pairs=[b])
        assert alone.probabilities == pytest.approx(found[i].probabilities, abs=1e-5)
        for other in (swapped[i], without[i]):
            assert other.probabilities != pytest.approx(alone.probabilities, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("labels", [(), ("score",)], ids=str)
def test_one_output_is_a_score(labels, make_model):
    model, texts = make_model("classification", labels=labels), make_texts(40)
    assert (model.labels, model.task.config.name) == ((), "regression")
    found = model.classify(texts)
    assert all(type(one.label) is float and one.probabilities == {} for one in found)
    alone = [model.classify([text])[0].label for text in texts]
    assert alone == pytest.approx([one.label for one in found], abs=1e-5)
    assert np.std(alone) > 1e-3


def test_classes_without_names_are_numbered(make_model):
    model = make_model("classification", outputs=4, labels=())
    (found,) = model.classify(["tan"])
    assert list(found.probabilities) == ["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"]
    with pytest.raises(ValueError, match="has 4 classes, but 3 class names"):
        make_model("classification", outputs=4)


CONTEXT = f"  Morly\n\n tan\u00a0siling {FOREIGN} buros, kel.\t" + " ".join(WORDS[20:50]) + " "


def squad(version: str) -> TaskConfig:
    return TaskConfig(name=f"squad/{version}", max_length=64, max_question=16, stride=16)


@pytest.mark.parametrize(
    "task", [squad("v1.1"), squad("v2.0"), None], ids=["v1.1", "v2.0", "none"]
)
def test_answers_are_of_the_context(task, make_model):
    model = make_model("question_answering", task=task)
    assert model.labels == ()
    found = model.answer("siling?", CONTEXT, top_k=100)
    assert len(found) > 15
    for answer in found:
        assert answer.text == CONTEXT[answer.start : answer.end] == answer.text.strip()
    probabilities = [answer.probability for answer in found]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-6)
    assert len({(answer.start, answer.end) for answer in found}) == len(found)
    nothing = [answer for answer in found if not answer.text]
    assert len(nothing) == (0 if task == squad("v1.1") else 1)
    assert found[:3] == model.answer("siling?", CONTEXT, top_k=3)
    assert found[:1] == model.answer("siling?", CONTEXT)


def test_a_piece_of_white_space_is_no_answer(make_model):
    model = make_model("question_answering", task=squad("v1.1"))
    _, offsets = model.tokenizer.encode_with_offsets(context := f"tan {FOREIGN}")
    assert any(context[a:b] == " " for a, b in offsets)
    found = model.answer("what?", context, top_k=50)
    texts = [context[answer.start : answer.end] for answer in found]
    assert texts == [answer.text for answer in found if answer.text.strip() == answer.text != ""]
    assert len(set(texts)) == len(texts)


def test_a_context_of_several_rows_is_read_to_its_end(make_model):
    model, context = make_model("question_answering"), " ".join(WORDS)  # with 64 positions
    rows = model.task.features([QuestionExample("0", "", context, "?", ())], model.tokenizer).rows
    assert len(rows) > 5
    read = np.concatenate([row["begins"] for row in rows])
    _, offsets = model.tokenizer.encode_with_offsets(context)
    assert set(read[read >= 0].tolist()) == {begin for begin, _ in offsets}
    found = model.answer(context, context, top_k=20)  # the question is cut, not the context
    assert max(answer.end for answer in found) > len(context) / 2


def test_the_threshold_of_the_run_decides_whether_there_is_an_answer(make_model):
    def answers(threshold: float) -> list[Any]:
        model = make_model(
            "question_answering", task=squad("v2.0"), validation={"null_threshold": threshold}
        )
        return model.answer("siling?", CONTEXT, top_k=100)

    assert answers(-100)[0] == ("", 0, 0, pytest.approx(1), 0)
    assert answers(100)[-1] == ("", 0, 0, pytest.approx(0), 0)
    model = make_model("question_answering", task=squad("v2.0"))
    example = QuestionExample("0", "", CONTEXT, "siling?", ())
    (found,) = model.task.predictions(*model.run([example]), 1)
    assert answers(found.null_odds + 0.01)[0].text
    assert not answers(found.null_odds - 0.01)[0].text


def test_words_are_tagged_in_order(tokenizer):
    weights = make_weights("token_classification")
    model = FinetunedModel(weights, weights.params, tokenizer)
    words = ["Morly", FOREIGN, "siling", "\u0301", "buros", "", *WORDS]  # several rows
    outputs, features = model.run([TaggedExample("0", tuple(words), None)])
    assert len(outputs) > 1
    mean = np.mean(outputs[0]["log_probs"][: length_of(features.rows[0])], axis=0)
    weights.params["classifier"]["bias"] -= mean  # so that no tag is all words'
    model = FinetunedModel(weights, weights.params, tokenizer)
    found = model.tag(words)
    assert [one.word for one in found] == words
    assert all(1 / 3 <= one.probability <= 1 for one in found)
    assert {one.tag for one in found} == set(TAGS)
    example = TaggedExample("0", tuple(words), None)
    assert [[one.tag for one in found]] == model.task.predictions(*model.run([example]), 1)
    assert model.tag("  Morly siling\n buros") == model.tag(["Morly", "siling", "buros"])


def test_an_option_is_chosen(make_model):
    model = make_model("multiple_choice")
    for count in (2, 4, 5):
        options = WORDS[:count]
        found = model.choose(CONTEXT, "which _ is it?", options)
        assert len(found.probabilities) == count
        assert sum(found.probabilities) == pytest.approx(1, abs=1e-6)
        assert found.index == int(np.argmax(found.probabilities))
        assert found.option == options[found.index]
        turned = model.choose(CONTEXT, "which _ is it?", options[::-1])
        assert turned.probabilities[::-1] == pytest.approx(found.probabilities, abs=1e-5)


@pytest.mark.slow
def test_few_shapes_are_compiled(make_model):
    model = make_model("classification")
    program, shapes = model._program, set()

    def run(batch):
        shapes.add(batch["input_ids"].shape)
        return program.run(batch)

    model._program = dataclasses.replace(program, run=run)
    for count in range(1, 70):
        model.classify(["tan"] * count)
    assert shapes == {(size, 8) for size in (1, 2, 4, 8, 16, 32)}


CALLS: dict[str, Callable[[FinetunedModel], Any]] = {
    "classification": lambda m: m.classify(["tan"]),
    "question_answering": lambda m: m.answer("siling?", "tan siling"),
    "token_classification": lambda m: m.tag("tan siling"),
    "multiple_choice": lambda m: m.choose("tan siling", "tan?", ["kel", "bur"]),
    "masked_lm": lambda m: m.fill_mask("tan [MASK]"),
    "translation": lambda m: m.translate(["tan siling"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_another_kind_of_model_says_what_it_is_for(kind, make_model):
    model = make_model(kind)
    if kind in ("encoder", "pretraining", "masked_lm"):
        with pytest.raises(ValueError, match=f"is for {kind}: it was not fine-tuned for a task"):
            _ = model.task
    assert model(["tan siling"]).last_hidden_state.shape[::2] == (1, 32)
    for wanted, call in CALLS.items():
        if kind == wanted or (kind, wanted) == ("pretraining", "masked_lm"):
            assert call(model)
            continue
        message = f"this model is for {kind}, not for {wanted}$|no masked LM head, only "
        with pytest.raises(ValueError, match=message):
            call(model)


@pytest.mark.parametrize("kind", CALLS)
def test_without_a_vocabulary_no_text_is_read(kind):
    weights = make_weights(kind)
    model = FinetunedModel(weights, weights.params, None)
    with pytest.raises(ValueError, match="came without a vocabulary"):
        CALLS[kind](model)


WRONG_CALLS: list[tuple[str, Callable[[Any], Any], str]] = [
    (
        "classification",
        lambda m: m.classify("tan"),
        "texts must be a list .* single text in a list",
    ),
    ("classification", lambda m: m.classify([]), "no texts"),
    (
        "classification",
        lambda m: m.classify(["a"], "b"),
        "pairs must be a list of strings",
    ),
    ("classification", lambda m: m.classify(["a"], []), "no pairs"),
    ("classification", lambda m: m.classify(["a"], ["b", "c"]), "1 texts but 2 pairs"),
    (
        "classification",
        lambda m: m.classify([("a", "b")]),
        r"must be strings, not \('a', 'b'\)",
    ),
    ("classification", lambda m: m.classify(["a", None]), "texts must be strings, not None"),
    (
        "question_answering",
        lambda m: m.answer("", "tan"),
        "question must be a string, not blank: ''",
    ),
    (
        "question_answering",
        lambda m: m.answer("tan", " \n"),
        "context must be a string, not blank",
    ),
    (
        "question_answering",
        lambda m: m.answer(["tan"], "tan"),
        "question must be a string, not blank",
    ),
    (
        "question_answering",
        lambda m: m.answer("tan", "tan", top_k=0),
        "top_k=0 must be at least 1",
    ),
    ("token_classification", lambda m: m.tag(""), "no words"),
    ("token_classification", lambda m: m.tag([]), "no words"),
    (
        "token_classification",
        lambda m: m.tag([["tan"]]),
        r"words must be strings, not \['tan'\]",
    ),
    ("multiple_choice", lambda m: m.choose("tan", "kel?", ["a"]), "at least two strings"),
    ("multiple_choice", lambda m: m.choose("tan", "kel?", []), "no options"),
    (
        "multiple_choice",
        lambda m: m.choose("tan", "kel?", "ab"),
        "options must .* put a single text in a list",
    ),
    (
        "multiple_choice",
        lambda m: m.choose(["tan"], "kel?", ["a", "b"]),
        "context and question must be strings",
    ),
]


@pytest.mark.parametrize(("kind", "call", "message"), WRONG_CALLS, ids=[w[2] for w in WRONG_CALLS])
def test_wrong_calls_are_refused(kind, call, message, make_model):
    with pytest.raises(ValueError, match=message):
        call(make_model(kind))


def test_a_context_of_no_piece_has_no_answer(make_model):
    with pytest.raises(ValueError, match="no token of the context"):
        make_model("question_answering", task=squad("v1.1")).answer("tan?", "\u0301")
    assert make_model("question_answering").answer("tan?", "\u0301", top_k=5) == [("", 0, 0, 1, 0)]


@pytest.fixture
def sentiment(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """A run directory such as fine-tuning leaves."""
    task = {"name": "glue/sst2", "max_length": 64}
    labels = ("negative", "positive")
    weights = make_weights("classification", labels=labels, vocabulary=tokenizer.vocabulary)
    config = tiny_config(model=dataclasses.asdict(CONFIG), task=task)
    write_run(weights, tmp_path / "run", config)
    return tmp_path / "run"


def test_sentiment_in_five_lines(sentiment, capsys):
    texts = ["I love this movie!", "This movie is terrible..."]
    model = albert_jax.load(sentiment)
    for text, found in zip(texts, model.classify(texts), strict=True):
        print(text, found.label, f"{max(found.probabilities.values()):.2f}")
    lines = [line.rsplit(" ", 2) for line in capsys.readouterr().out.splitlines()]
    assert [text for text, _, _ in lines] == texts
    assert all(label in model.labels and float(p) >= 0.5 for _, label, p in lines)
    assert model.task.config.name == "glue/sst2"


def test_a_vocabulary_of_another_model_is_refused(tokenizer, tmp_path):
    weights = make_weights("encoder", vocabulary=tokenizer.vocabulary)
    config = dataclasses.replace(CONFIG, vocab_size=50)
    params = random_params(config, KINDS["encoder"])
    write_hf(weights._replace(config=config, params=params), tmp_path)
    with pytest.raises(ValueError, match="has 60 tokens, but the model only 50"):
        albert_jax.load(tmp_path)


def test_batches_answer_and_tag_as_one_by_one(make_model):
    model = make_model("question_answering", task=squad("v2.0"))
    questions, contexts = ["siling?", "what?"], [CONTEXT, "Buros tan."]
    together = model.answer_batch(questions, contexts, top_k=3)
    for found, question, context in zip(together, questions, contexts, strict=True):
        for one, alone in zip(found, model.answer(question, context, top_k=3), strict=True):
            assert (one.text, one.start, one.end) == (alone.text, alone.start, alone.end)
            assert one.score == pytest.approx(alone.score, abs=1e-4)
    with pytest.raises(ValueError, match="2 questions and 1 contexts"):
        model.answer_batch(questions, contexts[:1])
    model = make_model("token_classification")
    for found, words in zip(
        model.tag_batch(["tan buros", ["tan"]]), ["tan buros", "tan"], strict=True
    ):
        alone = model.tag(words)
        assert [(one.word, one.tag) for one in found] == [(one.word, one.tag) for one in alone]
