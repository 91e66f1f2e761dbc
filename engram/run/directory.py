"""The run directory: where a run's files lie, and which directory a new or resumed run takes.

Choosing a directory creates nothing: a job that turns out to be wrong leaves nothing behind. `claim` creates
it, atomically for default names, so that two runs started at once never share one.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engram.errors import CheckpointError, ConfigurationError
from engram.spec.loader import load_yaml

RUNS = Path("runs")
"""Parent of default run directories, below the current directory."""

GRID_FILE = "grid.json"


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run (`job.yaml`, `record.json`, ...) below `path`."""

    path: Path

    @property
    def job(self) -> Path:
        """The resolved job file."""
        return self.path / "job.yaml"

    @property
    def record(self) -> Path:
        """The record that every number of the report comes from."""
        return self.path / "record.json"

    @property
    def matrix(self) -> Path:
        """The accuracy matrix, in the format of `engram metrics`."""
        return self.path / "matrix.json"

    @property
    def checkpoint(self) -> Path:
        """The aggregator's checkpoint."""
        return self.path / "checkpoint"

    def state_of(self, worker: str) -> Path:
        """What a worker keeps while the run goes on."""
        return self.state / worker

    @property
    def state(self) -> Path:
        """What the workers keep while the run goes on; gone when it is complete."""
        return self.path / "state"

    @property
    def logs(self) -> Path:
        """One log a process."""
        return self.path / "logs"

    @property
    def report(self) -> Path:
        """The report to open."""
        return self.path / "report.html"

    @property
    def grid(self) -> Path:
        """Present only in the directory of a grid: its cells and their values."""
        return self.path / GRID_FILE

    def holds_run(self) -> bool:
        """Tell whether a run, or a grid, was ever started here."""
        return self.job.exists() or self.record.exists() or self.grid.exists()

    def job_name(self) -> str | None:
        """Return the name of the job that was run here, None when that cannot be read."""
        try:
            return str(load_yaml(self.job.read_text(encoding="utf-8"), str(self.job))["metadata"]["name"])
        except (OSError, ConfigurationError, KeyError, TypeError):
            return None


@dataclass(frozen=True)
class Choice:
    """A directory to use, and whether it is claimed by creating it (`fresh`) or continued."""

    directory: RunDirectory
    fresh: bool
    explicit: bool
    """The user named it; otherwise it is below RUNS and may be renumbered."""
    existed: bool = False
    """It was there before, empty."""


def choose(name: str, out: Path | None, *, resume: bool, grid: bool) -> Choice:
    """Return the directory that a run of the job `name` is to use, creating nothing.

    Raises ConfigurationError when `out` already holds something and `resume` is not set, or when there is
    nothing to resume.
    """
    if out is not None:
        return _explicit(RunDirectory(out), resume=resume, grid=grid)
    if not resume:
        return Choice(RunDirectory(free_name(RUNS / name)), fresh=True, explicit=False)
    kind = "grid" if grid else "run"
    found = [
        directory
        for directory in (RunDirectory(path) for path in _numbered(RUNS / name))
        if directory.holds_run() and directory.grid.exists() == grid and directory.job_name() in (name, None)
    ]
    if not found:
        raise ConfigurationError(
            f"there is no {kind} of {name} to resume below {RUNS}/",
            field="--resume",
            remedy="leave --resume out, or name the run's directory with --out",
        )
    return Choice(
        max(found, key=lambda directory: _number(directory.path, name)), fresh=False, explicit=False
    )


def claim(choice: Choice, name: str) -> RunDirectory:
    """Create the chosen directory; a default name that was taken meanwhile becomes the next free one."""
    path = choice.directory.path
    try:
        if choice.explicit or not choice.fresh:
            path.mkdir(parents=True, exist_ok=True)
            return choice.directory
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                path.mkdir()
            except FileExistsError:
                path = free_name(RUNS / name)
            else:
                return RunDirectory(path)
    except OSError as error:
        raise ConfigurationError(
            f"cannot create {path}: {error.strerror}",
            field="--out",
            remedy="name a directory that can be written",
        ) from error


@contextmanager
def occupied(directory: RunDirectory) -> Iterator[None]:
    """Keep every other engram out of the directory within the block, also one with `--resume`.

    A lock of the kernel on the directory itself: it leaves no file and goes with the process, however that
    ends. Raises ConfigurationError when another process holds it.
    """
    handle = os.open(directory.path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigurationError(
            f"another engram run is at work in {directory.path}",
            field="--out",
            remedy="wait for its end, or name another directory",
        ) from error
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically: readers see the old text or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path}: cannot be written: {error.strerror}: make room, then --resume"
        ) from error


def _explicit(directory: RunDirectory, *, resume: bool, grid: bool) -> Choice:
    """Check a directory that the user named."""
    path = directory.path
    if path.exists() and not path.is_dir():
        raise ConfigurationError(f"{path} is a file", field="--out", remedy="name a directory")
    if resume:
        if not directory.holds_run():
            raise ConfigurationError(
                f"{path} holds no run to resume",
                field="--resume",
                remedy="leave --resume out, or correct --out",
            )
        if directory.grid.exists() != grid:
            held, wanted = ("a grid", "with") if directory.grid.exists() else ("a single run", "without")
            raise ConfigurationError(
                f"{path} holds {held}",
                field="--resume",
                remedy=f"resume it {wanted} the --vary it was made with",
            )
        return Choice(directory, fresh=False, explicit=True)
    if directory.holds_run():
        raise ConfigurationError(
            f"{path} already holds a run",
            field="--out",
            remedy="add --resume to continue it, or name another directory",
        )
    if path.exists() and any(path.iterdir()):
        raise ConfigurationError(
            f"{path} is not empty and holds no run", field="--out", remedy="name an empty or a new directory"
        )
    return Choice(directory, fresh=True, explicit=True, existed=path.exists())


def free_name(base: Path) -> Path:
    """Return `base`, or the first of base-2, base-3, ... that does not exist."""
    candidate, number = base, 1
    while candidate.exists():
        number += 1
        candidate = base.with_name(f"{base.name}-{number}")
    return candidate


def _numbered(base: Path) -> list[Path]:
    """Return the existing directories base, base-2, ..."""
    pattern = re.compile(re.escape(base.name) + r"(-\d+)?$")
    if not base.parent.is_dir():
        return []
    return [path for path in base.parent.iterdir() if pattern.fullmatch(path.name) and path.is_dir()]


def _number(path: Path, name: str) -> int:
    """Return 1 for `name`, n for `name-n`."""
    suffix = path.name[len(name) + 1 :]
    return int(suffix) if suffix else 1
