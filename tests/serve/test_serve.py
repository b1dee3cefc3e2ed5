"""The server: what the model's methods say, over HTTP; limits, errors, metrics, a clean stop."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from starlette.testclient import TestClient
from support.finetuned import make_weights
from support.texts import WORDS

import albert_jax
from albert_jax.checkpoints.formats.huggingface import write_hf
from albert_jax.config import TaskConfig
from albert_jax.data.tokenizers import load_tokenizer, read_vocabulary
from albert_jax.export.write import write_export
from albert_jax.predict.finetuned import FinetunedModel
from albert_jax.serve.__main__ import main
from albert_jax.serve.app import Limits, Service

CONTEXT = "Morly siling buros. Tan siling."


@pytest.fixture(scope="module")
def make_model(vocabulary):
    tokenizer = load_tokenizer(vocabulary)

    def make(kind, **fields):
        weights = make_weights(kind, **fields)
        return FinetunedModel(weights, weights.params, tokenizer)

    return make


@pytest.fixture(scope="module")
def classifier(make_model):
    return make_model("classification")


def client(model, **limits):
    return TestClient(Service(model, Limits(**limits)).app(), raise_server_exceptions=False)


REQUESTS = {
    "classification": {"texts": WORDS[:2], "pairs": WORDS[2:4]},
    "question_answering": {"question": "siling?", "context": CONTEXT, "top_k": 3},
    "token_classification": {"words": "Morly siling"},
    "multiple_choice": {"context": CONTEXT, "question": "what?", "options": WORDS[:3]},
    "pretraining": {"text": "Morly [MASK] buros", "top_k": 2},
}
CALLS = {
    "classification": lambda model, one: [a._asdict() for a in model.classify(*one.values())],
    "question_answering": lambda model, one: [a._asdict() for a in model.answer(**one)],
    "token_classification": lambda model, one: [a._asdict() for a in model.tag(**one)],
    "multiple_choice": lambda model, one: model.choose(**one).probabilities,
    "pretraining": lambda model, one: [[a._asdict() for a in m] for m in model.fill_mask(**one)],
}


def numbers(value):
    """The numbers in nested values, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for one in value for number in numbers(one)]
    return [value] if isinstance(value, float | int) else []


@pytest.mark.parametrize("kind", REQUESTS)
def test_answers_are_the_models(kind, make_model):
    model = make_model(kind)
    with client(model) as server:
        health = server.get("/health").json()
        route = next(iter(health["routes"]))
        assert health["status"] == "ok"
        assert health["kind"] == kind
        response = server.post(f"/{route}", json=REQUESTS[kind])
    assert response.status_code == 200
    (found, *_) = [v for v in response.json().values() if isinstance(v, list)]
    np.testing.assert_allclose(
        numbers(found), numbers(CALLS[kind](model, REQUESTS[kind])), atol=1e-5
    )


def test_many_at_once_get_their_own_answers(classifier):
    texts = [f"{a} {b}" for a in WORDS[:8] for b in WORDS[:8]]
    wanted = {
        text: one.probabilities
        for text, one in zip(texts, classifier.classify(texts), strict=True)
    }
    with client(classifier) as server, ThreadPoolExecutor(16) as pool:
        found = list(
            pool.map(lambda text: server.post("/classify", json={"texts": [text]}), texts)
        )
        metrics = server.get("/metrics").text
    for text, response in zip(texts, found, strict=True):
        (one,) = response.json()["results"]
        assert one["probabilities"] == pytest.approx(wanted[text], abs=1e-5)
    assert 'albert_requests_total{route="classify",status="200"} 64.0' in metrics
    batches = float(metrics.partition("albert_batch_texts_count ")[2].partition("\n")[0])
    assert batches < 64  # some shared a batch


def test_a_request_says_how_many_texts_were_cut(classifier):
    with client(classifier) as server, pytest.warns(UserWarning, match="1 of 2 texts were cut"):
        response = server.post("/classify", json={"texts": ["tan", "tan " * 100]})
    assert response.json()["cut"] == 1


def test_a_choice_says_whether_its_context_was_cut(make_model):
    with client(make_model("multiple_choice")) as server:
        for count, cut in ((1, False), (100, True)):
            request = {"context": "tan " * count, "question": "what?", "options": WORDS[:2]}
            assert server.post("/choose", json=request).json()["cut"] is cut


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "not JSON in UTF-8"),
        (b"\xff\xfe", 400, "not JSON in UTF-8"),
        (b"[" * 100_000, 400, "not JSON in UTF-8"),
        (b"[]", 422, "must be a JSON object"),
        (b"{}", 422, "the field 'texts' is missing: a list of strings"),
        (b'{"text": ["a"]}', 422, "unknown field 'text'; did you mean 'texts'?"),
        (b'{"texts": []}', 422, "texts must be a list of strings that are not blank"),
        (b'{"texts": "a"}', 422, "texts must be a list of strings that are not blank"),
        (b'{"texts": ["\\ud800"]}', 422, "texts must be a list of strings that are not blank"),
        ('{"texts": ["a"]}'.encode("utf-16"), 400, "not JSON in UTF-8"),
        (b'{"' + b"x" * 1000 + b'": 1}', 422, "unknown field 'xxx"),
        (b'{"texts": [" "]}', 422, "texts must be a list of strings that are not blank"),
        (b'{"texts": ["a"], "pairs": ["b", "c"]}', 422, "1 texts but 2 pairs"),
        (json.dumps({"texts": ["a"] * 11}).encode(), 422, "send at most 10 at a time"),
        (b'{"texts": ["' + b"a" * 300_000 + b'"]}', 413, "longer than 200,000 bytes"),
    ],
)
def test_bad_requests_are_refused_in_one_line(body, status, message, classifier):
    with client(classifier, max_texts=10, max_bytes=200_000) as server:
        response = server.post("/classify", content=body)
        assert server.post("/classify", json={"texts": ["tan"]}).status_code == 200
    assert response.status_code == status
    assert message in response.json()["error"]
    assert len(response.content) < 400


