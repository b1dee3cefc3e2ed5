"""The run directory: its settings, its tokenizer, and what may change when a run resumes."""

import errno
import fcntl
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from albert_jax.checkpoints.weights import HAVE_MOMENTS
from albert_jax.config import Config, config_from_dict
from albert_jax.config.load import with_paths
from albert_jax.data.files import read_object, replace_json
from albert_jax.data.tokenizers import Tokenizer, Vocabulary, load_tokenizer, tokenizer_of
from albert_jax.model.heads import KINDS

# The names of model kinds in runs from before November 2026.
_EARLIER_KINDS = {
    "span": "question_answering",
    "choice": "multiple_choice",
    "tagging": "token_classification",
}
# Settings that may change when a run resumes, because they do not affect its results.
_FREE = (
    "mesh.",
    "data.path",
    "data.num_workers",
    "task.data",
    "task.tokenizer",
    "task.translation.beam",
    "task.translation.validation_beam",
    "task.translation.length_penalty",
    "task.translation.penalty",
    "train.remat",
    "train.attention",
    "train.unroll",
    "train.log_every",
    "train.eval_every",
    "train.eval_batches",
    "train.checkpoint_every",
    "train.checkpoint_minutes",
    "train.loggers",
    "train.keep_checkpoints",
    "train.max_bad_steps",
    "train.max_loss_rise",
    "train.debug_nans",
)
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy",
             "sentencepiece", "tensorflow-datasets")  # fmt: skip


def open_run(
    workdir: Path,
    config: Config,
    data_fingerprint: str | None,
    vocabulary: Vocabulary | None,
    kind: str = "pretraining",
    labels: Sequence[str] = (),
    start: dict[str, Any] | None = None,
    *,
    earlier_fingerprint: str | None = None,
) -> None:
    """Creates a run directory, or checks that an existing one may resume with `config`.

    Writes `config.json` (settings, data fingerprint, checksums of the initial weights, versions,
    git commit), the vocabulary and its rules.

    Args:
      workdir: the directory.
      config: all settings.
      data_fingerprint: the fingerprint of the rows; None for a run that has not seen its data
        yet. Such a run takes the fingerprint that it is first opened with.
      earlier_fingerprint: the fingerprint that an earlier version of this package gave the same
        data, if different; a run that has it keeps it.
      vocabulary: the tokenizer's, if there is one.
      kind: the model's purpose, a key of `model.heads.KINDS`.
      labels: names of its classes.
      start: the provenance of the initial weights, from `checkpoints.weights.provenance`; None if
        the run has already started, or starts from random weights.

    Raises:
      ValueError: if the directory belongs to a run with other settings or data; the message
        names every key that differs.
    """
    record = {
        # Absolute, so that evaluate and inspect find the data from any directory.
        "config": with_paths(config, os.path.abspath).to_dict(),
        "kind": kind,
        "labels": list(labels),
        "data_fingerprint": data_fingerprint,
        "tokenizer_sha256": vocabulary.sha256 if vocabulary else None,
        "start": start,
    }
    record = json.loads(json.dumps(record | _circumstances()))  # as it will be read back
    path = workdir / "config.json"
    if path.exists():
        _go_on(workdir, record, vocabulary, earlier_fingerprint)
        return
    if workdir.exists() and any(file.name != LOCK_FILE for file in workdir.iterdir()):
        raise ValueError(
            f"--workdir {str(workdir)!r} is not empty but has no config.json; "
            "choose a new directory"
        )
    workdir.mkdir(parents=True, exist_ok=True)
    with locked(workdir):  # of two that begin at once, only one writes
        if path.exists():
            _go_on(workdir, record, vocabulary, earlier_fingerprint)
            return
        if vocabulary is not None:
            vocabulary.write(workdir)
        replace_json(path, record)  # written last, so a directory with config.json is complete


def _go_on(
    workdir: Path,
    record: dict[str, Any],
    vocabulary: Vocabulary | None,
    earlier_fingerprint: str | None,
) -> None:
    """Checks that a run may resume with `record`; a run without data takes the record's data."""
    path = workdir / "config.json"
    old = _read_record(path)
    if earlier_fingerprint is not None and old["data_fingerprint"] == earlier_fingerprint:
        record = record | {"data_fingerprint": earlier_fingerprint}
    _check_resumable(workdir, old, record)
    if old["data_fingerprint"] is None:
        if vocabulary is not None:
            check_vocabulary(
                tokenizer_of(vocabulary, "data.path"),
                load_tokenizer(workdir),
                f"prepare the data with --tokenizer WORKDIR/{vocabulary.file}",
            )
        replace_json(path, old | {"data_fingerprint": record["data_fingerprint"]})


class Run(NamedTuple):
    """The contents of `config.json`: settings, the model's purpose, names of its classes."""

    config: Config
    kind: str
    labels: tuple[str, ...]


