"""Metrics of classes, scores and entities against the formulas and conlleval's rules."""

import math
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given
from support.examples import examples

from albert_jax.tasks.metrics import entity_metrics
from albert_jax.tasks.metrics import text_metrics as metrics_by_name
from albert_jax.tasks.registry import spec_of


def text_metrics(task, predictions, labels):
    return metrics_by_name(spec_of(task).metrics, predictions, labels)


def main_metric(task):
    return spec_of(task).metrics[0]


GLUE = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli", "ax")
TEXT_TASKS = (*(f"glue/{name}" for name in GLUE), "race", "race/middle", "race/high")


def pearson(x, y):
    dx, dy = x - x.mean(), y - y.mean()
    return (dx * dy).sum() / math.sqrt((dx**2).sum() * (dy**2).sum())


def ranks(x):
    return np.array([(x < value).sum() + ((x == value).sum() + 1) / 2 for value in x])


def test_metrics_of_two_classes_are_the_formulas():
    labels = np.array([1] * 6 + [0] * 4)
    guesses = np.array([1, 1, 1, 1, 0, 0, 1, 0, 0, 0])
    tp, fn, fp, tn = 4, 2, 1, 3
    matthews = (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    f1 = 2 * tp / (2 * tp + fp + fn)
    assert text_metrics("glue/cola", guesses, labels) == {"matthews": pytest.approx(matthews)}
    for task in ("glue/mrpc", "glue/qqp"):
        assert text_metrics(task, guesses, labels) == {"accuracy": 0.7, "f1": pytest.approx(f1)}
    for task in ("sst2", "qnli", "rte", "wnli"):
        assert text_metrics(f"glue/{task}", guesses, labels) == {"accuracy": 0.7}
    other = 2 * tn / (2 * tn + fp + fn)
    assert text_metrics("classification", guesses, labels) == {
        "accuracy": 0.7,
        "macro_f1": pytest.approx((f1 + other) / 2),
    }


def test_metrics_of_many_classes():
    labels, guesses = np.array([0, 1, 2, 2, 3]), np.array([0, 2, 2, 2, 0])
    for task in ("glue/mnli", "race", "race/middle", "race/high"):
        assert text_metrics(task, guesses, labels) == {"accuracy": 0.6}
    # Class 3 is never predicted, class 1 never rightly: both count as 0.
    macro = (2 / 3 + 0 + 4 / 5 + 0) / 4
    assert text_metrics("classification", guesses, labels)["macro_f1"] == pytest.approx(macro)
    # The diagnostics: Matthews of three classes is the correlation of one-hot vectors.
    labels, guesses = np.array([0, 1, 2, 2, 1, 0]), np.array([0, 1, 2, 1, 1, 2])
    x, y = np.eye(3)[labels], np.eye(3)[guesses]
    dx, dy = x - x.mean(0), y - y.mean(0)
    expected = (dx * dy).sum() / math.sqrt((dx**2).sum() * (dy**2).sum())
    assert text_metrics("glue/ax", guesses, labels) == {"matthews": pytest.approx(expected)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_metrics_of_scores(dtype):
    rng = np.random.default_rng(0)
    labels = (rng.integers(0, 26, 200) / 5).astype(dtype)
    guesses = (labels + rng.normal(size=200)).astype(dtype)
    guesses[:20] = guesses[20:40]  # ties
    truth, labels, exact = labels, labels.astype(np.float64), guesses.astype(np.float64)
    expected = {
        "pearson": pytest.approx(pearson(exact, labels), rel=1e-12),
        "spearman": pytest.approx(pearson(ranks(exact), ranks(labels)), rel=1e-12),
    }
    assert text_metrics("glue/stsb", guesses, truth) == expected
    assert text_metrics("regression", guesses, truth) == expected | {
        "mean_squared_error": pytest.approx(np.mean((exact - labels) ** 2), rel=1e-12)
    }


@pytest.mark.parametrize("swap", [False, True])
def test_constant_predictions_correlate_with_nothing(swap):
    # Warnings are errors in this suite; scipy and scikit-learn would give some here.
    def measure(task, guesses, labels):
        pair = (labels, guesses) if swap else (guesses, labels)
        return text_metrics(task, *map(np.array, pair))

    assert measure("glue/cola", [1, 1, 1], [0, 1, 1]) == {"matthews": 0.0}
    assert measure("glue/cola", [1, 1], [1, 1]) == {"matthews": 0.0}
    assert measure("glue/stsb", [2.5] * 3, [1.0, 2.0, 3.0]) == {"pearson": 0.0, "spearman": 0.0}
    assert measure("glue/stsb", [0.0] * 3, [1.0, 2.0, 3.0]) == {"pearson": 0.0, "spearman": 0.0}
    rounding = [1.0, 1.0 + 1e-15, 1.0]
    assert measure("glue/stsb", rounding, [1.0, 2.0, 3.0]) == {"pearson": 0.0, "spearman": 0.0}
    assert measure("regression", [2.0], [3.0])["pearson"] == 0.0
    # Little spread far from 0 is a spread.
    assert measure("glue/stsb", [100, 100.001, 100.002], [1, 2, 3])["pearson"] > 0.999


def test_f1_of_absent_classes():
    zeros, ones = np.zeros(3, np.int64), np.ones(3, np.int64)
    assert text_metrics("glue/mrpc", zeros, zeros) == {"accuracy": 1.0, "f1": 0.0}
    assert text_metrics("glue/mrpc", ones, zeros) == {"accuracy": 0.0, "f1": 0.0}
    assert text_metrics("glue/mrpc", ones, ones) == {"accuracy": 1.0, "f1": 1.0}
    assert text_metrics("classification", zeros, zeros) == {"accuracy": 1.0, "macro_f1": 1.0}


def test_what_cannot_be_measured_is_refused():
    classes, scores = np.array([0, 1]), np.array([0.5, 1.0])
    with pytest.raises(ValueError, match="'bleu' is not a metric"):
        metrics_by_name(["bleu"], classes, classes)
    with pytest.raises(ValueError, match="N > 0"):
        text_metrics("race", classes[:0], classes[:0])
    with pytest.raises(ValueError, match=r"\(2,\) and \(1,\)"):
        text_metrics("race", classes, classes[:1])
    with pytest.raises(ValueError, match=r"\(2, 1\)"):
        text_metrics("glue/stsb", scores[:, None], scores[:, None])
    with pytest.raises(ValueError, match="must be integers, not float64"):
        text_metrics("glue/sst2", scores, classes)
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="not finite"):
            text_metrics("regression", np.array([0.5, bad]), scores)


def test_main_metrics_are_among_those_measured():
    expected = {"glue/cola": "matthews", "glue/ax": "matthews", "glue/stsb": "pearson"}
    expected |= {"regression": "pearson", "classification": "accuracy"}
    for task in (*TEXT_TASKS, "regression", "classification"):
        main = main_metric(task)
        assert main == expected.get(task, "accuracy")
        labels = np.arange(4) % 3
        best, worse = (text_metrics(task, x, labels)[main] for x in (labels, (labels + 1) % 3))
        assert best == pytest.approx(1.0)
        assert worse < best
    assert main_metric("conll2003") in entity_metrics([["O"]], [["O"]])
    assert [main_metric(f"squad/{v}") for v in ("v1.1", "v2.0")] == ["f1", "best_f1"]
    with pytest.raises(ValueError, match="pretrain"):
        spec_of("pretrain")


# conlleval.pl's decisions on neighbouring tags, for O, B and I.
ENDS = {("B", "B"), ("B", "O"), ("I", "B"), ("I", "O")}
STARTS = {("B", "B"), ("I", "B"), ("O", "B"), ("O", "I")}


def conlleval(predictions, labels):
    """conlleval.pl word by word: counts of right, predicted and true chunks."""
    counts = Counter()
    before = [("O", ""), ("O", "")]
    inside = False
    # It reads an empty line after each sentence as a word outside.
    streams = ([tag for tags in side for tag in (*tags, "O")] for side in (predictions, labels))
    for row in zip(*streams, strict=True):
        now = [tuple(tag.split("-", 1)) if "-" in tag else (tag, "") for tag in row]
        ends, starts = [], []
        for (tag, kind), (last, last_kind) in zip(now, before, strict=True):
            other = kind != last_kind
            ends.append((last, tag) in ENDS or (last != "O" and other))
            starts.append((last, tag) in STARTS or (tag != "O" and other))
        if inside and all(ends) and before[0][1] == before[1][1]:
            counts["right"] += 1
            inside = False
        elif inside and (ends[0] != ends[1] or now[0][1] != now[1][1]):
            inside = False
        if all(starts) and now[0][1] == now[1][1]:
            inside = True
        counts["predicted"] += starts[0]
        counts["true"] += starts[1]
        before = now
    right, predicted, true = counts["right"], counts["predicted"], counts["true"]
    precision, recall = right / predicted if predicted else 0.0, right / true if true else 0.0
    both = precision + recall
    f1 = 2 * precision * recall / both if both else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}


