"""Range queries to a Prometheus over the time of a run, for the report on a cluster.

Prometheus is somebody else's: it may be away, slow, behind a login or without this run. Each of these is one
sentence, and the report is made of the run's record alone.
"""

from __future__ import annotations

import base64
import http.client
import json
import math
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlencode, urlsplit

from engram.report.record import Record
from engram.report.telemetry import QUERIES, Telemetry
from engram.run.obtaining import brief

BUDGET_SECONDS = 30.0
"""For all queries together: the report does not wait longer for what it can do without."""
REQUEST_SECONDS = 10.0
MOST_BYTES = 32 * 2**20
MOST_POINTS = 240
"""Of a series."""
SHORTEST_STEP = 15.0
WINDOW = 60.0
"""Seconds that a point looks back at least: scrapes are further apart than the shortest step."""


class PrometheusError(Exception):
    """Why Prometheus gave nothing, as the end of a sentence that begins with its address."""


@dataclass(frozen=True)
class Server:
    """A Prometheus, or what speaks like one."""

    url: str
    secret: Path | None = None
    """Directory with `token`, or `username` and `password`, and `ca.crt` for https; what is absent is not
    used."""

    @property
    def name(self) -> str:
        """Its address without what is secret in it."""
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    def headers(self) -> dict[str, str]:
        """Return what logs us in. Raises OSError for a Secret that cannot be read."""
        token, user = self._read("token"), self._read("username")
        if token:
            return {"Authorization": f"Bearer {token}"}
        parts = urlsplit(self.url)
        password = self._read("password")
        if not user and parts.username:
            user, password = unquote(parts.username), unquote(parts.password or "")
        if not user:
            return {}
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}

    def tls(self) -> ssl.SSLContext:
        """Return how its certificate is verified."""
        own = self.secret / "ca.crt" if self.secret is not None else None
        return ssl.create_default_context(cafile=str(own) if own is not None and own.is_file() else None)

    def _read(self, name: str) -> str:
        file = self.secret / name if self.secret is not None else None
        if file is None or not file.is_file():
            return ""
        # A line feed at the end of a Secret's file would end the header, too.
        return file.read_text(encoding="utf-8").strip()


def ask(server: Server, record: Record, clock: Callable[[], float] = time.monotonic) -> Telemetry:
    """Return what Prometheus knows of the run of `record`.

    Raises PrometheusError when it cannot be asked, or knows nothing.
    """
    start, end = span(record)
    step = max(SHORTEST_STEP, math.ceil((end - start) / MOST_POINTS))
    window = max(step, WINDOW)
    metadata = record.job.get("metadata") or {}
    selector = f'namespace="{_quoted(metadata.get("namespace"))}",job="{_quoted(metadata.get("name"))}"'
    until, series = clock() + BUDGET_SECONDS, dict[str, dict[str, list[tuple[float, float]]]]()
    for key, expression in QUERIES.items():
        query = expression.replace("RUN", selector).replace("WINDOW", f"{window:g}s")
        # Values of the run's last moment are scraped after it.
        asked = {"query": query, "start": f"{start:.3f}", "end": f"{end + window:.3f}", "step": f"{step:g}"}
        if clock() > until:
            raise PrometheusError("is too slow")
        series[key] = _series(_request(server, asked))
    if not any(series.values()):
        raise PrometheusError("has no series of this run: does it scrape the aggregator?")
    return Telemetry(server.name, start, end, step, window, series)


def span(record: Record) -> tuple[float, float]:
    """Return start and end of a run in seconds since the epoch."""
    start = datetime.fromisoformat(record.started).timestamp()
    end = datetime.fromisoformat(record.completed).timestamp() if record.completed else time.time()
    return start, max(start, end)


def _request(server: Server, query: Mapping[str, str]) -> Any:
    """Return the data of one query_range."""
    url = urlsplit(server.url)
    connection = _connection(server, url)
    try:
        path = f"{url.path.rstrip('/')}/api/v1/query_range?{urlencode(query)}"
        connection.request("GET", path, headers={"Accept": "application/json", **server.headers()})
        answer = connection.getresponse()
        body = answer.read(MOST_BYTES + 1)
    except ssl.SSLError as error:
        raise PrometheusError(f"cannot be trusted ({brief(str(error))})") from error
    except TimeoutError as error:
        raise PrometheusError("does not answer") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise PrometheusError(f"cannot be reached ({brief(why)})") from error
    finally:
        connection.close()
    if len(body) > MOST_BYTES:
        raise PrometheusError(f"answers with more than {MOST_BYTES // 2**20} MiB")
    return _data(answer.status, body)


def _connection(server: Server, url: SplitResult) -> http.client.HTTPConnection:
    try:
        host, port = url.hostname or "", url.port
        if url.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=REQUEST_SECONDS, context=server.tls())
    except (ssl.SSLError, OSError, ValueError) as error:
        raise PrometheusError(f"cannot be asked ({brief(str(error))})") from error
    return http.client.HTTPConnection(host, port, timeout=REQUEST_SECONDS)


def _data(status: int, body: bytes) -> Any:
    if status in (401, 403):
        raise PrometheusError(
            f"answers {status}: put a token, or username and password, into spec.report.prometheus.secretName"
        )
    try:
        found = json.loads(body)
        data = found["data"]["result"] if found["status"] == "success" else None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PrometheusError(f"answers {status} with what is no answer of Prometheus'") from error
    if data is None or status != 200:
        raise PrometheusError(f"refuses the query ({brief(str(found.get('error') or status))})")
    return data


def _series(result: Any) -> dict[str, list[tuple[float, float]]]:
    """Return worker -> points; what is not finite is left out."""
    found: dict[str, list[tuple[float, float]]] = {}
    try:
        for item in result:
            points = ((float(moment), float(value)) for moment, value in item["values"])
            found[str(item["metric"].get("worker", ""))] = [
                point for point in points if math.isfinite(point[1])
            ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PrometheusError("answers with what is no matrix") from error
    return found


def _quoted(text: object) -> str:
    return str(text or "").replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
