"""Real processes: transports agree, kills and interruptions change nothing, nothing is left behind."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds processes in /proc"),
]

Start = Callable[..., Any]
ROUNDS = 10


@pytest.fixture
def document() -> dict[str, Any]:
    """Small enough for a test, long enough to be interrupted; icarl carries the most state between tasks."""
    return {
        "apiVersion": "engram.dev/v1alpha1",
        "kind": "FederatedIncrementalJob",
        "metadata": {"name": "small"},
        "spec": {
            "dataset": {"partition": {"method": "iid"}},
            "tasks": {"count": 2, "classesPerTask": 2},
            "model": {"name": "cnn", "parameters": {"channels": [4], "dense": 8}},
            "training": {
                "roundsPerTask": ROUNDS // 2,
                "localSteps": 60,
                "batchSize": 8,
                "gradientClip": 5,
            },
            "algorithm": {"name": "icarl", "parameters": {"exemplarsPerWorker": 8}},
            "workers": [{"name": "edge", "replicas": 2}],
        },
    }


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Matrix and split digest of the undisturbed run, filled in by the first test that makes one."""
    return {}


def read(path: Path) -> Any:
    """Return the content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def result(directory: Path) -> tuple[Any, str]:
    """Return what must not change: the accuracy matrix and the digest of the split."""
    return read(directory / "matrix.json"), read(directory / "record.json")["split"]["digest"]


@pytest.fixture
def expected(engram: Start, job_file: Path, tmp_path: Path, reference: dict[str, Any]) -> tuple[Any, str]:
    """The result of the undisturbed run, in process."""
    if not reference:
        command = engram("run", str(job_file), "--out", "expected", "--transport", "in-process")
        assert command.end() == 0, command.errors
        reference["result"] = result(tmp_path / "expected")
        reference["lines"] = command.lines
    found: tuple[Any, str] = reference["result"]
    return found


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for a condition of the system that announces itself in no other way."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        pause.wait(0.02)


def test_both_transports_give_the_same_result(
    engram: Start, job_file: Path, tmp_path: Path, expected: tuple[Any, str], processes: Start
) -> None:
    command = engram("run", str(job_file), "--out", "run")
    assert command.end() == 0, command.errors
    run = tmp_path / "run"
    assert result(run) == expected
    assert sum(line.startswith("round ") for line in command.lines) == ROUNDS
    assert sum(line.startswith("task ") for line in command.lines) == 2
    assert command.lines[-1] == "report: run/report.html"
    assert processes("worker") == processes("aggregator") == []
    record = read(run / "record.json")
    assert record["status"] == "complete"
    assert record["environment"]["transport"] == "websocket"
    assert [worker["device"] for worker in record["workers"]] == ["cpu", "cpu"]
    assert record["cost"]["local_steps"] == ROUNDS * 2 * 60
    assert record["cost"]["bytes_down"] > 0
    assert record["cost"]["cpu_seconds"] > 1
    assert not (run / ".credentials").exists()
    assert yaml.safe_load((run / "job.yaml").read_text())["spec"]["seed"] == 0
    names = {path.name for path in run.iterdir()}
    assert {"job.yaml", "record.json", "matrix.json", "report.html", "report.md", "report.json"} < names
    assert {"leaderboard.csv", "figures", "checkpoint", "logs"} < names


@pytest.mark.parametrize("transport", ["websocket", "in-process"])
def test_ctrl_c_and_resume_change_nothing(
    engram: Start, job_file: Path, tmp_path: Path, expected: tuple[Any, str], processes: Start, transport: str
) -> None:
    command = engram("run", str(job_file), "--transport", transport)
    command.wait_for("round 3/")
    command.signal(signal.SIGINT)
    assert command.end() == 75, command.errors
    assert not any(line.startswith(f"round {ROUNDS}/") for line in command.lines)
    resume = f"engram run {job_file} --transport {transport} --out runs/small --resume"
    assert f"engram: interrupted; the checkpoint is saved. Continue: {resume}\n" in command.errors
    assert "Traceback" not in command.errors
    assert processes("worker") == processes("aggregator") == []
    assert read(tmp_path / "runs/small/record.json")["status"] == "interrupted"
    again = engram("run", str(job_file), "--transport", transport, "--resume")
    assert again.end() == 0, again.errors
    assert not any(line.startswith("round 1/") for line in again.lines)
    assert result(tmp_path / "runs/small") == expected
    record = read(tmp_path / "runs/small/record.json")
    assert record["history"]["faults"]["resumes"] == 1
    assert len(record["history"]["rounds"]) == ROUNDS


def test_killed_processes_come_back_and_change_nothing(
    engram: Start, job_file: Path, tmp_path: Path, expected: tuple[Any, str], processes: Start
) -> None:
    command = engram("run", str(job_file), "--out", "run")
    command.wait_for("round 2/")
    (aggregator,) = processes("aggregator")
    os.kill(aggregator, signal.SIGKILL)
    command.wait_for("note: aggregator ended (killed by signal 9")
    command.wait_for("round ")
    os.kill(processes("worker")[1], signal.SIGKILL)
    command.wait_for("note: trainworker-edge-")
    assert command.end() == 0, command.errors
    assert result(tmp_path / "run") == expected
    record = read(tmp_path / "run/record.json")
    assert sum(worker["restarts"] for worker in record["workers"]) == 1
    assert record["history"]["faults"]["resumes"] == 1


def test_killed_and_interrupted_processes_keep_what_compression_owes(
    engram: Start, job_file: Path, tmp_path: Path, processes: Start
) -> None:
    options = ("--set", "aggregation.compression=topk")
    command = engram("run", str(job_file), *options, "--out", "plain", "--transport", "in-process")
    assert command.end() == 0, command.errors
    command = engram("run", str(job_file), *options, "--out", "run")
    command.wait_for("round 2/")
    for worker in processes("worker"):
        os.kill(worker, signal.SIGKILL)
    command.wait_for("round 3/")
    (aggregator,) = processes("aggregator")
    os.kill(aggregator, signal.SIGKILL)
    command.wait_for("round 5/")
    command.signal(signal.SIGINT)
    assert command.end() == 75, command.errors
    kept = {path.parent.name for path in (tmp_path / "run/state").glob("*/residual-*.bin")}
    assert kept == {"trainworker-edge-0", "trainworker-edge-1"}
    again = engram("run", str(job_file), *options, "--out", "run", "--resume")
    assert again.end() == 0, again.errors
    assert result(tmp_path / "run") == result(tmp_path / "plain")
    record = read(tmp_path / "run/record.json")
    assert record["history"]["faults"]["resumes"] == 2
    assert not [note for note in record["history"]["faults"]["notes"] if "owed" in note]
    assert not (tmp_path / "run/state").exists()
    # The matrix is coarse; what was sent is not.
    rounds = [read(tmp_path / name / "record.json")["history"]["rounds"] for name in ("plain", "run")]
    losses = [
        [[part["metrics"]["loss"] for part in row["workers"].values()] for row in rows] for rows in rounds
    ]
    assert losses[0] == losses[1]


def check_secrets(folder: Path, pids: Sequence[int]) -> None:
    """Check that the secrets in `folder` are this user's alone and on nobody's command line."""
    secrets = [path.read_text() for path in folder.iterdir()]
    assert len(secrets) == len(pids) == 3
    assert folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
    for pid in pids:
        words = Path(f"/proc/{pid}/cmdline").read_text()
        assert not any(secret in words for secret in secrets)


def test_nothing_survives_a_killed_supervisor_and_resume_still_works(
    engram: Start, job_file: Path, tmp_path: Path, expected: tuple[Any, str], processes: Start
) -> None:
    command = engram("run", str(job_file), "--out", "run")
    command.wait_for("round 2/")
    check_secrets(tmp_path / "run" / ".credentials", processes("aggregator") + processes("worker"))
    command.signal(signal.SIGKILL)
    command.end()
    wait_until(lambda: not processes("worker") and not processes("aggregator"))
    again = engram("run", str(job_file), "--out", "run", "--resume", "--transport", "in-process")
    assert again.end() == 0, again.errors
    assert result(tmp_path / "run") == expected


def test_too_many_crashes_fail_the_run_and_leave_nothing_running(
    engram: Start, job_file: Path, tmp_path: Path, processes: Start
) -> None:
    command = engram("run", str(job_file), "--out", "run", "--set", "runPolicy.backoffLimit=0")
    command.wait_for("round 2/")
    os.kill(processes("worker")[0], signal.SIGKILL)
    assert command.end() == 1
    assert "failed 1 times without a round in between (runPolicy.backoffLimit is 0)" in command.errors
    assert "killed by signal 9" in command.errors
    assert processes("worker") == processes("aggregator") == []
    assert read(tmp_path / "run/record.json")["status"] == "failed"


@pytest.mark.parametrize("transport", ["websocket", "in-process"])
def test_a_loss_that_is_not_finite_names_worker_and_round(
    engram: Start, job_file: Path, tmp_path: Path, processes: Start, transport: str
) -> None:
    command = engram(
        "run", str(job_file), "--transport", transport,
        "--set", "training.optimizer.learningRate=1000", "--set", "training.gradientClip=null",
    )  # fmt: skip
    assert command.end() == 42
    assert "trainworker-edge-" in command.errors
    assert "round 1" in command.errors
    assert command.errors.startswith(f"engram: error: {job_file}: ")
    assert "learningRate" in command.errors
    assert "Traceback" not in command.errors
    assert not (tmp_path / "runs").exists()
    assert processes("worker") == processes("aggregator") == []


def limit_file_size(number: int) -> Callable[[], None]:
    """Return a hook that keeps a process and its children from writing larger files, as on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (number, resource.RLIM_INFINITY))


