"""Which documents the vocabulary is trained on, and which have been seen before."""

from support.texts import VOCAB_SIZE, write_corpus

from albert_jax.prepare import vocabulary
from albert_jax.prepare.corpus import Corpus
from albert_jax.prepare.documents import SeenDigests, content_digest, split_of_digest
from albert_jax.prepare.settings import RowSettings, Settings
from albert_jax.prepare.vocabulary import training_sentences


def test_sample_for_the_vocabulary_is_bounded_and_has_no_validation_text(tmp_path, monkeypatch):
    corpus = Corpus([write_corpus(tmp_path / "corpus.jsonl")])
    settings = Settings(RowSettings(64), validation_fraction=0.1, vocab_size=VOCAB_SIZE)
    whole = list(training_sentences(corpus, settings))
    total = sum(map(len, whole))
    monkeypatch.setattr(vocabulary, "TRAINING_CHARS", total // 3)
    sample = list(training_sentences(corpus, settings))
    assert total // 10 < sum(map(len, sample)) <= total // 3
    assert set(sample) < set(whole)
    assert sample == list(training_sentences(corpus, settings))
    for document in corpus:
        digest = content_digest(document)
        if split_of_digest(digest, settings) == "validation":
            assert document.paragraphs[0].split(". ")[0].rstrip(".") + "." not in whole


def test_seen_digests(tmp_path):
    seen = SeenDigests(tmp_path / "seen")
    values = [0, 1, 2**63 - 1, 2**63, 2**64 - 1]
    assert [seen.add(v) for v in values] == [True] * 5
    assert [seen.add(v) for v in values] == [False] * 5
    seen.close()
