"""Makes small data sets for fine_tuning.sh: `python small_sets.py DATA FOLDER`.

SQuAD's single file is split by article, with every fourth held out; the first 500 of RACE's
held-out passages are kept.
"""

import json
import sys
from pathlib import Path


def split_squad(source: Path, folder: Path) -> None:
    """Writes train-v2.0.json and dev-v2.0.json."""
    folder.mkdir(parents=True, exist_ok=True)
    articles = json.loads(source.read_text("utf-8"))["data"]
    for name, is_held_out in (("train", False), ("dev", True)):
        chosen = [a for i, a in enumerate(articles) if (i % 4 == 3) == is_held_out]
        text = json.dumps({"version": "v2.0", "data": chosen})
        (folder / f"{name}-v2.0.json").write_text(text, "utf-8")


def cut_race(source: Path, folder: Path, passages: int) -> None:
    """Writes train.jsonl and dev.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.jsonl").write_bytes((source / "train_sample.jsonl").read_bytes())
    lines = (source / "dev.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "dev.jsonl").write_bytes(b"".join(lines[:passages]))


if __name__ == "__main__":
    data, into = map(Path, sys.argv[1:])
    split_squad(data / "squad" / "dev-v2.0-cs224n.json", into / "squad")
    cut_race(data / "race", into / "race", 500)
