from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge

from engram.errors import ConfigurationError, PortTakenError
from engram.metrics import http as http_port
from engram.metrics.http import MAX_CONNECTIONS, POLL_SECONDS, StatusServer


class Source:
    status: dict[str, Any]
    record: dict[str, Any] | None

    def __init__(self) -> None:
        self.status, self.record = {"phase": "Running"}, None


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def server(source: Source) -> Iterator[StatusServer]:
    registry = CollectorRegistry()
    Gauge("engram_task", "Task", registry=registry).set(3)
    with StatusServer(registry, lambda: source.status, lambda: source.record) as running:
        yield running


def ask(server: StatusServer, path: str, method: str = "GET", body: bytes = b"") -> tuple[int, Any, Any]:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=5)
    try:
        connection.request(method, path, body or None)
        answer = connection.getresponse()
        text = answer.read()
        kind = answer.headers.get_content_type()
        return answer.status, answer.headers, json.loads(text) if text and kind.endswith("json") else text
    finally:
        connection.close()


def test_metrics(server: StatusServer) -> None:
    status, headers, body = ask(server, "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    assert b"engram_task 3.0" in body


def test_health_status_and_record(server: StatusServer, source: Source) -> None:
    assert ask(server, "/healthz")[::2] == (200, {"status": "ok"})
    assert ask(server, "/v1/status")[::2] == (200, {"phase": "Running"})
    assert ask(server, "/v1/record")[0] == 404
    source.record = {"schema": "engram.record/v1"}
    assert ask(server, "/v1/record?pretty")[::2] == (200, {"schema": "engram.record/v1"})


@pytest.mark.parametrize("path", ["/", "/v1", "/metrics/", "/../etc/passwd", "/v1/status/x"])
def test_other_paths_are_404_in_json(server: StatusServer, path: str) -> None:
    status, headers, body = ask(server, path)
    assert (status, headers["Content-Type"]) == (404, "application/json")
    assert "/v1/status" in body["error"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "BREW"])
def test_other_methods_are_405(server: StatusServer, method: str) -> None:
    status, headers, body = ask(server, "/v1/status", method, b"x" if method == "POST" else b"")
    assert (status, headers["Allow"]) == (405, "GET")
    assert method == "HEAD" or body == {"error": "only GET is answered here"}


def test_nothing_is_told_about_the_software(server: StatusServer) -> None:
    assert "Python" not in str(ask(server, "/healthz")[1])


def test_a_failing_source_is_500_and_the_server_lives(server: StatusServer, source: Source) -> None:
    source.status = {"bad": float("nan")}
    status, _, body = ask(server, "/v1/status")
    assert status == 500
    assert "ValueError" in body["error"]
    assert ask(server, "/healthz")[0] == 200


def test_garbage_is_answered_in_json_and_does_no_harm(server: StatusServer) -> None:
    for text in (b"\x00\x01\r\n\r\n", b"GET\r\n\r\n", b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n"):
        with socket.create_connection((server.host, server.port), timeout=5) as connection:
            connection.sendall(text)
            answer = connection.makefile("rb").read()
        assert answer == b"" or json.loads(answer.partition(b"\r\n\r\n")[2] or answer.splitlines()[-1])
    assert ask(server, "/healthz")[0] == 200


def test_idle_connections_do_not_lock_others_out(server: StatusServer) -> None:
    idle = [socket.create_connection((server.host, server.port)) for _ in range(MAX_CONNECTIONS - 1)]
    try:
        assert ask(server, "/healthz")[0] == 200
    finally:
        for connection in idle:
            connection.close()


def test_a_taken_port_is_one_clear_error(server: StatusServer) -> None:
    other = StatusServer(server.registry, dict, dict, port=server.port)
    with pytest.raises(PortTakenError, match=f"cannot listen on 127.0.0.1:{server.port}") as caught:
        other.start()
    assert "another metrics port" in str(caught.value)
    with pytest.raises(ConfigurationError, match="cannot listen") as refused:
        StatusServer(server.registry, dict, dict, port=70_000).start()
    assert type(refused.value) is ConfigurationError


def test_close_frees_the_port_and_may_be_called_twice() -> None:
    first = StatusServer(CollectorRegistry(), dict, dict).start()
    port = first.port
    first.close()
    first.close()
    with StatusServer(CollectorRegistry(), dict, dict, port=port) as second:
        assert ask(second, "/healthz")[0] == 200


def test_not_ready_says_503_until_it_is() -> None:
    ready = threading.Event()
    with StatusServer(CollectorRegistry(), dict, dict, ready=ready.is_set) as server:
        assert ask(server, "/healthz")[0] == 503
        ready.set()
        assert ask(server, "/healthz")[0] == 200


def scraped(server: StatusServer, times: int) -> None:
    for _ in range(times):
        ask(server, "/metrics")
    # The count rises after the answer is written, so the last one may still be on its way.
    wait_until(lambda: server.scrapes == times)


def lingering(server: StatusServer, record_seconds: float) -> threading.Thread:
    thread = threading.Thread(target=server.linger, args=(record_seconds, threading.Event()), daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(("scrapes", "again"), [(0, False), (2, False), (3, True)])
def test_the_end_waits_for_the_record_and_for_a_scrape_where_there_were_some(
    server: StatusServer, source: Source, scrapes: int, again: bool
) -> None:
    scraped(server, scrapes)
    assert ask(server, "/v1/record")[0] == 404
    end = lingering(server, 60.0)
    assert end.is_alive()
    source.record = {"status": "complete"}
    assert ask(server, "/v1/record")[0] == 200
    if again:
        assert end.is_alive()
        wait_until(lambda: ask(server, "/metrics")[0] == 200 and not end.is_alive())
    end.join(10)
    assert not end.is_alive()


def test_a_record_that_nobody_fetches_does_not_end_the_wait_for_a_scrape(server: StatusServer) -> None:
    scraped(server, 3)
    end = lingering(server, 0.0)
    end.join(3 * POLL_SECONDS)
    assert end.is_alive()
    wait_until(lambda: ask(server, "/metrics")[0] == 200 and not end.is_alive())


def test_a_scrape_does_not_end_the_wait_for_the_record(server: StatusServer, source: Source) -> None:
    scraped(server, 3)
    source.record = {"status": "complete"}
    end = lingering(server, 60.0)
    ask(server, "/metrics")
    wait_until(lambda: server.scrapes == 4)
    end.join(3 * POLL_SECONDS)
    assert end.is_alive()
    assert ask(server, "/v1/record")[0] == 200
    # Once more, for a scrape that came before the wait had begun.
    wait_until(lambda: ask(server, "/metrics")[0] == 200 and not end.is_alive())


def test_the_last_scrape_is_not_waited_for_longer_than_the_limit(
    server: StatusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_port, "LAST_SCRAPE_SECONDS", 0.05)
    scraped(server, 3)
    server.linger(0.0, threading.Event())


def test_the_end_waits_only_so_long_or_until_told_to_stop(server: StatusServer) -> None:
    told = threading.Event()
    server.linger(0.05, told)
    told.set()
    scraped(server, 3)
    server.linger(60.0, told)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline, pause = time.monotonic() + 10, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.01)
