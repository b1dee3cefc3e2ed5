"""WordPiece vocabularies in the `tokenizer.json` of Hugging Face transformers."""

import json
from typing import Any

from tokenizers import decoders, processors

from albert_jax.data.tokenizers import Vocabulary
from albert_jax.data.tokenizers.vocabulary import SPECIAL
from albert_jax.data.tokenizers.wordpiece import WITHIN_WORD, make_pipeline, parse_vocabulary


def wordpiece_pipeline(vocabulary: Vocabulary) -> dict[str, Any]:
    """Returns the contents of tokenizer.json.

    Source: transformers, models/bert/tokenization_bert.py.
    """
    pieces = parse_vocabulary(vocabulary.contents, "vocabulary")
    ids = {piece: i for i, piece in enumerate(pieces)}
    pipeline = make_pipeline(ids, vocabulary)
    special = SPECIAL["wordpiece"]
    pipeline.add_special_tokens(list(special))
    _, _, cls, sep, _ = special
    pipeline.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, ids[cls]), (sep, ids[sep])],
    )
    pipeline.decoder = decoders.WordPiece(prefix=WITHIN_WORD)
    return json.loads(pipeline.to_str())


def vocabulary_of_pipeline(values: dict[str, Any]) -> bytes:
    """Returns the `vocab.txt` described by the contents of tokenizer.json.

    Raises:
      ValueError: if its ids are not 0, 1, 2, ….
    """
    ids = dict(values["model"]["vocab"])
    ids |= {token["content"]: token["id"] for token in values.get("added_tokens", [])}
    pieces = sorted(ids, key=lambda piece: ids[piece])
    if [ids[piece] for piece in pieces] != list(range(len(pieces))):
        raise ValueError("the ids of the pieces are not 0, 1, 2, …")
    return "".join(f"{piece}\n" for piece in pieces).encode()
