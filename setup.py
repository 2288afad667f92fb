"""Builds grokfast._native from csrc/ and maps kernels/ to grokfast.kernels; the rest is in
pyproject.toml. Without a compiler the package installs all the same, and says so."""

import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent


def source_plan() -> dict[str, list[str]]:
    """Source file, relative to this folder, -> its compiler flags on this machine."""
    spec = importlib.util.spec_from_file_location("build", HERE / "csrc" / "build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    return {os.path.relpath(path, HERE): flags for path, flags in build.plan().items()}


class BuildNative(build_ext):
    """Each file has flags of its own: one translation unit an instruction set."""

    def build_extension(self, ext: Extension) -> None:
        import pybind11

        try:
            plan = source_plan()

            def compile_one(source: str) -> str:
                return self.compiler.compile(
                    [source],
                    output_dir=self.build_temp,
                    include_dirs=[pybind11.get_include(), *self.include_dirs],
                    extra_postargs=plan[source],
                )[0]

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = list(pool.map(compile_one, plan))
            self.compiler.link_shared_object(
                objects,
                self.get_ext_fullpath(ext.name),
                target_lang="c++",
                extra_postargs=["-pthread"],
            )
        except Exception as error:  # distutils raises many kinds for a missing compiler
            if os.environ.get("GROKFAST_REQUIRE_NATIVE"):
                raise
            self.warn(
                f"the native engine was not built ({error}); grokfast will use the compiled "
                "engine. Install a C++17 compiler and Python's headers, then reinstall."
            )

    def get_source_files(self) -> list[str]:
        return [os.path.relpath(p, HERE) for p in sorted((HERE / "csrc").iterdir()) if p.is_file()]

    def get_outputs(self) -> list[str]:
        return [p for p in super().get_outputs() if Path(p).exists()]


setup(
    packages=[*find_packages(include=["grokfast", "grokfast.*"]), "grokfast.kernels"],
    package_dir={"grokfast.kernels": "kernels"},
    ext_modules=[Extension("grokfast._native", sorted(source_plan()), language="c++")],
    cmdclass={"build_ext": BuildNative},
)