def test_a_full_disk_keeps_the_checkpoint_before(
    engram: Start, job_file: Path, tmp_path: Path, expected: tuple[Any, str]
) -> None:
    arguments = ("run", str(job_file), "--out", "run", "--transport", "in-process")
    first = engram(*arguments)
    first.wait_for("round 2/")
    first.signal(signal.SIGINT)
    assert first.end() == 75
    full = engram(*arguments, "--resume", before=limit_file_size(1024))
    assert full.end() == 42
    assert "engram: error: " in full.errors
    assert "checkpoint" in full.errors
    assert "--resume" in full.errors
    assert "Traceback" not in full.errors
    again = engram(*arguments, "--resume")
    assert again.end() == 0, again.errors
    assert result(tmp_path / "run") == expected


def test_a_full_disk_at_the_aggregator_ends_the_run_with_the_reason_and_room_lets_it_go_on(
    engram: Start, job_file: Path, tmp_path: Path, expected: tuple[Any, str], processes: Start
) -> None:
    first = engram("run", str(job_file), "--out", "run")
    first.wait_for("round 2/")
    first.signal(signal.SIGINT)
    assert first.end() == 75
    size = max(path.stat().st_size for path in (tmp_path / "run/checkpoint").glob("*.bin"))
    # The checkpoint grows with every round, and the record beside it; logs are smaller.
    full = engram("run", str(job_file), "--out", "run", "--resume", before=limit_file_size(size))
    assert full.end() == 42, full.errors
    assert "cannot be written: File too large: make room" in full.errors.replace(
        "; the one before is kept", ""
    )
    assert "Traceback" not in full.errors
    assert processes("worker") == processes("aggregator") == []
    again = engram("run", str(job_file), "--out", "run", "--resume")
    assert again.end() == 0, again.errors
    assert result(tmp_path / "run") == expected


