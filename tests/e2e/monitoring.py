"""A real Prometheus where pods reach it: in the network of a node, behind HTTPS and a login.

It scrapes pods at their own addresses, and the report's pod asks it at the node's. Whoever runs the test
reaches it on the loopback, through a relay.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.cluster.api import Object
from tests.cluster.node_level import NodeLevel
from tests.cluster.pki import Authority
from tests.cluster.relay import Relay
from tests.observability.prometheus import Guard, Prometheus

USER, PASSWORD = "engram", "sesame"
BCRYPT = "$2b$04$kKDapzPlRQ8rPVZY19rAvuiuUjsJdTeB3K6V5E5.vqyPlPBPy8F/a"
"""Of the password, as Prometheus wants it; 4 rounds, for each request is checked."""


@dataclass(frozen=True)
class Monitoring:
    """A Prometheus in the cluster."""

    prometheus: Prometheus
    url: str
    """As pods dial it."""
    authority: Path
    """Certificate of its CA."""

    def secret(self, name: str, password: str = PASSWORD) -> Object:
        """Return the Secret that `spec.report.prometheus.secretName` is to name."""
        login = {"username": USER, "password": f"{password}\n", "ca.crt": self.authority.read_text()}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": login}


@contextmanager
def monitoring(
    level: NodeLevel, node_name: str, folder: Path, *, interval: float = 1.0, rules: Object | None = None
) -> Iterator[Monitoring]:
    """Run a Prometheus in the network of a node, which must have the pods' network."""
    node, authority = level.nodes[node_name], _authority(folder / "pki")
    pair = authority.issue("prometheus", "prometheus", addresses=[node.address, "127.0.0.1"])
    web = folder / "web.yaml"
    tls = {"cert_file": str(pair.certificate), "key_file": str(pair.key)}
    web.write_text(yaml.safe_dump({"tls_server_config": tls, "basic_auth_users": {USER: BCRYPT}}))
    guard = Guard(web, authority.certificate, USER, PASSWORD)
    server = Prometheus(folder / "prometheus", interval=interval, rules=rules, guard=guard, netns=node.netns)
    relay = Relay(level.directory, "prometheus", server.port, node.netns, f"127.0.0.1:{server.port}")
    relay.start()
    try:
        with server:
            yield Monitoring(server, f"https://{node.address}:{server.port}", authority.certificate)
    finally:
        relay.stop()


def _authority(folder: Path) -> Authority:
    folder.mkdir(parents=True)
    return Authority(folder)
