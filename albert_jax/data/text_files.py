"""The bytes of text files, whatever their compression, as UTF-8."""

import bz2
import codecs
import gzip
import lzma
import os
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import zstandard

CHUNK_BYTES = 1 << 20
# Suffix -> how such a file begins, if its name does not show the compression.
COMPRESSIONS = {
    ".gz": b"\x1f\x8b",
    ".bz2": b"BZh",
    ".xz": b"\xfd7zXZ\x00",
    ".zst": b"\x28\xb5\x2f\xfd",
}
_OPENERS = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}
# Mark at the start -> encoding. That of UTF-32 begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# `zstd --long` takes windows of up to 2 GiB, which is also the memory that they need.
_LARGEST_WINDOW = 1 << 31


def name_without_compression(path: str) -> str:
    """Returns the name of what a compressed file holds ("a.TXT.gz": "a.TXT"); else the path."""
    root, suffix = os.path.splitext(path)
    return root if suffix.lower() in COMPRESSIONS else path


def utf8_chunks(raw: BinaryIO, path: str) -> Iterator[bytes]:
    """Yields a text file's decompressed bytes; UTF-16 and UTF-32, told by their marks, as UTF-8.

    The bytes of other files are not checked.

    Args:
      raw: the open file.
      path: its name.

    Raises:
      ValueError: if the compressed file is damaged, or the UTF-16 or UTF-32 is.
    """
    chunks = decompressed(raw, path)
    first = next(chunks, b"")
    code = next((code for mark, code in _MARKS.items() if first.startswith(mark)), None)
    if code is None:
        yield first
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder(code)()
    try:
        yield decoder.decode(first).encode()
        for chunk in chunks:
            yield decoder.decode(chunk).encode()
        decoder.decode(b"", final=True)
    except UnicodeError as error:
        raise ValueError(
            f"{path}: damaged {code.upper()} text ({error}); fetch it again"
        ) from None


def decompressed(raw: BinaryIO, path: str) -> Iterator[bytes]:
    """Yields a file's bytes, decompressed as its name or its first bytes show.

    Raises:
      ValueError: if the file is damaged.
    """
    kind = _compression(raw, path)
    if kind == ".zst":
        yield from _unzstd(raw, path)
        return
    try:
        stream = _OPENERS[kind](raw) if kind else raw
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk, not of the compression
        raise ValueError(f"{path}: damaged {kind} file ({error}); fetch it again") from None


def _compression(raw: BinaryIO, path: str) -> str | None:
    suffix = os.path.splitext(path)[1].lower()
    if suffix in COMPRESSIONS:
        return suffix
    start = raw.read(8)
    raw.seek(0)
    return next((kind for kind, mark in COMPRESSIONS.items() if start.startswith(mark)), None)


def _unzstd(raw: BinaryIO, path: str) -> Iterator[bytes]:
    # Frame by frame, because zstandard's stream reader does not detect a truncated file.
    decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
    frame, between_frames = decompressor.decompressobj(), True
    while data := raw.read(CHUNK_BYTES):
        while data:
            try:
                yield frame.decompress(data)
            except zstandard.ZstdError as error:
                raise ValueError(f"{path}: damaged .zst file ({error}); fetch it again") from None
            data, between_frames = frame.unused_data, frame.eof
            if frame.eof:
                frame = decompressor.decompressobj()
    if not between_frames:
        raise ValueError(f"{path}: damaged .zst file (truncated); fetch it again")
