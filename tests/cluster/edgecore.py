"""edgecore: KubeEdge's kubelet of an edge node, with what it needs to go on alone.

It reaches cloudcore and nothing else, keeps what it was told in a database on the node's disk, and starts
from that when it is restarted offline. No MQTT broker, no EdgeMesh: pods on its node have neither cluster DNS
nor ClusterIP.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from tests.cluster import binaries, containerd
from tests.cluster.cloudcore import HEARTBEAT_SECONDS, HTTPS_PORT, HUB_PORT
from tests.cluster.kubelet import pods_settings, write_resolver
from tests.cluster.node import Node
from tests.cluster.waiting import NotYet, until

NAME = "edgecore"
"""The daemon's name in its node."""
ONE_AT_A_TIME = "GOMAXPROCS=1"
"""edgecore drops an answer that is there before the one who asked waits for it, and that one then waits for a
minute: on a busy machine a pod starts so much later. With one goroutine at a time this is rare
(figures in docs/kubeedge.md)."""

_REFUSED = "failed to apply the edge certs, err:"
"""What edgecore says before its end when it gets no certificate."""


def folder(node: Node) -> Path:
    """Return where the node keeps certificates, database and configuration."""
    return node.root / "kubeedge"


def registered(node: Node) -> bool:
    """Tell whether the node has its certificate: it needs no token any more."""
    return (folder(node) / "server.crt").is_file()


def start(node: Node, cloudcore: str, *, token: str, taints: list[dict[str, str]]) -> None:
    """Start the node's edgecore, whether or not it can reach cloudcore at the address `cloudcore`.

    `token` lets a node in that is not registered yet, and is of no use to one that is. edgecore itself gives
    the node the role of the edge, and `taints` at registration.
    """
    file = folder(node) / "edgecore.json"
    if not file.is_file():  # edgecore writes into it
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (file.parent / "manifests").mkdir(exist_ok=True)
        content = _configuration(node, cloudcore, token, taints)
        file.write_text(json.dumps(content, indent=2), encoding="utf-8")
    node.spawn(NAME, ["env", ONE_AT_A_TIME, binaries.find("edgecore"), f"--config={file}"])


def stop(node: Node, how: signal.Signals = signal.SIGKILL) -> None:
    """End the node's edgecore; its containers go on."""
    node.kill(NAME, how)


def check(node: Node) -> None:
    """Raise RuntimeError when edgecore has ended: with why it was not let in, or with the end of its log."""
    try:
        node.check(NAME)
    except RuntimeError:
        words = _refusal(node)
        if words:
            raise RuntimeError(words) from None
        raise


def until_registered(node: Node, seconds: float = 60) -> None:
    """Wait until the node has its certificate. Raises RuntimeError as `check` does."""

    def done() -> bool:
        if not registered(node):
            check(node)
            raise NotYet("it has no certificate yet")
        return True

    until(done, f"registration of node {node.name} at cloudcore", seconds=seconds)


def _refusal(node: Node) -> str:
    """Return why cloudcore did not let the node in, in edgecore's words, and what to do; empty: it did."""
    found = [line for line in node.tail(NAME, lines=100).splitlines() if _REFUSED in line]
    if registered(node) or not found:
        return ""
    said = found[-1].partition(_REFUSED)[2].strip()
    return (
        f"cloudcore did not let node {node.name} in: {said}; if its token "
        "has expired (after a day) or is another cloudcore's, take a fresh one: kubectl -n kubeedge get "
        "secret tokensecret -o jsonpath={.data.tokendata} | base64 -d"
    )


def _configuration(node: Node, cloudcore: str, token: str, taints: list[dict[str, str]]) -> dict[str, Any]:
    """Return the EdgeCore configuration; all paths are on the node's own disk."""
    place = folder(node)
    files = {
        "tlsCaFile": str(place / "rootCA.crt"),
        "tlsCertFile": str(place / "server.crt"),
        "tlsPrivateKeyFile": str(place / "server.key"),
    }
    kubelet = {
        **pods_settings(),
        "address": "127.0.0.1",
        "staticPodPath": str(place / "manifests"),
        "resolvConf": str(write_resolver(node)),
        "registerWithTaints": taints,
    }
    return {
        "apiVersion": "edgecore.config.kubeedge.io/v1alpha2",
        "kind": "EdgeCore",
        "database": {
            "driverName": "sqlite3",
            "aliasName": "default",
            # Without fsync, as etcd here: a node's power is cut, the machine's never.
            "dataSource": f"{place / 'edgecore.db'}?_sync=OFF",
        },
        "modules": {
            "edged": {
                "enable": True,
                "hostnameOverride": node.name,
                "nodeIP": node.address,
                "rootDirectory": "/var/lib/kubelet",
                "podSandboxImage": containerd.PAUSE_IMAGE,
                "registerSchedulable": True,
                "tailoredKubeletConfig": kubelet,
            },
            "edgeHub": {
                "enable": True,
                "heartbeat": HEARTBEAT_SECONDS,
                "httpServer": f"https://{cloudcore}:{HTTPS_PORT}",
                "token": token,
                "websocket": {
                    "enable": True,
                    "server": f"{cloudcore}:{HUB_PORT}",
                    "handshakeTimeout": 10,
                    "readDeadline": 15,
                    "writeDeadline": 15,
                },
                **files,
            },
            "deviceTwin": {"enable": True, "dmiSockPath": "/run/dmi.sock"},
            "eventBus": {"enable": False},
            "edgeStream": {"enable": False},
            "metaManager": {"enable": True, "metaServer": {"enable": False}},
        },
    }
