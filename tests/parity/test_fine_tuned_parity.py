"""Fine-tuned models say the same in transformers as here, head by head, on whole sets."""

import functools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import torch
import transformers
from scipy.special import log_softmax, softmax
from support.hf_models import hf_model
from support.models import tiny_config, tiny_model
from support.params import random_params
from support.texts import WORDS, make_sentence
from transformers import AlbertTokenizer

import albert_jax
from albert_jax.checkpoints.formats.hf_config import CLASSES as CLASS_OF
from albert_jax.checkpoints.formats.hf_tokenizer import write_tokenizer
from albert_jax.checkpoints.formats.huggingface import write_hf
from albert_jax.checkpoints.weights import Weights
from albert_jax.convert import write_run
from albert_jax.data.tokenizers import Tokenizer, load_tokenizer
from albert_jax.model.heads import KINDS
from albert_jax.predict.finetuned import FinetunedModel
from albert_jax.tasks.examples import ChoiceExample, QuestionExample, TaggedExample, TextExample
from albert_jax.tasks.features import length_of
from albert_jax.tasks.question_answering import LOWEST, QuestionAnswering
from albert_jax.tasks.registry import read_task

pytestmark = [pytest.mark.torch, pytest.mark.slow]


class Case(NamedTuple):
    """A task, where its real examples lie and how many are taken (None: all of dev).

    None of these holds a text to which transformers' tokenizer gives other ids than ours; what
    those are, test_tokenizer_parity.py tells.
    """

    kind: str
    task: str
    folder: str
    count: int | None
    max_length: int
    labels: tuple[str, ...] = ()


CASES = {
    # Room for an even number of pieces: of an odd one, transformers gives the last to the text
    # that was longer, the original always to the first.
    "classification": Case("classification", "glue/mrpc", "glue", None, 65, ("no", "yes")),
    "regression": Case("classification", "glue/stsb", "glue", None, 129),
    "token_classification": Case(
        "token_classification", "conll2003", "conll2003", 500, 128, ("O", "B-X", "I-X", "B-Y")
    ),
    "question_answering": Case("question_answering", "squad/v2.0", "squad", 200, 160),
    "multiple_choice": Case("multiple_choice", "race", "race", 100, 256),
}
BATCH = 48
INPUTS = ("input_ids", "token_type_ids", "attention_mask")
Ids = dict[str, list[int]]  # INPUTS of one sequence, without padding


def make_text(draw: random.Random, sentences: int = 6) -> str:
    return " ".join(make_sentence(draw, 1, 6) for _ in range(draw.randint(1, sentences)))


def make_examples(kind: str, count: int = 70) -> list[Any]:
    """Examples that no file is needed for, some too long for a row, but no tagged sentence."""
    draw = random.Random(0)
    examples = []
    for i in range(count):
        text = make_text(draw)
        if kind == "token_classification":
            examples.append(TaggedExample(str(i), tuple(make_sentence(draw, 1, 9).split()), None))
        elif kind == "question_answering":
            context, question = f"{text} {make_text(draw)}", f"{draw.choice(WORDS)}?"
            examples.append(QuestionExample(str(i), "", context, question, ()))
        elif kind == "multiple_choice":
            question, options = f"{draw.choice('_x')} ?", tuple(draw.choices(WORDS, k=4))
            examples.append(ChoiceExample(str(i), text, question, options, None))
        else:
            examples.append(TextExample(str(i), text, make_text(draw) if i % 2 else None, None))
    return examples


def varied(params: Any) -> Any:
    """Parameters under which texts differ: kernels that let much through, norms near 1."""

    def scale(path: Any, p: np.ndarray) -> np.ndarray:
        return 1 + p * 0.1 if path[-1].key == "scale" else p * 0.2

    return jax.tree_util.tree_map_with_path(scale, params)


def make_ours(
    case: Case, tokenizer: Tokenizer, folder: Path, examples: list[Any]
) -> FinetunedModel:
    """A model of ours, read back from the run directory `run`, exported as `hf`."""
    task = {"name": case.task, "max_length": case.max_length, "stride": 40, "max_question": 32}
    sizes = {"num_hidden_layers": 2, "max_position_embeddings": 256}
    config = tiny_config(model=sizes | {"vocab_size": tokenizer.vocab_size}, task=task)
    params = varied(random_params(config.model, KINDS[case.kind], len(case.labels) or 1))
    weights = Weights(config.model, params, case.kind, tokenizer.vocabulary, labels=case.labels)
    if case.labels:  # no class is to be the likeliest of all texts
        outputs, _ = FinetunedModel(weights._replace(task=config.task), params, tokenizer).run(
            examples
        )
        found = [value.reshape(-1, len(case.labels)) for o in outputs for value in o.values()]
        params["classifier"]["bias"] -= np.mean(np.concatenate(found), axis=0)
    write_run(weights, folder / "run", config)
    write_hf(weights, folder / "hf")
    return albert_jax.load(folder / "run")


