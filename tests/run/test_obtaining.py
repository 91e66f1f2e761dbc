"""The record of a run is found wherever it is, late or not, and nothing else is taken for it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from engram.errors import ConfigurationError, DataError
from engram.metrics.http import StatusServer
from engram.report.record import Record
from engram.run import obtaining
from engram.run.obtaining import Kept, Miss, Served, obtain, source_of
from tests.report.conftest import build_record

UID = "11111111-2222-3333-4444-555555555555"


def record(uid: str = UID, **arguments: Any) -> Record:
    made = build_record(**arguments)
    made.job["metadata"]["uid"] = uid
    return made


def text(found: Record) -> bytes:
    return found.model_dump_json(by_alias=True).encode()


@dataclass
class Scripted:
    """A source that answers as it was told to, the last answer for ever."""

    name: str
    answers: list[bytes | Miss]
    asked: int = 0

    def read(self, seconds: float) -> bytes | Miss:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


@dataclass
class Clock:
    """Time that passes in pauses only."""

    now: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)


REFUSED, COMING = Miss("cannot be read (Connection refused)"), Miss("has none yet", coming=True)


def got(*sources: Scripted, seconds: float = 60.0, uid: str = UID) -> tuple[Record, str, Clock]:
    clock = Clock()
    found, source = obtain(sources, uid, seconds, clock, clock.pause)
    return found, source.name, clock


def refused(*sources: Scripted, seconds: float = 60.0) -> tuple[str, Clock]:
    clock = Clock()
    with pytest.raises(DataError) as caught:
        obtain(sources, UID, seconds, clock, clock.pause)
    assert caught.value.exit_code == 43
    assert "\n" not in str(caught.value)
    return str(caught.value), clock


def test_the_first_source_that_has_it_is_taken() -> None:
    served, kept = Scripted("http", [text(record())]), Scripted("file", [text(record(seed=1))])
    found, name, clock = got(served, kept)
    assert (found, name, clock.pauses, kept.asked) == (record(), "http", [], 0)


def test_it_is_asked_for_again_at_growing_intervals() -> None:
    found, _, clock = got(Scripted("http", [REFUSED, COMING, Miss("drops"), REFUSED, text(record())]))
    assert found == record()
    assert clock.pauses == [0.25, 0.5, 1.0, 2.0]


def test_a_living_aggregator_is_waited_for_and_a_dead_one_is_not() -> None:
    kept = Scripted("file", [text(record(seed=1))])
    assert got(Scripted("http", [COMING, COMING, text(record())]), kept)[1] == "http"
    assert kept.asked == 0
    assert got(Scripted("http", [COMING, REFUSED]), kept)[1] == "file"


def test_a_record_from_the_middle_of_the_run_counts_last() -> None:
    running = text(record(status="running", finished=2))
    served = Scripted("http", [REFUSED, REFUSED, text(record())])
    assert got(served, Scripted("file", [running]))[1] == "http"
    found, name, clock = got(Scripted("http", [REFUSED]), Scripted("file", [running]))
    assert (found.status, name, clock.now) == ("running", "file", 60.0)


def test_a_record_of_another_job_is_none() -> None:
    other = Scripted("file", [text(record("99999999"))])
    assert got(Scripted("http", [REFUSED, text(record())]), other)[1] == "http"
    said, clock = refused(other)
    assert "file is of another job (uid 99999999)" in said
    assert clock.now == 60.0
    assert got(other, uid="")[1] == "file"


def test_without_a_record_the_error_names_what_was_tried_and_what_to_set() -> None:
    said, clock = refused(Scripted("http://a:9464/v1/record", [REFUSED]), Scripted("/checkpoint", [REFUSED]))
    assert "http://a:9464/v1/record cannot be read (Connection refused); /checkpoint cannot be read" in said
    assert said.endswith(
        "raise spec.report.graceSeconds, or give spec.aggregator.checkpoint.volume, where it is kept"
    )
    assert clock.now == 60.0
    alone, _ = refused(Scripted("/checkpoint", [REFUSED]))
    assert alone.endswith("the run left none there: it was stopped before its first task was closed")
    assert refused(Scripted("http", [COMING]), seconds=0.0)[1].pauses == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "JSON"),
        (b"[1, 2]", "object"),
        (b'{"schema": "engram.record/v9"}', "schema"),
        (text(record())[:-1] + b', "energy": 1}', "energy"),
        (text(record())[:-1] + b', "' + b"x" * 10_000 + b'": 1}', "xxx"),
        (b"[" * 100_000, "JSON"),
        (b" " * (obtaining.MOST_BYTES + 1), "is larger than 64 MiB"),
    ],
)
def test_a_broken_record_is_said_at_once_and_the_next_source_is_asked(body: bytes, says: str) -> None:
    broken = Scripted("http", [body])
    said, clock = refused(broken)
    assert says in said
    assert said.endswith("let the image that ran the job make its report")
    assert len(said) < 400
    assert clock.pauses == []
    assert got(broken, Scripted("file", [text(record())]))[1] == "file"


def test_files_and_directories(tmp_path: Path) -> None:
    source = source_of(str(tmp_path))
    assert isinstance(source, Kept)
    missing = source.read(1.0)
    assert isinstance(missing, Miss)
    assert missing.why == "cannot be read (No such file or directory)"
    (tmp_path / "record.json").write_bytes(text(record()))
    assert source.read(1.0) == text(record())
    assert source_of(str(tmp_path / "record.json")).read(1.0) == text(record())
    assert source.name == str(tmp_path / "record.json")


@pytest.mark.parametrize("wrong", ["https://a/v1/record", "ftp://a", "http://", "http://a:b/", "http://[/"])
def test_other_urls_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--record: .* write http://HOST:PORT/v1/record"):
        source_of(wrong)


def test_an_aggregator_that_serves_it() -> None:
    held: dict[str, Any] = {"record": None}
    with StatusServer(CollectorRegistry(), dict, lambda: held["record"]) as server:
        source = source_of(f"http://127.0.0.1:{server.port}/v1/record")
        assert isinstance(source, Served)
        assert source.read(5.0) == Miss("has none yet", coming=True)
        held["record"] = record().model_dump(mode="json", by_alias=True)
        assert obtain([source], UID, 5.0) == (record(), source)
        held["record"] = {"bad": float("nan")}
        assert source.read(5.0) == Miss("answers 500", coming=True)
    closed = source.read(5.0)
    assert isinstance(closed, Miss)
    assert closed.why == "cannot be read (Connection refused)"


@contextmanager
def answering(script: Callable[[socket.socket], object]) -> Iterator[Served]:
    """Serve one connection by a script."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                script(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        yield Served("aggregator", "127.0.0.1", port, "/v1/record")
        thread.join(10)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: "


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (HEAD + b"1000\r\n\r\n{", "drops the connection"),
        (b"", "cannot be read (Remote end closed connection without response)"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "cannot be read (SSH-2.0-OpenSSH_9.2)"),
    ],
)
def test_a_connection_that_drops_is_worth_another_try(answer: bytes, why: str) -> None:
    with answering(lambda connection: connection.sendall(answer)) as source:
        assert source.read(5.0) == Miss(why)


def test_a_silent_peer_and_a_slow_one_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obtaining, "REQUEST_SECONDS", 0.2)
    done = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"100000\r\n\r\n")
        with suppress(OSError):
            while not done.wait(0.05):
                connection.sendall(b" ")

    with answering(drip) as source:
        assert source.read(0.1) == Miss("is too slow")
    with answering(lambda connection: done.wait(10)) as source:
        assert source.read(0.1) == Miss("does not answer")
        done.set()


def test_no_more_is_read_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obtaining, "MOST_BYTES", 1000)

    def flood(connection: socket.socket) -> None:
        with suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 50_000_000)

    with answering(flood) as source:
        body = source.read(5.0)
        assert isinstance(body, bytes)
        assert 1000 < len(body) <= 1000 + obtaining.CHUNK
