"""The preparation pipeline: `python -m albert_jax.prepare --input X --output DIR`.

Reads text once (twice if it also trains a vocabulary), splits it into sentences and pieces, packs
chunks of whole sentences into rows of fixed length and writes a TFDS data set on ArrayRecord, with
the tokenizer and a manifest next to it. The same input and settings give the same rows, for any
number of processes. The output is created atomically.
"""

import collections
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from albert_jax.config.phases import folder_of_length
from albert_jax.data.row_format import row_dtypes
from albert_jax.data.tokenizers import TextRules, Tokenizer, load_tokenizer, tokenizer_of
from albert_jax.data.tokenizers.sentencepiece import SentencePiece
from albert_jax.data.tokenizers.vocabulary import (
    default_rules_taken,
    find_rules,
    read_vocabulary,
)
from albert_jax.prepare.corpus import Corpus
from albert_jax.prepare.documents import SPLITS, IncomingDocuments, SeenDigests
from albert_jax.prepare.manifest import MANIFEST, already_prepared, manifest_of, new_folder
from albert_jax.prepare.row_builder import RowCounts, build, start_builder
from albert_jax.prepare.settings import RowSettings, Settings
from albert_jax.prepare.vocabulary import train_vocabulary, training_sentences
from albert_jax.prepare.workers import worker_pool

# Makes the rows of a corpus with a tokenizer and writes their shards to a folder; returns the
# incoming documents, counts over the rows of each split, and a `row_writer.SplitShards` for each.
WriteRows = Callable[
    [Path, Corpus, Settings, Tokenizer], tuple[IncomingDocuments, dict[str, RowCounts], list[Any]]
]


def prepare(
    inputs: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    tokenizer: str | os.PathLike | None = None,
    vocab_size: int | None = None,
    tokenizer_type: str | None = None,
    lower_case: bool | None = None,
    keep_accents: bool | None = None,
    seq_len: int | Sequence[int] = RowSettings.seq_len,
    file_format: str = Settings.format,
    text_field: str = Settings.text_field,
    validation_fraction: float = Settings.validation_fraction,
    short_seq_prob: float = RowSettings.short_seq_prob,
    keep_duplicates: bool = Settings.keep_duplicates,
    character_coverage: float = Settings.character_coverage,
    validation: Sequence[str | os.PathLike] = (),
    packing: bool = RowSettings.packing,
    language: str = RowSettings.language,
    segmenter: str | None = RowSettings.segmenter,
    num_workers: int | None = None,
    seed: int = RowSettings.seed,
    data_dir: str | None = None,
    write_rows: WriteRows | None = None,
) -> dict[str, Any]:
    """Makes training rows from text.

    Args: see the command line's help, and
      seq_len: row length in tokens, or several: the longest gives the rows in `output`, each
        shorter one, for `data.phases`, those in a folder of its own there.
      write_rows: makes and writes the rows; None does so in `num_workers` local processes.

    Returns:
      The manifest of `output`, even if it was prepared before.

    Raises:
      FileNotFoundError: if an input or the tokenizer does not exist.
      ValueError: if an argument, the text or an existing output is invalid.
    """
    rules = {"lower_case": lower_case, "keep_accents": keep_accents}
    workers = _checked_workers(num_workers)
    *shorter, longest = sorted({seq_len} if isinstance(seq_len, int) else set(seq_len))
    corpus = Corpus([*inputs, *validation], file_format, text_field, data_dir, workers)
    given = None if tokenizer is None else given_tokenizer(tokenizer, **rules)
    settings = Settings(
        rows=RowSettings(longest, packing, short_seq_prob, seed, language, segmenter),
        shorter=tuple(shorter),
        format=file_format,
        text_field=text_field,
        validation_fraction=validation_fraction,
        keep_duplicates=keep_duplicates,
        character_coverage=character_coverage,
        first_validation_source=corpus.first_source(len(inputs)) if validation else None,
        **_vocabulary_settings(given, rules, vocab_size, tokenizer_type),
    )
    output = _apart_from(output, [*inputs, *validation])
    if manifest := already_prepared(output, corpus, settings):
        return manifest
    with new_folder(output) as folder:
        return _fill(folder, corpus, settings, given, write_rows or LocalRows(workers))


