"""The format of stored rows, shared by writer and reader."""

import numpy as np

FORMAT_VERSION = 1  # of the rows, their files and the manifest
CHUNK_OVERHEAD = 3  # [CLS] and two [SEP]

ROW_DTYPES = {
    "pieces": np.uint16,
    "sentence_lengths": np.uint16,
    "chunk_sentences": np.uint16,
    "chunk_documents": np.uint64,
}
