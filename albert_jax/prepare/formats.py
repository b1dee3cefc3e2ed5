"""File formats: splits a file's bytes into lines, and its lines into paragraphs and documents.

Readers never guess: input that is not understood raises an error that names the file and line or
byte.
"""

import html
import json
import os
import re
from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO

from albert_jax.data.text_files import name_without_compression, utf8_chunks
from albert_jax.prepare.paragraphs import Items, Lines, paragraphs_of
from albert_jax.prepare.records import Entitle, read_arrow, read_json, read_parquet

FORMATS = ("auto", "text", "sentences", "wiki", "jsonl", "parquet", "arrow")

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
MARKDOWN_SUFFIXES = (".md", ".markdown")
BINARY_SUFFIXES = {".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow"}
NOT_TEXT = re.compile(r".*\.(csv|tsv|html?|xml|pdf|docx?|epub|zip|tar|tgz|7z|npz|npy)")


def format_of(path: str) -> str:
    """Returns a file's format, from its name and first line; never "auto".

    Raises:
      ValueError: if the name shows that it is not text.
    """
    name = name_without_compression(path).lower()
    if known := BINARY_SUFFIXES.get(os.path.splitext(name)[1]):
        return known
    if NOT_TEXT.fullmatch(name):
        raise ValueError(f"{path}: not a known kind of text file; convert it, or pass --format")
    with open(path, "rb") as raw:
        first = next((text for _, text in _lines(raw, path) if text.strip()), "")
    if first.startswith("<doc "):
        return "wiki"
    if name.endswith(JSON_SUFFIXES):
        return "jsonl"
    try:
        return "jsonl" if isinstance(json.loads(first), dict) else "text"
    except (ValueError, RecursionError):  # not JSON; a number with thousands of digits; "[[[[…"
        return "text"


def read_items(
    raw: BinaryIO,
    path: str,
    file_format: str,
    text_field: str,
    entitle: Entitle | None = None,
) -> Items:
    """Reads an open file, compressed or not.

    Args:
      raw: the file.
      path: its name; the suffix shows the compression, and whether text is Markdown.
      file_format: one of `FORMATS`, but not "auto".
      text_field: the field or column of records that holds the text; `a.b` is within `a`.
      entitle: told the title of each document of formats with titles, "" if it has none.

    Yields:
      Paragraphs, and None where a document ends (not needed at the end of the file).

    Raises:
      ValueError: if the file is damaged, not UTF-8 or not in this format.
    """
    lines = _lines(raw, path)
    if file_format == "parquet":
        yield from read_parquet(raw, path, text_field, entitle)
    elif file_format == "arrow":
        yield from read_arrow(raw, path, text_field, entitle)
    elif file_format == "wiki":
        yield from _read_wiki(lines, path, entitle)
    elif file_format == "jsonl":
        yield from read_json(lines, path, text_field, entitle)
    elif file_format == "sentences":
        yield from (text.strip() or None for _, text in lines)
    elif name_without_compression(path).lower().endswith(MARKDOWN_SUFFIXES):
        yield from _read_markdown(text for _, text in lines)
    else:
        yield from paragraphs_of(text for _, text in lines)


# ---- bytes to lines ----


def _lines(raw: BinaryIO, path: str) -> Lines:
    """Yields (line number from 1, line without its end)."""
    number, offset = 0, 0
    parts: list[bytes] = []  # of a line that continues in the next chunk
    for chunk in chain(utf8_chunks(raw, path), [None]):
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
                    "convert the file, for example with iconv -f WINDOWS-1252 -t UTF-8"
                ) from None
            offset += len(line) + 1
            yield number, text.rstrip("\r")


# ---- lines to documents ----


HEADER_LINE = re.compile(r"#+\s*[\w ]+:\s*\S.*")  # "# Title: Emma"
HEADING = re.compile(r"#{1,6}\s+(.*?)[\s#]*")
RULE = re.compile(r"(-\s*){3,}|(\*\s*){3,}|(_\s*){3,}")
WIKI_TITLE = re.compile(r' title="(.*?)"')
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


def _read_wiki(lines: Lines, path: str, entitle: Entitle | None) -> Items:
    opened = None
    for number, text in lines:
        if text.startswith("<doc "):
            if opened:
                raise ValueError(f"{path}:{opened}: <doc> is not closed before line {number}")
            opened = number
            if entitle:
                title = WIKI_TITLE.search(text)
                entitle(html.unescape(title[1]).strip() if title else "")
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
