"""The Local Controller's endpoint: what workers report, what they are answered, what becomes of it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.sedna.blind import BlindLearner
from engram.sedna.controller import ControllerClient
from engram.sedna.http import MOST_BYTES, Post, loss_of, read_post
from tests.sedna.conftest import Clock, Connect, Running, settings


def report(**changes: Any) -> dict[str, Any]:
    return {
        "name": "w0",
        "namespace": "default",
        "ownerName": "job",
        "ownerKind": "default",
        "kind": "train",
        "status": "running",
        "results": [{"format": "pb", "url": "/model.pb", "metrics": {"loss": [0.9, 0.25]}}],
        "ownerInfo": {"currentRound": 1, "sampleCount": 300, "startTime": "", "updateTime": ""},
        **changes,
    }


def post(port: int, path: str, body: bytes) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    status, answer = response.status, json.loads(response.read())
    connection.close()
    return status, answer


@pytest.fixture
def running() -> Iterator[Running]:
    with Running(settings(1), BlindLearner("split")) as running:
        yield running


def test_a_report_is_answered_and_its_loss_kept(running: Running, client: Connect) -> None:
    client(running, "w0").subscribe()
    status, answer = post(running.port, "/sedna/workers/w0/info", json.dumps(report()).encode())
    assert (status, answer) == (200, {})
    running.events.wait_for(lambda: running.events.losses == {"trainworker-edge-0": 0.25})


BAD: dict[str, tuple[str, bytes, int]] = {
    "another path": ("/sedna/workers/w0", b"{}", 404),
    "no JSON": ("/sedna/workers/w0/info", b"{", 400),
    "a list": ("/sedna/workers/w0/info", b"[]", 400),
    "too large": ("/sedna/workers/w0/info", b" " * (MOST_BYTES + 1), 413),
    "a stranger": ("/sedna/workers/w9/info", b"{}", 200),
}


@pytest.mark.parametrize(("path", "body", "status"), BAD.values(), ids=BAD.keys())
def test_bad_reports_harm_nobody(
    running: Running, client: Connect, path: str, body: bytes, status: int
) -> None:
    worker = client(running, "w0").subscribe()
    assert post(running.port, path, body)[0] == status
    worker.upload([[1.0]])
    assert worker.weights()["round_number"] == 1


def test_a_request_in_pieces_is_put_together(running: Running) -> None:
    body = json.dumps(report()).encode()
    head = f"POST /sedna/workers/w0/info HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in (b"PO", b"ST /sedna/", head[12:], body[:7], body[7:]):
            raw.sendall(piece)
        with raw.makefile("rb") as answer:
            assert answer.readline() == b"HTTP/1.1 200 OK\r\n"


def test_a_worker_without_reports_beats_as_long_as_it_is_there(client: Connect) -> None:
    clock = Clock()
    with Running(settings(1), BlindLearner("split"), clock=clock) as running:
        worker = client(running, "w0").subscribe()
        running.events.wait_for(lambda: "trainworker-edge-0" in running.events.beats)
        running.events.beats.clear()
        clock.skip(11)
        running.events.wait_for(lambda: bool(running.events.beats))
        assert running.events.beats["trainworker-edge-0"].state == "training"
        worker.upload([[1.0]])


@pytest.mark.parametrize(
    ("metrics", "loss"),
    [
        (0.5, 0.5),
        ({"loss": 1}, 1.0),
        ({"loss": [3.0, 2.0]}, 2.0),
        ({"accuracy": 1.0}, None),
        ({"loss": "low"}, None),
        ({"loss": float("nan")}, None),
        (True, None),
        (None, None),
    ],
)
def test_losses(metrics: Any, loss: float | None) -> None:
    assert loss_of([{"metrics": metrics}]) == loss


def test_no_results() -> None:
    assert loss_of(None) is None
    assert loss_of([1, {}]) is None


@given(st.binary(max_size=200), st.integers(0, 50))
def test_any_bytes_are_a_request_a_refusal_or_not_all_there(data: bytes, cut: int) -> None:
    read_post(data)
    whole = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data)
    assert read_post(whole) == Post("/", data)
    if data:
        assert read_post(whole[: -1 - cut % len(data)]) is None


class Controller(BaseHTTPRequestHandler):
    """A Local Controller that keeps what it is told."""

    told: ClassVar[list[tuple[str, Any]]]
    done: ClassVar[threading.Event]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.told.append((self.path, json.loads(body)))
        self.send_response(200)
        self.end_headers()
        self.done.set()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def test_our_worker_reports_as_sednas_does() -> None:
    class Kept(Controller):
        told: ClassVar[list[tuple[str, Any]]] = []
        done = threading.Event()

    server = HTTPServer(("127.0.0.1", 0), Kept)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        ControllerClient(url, "w0", "job", "lab", 300).report(2, 0.5, last=True)
        assert Kept.done.wait(10)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    [(path, message)] = Kept.told
    assert path == "/sedna/workers/w0/info"
    assert message.keys() == report().keys()
    assert message["status"] == "completed"
    assert message["ownerInfo"].keys() == report()["ownerInfo"].keys()
    assert message["ownerInfo"]["currentRound"] == 2
    assert message["results"][0]["metrics"] == {"loss": 0.5}


def test_a_controller_that_is_not_there_costs_nothing() -> None:
    client = ControllerClient("http://127.0.0.1:1", "w0", "job", "lab", 300)
    client.report(1, None, last=False)
