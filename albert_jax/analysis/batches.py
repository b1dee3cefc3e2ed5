"""The batch of a training step: documents, sentence pairs and masks."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from albert_jax.checkpoints.run_dir import read_run
from albert_jax.config import Config, config_from_dict
from albert_jax.config.phases import Phase, joint_fingerprint, phase_at, phases_of
from albert_jax.data.files import read_object
from albert_jax.data.loader import Rows
from albert_jax.data.row_reader import StoredRows, open_rows
from albert_jax.data.sampling import row_of, rows_of_step
from albert_jax.data.sentence_pairs import OBJECTIVES
from albert_jax.data.tokenizers import Tokenizer, load_tokenizer

# The fate of a piece to predict -> its markup, in plain text and in a terminal (ANSI colours).
_PLAIN = {"masked": "{%s}", "replaced": "{%s>%s}", "kept": "{%s=}"}
_COLOURED = {
    "masked": "\x1b[1;31m%s\x1b[0m",
    "replaced": "\x1b[1;33m%s>%s\x1b[0m",
    "kept": "\x1b[1;32m%s\x1b[0m",
}
_LEGEND = {"masked": ("[MASK]",), "replaced": ("replaced", "by"), "kept": ("left to see",)}


class Slot(NamedTuple):
    """A piece: the original in the text, the model's input, and whether it is to be predicted."""

    piece: int
    given: int
    predicted: bool


class Chunk(NamedTuple):
    """`[CLS] A [SEP] B [SEP]`.

    Attributes:
      document: its number in the corpus.
      label: 1 if swapped (sop) or if B is from another document (nsp), else 0; None if there is
        no sentence loss.
      a, b: the pieces of the segments, without special ones; b may be empty.
    """

    document: int
    label: int | None
    a: tuple[Slot, ...]
    b: tuple[Slot, ...]


class RowView(NamedTuple):
    """A row of a batch: its place in it, its epoch and stored row, its slots, its chunks."""

    place: int
    epoch: int
    row: int
    used: int
    slots: int
    chunks: tuple[Chunk, ...]


class _PhaseRows:
    """The training rows of a phase, as examples and as stored."""

    def __init__(self, phase: Phase):
        self.loader = Rows(phase.data, "train")
        self.stored: StoredRows = open_rows(phase.data.path, "train")

    def holds(self, row: int, document: int) -> bool:
        """Whether a row has a chunk of the document."""
        return document in self.stored[row]["chunk_documents"]


