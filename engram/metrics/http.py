"""The aggregator's read-only HTTP port: Prometheus scrapes it, the operator and the local display poll it.

It runs in threads of its own, so a long aggregation never delays a health probe, and it cannot be used to
change anything: only GET is answered, bodies are not read, connections are bounded in number and time.

    /metrics     Prometheus text of the registry
    /healthz     {"status": "ok"}, or 503 while `ready()` says no
    /v1/status   what `status()` returns
    /v1/record   what `record()` returns; 404 while that is None
"""

from __future__ import annotations

import errno
import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import TCPServer, ThreadingMixIn
from types import TracebackType
from typing import Any, ClassVar

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from engram.errors import ConfigurationError, PortTakenError
from engram.spec.names import HEALTH_PATH, METRICS_PATH, RECORD_PATH, STATUS_PATH

MAX_CONNECTIONS = 16
"""Requests answered at the same time; one more waits for a place, at most `REQUEST_SECONDS`."""

REQUEST_SECONDS = 10.0
"""A client that has not sent its request or taken its answer by then is dropped."""

POLL_SECONDS = 0.1
"""How soon `close` is noticed."""

REGULAR_SCRAPES = 3
"""So many scrapes during a run show that Prometheus is there, and will come again."""
LAST_SCRAPE_SECONDS = 60.0

PATHS = (METRICS_PATH, HEALTH_PATH, STATUS_PATH, RECORD_PATH)


class StatusServer:
    """Serves `PATHS` from its own threads between `start` and `close` (or in a `with` block).

    Args:
        registry: what `/metrics` shows.
        status: called in a server thread for every `/v1/status`; returns JSON-able data.
        record: likewise for `/v1/record`; None while there is no record yet.
        port: 0 takes a free one; `port` holds the real one after `start`.
        host: address to listen on.
        ready: whether whoever asks `/healthz` may send work; a readiness probe does.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        status: Callable[[], Mapping[str, Any]],
        record: Callable[[], Mapping[str, Any] | None],
        port: int = 0,
        host: str = "127.0.0.1",
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self.registry, self.status, self.record, self.ready = registry, status, record, ready
        self.port, self.host = port, host
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._scrapes = self._records = 0

    def start(self) -> StatusServer:
        """Listen. Raises PortTakenError, or ConfigurationError when the port is not allowed."""
        try:
            self._server = _Server((self.host, self.port), self)
        except (OSError, OverflowError) as error:
            taken = getattr(error, "errno", None) == errno.EADDRINUSE
            raise (PortTakenError if taken else ConfigurationError)(
                f"cannot listen on {self.host}:{self.port}: {getattr(error, 'strerror', None) or error}",
                remedy="choose another metrics port, or 0 for any free one",
            ) from error
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_SECONDS,), name="status-http", daemon=True
        )
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop listening and free the port; safe to call twice. Answers under way may still end."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def __enter__(self) -> StatusServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def scrapes(self) -> int:
        """How often `/metrics` was answered in full."""
        return self._scrapes

    def linger(self, record_seconds: float, asked: threading.Event) -> None:
        """Serve the last values and the record of a finished run until they were fetched.

        Two waits that know nothing of each other: for the record to be fetched, at most `record_seconds`; and
        for one more scrape, at most `LAST_SCRAPE_SECONDS`, if the run was scraped at least `REGULAR_SCRAPES`
        times (two intervals were seen). Returns when both are over, or as soon as `asked` is set.
        """
        scraped = self._scrapes
        start = time.monotonic()
        while True:
            elapsed = time.monotonic() - start
            fetched = self._records > 0 or elapsed >= record_seconds
            known = scraped < REGULAR_SCRAPES or self._scrapes > scraped or elapsed >= LAST_SCRAPE_SECONDS
            if (fetched and known) or asked.wait(POLL_SECONDS):
                return

    def answer(self, path: str, accept: str) -> tuple[int, str, bytes]:
        """Return HTTP status, content type and body for a GET of `path`."""
        if path == METRICS_PATH:
            encode, content_type = choose_encoder(accept)
            return 200, content_type, encode(self.registry)
        if path == HEALTH_PATH:
            return _json(200, {"status": "ok"}) if self.ready() else _json(503, {"status": "not ready"})
        if path == STATUS_PATH:
            return _json(200, self.status())
        if path == RECORD_PATH:
            record = self.record()
            if record is None:
                return _json(404, {"error": "there is no record yet"})
            return _json(200, record)
        return _json(404, {"error": f"no such path; there are {', '.join(PATHS)}"})

    def answered(self, path: str) -> None:
        """Count a scrape, or the record, once its answer has been written."""
        with self._lock:
            self._scrapes += path == METRICS_PATH
            self._records += path == RECORD_PATH


def _json(status: int, value: Mapping[str, Any]) -> tuple[int, str, bytes]:
    return status, "application/json", json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


class _Server(ThreadingMixIn, HTTPServer):
    """A thread for each connection, at most `MAX_CONNECTIONS`; nothing outlives the process."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, address: tuple[str, int], owner: StatusServer) -> None:
        self.owner = owner
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer looks up the host's name here, which can block for seconds without a resolver.
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(timeout=REQUEST_SECONDS):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; the aggregator's log stays clean."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout: ClassVar[float] = REQUEST_SECONDS
    server_version = "engram"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        try:
            status, content_type, body = self.server.owner.answer(path, self.headers.get("Accept", ""))
        except Exception as error:  # a process edge: the client gets an answer, the run goes on
            status, content_type, body = _json(500, {"error": f"{type(error).__name__}: {error}"})
        self._send(status, content_type, body)
        if status == 200:
            self.server.owner.answered(path)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer every protocol error in JSON; the base class has 501 for a method without `do_...`."""
        if code == 501:
            self._send(*_json(405, {"error": "only GET is answered here"}), {"Allow": "GET"})
        else:
            self._send(*_json(code, {"error": message or "bad request"}))

    def _send(
        self, status: int, content_type: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        self.close_connection = True
        self.send_response(status)
        for name, value in {
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Probes and scrapes every few seconds would drown the aggregator's log."""
