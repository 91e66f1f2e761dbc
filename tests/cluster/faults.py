"""What happens to nodes in the field, each as a `with` block: fault at the start, mending at the end.

A test that fails inside still leaves a whole cluster to the next one. Every fault is there at once; how long
the cluster takes to notice is for the test to wait for.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from tests.cluster.api import Api, ApiError, Object, path_of
from tests.cluster.control_plane import API_SERVER
from tests.cluster.node_level import NodeLevel


@contextmanager
def agent_ended(
    level: NodeLevel, name: str, how: signal.Signals = signal.SIGKILL, *, cut_off: bool = False
) -> Iterator[None]:
    """End a node's kubelet or edgecore; its containers go on. At the end it is started, and the node Ready.

    `cut_off` does not wait for that: the node's cable is cut meanwhile.
    """
    node = level.nodes[name]
    node.kill(level.agent_of(name), how)
    try:
        yield
    finally:
        level.start_agent(node)
        if not cut_off:
            level.wait_ready([name])


@contextmanager
def cloudcore_down(level: NodeLevel, *, cut_off: Collection[str] = ()) -> Iterator[None]:
    """SIGKILL cloudcore; edge nodes are on their own. At the end it serves again, and the nodes are Ready,
    but for those that are `cut_off`.
    """
    level.cloudcore.stop()
    try:
        yield
    finally:
        level.start_cloudcore()
        level.wait_ready(level.nodes.keys() - set(cut_off))


@contextmanager
def cable_cut(level: NodeLevel, name: str) -> Iterator[None]:
    """Cut a node's network cable; everything on it goes on. At the end it is mended, and the node Ready."""
    level.network.cut(name)
    try:
        yield
    finally:
        level.network.mend(name)
        level.wait_ready([name])


@contextmanager
def outward_only(level: NodeLevel, name: str) -> Iterator[None]:
    """Let no connection into a node, as behind the router of a shop; at the end they come in again."""
    level.network.shut(name)
    try:
        yield
    finally:
        level.network.open(name)


@contextmanager
def power_cut(level: NodeLevel, name: str) -> Iterator[None]:
    """Cut a node's power: all its processes are gone, its disk stays. At the end it boots, and is Ready.

    Its cable goes first: nobody hears a goodbye from the sockets of a machine without power.
    """
    level.network.cut(name)
    level.nodes[name].stop()
    try:
        yield
    finally:
        level.network.mend(name)
        level.start_node(name)
        level.wait_ready([name])
        level.label([name])


@contextmanager
def out_of_service(level: NodeLevel, name: str) -> Iterator[None]:
    """Say that nothing runs on a lost node any more, so that its pods are replaced; taken back at the end."""
    kubectl, taint = level.kubectl(), "node.kubernetes.io/out-of-service"
    kubectl.run("taint", "nodes", name, f"{taint}=nodeshutdown:NoExecute")
    try:
        yield
    finally:
        kubectl.run("taint", "nodes", name, f"{taint}-")


@contextmanager
def node_deleted(level: NodeLevel, name: str) -> Iterator[None]:
    """Delete a lost node, so that its pods are replaced; it registers itself anew when its power is back."""
    level.kubectl().delete("node", name)
    yield


@contextmanager
def api_server_down(level: NodeLevel) -> Iterator[None]:
    """SIGKILL the API server; nodes and their pods go on. At the end it serves again."""
    level.directory.processes().stop(API_SERVER)
    try:
        yield
    finally:
        level.control_plane.start_program(API_SERVER)


@contextmanager
def drained(level: NodeLevel, name: str) -> Iterator[None]:
    """Cordon a node and evict its pods, as `kubectl drain` does but without waiting until they are gone.

    At the end it takes pods again.
    """
    api = level.api()
    try:
        api.patch("Node", name, {"spec": {"unschedulable": True}})
        for pod in api.list("Pod"):
            if pod["spec"].get("nodeName") == name and pod["status"].get("phase") in ("Pending", "Running"):
                _evict(api, pod)
        yield
    finally:
        api.patch("Node", name, {"spec": {"unschedulable": None}})
        api.close()


def _evict(api: Api, pod: Object) -> None:
    """Evict a pod; one that is gone, or goes with its namespace, is no error."""
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": namespace},
    }
    try:
        api.ask("POST", path_of("Pod", namespace, name, "eviction"), body)
    except ApiError as error:
        if error.code != 404 and "NamespaceTerminating" not in json.dumps(error.status):
            raise
