"""What a run remembers of its examples."""

import hashlib

from albert_jax.tasks.examples import (
    Answer,
    ChoiceExample,
    QuestionExample,
    TaggedExample,
    TaskData,
    TextExample,
    earlier_repr,
)
from albert_jax.train.finetuning import earlier_fingerprint, fingerprint

EXAMPLES = (
    TextExample("0", 'it\'s "here"', None, 1),
    TextExample("1", "a\n", "ü", 0.5),
    ChoiceExample("c-0", "text", "which _?", ("one",), None),
    ChoiceExample("c-1", "text", "which _?", ("one", "two"), 1),
    QuestionExample("q", "title", "context", "why?", (Answer("c", 0), Answer("x", -1))),
    QuestionExample("r", "title", "context", "why?", ()),
    TaggedExample("t", ("Ann", "ran"), (1, 0)),
    TaggedExample("u", ("Ann",), None),
)
DATA = TaskData({"train": list(EXAMPLES), "validation": [EXAMPLES[0]]}, ("no", "yes"), ("note",))


def test_the_earlier_digest_is_that_of_python_s_own_repr():
    later = ", columns={}"  # a field that there was not yet
    for example in EXAMPLES:
        assert earlier_repr(example) == repr(example).replace(later, "")
    shown = repr((DATA.splits, DATA.labels)).replace(later, "")
    assert earlier_fingerprint(DATA) == hashlib.sha256(shown.encode()).hexdigest()


def test_the_digest_is_of_values():
    # What a run of today has written: it must not change.
    known = "964c7d1d003ff7ab034bc1e8677ecc809057dfd91602a9a30058c11b51ee949b"
    assert fingerprint(DATA) == known
    other = TaskData(DATA.splits | {"validation": [EXAMPLES[1]]}, DATA.labels)
    assert fingerprint(other) != known
    assert fingerprint(TaskData(DATA.splits, ("yes", "no"))) != known
