"""Documents from files, TFDS data sets and Python's own documentation, as one stream.

A corpus is a list of sources in a fixed order; each source streams documents, so memory does not
grow with the corpus. What a reader cannot understand is an error that names file and line or byte,
never a guess: `auto` settles on one format per file and says which (`Source.format`).
"""

import ast
import collections
import contextlib
import functools
import glob
import gzip
import hashlib
import html
import importlib.metadata
import json
import multiprocessing
import os
import re
import signal
import sys
import sysconfig
import threading
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from multiprocessing import connection
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import zstandard

FORMATS = ("auto", "text", "sentences", "wiki", "jsonl")
TFDS_PREFIX = "tfds:"
PYTHON_DOCS = "python-docs"

# A document larger than this is handed on in parts: memory must stay bounded for one huge file.
MAX_DOCUMENT_CHARS = 16 << 20
# A block whose longest line is within this is taken for hard-wrapped text: its lines are joined.
# Editors and mail wrap at 70 to 100 columns; a paragraph on one line is nearly always longer.
WRAP_COLUMNS = 100
CHUNK_BYTES = 1 << 20
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
MARKDOWN_SUFFIXES = (".md", ".markdown")
NOT_TEXT = frozenset(
    [
        ".csv",
        ".tsv",
        ".html",
        ".htm",
        ".xml",
        ".pdf",
        ".parquet",
        ".arrow",
        ".zip",
        ".tar",
        ".tgz",
        ".bz2",
        ".xz",
        ".7z",
        ".npz",
        ".npy",
    ]
)

Lines = Iterator[tuple[int, str]]
# What a reader yields: paragraphs, and None where a document ends.
Items = Iterator[str | None]


class Document(NamedTuple):
    """One document.

    Attributes:
      source: index into `Corpus.sources`.
      paragraphs: the text, one string a paragraph, none of them blank.
      is_sentences: whether each paragraph is one sentence and must be kept as it is.
    """

    source: int
    paragraphs: list[str]
    is_sentences: bool


# ---- bytes to lines ----


def _chunks(raw: BinaryIO, path: str) -> Iterator[bytes]:
    """Yields the decompressed bytes of a file, whatever its compression."""
    if path.endswith(".gz"):
        stream = gzip.GzipFile(fileobj=raw)
    elif path.endswith(".zst"):
        yield from _unzstd(raw, path)
        return
    else:
        stream = raw
    try:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: damaged gzip file ({error}); fetch it again") from None


def _unzstd(raw: BinaryIO, path: str) -> Iterator[bytes]:
    # Frame by frame: zstandard's own stream reader takes a cut-off file for a whole one.
    frame, between_frames = zstandard.ZstdDecompressor().decompressobj(), True
    while data := raw.read(CHUNK_BYTES):
        while data:
            try:
                yield frame.decompress(data)
            except zstandard.ZstdError as error:
                raise ValueError(f"{path}: damaged zstd file ({error}); fetch it again") from None
            data, between_frames = frame.unused_data, frame.eof
            if frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
    if not between_frames:
        raise ValueError(f"{path}: damaged zstd file (cut off); fetch it again")


def _lines(raw: BinaryIO, path: str) -> Lines:
    """Yields (line number from 1, line without its end)."""
    number, offset, rest = 0, 0, b""
    for chunk in chain(_chunks(raw, path), [None]):
        pieces = [rest] if chunk is None else (rest + chunk).split(b"\n")
        rest = b"" if chunk is None else pieces.pop()
        for line in pieces:
            number += 1
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}: invalid UTF-8 at byte {offset + error.start} (line {number}); "
                    "convert the file to UTF-8"
                ) from None
            offset += len(line) + 1
            yield number, text.rstrip("\r")


# ---- lines to paragraphs ----


def _join(block: list[str]) -> list[str]:
    """Returns the paragraphs of a block of lines between blank ones."""
    if max(map(len, block)) <= WRAP_COLUMNS:
        return [" ".join(line.strip() for line in block)]
    return [line.strip() for line in block]


