"""The command `albert-jax`: what it lists, runs and refuses."""

import importlib.util
import sys

import pytest
from support.commands import run

from albert_jax import COMMANDS, main


def call(monkeypatch, capsys, *words):
    """The exit code, output and messages of `albert-jax WORDS`."""
    monkeypatch.setattr(sys, "argv", ["albert-jax", *words])
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    return code, *capsys.readouterr()


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_every_command_is_listed_and_there(words, monkeypatch, capsys):
    code, said, message = call(monkeypatch, capsys, *words)
    assert (code, message) == (0, "")
    assert [line.split()[0] for line in said.splitlines()[2:]] == list(COMMANDS)
    assert all(importlib.util.find_spec(f"albert_jax.{name}") for name in COMMANDS)


def test_an_unknown_command_is_one_line_with_the_nearest(monkeypatch, capsys):
    message = "error: no command 'trian'; did you mean 'train'?\n"
    assert call(monkeypatch, capsys, "trian", "--config", "tiny") == (2, "", message)


def test_ctrl_c_while_a_command_is_imported_is_one_line(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("runpy.run_module", interrupted)
    assert call(monkeypatch, capsys, "train") == (130, "", "error: interrupted\n")


def test_its_words_are_the_commands(tmp_path):
    words = ("evaluate", "--workdir", "nowhere")
    code, said, message = run(f"{sys.prefix}/bin/albert-jax", *words, cwd=tmp_path)
    assert (code, said) == (1, "")
    assert message.startswith("error: 'nowhere' is not a run directory")


def test_installed_it_works_anywhere_without_jax(tmp_path):
    code = "import albert_jax, sys; sys.exit('jax' in sys.modules)"
    assert run(sys.executable, "-c", code, cwd=tmp_path) == (0, "", "")
    script = f"{sys.prefix}/bin/albert-jax"
    assert run(script, "--version", cwd=tmp_path) == (0, "0.1.0\n", "")