def given_tokenizer(
    path: str | os.PathLike, lower_case: bool | None = None, keep_accents: bool | None = None
) -> Tokenizer:
    """Loads the vocabulary to use; the rules asked for apply where none stand beside it.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is damaged, or the rules beside it are not those asked for.
    """
    file = Path(os.path.expanduser(path))
    asked = TextRules(
        TextRules.do_lower_case if lower_case is None else lower_case,
        TextRules.keep_accents if keep_accents is None else keep_accents,
    )
    vocabulary = read_vocabulary(file, asked)
    rules = vocabulary.rules
    for name, want, found in (
        ("lower_case", lower_case, rules.do_lower_case),
        ("keep_accents", keep_accents, rules.keep_accents),
    ):
        if want not in (None, found):
            raise ValueError(
                f"{name} {want}: the rules beside {file} say {found}; leave the option out"
            )
    tokenizer = tokenizer_of(vocabulary, file)
    is_told = file.is_dir() or (lower_case, keep_accents) != (None, None)
    if not is_told and find_rules(file, vocabulary.kind) is None:
        print(f"warning: {default_rules_taken(file)}", file=sys.stderr)
    return tokenizer


def _vocabulary_settings(
    given: Tokenizer | None,
    rules: dict[str, bool | None],
    vocab_size: int | None,
    tokenizer_type: str | None,
) -> dict[str, Any]:
    """Returns what `Settings` records of a given vocabulary, or of one that is to be trained."""
    if given is None:
        chosen = rules | {"vocab_size": vocab_size, "tokenizer_type": tokenizer_type}
        return {name: value for name, value in chosen.items() if value is not None}
    if vocab_size is not None or tokenizer_type is not None:
        raise ValueError("pass either tokenizer or vocab_size and tokenizer_type, not both")
    return {"vocab_size": given.vocab_size, "tokenizer_sha256": given.sha256}


def _apart_from(output: str | os.PathLike, inputs: Sequence[str | os.PathLike]) -> Path:
    """Returns the output's path; inside an input, the next run would read it as text."""
    output = Path(os.path.abspath(os.path.expanduser(output)))
    above = Path(os.path.realpath(output)).parents
    for name in inputs:
        name = os.path.expanduser(name)
        if os.path.isdir(name) and Path(os.path.realpath(name)) in above:
            raise ValueError(
                f"output {output}: is inside the input {name} and would become part of it; "
                "choose another --output"
            )
    return output


def _checked_workers(num_workers: int | None) -> int:
    if num_workers is None:
        affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
        return len(affinity(0)) if affinity else os.cpu_count() or 1
    if num_workers < 1:
        raise ValueError(f"num_workers {num_workers}: must be at least 1")
    return num_workers


def _announce(corpus: Corpus, settings: Settings, given: Tokenizer | None) -> None:
    formats = collections.Counter(source.format for source in corpus.sources)
    kinds = ", ".join(f"{n} {name}" for name, n in sorted(formats.items()))
    print(f"reading {kinds}: {corpus.bytes_total / 1e6:.1f} MB", file=sys.stderr)
    is_trained_bpe = given is None and settings.tokenizer_type == "bpe"
    if is_trained_bpe or (isinstance(given, SentencePiece) and not given.is_unigram):
        print(
            f"warning: {given.path if given else 'tokenizer_type bpe'} is not a Unigram model "
            "without byte fallback, so a model trained on these rows cannot be converted to "
            "Hugging Face's format",
            file=sys.stderr,
        )


def _fill(
    folder: Path, corpus: Corpus, settings: Settings, given: Tokenizer | None, write: WriteRows
) -> dict[str, Any]:
    """Writes tokenizer, rows and manifest into an empty folder; returns the manifest."""
    _announce(corpus, settings, given)
    if given:
        vocabulary = given.vocabulary
    else:
        vocabulary = train_vocabulary(training_sentences(corpus, settings), settings)
    vocabulary.write(folder)
    for shorter in settings.of_shorter():
        own = folder_of_length(folder, shorter.rows.seq_len)
        own.mkdir()
        vocabulary.write(own)
        _write_length(own, corpus, shorter, write)
    return _write_length(folder, corpus, settings, write)


