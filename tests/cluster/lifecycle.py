"""Starting and ending whole clusters, by whoever knows the folder."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tests.cluster import node_level
from tests.cluster.control_plane import ControlPlane, Ports
from tests.cluster.locking import locked
from tests.cluster.state import ClusterDirectory, clusters, clusters_folder

NODES = "nodes"
"""`ClusterDirectory.read(NODES)` is there from before the first node is started until the last is gone."""


def up(
    directory: ClusterDirectory,
    nodes: Sequence[str] = (),
    *,
    edge: node_level.Edge = node_level.Edge.KUBELET,
    owned: bool = False,
) -> None:
    """Start a cluster: the control plane alone, or with real nodes of these names.

    `edge` tells what the nodes at the edge run. `owned` ends the cluster with this process, by the next
    `sweep`. What was started is ended again on any failure. Raises binaries.Unavailable, RuntimeError or
    TimeoutError.
    """
    directory.create()
    if owned:
        directory.own()
    try:
        if nodes:
            node_level.up(directory, nodes, edge)
        else:
            (ControlPlane.load(directory) or ControlPlane(directory, Ports.free())).start()
    except BaseException:
        stop(directory)
        raise


def stop(directory: ClusterDirectory) -> None:
    """End everything that runs for a cluster; logs stay."""
    if directory.read(NODES) is not None:
        node_level.down(directory)
    directory.processes().stop_all()


def down(directory: ClusterDirectory) -> None:
    """End a cluster and delete its folder; safe for one that is half up or down already."""
    if directory.exists:
        stop(directory)
        directory.remove()


def sweep() -> list[str]:
    """End the clusters whose owner has died; return their names."""
    with locked(clusters_folder() / ".sweep"):
        left = [directory for directory in clusters() if directory.orphaned]
        for directory in left:
            down(directory)
    return [directory.name for directory in left]


def own_directory() -> ClusterDirectory:
    """Return the folder of the cluster that belongs to this process."""
    return ClusterDirectory.named(f"process-{os.getpid()}")
