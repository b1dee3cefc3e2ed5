"""BLEU and chrF of translations, by sacreBLEU."""

from collections.abc import Sequence

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

# Languages that sacreBLEU cuts into words in a way of their own; mteval's rules do for the rest.
_TOKENIZERS = {"zh": "zh", "ja": "char", "ko": "char", "th": "char"}


def _metrics(language: str) -> dict[str, BLEU | CHRF]:
    """Returns the metrics by name: cased, and the same in lower case."""
    tokenize = _TOKENIZERS.get(language.partition("_")[0], "13a")
    return {
        "bleu": BLEU(tokenize=tokenize),
        "bleu_lower_cased": BLEU(tokenize=tokenize, lowercase=True),
        "chrf": CHRF(),
        "chrf_lower_cased": CHRF(lowercase=True),
    }


def translation_metrics(
    translations: Sequence[str], references: Sequence[str], language: str
) -> dict[str, float]:
    """Returns corpus BLEU and chrF, 0 to 100, cased and lower-cased.

    Args:
      translations: [N].
      references: [N], one for each.
      language: the code of their language.
    """
    return {
        name: metric.corpus_score(list(translations), [list(references)]).score
        for name, metric in _metrics(language).items()
    }


def signatures(language: str, count: int) -> dict[str, str]:
    """Returns sacreBLEU's signature of each metric, on `count` sentences."""
    found = {}
    for name, metric in _metrics(language).items():
        metric.corpus_score(["a"] * count, [["a"] * count])  # a signature needs a score
        found[name] = str(metric.get_signature())
    return found
