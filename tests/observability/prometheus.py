"""A real Prometheus on the loopback that scrapes what a test starts, and a reader of its API.

Debian's package is built without the discovery of Kubernetes, so targets are written to files. Each gets the
labels that the Prometheus Operator gives to what it finds through the chart's PodMonitors (`job`,
`namespace`, `pod`, `container`, `endpoint`), and their `honorLabels`: what a rule or a panel sees is what it
would see in a cluster.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import yaml

from engram.spec.names import MAIN_CONTAINER, METRICS_PATH, STATUS_PORT, STATUS_PORT_NAME
from tests.cluster.ports import free_port
from tests.cluster.waiting import NotYet, until

SYSTEM = "engram-system"
"""Namespace of the operator, and of the chart's monitors."""
PACKAGE = "on Debian and Ubuntu 'apt-get install prometheus'"
STOP_SECONDS = 10.0

Labels = Mapping[str, str]


def program(name: str) -> str:
    """Return the path of `prometheus` or `promtool`; without it skips the test, and fails it under CI."""
    found = shutil.which(name)
    if found is None:
        reason = f"{name} is not installed: {PACKAGE}"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return found


@dataclass(frozen=True)
class Guard:
    """What stands before a server that others reach, too: HTTPS and a login."""

    settings: Path
    """Prometheus' own file of them, for `--web.config.file`."""
    authority: Path
    """Certificate of the CA that its certificate is of."""
    user: str
    password: str

    def opener(self) -> urllib.request.OpenerDirector:
        """Return what opens its pages."""
        context = ssl.create_default_context(cafile=str(self.authority))
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
        login = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        opener.addheaders = [("Authorization", f"Basic {login}")]
        return opener


@dataclass(frozen=True)
class Series:
    """Labels, and values with their times."""

    labels: Labels
    points: tuple[tuple[float, float], ...]

    @property
    def value(self) -> float:
        """The newest value."""
        return self.points[-1][1]