def test_out_of_memory_says_what_to_lower(engram: Start, job_file: Path, tmp_path: Path) -> None:
    def limit_memory() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (6 << 30, resource.RLIM_INFINITY))

    command = engram(
        "run", str(job_file), "--transport", "in-process",
        "--set", "model.parameters.channels=[16384, 16384]",
        before=limit_memory,
    )  # fmt: skip
    assert command.end() == 42
    assert "out of memory: lower training.batchSize" in command.errors
    assert "Traceback" not in command.errors
    assert not (tmp_path / "runs").exists()


def test_a_taken_port_is_said_before_anything_starts(engram: Start, job_file: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = engram("run", str(job_file), "--port", str(port))
        assert command.end() == 42
    assert command.errors == (
        f"engram: error: --port: port {port} is taken: "
        "name another port, or leave --port out to use any free one\n"
    )
    assert not (tmp_path / "runs").exists()


def cells(command: Any) -> Sequence[str]:
    return [line for line in command.lines if line.startswith("[")]


def test_a_grid_goes_on_after_a_failed_cell_and_resumes_what_is_left(
    engram: Start, job_file: Path, tmp_path: Path
) -> None:
    arguments = (
        "run", str(job_file), "--transport", "in-process", "--out", "grid",
        "--set", "training.roundsPerTask=1",
        "--set", "training.gradientClip=null",
        "--vary", "training.optimizer.learningRate=1000,0.05",
    )  # fmt: skip
    command = engram(*arguments, "--jobs", "2")
    assert command.end() == 1
    assert "engram: error: 1 of 2 cells failed: learningRate=1000 (" in command.errors
    assert sum("FAILED" in line for line in cells(command)) == 1
    assert any(line.startswith("report: grid/report.html") for line in command.lines)
    assert {"grid.json", "leaderboard.csv", "learningRate=0.05", "logs", "jobs"} < {
        path.name for path in (tmp_path / "grid").iterdir()
    }
    before = (tmp_path / "grid/learningRate=0.05/record.json").stat().st_mtime_ns
    again = engram(*arguments, "--resume")
    assert again.end() == 1
    assert "learningRate=0.05: complete already" in again.lines
    assert len(cells(again)) == 1
    assert (tmp_path / "grid/learningRate=0.05/record.json").stat().st_mtime_ns == before


def test_cells_on_other_data_get_a_leaderboard_each_that_says_which(engram: Start, job_file: Path) -> None:
    command = engram(
        "run", str(job_file), "--transport", "in-process", "--out", "grid",
        "--vary", "tasks.count=1,2", "--vary", "seed=0,1",
    )  # fmt: skip
    assert command.end() == 0, command.errors
    assert "leaderboard 1 of 2: tasks.count=1" in command.lines
    assert "leaderboard 2 of 2: tasks.count=2" in command.lines
    assert "report: grid/leaderboard-2/report.html" in command.lines


def test_ctrl_c_in_a_grid_saves_the_cell_and_resume_finishes_it(
    engram: Start, job_file: Path, tmp_path: Path, expected: tuple[Any, str], processes: Start
) -> None:
    arguments = ("run", str(job_file), "--transport", "in-process", "--vary", "seed=0,1")
    command = engram(*arguments)
    command.wait_for("2 cells in runs/small")
    history = tmp_path / "runs/small/seed=0/checkpoint"
    wait_until(lambda: history.is_dir() and any(history.iterdir()))
    command.signal(signal.SIGINT)
    assert command.end() == 75
    typed = f"engram run {job_file} --transport in-process --vary seed=0,1"
    assert f"continue with: {typed} --out runs/small --resume" in command.errors
    assert processes("run") == []
    again = engram(*arguments, "--resume")
    assert again.end() == 0, again.errors
    assert result(tmp_path / "runs/small/seed=0") == expected
    assert any(line.startswith("report: runs/small/report.html") for line in again.lines)
