"""Reader of GLUE's official files.

Source: https://gluebenchmark.com/tasks (the archives) and download_glue_data.py of
https://github.com/nyu-mll/GLUE-baselines: tab-separated, no quoting, a header line except in
CoLA's train.tsv and dev.tsv. The labels' order is that of TFDS.
"""

import os
from typing import NamedTuple

from albert_jax.tasks.examples import TaskData, TextExample
from albert_jax.tasks.readers.files import finite, read_lines
from albert_jax.tasks.readers.tables import read_table

NLI = ("entailment", "neutral", "contradiction")
TWO_WAY = ("entailment", "not_entailment")
PAIR = ("sentence1", "sentence2")
MRPC_TRAIN = "msr_paraphrase_train.txt"
MRPC_DEV_IDS = ("mrpc_dev_ids.tsv", "dev_ids.tsv")

FILES = {
    "train": ("train.tsv",),
    "validation": ("dev.tsv",),
    "test": ("test.tsv",),
}
MNLI_FILES = {
    "train": ("train.tsv",),
    "validation_matched": ("dev_matched.tsv",),
    "validation_mismatched": ("dev_mismatched.tsv",),
    "test_matched": ("test_matched.tsv",),
    "test_mismatched": ("test_mismatched.tsv",),
}
MRPC_FILES = {
    "train": ("train.tsv", MRPC_TRAIN),
    "validation": ("dev.tsv",),
    "test": ("test.tsv", "msr_paraphrase_test.txt"),
}


class GlueTask(NamedTuple):
    """The layout of one task's files.

    Attributes:
      folders: the names its folder may have, in lower case without hyphens.
      columns: the column of the text, or those of the two texts.
      label: the column of the label.
      labels: the classes in order; () for scores.
      numeric: whether the file has a class's number instead of its name.
      files: the possible names of each split's file; the first one that exists is read.
      index: the column of a test file that numbers the rows for a submission.
    """

    folders: tuple[str, ...]
    columns: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    numeric: bool = False
    files: dict[str, tuple[str, ...]] = FILES
    index: str = "index"


GLUE_TASKS = {
    "cola": GlueTask(("cola",), ("sentence",), "label", ("unacceptable", "acceptable"), True),
    "sst2": GlueTask(("sst2",), ("sentence",), "label", ("negative", "positive"), True),
    "mrpc": GlueTask(
        ("mrpc",),
        ("#1 String", "#2 String"),
        "Quality",
        ("not_equivalent", "equivalent"),
        True,
        MRPC_FILES,
    ),
    "stsb": GlueTask(("stsb",), PAIR, "score", ()),
    "qqp": GlueTask(
        ("qqp",),
        ("question1", "question2"),
        "is_duplicate",
        ("not_duplicate", "duplicate"),
        True,
        index="id",
    ),
    "mnli": GlueTask(("mnli",), PAIR, "gold_label", NLI, files=MNLI_FILES),
    "qnli": GlueTask(("qnli",), ("question", "sentence"), "label", TWO_WAY),
    "rte": GlueTask(("rte",), PAIR, "label", TWO_WAY),
    "wnli": GlueTask(("wnli",), PAIR, "label", ("not_entailment", "entailment"), True),
    "ax": GlueTask(
        ("ax", "diagnostic", "mnli"), PAIR, "label", NLI, files={"test": ("diagnostic.tsv",)}
    ),
}
# CoLA's columns in files without a header: source, label, the linguist's mark, sentence.
COLA_HEADER = ["source", "label", "mark", "sentence"]


def read_glue(name: str, source: str, to_predict: bool = False) -> TaskData:
    """Reads a GLUE task.

    A test row's id is the index in its file; any other row's id is its number in the file from 0,
    as in TFDS. MRPC's original files are accepted as well; if GLUE's list of dev pairs is next to
    them (mrpc_dev_ids.tsv), the train file is split as in GLUE. QQP's train and dev files are
    known to contain rows with missing columns and two empty questions. The former are left out
    (as in TFDS), the latter kept, and `notes` counts both.

    Source: https://github.com/nyu-mll/GLUE-baselines/issues/5,
    https://github.com/huggingface/datasets/issues/277.

    Args:
      name: "glue/" and one of `GLUE_TASKS`.
      source: the folder with all tasks' folders (CoLA, SST-2, …), the task's own, or one file of
        it.
      to_predict: whether the rows are to be predicted: a file of any other name is then read as
        a table (see `tables`).

    Returns:
      The splits whose files exist.

    Raises:
      FileNotFoundError: if the source or all of the task's files are missing.
      ValueError: if a file is malformed.
    """
    task_name = name.removeprefix("glue/")
    task = GLUE_TASKS[task_name]
    official = {file for names in task.files.values() for file in names}
    if to_predict and os.path.isfile(source) and os.path.basename(source) not in official:
        return read_table("classification" if task.labels else "regression", source, to_predict)
    files = _find_files(task, name, source)
    notes: list[str] = []
    splits = {split: _read_file(task_name, path, split, notes) for split, path in files.items()}
    if files.get("train", "").endswith(MRPC_TRAIN) and "validation" not in files:
        splits = _with_mrpc_validation(splits, files["train"], notes)
    return TaskData(splits, task.labels, tuple(notes))


