"""Documents in fields of records: JSON lines, other JSON, Parquet and Arrow."""

import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from albert_jax.data.files import parse_json
from albert_jax.prepare.paragraphs import Items, Lines, paragraphs_of

# Told the title of each document before its paragraphs come.
Entitle = Callable[[str], None]

_TITLES = ("title", "id")  # fields that may name a document, the best first
_NOT_SPACE = re.compile(r"\S")
_HALF = re.compile("[\ud800-\udfff]")


def read_json(lines: Lines, path: str, text_field: str, entitle: Entitle | None = None) -> Items:
    """Reads JSON lines, or else a file of objects or arrays of objects, laid out in any way.

    Only JSON lines are read line by line; other JSON is held in memory.
    """
    first = next((line for line in lines if line[1].strip()), (1, ""))
    if _is_object(first[1]):
        for number, line in chain([first], lines):
            if line.strip():
                record = parse_json(line, path, number)
                yield from _document(record, f"{path}:{number}", text_field, entitle)
        return
    text = "\n" * (first[0] - 1) + "\n".join(line for _, line in chain([first], lines))
    for number, record in enumerate(_values(text, path)):
        yield from _document(record, f"{path}: record {number}", text_field, entitle)


def _is_object(line: str) -> bool:
    """Whether a line is a JSON object, or is meant to be one with another on the next line."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return line.lstrip()[:1] == "{" and len(line.strip()) > 1 and ":" in line


def _values(text: str, path: str) -> Iterator[Any]:
    """Yields the values of JSON text one after another, and those within arrays."""
    decoder, end = json.JSONDecoder(), 0
    while start := _NOT_SPACE.search(text, end):
        try:
            value, end = decoder.raw_decode(text, start.start())
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}:{error.lineno}: not JSON ({error.msg}); is the file truncated?"
            ) from None
        yield from value if isinstance(value, list) else [value]


def read_parquet(
    raw: BinaryIO, path: str, text_field: str, entitle: Entitle | None = None
) -> Items:
    """Reads a Parquet file, one row group at a time."""
    with _named_damage(path, "Parquet"):
        file = pq.ParquetFile(raw)
        columns = _columns(file.schema_arrow.names, path, text_field, entitle)
        batches = file.iter_batches(columns=columns)
        yield from _read_batches(batches, path, text_field, entitle)


def read_arrow(raw: BinaryIO, path: str, text_field: str, entitle: Entitle | None = None) -> Items:
    """Reads an Arrow (Feather) file or stream, one batch of records at a time."""
    with _named_damage(path, "Arrow"):
        if raw.read(6) == b"ARROW1":
            raw.seek(0)
            file = pa.ipc.open_file(raw)
            batches = (file.get_batch(i) for i in range(file.num_record_batches))
        else:
            raw.seek(0)
            file = batches = pa.ipc.open_stream(raw)
        columns = _columns(file.schema.names, path, text_field, entitle)
        selected = (batch.select(columns) for batch in batches)
        yield from _read_batches(selected, path, text_field, entitle)


@contextmanager
def _named_damage(path: str, kind: str) -> Generator[None]:
    """Turns pyarrow's errors into one that names the file; those of the disk stay."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: damaged {kind} file ({reason}); fetch it again") from None


def _columns(names: list[str], path: str, text_field: str, entitle: Entitle | None) -> list[str]:
    """Returns the column that holds the field, and those of titles if they are wanted."""
    titles = [name for name in _TITLES if entitle and name in names]
    for column in (text_field, text_field.partition(".")[0]):
        if column in names:
            return [column, *(title for title in titles if title != column)]
    raise ValueError(
        f"{path}: no column {text_field!r} (has: {', '.join(names)}); name it with --text_field"
    )


def _read_batches(
    batches: Iterable[pa.RecordBatch], path: str, text_field: str, entitle: Entitle | None
) -> Items:
    records = (record for batch in batches for record in batch.to_pylist())
    for number, record in enumerate(records):
        yield from _document(record, f"{path}: record {number}", text_field, entitle)


def title_of(record: Mapping[str, Any], text_field: str) -> str:
    """Returns the title of a record, or else its id, as one line; "" if it has neither."""
    for field in _TITLES:
        value = record.get(field) if field != text_field else None
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        if isinstance(value, str | int) and (title := " ".join(str(value).split())):
            return _HALF.sub("\ufffd", title)
    return ""


def _document(record: Any, where: str, text_field: str, entitle: Entitle | None) -> Items:
    """Yields the paragraphs of a record's text, then None."""
    value = _field(record, text_field)
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(
            f"{where}: no text in field {text_field!r} (has: {', '.join(_fields(record))}); "
            "name the field with --text_field"
        )
    if entitle:
        entitle(title_of(record, text_field))
    for text in texts:
        if _HALF.search(text):
            raise ValueError(
                f"{where}: {text_field!r} contains half a surrogate pair (\\ud800 to \\udfff), "
                "which is not a character; correct the text"
            )
        yield from paragraphs_of(text.splitlines())
    yield None


def _field(record: Any, text_field: str) -> Any:
    """Returns the value of a field; `a.b` is field b of field a, if no field has that name."""
    if not isinstance(record, Mapping):
        return None
    if text_field in record:
        return record[text_field]
    outer, _, inner = text_field.partition(".")
    return _field(record.get(outer), inner) if inner else None


def _fields(record: Any, prefix: str = "") -> Iterator[str]:
    """Yields the names that `--text_field` may have."""
    if not isinstance(record, Mapping):
        yield type(record).__name__
        return
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
