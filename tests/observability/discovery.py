"""What the Prometheus Operator and the discovery of Kubernetes do with the chart's PodMonitors.

Debian's Prometheus has no such discovery: here the pods that a PodMonitor selects are looked up through the
API server, and become targets at their own addresses, with the labels that they would have.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.chart.conftest import CHART
from tests.cluster.api import Api, Object
from tests.cluster.helm import Helm
from tests.observability.prometheus import SYSTEM, Prometheus

EVERY = 0.5
"""Seconds between two looks at the pods."""


@dataclass(frozen=True)
class Target:
    """A port that is scraped, and whose it is."""

    address: str
    monitor: str
    namespace: str
    pod: str
    container: str


def chart_monitors() -> list[Object]:
    """Return the PodMonitors of the chart, without a cluster."""
    objects = Helm(CHART, namespace=SYSTEM).template(values={"prometheus": {"monitor": {"enabled": True}}})
    return [item for item in objects if item["kind"] == "PodMonitor"]


def targets_of(monitor: Object, pods: Sequence[Object]) -> Iterator[Target]:
    """Yield the targets that a PodMonitor makes of pods: those that run and have the port that it names."""
    metadata, spec = monitor["metadata"], monitor["spec"]
    chosen = spec.get("namespaceSelector", {})
    allowed = None if chosen.get("any") else chosen.get("matchNames", [metadata["namespace"]])
    wanted = spec["selector"]["matchLabels"].items()
    ports = {endpoint["port"] for endpoint in spec["podMetricsEndpoints"]}
    for pod in pods:
        own, status = pod["metadata"], pod["status"]
        if allowed is not None and own["namespace"] not in allowed:
            continue
        if not wanted <= (own.get("labels") or {}).items() or status.get("phase") != "Running":
            continue
        for container in pod["spec"]["containers"]:
            for port in container.get("ports") or ():
                if port.get("name") in ports and status.get("podIP"):
                    address = f"{status['podIP']}:{port['containerPort']}"
                    place = (metadata["name"], own["namespace"], own["name"], container["name"])
                    yield Target(address, *place)


@contextmanager
def discovering(prometheus: Prometheus, monitors: Sequence[Object], api: Callable[[], Api]) -> Iterator[None]:
    """Let Prometheus scrape what PodMonitors select, while the block runs; `api` makes a client."""
    stop = threading.Event()

    def look() -> None:
        client = api()
        known: set[Target] = set()
        try:
            while not stop.wait(EVERY):
                pods = client.list("Pod")
                found = {target for monitor in monitors for target in targets_of(monitor, pods)}
                for target in found - known:
                    prometheus.scrape_at(
                        target.address, target.monitor, target.namespace, target.pod, target.container
                    )
                known |= found
        finally:
            client.close()

    thread = threading.Thread(target=look, name="discovery")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
