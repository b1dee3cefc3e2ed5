"""BLEU and chrF, as sacreBLEU has them."""

import pytest
import sacrebleu

from albert_jax.tasks.translation_metrics import signatures, translation_metrics

FOUND = ["Ein Hund läuft im Schnee.", "zwei Katzen schlafen auf dem Sofa"]
RIGHT = ["Ein Hund läuft durch den Schnee.", "Zwei Katzen schlafen auf dem Sofa."]


def test_scores_are_those_of_sacrebleu():
    scores = translation_metrics(FOUND, RIGHT, "de")
    assert scores["bleu"] == sacrebleu.corpus_bleu(FOUND, [RIGHT]).score
    assert scores["chrf"] == sacrebleu.corpus_chrf(FOUND, [RIGHT]).score
    lower = sacrebleu.corpus_bleu(FOUND, [RIGHT], lowercase=True).score
    assert scores["bleu_lower_cased"] == lower > scores["bleu"]
    assert scores["chrf_lower_cased"] > scores["chrf"]


def test_chinese_is_compared_by_characters():
    scores = translation_metrics(["我们今天去公园。"], ["我们今天去花园。"], "zh")
    expected = sacrebleu.corpus_bleu(["我们今天去公园。"], [["我们今天去花园。"]], tokenize="zh")
    assert scores["bleu"] == expected.score > 20
    assert translation_metrics(["我们今天去公园。"], ["我们今天去花园。"], "de")["bleu"] == 0


@pytest.mark.parametrize(("language", "tokenizer"), [("de", "13a"), ("zh", "zh"), ("ja", "char")])
def test_signatures_say_how(language, tokenizer):
    found = signatures(language, 3)
    assert found.keys() == translation_metrics(FOUND, RIGHT, language).keys()
    assert f"tok:{tokenizer}" in found["bleu"]
    assert "case:mixed" in found["bleu"]
    assert "case:lc" in found["bleu_lower_cased"]
