"""`python -m tests.cluster up|status|kubeconfig|load|down|build|can-run-nodes`: a real cluster by hand."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster import binaries, context, images, lifecycle, node_level
from tests.cluster.control_plane import ControlPlane
from tests.cluster.state import ClusterDirectory, clusters


def main(arguments: list[str] | None = None) -> int:
    """Carry out one command; return the exit code: 0 done or yes, 1 not."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.function
    try:
        return command(options)
    except (binaries.Unavailable, RuntimeError, TimeoutError, ValueError) as error:
        print(f"tests.cluster: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def add(
        name: str, function: Callable[[argparse.Namespace], int], *, named: bool
    ) -> argparse.ArgumentParser:
        text = (function.__doc__ or "").splitlines()[0]
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(function=function)
        if named:
            command.add_argument("--name", default="default", help="which cluster (default: default)")
        return command

    up = add("up", _up, named=True)
    names = ", ".join(node_level.NAMES)
    up.add_argument(
        "--nodes",
        type=int,
        default=0,
        choices=range(len(node_level.NAMES) + 1),
        help=f"real nodes, the first of {names} (needs root); 0: only the control plane",
    )
    up.add_argument(
        "--edge",
        type=node_level.Edge,
        default=node_level.Edge.KUBELET,
        choices=list(node_level.Edge),
        help="what the nodes at the edge run: a kubelet (default), or KubeEdge's edgecore, with cloudcore",
    )
    up.add_argument("--no-context", action="store_true", help="leave your own kubeconfig alone")
    add("status", _status, named=True)
    add("kubeconfig", _kubeconfig, named=True)
    load = add("load", _load, named=True)
    load.add_argument(
        "archives", nargs="*", type=Path, help="images as tar files (default: all in the cache)"
    )
    add("down", _down, named=True)
    build = add("build", _build, named=False)
    build.add_argument("--kubeedge", action="store_true", help="KubeEdge's programs as well")
    add("can-run-nodes", _can_run_nodes, named=False)
    return parser


def _up(options: argparse.Namespace) -> int:
    """Start a cluster, make it the current context, print the path of its kubeconfig."""
    directory, began = ClusterDirectory.named(options.name), time.monotonic()
    if directory.exists:
        processes = directory.processes()
        if any(processes.pid(name) for name in processes.names()):
            raise RuntimeError(f"cluster {options.name} is up: end it by 'python -m tests.cluster down'")
        lifecycle.down(directory)
    lifecycle.up(directory, node_level.NAMES[: options.nodes], edge=options.edge)
    control_plane = ControlPlane.load(directory)
    if control_plane is not None and not options.no_context:
        context.use(directory, control_plane)
        for note in filter(None, map(context.offer, ("kubectl", "helm"))):
            print(note, file=sys.stderr)
    print(f"up after {time.monotonic() - began:.1f} s", file=sys.stderr)
    print(directory.kubeconfig)
    return 0


def _status(options: argparse.Namespace) -> int:
    """List all clusters and their processes; the exit code is 0 when the named one runs whole."""
    complete = False
    for directory in clusters():
        processes = directory.processes()
        print(f"{directory.name}: {directory.kubeconfig}")
        names = processes.names()
        for name in names:
            pid = processes.pid(name)
            state = f"pid {pid}, {processes.memory(name) / 2**20:.0f} MB" if pid else "ended"
            print(f"  {name:28} {state}")
        if directory.name == options.name:
            complete = bool(names) and all(processes.pid(name) for name in names)
    return 0 if complete else 1


def _kubeconfig(options: argparse.Namespace) -> int:
    """Print the path of the cluster's kubeconfig."""
    directory = ClusterDirectory.named(options.name)
    if not directory.kubeconfig.is_file():
        raise RuntimeError(f"no cluster {options.name}: start it by 'python -m tests.cluster up'")
    print(directory.kubeconfig)
    return 0


def _load(options: argparse.Namespace) -> int:
    """Import images into every node of the cluster; without nodes there is nothing to do."""
    level = node_level.load(ClusterDirectory.named(options.name))
    if level is None:
        print(f"cluster {options.name} has no nodes: nothing loaded", file=sys.stderr)
        return 0
    level.import_images(options.archives or images.cached())
    return 0


def _down(options: argparse.Namespace) -> int:
    """End the cluster, whatever state it is in, and delete what it kept."""
    directory = ClusterDirectory.named(options.name)
    lifecycle.down(directory)
    context.forget(directory)
    return 0


def _build(options: argparse.Namespace) -> int:
    """Build every program that is missing (minutes, once), print where each one is.

    What the machine lacks of its own is said and left to it; the exit code is 1 when a build fails.
    """
    failed = False
    wanted = (name for name in binaries.SOURCES if options.kubeedge or name not in binaries.KUBEEDGE)
    for name in (*binaries.MACHINE, *wanted):
        began = time.monotonic()
        try:
            found = str(binaries.find(name))
        except binaries.Unavailable as reason:
            found = f"missing: {reason}"
            failed = failed or name in binaries.SOURCES
        took = time.monotonic() - began
        print(f"{name:26} {found}" + (f"  ({took:.0f} s)" if took > 1 else ""), flush=True)
    return 1 if failed else 0


def _can_run_nodes(options: argparse.Namespace) -> int:
    """Tell by the exit code whether this machine allows real nodes, and print why not."""
    try:
        node_level.check()
    except binaries.Unavailable as reason:
        print(reason)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
