"""Imports go down, layer by layer; the text side never touches jax."""

import ast
import graphlib
import importlib
import json
import subprocess
import sys

import pytest

# Bottom to top. Each entry of the package may import its own modules and the layers below.
LAYERS = (
    {"config"},
    {"data", "model"},
    {"prepare", "checkpoints", "tasks"},
    {"predict"},
    {"train"},
    {"analysis", "convert", "estimate", "evaluate", "export", "serve"},
    {"inspect", "sweep"},
)
LAYER = {entry: number for number, entries in enumerate(LAYERS) for entry in entries}
# Modules that only commands use, and other commands: a library imports none of them.
COMMANDS = {
    *("convert", "estimate", "evaluate", "inspect"),
    *("predict.ask", "predict.index", "prepare.beam", "sweep.run"),
}
# Readers and data workers start in seconds and hold no accelerator memory.
WITHOUT_JAX = ("config", "data", "prepare", "tasks.readers", "tasks.examples")
JAX = {"jax", "jaxlib", "flax", "optax", "orbax"}


def imports_of(text, modules):
    """Yields the dotted names that a file imports: modules of ours in full, others as written."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            base = node.module or ""
            named = {f"{base}.{alias.name}" for alias in node.names}
            # `from albert_jax.data import masking` imports a module, `from albert_jax.data.loader
            # import Rows` does not.
            yield from (named & modules) or {base}


def read_imports(repo_root):
    """Maps every module of the package to the dotted names that it imports."""
    files = {
        ".".join(path.relative_to(repo_root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((repo_root / "albert_jax").rglob("*.py"))
    }
    return {name: set(imports_of(path.read_text(), files.keys())) for name, path in files.items()}


def is_command(module):
    return module in COMMANDS or module.endswith("__main__")


def is_within(module, packages):
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def complaints(imports):
    """Yields a line for each import that the layers forbid."""
    for name, targets in imports.items():
        module = name.removeprefix("albert_jax").strip(".")
        entry = module.partition(".")[0]
        if not module:
            continue  # albert_jax/__init__.py: `load`, on first use
        if entry not in LAYER:
            yield f"{name} has no layer"
            continue
        for target in sorted(targets):
            top, _, inner = target.partition(".")
            to = inner.partition(".")[0]
            if is_within(module, WITHOUT_JAX) and top in JAX:
                yield f"{name} imports {target}"
            if top != "albert_jax" or target == name:
                continue
            goes_down = to == entry or LAYER.get(to, len(LAYERS)) < LAYER[entry]
            if not goes_down or (is_command(inner) and not is_command(module)):
                yield f"{name} imports {target}"


def test_imports_go_down(repo_root):
    imports = read_imports(repo_root)
    assert "albert_jax.config.schema" in imports
    assert list(complaints(imports)) == []
    # A package's __init__ gathers its modules; a module that reads its own package is a cycle.
    tuple(graphlib.TopologicalSorter(imports).static_order())


def test_top_level_is_the_table(repo_root):
    entries = {
        path.stem
        for path in (repo_root / "albert_jax").iterdir()
        if path.stem not in ("__init__", "__pycache__")
    }
    assert entries == set(LAYER)
    assert len(entries) <= 16


def test_notebooks_and_benchmarks_import_what_is_there(repo_root):
    """Their own tests are slow or none, so a name that moved would be missed."""
    code = {path.name: path.read_text() for path in (repo_root / "benchmarks").glob("*.py")}
    for path in (repo_root / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        code[path.name] = "\n".join(
            "".join(c["source"]) for c in cells if c["cell_type"] == "code"
        )
    wanted = {
        (node.module, alias.name, name)
        for name, text in code.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module
        if node.module.startswith("albert_jax")
        for alias in node.names
    }
    assert len(wanted) > 20
    modules = read_imports(repo_root).keys()
    missing = [
        f"{place}: from {module} import {name}"
        for module, name, place in sorted(wanted)
        if not hasattr(importlib.import_module(module), name) and f"{module}.{name}" not in modules
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("albert_jax.config.schema", "import albert_jax.tasks.base"),
        ("albert_jax.model.heads", "from albert_jax import data"),
        ("albert_jax.data.loader", "from albert_jax.model.layers import dense"),
        ("albert_jax.data.loader", "import jax.numpy as jnp"),
        ("albert_jax.tasks.readers.glue", "import optax"),
        ("albert_jax.tasks.base", "from albert_jax.checkpoints.state import TrainState"),
        ("albert_jax.tasks.base", "def late():\n    from albert_jax.train.loop import train"),
        ("albert_jax.train.loop", "from albert_jax.train.__main__ import main"),
        ("albert_jax.analysis.batches", "from albert_jax.evaluate import evaluate"),
        ("albert_jax.somewhere", ""),
    ],
)
def test_a_wrong_import_is_found(module, text):
    modules = {"albert_jax.data", "albert_jax.tasks.base"}
    assert len(list(complaints({module: set(imports_of(text, modules))}))) == 1


@pytest.mark.parametrize("loaded", WITHOUT_JAX)
def test_text_side_starts_no_jax_backend(repo_root, loaded):
    # Each Grain worker imports these; a backend would cost it about 500 MB of accelerator memory.
    names = [
        name
        for name in read_imports(repo_root)
        if is_within(name.removeprefix("albert_jax."), [loaded]) and "beam" not in name
    ]
    assert names
    code = f"""
import sys, {", ".join(names)}
if "jax" in sys.modules:
    from jax._src import xla_bridge
    assert not xla_bridge.backends_are_initialized()
"""
    subprocess.run([sys.executable, "-c", code], cwd=repo_root, check=True)
