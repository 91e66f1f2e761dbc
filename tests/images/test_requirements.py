from __future__ import annotations

import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = {
    "dependencies": ["numpy>=1.26", "PyYAML>=6", "rich"],
    "optional-dependencies": {"train": ["torch>=2.5"], "operator": ["kopf>=1.44.6", "PyYAML>=6"]},
}


@pytest.mark.parametrize(
    ("extras", "only", "expected"),
    [
        (["train"], None, ["PyYAML>=6", "numpy>=1.26", "rich", "torch>=2.5"]),
        (["operator"], ["pyyaml"], ["PyYAML>=6", "kopf>=1.44.6"]),
        ([], [], []),
    ],
)
def test_extras_and_the_base_or_some_of_it(
    requirements_script: ModuleType, extras: list[str], only: list[str] | None, expected: list[str]
) -> None:
    assert requirements_script.requirements(PROJECT, extras, only) == expected


@pytest.mark.parametrize(("extras", "only"), [(["trian"], None), (["train"], ["torch"])])
def test_a_name_that_the_project_lacks_is_refused(
    requirements_script: ModuleType, extras: list[str], only: list[str] | None
) -> None:
    with pytest.raises(ValueError, match=r"pyproject\.toml has no"):
        requirements_script.requirements(PROJECT, extras, only)


def asked_of(dockerfile: Path) -> tuple[list[str], list[str] | None]:
    """Return extras and base dependencies that a Dockerfile asks requirements.py for."""
    found = re.search(r"requirements\.py ([a-z -]+) > requirements\.txt", dockerfile.read_text())
    assert found is not None, dockerfile
    extras, _, only = found[1].partition(" --only ")
    return extras.split(), only.split() or None


@pytest.mark.parametrize("image", ["runtime", "operator"])
def test_dockerfiles_ask_for_what_the_project_has(requirements_script: ModuleType, image: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras, only = asked_of(ROOT / "images" / image / "Dockerfile")
    assert requirements_script.requirements(project, extras, only)
