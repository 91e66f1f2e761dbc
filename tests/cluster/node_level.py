"""The node level of a cluster: a control plane, and real nodes with real containers around it.

Nodes whose name begins with `edge` are labelled and tainted, and have neither kube-proxy nor cluster DNS:
they run KubeEdge's edgecore, or a kubelet in its place, which is quicker. Everything that runs is recorded in
the cluster's folder first, so that `down` ends it from any process, at any time, twice.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from engram.spec.names import Label
from tests.cluster import binaries, cgroups, containerd, dns, edgecore, image_cache, images, kubelet
from tests.cluster.api import Api, Object
from tests.cluster.cloudcore import CloudCore
from tests.cluster.control_plane import ControlPlane, Ports, Timing
from tests.cluster.kubectl import Kubectl
from tests.cluster.network import CONTROL_ADDRESS, Network, places
from tests.cluster.node import Node
from tests.cluster.ports import free_port
from tests.cluster.state import ClusterDirectory
from tests.cluster.waiting import NotYet, until

NAMES = ("cloud", "edge1", "edge2")
"""The nodes of the tests: one in the cloud, two at the edge."""
EDGE_TAINT = {"key": Label.EDGE_NODE, "value": "", "effect": "NoSchedule"}

READY_WITHIN, EDGE_READY_WITHIN = 60.0, 180.0
"""Seconds. edgecore loses an answer now and then, and asks again after 60 (docs/kubeedge.md)."""
TIMING = Timing(monitor_period="1s", grace_period="10s", startup_grace_period="20s")
"""A lost node is noticed after about 10 s."""

_PROGRAMS = (
    *("kubelet", "kube-proxy", "kubectl", "coredns", "pause", "probe"),
    *("containerd", "runc", "iptables", "ip", "nsenter", "unshare"),
)
_EDGE_LABELS = {Label.EDGE_NODE: "", "node-role.kubernetes.io/agent": ""}
"""What KubeEdge's edgecore gives its node; a kubelet may not, so the administrator does."""
_FACTS = "nodes"


class Edge(StrEnum):
    """What runs the pods of the nodes at the edge."""

    KUBELET = "kubelet"
    KUBEEDGE = "kubeedge"


class NodesImpossible(binaries.Unavailable):
    """This machine does not allow nodes, whatever is installed: one line that says why."""