def paragraphs_of(lines: Iterable[str]) -> Iterator[str]:
    """Yields paragraphs: blank lines part them, and lines do where they are not hard-wrapped."""
    block = []
    for line in chain(lines, [""]):
        if line.strip():
            block.append(line)
        elif block:
            yield from _join(block)
            block = []


def _read_text(lines: Lines, path: str, text_field: str) -> Items:
    del text_field
    texts = (text for _, text in lines)
    if _stem(path).endswith(MARKDOWN_SUFFIXES):
        for paragraph in paragraphs_of(_plain_markdown(texts)):
            yield EMPHASIS.sub(r"\2", paragraph)
    else:
        yield from paragraphs_of(texts)
    yield None


HEADER_LINE = re.compile(r"#+\s*[\w ]+:\s*\S.*")  # "# Title: Emma"
HEADING = re.compile(r"#{1,6}\s+(.*?)[\s#]*")
RULE = re.compile(r"(-\s*){3,}|(\*\s*){3,}|(_\s*){3,}")
EMPHASIS = re.compile(r"(?<!\w)([_*]{1,3})(?=\S)(.+?)(?<=\S)\1(?!\w)")


def _without_header(texts: Iterator[str]) -> Iterator[str]:
    """Drops a header block: `# Key: value` lines down to a rule, or YAML between two rules."""
    held: list[str] = []
    for text in texts:
        plain = text.strip()
        if RULE.fullmatch(plain) and held:
            break
        held.append(text)
        yaml = RULE.fullmatch(held[0].strip())
        if (plain and not yaml and not HEADER_LINE.fullmatch(plain)) or len(held) > 100:
            yield from held
            break
    else:
        yield from held
    yield from texts


def _plain_markdown(texts: Iterator[str]) -> Iterator[str]:
    for text in _without_header(texts):
        heading = HEADING.fullmatch(text.strip())
        if heading:
            yield from ("", heading[1], "")
        elif RULE.fullmatch(text.strip()):
            yield ""
        else:
            yield text


def _read_sentences(lines: Lines, path: str, text_field: str) -> Items:
    del path, text_field
    for _, text in lines:
        yield text.strip() or None
    yield None


def _read_wiki(lines: Lines, path: str, text_field: str) -> Items:
    del text_field
    opened = None
    for number, text in lines:
        if text.startswith("<doc "):
            if opened:
                raise ValueError(f"{path}:{opened}: <doc> is not closed before line {number}")
            opened = number
        elif text.startswith("</doc>"):
            if not opened:
                raise ValueError(f"{path}:{number}: </doc> without <doc>")
            opened = None
            yield None
        elif text.strip():
            if not opened:
                raise ValueError(f"{path}:{number}: text outside <doc>; pass another --format")
            yield html.unescape(text).strip()
    if opened:
        raise ValueError(f"{path}:{opened}: <doc> is not closed; is the file cut off?")


def _read_jsonl(lines: Lines, path: str, text_field: str) -> Items:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: not JSON ({error.msg})") from None
        if not isinstance(record, dict) or not isinstance(record.get(text_field), str):
            has = ", ".join(record) if isinstance(record, dict) else type(record).__name__
            raise ValueError(
                f"{path}:{number}: no text in field {text_field!r} (has: {has}); "
                "name the field with --text_field"
            )
        yield from paragraphs_of(record[text_field].splitlines())
        yield None


READERS = {
    "text": _read_text,
    "sentences": _read_sentences,
    "wiki": _read_wiki,
    "jsonl": _read_jsonl,
}


# ---- worker processes ----


