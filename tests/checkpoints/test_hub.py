"""Fetching from the Hugging Face Hub: the real client, and a small hub on this machine."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.models import tiny_model
from support.params import random_params
from support.paths import ROOT

from albert_jax.checkpoints.formats.huggingface import write_hf
from albert_jax.checkpoints.weights import Weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CODE = """
import sys
from albert_jax.checkpoints.formats.hub import fetch
from albert_jax.checkpoints.read import read
for name in sys.argv[1:]:
    try:
        print(read(name).kind, *sorted(p.name for p in fetch(name).iterdir()))
    except ValueError as error:
        print("error:", error)
"""


def describe(name: str, files: dict[str, bytes], what: str) -> object:
    if what == "tree":
        return [
            {"type": "file", "path": file, "size": len(body), "oid": digest(body)}
            for file, body in files.items()
        ]
    return {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}


def digest(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    """What of a hub the client asks for: which models and files there are, and their bytes."""

    models: dict[str, dict[str, bytes]]

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        owner, model, *rest = (parts[2:] if is_api else parts) + ["", ""]
        name = f"{owner}/{model}"
        files = self.models.get(name, {})
        if is_api and files:
            self.answer(200, json.dumps(describe(name, files, rest[0])).encode())
        elif rest[:1] == ["resolve"] and (file := "/".join(rest[2:]).rstrip("/")) in files:
            self.answer(200, files[file])
        else:
            self.answer(404, b"", error="EntryNotFound" if files else "RepoNotFound")

    do_HEAD = do_GET  # noqa: N815

    def answer(self, status: int, body: bytes, error: str = "") -> None:
        self.send_response(status)
        headers = {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT}
        headers |= {"ETag": f'"{digest(body)}"', "X-Error-Code": error}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    """The address of a hub with three models, and files beside that nobody should fetch."""
    config = tiny_model()
    write_hf(Weights(config, random_params(config), "pretraining"), tmp_path / "model")
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    old = {"config.json": files["config.json"], "pytorch_model.bin": b"not weights"}
    others = {"modeling.py": b"x", "flax_model.msgpack": b"x", "pytorch_model.bin": b"x"}
    write_hf(Weights(config, random_params(config, ()), "embedding"), tmp_path / "embedding")
    found = (path for path in (tmp_path / "embedding").rglob("*") if path.is_file())
    sentences = {str(p.relative_to(tmp_path / "embedding")): p.read_bytes() for p in found}
    models = {"some/albert": files | others, "some/old": old, "some/sentences": sentences}
    handler = type("Handler", (Hub,), {"models": models})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def read_in_process(endpoint: str, cache: Path, *names: str) -> str:
    # The client reads its settings once, when it is imported.
    env = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-W", "ignore", "-c", CODE, *names]
    run = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_a_model_is_fetched_once_and_without_code(hub, tmp_path):
    cache = tmp_path / "cache"
    said = read_in_process(hub, cache, "hf:some/albert")
    assert said == "pretraining config.json model.safetensors"
    # ... and is then there without a hub
    assert read_in_process("http://127.0.0.1:1", cache, "hf:some/albert") == said


def test_a_model_of_sentence_transformers_is_fetched_with_its_folders(hub, tmp_path):
    said = read_in_process(hub, tmp_path / "cache", "hf:some/sentences")
    assert said == (
        "embedding 1_Pooling 2_Normalize config.json config_sentence_transformers.json "
        "model.safetensors modules.json sentence_bert_config.json"
    )


@pytest.mark.slow
@pytest.mark.torch
def test_a_model_without_safetensors_is_fetched_as_pytorch_saved_it(hub, tmp_path):
    said = read_in_process(hub, tmp_path / "cache", "hf:some/old")
    assert "pytorch_model.bin: cannot be read as weights only" in said


def test_what_is_not_there_is_named(hub, tmp_path):
    names = ("hf:no/such", "hf:a/b/c/d", "hf:")
    said = read_in_process(hub, tmp_path / "cache", *names)
    for name, line in zip(names, said.splitlines(), strict=True):
        assert line.startswith(f"error: {name}: cannot be fetched from the Hugging Face Hub: ")
