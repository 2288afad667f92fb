"""A source tree that Python finds before the installed package says that it is one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import grokfast as gf


@pytest.fixture
def tree(tmp_path):
    """A checkout: the modules without what is made when they are installed."""
    made = shutil.ignore_patterns("_native*", "kernels", "__pycache__")
    shutil.copytree(Path(gf.__file__).parent, tmp_path / "grokfast", ignore=made)
    (tmp_path / "setup.py").touch()
    return tmp_path


def test_a_source_tree_says_that_it_is_one(tree):
    code = """
import grokfast as gf
from grokfast.engines import make_engine
for name in ("native", "triton"):
    try:
        make_engine(name)
    except gf.GrokfastError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True)
    native, triton = done.stdout.splitlines()
    assert f"native engine is missing: this grokfast is the source tree {tree}" in native
    assert "make setup there installs it; start Python in another folder, or with -P" in native
    assert "compiler" not in native
    assert "source tree" in triton or "needs triton" in triton
    done = subprocess.run(
        [sys.executable, "-m", "grokfast", "doctor"], cwd=tree, capture_output=True, text=True
    )
    assert "instruction set: unknown: the native engine is missing: this grokfast is" in (
        done.stdout
    )


def test_an_installation_without_a_part_says_what_it_takes(tree):
    (tree / "setup.py").unlink()
    code = "from grokfast.engines import make_engine; make_engine('native')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True)
    assert "the native engine was not built" in done.stderr
    assert "install a C++17 compiler and reinstall grokfast" in done.stderr


def test_version():
    from importlib.metadata import version

    assert gf.__version__ == version("grokfast")
