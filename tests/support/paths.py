"""Where things are, for what needs it before there are fixtures."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # of the repository; tests take the fixture `repo_root`
