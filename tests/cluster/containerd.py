"""containerd of a node: one each, for a second kubelet on a shared one would end the first one's pods."""

from __future__ import annotations

import json
import signal

from tests.cluster import binaries
from tests.cluster.node import Node
from tests.cluster.waiting import NotYet, until

SOCKET = "/run/containerd/containerd.sock"
CNI_PROGRAMS = "/usr/lib/cni"
"""Where Debian puts them."""
PAUSE_IMAGE = "docker.io/engram/pause:1"
"""What holds a pod's namespaces; see images."""

_CONFIG = """\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
# Snapshotters and tracing that this machine lacks, or that nobody asks for: each costs time at start.
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  # Without CAP_SYS_RESOURCE a process cannot be made safer from the out-of-memory killer than its parent.
  restrict_oom_score_adj = true
  sandbox_image = "{pause}"
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def start(node: Node, seconds: float = 30) -> None:
    """Start the node's containerd and wait until it answers. Raises RuntimeError when it ends instead."""
    folder = node.root / "etc" / "cni" / "net.d"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "10-engram.conflist").write_text(json.dumps(_pod_network(node)), encoding="utf-8")
    config = node.root / "containerd.toml"
    text = _CONFIG.format(socket=SOCKET, pause=PAUSE_IMAGE, cni=CNI_PROGRAMS)
    config.write_text(text, encoding="utf-8")
    node.spawn("containerd", [binaries.find("containerd"), "--config", config])

    def answers() -> bool:
        node.check("containerd")
        try:
            ctr(node, "version")
        except RuntimeError as error:
            raise NotYet(str(error)) from None
        return True

    until(answers, f"containerd of node {node.name}", seconds=seconds)


def forget_ended(node: Node) -> None:
    """Remove the containers whose processes have ended, with what containerd knows of them.

    Kubelet and edgecore do that when they collect garbage; neither may run meanwhile.
    """
    running = set(ctr(node, "tasks", "list", "--quiet").split())
    for container in ctr(node, "containers", "list", "--quiet").split():
        if container not in running:
            ctr(node, "containers", "remove", container)
    # Its plug-in for kubelet keeps a list of its own, which it makes at its start.
    node.kill("containerd", signal.SIGTERM)
    start(node)


def ctr(node: Node, *arguments: str, seconds: float = 300) -> str:
    """Run containerd's client for the images and containers that kubelet sees; return its output."""
    return node.run(["ctr", "--namespace", "k8s.io", *arguments], seconds=seconds)


def _pod_network(node: Node) -> dict[str, object]:
    """Return the CNI configuration.

    Each pod has a cable of its own to the node (ptp), not a bridge: so all traffic is routed, and what
    kube-proxy translates works between two pods of one node whether or not the kernel filters bridges.
    """
    ranges = [[{"subnet": node.place.pods}]]
    plug = {
        "type": "ptp",
        "ipMasq": False,
        "ipam": {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]},
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "engram", "plugins": [plug, ports]}
