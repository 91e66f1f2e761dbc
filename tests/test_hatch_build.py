"""Building engram: with its compiled kernel where there is a compiler, and the reason where there is none."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "engram", "operator")


@pytest.fixture(scope="module")
def hook() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "hatch_build.py"))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Of a build before: it must not outlive one that fails."""
    path = tmp_path / "kernel.abi3.so"
    path.write_bytes(b"older")
    return path


def test_no_compiler(hook: dict[str, Any], target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    problem = hook["compile_kernel"](ROOT / hook["SOURCE"], target)
    assert problem == "no compiler: none of cc, gcc, clang is here, nor PyPI's ziglang"
    assert not target.exists()


def test_ziglang_where_nothing_else_is(hook: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert hook["compiler_of"]("")[:4] == [sys.executable, "-m", "ziglang", "cc"]


def test_a_compiler_that_is_not_there_or_fails(
    hook: dict[str, Any], target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(target.parent))
    (target.parent / "Python.h").touch()
    monkeypatch.setenv("CC", "/no/such/compiler -m64")
    problem = hook["compile_kernel"](ROOT / hook["SOURCE"], target)
    assert problem == "/no/such/compiler -m64: No such file or directory"
    monkeypatch.setenv("CC", f"{sys.executable} -c 'raise SystemExit(\"kernel.c:1: bad\")'")
    problem = hook["compile_kernel"](ROOT / hook["SOURCE"], target)
    assert problem.endswith(": kernel.c:1: bad")
    assert not target.exists()
    assert not list(target.parent.glob("*.partial"))


def test_no_headers(hook: dict[str, Any], target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "cc")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(target.parent))
    problem = hook["compile_kernel"](ROOT / hook["SOURCE"], target)
    assert problem == f"no Python.h in {target.parent}: on Debian 'apt-get install python3-dev'"


@pytest.mark.process
def test_a_wheel_with_the_kernel_and_one_without(hook: dict[str, Any], tmp_path: Path) -> None:
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__")
            )
        else:
            shutil.copy(ROOT / name, tmp_path)

    def built(**environment: str) -> tuple[Path, list[str]]:
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"]
        subprocess.run(command, cwd=tmp_path, env=os.environ | environment, check=True, capture_output=True)
        (wheel,) = (tmp_path / "dist").iterdir()
        wheel = wheel.rename(tmp_path / wheel.name)
        kernel = [name for name in zipfile.ZipFile(wheel).namelist() if "federation/_kernel" in name]
        return wheel, sorted(kernel)

    pure, kernel = built(HATCH_BUILD_NO_HOOKS="true")
    assert pure.name.endswith("-py3-none-any.whl")
    assert kernel == ["engram/federation/_kernel.pyi"]
    broken, kernel = built(CC="/no/such/compiler")
    assert broken.name == pure.name
    assert kernel == ["engram/federation/_kernel.pyi"]
    if problem := hook["compile_kernel"](ROOT / hook["SOURCE"], tmp_path / "kernel.so"):
        pytest.skip(problem)
    wheel, kernel = built()
    assert "-cp311-abi3-linux_" in wheel.name
    assert kernel == [hook["TARGET"], "engram/federation/_kernel.pyi"]
