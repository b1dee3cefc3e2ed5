"""Training a SentencePiece vocabulary on a corpus."""

import io
import os
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece as spm

from albert_jax.data.tokenizer import (
    CONTROL_SYMBOLS,
    MAX_VOCAB_SIZE,
    NUM_SPECIAL,
    PAD,
    UNK,
    USER_DEFINED_SYMBOLS,
    normalize,
)
from albert_jax.prepare.corpus import Corpus, Document
from albert_jax.prepare.documents import content_digest, split_of
from albert_jax.prepare.row_builder import split_sentences
from albert_jax.prepare.settings import Settings

# A vocabulary is trained on at most this much text; SentencePiece needs about 20 times as much
# memory. Unigram statistics change little beyond it.
TRAINING_CHARS = 64 << 20


def training_sentences(corpus: Corpus, settings: Settings) -> Iterator[str]:
    """Yields the sentences of a sample of the training documents, at most about `TRAINING_CHARS`.

    A document is in the sample if its hash is below a threshold, which is halved whenever the
    sample grows too large. The sample therefore depends only on the documents, and equal
    documents count once.
    """
    sample: dict[int, Document] = {}
    held_out: Document | None = None  # a corpus of this document alone is in both splits
    bar, size = 2**64, 0
    for document in corpus:
        digest = content_digest(document)
        if split_of(document, digest, settings) != "train":
            held_out = held_out or document
            continue
        if digest >= bar or digest in sample:
            continue
        sample[digest] = document
        size += document.chars
        while size > TRAINING_CHARS and len(sample) > 1:
            bar //= 2
            sample = {d: document for d, document in sample.items() if d < bar}
            size = sum(document.chars for document in sample.values())
    for document in sample.values() or filter(None, [held_out]):
        yield from (
            document.paragraphs if document.is_sentences else split_sentences(document.paragraphs)
        )


MAX_TRAINING_BYTES = 4192  # longer training sentences are cut, as SentencePiece would drop them


def _training_texts(texts: Iterable[str]) -> Iterator[str]:
    for text in map(normalize, texts):
        if len(text.encode()) <= MAX_TRAINING_BYTES:
            yield text
        else:  # 4 bytes is the longest UTF-8 character
            yield from textwrap.wrap(text, MAX_TRAINING_BYTES // 4)


def train_tokenizer(
    texts: Iterable[str],
    output: str | os.PathLike,
    vocab_size: int,
    character_coverage: float = Settings.character_coverage,
) -> None:
    """Trains a SentencePiece unigram model with ALBERT's settings; same texts, same bytes.

    Args:
      texts: sentences; they are normalised, and cut at spaces if too long for SentencePiece.
      output: the `.model` file to write.
      vocab_size: the number of pieces to train, special ones included.
      character_coverage: the fraction of the text's characters that the pieces spell.

    Raises:
      ValueError: if `vocab_size` is out of range, or too large or too small for the text.
    """
    smallest = NUM_SPECIAL + len(USER_DEFINED_SYMBOLS)
    if not smallest < vocab_size <= MAX_VOCAB_SIZE:
        raise ValueError(
            f"vocab_size {vocab_size}: must be from {smallest + 1} to {MAX_VOCAB_SIZE}"
        )
    model = io.BytesIO()
    try:
        spm.SentencePieceTrainer.train(
            sentence_iterator=_training_texts(texts),
            model_writer=model,
            vocab_size=vocab_size,
            # Source of all that follows: google-research/albert README, "SentencePiece".
            model_type="unigram",
            pad_id=PAD,
            unk_id=UNK,
            bos_id=-1,
            eos_id=-1,
            pad_piece="<pad>",
            unk_piece="<unk>",
            control_symbols=list(CONTROL_SYMBOLS),
            user_defined_symbols=list(USER_DEFINED_SYMBOLS),
            character_coverage=character_coverage,
            normalization_rule_name="nmt_nfkc",
            shuffle_input_sentence=True,
            input_sentence_size=10_000_000,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise ValueError(_explain(str(error), vocab_size, character_coverage)) from None
    Path(output).write_bytes(model.getvalue())


# SentencePiece's words for a size that is too large, with the largest possible one, and for one
# that is too small, with the number of characters.
_TOO_LARGE = re.compile(r"too high \(\d+\).*<= (\d+)", re.DOTALL)
_TOO_SMALL = re.compile(r"smaller than required_chars\. \d+ vs (\d+)")


def _explain(reason: str, vocab_size: int, character_coverage: float) -> str:
    """Returns what to do about an error of SentencePiece's."""
    if found := _TOO_LARGE.search(reason):
        return (
            f"vocab_size {vocab_size}: this text has too few different words for so many tokens; "
            f"pass --vocab_size {found[1]} or smaller, or give more text"
        )
    if found := _TOO_SMALL.search(reason):
        return (
            f"vocab_size {vocab_size}: this text has too many different characters for so few "
            f"tokens ({found[1]} are needed for {character_coverage:.3%} of it); pass "
            f"--vocab_size {int(1.1 * int(found[1]))} or larger"
        )
    last = reason.strip().splitlines()[-1].split("] ")[-1].rstrip(".")
    return (
        f"vocab_size {vocab_size}: cannot train a vocabulary on this text: {last}; give more text "
        "or a smaller vocab_size"
    )
