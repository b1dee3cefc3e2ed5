"""From text to batches: corpora, prepared rows, sentence pairs, masks, reading."""