class Theirs:
    """A directory as transformers reads it; its own tokenizer, padding and truncation."""

    def __init__(self, kind: str, folder: Path):
        self.kind = kind
        cls = getattr(transformers, f"Albert{CLASS_OF[kind]}")
        self.model = cls.from_pretrained(folder).eval()
        tokenizer = AlbertTokenizer.from_pretrained(folder)
        # Version 5 leaves the types out unless it is asked for them.
        self.encode = functools.partial(tokenizer, return_token_type_ids=True)
        self.pad = functools.partial(tokenizer.pad, padding=True, return_tensors="pt")

    def sequences(self, task: Any, example: Any) -> list[Ids]:
        """Those of an example: one, or one an option, or one a window."""
        length = task.config.max_length
        if self.kind == "token_classification":
            return [dict(self.encode(list(example.words), is_split_into_words=True))]
        if self.kind == "classification":
            texts = (example.text, example.pair)
            return [dict(self.encode(*texts, truncation=True, max_length=length))]
        if self.kind == "question_answering":
            question = self.encode(example.question, add_special_tokens=False)["input_ids"]
            found = self.encode(
                example.question,
                example.context,
                truncation="only_second",
                max_length=length,
                stride=length - 3 - len(question) - task.config.stride,  # theirs is the overlap
                return_overflowing_tokens=True,
            )
        else:
            gap = example.question if "_" in example.question else f"{example.question} _"
            endings = [gap.replace("_", option) for option in example.options]
            contexts = [example.context] * len(endings)
            found = self.encode(contexts, endings, truncation="only_first", max_length=length)
        return [{name: found[name][i] for name in INPUTS} for i in range(len(found["input_ids"]))]

    def outputs(self, sequences: list[Ids], options: int = 1) -> list[np.ndarray]:
        """By row what ours gives: logits [K] or [O], start and end [2,T], log-probs [T,K]."""
        found: list[np.ndarray] = []
        for begin in range(0, len(sequences), BATCH):
            part = sequences[begin : begin + BATCH]
            batch = dict(self.pad(part))
            if self.kind == "multiple_choice":
                batch = {k: v.reshape(-1, options, v.shape[-1]) for k, v in batch.items()}
            with torch.no_grad():
                output = self.model(**batch)
            lengths = [len(sequence["input_ids"]) for sequence in part]
            if self.kind == "question_answering":
                logits = np.stack([output.start_logits, output.end_logits], 1)
                found += [row[:, :n] for row, n in zip(logits, lengths, strict=True)]
            elif self.kind == "token_classification":
                logits = log_softmax(output.logits.numpy(), axis=-1)
                found += [row[:n] for row, n in zip(logits, lengths, strict=True)]
            else:
                found += list(output.logits.numpy())
        return found

    def tags(self, words: Sequence[str], log_probs_TK: np.ndarray) -> list[str]:
        """The tags of words, by their first pieces."""
        of_pieces = self.encode(list(words), is_split_into_words=True).word_ids()
        firsts = [of_pieces.index(i) for i in range(len(words))]
        return [self.model.config.id2label[int(k)] for k in log_probs_TK[firsts].argmax(-1)]


def ids_of(row: Any) -> list[Ids]:
    """The sequences of a row of ours, without padding."""
    parts = {name: row[name].reshape(-1, length_of(row)) for name in INPUTS}
    lengths = parts["attention_mask"].sum(axis=1)
    return [{name: parts[name][i, :n].tolist() for name in INPUTS} for i, n in enumerate(lengths)]


def check(case: Case, examples: list[Any], tokenizer: Tokenizer, folder: Path) -> None:
    """Checks everything of one head: ids, logits, and what is predicted by them."""
    ours, count = make_ours(case, tokenizer, folder, examples), len(examples)
    theirs = Theirs(case.kind, folder / "hf")
    outputs, features = ours.run(examples)
    sequences = [s for e in examples for s in theirs.sequences(ours.task, e)]
    assert sequences == [s for row in features.rows for s in ids_of(row)]
    expected = theirs.outputs(sequences, options=4)
    if case.kind == "question_answering":  # nothing but the context can be an answer
        may = [np.append(True, row["begins"][1:] >= 0) for row in features.rows]
        expected = [np.where(m, x, LOWEST) for m, x in zip(may, expected, strict=True)]
    (name,) = outputs[0]
    for output, x in zip(outputs, expected, strict=True):
        own = output[name][tuple(map(slice, x.shape))]
        np.testing.assert_allclose(own, x, atol=1e-5, rtol=0)
    predictions = ours.task.predictions(outputs, features, count)
    if isinstance(ours.task, QuestionAnswering):
        again = ours.task.predictions([{name: x} for x in expected], features, count)
        threshold = float(np.median([p.null_odds for p in predictions]))
        texts = ours.task.texts(predictions, examples, threshold)
        assert texts == ours.task.texts(again, examples, threshold)
        assert len(set(texts.values())) > count / 4
        assert 0 < list(texts.values()).count("") < count
    elif case.kind == "token_classification":
        pairs = zip(examples, expected, strict=True)
        assert predictions == [theirs.tags(e.words, x) for e, x in pairs]
        assert {tag for tags in predictions for tag in tags} == set(case.labels)
    elif ours.task.config.name == "glue/stsb":
        np.testing.assert_allclose(predictions, np.ravel(expected), atol=1e-5, rtol=0)
        assert np.std(predictions) > 0.01
    else:
        assert predictions == [int(np.argmax(x)) for x in expected]
        assert set(predictions) == set(range(len(case.labels) or 4))


