"""Every input format as documents, and the ways in which it can be wrong.

What of them a command says is in faults/test_bad_input.py.
"""

import gzip
import json
import os

import numpy as np
import pytest
import zstandard

from albert_jax.data import text_files
from albert_jax.prepare import python_docs, sources
from albert_jax.prepare.corpus import Corpus
from albert_jax.prepare.paragraphs import paragraphs_of

WIKI = """<doc id="1" url="x" title="A &amp; B">
A &amp; B

First &lt;b&gt; paragraph. Two sentences.
History.

</doc>
<doc id="2" url="x" title="C">
C

Only.
</doc>
"""


def documents(*inputs, **options):
    return [d.paragraphs for d in Corpus(list(inputs), **options)]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_text_is_one_document_with_paragraphs(tmp_path):
    long = "A line that is far too long to have been wrapped by hand or editor. " * 3
    file = write(tmp_path / "a.txt", f"\ufeffOne\nwrapped  line.\r\n\r\n \nTwo.\n\nHead\n{long}\n")
    assert documents(file) == [["One wrapped  line.", "Two.", "Head", long.strip()]]
    assert [d.is_sentences for d in Corpus([file])] == [False]


def test_last_line_without_newline_and_lines_across_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "CHUNK_BYTES", 3)
    file = write(tmp_path / "a.txt", "Äö ü\n\nlast")
    assert documents(file) == [["Äö ü", "last"]]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("今天天气\n很好。", "今天天气很好。"),
        ("日本語の\nテキスト", "日本語のテキスト"),
        ("ภาษา\nไทย", "ภาษาไทย"),
        ("한국어\n문장", "한국어 문장"),
        ("English\nwords", "English words"),
        ("中文\nEnglish", "中文 English"),
    ],
)
def test_wrapped_lines_are_joined_as_their_script_is_written(tmp_path, lines, expected):
    assert documents(write(tmp_path / "a.txt", f"{lines}\n")) == [[expected]]


def test_markdown_loses_its_marks_only(tmp_path):
    text = (
        "# Title: Emma\n\n## Author: Jane Austen\n\n-------\n\n##  CHAPTER I \n\n"
        "It is _very_ fine, _quite so_, snake_case_name and 2 * 3 * 4.\n\n***\n\n**Bold** end.\n"
    )
    expected = [
        "CHAPTER I",
        "It is very fine, quite so, snake_case_name and 2 * 3 * 4.",
        "Bold end.",
    ]
    assert documents(write(tmp_path / "a.md", text)) == [expected]
    yaml = "---\ntitle: x\n---\nBody.\n"
    assert documents(write(tmp_path / "b.md", yaml)) == [["Body."]]
    bare = "# Title: kept\n\nNo rule follows.\n\n---\n\nRest.\n"
    assert documents(write(tmp_path / "c.md", bare)) == [
        ["Title: kept", "No rule follows.", "Rest."]
    ]
    only = "# Title: kept\n"
    assert documents(write(tmp_path / "d.md", only)) == [["Title: kept"]]


def test_books_keep_their_words(shared_data):
    file = shared_data / "books" / "jane-austen_emma.md"
    [paragraphs] = documents(file)
    assert paragraphs[:2] == ["VOLUME I", "CHAPTER I"]
    assert paragraphs[2].startswith("Emma Woodhouse, handsome, clever, and rich,")
    body = file.read_text("utf-8").split("-------", 1)[1]

    def letters(text):
        return "".join(c for c in text if c.isalnum())

    assert letters(" ".join(paragraphs)) == letters(body)


def test_sentences_format_keeps_lines(tmp_path):
    file = write(tmp_path / "a.txt", "One. Still one!\nTwo\n\n\nThree\n")
    corpus = list(Corpus([file], "sentences"))
    assert [d.paragraphs for d in corpus] == [["One. Still one!", "Two"], ["Three"]]
    assert all(d.is_sentences for d in corpus)


def test_wiki(tmp_path):
    file = write(tmp_path / "wiki_00", WIKI)
    expected = [["A & B", "First <b> paragraph. Two sentences.", "History."], ["C", "Only."]]
    assert documents(file) == expected
    assert Corpus([file]).sources[0].format == "wiki"


def test_wiki_sample_has_every_article(shared_data):
    corpus = Corpus([shared_data / "wikipedia" / "enwiki_00.txt"])
    assert sum(1 for _ in corpus) == 742  # Source: README.md of the data
    assert corpus.bytes_read == corpus.bytes_total


