"""Splits a SQuAD file by article: `python split_squad.py FILE FOLDER` holds out every fourth."""

import json
import sys
from pathlib import Path


def main(source: str, folder: str) -> None:
    """Writes train-v2.0.json and dev-v2.0.json."""
    whole = json.loads(Path(source).read_text("utf-8"))
    into = Path(folder)
    into.mkdir(parents=True, exist_ok=True)
    for name, is_held_out in (("train", False), ("dev", True)):
        articles = [a for i, a in enumerate(whole["data"]) if (i % 4 == 3) == is_held_out]
        text = json.dumps({"version": "v2.0", "data": articles})
        (into / f"{name}-v2.0.json").write_text(text, "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
