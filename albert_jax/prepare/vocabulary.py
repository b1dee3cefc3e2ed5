"""Training a vocabulary on a corpus."""

import io
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import sentencepiece as spm
from tokenizers import trainers

from albert_jax.data.tokenizers import ENGLISH, TextRules, Vocabulary
from albert_jax.data.tokenizers.rules import normalize
from albert_jax.data.tokenizers.sentencepiece import USER_DEFINED_SYMBOLS
from albert_jax.data.tokenizers.vocabulary import SPECIAL
from albert_jax.data.tokenizers.wordpiece import WITHIN_WORD, make_pipeline
from albert_jax.prepare.corpus import Corpus, Document
from albert_jax.prepare.documents import content_digest, split_of
from albert_jax.prepare.sentences import split_sentences
from albert_jax.prepare.settings import Settings

# The kinds of vocabulary that can be trained.
TYPES = ("unigram", "bpe", "wordpiece")
MAX_VOCAB_SIZE = 1 << 24  # far above any in use; a model's table has a row for each

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
        if document.is_sentences:
            yield from document.paragraphs
        else:
            language = settings.rows.language_of(document.paragraphs)
            yield from split_sentences(document.paragraphs, language)


MAX_TRAINING_BYTES = 4192  # longer training sentences are cut, as SentencePiece would drop them


def train_vocabulary(texts: Iterable[str], settings: Settings) -> Vocabulary:
    """Trains the vocabulary that the settings describe.

    Raises:
      ValueError: if there is no such type of vocabulary, or its size does not suit the text.
    """
    if settings.tokenizer_type not in TYPES:
        raise ValueError(
            f"tokenizer_type {settings.tokenizer_type!r}: must be one of {', '.join(TYPES)}"
        )
    size, coverage, rules = settings.vocab_size, settings.character_coverage, settings.rules
    if settings.tokenizer_type == "wordpiece":
        return Vocabulary("wordpiece", train_wordpiece(texts, size, coverage, rules), rules)
    model = train_sentencepiece(texts, size, coverage, rules, settings.tokenizer_type)
    return Vocabulary("sentencepiece", model, rules)


