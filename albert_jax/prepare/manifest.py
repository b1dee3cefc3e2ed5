"""The output folder, which is created atomically, and the manifest that describes it."""

import contextlib
import glob
import hashlib
import importlib.metadata
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from albert_jax.data.row_format import FORMAT_VERSION
from albert_jax.data.tokenizers import Tokenizer
from albert_jax.prepare.corpus import Corpus
from albert_jax.prepare.documents import IncomingDocuments
from albert_jax.prepare.row_builder import RowCounts
from albert_jax.prepare.segmenters import PACKAGES
from albert_jax.prepare.sentences import DEFAULT
from albert_jax.prepare.settings import Settings

MANIFEST = "manifest.json"


def fingerprint(corpus: Corpus, settings: Settings, languages: Iterable[str]) -> str:
    """Returns a sha256 over everything that determines the rows.

    The languages that scripts stood for are among it, but for English alone, by whose rules the
    first version split all text.
    """
    what: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "settings": settings.as_dict(),
        "sources": [(source.format, source.sha256) for source in corpus.sources],
        "libraries": {n: importlib.metadata.version(n) for n in _libraries(settings)},
    }
    if others := sorted({*languages} - {DEFAULT}):
        what["languages"] = others
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _libraries(settings: Settings) -> list[str]:
    """Returns the packages whose versions determine the rows."""
    found = ["sentencepiece", "sentencex"]
    if settings.tokenizer_type == "wordpiece":
        found.append("tokenizers")
    if settings.rows.segmenter is not None:
        found.append(PACKAGES[settings.rows.segmenter])
    return found


def manifest_of(
    corpus: Corpus,
    settings: Settings,
    tokenizer: Tokenizer,
    incoming: IncomingDocuments,
    counts: dict[str, RowCounts],
) -> dict[str, Any]:
    """Returns the contents of manifest.json: the rows' settings, sources and numbers."""
    rows, sources = settings.rows, []
    languages = sum((c.languages for c in counts.values()), incoming.languages)
    for i, source in enumerate(corpus.sources):
        first, documents = incoming.per_source.get(i, (None, 0))
        sources.append(
            {
                "path": source.path,
                "format": source.format,
                "sha256": source.sha256,
                "bytes": source.bytes,
                "first_document": first,
                "documents": documents,
                **source.counts,
            }
        )
    return {
        "format_version": FORMAT_VERSION,
        "seq_len": rows.seq_len,
        "packing": rows.packing,
        "max_chunks": rows.max_chunks,
        "vocab_size": tokenizer.vocab_size,
        "tokenizer_sha256": tokenizer.sha256,
        "rows": {split: c.rows for split, c in counts.items()},
        "documents": incoming.documents,
        "duplicates_dropped": incoming.duplicates,
        "pieces": {split: c.pieces for split, c in counts.items()},
        "fill": {split: c.used_slots / (c.rows * rows.seq_len) for split, c in counts.items()},
        "sentences_split": sum(c.sentences_split for c in counts.values()),
        "empty_sentences": sum(c.empty_sentences for c in counts.values()),
        "is_divided": incoming.is_divided,
        "languages": dict(languages.most_common()),
        "tokenizer": {"kind": tokenizer.vocabulary.kind, **tokenizer.vocabulary.rule_values()},
        "removed_marks": sum(c.removed_marks for c in counts.values()),
        "unigram_entropy": counts["train"].entropy(),
        "settings": settings.as_dict(),
        "sources": sources,
        "fingerprint": fingerprint(corpus, settings, languages),
    }


def already_prepared(output: Path, corpus: Corpus, settings: Settings) -> dict[str, Any] | None:
    """Returns the manifest of `output`, and says so, if it holds these rows; else None.

    Raises:
      ValueError: if `output` holds something else.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    way_out = "choose another --output or remove it"
    try:
        manifest = json.loads((output / MANIFEST).read_text())
        found = manifest["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"output {output}: exists but is not prepared data; {way_out}") from None
    if found != fingerprint(corpus, settings, manifest.get("languages", {})):
        raise ValueError(f"output {output}: prepared from other input or settings; {way_out}")
    print(f"{output}: already prepared", file=sys.stderr)
    return manifest


@contextlib.contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """Yields a temporary folder that finally becomes `output`, or is removed after an error.

    Folders left behind by killed runs for the same output are removed first.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{output.name}.tmp-{socket.gethostname()}-"
    for left in output.parent.glob(f"{glob.escape(prefix)}*"):
        pid = left.name.removeprefix(prefix)
        if pid.isdigit() and (int(pid) == os.getpid() or not _alive(int(pid))):
            shutil.rmtree(left)
    folder = output.parent / f"{prefix}{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
        os.rename(folder, output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
