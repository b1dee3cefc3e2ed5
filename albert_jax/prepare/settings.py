"""The settings that, together with the text, determine prepared rows. Defaults are only here."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from albert_jax.data.row_format import CHUNK_OVERHEAD, max_chunks
from albert_jax.data.tokenizers import TextRules
from albert_jax.prepare.segmenters import make_segmenter
from albert_jax.prepare.sentences import AUTO, check_language, language_of

# Settings that did not exist in the first version; where they have their defaults, they are not
# recorded.
_LATER = ("shorter", "character_coverage", "first_validation_source", "tokenizer_type",
          "lower_case", "keep_accents")  # fmt: skip
_LATER_OF_ROWS = ("language", "segmenter")

MIN_SEQ_LEN = 16  # at least one chunk of a dozen pieces
MAX_SEQ_LEN = 65_535  # lengths are stored as uint16


@dataclass(frozen=True)
class RowSettings:
    """The settings that determine the rows made from a block of documents.

    Attributes:
      seq_len: row length in tokens.
      packing: whether a row may hold several chunks.
      short_seq_prob: fraction of chunks that get a shorter target length.
      seed: seed for drawing those chunks and the split.
      language: the code of the language whose rules split sentences; "auto" takes that of each
        document's script.
      segmenter: a name in `segmenters.SEGMENTERS` that finds the words of scripts without spaces;
        None takes each character, or piece, as a word.
    """

    seq_len: int = 512
    packing: bool = True
    short_seq_prob: float = 0.1
    seed: int = 0
    language: str = AUTO
    segmenter: str | None = None

    def __post_init__(self):
        if not MIN_SEQ_LEN <= self.seq_len <= MAX_SEQ_LEN:
            raise ValueError(
                f"seq_len {self.seq_len}: must be from {MIN_SEQ_LEN} to {MAX_SEQ_LEN}"
            )
        if not 0 <= self.short_seq_prob <= 1:
            raise ValueError(f"short_seq_prob {self.short_seq_prob}: must be from 0 to 1")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed {self.seed}: must be from -2**63 to 2**63 - 1")
        check_language(self.language)
        if self.segmenter is not None:
            make_segmenter(self.segmenter)  # raises if it is not installed

    def language_of(self, paragraphs: Sequence[str]) -> str:
        """Returns the language by whose rules a document is split into sentences."""
        return language_of(paragraphs) if self.language == AUTO else self.language

    @property
    def max_chunks(self) -> int:
        """The maximum number of chunks in a row."""
        return max_chunks(self.seq_len, self.packing)

    @property
    def max_pieces(self) -> int:
        """The maximum number of pieces in a chunk, which is that of a row."""
        return self.seq_len - CHUNK_OVERHEAD


@dataclass(frozen=True)
class Settings:
    """The settings that, together with the input, determine the output.

    Attributes:
      rows: how rows are made from documents.
      format: how files are read, one of `formats.FORMATS`.
      text_field: the JSON or TFDS field with the text.
      validation_fraction: fraction of documents in the validation split.
      keep_duplicates: whether to keep documents with equal text.
      character_coverage: fraction of the text's characters that the trained vocabulary spells;
        the rest become unknown. Source: the default is google-research/albert README.
      first_validation_source: the number of the first source that is for validation alone; None
        takes a fraction of the documents.
      shorter: lengths of the rows to make besides those of `rows.seq_len`, ascending.
      vocab_size: size of the vocabulary in pieces.
      tokenizer_sha256: hex digest of the given vocabulary; None if one is trained.
      tokenizer_type: the kind of vocabulary to train, one of `vocabulary.TYPES`.
      lower_case: whether a trained vocabulary's text is lower-cased.
      keep_accents: whether accents and other combining marks stay in it.
    """

    rows: RowSettings
    format: str = "auto"
    text_field: str = "text"
    validation_fraction: float = 0.005
    keep_duplicates: bool = False
    vocab_size: int = 30_000  # Source: arXiv:1909.11942, section 4.1
    tokenizer_sha256: str | None = None
    shorter: tuple[int, ...] = ()
    character_coverage: float = 0.99995
    first_validation_source: int | None = None
    tokenizer_type: str = "unigram"
    lower_case: bool = True
    keep_accents: bool = False

    def __post_init__(self):
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction {self.validation_fraction}: must be between 0 and 1"
            )
        if not 0.98 <= self.character_coverage <= 1:  # SentencePiece's limits
            raise ValueError(
                f"character_coverage {self.character_coverage}: must be from 0.98 to 1"
            )
        for length in self.shorter:
            if self.rows.seq_len % length:
                raise ValueError(
                    f"seq_len {length}: must divide the longest, {self.rows.seq_len}, so that "
                    "every step has the same number of tokens"
                )

    def of_shorter(self) -> list["Settings"]:
        """Returns the settings of the rows of each shorter length."""
        rows = [replace(self.rows, seq_len=length) for length in self.shorter]
        return [replace(self, rows=own, shorter=()) for own in rows]

    @property
    def rules(self) -> TextRules:
        """The rules of a trained vocabulary."""
        return TextRules(self.lower_case, self.keep_accents)

    def as_dict(self) -> dict[str, Any]:
        """Returns one flat dict for the manifest."""
        settings = asdict(self)
        # Rows from before these settings existed keep their fingerprint.
        for name in _LATER:
            if getattr(self, name) == getattr(Settings, name):
                del settings[name]
        rows = settings.pop("rows")
        for name in _LATER_OF_ROWS:
            if getattr(self.rows, name) == getattr(RowSettings, name):
                del rows[name]
        return rows | settings