def check(edge: Edge = Edge.KUBELET) -> None:
    """Raise what keeps nodes from running here: NodesImpossible, or Unavailable for what can be installed.

    What is missing and can be built is built.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        raise NodesImpossible("nodes need Linux and root: network namespaces, mounts and control groups")
    problem = cgroups.problem()
    if problem is not None:
        raise NodesImpossible(f"nodes cannot run on this machine: {problem}")
    done = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NodesImpossible(f"nodes cannot run on this machine: {done.stderr.strip()}")
    if not Path(containerd.CNI_PROGRAMS, "ptp").exists():
        raise binaries.Unavailable(
            "no CNI plugins: on Debian and Ubuntu 'apt-get install containernetworking-plugins'"
        )
    for name in (*_PROGRAMS, *(binaries.KUBEEDGE if edge == Edge.KUBEEDGE else ())):
        binaries.find(name)


@dataclass(frozen=True)
class NodeLevel:
    """A cluster with nodes, running or about to."""

    directory: ClusterDirectory
    control_plane: ControlPlane
    network: Network
    edge: Edge = Edge.KUBELET

    @property
    def nodes(self) -> dict[str, Node]:
        """The nodes by name."""
        return {
            place.name: Node(self.directory, place, self.network.namespace(place.name))
            for place in self.network.places
        }

    def api(self) -> Api:
        """Return a client with the administrator's rights; close it."""
        return Api(self.directory.kubeconfig)

    def kubectl(self) -> Kubectl:
        """Return kubectl with the administrator's rights."""
        return Kubectl(binaries.find("kubectl"), self.directory.kubeconfig)

    @property
    def cloudcore(self) -> CloudCore:
        """KubeEdge's half in the cloud. Raises RuntimeError in a cluster without KubeEdge."""
        if self.edge != Edge.KUBEEDGE:
            raise RuntimeError("this cluster has no KubeEdge: start it with --edge kubeedge")
        return CloudCore(self.control_plane, CONTROL_ADDRESS)

    def agent_of(self, name: str) -> str:
        """Return the daemon that runs the pods of a node: kubelet or edgecore."""
        return edgecore.NAME if self._has_edgecore(name) else "kubelet"

    def start(self, archives: Sequence[Path]) -> None:
        """Start control plane and nodes; return when every node is Ready and labelled.

        `archives` are the images that the nodes have from the start.
        """
        self.network.up()
        # Made before threads ask for it.
        authority = self.control_plane.authority
        if not authority.certificate.is_file():
            raise RuntimeError(f"no certificate authority in {self.directory.pki}")
        nodes = list(self.nodes.values())

        def boot() -> None:
            image_cache.seed(self.directory, archives, [node.root for node in nodes])
            _together([_bound(_boot, node) for node in nodes])

        _together([self._start_control, boot])
        for node in nodes:
            if not self._has_edgecore(node.name):
                kubelet.prepare(node, self.control_plane)
        api = self.api()
        try:
            dns.permit(api)
            for node in nodes:
                self.start_agent(node)
            self.wait_ready()
            self.label(self.nodes)
            for node in nodes:
                if not is_edge(node.name):
                    self._start_services(node)
        finally:
            api.close()

    def start_node(self, name: str) -> None:
        """Start a node that was stopped, with all its daemons; `wait_ready` waits for it."""
        node = self.nodes[name]
        _boot(node)
        self.start_agent(node)
        if not is_edge(name):
            self._start_services(node)

    def start_agent(self, node: Node) -> None:
        """Start the node's kubelet or edgecore alone, whether or not the node is cut off."""
        taints = [EDGE_TAINT] if is_edge(node.name) else []
        if self._has_edgecore(node.name):
            token = "" if edgecore.registered(node) else self._token()
            edgecore.start(node, self.cloudcore.address, token=token, taints=taints)
        else:
            kubelet.start(node, dns=None if taints else self._dns_address, taints=taints)

    def start_cloudcore(self) -> None:
        """Start cloudcore, which was stopped; nodes come back by themselves."""
        api = self.api()
        try:
            self.cloudcore.start(api)
        finally:
            api.close()

    def wait_ready(self, names: Iterable[str] = (), seconds: float | None = None) -> None:
        """Wait until the nodes (default: all) are Ready and lost no taint of their loss."""
        wanted = set(names) or set(self.nodes)
        if seconds is None:
            seconds = EDGE_READY_WITHIN if any(map(self._has_edgecore, wanted)) else READY_WITHIN
        api = self.api()
        try:
            until(lambda: self._all_ready(api, wanted), f"nodes {', '.join(sorted(wanted))}", seconds=seconds)
        finally:
            api.close()

    def label(self, names: Iterable[str]) -> None:
        """Label those nodes at the edge that do not label themselves; once more is no error."""
        api = self.api()
        try:
            for name in (name for name in names if is_edge(name) and not self._has_edgecore(name)):
                api.patch("Node", name, {"metadata": {"labels": _EDGE_LABELS}})
        finally:
            api.close()

    def import_images(self, archives: Sequence[Path]) -> None:
        """Import docker-archive tars into every node; what a node has already costs nothing."""

        def add(node: Node) -> None:
            images.Store.of(node).add(archives)

        _together([_bound(add, node) for node in self.nodes.values()])

    def stop(self) -> None:
        """End everything, whatever state it is in, and delete what the nodes had on disk."""
        with ExitStack() as afterwards:  # also when a node resists
            afterwards.callback(self._delete_data)
            afterwards.callback(self.network.down)
            _together([*(node.stop for node in self.nodes.values()), self._stop_control])

    @property
    def _dns_address(self) -> str | None:
        """Address of cluster DNS: the first node's that is not at the edge."""
        return next((place.address for place in self.network.places if not is_edge(place.name)), None)

    def _start_control(self) -> None:
        """Start the control plane, with KubeEdge's half of it."""
        self.control_plane.start()
        if self.edge == Edge.KUBEEDGE:
            self.cloudcore.install(self.kubectl())
            self.start_cloudcore()

    def _stop_control(self) -> None:
        """End the control plane and cloudcore."""
        if self.edge == Edge.KUBEEDGE:
            self.cloudcore.stop()
        self.control_plane.stop()

    def _has_edgecore(self, name: str) -> bool:
        """Tell whether a node is KubeEdge's."""
        return self.edge == Edge.KUBEEDGE and is_edge(name)

    def _token(self) -> str:
        """Return what lets a new edge node in."""
        api = self.api()
        try:
            return self.cloudcore.token(api)
        finally:
            api.close()

    def _delete_data(self) -> None:
        """Delete what nodes and etcd kept."""
        if self.directory.data.exists():
            shutil.rmtree(self.directory.data)

    def _start_services(self, node: Node) -> None:
        """Start kube-proxy, and cluster DNS if this is its node; return when both serve."""
        kubelet.start_proxy(node, self.control_plane)
        if node.address == self._dns_address:
            dns.start(node, self.control_plane)

    def _all_ready(self, api: Api, wanted: set[str]) -> bool:
        """Tell whether the nodes can take pods."""
        for name in wanted:
            if self._has_edgecore(name):
                edgecore.check(self.nodes[name])
            else:
                self.nodes[name].check("kubelet")
        nodes = {item["metadata"]["name"]: item for item in api.list("Node")}
        waiting = sorted(name for name in wanted if name not in nodes or not _ready(nodes[name]))
        missing = [f"not Ready: {', '.join(waiting)}"] if waiting else []
        for name in sorted(wanted & nodes.keys()):
            if self._has_edgecore(name) and not _labelled(nodes[name]):
                missing.append(
                    f"{name} is registered without the edge role: no job is placed there as on an edge node; "
                    f"'kubectl label node {name} {Label.EDGE_NODE}='"
                )
        if missing:
            raise NotYet("; ".join(missing))
        return True


