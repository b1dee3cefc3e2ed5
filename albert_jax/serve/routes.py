"""What can be asked of a model over HTTP: the fields of each request, and its result."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from albert_jax.config.choices import nearest
from albert_jax.predict.finetuned import FinetunedModel
from albert_jax.predict.program import fills_masks
from albert_jax.predict.texts import is_unicode

Request = dict[str, Any]


@dataclass(frozen=True)
class Field:
    """A field of a request.

    Attributes:
      check: whether a value is of the right kind.
      what: what it must be, for messages.
      default: its value where it is missing; ... if it must be there.
    """

    check: Callable[[Any], bool]
    what: str
    default: Any = ...

    def described(self) -> str:
        """Returns what it must be, and what it is by default."""
        if self.default is ...:
            return self.what
        return f"{self.what}; optional" + (f", {self.default}" if self.default else "")


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and is_unicode(value)


def _count(default: int | None, most: int) -> Field:
    return Field(
        lambda value: type(value) is int and 1 <= value <= most,
        f"an integer from 1 to {most}",
        default,
    )


_TEXT = Field(_is_text, "a string that is not blank")
_TEXTS = Field(_is_texts, "a list of strings that are not blank")
_PAIRS = Field(lambda value: value is None or _is_texts(value), _TEXTS.what, None)
_WORDS = Field(lambda value: _is_text(value) or _is_texts(value), "a string, or a list of words")
_OPTIONS = Field(
    lambda value: _is_texts(value) and len(value) > 1, "a list of two or more strings"
)


@dataclass(frozen=True)
class Route:
    """One thing that a model does.

    Attributes:
      fields: of a request, by name.
      run: from the model and requests to a result for each, computed together where it can be.
      size: the number of texts in a request, or of rows that its text may become.
    """

    fields: Mapping[str, Field]
    run: Callable[[FinetunedModel, Sequence[Request]], list[Any]]
    size: Callable[[Request], int] = lambda request: 1

    def parse(self, values: Any) -> Request:
        """Returns the checked fields of a request, with defaults.

        Raises:
          ValueError: if they are not as they must be.
        """
        if not isinstance(values, dict):
            raise ValueError("the request must be a JSON object")
        for name in values:
            if name not in self.fields:
                raise ValueError(f"unknown field {name!r}{nearest(name, self.fields)}")
        request = {}
        for name, field in self.fields.items():
            value = values.get(name, field.default)
            if value is ...:
                raise ValueError(f"the field {name!r} is missing: {field.what}")
            if name in values and not field.check(value):
                raise ValueError(f"{name} must be {field.what}")
            request[name] = value
        return request


def routes_of(model: FinetunedModel) -> dict[str, Route]:
    """Returns what a model can do, by the name of its path."""
    if model.kind in _BY_KIND and not (model.is_export and model.kind == "translation"):
        name = _BY_KIND[model.kind]
        return {name: _ROUTES[name]}
    names = ("fill_mask", "embed") if fills_masks(model.heads) else ("embed",)
    return {name: _ROUTES[name] for name in names}


def _grouped(
    run: Callable[[FinetunedModel, list[Request]], list[Any]], *options: str
) -> Callable[[FinetunedModel, Sequence[Request]], list[Any]]:
    """Returns `run` for requests whose options differ: each group of equal options by itself.

    If a group fails, its requests are run one by one, so that only the culprit fails.
    """

    def all_of(model: FinetunedModel, requests: Sequence[Request]) -> list[Any]:
        results: list[Any] = [None] * len(requests)
        groups: dict[tuple, list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault(tuple(request[name] for name in options), []).append(i)
        for members in groups.values():
            for i, result in zip(
                members, _one_by_one_if_needed(model, [requests[i] for i in members]), strict=True
            ):
                results[i] = result
        return results

    def _one_by_one_if_needed(model: FinetunedModel, requests: list[Request]) -> list[Any]:
        try:
            return run(model, requests)
        except Exception as error:
            if len(requests) == 1:
                return [error]
        return [result for one in requests for result in _one_by_one_if_needed(model, [one])]

    return all_of


def _classify(model: FinetunedModel, requests: list[Request]) -> list[Any]:
    # A text without a pair is a text with an empty one.
    texts = [text for one in requests for text in one["texts"]]
    pairs = [pair for one in requests for pair in one["pairs"] or [""] * len(one["texts"])]
    for one in requests:
        if one["pairs"] is not None and len(one["pairs"]) != len(one["texts"]):
            raise ValueError(f"{len(one['texts'])} texts but {len(one['pairs'])} pairs")
    found = iter(model.classify(texts, pairs))
    return [
        {
            "results": [next(found)._asdict() for _ in one["texts"]],
            "cut": _count_cut(model, one["texts"], one["pairs"] or []),
        }
        for one in requests
    ]


def _answer(model: FinetunedModel, requests: list[Request]) -> list[Any]:
    questions, contexts = ([one[name] for one in requests] for name in ("question", "context"))
    found = model.answer_batch(questions, contexts, requests[0]["top_k"])
    return [{"answers": [answer._asdict() for answer in answers]} for answers in found]


def _tag(model: FinetunedModel, requests: list[Request]) -> list[Any]:
    found = model.tag_batch([one["words"] for one in requests])
    return [{"words": [word._asdict() for word in words]} for words in found]


def _choose(model: FinetunedModel, requests: list[Request]) -> list[Any]:
    return [model.choose(**one)._asdict() for one in requests]


def _fill_mask(model: FinetunedModel, requests: list[Request]) -> list[Any]:
    return [
        {"masks": [[filled._asdict() for filled in mask] for mask in model.fill_mask(**one)]}
        for one in requests
    ]


def _translate(model: FinetunedModel, requests: list[Request]) -> list[Any]:
    texts = [text for one in requests for text in one["texts"]]
    found = iter(model.translate(texts, beam=requests[0]["beam"]))
    return [
        {
            "translations": [
                {"text": best.text, "score": best.score}
                for best in (next(found) for _ in one["texts"])
            ],
            "cut": _count_cut(model, one["texts"]),
        }
        for one in requests
    ]


def _embed(model: FinetunedModel, requests: list[Request]) -> list[Any]:
    found = iter(model.embed([text for one in requests for text in one["texts"]]))
    return [
        {
            "embeddings": [next(found).tolist() for _ in one["texts"]],
            "cut": _count_cut(model, one["texts"]),
        }
        for one in requests
    ]


def _count_cut(model: FinetunedModel, texts: Sequence[str], pairs: Sequence[str] = ()) -> int:
    """Returns how many texts were cut, because they are longer than the model takes."""
    counts = [len(ids) + 2 for ids in model.tokenizer.encode_batch(list(texts))]
    for i, ids in enumerate(model.tokenizer.encode_batch(list(pairs))):
        counts[i] += len(ids) + 1
    return sum(count > model.max_length for count in counts)


def _rows(text: str) -> int:
    """Returns about how many rows of a model a long text fills."""
    return 1 + len(text) // _ROW_LETTERS


_ROW_LETTERS = 1000
_ROUTES = {
    "classify": Route(
        {"texts": _TEXTS, "pairs": _PAIRS}, _grouped(_classify), lambda one: len(one["texts"])
    ),
    "answer": Route(
        {"question": _TEXT, "context": _TEXT, "top_k": _count(1, 20)},
        _grouped(_answer, "top_k"),
        lambda one: _rows(one["context"]),
    ),
    "tag": Route({"words": _WORDS}, _grouped(_tag), lambda one: _rows(" ".join(one["words"]))),
    "choose": Route(
        {"context": _TEXT, "question": _TEXT, "options": _OPTIONS},
        _grouped(_choose),
        lambda one: len(one["options"]),
    ),
    "fill_mask": Route({"text": _TEXT, "top_k": _count(5, 100)}, _grouped(_fill_mask)),
    "embed": Route({"texts": _TEXTS}, _grouped(_embed), lambda one: len(one["texts"])),
    "translate": Route(
        {"texts": _TEXTS, "beam": _count(None, 16)},
        _grouped(_translate, "beam"),
        lambda one: len(one["texts"]),
    ),
}
_BY_KIND = {
    "classification": "classify",
    "question_answering": "answer",
    "token_classification": "tag",
    "multiple_choice": "choose",
    "translation": "translate",
}
