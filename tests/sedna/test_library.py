"""KubeEdge's own library against us; only where it is installed (`make test-sedna`, docs/sedna.md).

It wants other versions of the same packages than engram does, so SEDNA_PYTHON names an interpreter that has
it. The package called sedna on PyPI is another project.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from engram.run.ports import Reservation
from engram.sedna.blind import BlindLearner
from tests.sedna.conftest import Clock, Known, Running, settings
from tests.sedna.test_worker import Adder, Working

PYTHON = os.environ.get("SEDNA_PYTHON", sys.executable)
WORKER = Path(__file__).with_name("library_worker.py")
AGGREGATOR = Path(__file__).with_name("library_aggregator.py")


@functools.cache
def missing(module: str) -> str:
    """Return why a test cannot run, empty when it can."""
    command = [PYTHON, "-W", "ignore", "-c", f"import {module}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode == 0:
        return ""
    said = (done.stderr.strip().splitlines() or ["no output"])[-1]
    return f"KubeEdge's Sedna is not importable by {PYTHON} ({said}); docs/sedna.md says how to install it"


def need(module: str) -> None:
    """Skip the test where the library, or what this part of it stands on, is not there."""
    if missing(module):
        pytest.skip(missing(module))


@pytest.fixture(autouse=True)
def _library() -> None:
    need("sedna.core.federated_learning")


pytestmark = [pytest.mark.sedna, pytest.mark.timeout(180)]


class Worker:
    """One process of the library."""

    def __init__(self, name: str, port: int, samples: int, folder: Path, seconds: float = 0.0) -> None:
        command = [PYTHON, "-W", "ignore", str(WORKER), name, str(port), str(samples), str(seconds)]
        self._process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def result(self) -> tuple[list[object], float]:
        """Return the weights of every round, and how long training took."""
        out, errors = self._process.communicate(timeout=120)
        assert self._process.returncode == 0, errors
        *rounds, last = out.splitlines()
        return [json.loads(line) for line in rounds], float(last.removeprefix("done "))

    def failure(self) -> str:
        """Return what it wrote on stderr when it failed."""
        _, errors = self._process.communicate(timeout=120)
        assert self._process.returncode != 0
        return errors

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=30)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(stack: ExitStack, *arguments: object, **options: object) -> Worker:
    worker = Worker(*arguments, **options)  # type: ignore[arg-type]
    stack.callback(worker.kill)
    return worker


@pytest.mark.parametrize("learner", [BlindLearner("split"), Known("split")], ids=["unknown", "known"])
def test_two_workers_of_the_library_train_two_rounds(
    learner: BlindLearner, tmp_path: Path, stack: ExitStack
) -> None:
    with Running(settings(), learner) as running:
        workers = [start(stack, f"w{i}", running.port, 100 * (i + 1), tmp_path) for i in range(2)]
        results = [worker.result() for worker in workers]
        outcome = running.result()
    assert outcome.reason == "complete"
    step = (100 * 1.0 + 200 * 2.0) / 300
    for rounds, seconds in results:
        first, second = rounds
        assert first[0][0] == pytest.approx([1 + step] * 3, abs=1e-5)  # type: ignore[index]
        assert second[1] == pytest.approx([2 * step] * 2, abs=1e-5)  # type: ignore[index]
        # Nobody answering LC_SERVER costs the library 12 s a round.
        assert seconds < 12
    assert running.events.rejected_for == []
    assert set(running.events.losses.values()) == {0.25}


def test_a_worker_of_the_library_that_is_killed_does_not_stop_the_other(
    tmp_path: Path, stack: ExitStack
) -> None:
    clock = Clock()
    rule = {"quorum": 1, "roundDeadlineSeconds": 900}
    with Running(settings(aggregation=rule), BlindLearner("split"), clock=clock) as running:
        killed = start(stack, "w0", running.port, 100, tmp_path, 60.0)
        running.events.wait_for(lambda: "trainworker-edge-0" in running.events.states)
        other = start(stack, "w1", running.port, 100, tmp_path)
        running.events.wait_for(lambda: "trainworker-edge-1" in running.events.states)
        killed.kill()
        for number in (1, 2):
            running.until_in("trainworker-edge-1")
            clock.skip(1000)
            running.until_closed(number)
        rounds, _ = other.result()
        assert len(rounds) == 2
        assert running.result().reason == "complete"


def test_a_worker_of_the_library_logs_why_its_update_is_refused(tmp_path: Path, stack: ExitStack) -> None:
    with Running(settings(1), Known("split")) as running:
        worker = start(stack, "w0", running.port, 0, tmp_path)
        assert "norm: num_samples is 0, at least 1 is needed" in worker.failure()
        assert running.events.rejected_for == ["norm"]


def test_our_workers_train_with_the_librarys_aggregator(tmp_path: Path, stack: ExitStack) -> None:
    need("sedna.service.server")
    with Reservation() as reserved:
        port = reserved.port
        command = [PYTHON, "-W", "ignore", str(AGGREGATOR), str(port), "2", "2"]
        server = stack.enter_context(
            subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path, text=True)
        )
        stack.callback(server.kill)
        learners = [Adder(1.0), Adder(3.0, samples=30)]
        workers = [
            Working(learner, lambda: f"127.0.0.1:{port}", f"w{index}")
            for index, learner in enumerate(learners)
        ]
        assert [worker.end() for worker in workers] == ["complete", "complete"]
        assert [learner.trained for learner in learners] == [[1, 2]] * 2
        assert server.communicate(timeout=60)[0].endswith("ended\n")
