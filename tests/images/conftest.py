"""Scripts of images/ as modules: they are run by path and belong to no package."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

IMAGES = Path(__file__).resolve().parents[2] / "images"


def load(name: str) -> ModuleType:
    """Return the script `name` of images/ as a module."""
    loader = importlib.machinery.SourceFileLoader(f"images_{Path(name).stem}", str(IMAGES / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    if spec is None:
        raise ImportError(name)
    module = importlib.util.module_from_spec(spec)
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # no __pycache__ beside a script
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = written
    return module


@pytest.fixture(scope="session")
def requirements_script() -> ModuleType:
    return load("requirements.py")


@pytest.fixture(scope="session")
def build_script() -> ModuleType:
    return load("build")
