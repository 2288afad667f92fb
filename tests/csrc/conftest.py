"""The native module under test, and what of its sources can be compiled here."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
import torch

CSRC = Path(__file__).resolve().parents[2] / "csrc"


@pytest.fixture(scope="session")
def native():
    torch.set_num_threads(1)
    return pytest.importorskip("grokfast._native")


@pytest.fixture(scope="session")
def build():
    """csrc/build.py as a module."""
    if not CSRC.is_dir():
        pytest.skip("no csrc/ beside the tests")
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    spec = importlib.util.spec_from_file_location("csrc_build", CSRC / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def objects(build, tmp_path_factory):
    """Folder with the objects of driver.cpp and the program, as shipped flags make them."""
    folder = tmp_path_factory.mktemp("objects")
    build.build_driver(folder, ["-fPIC"])
    return folder
