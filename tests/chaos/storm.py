"""A run of `engram run` under SIGKILLs, and what it leaves beside a run without."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engram.federation.checkpoint import CheckpointStore
from engram.federation.tensors import digest_of
from engram.spec.loader import load_job
from tests.chaos.plan import AGGREGATOR, INSTANTS, WORKER, Kill

JOB = Path(__file__).parent / "job.yaml"
INSTANTS_FOLDER = JOB.parent / "instants"
PAUSE_SECONDS = 0.02
STANDSTILL_SECONDS = 120.0
"""A kill that cannot be carried out for so long, or a run that does not end by then, is a failure."""
ROUND = re.compile(r"^round (\d+)/", re.MULTILINE)


class Storm:
    """One run in `folder`, and the kills that it suffers."""

    def __init__(self, folder: Path, arguments: Sequence[str]) -> None:
        """Start `engram run` with `arguments`; its run directory is `folder/run`."""
        self.killed: Counter[str] = Counter()
        self.rounds_at_kills: list[int] = []
        """Rounds that were closed at each kill of the aggregator."""
        self._folder, self._armed = folder, folder / "armed"
        self._armed.mkdir(parents=True)
        path = os.pathsep.join(filter(None, (str(INSTANTS_FOLDER), os.environ.get("PYTHONPATH"))))
        self._output = (folder / "output").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "engram", "run", *arguments, "--out", "run"],
            cwd=folder,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path, "ENGRAM_CHAOS": str(self._armed)},
        )

    def __enter__(self) -> Storm:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind: its processes end with the supervisor."""
        self._process.kill()
        self._process.wait()
        self._output.close()

    def suffer(self, kills: Sequence[Kill]) -> None:
        """Carry out the kills one after the other. Raises RuntimeError when the run ends before."""
        for kill in kills:
            self._wait_for_rounds(kill.after_round)
            self._pass(kill.delay)
            if kill.of_aggregator and self.rounds_at_kills:
                self._wait_for_rounds(self.rounds_at_kills[-1] + 1)
            if kill.target in INSTANTS:
                self._strike(kill.target)
            else:
                self._kill(kill)
            self.killed[kill.words] += 1
            if kill.of_aggregator:
                self.rounds_at_kills.append(self.rounds)

    def end(self) -> None:
        """Wait for the end, as long as rounds are closed. Raises RuntimeError unless the run is complete."""
        code = None
        while code is None:
            closed = self.rounds
            try:
                code = self._process.wait(STANDSTILL_SECONDS)
            except subprocess.TimeoutExpired:
                if self.rounds == closed:
                    raise RuntimeError(f"the run does not end: {self._tail()}") from None
        if code:
            raise RuntimeError(f"the run ended with exit code {code}: {self._tail()}")

    @property
    def rounds(self) -> int:
        """Rounds that the aggregator has announced as closed, and thereby durable."""
        try:
            text = (self._folder / "run/logs/aggregator.log").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return 0
        return max((int(number) for number in ROUND.findall(text)), default=0)

    def _pass(self, seconds: float) -> None:
        """Let time pass, but no more than what is left of the open round."""
        end, closed = time.monotonic() + seconds, self.rounds
        self._wait(lambda: time.monotonic() >= end or self.rounds > closed, "time passed")

    def _strike(self, instant: str) -> None:
        """Let the next process that comes to the instant end itself there."""
        (self._armed / instant).touch()
        found = self._wait(lambda: list(self._armed.glob(f"{instant}.*")), f"{instant} reached")
        for path in found:
            self._wait_for_end(int(path.suffix[1:]))
            path.unlink()

    def _kill(self, kill: Kill) -> None:
        """Kill a process as it runs now."""
        if kill.target == AGGREGATOR:
            pid = self._wait(lambda: self._find("aggregator"), "the aggregator runs")[0]
        else:
            assert kill.target == WORKER
            pids = self._wait(lambda: self._find("worker"), "a worker runs")
            pid = pids[int(kill.choice * len(pids))]
        os.kill(pid, signal.SIGKILL)
        self._wait_for_end(pid)

    def _find(self, command: str) -> list[int]:
        """Return the processes of this run that `engram COMMAND` started, by their arguments."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_text(encoding="utf-8").split("\0")
                if (
                    words[1:4] == ["-m", "engram", command]
                    and path.with_name("cwd").readlink() == self._folder
                ):
                    found.append((words, int(path.parent.name)))
            except OSError:
                continue
        return [pid for _, pid in sorted(found)]

    def _wait_for_rounds(self, number: int) -> None:
        self._wait(lambda: self.rounds >= number, f"{number} rounds were closed")

    def _wait_for_end(self, pid: int) -> None:
        self._wait(lambda: not _lives(pid), f"process {pid} ended")

    def _wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for something that announces itself in no other way, and return it."""
        deadline, pause = time.monotonic() + STANDSTILL_SECONDS, threading.Event()
        while not (found := condition()):
            if self._process.poll() is not None:
                raise RuntimeError(f"the run ended before {what}: {self._tail()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"not {what} for {STANDSTILL_SECONDS:g} s: {self._tail()}")
            pause.wait(PAUSE_SECONDS)
        return found

    def _tail(self) -> str:
        return (self._folder / "output").read_text(encoding="utf-8", errors="replace")[-3000:]


def _lives(pid: int) -> bool:
    """Return whether a process runs; one that only waits to be noticed by its parent does not."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


@dataclass(frozen=True)
class Outcome:
    """What must not depend on kills: all that was measured, and the last model."""

    matrix: Any
    losses: dict[tuple[int, int], dict[str, float | None]] = field(repr=False)
    """By (task, round) and worker."""
    model: str
    """Digest of the final weights."""

    @classmethod
    def of(cls, directory: Path) -> Outcome:
        """Read it from a run directory."""
        found = CheckpointStore(directory / "checkpoint").load(load_job(directory / "job.yaml").digest())
        assert found is not None
        snapshot, _ = found
        rows = snapshot.history.rounds
        return cls(
            json.loads((directory / "matrix.json").read_text(encoding="utf-8")),
            {
                (row.task, row.round): {name: part.metrics.get("loss") for name, part in row.workers.items()}
                for row in rows
            },
            digest_of(snapshot.weights).hex(),
        )
