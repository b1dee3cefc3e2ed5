"""From prepared rows to batches: reading, sampling, sentence pairs, masking, tokenization."""