@pytest.fixture(scope="module")
def vocabulary(vocabulary: Path) -> Tokenizer:
    return load_tokenizer(vocabulary)


@pytest.mark.parametrize("name", CASES)
def test_made_up_examples(name, vocabulary, tmp_path):
    check(CASES[name], make_examples(CASES[name].kind), vocabulary, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("name", CASES)
def test_real_examples(name, shared_data, tmp_path):
    case = CASES[name]
    data = read_task(case.task, shared_data / case.folder)
    tokenizer = load_tokenizer(shared_data / "albert_vocab" / "30k-clean.model")
    check(case, data.splits["validation"][: case.count], tokenizer, tmp_path)


def load_theirs(name: str, labels: list[str], vocabulary: Tokenizer, folder: Path) -> Any:
    """A model that transformers saved with names of classes, there and here."""
    kind = CASES[name].kind
    config = tiny_model(vocab_size=vocabulary.vocab_size, max_position_embeddings=65)
    hf_model(config, CLASS_OF[kind], id2label=dict(enumerate(labels))).save_pretrained(folder)
    write_tokenizer(vocabulary.vocabulary, folder / "tokenizer")
    AlbertTokenizer.from_pretrained(folder / "tokenizer").save_pretrained(folder)
    return Theirs(kind, folder), albert_jax.load(folder)


@pytest.mark.parametrize("labels", [["good", "bad", "none"], ["score"]], ids=str)
def test_their_classifier_here(labels, vocabulary, tmp_path):
    theirs, ours = load_theirs("classification", labels, vocabulary, tmp_path)
    examples = [e for e in make_examples("classification", 16) if e.pair]
    sequences = [s for e in examples for s in theirs.sequences(ours.task, e)]
    with pytest.warns(UserWarning, match="4 of 8 texts were cut"):
        found = ours.classify([e.text for e in examples], [e.pair for e in examples])
    for one, logits in zip(found, theirs.outputs(sequences), strict=True):
        if labels == ["score"]:
            assert (one.label, one.probabilities) == (pytest.approx(logits[0], abs=1e-5), {})
        else:
            assert one.label == labels[int(np.argmax(logits))]
            expected = dict(zip(labels, softmax(logits).tolist(), strict=True))
            assert one.probabilities == pytest.approx(expected, abs=1e-5)


def test_their_tagger_here(vocabulary, tmp_path):
    theirs, ours = load_theirs("token_classification", ["B-X", "O", "I-X"], vocabulary, tmp_path)
    for example in make_examples("token_classification", 8):
        (logits,) = theirs.outputs(theirs.sequences(ours.task, example))
        found = ours.tag(example.words)
        assert [one.word for one in found] == list(example.words)
        assert [one.tag for one in found] == theirs.tags(example.words, logits)


def test_their_answers_here(vocabulary, tmp_path):
    theirs, ours = load_theirs("question_answering", ["no", "yes"], vocabulary, tmp_path)
    assert ours.labels == ()
    draw = random.Random(0)
    for question in WORDS[:8]:
        context = make_sentence(draw, 3, 7)
        encoded = theirs.encode(question, context, return_offsets_mapping=True)
        start, end = theirs.outputs([{name: encoded[name] for name in INPUTS}])[0]
        slots = [i for i, part in enumerate(encoded.sequence_ids()) if part == 1]
        offsets = encoded["offset_mapping"]
        scores = {(0, 0): start[0] + end[0]} | {
            (offsets[i][0], offsets[j][1]): start[i] + end[j]
            for i in slots
            for j in slots
            if i <= j < i + 30
        }
        best = sorted(scores, key=lambda place: -scores[place])[:5]
        found = ours.answer(question, context, top_k=5)
        assert [(answer.start, answer.end) for answer in found] == best
        assert [answer.text for answer in found] == [context[a:b] for a, b in best]


def test_their_choices_here(vocabulary, tmp_path):
    theirs, ours = load_theirs("multiple_choice", ["no", "yes"], vocabulary, tmp_path)
    for example in make_examples("multiple_choice", 8):
        (logits,) = theirs.outputs(theirs.sequences(ours.task, example), options=4)
        found = ours.choose(example.context, example.question, example.options)
        assert found.index == int(np.argmax(logits))
        assert found.option == example.options[found.index]
        assert found.probabilities == pytest.approx(softmax(logits).tolist(), abs=1e-5)
