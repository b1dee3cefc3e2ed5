"""After `warm_up` nothing is compiled: every shape of a batch has been."""

import logging
from contextlib import contextmanager

import jax
import pytest
from support.finetuned import make_weights
from support.texts import WORDS

from albert_jax.config import TaskConfig
from albert_jax.data.tokenizers import load_tokenizer
from albert_jax.predict.finetuned import FinetunedModel
from albert_jax.predict.warm_up import warm_up


@pytest.fixture
def make_model(vocabulary):
    def make(kind, **fields):
        weights = make_weights(kind, **fields)
        return FinetunedModel(weights, weights.params, load_tokenizer(vocabulary))

    return make


@pytest.mark.parametrize(("kind", "count"), [("classification", 3 * 5), ("masked_lm", 3 * 8 + 8)])
def test_every_shape_is_compiled_before(kind, count, make_model):
    """5 widths of up to 40 tokens, 8 of up to 64; batches of 1, 2 and 4 rows."""
    task = TaskConfig(name="classification", max_length=40)
    model = make_model(kind, **({"task": task} if kind == "classification" else {}))
    assert warm_up(model, 3) == count
    with compiling() as names:
        for number in (1, 2, 3):
            texts = [" ".join(WORDS[: 3 * number])] * number
            if kind == "classification":
                model.classify(texts)
            elif kind == "masked_lm":
                model.embed(texts)
                model.fill_mask(f"{texts[0]} [MASK]")
    assert names == []


@pytest.mark.filterwarnings("ignore:.* texts were cut")
def test_every_search_is_compiled_before(make_model):
    """Widths 16 and 20; batches of 1 and 2 rows."""
    task = TaskConfig(name="translation/src-tgt", max_length=20)
    model = make_model("translation", task=task)
    assert warm_up(model, 2) == 2 * 2
    with compiling() as names:
        for count in (1, 2):
            for letters in range(1, 30, 2):  # a token each, or less
                model.translate([("tan" * 10)[:letters]] * count)
        model.translate(["tan"], beam=task.translation.beam)
    assert names == []


@contextmanager
def compiling():
    """Yields the names of what JAX compiles meanwhile."""
    names = []
    logger = logging.getLogger("jax._src.interpreters.pxla")
    handler = logging.Handler()
    handler.emit = lambda record: names.append(record.getMessage())
    with jax.log_compiles():
        logger.addHandler(handler)
        yield names
        logger.removeHandler(handler)
