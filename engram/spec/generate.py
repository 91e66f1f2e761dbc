"""`python -m engram.spec.generate [--check] [ROOT]`: write what is made from the types, or say what is stale.

Writes `crds/engram.dev_federatedincrementaljobs.yaml`, `docs/reference/job.md` and
`docs/reference/reasons.md` below ROOT (the repository that this file lies in). With `--check` nothing is
written, and the exit code is 1 when a file differs from what would be.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from engram.spec.crd import render_crd
from engram.spec.names import GROUP, PLURAL
from engram.spec.reference import render_job, render_reasons

ROOT = Path(__file__).parents[2]

FILES: dict[str, Callable[[], str]] = {
    f"crds/{GROUP}_{PLURAL}.yaml": render_crd,
    "docs/reference/job.md": render_job,
    "docs/reference/reasons.md": render_reasons,
}
"""Every generated file, relative to the repository, and what makes it."""


def stale_files(root: Path) -> list[str]:
    """Return the generated files below `root` that are missing or differ from what the types say."""
    return [name for name, render in FILES.items() if _text(root / name) != render()]


def write_files(root: Path) -> list[str]:
    """Write the generated files that are stale; return their names."""
    stale = stale_files(root)
    for name in stale:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FILES[name](), encoding="utf-8")
    return stale


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m engram.spec.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is stale")
    parser.add_argument("root", nargs="?", type=Path, default=ROOT, help="the repository")
    options = parser.parse_args(arguments)
    if options.check:
        stale = stale_files(options.root)
        for name in stale:
            print(f"{name} is stale: run `make generate`", file=sys.stderr)
        return 1 if stale else 0
    for name in write_files(options.root):
        print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