def test_jsonl_and_its_field(tmp_path):
    lines = [{"text": "One.\n\nTwo.", "id": 1}, {"text": ""}, {"text": "Three."}]
    file = write(tmp_path / "a.jsonl", "\n\n".join(map(json.dumps, lines)))
    assert documents(file) == [["One.", "Two."], ["Three."]]
    plain = write(tmp_path / "b", json.dumps({"body": "Four."}))
    assert documents(plain, text_field="body") == [["Four."]]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_files_of_several_parts(tmp_path, suffix):
    compress = gzip.compress if suffix == ".gz" else zstandard.compress
    data = compress(WIKI[:90].encode()) + compress(WIKI[90:].encode())
    file = write(tmp_path / f"a.txt{suffix}", data)
    assert documents(file) == documents(write(tmp_path / "plain", WIKI))
    assert Corpus([file]).sources[0].bytes == len(data)
    cut = write(tmp_path / f"cut.txt{suffix}", data[:-3])
    with pytest.raises(ValueError, match=f"cut.txt{suffix}: damaged"):
        documents(cut)
    for content in (b"no such thing", data[:20] + b"\xff" * 9 + data[29:]):
        broken = write(tmp_path / f"broken.txt{suffix}", content)
        with pytest.raises(ValueError, match=f"broken.txt{suffix}: damaged"):
            documents(broken, file_format="wiki")


def test_folders_and_globs_in_sorted_order(tmp_path):
    for name in ("b/2.txt", "a.txt", "b/1.md", "c.jsonl", ".hidden/x.txt", "b/.secret"):
        text = json.dumps({"text": name}) if name.endswith("jsonl") else name
        write(tmp_path / name, text)
    everything = [["a.txt"], ["b/1.md"], ["b/2.txt"], ["c.jsonl"]]
    assert documents(tmp_path) == everything
    assert documents(f"{tmp_path}/**/*.txt") == [["a.txt"], ["b/2.txt"]]
    assert documents(f"{tmp_path}/b*", f"{tmp_path}/a.txt") == [["b/1.md"], ["b/2.txt"], ["a.txt"]]
    sources = Corpus([tmp_path]).sources
    assert [s.format for s in sources] == ["text", "text", "text", "jsonl"]
    assert [d.source for d in Corpus([tmp_path])] == [0, 1, 2, 3]


def test_a_corpus_can_be_read_again(tmp_path):
    write(tmp_path / "a.txt", "One.")
    corpus = Corpus([tmp_path])
    assert list(corpus) == list(corpus)
    assert corpus.sources[0].sha256 == Corpus([tmp_path]).sources[0].sha256


def test_huge_documents_come_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_DOCUMENT_CHARS", 10)
    file = write(tmp_path / "a.txt", "\n\n".join(["abcdef"] * 5))
    corpus = Corpus([file])
    assert [d.paragraphs for d in corpus] == [["abcdef"] * 2, ["abcdef"] * 2, ["abcdef"]]
    assert corpus.sources[0].counts["documents_cut"] == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text": 3}\n', r"a\.jsonl:2: no text in field 'text'"),
        ("a.jsonl", "[1]\n", r"a\.jsonl: record 0: no text in field 'text' \(has: int\)"),
        ("a", '<doc id="1">\nx\n<doc id="2">\n', r"a:1: <doc> is not closed before line 3"),
        ("a", '<doc id="1">\nx\n', r"a:1: <doc> is not closed"),
        ("a", '<doc id="1">\nx\n</doc>\nstray\n', r"a:4: text outside <doc>"),
        ("a", '<doc id="1">\nx\n</doc>\n</doc>\n', r"a:4: </doc> without <doc>"),
    ],
)
def test_bad_files_are_named(tmp_path, name, text, message):
    file = write(tmp_path / name, text)
    with pytest.raises(ValueError, match=message):
        documents(file)


def test_bad_inputs_are_named(tmp_path):
    with pytest.raises(ValueError, match="format 'xml': must be one of auto, text"):
        Corpus([tmp_path], "xml")
    with pytest.raises(ValueError, match="no input given"):
        Corpus([])


def make_tfds(data_dir, texts, split="train", file_format="array_record"):
    import tensorflow_datasets as tfds

    folder = data_dir / "mine" / "1.0.0"
    folder.mkdir(parents=True)
    identity = tfds.core.DatasetIdentity(
        name="mine", version=tfds.core.Version("1.0.0"), data_dir=str(folder), module_name="x"
    )
    features = tfds.features.FeaturesDict({"text": tfds.features.Text(), "id": np.int64})
    info = tfds.core.DatasetInfo(builder=identity, features=features, description="x")
    writer = tfds.core.SequentialWriter(info, 3, file_format=file_format)
    writer.initialize_splits([split])
    writer.add_examples({split: [{"text": t, "id": i} for i, t in enumerate(texts)]})
    writer.close_all()


