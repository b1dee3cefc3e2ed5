"""Sentences, words and vocabularies of other languages, from text to masks."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albert_jax.config import DataConfig
from albert_jax.data.loader import Rows
from albert_jax.data.row_reader import open_rows
from albert_jax.data.tokenizers import TextRules, load_tokenizer, tokenizer_of
from albert_jax.prepare.__main__ import main, summary
from albert_jax.prepare.pipeline import given_tokenizer, prepare
from albert_jax.prepare.segmenters import encode_with_words, make_segmenter
from albert_jax.prepare.sentences import language_of, split_sentences
from albert_jax.prepare.settings import RowSettings, Settings
from albert_jax.prepare.vocabulary import TYPES, train_vocabulary, train_wordpiece

CASED = TextRules(do_lower_case=False, keep_accents=True)


def sentences(letters: str, count: int, seed: int = 0, space: str = " ") -> list[str]:
    draw = np.random.default_rng(seed)
    words = ["".join(draw.choice(list(letters), size=n)) for n in (2, 3, 2, 4, 3) * 8]
    return [space.join(draw.choice(words, size=7)) for _ in range(count)]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Plain English.", "en"),
        ("Straße und Übung", "en"),  # Latin script: only people can tell
        ("今天天气很好。", "zh"),
        ("今日は天気がいい。", "ja"),
        ("Это предложение.", "ru"),
        ("मैं घर जाता हूँ।", "hi"),
        ("오늘 날씨가 좋다.", "ko"),
        ("ภาษาไทย", "th"),
        ("a long English text with one 天 in it", "en"),
        ("", "en"),
    ],
)
def test_a_script_tells_the_language(text, language):
    assert language_of([text]) == language


def test_sentences_are_split_by_the_language():
    assert split_sentences(["Das ist z.B. so. Und so."], "de") == ["Das ist z.B. so.", "Und so."]
    assert split_sentences(["今天很好。我们走吧！"], "zh") == ["今天很好。", "我们走吧！"]
    with pytest.raises(ValueError, match="language 'German': must be auto or a code"):
        RowSettings(language="German")


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("rules", [TextRules(), CASED], ids=str)
def test_every_kind_of_vocabulary_is_trained_by_the_rules(kind, rules):
    texts = sentences("abcdÄÖéf", 400)
    settings = Settings(
        RowSettings(), tokenizer_type=kind, vocab_size=44,
        lower_case=rules.do_lower_case, keep_accents=rules.keep_accents,
    )  # fmt: skip
    vocabulary = train_vocabulary(texts, settings)
    assert vocabulary.rules == rules
    assert train_vocabulary(texts, settings) == vocabulary
    letters = set("".join(tokenizer_of(vocabulary, "v").spellings))
    assert ("Ä" in letters) is (rules == CASED)


def test_a_wordpiece_vocabulary_does_not_depend_on_the_process(tmp_path):
    (tmp_path / "text").write_text("\n".join(sentences("abcdefgh", 500)), "utf-8")
    script = (
        "import sys, hashlib; from albert_jax.prepare.vocabulary import train_wordpiece;"
        "texts = open(sys.argv[1], encoding='utf-8').read().split('\\n');"
        "print(hashlib.sha256(train_wordpiece(texts, 50)).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "text")],
            env=os.environ | {"RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true"},
            check=True, capture_output=True, text=True,
        ).stdout
        for threads in ("1", "2", "2")
    }  # fmt: skip
    assert len(found) == 1


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (5, "vocab_size 5: must be from 6"),
        (15, "too many different characters .* pass --vocab_size"),
        (9000, r"too few different words .* pass --vocab_size \d+ or smaller"),
    ],
)
def test_a_size_that_does_not_suit_the_text_names_one_that_does(size, message):
    texts = sentences("abcdefgh", 200)
    with pytest.raises(ValueError, match=message) as raised:
        train_wordpiece(texts, size)
    if size > 5:
        right = int(str(raised.value).split("--vocab_size ")[1].split()[0])
        assert train_wordpiece(texts, right).count(b"\n") == right


def test_a_segmenter_joins_pieces_of_scripts_without_spaces(shared_data):
    tokenizer = load_tokenizer(shared_data / "wordpiece" / "chinese_21128_vocab.txt")
    cut = make_segmenter("jieba")
    text = "我们去公园玩, playing football"
    ids, lengths, starts = encode_with_words(tokenizer, cut, [text, "", "hello"])
    assert lengths.tolist() == [len(tokenizer.encode(t)) for t in (text, "", "hello")]
    words = []
    for piece, start in zip(tokenizer.pieces(ids[: lengths[0]]), starts, strict=False):
        words.append(piece) if start else words.append(words.pop() + piece.removeprefix("##"))
    assert words == ["我们", "去", "公园", "玩", ",", "playing", "football"]


def test_a_segmenter_that_is_not_there_is_an_error(monkeypatch):
    with pytest.raises(ValueError, match="segmenter 'mecab': must be one of jieba"):
        RowSettings(segmenter="mecab")
    monkeypatch.setitem(sys.modules, "rjieba", None)
    with pytest.raises(ValueError, match=r"needs rjieba .pip install rjieba"):
        RowSettings(segmenter="jieba")


def words_of(rows: Rows, source: Any, number: int) -> np.ndarray:
    """The number of the word that each piece of a stored row belongs to."""
    row = source[number]
    starts = row.get("word_starts")
    starts = rows.table.word_starts[row["pieces"]] if starts is None else starts.copy()
    starts[np.cumsum(row["sentence_lengths"])[:-1]] = True
    starts[0] = True
    return np.cumsum(starts)


def assert_whole_words_at_the_rate(path: Path, seq_len: int, draws: int, max_ngram: int) -> None:
    """No word is masked in part, and masks have the rate that was asked for."""
    data = DataConfig(
        path=str(path), seq_len=seq_len, sentence_objective="none", max_ngram=max_ngram
    )
    rows, source = Rows(data, "train"), open_rows(path, "train")
    is_text, shares = rows.table.is_text, []
    for draw in range(draws):
        number, epoch = draw % rows.num_rows, draw // rows.num_rows
        example = rows.make_example(0, epoch, number)
        predicted = np.zeros(seq_len, bool)
        predicted[example["mlm_positions"][example["mlm_weights"] > 0]] = True
        real = example["segment_ids"] > 0
        special = np.zeros(seq_len, bool)
        ends = np.flatnonzero(np.diff(example["segment_ids"], append=0))
        special[example["cls_positions"][: example["segment_ids"].max()]] = True
        special[ends[example["segment_ids"][ends] > 0]] = True
        slots = np.flatnonzero(real & ~special)
        pieces = source[number]["pieces"]
        assert len(slots) == len(pieces)
        maskable, hit = is_text[pieces], predicted[slots]
        word = words_of(rows, source, number)
        for own in np.split(np.arange(len(word)), np.flatnonzero(np.diff(word)) + 1):
            chosen = hit[own][maskable[own]]
            assert chosen.all() or not chosen.any()
        shares.append(hit.sum() / max(1, maskable.sum()))
    error = 4 * np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) == pytest.approx(data.mask_rate, abs=error + 0.002)


# Long enough that the budget of a row is wider than three words of single letters: a row for which
# it is not is masked above the rate, since at least one n-gram is masked.
LENGTH = 256
CASES = {
    "hindi": {"vocab_size": 56, "keep_accents": True},
    "german": {"vocab_size": 800, "lower_case": False, "keep_accents": True, "language": "de"},
    "chinese": {"segmenter": "jieba"},
    "thai": {"vocab_size": 60, "keep_accents": True},
}


def corpus_of(language: str, shared: Path, folder: Path) -> Path:
    if language == "hindi":
        return shared.parent / "cases" / "hindi.jsonl"
    file = folder / f"{language}.txt"
    if language == "thai":
        draw = np.random.default_rng(0)
        syllables = ["ภา", "ษา", "ไท", "ย์", "เป็น", "น้ำ", "กี่", "ที่", "สู้", "แม่", "นี้", "ปู่"]
        lines = ["".join(draw.choice(syllables, size=12)) for _ in range(600)]
        file.write_text("\n\n".join(lines), "utf-8")
    else:
        name = {"german": "de.txt", "chinese": "zh.txt"}[language]
        text = (shared / "multilingual" / name).read_text("utf-8")
        file.write_text(text[: text.index("</doc>", 200_000) + 7], "utf-8")
    return file


@pytest.mark.parametrize("language", CASES)
@pytest.mark.parametrize("draws", [300, pytest.param(10_000, marks=pytest.mark.nightly)])
def test_words_are_masked_whole_at_the_rate(language, draws, shared_data, tmp_path):
    options: dict[str, Any] = dict(CASES[language])
    if language == "chinese":
        options["tokenizer"] = shared_data / "wordpiece" / "chinese_21128_vocab.txt"
    corpus = corpus_of(language, shared_data, tmp_path)
    manifest = prepare(
        [corpus], tmp_path / "rows", seq_len=LENGTH, validation_fraction=0.1, num_workers=1,
        keep_duplicates=True, **options,
    )  # fmt: skip
    assert manifest["removed_marks"] == 0 or language == "chinese"
    if language == "thai":  # no piece begins with a mark of the letter before it
        tokenizer = load_tokenizer(tmp_path / "rows")
        marked = [p.startswith(("\u0e48", "\u0e49", "\u0e35")) for p in tokenizer.spellings]
        assert not tokenizer.word_starts[marked].any()
    # Hindi's text is so small that its pieces are letters. Three words would at times be more
    # than there is room for in a row, and be dropped: the rate would be lower.
    max_ngram = 1 if language == "hindi" else 3
    assert_whole_words_at_the_rate(tmp_path / "rows", LENGTH, draws, max_ngram)


def test_words_of_rows_survive_being_split_into_pairs(shared_data, tmp_path):
    """The stored words reach the masks whatever the sentence objective swaps or borrows."""
    corpus = corpus_of("chinese", shared_data, tmp_path)
    prepare(
        [corpus], tmp_path / "rows", seq_len=64, segmenter="jieba", num_workers=1,
        tokenizer=shared_data / "wordpiece" / "chinese_21128_vocab.txt", validation_fraction=0.1,
    )  # fmt: skip
    for objective in ("sop", "nsp"):
        data = DataConfig(path=str(tmp_path / "rows"), seq_len=64, sentence_objective=objective)
        rows, seen = Rows(data, "train"), 0
        known = stored_words(rows, open_rows(data.path, "train"))
        for number in range(40):
            example = rows.make_example(1, 0, number)
            original = example["input_ids"].copy()
            hidden = example["mlm_positions"][example["mlm_weights"] > 0]
            original[hidden] = example["mlm_labels"][example["mlm_weights"] > 0]
            for a, b in itertools.pairwise(hidden.tolist()):
                if b == a + 1:
                    seen += (int(original[a]), int(original[b])) in known
        assert seen > 20


def stored_words(rows: Rows, source: Any) -> set[tuple[int, int]]:
    """Pairs of pieces that make up a word of two somewhere."""
    found = set()
    for number in range(rows.num_rows):
        row, word = source[number], words_of(rows, source, number)
        for own in np.split(np.arange(len(word)), np.flatnonzero(np.diff(word)) + 1):
            if len(own) == 2:
                found.add(tuple(row["pieces"][own].tolist()))
    return found


def test_rows_say_what_was_done_to_the_text(tmp_path, capsys):
    texts = sentences("कखगघङचछ", 300)
    marked = [text.replace("ग", "गि").replace("च", "चे\u094d") for text in texts]
    lines = [json.dumps({"text": f"{text}। {text[3:]}।"}) for text in marked]
    (tmp_path / "text.jsonl").write_text("\n".join(lines))
    arguments = ["--input", str(tmp_path / "text.jsonl"), "--vocab_size", "60", "--seq_len", "64"]
    arguments += ["--num_workers", "1", "--validation_fraction", "0.2"]
    assert main([*arguments, "--output", str(tmp_path / "a")]) == 0
    out = capsys.readouterr().out
    assert "combining marks were removed" in out
    assert "sentences were split by script: 300 documents as hi" in out
    assert main([*arguments, "--keep_accents", "--output", str(tmp_path / "b")]) == 0
    assert "combining marks" not in capsys.readouterr().out
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert manifest["removed_marks"] == 0
    assert manifest["tokenizer"]["keep_accents"] is True
    assert "--language" in summary(manifest)


def test_rules_asked_for_must_not_contradict_those_beside_a_vocabulary(tmp_path):
    texts = sentences("abcdef", 300)
    settings = Settings(RowSettings(), vocab_size=40, lower_case=False)
    train_vocabulary(texts, settings).write(tmp_path)
    file = tmp_path / "tokenizer.model"
    assert given_tokenizer(file).vocabulary.rules.do_lower_case is False
    with pytest.raises(ValueError, match=r"lower_case True: the rules beside .* say False"):
        given_tokenizer(file, lower_case=True)
    (tmp_path / "tokenizer_config.json").unlink()
    assert given_tokenizer(file, lower_case=False).vocabulary.rules.do_lower_case is False


def test_a_lone_vocabulary_is_said_to_have_english_rules(tmp_path, capsys):
    train_vocabulary(sentences("abcdef", 300), Settings(RowSettings(), vocab_size=40)).write(
        tmp_path
    )
    given_tokenizer(tmp_path / "tokenizer.model")
    assert capsys.readouterr().err == ""
    (tmp_path / "tokenizer_config.json").unlink()
    given_tokenizer(tmp_path / "tokenizer.model")
    assert "lower-cased, without accents, as for English ALBERT" in capsys.readouterr().err


def test_the_fingerprint_tells_how_sentences_were_split(tmp_path):
    """English rows keep that of the first version, which split all text as English."""
    texts = {"en": sentences("abcdef", 300), "hi": sentences("कखगघङच", 300)}
    found = {}
    for code, lines in texts.items():
        file = tmp_path / f"{code}.jsonl"
        file.write_text("\n".join(json.dumps({"text": f"{t}. {t[3:]}."}) for t in lines))
        for language in ("auto", "en"):
            options: dict[str, Any] = {"language": language, "vocab_size": 34, "num_workers": 1}
            options |= {"seq_len": 64, "validation_fraction": 0.2}
            output = tmp_path / f"{code}-{language}"
            found[code, language] = prepare([file], output, **options)
            assert prepare([file], output, **options) == found[code, language]  # already there
    assert found["en", "auto"]["languages"] == {"en": 300}
    assert found["hi", "auto"]["languages"] == {"hi": 300}
    manifest = found["hi", "auto"]
    assert "language" not in manifest["settings"]
    assert len({m["fingerprint"] for m in found.values()}) == 4
    one = tmp_path / "one.txt"
    one.write_text("। ".join(texts["hi"]) + "।", "utf-8")
    divided = prepare([one], tmp_path / "one", vocab_size=34, seq_len=64, num_workers=1)
    assert divided["is_divided"]
    assert divided["languages"] == {"hi": 1}
