"""A tokenizer's files: the vocabulary, and beside it the rules for text.

A folder holds `tokenizer.model` (SentencePiece; `spiece.model` elsewhere) or `vocab.txt`
(WordPiece), and `tokenizer_config.json`, with the names that transformers gives the rules.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from albert_jax.data.files import read_object
from albert_jax.data.tokenizers.rules import ENGLISH, TextRules

CONFIG = "tokenizer_config.json"
# kind -> the name of its file in rows and runs. The first found in a folder is taken.
FILES = {"sentencepiece": "tokenizer.model", "wordpiece": "vocab.txt"}
# The special pieces: pad, unk, cls, sep, mask.
SPECIAL = {
    "sentencepiece": ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"),
    "wordpiece": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
}

# transformers' names.
_CLASSES = {"sentencepiece": "AlbertTokenizer", "wordpiece": "BertTokenizer"}


@dataclass(frozen=True)
class Vocabulary:
    """What determines the ids of a text; passed from rows to runs and between formats.

    Attributes:
      kind: a key of `FILES`.
      contents: the bytes of its file.
      rules: what is done to a text first.
    """

    kind: str
    contents: bytes
    rules: TextRules = ENGLISH

    @property
    def file(self) -> str:
        """The name of its file in rows and runs."""
        return FILES[self.kind]

    @property
    def sha256(self) -> str:
        """Hex digest; of the file alone where the rules are English ALBERT's."""
        digest = hashlib.sha256(self.contents)
        if self.rules != ENGLISH:
            digest.update(json.dumps(self.rule_values(), sort_keys=True).encode())
        return digest.hexdigest()

    def rule_values(self) -> dict[str, Any]:
        """Returns the rules as transformers writes them."""
        rules = self.rules
        values: dict[str, Any] = {"do_lower_case": rules.do_lower_case}
        if self.kind == "wordpiece":
            return values | {
                "strip_accents": not rules.keep_accents,
                "tokenize_chinese_chars": rules.tokenize_chinese_chars,
            }
        return values | {"keep_accents": rules.keep_accents, "remove_space": rules.remove_space}

    def config(self) -> dict[str, Any]:
        """Returns the contents of `tokenizer_config.json`."""
        names = ("pad", "unk", "cls", "sep", "mask")
        tokens = {f"{n}_token": t for n, t in zip(names, SPECIAL[self.kind], strict=True)}
        return {"tokenizer_class": _CLASSES[self.kind], **self.rule_values(), **tokens}

    def write(self, folder: Path, name: str | None = None) -> None:
        """Writes the vocabulary, as `name` if given, and its rules into an existing folder."""
        (folder / (name or self.file)).write_bytes(self.contents)
        (folder / CONFIG).write_text(json.dumps(self.config(), indent=1) + "\n", "utf-8")


def rules_of(values: Mapping[str, Any], kind: str, where: str) -> TextRules:
    """Returns the rules in the contents of a `tokenizer_config.json`.

    Raises:
      ValueError: if one of them is not true or false.
    """

    def flag(name: str, default: bool) -> bool:
        value = values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise ValueError(f"{where}: {name} is {value!r}; it must be true or false")
        return value

    lower = flag("do_lower_case", ENGLISH.do_lower_case)
    if kind == "wordpiece":  # Source: transformers, BertTokenizer: without a value, as the case
        keeps = not flag("strip_accents", lower)
        chinese = flag("tokenize_chinese_chars", ENGLISH.tokenize_chinese_chars)
        return TextRules(lower, keeps, tokenize_chinese_chars=chinese)
    keeps = flag("keep_accents", ENGLISH.keep_accents)
    return TextRules(lower, keeps, flag("remove_space", ENGLISH.remove_space))


def find_rules(file: Path, kind: str) -> TextRules | None:
    """Returns the rules beside a vocabulary's file; None if there are none.

    Raises:
      ValueError: if they cannot be used.
    """
    path = file.with_name(CONFIG)
    return rules_of(read_object(path), kind, str(path)) if path.is_file() else None


def default_rules_taken(file: Path) -> str:
    """Says that nothing beside a vocabulary tells its rules, and which are taken."""
    return (
        f"{file} has no {CONFIG} beside it: text is {ENGLISH}, as for English ALBERT; if it was "
        f'trained otherwise, write {CONFIG} with "do_lower_case" and "keep_accents"'
    )


def kind_of_file(file: Path) -> str:
    """Returns the kind of vocabulary that a file's name stands for."""
    return "wordpiece" if file.suffix == ".txt" else "sentencepiece"


def read_vocabulary(path: Path, rules: TextRules | None = None) -> Vocabulary:
    """Reads a vocabulary and the rules beside it.

    Args:
      path: the file, or a folder of rows, of a run or of Hugging Face's.
      rules: the rules to use where there are none beside it; English ALBERT's by default.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the rules cannot be used.
    """
    file = vocabulary_in(path) or path / FILES["sentencepiece"] if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"tokenizer {file}: no such file; pass a SentencePiece .model file or a WordPiece "
            "vocab.txt"
        )
    kind = kind_of_file(file)
    return Vocabulary(kind, file.read_bytes(), find_rules(file, kind) or rules or ENGLISH)


def vocabulary_in(folder: Path) -> Path | None:
    """Returns the file of the vocabulary in a folder of rows, a run or a model, if any."""
    found = (folder / name for name in (*FILES.values(), "spiece.model"))
    return next((file for file in found if file.is_file()), None)