def test_tfds(tmp_path, monkeypatch):
    texts = [f"Document {i}.\n\nCafé {i}." for i in range(7)]
    make_tfds(tmp_path, texts)
    monkeypatch.setattr(sources.TfdsSource, "WINDOW", 3)
    for name in ("tfds:mine", "tfds:mine:1.0.0"):
        corpus = Corpus([name], data_dir=str(tmp_path))
        assert [d.paragraphs for d in corpus] == [t.split("\n\n") for t in texts]
        assert corpus.sources[0].path == "tfds:mine/1.0.0"
        assert corpus.bytes_read == corpus.bytes_total > 0
    with pytest.raises(ValueError, match=r"no feature 'body' \(has: id, text"):
        Corpus(["tfds:mine"], text_field="body", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="feature 'id' holds no text"):
        Corpus(["tfds:mine"], text_field="id", data_dir=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="tfds:absent_one"):
        Corpus(["tfds:absent_one"], data_dir=str(tmp_path))


def test_tfds_without_a_train_split(tmp_path):
    make_tfds(tmp_path, ["x"], split="other")
    with pytest.raises(ValueError, match="tfds:mine: no train split"):
        Corpus(["tfds:mine"], data_dir=str(tmp_path))


def test_python_docs(tmp_path, monkeypatch):
    source = '''"""Module doc.

Wrapped
line:

>>> dropped()
3
"""
class A:
    """Class doc.

    Heading
    -------
    Text.
    """
    def f(self):
        """Method doc."""
        if True:
            def g():
                """Inner doc."""
'''
    write(tmp_path / "pkg" / "a.py", source)
    write(tmp_path / "pkg" / "b.py", '"""Module doc of b."""\ndef f():\n    """Method doc."""\n')
    write(tmp_path / "pkg" / "bad.py", "def (:\n")
    write(tmp_path / "pkg" / "tests" / "c.py", '"""Test doc."""')
    monkeypatch.setattr(python_docs.sysconfig, "get_path", lambda name: str(tmp_path / "pkg"))
    write(tmp_path / "paths" / "chosen" / "deep" / "d.py", '"""Doc of a chosen package."""')
    write(tmp_path / "paths" / "chosen" / "__init__.py", "")
    write(tmp_path / "paths" / "other" / "__init__.py", '"""Doc of another package."""')
    monkeypatch.syspath_prepend(tmp_path / "paths")
    packages = {"chosen": "numpy", "not_installed_at_all": "jax"}
    monkeypatch.setattr(python_docs, "PACKAGES", packages)
    corpus = Corpus(["python-docs"])
    *topics, first, second, third = (d.paragraphs for d in corpus)
    expected = "Module doc.|Wrapped line:|Class doc.|Heading|Text.|Method doc.|Inner doc."
    assert first == expected.split("|")
    assert second == ["Module doc of b."]
    assert third == ["Doc of a chosen package."]
    assert len(topics) > 50
    for _ in range(2):  # the second pass need not parse again
        assert corpus.sources[0].counts == {"unparsable_files": 1, "repeated_paragraphs": 1}
        assert [d.paragraphs for d in corpus] == [*topics, first, second, third]


def test_python_docs_are_the_same_whatever_else_is_installed(monkeypatch):
    before = Corpus(["python-docs"]).sources[0].sha256
    version = python_docs.importlib.metadata.version
    newer = {"numpy": "99", "hypothesis": "99"}

    def install(name):
        monkeypatch.setattr(
            python_docs.importlib.metadata,
            "version",
            lambda asked: newer[name] if asked == name else version(asked),
        )
        return Corpus(["python-docs"]).sources[0].sha256

    assert install("hypothesis") == before
    assert install("numpy") != before


def test_paragraphs_lose_nothing():
    lines = ["", "a", " b", "", "", "c " * 80, "d", ""]
    joined = " ".join(paragraphs_of(lines)).split()
    assert joined == " ".join(lines).split()


def test_reading_needs_no_more_memory_for_more_text(tmp_path):
    import tracemalloc

    file = tmp_path / "many.txt"
    with open(file, "w") as f:
        for i in range(40_000):
            f.write(f"Sentence number {i} of a long file.\n{'' if i % 100 else chr(10)}")
    assert os.path.getsize(file) > 1_000_000
    tracemalloc.start()
    count = sum(len(d.paragraphs) for d in Corpus([file], "sentences"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 40_000
    assert peak < 12 * text_files.CHUNK_BYTES
