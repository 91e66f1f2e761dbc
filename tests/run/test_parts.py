"""Small parts of the runner: identities, ports, places, lines, the display's words."""

from __future__ import annotations

import io
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from engram.errors import ConfigurationError, PortTakenError
from engram.federation.history import Counts, History, RoundRow, TaskRow, WorkerRound
from engram.run.composition import Place
from engram.run.display import Display, LiveDisplay, PlainDisplay, duration, headline, open_display, panel
from engram.run.endpoints import Endpoints
from engram.run.identity import find_worker, read_key
from engram.run.observers import Lines, size
from engram.run.ports import LOOPBACK, Reservation
from engram.run.recording import write_job
from engram.run.runner import resume_command
from engram.run.source import FOLDER_ANNOTATION, load_mapping, place_of, with_origin
from engram.run.stop import Stop
from engram.run.watch import LineTail
from engram.run.worker import missing_gpu
from engram.spec import parse_job


def listener(port: int) -> socket.socket:
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind((LOOPBACK, port))
    found.listen()
    return found


def test_a_reserved_port_can_be_listened_on_again_and_again() -> None:
    with Reservation() as reservation:
        for _ in range(2):
            with listener(reservation.port):
                pass


def test_a_port_with_a_server_is_taken() -> None:
    with (
        Reservation() as free,
        listener(free.port),
        pytest.raises(PortTakenError, match=f"--port: port {free.port} is taken"),
    ):
        Reservation(free.port)


def test_reserved_ports_differ() -> None:
    with Reservation() as first, Reservation() as second:
        assert first.port != second.port


@pytest.mark.parametrize(
    ("name", "index", "expected"),
    [("trainworker-edge-1", None, 1), ("", 1, 1), ("", 2, 2), ("trainworker-cloud-0", None, 2)],
)
def test_workers_are_found_by_name_or_index(
    document: dict[str, Any], name: str, index: int | None, expected: int
) -> None:
    document["spec"]["workers"].append({"name": "cloud", "replicas": 1})
    assert find_worker(parse_job(document), name=name, index=index).position == expected


@pytest.mark.parametrize(
    ("name", "index"), [("trainworker-edge-9", None), ("", 9), ("", None), ("bob", None)]
)
def test_an_unknown_worker_is_told_who_there_is(
    document: dict[str, Any], name: str, index: int | None
) -> None:
    with pytest.raises(
        ConfigurationError, match=r"trainworker-edge-0 \.\.\. trainworker-edge-1, indices 0 to 1"
    ):
        find_worker(parse_job(document), name=name, index=index)


def test_an_elastic_group_takes_newcomers(document: dict[str, Any]) -> None:
    document["spec"]["dataset"] = {"name": "npz", "path": "x", "partition": {"method": "local"}}
    found = find_worker(parse_job(document), name="trainworker-edge-5")
    assert (found.group, found.index, found.position) == ("edge", 5, 5)


@pytest.mark.parametrize(
    ("volume", "path", "mount", "expected"),
    [
        ({}, "", None, None),
        ({}, "sets/x", None, "/jobs/sets/x"),
        ({}, "/abs", None, "/abs"),
        ({"hostPath": {"path": "/data"}}, "", None, "/data"),
        ({"hostPath": {"path": "/data"}}, "x", None, "/data/x"),
        ({"persistentVolumeClaim": {"claimName": "c"}}, "x", None, "/jobs/x"),
        ({"persistentVolumeClaim": {"claimName": "c"}}, "", None, None),
        ({"persistentVolumeClaim": {"claimName": "c"}}, "x", "/mnt", "/mnt/x"),
        ({"hostPath": {"path": "/data"}}, "x", "/mnt", "/mnt/x"),
    ],
)
def test_where_data_are(volume: dict[str, Any], path: str, mount: str | None, expected: str | None) -> None:
    found = Place(Path("/jobs"), Path(mount) if mount else None).data_root(volume, path)
    assert found == (Path(expected) if expected else None)


def test_a_copied_job_remembers_the_folder_it_came_from(document: dict[str, Any], tmp_path: Path) -> None:
    copied = parse_job(with_origin(parse_job(document).dump(), tmp_path))
    assert copied.digest() == parse_job(document).digest()
    assert place_of(copied, Path("/elsewhere/job.yaml")).folder == tmp_path
    gone = parse_job(with_origin(parse_job(document).dump(), tmp_path / "gone"))
    assert place_of(gone, tmp_path / "job.yaml").folder == tmp_path
    assert FOLDER_ANNOTATION in with_origin(copied.dump(), tmp_path)["metadata"]["annotations"]