def _follow_parent() -> None:
    """Ends this worker when the process that started it is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _start_worker(initializer: Callable[..., None] | None, args: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process tells us when to stop
    threading.Thread(target=_follow_parent, daemon=True).start()
    if initializer:
        initializer(*args)


@contextlib.contextmanager
def worker_pool(
    num_workers: int, initializer: Callable[..., None] | None = None, args: tuple = ()
) -> Iterator[Callable[[Callable, Iterable], Iterator]]:
    """Gives a `map` over worker processes: in order, lazy, with few items in flight.

    Args:
      num_workers: processes; with 1 the work is done in this process.
      initializer: called once in every worker.
      args: what it is called with.
    """
    if num_workers == 1:
        if initializer:
            initializer(*args)
        yield map
        return
    # Spawned, not forked: the caller may run threads (JAX, TFDS) that do not survive a fork.
    pool = ProcessPoolExecutor(
        num_workers, multiprocessing.get_context("spawn"), _start_worker, (initializer, args)
    )

    def run(function: Callable, items: Iterable) -> Iterator:
        waiting: collections.deque = collections.deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    try:
        yield run
    finally:
        pool.shutdown(cancel_futures=True)


# ---- sources ----


class Source(ABC):
    """One input: a file, a TFDS data set or Python's documentation.

    Attributes:
      path: what to call it in messages and in the manifest.
      format: how it is read; never "auto".
      bytes: its size.
      position: how many of these bytes have been read in the running pass.
      counts: what could not be handed on as it stood, by kind.
    """

    def __init__(self, path: str, file_format: str, size: int):
        self.path, self.format, self.bytes = path, file_format, size
        self.position = 0
        self.counts: Counter[str] = Counter()

    @functools.cached_property
    @abstractmethod
    def sha256(self) -> str:
        """Hex digest of the content (or of what determines it)."""

    @abstractmethod
    def items(self) -> Items:
        """Yields paragraphs, and None after each document; starts anew at each call."""

    def documents(self) -> Iterator[list[str]]:
        """Yields the paragraphs of each document that has any."""
        self.counts.clear()
        paragraphs: list[str] = []
        size = 0
        for item in self.items():
            if item:
                paragraphs.append(item)
                size += len(item)
            too_large = size > MAX_DOCUMENT_CHARS
            if (item is None or too_large) and paragraphs:
                yield paragraphs
                if item is not None:
                    self.counts["documents_cut"] += 1
                paragraphs, size = [], 0
        if paragraphs:
            raise AssertionError(f"{self.path}: reader did not end its last document")
        self.position = self.bytes


class FileSource(Source):
    """A text file, plain or compressed."""

    def __init__(self, path: str, file_format: str, text_field: str):
        super().__init__(path, file_format, os.path.getsize(path))
        self._text_field = text_field
        if file_format == "auto":
            self.format = _sniff(path)

    @functools.cached_property
    def sha256(self) -> str:
        """Hex digest of the file."""
        with open(self.path, "rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()

    def items(self) -> Items:
        """Yields paragraphs, and None after each document."""
        with open(self.path, "rb") as raw:
            for item in READERS[self.format](_lines(raw, self.path), self.path, self._text_field):
                if item is None:
                    self.position = raw.tell()
                yield item


def _stem(path: str) -> str:
    return path.lower().removesuffix(".gz").removesuffix(".zst")


def _sniff(path: str) -> str:
    """Returns the format of a file by its name and its first line."""
    stem = _stem(path)
    with open(path, "rb") as raw:
        first = next((text for _, text in _lines(raw, path) if text.strip()), "")
    if first.startswith("<doc "):
        return "wiki"
    if stem.endswith(JSON_SUFFIXES):
        return "jsonl"
    if os.path.splitext(stem)[1] in NOT_TEXT:
        raise ValueError(f"{path}: cannot tell how to read this kind of file; pass --format")
    try:
        return "jsonl" if isinstance(json.loads(first), dict) else "text"
    except json.JSONDecodeError:
        return "text"


class TfdsSource(Source):
    """The train split of a TFDS data set, read by random access in its order."""

    WINDOW = 256  # records fetched together

    def __init__(self, path: str, text_field: str, data_dir: str | None):
        import tensorflow_datasets as tfds

        name = path.removeprefix(TFDS_PREFIX)
        try:
            builder: Any = tfds.builder(name, data_dir=data_dir)
            if not builder.info.splits:
                builder.download_and_prepare(file_format="array_record")
            self._data = builder.as_data_source(split="train")
        except tfds.core.DatasetNotFoundError:
            raise FileNotFoundError(
                f"input {path}: TFDS has no such data set, nor has the data_dir {data_dir}"
            ) from None
        except (NotImplementedError, ValueError, KeyError) as error:
            raise ValueError(
                f"input {path}: no train split with random access "
                f"({str(error).strip().splitlines()[0]}); "
                "prepare the data set with file_format=array_record"
            ) from None
        if text_field not in (builder.info.features or {}):
            raise ValueError(
                f"input {path}: no feature {text_field!r} (has: "
                f"{', '.join(sorted(builder.info.features or {}))}); name it with --text_field"
            )
        if not isinstance(builder.info.features[text_field], tfds.features.Text):
            raise ValueError(
                f"input {path}: feature {text_field!r} holds no text; name one with --text_field"
            )
        self._field = text_field
        info = builder.info.splits["train"]
        self._identity = f"{builder.info.full_name} {info.num_examples} {info.num_bytes}"
        super().__init__(f"{TFDS_PREFIX}{builder.info.full_name}", "tfds", info.num_bytes)

    @functools.cached_property
    def sha256(self) -> str:
        """Hex digest of name, version and size."""
        return hashlib.sha256(self._identity.encode()).hexdigest()

    def items(self) -> Items:
        """Yields paragraphs, and None after each record."""
        for first in range(0, len(self._data), self.WINDOW):
            indices = range(first, min(first + self.WINDOW, len(self._data)))
            for i, record in zip(indices, self._data.__getitems__(indices), strict=True):
                text = record[self._field]
                try:
                    text = text if isinstance(text, str) else bytes(text).decode()
                except UnicodeDecodeError as error:
                    raise ValueError(
                        f"{self.path}: record {i}: invalid UTF-8 at byte {error.start}"
                    ) from None
                yield from paragraphs_of(text.splitlines())
                yield None
            self.position = self.bytes * (indices[-1] + 1) // len(self._data)


class PythonDocs(Source):
    """The English documentation that comes with the running Python.

    Documents: each topic of the language reference, then each source file of the standard library
    and of the installed packages (its docstrings in order). Each docstring is taken once; doctests
    and rulers in them, and test suites, are left out.
    """

    LEFT_OUT = frozenset(("site-packages", "dist-packages", "test", "tests", "idle_test"))

    def __init__(self, num_workers: int):
        stdlib = Path(sysconfig.get_path("stdlib"))
        packages = {Path(sysconfig.get_path(k)) for k in ("purelib", "platlib")}
        found = (
            str(file)
            for root in (stdlib, *sorted(packages))
            for file in sorted(root.rglob("*.py"))
            if not self.LEFT_OUT & set(file.relative_to(root).parts)
        )
        self._files = list(dict.fromkeys(found))
        self._num_workers = num_workers
        # Kept for a second pass: about 20 MB, and half a minute to parse again.
        self._parsed: tuple[list[list[str]], Counter[str]] | None = None
        super().__init__(PYTHON_DOCS, "python-docs", sum(map(os.path.getsize, self._files)))

    @functools.cached_property
    def sha256(self) -> str:
        """Hex digest of the versions of Python and of all installed packages."""
        installed = {
            f"{d.metadata['Name']}=={d.version}" for d in importlib.metadata.distributions()
        }
        return hashlib.sha256("\n".join([sys.version, *sorted(installed)]).encode()).hexdigest()

    def items(self) -> Items:
        """Yields paragraphs, and None after each topic or source file."""
        if self._parsed is None:
            self._parsed = list(self._parse()), self.counts.copy()
        documents, counts = self._parsed
        self.counts.update(counts - self.counts)
        for paragraphs in documents:
            yield from paragraphs
            yield None

    def _parse(self) -> Iterator[list[str]]:
        from pydoc_data.topics import topics

        seen: set[str] = set()
        for _, text in sorted(topics.items()):
            yield _docstring_paragraphs(text)
        with worker_pool(self._num_workers) as run:
            for file, docstrings in zip(self._files, run(_docstrings, self._files), strict=True):
                if docstrings is None:
                    self.counts["unparsable_files"] += 1
                    continue
                new = list(dict.fromkeys(d for d in docstrings if d not in seen))
                seen.update(new)
                self.counts["repeated_docstrings"] += len(docstrings) - len(new)
                self.position += os.path.getsize(file)
                yield [p for d in new for p in _docstring_paragraphs(d)]


def _docstrings(path: str) -> list[str] | None:
    """Returns the docstrings of a Python file in order, None if it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = ast.parse(Path(path).read_bytes())
        return list(_walk(module))
    except (SyntaxError, ValueError, RecursionError):
        return None


