"""Text to stored rows: `python -m albert_jax.prepare --input X --output DIR`.

How text becomes a batch:

  text, Markdown, WikiExtractor, JSON Lines, TFDS         python -m albert_jax.prepare
    -> documents, exact duplicates dropped                prepare/corpus.py, documents.py
    -> sentences (sentencex), words (jieba)               prepare/sentences.py, segmenters.py
    -> pieces (SentencePiece, WordPiece)                  data/tokenizers/
    -> chunks of whole sentences, packed into rows        prepare/row_builder.py, packing.py
    -> a TFDS dataset on ArrayRecord, with a manifest     prepare/row_writer.py, manifest.py
  ---------------------------------------------------------------------------------------
  row i of epoch e                                        python -m albert_jax.train
    -> split into A and B, swapped or not                 data/sentence_pairs.py
    -> whole-word n-gram masks                            data/masking.py
    -> batches, read ahead by Grain                       data/loader.py
    -> train_step(state, batch, key)                      train/step.py, model/
    -> Orbax checkpoints, metrics, curves                 train/loop.py

Rows are prepared once; examples are drawn anew in each epoch. An example is a pure function of
(seed, epoch, row), so the step number is the position in the data.
"""