def test_the_job_of_a_run_directory_is_read_back_as_it_was(document: dict[str, Any], tmp_path: Path) -> None:
    environment = [{"name": "learning_rate", "value": "1e-3"}, {"name": "on", "value": "012"}]
    pod = {"spec": {"containers": [{"name": "main", "env": environment}]}}
    document["spec"]["workers"][0]["podTemplate"] = pod
    resolved = parse_job(document).dump()
    write_job(tmp_path / "resolved.yaml", resolved)
    assert load_mapping(tmp_path / "resolved.yaml") == resolved


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["engram", "run", "j.yaml"], "engram run j.yaml --out r --resume"),
        (
            ["engram", "run", "j.yaml", "--out", "x", "--set", "seed=1"],
            "engram run j.yaml --set seed=1 --out r --resume",
        ),
        (["engram", "run", "--out=x", "j y.yaml", "--resume"], "engram run 'j y.yaml' --out r --resume"),
    ],
)
def test_the_command_that_resumes(command: list[str], expected: str) -> None:
    assert resume_command(command, Path("r")) == expected


def test_endpoints_come_from_options_or_from_file_and_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "endpoints"
    ask = Endpoints((), file)
    with pytest.raises(ConfigurationError, match="AGG_IP"):
        ask()
    monkeypatch.setenv("AGG_IP", "10.0.0.1")
    assert ask() == ("10.0.0.1:7363",)
    monkeypatch.setenv("AGG_PORT", "30000")
    assert ask() == ("10.0.0.1:30000",)
    monkeypatch.setenv("ENGRAM_AGGREGATOR_ENDPOINTS", "a:1, b:2")
    assert ask() == ("a:1", "b:2", "10.0.0.1:30000")
    file.write_text("c:3\n\n10.0.0.1:30000\n")
    assert ask() == ("c:3", "10.0.0.1:30000", "a:1", "b:2")
    file.unlink()
    assert ask() == ("c:3", "10.0.0.1:30000", "a:1", "b:2"), "they stand where the volume is emptied"
    assert Endpoints(("d:4",), file)() == ("d:4",)
    with pytest.raises(ConfigurationError, match="write d:7363"):
        Endpoints(("d",))()


