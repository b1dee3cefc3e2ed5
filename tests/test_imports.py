"""Imports go one way, from the settings up to the analysis; the text side never touches jax."""

import ast
import graphlib
import subprocess
import sys

import pytest

# Bottom to top. A module may import its own floor (without cycles) and those below.
FLOORS = (
    {"config", "config_checks", "config_file", "json_files", "paper", "presets", "user_errors"},
    {"tokenizer", "sharding", "optimizer", "losses", "metrics", "submissions", "task_metrics"}
    | {"distributed", "stopping", "run_errors", "run_lock", "checksums"},
    {"model", "data", "answer_metrics"},
    {"train_state", "train_step", "checkpoint", "convert", "init_from", "run_dir", "run_log"}
    | {"bad_steps", "first_nan"},
    {"tasks", "plan"},
    {"pretraining", "fine_tuning", "seeds"},
    {"train", "evaluate", "predict", "pretrained", "model_in_use", "loading", "prepare"}
    | {"inspect", "prepare_beam", "beam_rows"},
    {"analysis", "sweep"},
    {""},  # albert_jax/__init__.py
)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
TEXT_SIDE = {"tokenizer", "data"}
TEXT_ONLY = {"data", "prepare"}  # no module of the model's
HELPERS = {"json_files", "user_errors"}


def imports_of(text, modules):
    """Yields the dotted names that a file imports: modules of ours in full, others as written."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            base = node.module or ""
            named = {f"{base}.{alias.name}" for alias in node.names}
            # `from albert_jax.data import rows` imports a module, `from albert_jax.data.rows
            # import Row` does not.
            yield from (named & modules) or {base}


def read_imports(repo_root):
    """Maps every module of the package to the dotted names that it imports."""
    files = {
        ".".join(path.relative_to(repo_root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((repo_root / "albert_jax").rglob("*.py"))
    }
    return {name: set(imports_of(path.read_text(), files.keys())) for name, path in files.items()}


def complaints(imports):
    """Yields a line for each import that the floors forbid."""
    for module, targets in imports.items():
        part, _, rest = module.removeprefix("albert_jax").strip(".").partition(".")
        if part not in FLOOR:
            yield f"{module} has no floor"
            continue
        for target in sorted(targets):
            top, _, inner = target.partition(".")
            to, _, to_rest = inner.partition(".")
            if part in TEXT_SIDE and top in {"jax", "jaxlib", "flax", "optax", "orbax"}:
                yield f"{module} imports {target}"
            if top != "albert_jax" or target == module:
                continue
            if (
                FLOOR.get(to, len(FLOORS)) > FLOOR[part]
                or {part, to} == {"model", "data"}
                or (part == to == "tasks" and rest and rest != to_rest)
                or (part in TEXT_ONLY and to not in {*TEXT_SIDE, "config", *HELPERS})
            ):
                yield f"{module} imports {target}"


def test_imports_go_one_way(repo_root):
    imports = read_imports(repo_root)
    assert "albert_jax.config" in imports
    assert list(complaints(imports)) == []
    # A package's __init__ gathers its modules; a module that reads its own package is a cycle.
    tuple(graphlib.TopologicalSorter(imports).static_order())


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("albert_jax.config", "import albert_jax.losses"),
        ("albert_jax.model.heads", "from albert_jax import data"),
        ("albert_jax.data.rows", "from albert_jax.model.layers import dense"),
        ("albert_jax.data.rows", "from albert_jax.losses import cross_entropy"),
        ("albert_jax.data.rows", "import jax.numpy as jnp"),
        ("albert_jax.tasks.glue", "from albert_jax.tasks import squad"),
        ("albert_jax.tasks.glue", "def late():\n    from albert_jax.train import train"),
        ("albert_jax.prepare", "from albert_jax.losses import cross_entropy"),
        ("albert_jax.somewhere", ""),
    ],
)
def test_a_wrong_import_is_found(module, text):
    modules = {"albert_jax.data", "albert_jax.tasks.squad"}
    assert len(list(complaints({module: set(imports_of(text, modules))}))) == 1


@pytest.mark.parametrize("loaded", ["tokenizer", "data"])
def test_text_side_starts_no_jax_backend(repo_root, loaded):
    # Each Grain worker imports these; a backend would cost it about 500 MB of accelerator memory.
    names = [m for m in read_imports(repo_root) if m.startswith(f"albert_jax.{loaded}")]
    assert names
    code = f"""
import sys, {", ".join(names)}
if "jax" in sys.modules:
    from jax._src import xla_bridge
    assert not xla_bridge.backends_are_initialized()
"""
    subprocess.run([sys.executable, "-c", code], cwd=repo_root, check=True)
