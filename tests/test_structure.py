"""Imports run one way; the reference is independent; kernels/ knows nothing of grokfast."""

import ast
import sys
from pathlib import Path

import pytest

import grokfast

PACKAGE = Path(grokfast.__file__).parent

#: Layers, lowest first; a module may import its own layer and those below.
LAYERS = [
    {
        "bounds",
        "errors",
        "hardware",
        "installation",
        "machines",
        "noise",
        "outcomes",
        "phases",
        "registry",
        "signals",
        "spacing",
        "storage",
    },
    {"tasks", "data"},
    {"experiment", "fields", "losses", "models", "observables", "optimizers"},
    {"grid", "presets", "ranges", "retyping"},
    {"batches", "bucket", "bucketing", "measuring", "observing", "schedule", "state"},
    {"engines"},
    {"cells", "layout", "plausible", "results", "aggregate", "views"},
    {"collect", "checkpoint", "preparing", "progress", "provenance"},
    {"planning", "replaying", "reproduced", "trainer"},
    {"merge", "agree", "analyses", "export", "figures", "bench", "doctor"},
    {"cluster"},
    {"cli", "__main__", "__init__"},
]
LAYER = {module: level for level, modules in enumerate(LAYERS) for module in modules}


def sources():
    return [p for p in PACKAGE.rglob("*.py") if "kernels" not in p.relative_to(PACKAGE).parts]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            # kernels/ does not know by which name it is installed.
            assert path.parent.name == "kernels", f"{path}: relative import"
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module in ("grokfast", "grokfast.engines"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    relative = path.relative_to(PACKAGE)
    own = relative.parts[0].removesuffix(".py")
    assert own in LAYER, f"{own} has no layer in this test"
    for module in imported(path):
        if module.startswith("grokfast.") and top(module) not in ("kernels", "_native"):
            assert LAYER[top(module)] <= LAYER[own], f"{relative} imports {module}"


def test_the_reference_imports_no_other_engine():
    for module in imported(PACKAGE / "engines" / "reference.py"):
        if module.startswith("grokfast.engines."):
            assert module.split(".")[2] in ("base", "facts", "support")


def test_nothing_but_the_engine_picker_knows_the_reference():
    for path in sources():
        if path.name != "reference.py":
            assert "grokfast.engines.reference" not in set(imported(path)), path


def test_kernels_import_only_torch_and_triton():
    for path in (PACKAGE / "kernels").glob("*.py"):
        for module in imported(path):
            root = module.split(".")[0]
            known = root in ("torch", "triton") or root in sys.stdlib_module_names
            assert known or module.startswith("grokfast.kernels"), f"{path.name} imports {module}"


def test_nothing_is_pickled():
    """A pickle is a program; what is read is data. Of NumPy and torch, too, where they would."""
    modules = {"pickle", "cPickle", "_pickle", "shelve", "dill", "cloudpickle", "joblib", "marshal"}
    readers = {("numpy", "load"), ("np", "load"), ("torch", "load"), ("torch", "save")}
    checkout = Path(__file__).parents[1]
    files = [p for top in ("bench", "csrc") for p in (checkout / top).rglob("*.py")]
    for path in [*PACKAGE.rglob("*.py"), *files]:
        assert not modules & {m.split(".")[0] for m in imported_anywhere(path)}, path
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            assert not given.get("allow_pickle"), path
            called = node.func
            if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
                assert (called.value.id, called.attr) not in readers, path
                assert called.attr not in ("read_pickle", "to_pickle"), path


def imported_anywhere(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
