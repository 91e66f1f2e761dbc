"""Starting and ending clusters with nodes: whatever happens, nothing stays behind on the machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import binaries, lifecycle, node_level
from tests.cluster.fixtures import unavailable
from tests.cluster.node import Node
from tests.cluster.state import ClusterDirectory
from tests.cluster.waiting import NotYet, until

pytestmark = pytest.mark.nodes

ROOT = Path(__file__).parents[2]


@pytest.fixture
def directory() -> Iterator[ClusterDirectory]:
    """The folder of a cluster of this test alone, ended in any case."""
    try:
        node_level.check()
    except node_level.NodesImpossible as reason:
        pytest.skip(str(reason))
    except binaries.Unavailable as reason:
        unavailable(str(reason))
    found = ClusterDirectory.named(f"test-{uuid.uuid4().hex[:8]}")
    yield found
    lifecycle.down(found)


def left_behind(directory: ClusterDirectory, prefix: str) -> list[str]:
    """Return what the machine still has of a cluster: namespaces, groups, processes, mounts, files."""
    found = [str(path) for path in Path("/run/netns").glob(f"{prefix}*")]
    groups = Path("/sys/fs/cgroup")
    found += [folder for folder, _, _ in os.walk(groups) if prefix in folder]
    place = str(directory.path)
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if place in line]
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = command.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if place in text:
            found.append(text)
    if directory.exists:
        found.append(place)
    return found


def test_what_was_started_is_found_by_the_check(directory: ClusterDirectory) -> None:
    lifecycle.up(directory, ["cloud"])
    prefix = node_level.plan(directory).network.prefix

    found = left_behind(directory, prefix)

    for part in (f"/run/netns/{prefix}", "kube-apiserver", "kubelet", "memory", str(directory.path)):
        assert any(part in item for item in found), part
    lifecycle.down(directory)
    assert left_behind(directory, prefix) == []
    lifecycle.down(directory)
    node_level.down(directory)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("moment", ["cloud-unshare", "cloud-containerd", "cloud-kubelet"])
def test_an_interrupted_start_leaves_nothing(
    directory: ClusterDirectory, sent: signal.Signals, moment: str
) -> None:
    interrupted(directory, sent, moment, "--nodes", "1")


@pytest.mark.kubeedge
@pytest.mark.parametrize(
    ("sent", "moment"), [(signal.SIGINT, "cloudcore"), (signal.SIGKILL, "edge1-edgecore")]
)
def test_an_interrupted_start_of_kubeedge_leaves_nothing(
    directory: ClusterDirectory, sent: signal.Signals, moment: str
) -> None:
    interrupted(directory, sent, moment, "--nodes", "2", "--edge", "kubeedge")


def interrupted(directory: ClusterDirectory, sent: signal.Signals, moment: str, *options: str) -> None:
    """Send a signal to a start of the cluster when it is at `moment`; nothing may be left once it is down."""
    prefix = node_level.plan(directory).network.prefix
    command = [
        "env",
        "--default-signal=INT",  # what runs in the background of a shell has it ignored
        sys.executable,
        "-m",
        "tests.cluster",
        "up",
        "--no-context",
        "--name",
        directory.name,
        *options,
    ]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as starting:

        def reached() -> bool:
            if starting.poll() is not None:
                raise RuntimeError(f"it ended with {starting.returncode}")
            if not directory.exists or moment not in directory.processes().names():
                raise NotYet("it is not there yet")
            return True

        until(reached, f"the start of {moment}", seconds=60, every=0.005)
        starting.send_signal(sent)
        starting.communicate(timeout=90)
    assert starting.returncode != 0

    left = left_behind(directory, prefix)
    if sent == signal.SIGINT:
        assert left == [str(directory.path)]  # logs
    else:
        assert len(left) > 1
    lifecycle.down(directory)

    assert left_behind(directory, prefix) == []


def test_a_node_that_cannot_start_says_why(directory: ClusterDirectory) -> None:
    directory.create()
    node = Node(directory, node_level.plan(directory).network.places[0], "no-such-namespace")

    with pytest.raises(RuntimeError, match="no-such-namespace"):
        node.start()
    node.stop()
    assert left_behind(directory, "no-such-namespace") == [str(directory.path)]
