"""kubelet and kube-proxy of a node."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.cluster import binaries, containerd
from tests.cluster.control_plane import ControlPlane
from tests.cluster.network import POD_NETWORK
from tests.cluster.node import Node

PORT = 10250
_MEMORY_SHARE = 4
"""Each node offers its pods one part in so many of the machine's memory, although it sees all of it."""
_EVICTION_BYTES = 100 << 20


def prepare(node: Node, control_plane: ControlPlane) -> None:
    """Write the node's certificate and kubeconfig, once: a node that comes back is the same node."""
    authority = control_plane.authority
    authority.issue(
        f"{node.name}-serving",
        f"system:node:{node.name}",
        groups=["system:nodes"],
        addresses=[node.address, "127.0.0.1"],
        names=[node.name],
    )
    authority.kubeconfig(
        node.name, control_plane.node_server, user=f"system:node:{node.name}", groups=["system:nodes"]
    )


def start(node: Node, *, dns: str | None, taints: list[dict[str, str]]) -> None:
    """Start the node's kubelet; it registers the node when the API server answers.

    `dns` is the address of the cluster's DNS, None on nodes that have none: their pods find no name at all,
    at once. `taints` are given at registration, so that no pod slips in before.
    """
    resolver = write_resolver(node)
    config = node.root / "kubelet.json"
    content = {**_configuration(node), "resolvConf": str(resolver), "registerWithTaints": taints}
    if dns is not None:
        content["clusterDNS"] = [dns]
    config.write_text(json.dumps(content, indent=2), encoding="utf-8")
    node.spawn(
        "kubelet",
        [
            binaries.find("kubelet"),
            f"--config={config}",
            f"--kubeconfig={node.directory.pki / node.name}.kubeconfig",
            f"--hostname-override={node.name}",
            f"--node-ip={node.address}",
            "--root-dir=/var/lib/kubelet",
        ],
    )


def write_resolver(node: Node) -> Path:
    """Write and return the resolver file of pods without cluster DNS: they find no name at all, at once."""
    file = node.root / "resolv.conf"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n", encoding="utf-8")
    return file


def start_proxy(node: Node, control_plane: ControlPlane) -> None:
    """Start kube-proxy on the node, for Services by ClusterIP and node port; wait until they work."""
    kubeconfig = control_plane.authority.kubeconfig(
        f"{node.name}-kube-proxy", control_plane.node_server, user="system:kube-proxy"
    )
    content = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": node.address,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "hostnameOverride": node.name,
        "mode": "iptables",
        "iptables": {"minSyncPeriod": "100ms"},
        "clusterCIDR": POD_NETWORK,
        "nodePortAddresses": ["primary"],
        # Zero: leave the machine's connection tracking as it is; it is not ours to size.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }
    config = node.root / "kube-proxy.json"
    config.write_text(json.dumps(content, indent=2), encoding="utf-8")
    node.spawn("kube-proxy", [binaries.find("kube-proxy"), f"--config={config}"])
    node.wait_for("kube-proxy", "http://127.0.0.1:10256/healthz")


def pods_settings() -> dict[str, Any]:
    """Return how a node treats pods and tells of itself, the same for kubelet and for KubeEdge's edgecore.

    Heartbeats are frequent, so that a lost node is noticed soon.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "containerRuntimeEndpoint": f"unix://{containerd.SOCKET}",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "clusterDomain": "cluster.local",
        "maxPods": 100,
        "nodeStatusUpdateFrequency": "1s",
        "nodeStatusReportFrequency": "10s",
        "nodeLeaseDurationSeconds": 8,
        "registryPullQPS": 0,
        "serializeImagePulls": False,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": str(_EVICTION_BYTES),
            "nodefs.available": "1%",
            "imagefs.available": "1%",
        },
        "kubeReserved": {"memory": str(memory - memory // _MEMORY_SHARE - _EVICTION_BYTES)},
    }


def _configuration(node: Node) -> dict[str, Any]:
    """Return the KubeletConfiguration."""
    pki = node.directory.pki
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "port": PORT,
        "healthzBindAddress": "127.0.0.1",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / f"{node.name}-serving.crt"),
        "tlsPrivateKeyFile": str(pki / f"{node.name}-serving.key"),
        **pods_settings(),
    }
