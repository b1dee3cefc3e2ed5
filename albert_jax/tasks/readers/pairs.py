"""Readers of pairs of texts to embed: your own tables, STS-B and the entailments of MNLI."""

from collections.abc import Callable

from albert_jax.tasks.examples import TaskData, TextExample
from albert_jax.tasks.readers.glue import NLI, read_glue
from albert_jax.tasks.readers.tables import find_tables, text_data
from albert_jax.tasks.readers.tfds import glue_from_tfds

_HIGHEST = 5.0  # score in STS-B
_ENTAILED = NLI.index("entailment")


def read_pairs(name: str, source: str, to_predict: bool = False) -> TaskData:
    """Reads your own table of pairs, all with a score from 0 to 1 or none of them.

    Args:
      name: not used.
      source: as for `tables.read_table`; the columns are those of `regression`.
      to_predict: as there.

    Raises:
      FileNotFoundError: if the source or all of the files are missing.
      ValueError: if a file is malformed, a text is blank or has no pair, only some rows have a
        score, or a score is out of range.
    """
    del name
    notes: list[str] = []
    found = find_tables(source, to_predict, notes)
    data = text_data(found, regression=True, to_predict=to_predict, unlabelled=True)
    for split, (path, rows) in found.items():
        examples = data.splits[split]
        if examples[0].pair is None:
            raise ValueError(f"{path}: no column 'pair'; a second text is needed in each row")
        for row, example in zip(rows, examples, strict=True):
            if example.label is not None and not 0 <= example.label <= 1:
                raise ValueError(
                    f"{row.where}: score {example.label} is not between 0 and 1; divide all "
                    "scores by the highest there can be"
                )
    scored = {split: examples[0].label is not None for split, examples in data.splits.items()}
    learnt = [split for split in scored if not split.startswith("test")]
    odd = [split for split in learnt if scored[split] != scored[learnt[0]]]
    if odd and not to_predict:
        raise ValueError(
            f"{found[odd[0]][0]}: only one of this and {found[learnt[0]][0]} has scores; give "
            "them in both or in neither"
        )
    return data._replace(notes=(*notes, *data.notes))


def read_stsb(name: str, source: str, to_predict: bool = False) -> TaskData:
    """Reads the files of glue/stsb; its scores, from 0 to 5, become 0 to 1.

    Raises:
      FileNotFoundError, ValueError: as `glue.read_glue`.
    """
    del name
    return _changed(read_glue("glue/stsb", source, to_predict), _scaled)


def read_nli(name: str, source: str, to_predict: bool = False) -> TaskData:
    """Reads the files of glue/mnli; what is learnt are the pairs of which one entails the other.

    Raises:
      FileNotFoundError, ValueError: as `glue.read_glue`.
    """
    del name
    data = read_glue("glue/mnli", source, to_predict)
    return _changed(data, _without_label if to_predict else _entailed)


def stsb_from_tfds(name: str, source: str, data_dir: str | None) -> TaskData:
    """Reads STS-B from TFDS; see `read_stsb`."""
    del name
    return _changed(glue_from_tfds("glue/stsb", source, data_dir), _scaled)


def nli_from_tfds(name: str, source: str, data_dir: str | None) -> TaskData:
    """Reads MNLI from TFDS; see `read_nli`."""
    del name
    return _changed(glue_from_tfds("glue/mnli", source, data_dir), _entailed)


def _changed(data: TaskData, change: Callable[[TextExample], TextExample | None]) -> TaskData:
    """Returns the data with every example changed, without those that become None."""
    splits = {
        split: [new for example in examples if (new := change(example)) is not None]
        for split, examples in data.splits.items()
    }
    return TaskData({split: found for split, found in splits.items() if found}, (), data.notes)


def _scaled(example: TextExample) -> TextExample:
    label = example.label
    return example if label is None else example._replace(label=label / _HIGHEST)


def _without_label(example: TextExample) -> TextExample:
    return example._replace(label=None)


def _entailed(example: TextExample) -> TextExample | None:
    """Returns an example without its class, or None if that is another; a test file has none."""
    return None if example.label not in (None, _ENTAILED) else _without_label(example)
