"""Print what an image installs, from the one list there is: pyproject.toml.

An image's dependencies are a layer of their own, made before engram's source is copied, so that a change of
the source rebuilds a megabyte and not PyTorch. pip installs the dependencies of a project only together with
the project; this script says them by themselves:

    python images/requirements.py train report                        # base dependencies and two extras
    python images/requirements.py operator --only pydantic pyyaml     # of the base dependencies only these

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def normalised(requirement: str) -> str:
    """Return the normalised name (PEP 503) of the distribution that `requirement` asks for."""
    found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement)
    if found is None:
        raise ValueError(f"{requirement!r} is not a requirement: write name>=version")
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def requirements(
    project: Mapping[str, Any], extras: Sequence[str], only: Sequence[str] | None = None
) -> list[str]:
    """Return the requirements of `extras` and of the base, sorted.

    `project` is the table of that name in pyproject.toml; `only` limits the base dependencies to these names.
    Raises ValueError for an extra or a name that the project does not have.
    """
    base = {normalised(item): item for item in project["dependencies"]}
    optional = project.get("optional-dependencies", {})
    unknown = [name for name in extras if name not in optional]
    unknown += [name for name in only or () if normalised(name) not in base]
    if unknown:
        raise ValueError(f"pyproject.toml has no {', '.join(unknown)}: name its extras and dependencies")
    chosen = base.values() if only is None else [base[normalised(name)] for name in only]
    return sorted({*chosen, *(item for name in extras for item in optional[name])})


def main() -> None:
    """Print one requirement a line."""
    parser = argparse.ArgumentParser(description="Print the requirements of an image.")
    parser.add_argument("extras", nargs="*", metavar="EXTRA")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of the base dependencies only these")
    parser.add_argument("--project", type=Path, default=Path("pyproject.toml"), metavar="FILE")
    arguments = parser.parse_args()
    project = tomllib.loads(arguments.project.read_text())["project"]
    try:
        sys.stdout.write("\n".join(requirements(project, arguments.extras, arguments.only)) + "\n")
    except ValueError as problem:
        parser.error(str(problem))


if __name__ == "__main__":
    main()
