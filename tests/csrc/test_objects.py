"""The object files: no instruction where its level cannot be assumed; other machines."""

import os
import platform
import shutil
import subprocess

import pytest
from audit import shared_symbols, vex_encoded, widest_register

x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86-64 only")
LEVELS = {"level_baseline": 128, "level_avx2": 256, "level_avx512": 512}
COMMON = ["driver", "scheduler", "levels"]


@x86
@pytest.mark.parametrize("name", LEVELS)
def test_a_level_has_its_own_instructions(objects, name):
    assert widest_register(objects / f"{name}.o") == LEVELS[name]


@x86
@pytest.mark.parametrize("name", [*COMMON, "level_baseline"])
def test_common_code_runs_on_any_machine(objects, name):
    assert widest_register(objects / f"{name}.o") <= 128
    assert not vex_encoded(objects / f"{name}.o")


@x86
@pytest.mark.parametrize("name", LEVELS)
def test_a_level_shares_no_code(objects, name):
    # The linker keeps one copy of an inline function: were it that of AVX-512, all would need it.
    assert shared_symbols(objects / f"{name}.o") == set()


def test_the_driver(objects):
    ran = subprocess.run([objects / "driver"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


def test_registers_as_wide_as_those_of_avx512(build, tmp_path):
    # Tile shapes and padding of the AVX-512 level, in vectors made of whatever there is here.
    driver = build.build_driver(tmp_path, ["-O1", "-DGROKFAST_VECTOR_BYTES=64", "-Wno-psabi"])
    level = "baseline" if platform.machine() in ("x86_64", "AMD64") else "portable"
    ran = subprocess.run([driver, level], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


def test_aarch64(build, tmp_path, monkeypatch):
    compiler = "aarch64-linux-gnu-g++"
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} (Debian: apt install g++-aarch64-linux-gnu)")
    monkeypatch.setenv("CXX", compiler)
    driver = build.build_driver(tmp_path, ["-O1", "-static"], machine="aarch64")
    if shutil.which("qemu-aarch64") is None:
        pytest.skip("compiled; no qemu-aarch64 to run it (Debian: apt install qemu-user)")
    ran = subprocess.run(
        ["qemu-aarch64", driver, "portable", "6"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert ran.returncode == 0, ran.stdout
