"""Random text that a small vocabulary can hold."""

import json
import random
from pathlib import Path

from support.pieces import english

from albert_jax.prepare.vocabulary import train_sentencepiece

SYLLABLES = ["mor", "tan", "sil", "bur", "kel", "ven", "dor", "pax", "lun", "rit"]
WORDS = [a + b for a in SYLLABLES for b in ["ing", "ed", "er", "est", "ly", "os", "um", "ia"]]
VOCAB_SIZE = 60


def make_sentence(draw: random.Random, least: int = 3, most: int = 20) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(least, most))).capitalize() + "."


def write_corpus(path: Path, documents: int = 150, seed: int = 0, repeat: int = 5) -> Path:
    """Writes JSONL of random documents, every `repeat`-th given twice."""
    draw = random.Random(seed)
    with open(path, "w") as f:
        for i in range(documents):
            paragraphs = [
                " ".join(make_sentence(draw) for _ in range(draw.randint(1, 6)))
                for _ in range(draw.randint(1, 8))
            ]
            line = json.dumps({"text": "\n\n".join(paragraphs)}) + "\n"
            f.write(line * (2 if i % repeat == 0 else 1))
    return path


def write_vocabulary(path: Path) -> Path:
    draw = random.Random(0)
    model = train_sentencepiece([make_sentence(draw) for _ in range(1000)], VOCAB_SIZE)
    english(model).write(path.parent, path.name)
    return path
