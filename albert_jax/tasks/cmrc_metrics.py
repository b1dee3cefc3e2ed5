"""Exact match and F1 of answers by characters, as CMRC 2018 counts them for Chinese.

Source: https://github.com/ymcui/cmrc2018, eval/cmrc2018_evaluate.py. There, words of other
scripts are parted by NLTK's tokenizer; here, at spaces and punctuation, which differs for English
contractions alone.
"""

import re
from collections.abc import Mapping, Sequence

from albert_jax.tasks.examples import QuestionExample

_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』…")
_UNITS = re.compile("[\u4e00-\u9fa5]|[^\\W\u4e00-\u9fa5]+|[^\\w\\s]")


def cmrc_metrics(
    predictions: Mapping[str, str], examples: Sequence[QuestionExample]
) -> dict[str, float]:
    """Returns exact match and F1, as fractions; each question counts by its best answer.

    Args:
      predictions: id -> the answer's text.
      examples: the questions, each with an answer.

    Raises:
      ValueError: if there are no examples, or an id has no prediction.
    """
    missing = [example.id for example in examples if example.id not in predictions]
    if missing or not examples:
        raise ValueError(f"no prediction for {missing[0]!r}" if missing else "no examples")
    exact = f1 = 0.0
    for example in examples:
        ours = predictions[example.id]
        golds = [answer.text for answer in example.answers] or [""]
        exact += max(float(_plain(ours) == _plain(gold)) for gold in golds)
        f1 += max(_overlap(_units(ours), _units(gold)) for gold in golds)
    return {"exact": exact / len(examples), "f1": f1 / len(examples)}


def _plain(text: str) -> str:
    return "".join(c for c in text.lower().strip() if c not in _PUNCTUATION)


def _units(text: str) -> list[str]:
    """Returns Chinese characters, and the words of other scripts."""
    return _UNITS.findall(_plain(text))


def _overlap(ours: list[str], gold: list[str]) -> float:
    """Returns F1 by the longest run of units that both have."""
    longest = _longest_common_run(ours, gold)
    if not longest:
        return 0.0
    precision, recall = longest / len(ours), longest / len(gold)
    return 2 * precision * recall / (precision + recall)


def _longest_common_run(first: list[str], second: list[str]) -> int:
    longest, before = 0, [0] * (len(second) + 1)
    for a in first:
        runs = [0]
        for i, b in enumerate(second):
            runs.append(before[i] + 1 if a == b else 0)
        longest, before = max(longest, *runs), runs
    return longest
