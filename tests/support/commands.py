"""Commands that tests run, and make."""

import os
import subprocess
from pathlib import Path
from typing import Any


def run(*command: Any, env: dict[str, str] | None = None, **options: Any) -> tuple[int, str, str]:
    """Runs a command; returns its exit status, output and messages."""
    done = subprocess.run(
        [str(word) for word in command],
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    return done.returncode, done.stdout, done.stderr


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path