class Prometheus:
    """A server with its data in `folder`; a context manager.

    Args:
        interval: seconds between scrapes, and between looks at the rules.
        rules: groups of rules, as a PrometheusRule's `spec` has them.
        tls: files for targets behind an API server: `ca_file`, `cert_file`, `key_file`.
        guard: None: whoever reaches it may ask.
        netns: network namespace that it runs in, at every address there; it is asked on the loopback of
            this one all the same, to which somebody must lead.
    """

    def __init__(
        self,
        folder: Path,
        *,
        interval: float = 1.0,
        rules: Mapping[str, Any] | None = None,
        tls: Mapping[str, str] | None = None,
        guard: Guard | None = None,
        netns: str = "",
    ) -> None:
        self._tls, self.folder, self.interval = tls, folder, interval
        self._command = [*(["nsenter", f"--net=/run/netns/{netns}"] if netns else []), program("prometheus")]
        self.port = free_port()
        self._address = "0.0.0.0" if netns else "127.0.0.1"
        self.url = f"{'https' if guard else 'http'}://127.0.0.1:{self.port}"
        self._guard = guard
        self._opener = guard.opener() if guard else urllib.request.build_opener()
        self.log = folder / "prometheus.log"
        self._targets = folder / "targets"
        self._targets.mkdir(parents=True)
        (folder / "rules.yaml").write_text(yaml.safe_dump(rules or {"groups": []}), encoding="utf-8")
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(self._configuration()), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def _configuration(self) -> Mapping[str, Any]:
        pause = f"{1000 * self.interval:.0f}ms"
        discovery = {"files": [f"{self._targets}/*.json"], "refresh_interval": "1s"}
        scraped = {"job_name": "engram", "honor_labels": True, "file_sd_configs": [discovery]}
        if self._tls is not None:
            scraped["tls_config"] = dict(self._tls)
        return {
            "global": {"scrape_interval": pause, "scrape_timeout": pause, "evaluation_interval": pause},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [scraped],
        }

    def __enter__(self) -> Prometheus:
        options = {
            "config.file": self.folder / "prometheus.yaml",
            "storage.tsdb.path": self.folder / "data",
            "storage.tsdb.retention.time": "2h",
            "web.listen-address": f"{self._address}:{self.port}",
            "log.level": "warn",
            **({"web.config.file": self._guard.settings} if self._guard else {}),
        }
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._command, *(f"--{name}={value}" for name, value in options.items())],
                stdout=log,
                stderr=log,
            )
        try:
            until(self._ready, "Prometheus to be ready", seconds=60)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the server."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"Prometheus ended: {self.log.read_text()[-2000:]}")
        try:
            with self._opener.open(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError as error:
            raise NotYet(str(error)) from None

    def scrape(self, port: int, monitor: str, namespace: str, pod: str) -> None:
        """Scrape a port of the loopback as a pod that the chart's PodMonitor `monitor` has found."""
        container = "operator" if monitor == "engram-operator" else MAIN_CONTAINER
        self.scrape_at(f"127.0.0.1:{port}", monitor, namespace, pod, container)

    def scrape_through(self, server: str, monitor: str, namespace: str, pod: str) -> None:
        """Scrape a pod that is out of reach through the proxy of an API server (`https://HOST:PORT`)."""
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}:{STATUS_PORT}/proxy{METRICS_PATH}"
        where = {"__scheme__": "https", "__metrics_path__": path}
        self.scrape_at(server.removeprefix("https://"), monitor, namespace, pod, MAIN_CONTAINER, where)

    def scrape_at(
        self,
        address: str,
        monitor: str,
        namespace: str,
        pod: str,
        container: str,
        where: Labels | None = None,
    ) -> None:
        """Scrape a pod at an address (HOST:PORT); `where` says how, if not by http at /metrics."""
        labels = {
            "job": f"{SYSTEM}/{monitor}",
            "namespace": namespace,
            "pod": pod,
            "container": container,
            "endpoint": STATUS_PORT_NAME,
            **(where or {}),
        }
        new = self._targets / f"{namespace}-{pod}.new"
        new.write_text(json.dumps([{"targets": [address], "labels": labels}]), encoding="utf-8")
        new.replace(new.with_suffix(".json"))

    def targets(self) -> list[str]:
        """Return the pods that are scraped."""
        return [str(target["labels"]["pod"]) for target in self._ask("targets")["activeTargets"]]

    def query(self, expression: str, at: float | None = None) -> list[Series]:
        """Return what an expression amounts to at a moment."""
        found = self._ask("query", query=expression, time=time.time() if at is None else at)
        if found["resultType"] == "scalar":
            return [Series({}, (_point(found["result"]),))]
        return [_series(item) for item in found["result"]]

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[Series]:
        """Return what an expression amounts to at each moment of a range."""
        found = self._ask("query_range", query=expression, start=start, end=end, step=step)
        return [_series(item) for item in found["result"]]

    def labels_of(self, selector: str, label: str, start: float, end: float) -> list[str]:
        """Return what Grafana's `label_values(selector, label)` offers for a time range."""
        found: Sequence[str] = self._ask(
            f"label/{label}/values", start=start, end=end, **{"match[]": selector}
        )
        return list(found)

    def value(self, expression: str) -> float:
        """Return the one value that an expression has now; waits for it."""

        def there() -> list[Series]:
            found = self.query(expression)
            if len(found) > 1:
                raise AssertionError(f"{expression} has {len(found)} values")
            return found

        return until(there, expression, seconds=60)[0].value

    def wait_for(self, expression: str, seconds: float = 180) -> list[Series]:
        """Wait until an expression has a value; return what it has."""
        return until(lambda: self.query(expression), expression, seconds=seconds, every=0.2)

    def _ask(self, path: str, **query: Any) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with self._opener.open(url, timeout=20) as answer:
                return json.loads(answer.read())["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{query.get('query', path)}: {error.read().decode()}") from None


def _series(item: Mapping[str, Any]) -> Series:
    values = item["values"] if "values" in item else [item["value"]]
    return Series(item["metric"], tuple(_point(value) for value in values))


def _point(value: Sequence[Any]) -> tuple[float, float]:
    return float(value[0]), float(value[1])
