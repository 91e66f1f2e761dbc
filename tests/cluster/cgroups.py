"""The control groups of a node: a branch of its own below the caller's group, in every hierarchy.

kubelet wants to own the root of the control groups. Each node gets a group in each v1 hierarchy and, by a
cgroup namespace, takes it for the root; the limits of the group that the tests run in hold for the nodes too.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.waiting import NotYet, until

_NEEDED = {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"}
_MOUNTS = Path("/proc/self/mountinfo")
_OWN = Path("/proc/self/cgroup")


def problem() -> str | None:
    """Return why this machine's control groups cannot carry nodes, None when they can."""
    missing = sorted(_NEEDED - {name for item in hierarchies() for name in item.split(",")})
    if missing:
        return f"no cgroup v1 hierarchy for {', '.join(missing)} (cgroup v2 alone does not do)"
    if not os.access(_groups_here()["memory"], os.W_OK):
        return "the control groups are read-only"
    return None


def hierarchies() -> list[str]:
    """Return the v1 hierarchies of this machine by their controllers: `cpu,cpuacct`, `name=systemd`."""
    lines = (line.split(":", 2) for line in _OWN.read_text().splitlines())
    return sorted(controllers for _, controllers, _ in lines if controllers)


@dataclass(frozen=True)
class NodeGroups:
    """The groups of one node, remembered by path: whoever ends the node may be in another group."""

    paths: tuple[Path, ...]

    @classmethod
    def create(cls, name: str) -> NodeGroups:
        """Make a group called `name` below our own in each hierarchy."""
        found = []
        for controllers, parent in _groups_here().items():
            group = parent / name
            group.mkdir(exist_ok=True)
            if "cpuset" in controllers.split(","):
                # A new cpuset is empty and takes no process until it has what its parent has.
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (group / file).write_text((parent / file).read_text())
            found.append(group)
        return cls(tuple(found))

    def script(self) -> str:
        """Return shell commands by which a shell joins the groups."""
        return "".join(f"echo $$ >'{path}/cgroup.procs' && " for path in self.paths) + "true"

    def remove(self, seconds: float = 20) -> None:
        """Remove the groups once their processes are gone. Raises TimeoutError when some stay."""
        until(self._removed, "the end of the node's control groups", seconds=seconds)

    def _removed(self) -> bool:
        """Try to remove every group, innermost first."""
        for path in self.paths:
            for folder, _, _ in os.walk(path, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
        left = [str(path) for path in self.paths if path.exists()]
        if left:
            raise NotYet(f"left: {', '.join(left)}")
        return True


def _groups_here() -> dict[str, Path]:
    """Return the folder of our own group in each v1 hierarchy."""
    own = {
        controllers: path
        for _, controllers, path in (line.split(":", 2) for line in _OWN.read_text().splitlines())
        if controllers
    }
    found: dict[str, Path] = {}
    for line in _MOUNTS.read_text().splitlines():
        left, _, right = line.partition(" - ")
        root, mounted = left.split()[3:5]
        kind, _, options = right.split()[:3]
        if kind != "cgroup":
            continue
        for controllers, path in own.items():
            if set(controllers.split(",")) <= set(options.split(",")):
                inner = path.removeprefix(root) if root != "/" else path
                found.setdefault(controllers, Path(mounted) / inner.lstrip("/"))
    return found
