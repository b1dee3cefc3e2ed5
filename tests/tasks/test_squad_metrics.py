"""SQuAD's scores against a transcription of the official evaluation's algorithm."""

import math
import string

import hypothesis.strategies as st
import pytest
from hypothesis import given
from support.examples import examples

from albert_jax.tasks.examples import Answer, QuestionExample
from albert_jax.tasks.squad_metrics import best_null_threshold, squad_metrics


def question(id_, *golds):
    return QuestionExample(id_, "t", "c", "q", tuple(Answer(gold, 0) for gold in golds))


def tokens(text):
    """Lower case, no ASCII punctuation, no articles; character by character."""
    kept, word = "", ""
    for c in [*(c for c in text.lower() if c not in string.punctuation), " "]:
        # An article stands among letters and digits, not only among spaces: "a–b" loses its a.
        if c.isalnum():
            word += c
        else:
            kept += (" " if word in ("a", "an", "the") else word) + c
            word = ""
    return kept.split()


def token_f1(gold, ours):
    left, same = list(gold), 0
    for token in ours:
        if token in left:
            left.remove(token)
            same += 1
    if not gold or not ours:
        return float(gold == ours)
    if not same:
        return 0.0
    precision, recall = 1.0 * same / len(ours), 1.0 * same / len(gold)
    return (2 * precision * recall) / (precision + recall)


def official(predictions, examples, odds=None, threshold=None):
    """evaluate-v2.0.py: its loops and its order of adding, without its factor 100."""
    known = {e.id: bool(e.answers) for e in examples}
    raw = {"exact": {}, "f1": {}}
    for e in examples:
        golds = [a.text for a in e.answers if tokens(a.text)] or [""]
        mine = predictions[e.id]
        raw["exact"][e.id] = max(int(tokens(g) == tokens(mine)) for g in golds)
        raw["f1"][e.id] = max(token_f1(tokens(g), tokens(mine)) for g in golds)
    result = {}
    for name, scores in raw.items():
        final = dict(scores)
        for i in scores:
            if odds and threshold is not None and odds[i] > threshold:
                final[i] = float(not known[i])
        result[name] = sum(final.values()) / len(final)
        if odds is None:
            continue
        for prefix, wanted in (("HasAns", True), ("NoAns", False)):
            part = [i for i in known if known[i] is wanted]
            if part:
                result[f"{prefix}_{name}"] = sum(final[i] for i in part) / len(part)
        score = best = sum(1 for i in known if not known[i])
        cut = 0.0
        for i in sorted(odds, key=odds.__getitem__):
            if i not in scores:
                continue
            score += scores[i] if known[i] else (-1 if predictions[i] else 0)
            if score > best:
                best, cut = score, odds[i]
        result |= {f"best_{name}": best / len(scores), f"best_{name}_threshold": cut}
    return result


CASES = [
    # (prediction, golds, exact, F1)
    ("Denver Broncos", ["denver broncos"], 1, 1),
    ("The Broncos", ["Denver Broncos", "Broncos"], 1, 1),
    ("Denver", ["Denver Broncos", "the Broncos"], 0, 2 / 3),
    ("", [], 1, 1),
    ("x", [], 0, 0),
    ("the", [], 1, 1),  # nothing is left of it
    ("...", [], 1, 1),
    ("", ["the"], 1, 1),  # gold answers of which nothing is left do not count
    ("", ["", "x"], 0, 0),
    ("x", ["", "x"], 1, 1),
    ("a", ["A", "An", "!"], 1, 1),
    ("a b c", ["b c"], 1, 1),
    ("theatre an", ["Theatre"], 1, 1),
    ("x x x y", ["x x z"], 0, 4 / 7),
    ("x-ray", ["xray"], 1, 1),
    ("x ray", ["x-ray"], 0, 0),
    ("24–10", ["24-10"], 0, 0),  # a dash beyond ASCII stays
    ("24–10", ["24–10"], 1, 1),
    ("“yes”", ["yes"], 0, 0),
    ('"yes"', ["yes"], 1, 1),
    ("a–b", ["–b"], 1, 1),
    ("the–cat", ["a–cat"], 1, 1),
    ("–the–", ["– –"], 1, 1),  # an article leaves a gap
    ("a_b", ["ab"], 1, 1),  # underscores are punctuation
    ("the’s", ["’s"], 1, 1),
    ("don’t", ["don't"], 0, 0),
    ("a\u00a0b\u2003c\td\n", ["b c d"], 1, 1),
    ("x\u200by", ["x y"], 0, 0),  # a zero width space is none
    ("İstanbul", ["i̇stanbul"], 1, 1),
    ("STRASSE", ["straße"], 0, 0),
    ("$5.00", ["500"], 1, 1),
]  # fmt: skip


@pytest.mark.parametrize(("prediction", "golds", "exact", "f1"), CASES)
def test_normalisation(prediction, golds, exact, f1):
    examples = [question("q", *golds)]
    ours = squad_metrics({"q": prediction}, examples)
    assert ours == {"exact": exact, "f1": pytest.approx(f1)}
    assert ours == official({"q": prediction}, examples)


WORDS = ["a", "an", "the", "The", "x", "X.", "y", "–z", "x_y"]
TEXTS = st.one_of(
    st.text(max_size=20),
    st.text("aAnthe bB.,'_-–’“\u00a0\u2028\t\n", max_size=20),
    st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join),
)
# Few values, so that many are equal.
ODDS = st.one_of(st.sampled_from([-1.5, -1.0, 0.0, 1.0, 2.0]), st.floats(-3, 3))
QUESTIONS = st.lists(st.tuples(TEXTS, st.lists(TEXTS, max_size=3), ODDS), min_size=1, max_size=8)