def test_a_gpu_group_without_a_gpu_says_why(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    document["spec"]["workers"][0]["gpus"] = {"count": 2}
    job = parse_job(document)
    (worker, *_) = job.workers()
    assert missing_gpu(job, worker, "cuda") == ""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    said = missing_gpu(job, worker, "cpu")
    assert said == "2 nvidia.com/gpu asked for, but training runs on the CPU: CUDA_VISIBLE_DEVICES hides them"
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is built without CUDA: give the group an image with it" in missing_gpu(job, worker, "cpu")
    document["spec"]["workers"][0]["gpus"] = {"count": 0}
    assert missing_gpu(parse_job(document), worker, "cpu") == ""


def test_the_line_of_a_task_that_nobody_here_could_evaluate() -> None:
    lines: list[str] = []
    row = TaskRow(task=1, classes=[], started=0, seconds={}, counts=Counts(right={}, total={}), workers={})
    Lines([[]], [2], lines.append).task_closed(row, History(tasks=[row]))
    assert lines == ["task 1/1 done, not evaluated: only the workers know model and data"]


def test_lines_of_rounds_and_tasks() -> None:
    lines: list[str] = []
    observer = Lines([[0, 1], [2, 3]], [2, 2], lines.append)
    part = WorkerRound(outcome="accepted", samples=3, metrics={"loss": 0.5}, bytes_down=1000, bytes_up=500)
    absent = WorkerRound(outcome="absent")
    row = RoundRow(
        task=2,
        round=1,
        started=0,
        seconds={"train": 1.0, "aggregate": 0.5},
        workers={"a": part, "b": absent},
        degraded=True,
        counts=Counts(right={0: 5, 1: 5}, total={0: 10, 1: 10}),
    )
    observer.round_closed(row, History())
    assert lines == [
        "round 3/4  task 2/2  1 of 2 updates (degraded)  loss 0.5000  accuracy 50.0%  1.5 kB  1.5 s"
    ]
    lines.clear()
    ten = dict.fromkeys(range(4), 10)
    rights = ({0: 9, 1: 9}, {0: 5, 1: 5, 2: 10, 3: 10})
    done = [
        TaskRow(
            task=number,
            classes=[2 * number - 2, 2 * number - 1],
            started=0,
            seconds={},
            workers={},
            counts=Counts(right=right, total={label: ten[label] for label in right}),
        )
        for number, right in enumerate(rights, start=1)
    ]
    observer.task_closed(done[1], History(tasks=done))
    assert lines == ["task 2/2 done: accuracy 75.0% over 4 classes, newest 100.0%, forget rate 40.0%"]


def test_a_tail_gives_whole_lines_of_its_own_run(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("round 1/9 of the run before\n")
    tail = LineTail(log)
    assert tail.read() == []
    with log.open("a") as file:
        file.write("listening\nround 2/9\ntask 1")
        file.flush()
        assert tail.read() == ["round 2/9"]
        file.write("/2 done\n")
        file.flush()
        assert tail.read() == ["task 1/2 done"]
        assert tail.read() == []
        assert tail.newest == "task 1/2 done"
    assert LineTail(tmp_path / "none").read() == []


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e13, "25.0 TB")]
)
def test_sizes(number: float, text: str) -> None:
    assert size(number) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (65, "1 min 05 s"), (3720, "1 h 02 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_headline_has_what_matters() -> None:
    status = {
        "progress": {"secondsLeft": 90, "percent": 40},
        "display": {"task": "2/5", "round": "7/30", "accuracy": "93.1%", "forgetting": "4.2%"},
        "transfer": {"bytesDown": 1000, "bytesUp": 500},
    }
    assert headline(status) == [
        "task 2/5", "round 7/30", "accuracy 93.1%", "forgetting 4.2%", "1.5 kB", "1 min 30 s left",
    ]  # fmt: skip
    assert headline({}) == ["starting"]
    assert headline({**status, "phase": "Starting"}) == ["starting"]


@pytest.mark.parametrize(("term", "kind"), [("xterm", LiveDisplay), ("dumb", PlainDisplay)])
def test_a_terminal_that_cannot_redraw_gets_lines(
    monkeypatch: pytest.MonkeyPatch, term: str, kind: type[Display]
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert type(open_display("digits", quiet=False)) is kind


def test_the_panel_shows_workers_in_their_places() -> None:
    status = {
        "progress": {"percent": 40},
        "display": {"task": "2/5", "workers": "13/14"},
        "workerStatuses": [
            {"name": f"trainworker-edge-{index}", "state": "training", "percent": 50, "loss": "0.1"}
            for index in reversed(range(14))
        ],
    }
    console = Console(width=100, file=io.StringIO())
    with console.capture() as capture:
        console.print(panel("digits", status))
    lines = capture.get().splitlines()
    assert "digits" in lines[0]
    assert "task 2/5" in lines[1]
    shown = [word for line in lines for word in line.split() if word.startswith("trainworker")]
    assert shown == [f"trainworker-edge-{index}" for index in range(12)]
    assert "trainworker" not in lines[2], "the bar has a line of its own"
    assert "and 2 more" in lines[-2]
    assert "workers 13/14" in lines[-1]
    with console.capture() as capture:
        console.print(panel("digits", {}))
    assert "starting" in capture.get()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), ("", "is empty"), ("xyz", "not hexadecimal"), ("0g", "not hexadecimal")],
)
def test_keys_that_cannot_be_used(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "key").write_text(content)
    with pytest.raises(ConfigurationError, match=message):
        read_key(tmp_path / "key")


def test_the_first_signal_asks_and_the_second_insists() -> None:
    stop = Stop()
    with stop.on_signals():
        assert not stop()
        signal.raise_signal(signal.SIGINT)
        assert stop()
        assert not stop.at_once
        signal.raise_signal(signal.SIGTERM)
        assert stop.at_once


def test_a_second_signal_may_interrupt_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    stop = Stop()
    with stop.on_signals(raise_second=True):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    found: list[Any] = []

    def look() -> None:
        with Stop().on_signals():
            found.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]
