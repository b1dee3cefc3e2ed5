"""Python's own documentation as a corpus: English text on every machine, without a download."""

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import sys
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from albert_jax.prepare.paragraphs import Items
from albert_jax.prepare.sources import Source
from albert_jax.prepare.workers import worker_pool

PYTHON_DOCS = "python-docs"
# Packages that are always installed with this one, folder -> distribution, so that the corpus is
# nearly the same everywhere, whatever else is installed. They have nine tenths of all docstrings.
PACKAGES = {
    "flax": "flax",
    "grain": "grain",
    "huggingface_hub": "huggingface-hub",
    "jax": "jax",
    "jaxlib": "jaxlib",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "optax": "optax",
    "orbax": "orbax-checkpoint",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
}
LEFT_OUT = frozenset(("site-packages", "dist-packages", "test", "tests", "idle_test"))


class PythonDocs(Source):
    """The English documentation that comes with the running Python and with `PACKAGES`.

    Documents: each topic of the language reference, then each source file of the standard library
    and of the packages (the paragraphs of its docstrings in order). Each paragraph is used only
    once: many functions describe the same arguments in the same words, and text that repeats
    what was trained on would flatter the held-out loss. Doctests and rulers in docstrings, and
    test suites, are left out.
    """

    def __init__(self, num_workers: int):
        stdlib = Path(sysconfig.get_path("stdlib"))
        folders = [(stdlib, stdlib)]
        for package in PACKAGES:
            spec = importlib.util.find_spec(package)
            places = spec.submodule_search_locations if spec else ()
            folders += [(Path(place), Path(place).parent) for place in places or ()]
        found = (
            str(file)
            for folder, root in folders
            for file in sorted(folder.rglob("*.py"))
            if not LEFT_OUT & set(file.relative_to(root).parts)
        )
        self._files = list(dict.fromkeys(found))
        self._num_workers = num_workers
        # Kept for a second pass: takes about 20 MB, and saves half a minute of parsing.
        self._parsed: tuple[list[list[str]], Counter[str]] | None = None
        super().__init__(PYTHON_DOCS, "python-docs", sum(map(os.path.getsize, self._files)))

    @functools.cached_property
    def sha256(self) -> str:
        """The hex digest of the versions of Python and of the packages."""
        versions = [f"{name}=={importlib.metadata.version(name)}" for name in PACKAGES.values()]
        return hashlib.sha256("\n".join([sys.version, *versions]).encode()).hexdigest()

    def items(self) -> Items:
        """Yields paragraphs, and None after each topic or source file."""
        if self._parsed is None:
            self._parsed = self._parse()
        documents, counts = self._parsed
        self.counts.update(counts)
        for paragraphs in documents:
            yield from paragraphs
            yield None

    def _parse(self) -> tuple[list[list[str]], Counter[str]]:
        """Returns the documents, and counts of what was left out."""
        from pydoc_data.topics import topics

        documents = [_paragraphs(text) for _, text in sorted(topics.items())]
        counts: Counter[str] = Counter()
        seen: set[str] = set()
        with worker_pool(self._num_workers) as run:
            for file, docstrings in zip(self._files, run(_docstrings, self._files), strict=True):
                if docstrings is None:
                    counts["unparsable_files"] += 1
                    continue
                paragraphs = [p for docstring in docstrings for p in _paragraphs(docstring)]
                new = list(dict.fromkeys(p for p in paragraphs if p not in seen))
                seen.update(new)
                counts["repeated_paragraphs"] += len(paragraphs) - len(new)
                self.position += os.path.getsize(file)
                documents.append(new)
        return documents, counts


def _docstrings(path: str) -> list[str] | None:
    """Returns the docstrings of a Python file in order, None if it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = ast.parse(Path(path).read_bytes())
        return list(_walk(module))
    except (SyntaxError, ValueError, RecursionError):
        return None


def _walk(node: ast.AST) -> Iterator[str]:
    documented = isinstance(
        node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    )
    if documented and (docstring := ast.get_docstring(node)):
        yield docstring
    # Only statements contain definitions; walking expressions too would double the time.
    for block in ("body", "handlers", "orelse", "finalbody"):
        children = getattr(node, block, None)
        for child in children if isinstance(children, list) else ():
            yield from _walk(child)


def _paragraphs(docstring: str) -> list[str]:
    """Returns a docstring's paragraphs without doctests and rulers, one line each."""
    paragraphs, block = [], []
    for line in [*docstring.splitlines(), ""]:
        if any(c.isalnum() for c in line):
            block.append(line.strip())
        elif block:  # a blank line, or the ruler under a heading
            if not block[0].startswith(">>>"):
                paragraphs.append(" ".join(block))
            block = []
    return paragraphs