def _find_files(task: GlueTask, name: str, source: str) -> dict[str, str]:
    """Returns the path of each split that is there."""
    wanted = ", ".join(file for names in task.files.values() for file in names)
    if os.path.isfile(source):
        for split, names in task.files.items():
            if os.path.basename(source) in names:
                return {split: source}
        raise ValueError(f"{source}: the name does not show a split of {name}; use {wanted}")
    if not os.path.isdir(source):
        raise FileNotFoundError(f"{source}: no such file or folder; looked for {wanted} in it")
    plain = {f: f.lower().replace("-", "") for f in sorted(os.listdir(source))}
    below = [f for folder in task.folders for f in plain if plain[f] == folder]
    for folder in (*(os.path.join(source, f) for f in below), source):
        found = {}
        for split, names in task.files.items():
            paths = [os.path.join(folder, n) for n in names]
            if there := [path for path in paths if os.path.isfile(path)]:
                found[split] = there[0]
        if found:
            return found
    raise FileNotFoundError(
        f"{source}: holds none of {wanted}, nor does a folder {task.folders[0]} in it"
    )


def _read_file(task_name: str, path: str, split: str, notes: list[str]) -> list[TextExample]:
    """Reads one split; test files need no label and number their rows."""
    task = GLUE_TASKS[task_name]
    is_test = split.startswith("test")
    rows = [line.split("\t") for line in read_lines(path)]
    first_line, header = 1, COLA_HEADER
    if task_name != "cola" or is_test:
        first_line, header = 2, rows.pop(0)
    if not rows:
        raise ValueError(f"{path}: no row below the header; fetch the file again")
    has_label = not is_test or task.label in header
    texts = _columns(path, header, task.columns)
    label = _columns(path, header, (task.label,))[0] if has_label else None
    index = header.index(task.index) if is_test and task.index in header else None
    examples: list[TextExample] = []
    lines: dict[str, int] = {}
    broken, empty = [], 0
    for line, row in enumerate(rows, first_line):
        where = f"{path}:{line}"
        if len(row) != len(header):
            if task_name == "qqp" and not is_test:
                broken.append(line)
                continue
            raise ValueError(
                f"{where}: {len(row)} columns where {len(header)} are expected; "
                "restore the tabs or fetch the file again"
            )
        if not all(row[c].strip() for c in texts):
            if task_name != "qqp":
                raise ValueError(f"{where}: empty text; fill it in or drop the row")
            empty += 1
        row_id = str(line - first_line) if index is None else _index(row[index], where)
        if lines.setdefault(row_id, line) != line:
            raise ValueError(
                f"{where}: index {row_id} is repeated from line {lines[row_id]}; drop one"
            )
        pair = row[texts[1]] if len(texts) == 2 else None
        value = None if label is None else _label(task, row[label], where)
        examples.append(TextExample(row_id, row[texts[0]], pair, value))
    notes += _complaints(path, broken, empty)
    return examples


def _complaints(path: str, broken: list[int], empty: int) -> list[str]:
    notes = []
    if broken:
        lines = ", ".join(map(str, broken[:5])) + (", …" if len(broken) > 5 else "")
        notes.append(f"{path}: left out {len(broken)} rows with missing columns (lines {lines})")
    if empty:
        notes.append(f"{path}: kept {empty} rows with an empty question")
    return notes


def _columns(path: str, header: list[str], names: tuple[str, ...]) -> list[int]:
    for name in names:
        if header.count(name) != 1:
            raise ValueError(
                f"{path}:1: no column {name!r}, or several (has: {', '.join(header)[:200]}); "
                "is this the task's official file?"
            )
    return [header.index(name) for name in names]


def _label(task: GlueTask, text: str, where: str) -> int | float:
    if not task.labels:
        score = finite(text, where)
        if not 0 <= score <= 5:
            raise ValueError(f"{where}: score {text} is not between 0 and 5; correct it")
        return score
    known = [str(i) for i in range(len(task.labels))] if task.numeric else list(task.labels)
    if text not in known:
        raise ValueError(f"{where}: label {text!r} must be one of {', '.join(known)}; correct it")
    return known.index(text)


def _index(text: str, where: str) -> str:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"{where}: index {text!r} is not a number; restore the first column")
    return str(int(text))


def _with_mrpc_validation(
    splits: dict[str, list[TextExample]], train_path: str, notes: list[str]
) -> dict[str, list[TextExample]]:
    """Moves GLUE's dev pairs out of the original train file, if their list exists."""
    folder = os.path.dirname(train_path)
    lists = [os.path.join(folder, n) for n in MRPC_DEV_IDS]
    there = [path for path in lists if os.path.isfile(path)]
    if not there:
        notes.append(
            f"{train_path}: no {MRPC_DEV_IDS[0]} next to it, so all pairs are used to train; GLUE "
            "holds some of them out for validation"
        )
        return splits
    pairs = {tuple(line.split("\t")) for line in read_lines(there[0])}
    header, *rows = (line.split("\t") for line in read_lines(train_path))
    first, second = _columns(train_path, header, ("#1 ID", "#2 ID"))
    held_out = [(row[first], row[second]) in pairs for row in rows]
    if not any(held_out) or all(held_out):
        raise ValueError(f"{there[0]}:1: does not split {train_path} in two; fetch the list again")
    parts = {
        name: [e for e, out in zip(splits["train"], held_out, strict=True) if out is want]
        for name, want in (("train", False), ("validation", True))
    }
    return parts | {name: rest for name, rest in splits.items() if name not in parts}
