"""What a Prometheus saw of a run: a real one with the run's series, and all the ones that are of no use."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from engram.report.document import build_document
from engram.report.record import Record
from engram.report.render import report_texts
from engram.report.telemetry import Telemetry, losses_of, merged, points_of
from engram.run.prometheus import PrometheusError, Server, ask
from tests.cluster.ports import free_port
from tests.cluster.waiting import NotYet, until
from tests.report.conftest import STARTED, build_record

STRETCH = 60
"""The record's rounds take half a second; here half a minute."""
CUT_OFF = "trainworker-edge-1"


def stretched() -> Record:
    """A run of a quarter of an hour in namespace lab."""
    record = build_record("replay", faults=False)
    record.job["metadata"]["namespace"] = "lab"
    for row in record.history.rounds:
        row.started = STARTED + (row.started - STARTED) * STRETCH
        row.seconds = {phase: seconds * STRETCH for phase, seconds in row.seconds.items()}
    last = record.history.rounds[-1]
    record.started = moment(STARTED)
    record.completed = moment(last.started + sum(last.seconds.values()))
    return record


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def scrapes(record: Record, end: float) -> str:
    """What was scraped every 15 s, in OpenMetrics; trainworker-edge-1 was cut off for the second half."""
    memory, loss, state = [], [], []
    labels = 'namespace="lab",job="digits-replay"'
    names = [worker.name for worker in record.workers]
    for number, name in enumerate(names):
        at = STARTED
        while at <= end:
            away = name == CUT_OFF and at > (STARTED + end) / 2
            if not away:
                peak = 300e6 if number == 0 and abs(at - STARTED - 150) < 1 else 200e6
                memory.append(f'engram_worker_memory_bytes{{{labels},worker="{name}"}} {peak} {at}')
                loss.append(f'engram_worker_loss{{{labels},worker="{name}"}} 0.5 {at}')
            state.append(
                f'engram_worker_state{{{labels},worker="{name}",state="disconnected"}} {int(away)} {at}'
            )
            at += 15
    other = (
        f'engram_worker_memory_bytes{{namespace="lab",job="digits",worker="{CUT_OFF}"}} 9e9 {STARTED + 30}'
    )
    parts = [("memory_bytes", [*memory, other]), ("loss", loss), ("state", state)]
    text = "".join(f"# TYPE engram_worker_{name} gauge\n" + "\n".join(lines) + "\n" for name, lines in parts)
    return text + "# EOF\n"


@contextmanager
def prometheus(folder: Path, text: str) -> Iterator[str]:
    """A real Prometheus on the loopback that has scraped `text`."""
    program, tool = shutil.which("prometheus"), shutil.which("promtool")
    if program is None or tool is None:
        pytest.skip("no prometheus on this machine: apt-get install prometheus")
    (folder / "scraped.txt").write_text(text)
    create = [tool, "tsdb", "create-blocks-from", "openmetrics", f"{folder}/scraped.txt", f"{folder}/data"]
    subprocess.run(create, check=True, capture_output=True, timeout=60)
    (folder / "prometheus.yaml").write_text("{}\n")
    url = f"127.0.0.1:{free_port()}"
    command = [program, f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"]
    command += ["--storage.tsdb.retention.time=100y", f"--web.listen-address={url}"]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            until(lambda: answers(f"http://{url}/-/ready", process, folder / "log"), "Prometheus", seconds=60)
            yield f"http://{url}"
        finally:
            process.kill()


def answers(url: str, process: subprocess.Popen[bytes], log: Path) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"Prometheus has ended: {log.read_text()[-2000:]}")
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        with error:
            raise NotYet(f"it answers {error.code}") from None
    except OSError as error:
        raise NotYet(str(error)) from None


@pytest.mark.process
def test_a_real_prometheus_and_the_record_make_one_report(tmp_path: Path) -> None:
    record = stretched()
    end = datetime.fromisoformat(record.completed or "").timestamp()
    with prometheus(tmp_path, scrapes(record, end)) as url:
        telemetry = ask(Server(url), record)
        unknown = record.model_copy(deep=True)
        unknown.job["metadata"]["name"] = 'digits"} or vector(1) #'
        with pytest.raises(PrometheusError, match="has no series of this run: does it scrape the aggregator"):
            ask(Server(url), unknown)
    section = merged(telemetry, record)
    rows = {row["name"]: row for row in section["workers"]}
    first = record.workers[0].name
    assert rows[first]["peak_memory_bytes"] == 300e6, "the peak between two points is not lost"
    assert rows[CUT_OFF]["peak_memory_bytes"] == 200e6, "another job of that namespace is not this one"
    assert rows[first]["peak_gpu_memory_bytes"] is None
    assert rows[first]["disconnected_seconds"] == 0
    half = (end - STARTED) / 2
    assert rows[CUT_OFF]["disconnected_seconds"] == pytest.approx(half, abs=90)
    kept = [(at, value) for at, value, source in rows[CUT_OFF]["loss"] if source == "record"]
    assert len(kept) == rows[CUT_OFF]["kept"] == section["kept"]
    assert 5 <= len(kept) <= 11, "about half of twenty rounds"
    assert min(at for at, _ in kept) > half
    exact = [row.workers[CUT_OFF].metrics["loss"] for row in record.history.rounds]
    assert {value for _, value in kept} <= set(exact)
    assert rows[first]["kept"] == 0