def _write_length(
    folder: Path, corpus: Corpus, settings: Settings, write: WriteRows
) -> dict[str, Any]:
    """Writes rows of one length and their manifest, which it returns, beside the tokenizer."""
    # Imported here because worker processes import this module, and TFDS takes over a second.
    from albert_jax.prepare.row_writer import write_dataset_info

    tokenizer = load_tokenizer(folder)
    incoming, counts, shards = write(folder, corpus, settings, tokenizer)
    _check_splits(incoming, counts, settings)
    has_words = settings.rows.segmenter is not None
    write_dataset_info(folder, shards, row_dtypes(tokenizer.dtype, has_words=has_words))
    manifest = manifest_of(corpus, settings, tokenizer, incoming, counts)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def _check_splits(
    incoming: IncomingDocuments, counts: dict[str, RowCounts], settings: Settings
) -> None:
    empty = [split for split in SPLITS if not counts[split].rows]
    new = incoming.documents - incoming.duplicates
    if empty and settings.first_validation_source is not None:
        raise ValueError(
            f"no text is left for the {empty[0]} split ({incoming.documents} documents, "
            f"{incoming.duplicates} duplicates); give other files as --validation"
        )
    if empty and new < 2:
        raise ValueError(
            f"{incoming.documents} documents ({incoming.duplicates} duplicates) are not enough "
            "for a train and a validation split; give more text"
        )
    for split in empty:
        raise ValueError(
            f"validation_fraction {settings.validation_fraction}: of {incoming.documents} "
            f"documents ({incoming.duplicates} duplicates) none are in the {split} split; "
            f"{'raise' if split == 'validation' else 'lower'} --validation_fraction, or give "
            "files of their own as --validation"
        )


class LocalRows:
    """Makes all rows in processes on this machine; a `WriteRows`."""

    def __init__(self, num_workers: int):
        self._num_workers = num_workers

    def __call__(
        self, folder: Path, corpus: Corpus, settings: Settings, tokenizer: Tokenizer
    ) -> tuple[IncomingDocuments, dict[str, RowCounts], list[Any]]:
        """Makes the rows and writes their shards."""
        from albert_jax.prepare.row_writer import SplitWriter

        incoming = IncomingDocuments()
        counts = {split: RowCounts(np.zeros(tokenizer.vocab_size, np.int64)) for split in SPLITS}
        writers = {split: SplitWriter(folder, split) for split in SPLITS}
        seen_file = folder / "seen.sqlite"
        builder = (str(tokenizer.path), settings.rows)
        what = f"preparing rows of {settings.rows.seq_len}"
        with (
            contextlib.closing(Progress(corpus, what)) as progress,
            contextlib.closing(SeenDigests(seen_file)) as seen,
            worker_pool(self._num_workers, start_builder, builder) as run,
        ):
            for split, rows, block_counts in run(build, incoming.blocks(corpus, settings, seen)):
                writers[split].write(rows)
                counts[split].add(block_counts)
                progress.update()
        seen_file.unlink()
        return incoming, counts, [writers[split].finish() for split in SPLITS]


class Progress:
    """A progress bar on a terminal, else a line every half minute; both on standard error."""

    SECONDS = 30

    def __init__(self, corpus: Corpus, what: str):
        self._corpus, self._what = corpus, what
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(
            desc=what, total=corpus.bytes_total, unit="B", unit_scale=True,
            disable=not self._terminal,
        )  # fmt: skip
        self._next = time.monotonic() + self.SECONDS

    def update(self) -> None:
        """Shows how much of the corpus has been read."""
        self._bar.update(self._corpus.bytes_read - self._bar.n)
        if not self._terminal and time.monotonic() >= self._next:
            self._next += self.SECONDS
            share = self._corpus.bytes_read / max(1, self._corpus.bytes_total)
            print(f"{self._what}: {share:.0%} read", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Closes the bar."""
        self._bar.close()