class RunView:
    """A pretraining run and its rows.

    Attributes:
      config: its settings.
      tokenizer: its vocabulary.
    """

    def __init__(self, workdir: Path, data: str | None = None):
        """Opens a run and its training rows.

        Args:
          workdir: the run directory.
          data: the current location of its rows; by default the original one.

        Raises:
          FileNotFoundError: if there is no run, or its rows are missing.
          ValueError: if it is not a pretraining run, or the rows are not the run's.
        """
        run = read_run(workdir)
        if run.config.task.name != "pretrain":
            raise ValueError(
                f"{str(workdir)!r} is a run of {run.config.task.name}, not pretraining"
            )
        self.config = _with_data(run.config, data)
        phases = phases_of(self.config.data, self.config.train)
        self._phases = {phase: _PhaseRows(phase) for phase in phases}
        self._check_rows(workdir)
        self.tokenizer = load_tokenizer(self.config.data.path)

    def _check_rows(self, workdir: Path) -> None:
        record = read_object(workdir / "config.json")
        rows = self._phases.values()
        found = joint_fingerprint([of.loader.manifest["fingerprint"] for of in rows])
        asked = record["data_fingerprint"]
        if asked not in (None, found):
            raise ValueError(
                f"data.path {self.config.data.path!r} holds other rows than those of the run "
                f"(fingerprint {found[:12]}, not {asked[:12]}); give their location with --data"
            )

    def rows_of_step(self, step: int) -> list[tuple[int, int]]:
        """Returns (epoch, row) of a step's batch; steps count from 1, as in metrics.jsonl.

        Raises:
          ValueError: if the run does not have such a step.
        """
        phase = self.phase_of(step)
        rows = self._phases[phase].loader.num_rows
        return rows_of_step(self.config.train.seed, rows, phase, step)

    def phase_of(self, step: int) -> Phase:
        """Returns the phase of a step.

        Raises:
          ValueError: if the run does not have such a step.
        """
        last = self.config.train.num_steps
        if not 1 <= step <= last:
            raise ValueError(f"--step {step} must be from 1 to train.num_steps={last}")
        return phase_at(list(self._phases), step)

    def view(self, step: int, place: int) -> RowView:
        """Returns one row of a step's batch, as made by the loader.

        Raises:
          ValueError: if the run has no such step, or the batch no such place.
        """
        rows, phase = self.rows_of_step(step), self.phase_of(step)
        if not 0 <= place < len(rows):
            raise ValueError(f"--row {place} must be from 0 to {len(rows) - 1}")
        epoch, row = rows[place]
        of = self._phases[phase]
        example = of.loader.make_example(self.config.train.seed, epoch, row)
        documents = of.stored[row]["chunk_documents"].tolist()
        used = int((example["segment_ids"] > 0).sum())
        chunks = tuple(_chunks(example, documents))
        return RowView(place, epoch, row, used, phase.data.seq_len, chunks)

    def next_step(self, document: int, step: int = 1) -> tuple[int, list[int]]:
        """Returns the first step from `step` on with a document, and its places in the batch.

        The document may occur earlier as a B that next sentence prediction borrows.

        Raises:
          ValueError: if no training row holds the document.
        """
        seed = self.config.train.seed
        for phase, of in self._phases.items():
            rows, size = of.loader.num_rows, phase.batch_size
            is_last = phase.last_step == self.config.train.num_steps
            first = max(step - 1 - phase.first_step, 0) * size
            # Searches the rest of this epoch and all of the next, which contains every row; of a
            # phase that another follows, only what it uses.
            end = (first // rows + 2) * rows
            for example in range(first, end if is_last else min(end, phase.num_steps * size)):
                if of.holds(row_of(seed, rows, example)[1], document):
                    step = phase.first_step + example // size + 1
                    batch = enumerate(rows_of_step(seed, rows, phase, step))
                    return step, [place for place, (_, row) in batch if of.holds(row, document)]
        raise ValueError(
            f"--document {document}: no training row holds this document; it may be held out, "
            "a duplicate, or not in the corpus"
        )

    def source_of(self, document: int) -> str:
        """Returns the file or data set that a document came from, as given to `prepare`."""
        *_, of = self._phases.values()
        for source in of.loader.manifest["sources"]:
            first = source["first_document"]
            if first is not None and first <= document < first + source["documents"]:
                return source["path"]
        return "?"


def _with_data(config: Config, path: str | None) -> Config:
    if path is None:
        return config
    values = config.to_dict()
    values["data"]["path"] = path
    return config_from_dict(values)


def _chunks(example: dict[str, np.ndarray], documents: list[int]) -> Iterator[Chunk]:
    """Yields the chunks of a loader's example."""
    is_real = example["mlm_weights"] > 0
    positions = example["mlm_positions"][is_real]
    pieces, predicted = example["input_ids"].copy(), np.zeros(len(example["input_ids"]), bool)
    pieces[positions], predicted[positions] = example["mlm_labels"][is_real], True
    special = np.zeros_like(predicted)
    for c, document in enumerate(documents):
        inside = example["segment_ids"] == c + 1
        special[:] = False
        special[example["cls_positions"][c]] = True
        for kind in (0, 1):  # each segment ends in [SEP]
            special[np.flatnonzero(inside & (example["token_type_ids"] == kind))[-1:]] = True

        def segment(kind: int, slots: np.ndarray) -> tuple[Slot, ...]:
            chosen = np.flatnonzero(slots & (example["token_type_ids"] == kind))
            return tuple(
                Slot(int(pieces[i]), int(example["input_ids"][i]), bool(predicted[i]))
                for i in chosen
            )

        has_loss = bool(example["sentence_weights"][c])
        label = int(example["sentence_labels"][c]) if has_loss else None
        yield Chunk(document, label, segment(0, inside & ~special), segment(1, inside & ~special))


def spell(slots: Sequence[Slot], tokenizer: Tokenizer, marks: dict[str, str]) -> str:
    """Returns the text of the pieces, with those to predict marked."""
    parts = []
    for slot in slots:
        text = tokenizer.surface(slot.piece)
        parts.append(" " * tokenizer.has_space_before(slot.piece))
        shown = text or "▁"  # a piece may be a space alone
        if not slot.predicted:
            parts.append(text)
        elif slot.given == tokenizer.special.mask:
            parts.append(marks["masked"] % shown)
        elif slot.given == slot.piece:
            parts.append(marks["kept"] % shown)
        else:
            parts.append(marks["replaced"] % (shown, tokenizer.surface(slot.given)))
    return "".join(parts).strip()


def describe(run: RunView, view: RowView, *, colour: bool) -> list[str]:
    """Returns lines that show a row."""
    marks = _COLOURED if colour else _PLAIN
    slots = [slot for chunk in view.chunks for slot in (*chunk.a, *chunk.b)]
    predicted = sum(slot.predicted for slot in slots)
    maskable = sum(run.tokenizer.is_text[slot.piece] for slot in slots)
    said = OBJECTIVES[run.config.data.sentence_objective].labels
    slots_used = f"{view.used} of {view.slots} slots"
    to_predict = f"{predicted} of {maskable} pieces to predict"
    where = f"row {view.place} of the batch: row {view.row} of epoch {view.epoch}"
    lines = [f"{where}, {slots_used}, {to_predict}"]
    for number, chunk in enumerate(view.chunks, 1):
        label = "no sentence loss" if chunk.label is None else said[chunk.label]
        source = run.source_of(chunk.document)
        lines.append(f"  chunk {number}: document {chunk.document} ({source}), {label}")
        for name, segment in (("A", chunk.a), ("B", chunk.b)):
            if segment:
                lines.append(f"    {name}: {spell(segment, run.tokenizer, marks)}")
    return lines


def report(run: RunView, step: int, places: Sequence[int], *, colour: bool) -> Iterator[str]:
    """Yields lines that show rows of a step's batch."""
    marks = _COLOURED if colour else _PLAIN
    legend = ", ".join(f"{marks[name] % words}" for name, words in _LEGEND.items())
    yield f"step {step} of {run.config.train.num_steps}; to predict: {legend}"
    for place in places:
        yield from ("", *describe(run, run.view(step, place), colour=colour))
