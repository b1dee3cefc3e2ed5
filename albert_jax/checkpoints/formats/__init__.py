"""Model formats: what each holds, and what the tests check.

`albert_jax.load`, `config.init_from` and `python -m albert_jax.convert` read all of them, told
apart by what the directory holds; `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION` is fetched from the
Hugging Face hub.

Run directory (`--to orbax`)
  reads    parameters, the moments of LAMB or AdamW (not Muon's), the step
  writes   the same
  checked  to the bit, there and back; a run that is converted halfway ends as one that never
           stopped

transformers, ALBERT (`--to hf`)
  reads    Model, ForPreTraining, ForMaskedLM, ForSequenceClassification,
           ForTokenClassification, ForQuestionAnswering, ForMultipleChoice; safetensors, whole
           or sharded, float32 or half precision; pytorch_model.bin, tensors only (needs torch)
  writes   the same classes, with tokenizer files (SentencePiece's Unigram, WordPiece) and the
           rules for text; nothing missing or unexpected in from_pretrained
  checked  to the bit, there and back, also through transformers' own save_pretrained; forward
           within 1e-5 and gradients within 1e-4 for 14 configurations; the same loss at each of
           100 steps; bfloat16 as close to float32 as theirs

transformers, BERT
  reads    the same heads, into the BERT baseline
  writes   the same classes; a model that shares and factorizes nothing is written as BERT
  checked  to the bit, there and back; forward within 1e-5; ids and logits of a run from text on

google-research/albert (`--to tf`)
  reads    both checkpoint formats of TensorFlow and the names of TensorFlow Hub; LAMB's slots
           and the global step (needs `pip install '.[tf]'`)
  writes   model.ckpt-STEP with slots, albert_config.json, 30k-clean.model or vocab_chinese.txt
  checked  the names of the published checkpoints; to the bit, there and back; a run that goes
           through one ends in the same bits

One table, `variables.py`, names every variable in each format. A variable that is missing, left
over or of another shape is an error that names it. So is a model that a format cannot hold:

* Sharing only attention, or only the feed-forward, exists only here.
* transformers and the original round the group of a layer differently for some numbers of
  layers and groups (18 layers in 14 groups, 23 in 23).
* brightmart/albert_zh's first checkpoints add positions after the projection; those converted
  to google-research/albert's network are read.
* transformers always projects the embeddings to the hidden size. Where the sizes are equal, we
  write the identity, and read anything else as `model.project_embeddings=True`.

To continue pretraining from a checkpoint of the original, moments and step included, convert it
with the config that the run will continue with:

  python -m albert_jax.convert --input albert_base --output runs/base --to orbax \
      --config configs/base.py
  python -m albert_jax.train --config configs/base.py --workdir runs/base

To start a new run from weights alone, set `config.init_from` instead, as in
`--config.init_from=hf:albert/albert-base-v2`.
"""