def _walk(node: ast.AST) -> Iterator[str]:
    documented = isinstance(
        node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    )
    if documented and (docstring := ast.get_docstring(node)):
        yield docstring
    # Only statements hold definitions; walking expressions too would double the time.
    for block in ("body", "handlers", "orelse", "finalbody"):
        children = getattr(node, block, None)
        for child in children if isinstance(children, list) else ():
            yield from _walk(child)


def _docstring_paragraphs(docstring: str) -> list[str]:
    """Returns a docstring's paragraphs without doctests and rulers, one line each."""
    paragraphs, block = [], []
    for line in [*docstring.splitlines(), ""]:
        if any(c.isalnum() for c in line):
            block.append(line.strip())
        elif block:  # a blank line, or the ruler under a heading
            if not block[0].startswith(">>>"):
                paragraphs.append(" ".join(block))
            block = []
    return paragraphs


# ---- the stream ----


class Corpus:
    """All inputs as one stream of documents; may be iterated again and again.

    Attributes:
      sources: the inputs, folders and globs replaced by their files.
      bytes_total: the size of all sources.
    """

    def __init__(
        self,
        inputs: Sequence[str | os.PathLike],
        file_format: str = "auto",
        text_field: str = "text",
        data_dir: str | None = None,
        num_workers: int = 1,
    ):
        """Finds the sources; no document is read yet.

        Args:
          inputs: files, folders (all files below, hidden ones left out), globs, `tfds:NAME`,
            `python-docs`.
          file_format: one of `FORMATS`, for files.
          text_field: the JSON or TFDS field that holds the text.
          data_dir: where TFDS data sets lie; TFDS's own default if None.
          num_workers: processes that may parse Python files.

        Raises:
          FileNotFoundError: an input does not exist.
          ValueError: a glob or folder holds nothing, or a format is unknown.
        """
        if file_format not in FORMATS:
            raise ValueError(f"format {file_format!r}: must be one of {', '.join(FORMATS)}")
        if not inputs:
            raise ValueError("input: none given; pass a file, folder, glob or tfds:NAME")
        self.sources: list[Source] = []
        for name in [os.fspath(i) for i in inputs]:
            if name.startswith(TFDS_PREFIX):
                self.sources.append(TfdsSource(name, text_field, data_dir))
            elif name == PYTHON_DOCS:
                self.sources.append(PythonDocs(num_workers))
            else:
                files = _find_files(name)
                self.sources += [FileSource(f, file_format, text_field) for f in files]
        self.bytes_total = sum(s.bytes for s in self.sources)

    @property
    def bytes_read(self) -> int:
        """How far the running pass has come."""
        return sum(s.position for s in self.sources)

    def __iter__(self) -> Iterator[Document]:
        """Yields every document, source after source.

        Raises:
          ValueError: a source cannot be read as its format says, or there is no document at all.
        """
        empty = True
        for source in self.sources:
            source.position = 0
        for index, source in enumerate(self.sources):
            for paragraphs in source.documents():
                empty = False
                yield Document(index, paragraphs, source.format == "sentences")
        if empty:
            names = ", ".join(s.path for s in self.sources[:3])
            raise ValueError(f"input {names}: no text in it; is --format right?")


def _find_files(name: str) -> list[str]:
    if os.path.isfile(name):
        return [name]
    if os.path.isdir(name):
        found = [
            os.path.join(folder, file)
            for folder, _, files in os.walk(name)
            for file in files
            if "/." not in f"/{os.path.relpath(os.path.join(folder, file), name)}"
        ]
        if not found:
            raise ValueError(f"input {name}: no file in this folder")
        return sorted(found)
    if glob.has_magic(name):
        found = [f for path in glob.glob(name, recursive=True) for f in _find_files(path)]
        if not found:
            raise FileNotFoundError(f"input {name}: matches no file")
        return sorted(set(found))
    raise FileNotFoundError(f"input {name}: no such file or folder")
