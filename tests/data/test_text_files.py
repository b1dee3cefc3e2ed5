"""Every compression and encoding of a text gives the same bytes, and damage is an error."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from albert_jax.data import text_files
from albert_jax.data.text_files import name_without_compression, utf8_chunks

TEXT = "One line – ünd ein zweiter.\nनमस्ते 𝔘\n" * 50


def long_zstd(data: bytes) -> bytes:
    """As `zstd --long=31` writes it: with a window that readers refuse unless they are told."""
    parameters = zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=True)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}


def read(data: bytes, path: str) -> str:
    return b"".join(utf8_chunks(io.BytesIO(data), path)).decode()


@pytest.mark.parametrize("chunk", [3, 1 << 20])
@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_compression_is_told_by_name_or_content(suffix: str, chunk: int, monkeypatch):
    monkeypatch.setattr(text_files, "CHUNK_BYTES", chunk)
    data = COMPRESSORS[suffix](TEXT.encode())
    assert read(data, f"a.txt{suffix.upper()}") == TEXT
    assert read(data, "a.txt") == TEXT
    assert name_without_compression(f"x/a.TXT{suffix}") == "x/a.TXT"
    for cut in (len(data) - 5, len(data) // 2):
        with pytest.raises(ValueError, match=rf"a: damaged \{suffix} file \(.*fetch it again"):
            read(data[:cut], "a")
    with pytest.raises(ValueError, match=rf"b{suffix}: damaged \{suffix} file"):
        read(TEXT.encode(), f"b{suffix}")


def test_zstd_archives_with_a_long_window_are_read():
    assert read(long_zstd(TEXT.encode()), "a.zst") == TEXT


@pytest.mark.parametrize("chunk", [5, 1 << 20])
@pytest.mark.parametrize("code", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_other_encodings_are_told_by_their_marks(code: str, chunk: int, monkeypatch):
    monkeypatch.setattr(text_files, "CHUNK_BYTES", chunk)
    data = ("\ufeff" + TEXT).encode(code)
    assert read(data, "a.txt") == TEXT
    assert read(gzip.compress(data), "a.txt.gz") == TEXT
    with pytest.raises(ValueError, match=rf"a\.txt: damaged {code[:6].upper()} text"):
        read(data[:-1], "a.txt")


def test_other_bytes_pass_unchanged():
    data = b"\xef\xbb\xbfplain \xff bytes\r\n"
    assert b"".join(utf8_chunks(io.BytesIO(data), "a.txt")) == data
    assert b"".join(utf8_chunks(io.BytesIO(b""), "empty")) == b""


def test_errors_of_the_disk_stay_what_they_are():
    class Broken(io.BytesIO):
        def read(self, *sizes: int) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        list(utf8_chunks(Broken(), "a.gz"))


def test_a_path_without_suffix_keeps_its_name():
    assert name_without_compression(str(Path("a.b") / "c")) == str(Path("a.b") / "c")
