"""Maps kernels/ to grokfast.kernels. Everything else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["grokfast", "grokfast.*"]), "grokfast.kernels"],
    package_dir={"grokfast.kernels": "kernels"},
)