def unpack(rows, reverse):
    examples = [question(f"q{i}", *golds) for i, (_, golds, _) in enumerate(rows)]
    predictions = {f"q{i}": text for i, (text, _, _) in enumerate(rows)}
    odds = {f"q{i}": odd for i, (_, _, odd) in enumerate(rows)}
    # The official order of equal odds is that of the odds' file; other ids do no harm.
    odds = dict(reversed(odds.items())) if reverse else odds
    return predictions | {"stray": "x"}, examples, odds | {"stray": -2.0}


@examples(400)
@given(QUESTIONS, st.none() | ODDS, st.booleans())
def test_metrics_are_the_official_ones(rows, threshold, reverse):
    predictions, examples, odds = unpack(rows, reverse)
    assert squad_metrics(predictions, examples) == official(predictions, examples)
    ours = squad_metrics(predictions, examples, odds, threshold)
    assert ours == official(predictions, examples, odds, threshold)
    assert all(type(value) is float for value in ours.values())


@examples(400)
@given(QUESTIONS, st.booleans())
def test_no_threshold_is_better_than_the_best(rows, reverse):
    predictions, examples, odds = unpack(rows, reverse)
    best = best_null_threshold(predictions, examples, odds)
    assert math.isfinite(best)
    f1 = {
        t: squad_metrics(predictions, examples, odds, t)["f1"] for t in (best, -10, *odds.values())
    }
    assert f1[best] >= max(f1.values()) - 1e-12


def test_thresholds_by_hand():
    examples = [question("a", "x"), question("b"), question("c", "y z"), question("d")]
    predictions = {"a": "x", "b": "w", "c": "y", "d": "v"}
    odds = {"a": -2.0, "b": 1.0, "c": -1.0, "d": 3.0}
    ours = squad_metrics(predictions, examples, odds)
    assert (ours["exact"], ours["HasAns_exact"], ours["NoAns_exact"]) == (0.25, 0.5, 0.0)
    assert (ours["best_exact"], ours["best_exact_threshold"]) == (0.75, -2.0)
    assert (ours["best_f1"], ours["best_f1_threshold"]) == ((3 + 2 / 3) / 4, -1.0)
    assert best_null_threshold(predictions, examples, odds) == -1.0
    tuned = squad_metrics(predictions, examples, odds, -1.0)
    assert tuned["f1"] == ours["best_f1"]
    assert (tuned["exact"], tuned["NoAns_exact"]) == (0.75, 1.0)


def test_of_equally_good_thresholds_the_smallest_is_taken():
    examples = [question("a", "x"), question("b"), question("c", "z")]
    predictions, odds = {"a": "x", "b": "y", "c": "z"}, {"a": -1.0, "b": 0.0, "c": 1.0}
    f1 = [squad_metrics(predictions, examples, odds, t)["f1"] for t in odds.values()]
    assert f1 == pytest.approx([2 / 3, 1 / 3, 2 / 3])
    assert best_null_threshold(predictions, examples, odds) == -1.0


def test_a_threshold_does_not_part_equal_odds():
    # The official best answers "a" and not "b", which no threshold does.
    examples, odds = [question("a", "x"), question("b")], {"a": 1.0, "b": 1.0}
    predictions = {"a": "x", "b": "y"}
    assert squad_metrics(predictions, examples, odds)["best_f1"] == 1.0
    best = best_null_threshold(predictions, examples, odds)
    assert squad_metrics(predictions, examples, odds, best)["f1"] == 0.5
    # Answering both and answering none are as good; none is chosen.
    assert best == math.nextafter(1.0, -math.inf)


def test_never_answering_with_negative_odds():
    # The official threshold for it, 0, would answer both.
    examples, odds = [question("a"), question("b")], {"a": -2.0, "b": -1.0}
    predictions = {"a": "x", "b": "y"}
    ours = squad_metrics(predictions, examples, odds)
    assert (ours["best_f1"], ours["best_f1_threshold"]) == (1.0, 0.0)
    assert "HasAns_f1" not in ours
    best = best_null_threshold(predictions, examples, odds)
    assert squad_metrics(predictions, examples, odds, best)["f1"] == 1.0


@pytest.mark.parametrize("measure", [squad_metrics, best_null_threshold])
def test_what_cannot_be_measured_is_refused(measure):
    examples = [question(i, "x") for i in "abc"]
    full, odds = dict.fromkeys("abc", "x"), dict.fromkeys("abc", 0.0)
    with pytest.raises(ValueError, match="2 of 3 questions have no prediction; the first is 'b'"):
        measure({"a": "x"}, examples, odds)
    with pytest.raises(ValueError, match="1 of 3 questions have no null odds; the first is 'c'"):
        measure(full, examples, {"a": 0.0, "b": 0.0})
    with pytest.raises(ValueError, match="not finite"):
        measure(full, examples, odds | {"b": math.nan})
    with pytest.raises(ValueError, match="no examples"):
        measure(full, [], odds)


def test_a_threshold_needs_odds():
    with pytest.raises(ValueError, match="needs null_odds"):
        squad_metrics({"a": "x"}, [question("a", "x")], threshold=0.5)