def read_run(workdir: Path) -> Run:
    """Reads the settings of a run.

    Raises:
      FileNotFoundError: if `workdir` is not a run directory.
      ValueError: if its settings cannot be used.
    """
    path = workdir / "config.json"
    if not path.is_file():
        reason = "it has no config.json" if workdir.exists() else "it does not exist"
        raise FileNotFoundError(f"{str(workdir)!r} is not a run directory: {reason}")
    record = _read_record(path)
    try:
        config = config_from_dict(record["config"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Run(config, record["kind"], tuple(record["labels"]))


def _read_record(path: Path) -> dict[str, Any]:
    record = read_object(path)
    missing = [
        name for name in ("config", "kind", "labels", "data_fingerprint") if name not in record
    ]
    if missing:
        raise ValueError(
            f"{path}: missing {', '.join(missing)}; is this a run directory of albert_jax?"
        )
    record["kind"] = _EARLIER_KINDS.get(record["kind"], record["kind"])
    if record["kind"] not in KINDS:
        raise ValueError(f"{path}: kind {record['kind']!r} must be one of {', '.join(KINDS)}")
    labels = record["labels"]
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"{path}: labels must be a list of names, not {labels!r}")
    return record


def check_vocabulary(ours: Tokenizer, theirs: Tokenizer, remedy: str) -> None:
    """Checks that two tokenizers have the same pieces and rules.

    Raises:
      ValueError: if they differ; the message names the first difference and `remedy`.
    """
    for i in range(max(ours.vocab_size, theirs.vocab_size)):
        a, b = (t.pieces([i])[0] if i < t.vocab_size else None for t in (ours, theirs))
        if a != b:
            raise ValueError(
                f"the vocabulary of {ours.path} is not that of {theirs.path}: "
                f"token {i} is {a!r} in the former and {b!r} in the latter; {remedy}"
            )
    rules, other = ours.vocabulary.rules, theirs.vocabulary.rules
    if rules != other:
        raise ValueError(
            f"the text rules of {ours.path} are not those of {theirs.path}: {rules} in the former "
            f"and {other} in the latter; {remedy}"
        )


def _check_resumable(workdir: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    # A setting that did not exist when the run started has its default.
    before, after = (_flatten(config_from_dict(r["config"]).to_dict()) for r in (old, new))
    differing = [
        f"{key}: was {before.get(key)!r}, now {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not key.startswith(_FREE)
    ]
    steps = "train.num_steps"
    remedy = "Restore the settings, or choose another --workdir"
    if [line.partition(":")[0] for line in differing] == [steps] and before[steps] < after[steps]:
        remedy = (
            "The learning rate of the steps done depended on it. To train longer, begin another "
            f"run with this one's weights: --workdir NEW --config.init_from={workdir}"
        )
        if before["optimizer.name"] in HAVE_MOMENTS:
            remedy += (
                f"; or go on from its last step: convert --input {workdir} --output NEW --to "
                f"orbax --config CONFIG --config.{steps}={after[steps]}, then train in NEW"
            )
    if old["kind"] != new["kind"]:
        differing.append(
            f"the model: was {old['kind']!r}, now {new['kind']!r}, which needs a new run with "
            "config.init_from"
        )
    if old["data_fingerprint"] not in (None, new["data_fingerprint"]):
        source = "data.path" if new["kind"] == "pretraining" else "task.data"
        differing.append(
            f"{source}: the data changed (fingerprint was {old['data_fingerprint'][:12]}, "
            f"now {new['data_fingerprint'][:12]})"
        )
    if new["start"] is not None and old.get("start") not in (None, new["start"]):
        differing.append("config.init_from: its files have changed since the run started")
    if differing:
        raise ValueError(
            f"{str(workdir)!r} holds a run with other settings, which cannot resume with these: "
            f"{'; '.join(differing)}. {remedy}"
        )


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _circumstances() -> dict[str, Any]:
    return {"versions": _versions(), "git_commit": _git_commit()}


def _versions() -> dict[str, str]:
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version()} | packages


def _git_commit() -> str | None:
    """Returns this source tree's commit, with + if files differ from it; None outside git."""
    root = Path(__file__).parent
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


LOCK_FILE = ".lock"
# Errors of file systems that cannot lock files. On those, nothing prevents a second run.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def locked(directory: Path) -> Generator[None]:
    """Locks an existing `directory` for this process, for the context's duration.

    The lock file is never removed: otherwise a second process could still wait for the removed
    file's lock while a third locks a new file.

    Raises:
      ValueError: if another process holds the lock; the message names that process.
    """
    with (directory / LOCK_FILE).open("a+") as file:
        if not lock(file):
            file.seek(0)
            raise ValueError(
                f"{str(directory)!r} is in use by {file.read().strip() or 'another process'}; "
                "wait for it, stop it, or choose another directory"
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def lock(file: IO) -> bool:
    """Locks an open file until all processes that inherit it have closed it.

    Returns:
      Whether no other process holds the lock; also true where files cannot be locked.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True