TAGS = st.sampled_from(["O", *(f"{p}-{t}" for p in "BI" for t in ("PER", "LOC", "A-B", "A"))])
SENTENCES = st.lists(st.lists(st.tuples(TAGS, TAGS), max_size=12), max_size=5)


@examples(500)
@given(SENTENCES)
def test_entities_as_conlleval_counts_them(sentences):
    guesses, labels = ([[row[k] for row in s] for s in sentences] for k in (0, 1))
    ours = entity_metrics(guesses, labels)
    assert ours == pytest.approx(conlleval(guesses, labels), abs=1e-12)
    assert all(type(value) is float for value in ours.values())


@pytest.mark.slow
@examples(200)
@given(SENTENCES)
def test_entities_as_seqeval_counts_them(sentences):
    from seqeval.metrics import sequence_labeling as seqeval

    assume(sentences)  # it takes no empty list
    guesses, labels = ([[row[k] for row in s] for s in sentences] for k in (0, 1))
    theirs = seqeval.precision_recall_fscore_support(
        labels,
        guesses,
        average="micro",
        zero_division=0,  # pyright: ignore
    )
    ours = entity_metrics(guesses, labels)
    assert list(ours.values()) == pytest.approx(theirs[:3], abs=1e-12)


@pytest.mark.parametrize(
    ("guess", "truth", "expected"),
    [
        # (right, predicted, true)
        ("B-PER I-PER O", "B-PER I-PER O", (1, 1, 1)),
        ("O I-PER O", "O B-PER O", (1, 1, 1)),  # I- after O opens
        ("I-PER I-LOC", "B-PER B-LOC", (2, 2, 2)),  # I- of another type opens
        ("B-PER I-LOC I-LOC", "B-PER B-LOC I-LOC", (2, 2, 2)),
        ("B-PER B-PER", "B-PER I-PER", (0, 2, 1)),
        ("B-PER I-PER I-PER", "B-PER I-PER O", (0, 1, 1)),  # one end is wrong
        ("B-LOC I-LOC", "B-PER I-PER", (0, 1, 1)),
        ("B-A-B I-A-B", "B-A-B I-A", (0, 1, 2)),  # types may hold hyphens
        ("O O", "O O", (0, 0, 0)),
        ("O O", "B-PER O", (0, 0, 1)),
        ("B-PER O", "O O", (0, 1, 0)),
        ("", "", (0, 0, 0)),
    ],
)
def test_entities_by_hand(guess, truth, expected):
    right, predicted, true = expected
    ours = entity_metrics([guess.split()], [truth.split()])
    assert ours["precision"] == (right / predicted if predicted else 0)
    assert ours["recall"] == (right / true if true else 0)
    assert ours["f1"] == (2 * right / (predicted + true) if right else 0)


def test_entities_end_with_their_sentence():
    # Joined, the two sentences would hold one entity.
    expected = {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert entity_metrics([["B-PER"], ["I-PER"]], [["B-PER"], ["B-PER"]]) == expected
    assert entity_metrics([], []) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    # The same words in another sentence are another entity.
    assert entity_metrics([["B-PER"], ["O"]], [["O"], ["B-PER"]])["f1"] == 0.0


@pytest.mark.parametrize("tag", ["", "B", "B-", "E-PER", "S-PER", "PER", "b-PER", "O-PER", "o"])
def test_other_tags_are_refused(tag):
    for pair in (([["O", tag]], [["O", "O"]]), ([["O", "O"]], [["O", tag]])):
        with pytest.raises(ValueError, match="must be O"):
            entity_metrics(*pair)


def test_sentences_must_match():
    with pytest.raises(ValueError, match="1 sentences predicted, but 2 labelled"):
        entity_metrics([["O"]], [["O"], ["O"]])
    with pytest.raises(ValueError, match="sentence 1: 1 tags for 2 words"):
        entity_metrics([["O"], ["O"]], [["O"], ["O", "O"]])