def test_other_paths_say_what_there_is(classifier):
    with client(classifier) as server:
        missing, wrong = server.post("/answer", json={}), server.get("/classify")
        assert "<form" in server.get("/").text
    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert missing.json()["error"] == "no /answer; there are / and /classify, /health, /metrics"


def test_one_bad_request_does_not_harm_those_beside_it(make_model):
    model = make_model("pretraining")
    service = Service(model, Limits())
    route = service.routes["fill_mask"]
    requests = [
        (route, {"text": text, "top_k": 1}) for text in ("tan [MASK]", "no mask", "[MASK] tan")
    ]
    first, bad, last = service._run(requests)
    assert len(first["masks"]) == len(last["masks"]) == 1
    assert isinstance(bad, ValueError)


def test_a_late_answer_is_given_up(classifier, monkeypatch):
    gone = threading.Event()
    monkeypatch.setattr(classifier, "classify", lambda *_: gone.wait(5) or [])
    with client(classifier, timeout=1) as server:
        response = server.post("/classify", json={"texts": ["tan"]})
        gone.set()
    assert response.status_code == 504
    assert response.json()["error"] == "no answer within 1 seconds"


def test_what_is_unforeseen_shows_no_traceback(classifier, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("secret")

    monkeypatch.setattr(classifier, "classify", broken)
    with client(classifier) as server:
        response = server.post("/classify", json={"texts": ["tan"]})
    assert response.status_code == 500
    assert response.json() == {"error": "internal error; the server's log has it"}
    assert "secret" in caplog.text


def test_only_the_named_hosts_are_answered(classifier):
    app = Service(classifier, Limits()).app(["localhost"])
    with TestClient(app, base_url="http://localhost") as server:
        assert server.get("/health").status_code == 200
        assert server.get("/health", headers={"Host": "evil.example"}).status_code == 400


def test_many_options_are_too_many_texts(make_model):
    with client(make_model("multiple_choice"), max_texts=10) as server:
        request = {"context": CONTEXT, "question": "what?", "options": ["tan"] * 11}
        response = server.post("/choose", json=request)
    assert response.json()["error"] == "11 texts in a request; send at most 10 at a time"


def test_a_port_in_use_is_told_before_anything_is_loaded(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["--checkpoint", str(tmp_path / "none"), "--port", port]) == 1
    assert f"--port={port}: address already in use; choose another" in capsys.readouterr().err
    assert main(["--checkpoint", str(tmp_path / "none"), "--port", "99999"]) == 1
    assert "a port up to 65535" in capsys.readouterr().err
    assert main(["--checkpoint", str(tmp_path / "none"), "--host", "", "--port", "0"]) == 1
    assert "give an address" in capsys.readouterr().err


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="--max_batch=0 must be at least 1"):
        Limits(max_batch=0)


def test_encoders_give_vectors(make_model):
    model = make_model("encoder")
    with client(model) as server:
        found = server.post("/embed", json={"texts": WORDS[:3]}).json()["embeddings"]
    np.testing.assert_allclose(found, model.embed(WORDS[:3]), atol=1e-6)


def leave_in_the_middle(port: int) -> None:
    """Sends parts of requests, and whole ones without waiting for the answer."""
    body = json.dumps({"texts": list(WORDS)}).encode()
    whole = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (
        len(body),
        body,
    )
    for size in (1, 30, len(whole) - 5, len(whole)):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(whole[:size])


@pytest.mark.slow
@pytest.mark.parametrize("form", ["hf", "onnx"])
def test_the_command_answers_and_stops_when_told(form, vocabulary, tmp_path):
    source = tmp_path / "hf"
    weights = make_weights("classification", vocabulary=read_vocabulary(vocabulary))
    task = TaskConfig(name="classification", max_length=16)
    write_hf(weights._replace(task=task), source)
    if form == "onnx":
        (tmp_path / "onnx").mkdir()
        write_export(albert_jax.load(source), tmp_path / "onnx", "onnx")
    words = ["--checkpoint", tmp_path / form, "--port", "0", "--max_batch", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "albert_jax.serve", *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = process.stdout.readline().rpartition("http://")[2].split(":")[1]

        def ask(i):
            data = json.dumps({"texts": [WORDS[i % 5]]}).encode()
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/classify", data, 30
                ) as reply:
                    return len(json.load(reply)["results"])
            except (urllib.error.URLError, ConnectionResetError) as error:
                return type(getattr(error, "reason", error))

        leave_in_the_middle(int(port))
        with ThreadPoolExecutor(8) as pool:
            found = [pool.submit(ask, i) for i in range(200)]
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            outcomes = {one.result() for one in found}
        # Every request is answered, or not accepted any more.
        assert outcomes <= {1, ConnectionRefusedError, ConnectionResetError}
        assert 1 in outcomes
        assert process.wait(20) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.communicate()
