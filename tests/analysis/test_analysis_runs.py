"""The analysis of real runs: it agrees with what training measured."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.pieces import UNK
from support.tiny_runs import TRAINED, tiny_config, tiny_run

import albert_jax
from albert_jax.analysis.curves import differing_settings, read_curves
from albert_jax.analysis.masked_lm import held_out, held_out_ngram_words, ngram_words, summarize
from albert_jax.data.loader import Rows
from albert_jax.data.row_reader import open_rows
from albert_jax.data.sampling import EVAL_SEED, example_rng
from albert_jax.data.sentence_pairs import choose_pairs, lay_out
from albert_jax.data.tokenizers import load_tokenizer
from albert_jax.evaluate import evaluate


def test_held_out_predictions_add_up_to_what_evaluate_reports(rows, trained_run):
    found = held_out(albert_jax.load(trained_run), tiny_config(rows).data, batch_size=5)
    theirs = evaluate(trained_run)
    for name, value in summarize(found, "sop").items():
        assert value == pytest.approx(theirs[name], rel=1e-5), name
    assert found.positions.min() >= 1


def test_each_held_out_prediction_has_its_ngram(rows, trained_run):
    model, data = albert_jax.load(trained_run), tiny_config(rows).data
    for limit in (None, 3):
        words = held_out_ngram_words(data, model.tokenizer.table, limit)
        assert len(words) == len(held_out(model, data, limit).labels)
        assert {1} < set(words) <= {1, 2, 3}


def test_another_objective_than_its_own_can_be_asked_for(rows, trained_run):
    model = albert_jax.load(trained_run)
    swapped, borrowed, none = (
        held_out(model, tiny_config(rows, data={"sentence_objective": name}).data)
        for name in ("sop", "nsp", "none")
    )
    assert len(swapped.pair_labels) == len(borrowed.pair_labels) > 0
    assert set(swapped.pair_labels) == set(borrowed.pair_labels) == {0, 1}
    assert not np.array_equal(swapped.pair_probs, borrowed.pair_probs)
    assert set(summarize(none, "none")) == {"mlm_loss", "mlm_accuracy"}


def test_a_model_without_the_heads_is_refused(rows, trained_run):
    model = albert_jax.load(trained_run)
    model.heads = ("pooler",)
    with pytest.raises(ValueError, match="no mlm, sop"):
        held_out(model, tiny_config(rows).data)


@pytest.mark.parametrize("objective", ["sop", "nsp", "none"])
def test_the_slots_of_the_ngrams_are_those_that_the_loader_masks(rows, objective):
    data = tiny_config(rows, data={"sentence_objective": objective}).data
    tokenizer = load_tokenizer(rows / "tokenizer.model")
    source, loader = open_rows(rows, "train"), Rows(data, "train")
    for epoch, row in ((0, 0), (0, 7), (3, 7)):
        example = loader.make_example(5, epoch, row)
        words = ngram_words(data, source, tokenizer.table, 5, epoch, row)
        predicted = example["mlm_positions"][example["mlm_weights"] > 0]
        np.testing.assert_array_equal(np.flatnonzero(words), predicted)


def test_unknown_pieces_within_an_ngram_are_not_predicted(rows):
    data = tiny_config(rows, data={"sentence_objective": "none"}).data
    row = dict(open_rows(rows, "train")[0])
    row["pieces"] = np.where(np.arange(len(row["pieces"])) % 3, row["pieces"], UNK)
    table = load_tokenizer(rows).table
    words = ngram_words(data, [row], table, 5, 0, 0)
    pairs = choose_pairs(row, "none", example_rng(5, 0, 0))
    ids = lay_out([pairs], table.special).input_ids
    assert words.any()
    assert not words[ids == UNK].any()


def test_held_out_examples_are_those_of_the_evaluations(rows):
    """`EVAL_SEED`, epoch 0: what `eval_batches` draws."""
    data = tiny_config(rows).data
    words = ngram_words(
        data, open_rows(rows, "validation"), load_tokenizer(rows).table,
        EVAL_SEED, 0, 1,
    )  # fmt: skip
    example = Rows(data, "validation").make_example(EVAL_SEED, 0, 1)
    assert (words > 0).sum() == example["mlm_weights"].sum()


@pytest.mark.slow
def test_curves_and_differing_settings_of_two_runs(rows, trained_run, tmp_path):
    run = Path(shutil.copytree(trained_run, tmp_path / "sop"))
    other = tiny_run(rows, tmp_path / "none", data={"sentence_objective": "none"}, **TRAINED)
    curves = read_curves([run, other], "mlm_loss")
    assert list(curves) == ["sop", "none"]
    np.testing.assert_array_equal(curves["sop"].steps, [6, 12])
    assert list(read_curves([run, other], "sop_loss", "train")) == ["sop"]
    with pytest.raises(ValueError, match=r"no run of .* has 'f1'"):
        read_curves([run], "f1")
    assert differing_settings([run, other]) == {
        "data.sentence_objective": {"sop": "sop", "none": "none"}
    }