def test_numbers_of_the_run_do_not_depend_on_prometheus() -> None:
    record = stretched()
    telemetry = Telemetry(
        "http://p", STARTED, STARTED + 600, 15.0, 60.0, {"memory": {CUT_OFF: [(STARTED, 1e8)]}}
    )
    alone, seen = build_document(record), build_document(record, telemetry)
    assert {**seen, "telemetry": None} == {**alone, "telemetry": None}
    assert "telemetry" not in alone
    texts, before = report_texts(seen), report_texts(alone)
    assert "Machines, by Prometheus" in texts["report.html"]
    assert "## Machines, by Prometheus" in texts["report.md"]
    assert "100.0 MB" in texts["report.md"]
    assert "Prometheus" not in before["report.html"]
    assert "Prometheus" not in before["report.md"]
    assert texts["leaderboard.csv"] == before["leaderboard.csv"]


def test_what_prometheus_has_is_not_told_twice() -> None:
    record = stretched()
    rounds = record.history.rounds
    points = [(row.started, 1.0) for row in rounds]
    telemetry = Telemetry("http://p", STARTED, STARTED + 900, 15.0, 60.0, {"loss": {CUT_OFF: points}})
    assert {source for _, _, source in losses_of(CUT_OFF, telemetry, record)} == {"prometheus"}
    telemetry = Telemetry("http://p", STARTED, STARTED + 900, 15.0, 60.0, {})
    found = losses_of(CUT_OFF, telemetry, record)
    assert [value for _, value, _ in found] == [row.workers[CUT_OFF].metrics["loss"] for row in rounds]
    assert found[0][0] >= 0


def test_a_run_does_not_go_on_after_its_end() -> None:
    """What was scraped last looks the same for a minute."""
    seen = {"loss": {CUT_OFF: [(STARTED + 15.0 * point, 1.0 / point) for point in range(1, 6)]}}
    telemetry = Telemetry("http://p", STARTED, STARTED + 20, 15.0, 60.0, seen)
    assert points_of(CUT_OFF, "loss", telemetry) == [(STARTED + 15, 1.0), (STARTED + 20, 0.5)]
    assert points_of("trainworker-edge-9", "loss", telemetry) == []
    away = {"disconnected": {CUT_OFF: [(STARTED + 15.0 * point, 1.0) for point in range(1, 6)]}}
    rows = merged(replace(telemetry, series=away), stretched())["workers"]
    (row,) = (row for row in rows if row["name"] == CUT_OFF)
    assert row["disconnected_seconds"] == 30, "two steps of 15 s, the second cut short by the end"


# One that is of no use.


class Answer(BaseHTTPRequestHandler):
    """Answers what the test says, and remembers who asked."""

    status, body = 200, b""
    headers_seen: list[dict[str, str]]

    def do_GET(self) -> None:
        self.headers_seen.append({"path": self.path, **dict(self.headers)})
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[str, list[dict[str, str]]]]:
    seen: list[dict[str, str]] = []
    handler = type("Told", (Answer,), {"status": status, "body": body, "headers_seen": seen})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", seen
        finally:
            server.shutdown()
            thread.join(10)


def matrix(*items: Any) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": list(items)}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (
            401,
            b"",
            "answers 401: put a token, or username and password, into spec.report.prometheus.secretName",
        ),
        (404, b"<html>", "answers 404 with what is no answer of Prometheus'"),
        (200, b"[]", "answers 200 with what is no answer of Prometheus'"),
        (
            422,
            b'{"status": "error", "error": "query timed out", "data": {"result": []}}',
            "refuses the query .query timed out.",
        ),
        (200, matrix(), "has no series of this run"),
        (200, matrix({"metric": {"worker": "a"}, "values": [[1]]}), "answers with what is no matrix"),
        (200, matrix({"metric": {"worker": "a"}, "values": 7}), "answers with what is no matrix"),
        (302, b"", "answers 302 with what is no answer"),
    ],
)
def test_an_answer_that_is_none(status: int, body: bytes, says: str) -> None:
    with answering(status, body) as (url, _), pytest.raises(PrometheusError, match=says):
        ask(Server(url), stretched())


def test_nobody_listens() -> None:
    with pytest.raises(PrometheusError, match=r"cannot be reached \(Connection refused\)"):
        ask(Server(f"http://127.0.0.1:{free_port()}"), stretched())


def test_values_that_are_none_are_left_out() -> None:
    points = [[STARTED, "NaN"], [STARTED + 15, "+Inf"], [STARTED + 30, "2e8"]]
    with answering(200, matrix({"metric": {"worker": CUT_OFF}, "values": points})) as (url, _):
        telemetry = ask(Server(url), stretched())
    assert telemetry.series["memory"] == {CUT_OFF: [(STARTED + 30, 2e8)]}


@pytest.fixture
def secret(tmp_path: Path) -> Callable[..., Path]:
    """Write a Secret's directory."""

    def write(**files: str) -> Path:
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        return tmp_path

    return write


def test_a_token_or_a_password_logs_us_in(secret: Callable[..., Path]) -> None:
    body = matrix({"metric": {"worker": "a"}, "values": [[1, "1"]]})
    with answering(200, body) as (url, seen):
        ask(Server(f"{url}/prefix/", secret(username="me", password="word\n")), stretched())
        assert seen[0]["Authorization"] == "Basic " + base64.b64encode(b"me:word").decode()
        assert seen[0]["path"].startswith("/prefix/api/v1/query_range?query=")
        ask(Server(url, secret(token="abc\n")), stretched())
        assert seen[-1]["Authorization"] == "Bearer abc"
        ask(Server(url.replace("//", "//you:pass@")), stretched())
        assert seen[-1]["Authorization"] == "Basic " + base64.b64encode(b"you:pass").decode()
    assert Server("https://you:pass@p.example:9090/x").name == "https://p.example:9090/x"


def test_a_ca_that_is_none_is_said(secret: Callable[..., Path]) -> None:
    directory = secret(**{"ca.crt": "no certificate"})
    with pytest.raises(PrometheusError, match=r"cannot be asked \("):
        ask(Server("https://127.0.0.1:1", directory), stretched())