def plan(directory: ClusterDirectory, names: Sequence[str] = NAMES, edge: Edge = Edge.KUBELET) -> NodeLevel:
    """Return the cluster that would stand in `directory`; nothing is started."""
    prefix = f"engram-{hashlib.sha256(str(directory.path).encode()).hexdigest()[:6]}"
    network = Network(prefix, places(names))
    control_plane = ControlPlane.load(directory) or ControlPlane(
        directory,
        Ports(host=free_port()),
        network.control,
        bind="0.0.0.0",
        advertise=CONTROL_ADDRESS,
        timing=TIMING,
    )
    return NodeLevel(directory, control_plane, network, edge)


def up(directory: ClusterDirectory, names: Sequence[str] = NAMES, edge: Edge = Edge.KUBELET) -> NodeLevel:
    """Start a cluster with nodes in `directory` and return it when every node is Ready.

    The nodes have every image that the cache holds as an archive (`images.cached`). Raises
    binaries.Unavailable (NodesImpossible) before anything is started; whatever goes wrong later, an
    interruption too, is cleaned up first.
    """
    check(edge)
    directory.create()
    level = plan(directory, names, edge)
    directory.write(_FACTS, {"names": list(names), "edge": edge})
    try:
        level.start(images.cached())
    except BaseException:
        level.stop()
        raise
    return level


def load(directory: ClusterDirectory) -> NodeLevel | None:
    """Return the cluster with nodes that was started in `directory`, None for none."""
    facts = directory.read(_FACTS)
    return plan(directory, facts["names"], Edge(facts["edge"])) if isinstance(facts, dict) else None


def down(directory: ClusterDirectory) -> None:
    """End the cluster in `directory` and leave nothing of it but logs; again is no error."""
    level = load(directory)
    if level is not None:
        level.stop()


def is_edge(name: str) -> bool:
    """Tell whether a node of that name is one at the edge."""
    return name.startswith("edge")


def _ready(node: Object) -> bool:
    """Tell whether a node is Ready and nothing is left of a former loss."""
    conditions = {item["type"]: item["status"] for item in node.get("status", {}).get("conditions", ())}
    lost = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    taints = {taint["key"] for taint in node.get("spec", {}).get("taints", ())}
    return conditions.get("Ready") == "True" and not taints & set(lost)


def _labelled(node: Object) -> bool:
    """Tell whether a node has the label of the edge."""
    return Label.EDGE_NODE in node["metadata"].get("labels", {})


def _boot(node: Node) -> None:
    """Start the node up to its containerd."""
    node.start()
    containerd.start(node)


def _bound(function: Callable[[Node], None], node: Node) -> Callable[[], None]:
    """Return `function` with its argument."""
    return lambda: function(node)


def _together(tasks: Sequence[Callable[[], None]]) -> None:
    """Run all tasks at the same time, each to its end; then raise the first error there was."""
    with ThreadPoolExecutor(max_workers=len(tasks)) as pool:
        futures = [pool.submit(task) for task in tasks]
    for future in futures:
        future.result()
