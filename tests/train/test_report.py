"""What the end of a run shows: content words masked in prose, and neighbouring sentences."""

import random
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from support.pieces import train_tokenizer

from albert_jax.data.tokenizers import Tokenizer, load_tokenizer
from albert_jax.train.report import cloze, neighbours

_letters = random.Random(0)
WORDS = ["".join(_letters.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(450)]
FREQUENT, RARE = WORDS[:150], WORDS[150:]
CODE = "x_1 = f(3, y[0]) + g{2: 4} ** 7 // z.k[1:2] and 3 << 5 | 4 & ~2;"


def make_sentences(count: int, seed: int) -> list[str]:
    """Frequent words at even places, rare ones at odd places."""
    draw = random.Random(seed)
    return [
        " ".join(draw.choice(RARE if i % 2 else FREQUENT) for i in range(13)) + "."
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A vocabulary of whole words, by frequency."""
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    # Trained as a whole, a word becomes a token only if it is also a part of another word.
    others = " ".join(f"{word}s" for word in WORDS)
    train_tokenizer([*make_sentences(5000, seed=0), CODE, others], path, 500)
    return load_tokenizer(path)


def row_of(tokenizer: Tokenizer, *chunks: list[str]) -> dict[str, Any]:
    ids = [tokenizer.encode(sentence) for chunk in chunks for sentence in chunk]
    return {
        "pieces": np.concatenate(ids).astype(np.uint16),
        "sentence_lengths": np.array([len(i) for i in ids], np.uint16),
        "chunk_sentences": np.array([len(chunk) for chunk in chunks], np.uint16),
    }


def test_one_rare_whole_word_of_a_sentence_is_masked(tokenizer):
    sentences = make_sentences(6, seed=1)
    rows = [row_of(tokenizer, ["too short.", CODE, sentence]) for sentence in sentences]
    found = cloze(rows, tokenizer, count=4)
    assert len(found) == 4
    for text, word in found:
        assert word in RARE
        assert text.replace("[MASK]", word) in sentences
    assert len({text for text, _ in found}) == 4
    assert len(cloze(rows, tokenizer, count=99)) == 6
    assert cloze([row_of(tokenizer, [CODE, "too short."])], tokenizer, count=2) == []
    assert cloze([], tokenizer, count=2) == []


def test_sentences_are_taken_from_places_far_apart(tokenizer):
    sentences = make_sentences(400, seed=2)
    rows = [row_of(tokenizer, [sentence]) for sentence in sentences]
    found = [text.replace("[MASK]", word) for text, word in cloze(rows, tokenizer, count=5)]
    places = [sentences.index(text) for text in found]
    assert min(b - a for a, b in pairwise(places)) >= 70


def test_neighbours_follow_each_other_in_one_chunk(tokenizer):
    a, b, c, d = make_sentences(4, seed=3)
    apart = row_of(tokenizer, [a], [b], ["too short.", c], [d, CODE])
    together = row_of(tokenizer, [a], [b, c], [d])
    assert neighbours([apart], tokenizer, count=1) == []
    assert neighbours([apart, together, together], tokenizer, count=1) == [(b, c)]
    assert neighbours([apart, together, together], tokenizer, count=9) == [(b, c)] * 2