def _training_texts(texts: Iterable[str], rules: TextRules) -> Iterator[str]:
    for text in (normalize(text, rules) for text in texts):
        if len(text.encode()) <= MAX_TRAINING_BYTES:
            yield text
        else:  # 4 bytes is the longest UTF-8 character
            yield from textwrap.wrap(text, MAX_TRAINING_BYTES // 4)


def train_sentencepiece(
    texts: Iterable[str],
    vocab_size: int,
    character_coverage: float = Settings.character_coverage,
    rules: TextRules = ENGLISH,
    model_type: str = "unigram",
) -> bytes:
    """Trains a SentencePiece model with ALBERT's settings; same texts, same bytes.

    Args:
      texts: sentences; they are normalised, and cut at spaces if too long for SentencePiece.
      vocab_size: the number of pieces to train, special ones included.
      character_coverage: the fraction of the text's characters that the pieces spell.
      rules: what is done to a text first.
      model_type: "unigram", as ALBERT's, or "bpe".

    Returns:
      The contents of a `.model` file.

    Raises:
      ValueError: if `vocab_size` is out of range, or too large or too small for the text.
    """
    pad, unk, *control = SPECIAL["sentencepiece"]
    _check_size(vocab_size, 2 + len(control) + len(USER_DEFINED_SYMBOLS))
    model = io.BytesIO()
    try:
        spm.SentencePieceTrainer.train(
            sentence_iterator=_training_texts(texts, rules),
            model_writer=model,
            vocab_size=vocab_size,
            # Source of all that follows: google-research/albert README, "SentencePiece".
            model_type=model_type,
            pad_id=0,
            unk_id=1,
            bos_id=-1,
            eos_id=-1,
            pad_piece=pad,
            unk_piece=unk,
            control_symbols=control,
            user_defined_symbols=list(USER_DEFINED_SYMBOLS),
            character_coverage=character_coverage,
            normalization_rule_name="nmt_nfkc",
            shuffle_input_sentence=True,
            input_sentence_size=10_000_000,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise ValueError(_explain(str(error), vocab_size, character_coverage)) from None
    return model.getvalue()


def _check_size(vocab_size: int, smallest: int) -> None:
    if not smallest < vocab_size <= MAX_VOCAB_SIZE:
        raise ValueError(
            f"vocab_size {vocab_size}: must be from {smallest + 1} to {MAX_VOCAB_SIZE}"
        )


def train_wordpiece(
    texts: Iterable[str],
    vocab_size: int,
    character_coverage: float = Settings.character_coverage,
    rules: TextRules = ENGLISH,
) -> bytes:
    """Trains a WordPiece vocabulary with BERT's special pieces; same texts, same bytes.

    Args: see `train_sentencepiece`.

    Returns:
      The contents of a `vocab.txt`.

    Raises:
      ValueError: if `vocab_size` is out of range, or too large or too small for the text.
    """
    special = SPECIAL["wordpiece"]
    _check_size(vocab_size, len(special))
    texts = list(texts)
    empty = Vocabulary("wordpiece", b"", rules)
    pipeline = make_pipeline({piece: i for i, piece in enumerate(special)}, empty)
    words = _count_words(texts, pipeline)
    letters = _covering(words, character_coverage)
    inner = {letter for word in words for letter in word[1:]}
    # The library would number these in an order that differs from run to run, and break ties of
    # merges by their numbers.
    first = [*special, *letters, *(f"{WITHIN_WORD}{c}" for c in letters if c in inner)]
    if len(first) > vocab_size:
        raise ValueError(_too_small(vocab_size, len(first), character_coverage))
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=1,
        special_tokens=first,
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        continuing_subword_prefix=WITHIN_WORD,
        show_progress=False,
    )
    pipeline.train_from_iterator(texts, trainer)
    ids = pipeline.get_vocab()
    if len(ids) < vocab_size:
        raise ValueError(_too_large(vocab_size, len(ids)))
    return "".join(f"{piece}\n" for piece in sorted(ids, key=lambda piece: ids[piece])).encode()


def _count_words(texts: Iterable[str], pipeline: Any) -> Counter[str]:
    words: Counter[str] = Counter()
    for text in texts:
        plain = pipeline.normalizer.normalize_str(text)
        words.update(word for word, _ in pipeline.pre_tokenizer.pre_tokenize_str(plain))
    return words


def _covering(words: Counter[str], share: float) -> list[str]:
    """Returns the most frequent letters that together are that share of the words, sorted."""
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for letter in word:
            counts[letter] += count
    found, covered = [], 0
    for letter, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if covered >= share * counts.total():
            break
        found.append(letter)
        covered += count
    return sorted(found)


# SentencePiece's words for a size that is too large, with the largest possible one, and for one
# that is too small, with the number of characters.
_TOO_LARGE = re.compile(r"too high \(\d+\).*<= (\d+)", re.DOTALL)
_TOO_SMALL = re.compile(r"smaller than required_chars\. \d+ vs (\d+)")


def _explain(reason: str, vocab_size: int, character_coverage: float) -> str:
    """Returns what to do about an error of SentencePiece's."""
    if found := _TOO_LARGE.search(reason):
        return _too_large(vocab_size, int(found[1]))
    if found := _TOO_SMALL.search(reason):
        return _too_small(vocab_size, int(found[1]), character_coverage)
    last = reason.strip().splitlines()[-1].split("] ")[-1].rstrip(".")
    return (
        f"vocab_size {vocab_size}: cannot train a vocabulary on this text: {last}; give more text "
        "or a smaller vocab_size"
    )


def _too_large(vocab_size: int, most: int) -> str:
    return (
        f"vocab_size {vocab_size}: this text has too few different words for so many tokens; "
        f"pass --vocab_size {most} or smaller, or give more text"
    )


def _too_small(vocab_size: int, least: int, character_coverage: float) -> str:
    return (
        f"vocab_size {vocab_size}: this text has too many different characters for so few "
        f"tokens ({least} are needed for {character_coverage:.3%} of it); pass "
        f"--vocab_size {int(1.1 * least)} or larger"
    )
