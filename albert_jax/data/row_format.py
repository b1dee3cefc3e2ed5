"""The format of stored rows, shared by writer and reader."""

import numpy as np

FORMAT_VERSION = 1  # of the rows, their files and the manifest
CHUNK_OVERHEAD = 3  # [CLS] and two [SEP]
_MIN_SLOTS_PER_CHUNK = 16  # bounds the chunks of a row, and with them the loader's [B, C] arrays

ROW_DTYPES = {
    "pieces": np.uint16,
    "sentence_lengths": np.uint16,
    "chunk_sentences": np.uint16,
    "chunk_documents": np.uint64,
}


def max_chunks(seq_len: int, packing: bool) -> int:
    """Returns the maximum number of chunks in a row of `seq_len` slots."""
    return max(1, seq_len // _MIN_SLOTS_PER_CHUNK) if packing else 1
