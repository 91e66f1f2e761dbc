"""What the images install: pinned to the last, and for the operator no more than it imports."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from types import ModuleType

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PINNED_BY_TORCH = re.compile(r"nvidia-|triton|cuda-")
"""PyTorch's CUDA build pins these exactly in its own metadata."""
BUILD_TOOLS = ("pip", "hatchling", "ziglang")
"""Installed by the Dockerfiles beside the requirements, to build with."""


def closure(names: Iterable[str]) -> set[str]:
    """Return all distributions that `names` need, themselves included, on any supported Python."""
    found: set[str] = set()
    open_names = {canonicalize_name(Requirement(name).name) for name in names}
    while open_names:
        name = open_names.pop()
        found.add(name)
        try:
            needs = [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:
            continue  # of another Python or platform
        for need in needs:
            here: dict[str, str] = {**default_environment(), "extra": ""}  # type: ignore[dict-item]
            environments = [here | {"python_version": version} for version in ("3.11", "3.12")]
            if need.marker is None or any(need.marker.evaluate(item) for item in environments):
                open_names |= {canonicalize_name(need.name)} - found
    return {name for name in found if not PINNED_BY_TORCH.match(name)}


@pytest.fixture(scope="module")
def pins() -> set[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {canonicalize_name(line.partition("==")[0]) for line in lines if "==" in line}


@pytest.mark.parametrize(
    ("extras", "only"),
    [
        (["train", "report"], None),
        (["train", "report", "sedna"], None),
        (["operator"], ["prometheus-client", "pydantic", "pyyaml"]),
    ],
    ids=["runtime", "runtime with Sedna", "operator"],
)
def test_everything_an_image_installs_is_pinned(
    requirements_script: ModuleType, pins: set[str], extras: list[str], only: list[str] | None
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = requirements_script.requirements(project, extras, only)
    assert sorted(closure(wanted) - pins) == []


@pytest.mark.parametrize("tool", BUILD_TOOLS)
def test_what_builds_the_images_is_pinned(pins: set[str], tool: str) -> None:
    assert sorted(closure([tool]) - pins) == []


def test_the_operator_imports_only_what_its_image_has(requirements_script: ModuleType) -> None:
    removed = re.findall(r"kubernetes/\S+", (ROOT / "images/operator/Dockerfile").read_text())
    assert len(removed) == 4
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = requirements_script.requirements(
        project, ["operator"], ["prometheus-client", "pydantic", "pyyaml"]
    )
    absent = sorted(closure(project["dependencies"]) - closure(wanted))
    assert "numpy" in absent
    absent = [name.replace("-", "_") for name in absent]
    packages = [name.replace("/", ".") for name in removed]
    code = (
        "import pkgutil, sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name in {absent!r} or name.rpartition('.')[0] in {packages!r}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import engram_operator\n"
        "for module in pkgutil.walk_packages(engram_operator.__path__, 'engram_operator.'):\n"
        "    __import__(module.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
