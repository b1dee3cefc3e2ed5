"""File formats: splits a file's bytes into lines, and its lines into paragraphs and documents.

Readers never guess: input that is not understood raises an error that names the file and line or
byte.
"""

import gzip
import html
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import BinaryIO

import zstandard

from albert_jax.data.files import parse_json

FORMATS = ("auto", "text", "sentences", "wiki", "jsonl")

CHUNK_BYTES = 1 << 20
# The lines of a block are joined, as hard-wrapped text, if none is longer than this.
# Editors and mail wrap at 70 to 100 columns; a paragraph on one line is nearly always longer.
WRAP_COLUMNS = 100

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
MARKDOWN_SUFFIXES = (".md", ".markdown")
NOT_TEXT = re.compile(r".*\.(csv|tsv|html?|xml|pdf|parquet|arrow|zip|tar|tgz|bz2|xz|7z|npz|npy)")

_HALF = re.compile("[\ud800-\udfff]")

Lines = Iterator[tuple[int, str]]
# The items a reader yields: paragraphs, and None where a document ends.
Items = Iterator[str | None]


def format_of(path: str) -> str:
    """Returns a file's format, from its name and first line; never "auto".

    Raises:
      ValueError: if the name shows that it is not text.
    """
    with open(path, "rb") as raw:
        first = next((text for _, text in _lines(raw, path) if text.strip()), "")
    if first.startswith("<doc "):
        return "wiki"
    if _stem(path).endswith(JSON_SUFFIXES):
        return "jsonl"
    if NOT_TEXT.fullmatch(_stem(path)):
        raise ValueError(f"{path}: unknown kind of file; pass --format")
    try:
        return "jsonl" if isinstance(json.loads(first), dict) else "text"
    except (ValueError, RecursionError):  # not JSON; a number with thousands of digits; "[[[[…"
        return "text"


def read_items(raw: BinaryIO, path: str, file_format: str, text_field: str) -> Items:
    """Reads an open file, compressed or not.

    Args:
      raw: the file.
      path: its name; the suffix shows the compression, and whether text is Markdown.
      file_format: one of `FORMATS`, but not "auto".
      text_field: the JSON field that holds the text.

    Yields:
      Paragraphs, and None where a document ends (not needed at the end of the file).

    Raises:
      ValueError: if the file is damaged, not UTF-8 or not in this format.
    """
    lines = _lines(raw, path)
    if file_format == "wiki":
        yield from _read_wiki(lines, path)
    elif file_format == "jsonl":
        yield from _read_jsonl(lines, path, text_field)
    elif file_format == "sentences":
        yield from (text.strip() or None for _, text in lines)
    elif _stem(path).endswith(MARKDOWN_SUFFIXES):
        yield from _read_markdown(text for _, text in lines)
    else:
        yield from paragraphs_of(text for _, text in lines)


def _stem(path: str) -> str:
    return path.lower().removesuffix(".gz").removesuffix(".zst")


# ---- bytes to lines ----


def _chunks(raw: BinaryIO, path: str) -> Iterator[bytes]:
    """Yields the decompressed bytes of a file, whatever its compression."""
    if path.endswith(".zst"):
        yield from _unzstd(raw, path)
        return
    stream = gzip.GzipFile(fileobj=raw) if path.endswith(".gz") else raw
    try:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip file ({error}); fetch it again") from None


def _unzstd(raw: BinaryIO, path: str) -> Iterator[bytes]:
    # Frame by frame, because zstandard's stream reader does not detect a truncated file.
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
        raise ValueError(f"{path}: damaged zstd file (truncated); fetch it again")


def _lines(raw: BinaryIO, path: str) -> Lines:
    """Yields (line number from 1, line without its end)."""
    number, offset = 0, 0
    parts: list[bytes] = []  # of a line that continues in the next chunk
    for chunk in chain(_chunks(raw, path), [None]):
        first, *pieces = [b""] if chunk is None else chunk.split(b"\n")
        parts.append(first)
        if not pieces and chunk is not None:
            continue
        whole = [b"".join(parts), *pieces]
        parts = [whole.pop()] if chunk is not None else []
        for line in whole:
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


def paragraphs_of(lines: Iterable[str]) -> Iterator[str]:
    """Yields paragraphs, separated by blank lines, or by any line end if not hard-wrapped."""
    block = []
    for line in chain(lines, [""]):
        if line.strip():
            block.append(line)
        elif block:
            yield from _join(block)
            block = []


def _join(block: list[str]) -> list[str]:
    """Returns the paragraphs of a block of lines between blank ones."""
    if max(map(len, block)) <= WRAP_COLUMNS:
        return [" ".join(line.strip() for line in block)]
    return [line.strip() for line in block]


HEADER_LINE = re.compile(r"#+\s*[\w ]+:\s*\S.*")  # "# Title: Emma"
HEADING = re.compile(r"#{1,6}\s+(.*?)[\s#]*")
RULE = re.compile(r"(-\s*){3,}|(\*\s*){3,}|(_\s*){3,}")
EMPHASIS = re.compile(r"(?<!\w)([_*]{1,3})(?=\S)(.+?)(?<=\S)\1(?!\w)")


def _read_markdown(texts: Iterator[str]) -> Iterator[str]:
    for paragraph in paragraphs_of(_without_rules_and_marks(_without_header(texts))):
        yield EMPHASIS.sub(r"\2", paragraph)


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


def _without_rules_and_marks(texts: Iterator[str]) -> Iterator[str]:
    for text in texts:
        if heading := HEADING.fullmatch(text.strip()):
            yield from ("", heading[1], "")
        else:
            yield "" if RULE.fullmatch(text.strip()) else text


def _read_wiki(lines: Lines, path: str) -> Items:
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
        raise ValueError(f"{path}:{opened}: <doc> is not closed; is the file truncated?")


def _read_jsonl(lines: Lines, path: str, text_field: str) -> Items:
    for number, line in lines:
        if not line.strip():
            continue
        record = parse_json(line, path, number)
        if not isinstance(record, dict) or not isinstance(record.get(text_field), str):
            has = ", ".join(record) if isinstance(record, dict) else type(record).__name__
            raise ValueError(
                f"{path}:{number}: no text in field {text_field!r} (has: {has}); "
                "name the field with --text_field"
            )
        text = record[text_field]
        if _HALF.search(text):
            raise ValueError(
                f"{path}:{number}: {text_field!r} contains half a surrogate pair (\\ud800 to "
                "\\udfff), which is not a character; correct the text"
            )
        yield from paragraphs_of(text.splitlines())
        yield None
