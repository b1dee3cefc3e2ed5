"""The format of stored rows, shared by writer and reader."""

import numpy as np

FORMAT_VERSION = 1  # of the rows, their files and the manifest
CHUNK_OVERHEAD = 3  # [CLS] and two [SEP]
_MIN_SLOTS_PER_CHUNK = 16  # bounds the chunks of a row, and with them the loader's [B, C] arrays


def row_dtypes(piece_dtype: type, *, has_words: bool) -> dict[str, type]:
    """Returns the arrays of a row and their types.

    Args:
      piece_dtype: the type of ids, from `tokenizers.id_dtype`.
      has_words: whether rows hold the beginnings of words as a segmenter found them: a bit for
        each piece, packed into bytes.
    """
    words: dict[str, type] = {"word_starts": np.uint8} if has_words else {}
    return {
        "pieces": piece_dtype,
        "sentence_lengths": np.uint16,
        "chunk_sentences": np.uint16,
        "chunk_documents": np.uint64,
    } | words


def max_chunks(seq_len: int, packing: bool) -> int:
    """Returns the maximum number of chunks in a row of `seq_len` slots."""
    return max(1, seq_len // _MIN_SLOTS_PER_CHUNK) if packing else 1
