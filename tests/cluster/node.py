"""A node: a light container with mounts, processes, name, network and control groups of its own.

Its process 1 is the pause program. Killing that is a power cut: the kernel ends everything inside, and the
node's mounts go with it; what was written to the node's disk (`root`) stays, as on a real machine.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import binaries, cgroups
from tests.cluster.network import Place
from tests.cluster.processes import Processes
from tests.cluster.state import ClusterDirectory
from tests.cluster.waiting import NotYet, until

_INIT = Path(__file__).with_name("node_init.py")


@dataclass(frozen=True)
class Node:
    """One node of the cluster in `directory`."""

    directory: ClusterDirectory
    place: Place
    netns: str
    """Its network namespace; it outlives a power cut."""

    @property
    def name(self) -> str:
        """The node's name."""
        return self.place.name

    @property
    def address(self) -> str:
        """The node's address."""
        return self.place.address

    @property
    def root(self) -> Path:
        """What the node has on disk: `root / "srv"` is the node's /srv, for hostPath volumes of tests."""
        return self.directory.data / "nodes" / self.name

    @property
    def on(self) -> bool:
        """Whether the node is running."""
        return self._processes.pid(self._one) is not None

    @property
    def init_pid(self) -> int:
        """Process 1 of the node, as seen from the host. Raises RuntimeError when the node is off."""
        pid = self._processes.pid(self._one)
        if pid is None:
            raise RuntimeError(f"node {self.name} is off: start it first")
        return pid

    def start(self) -> None:
        """Start the node with nothing but process 1 in it. Raises RuntimeError when it does not come up."""
        self.root.mkdir(parents=True, exist_ok=True)
        groups = cgroups.NodeGroups.create(self.netns)
        # Written before anything runs in them: whoever cleans up must find them.
        self.directory.write(self._facts, [str(path) for path in groups.paths])
        pause = binaries.find("pause")
        settings = {
            "name": self.name,
            "address": self.address,
            "root": str(self.root),
            "hierarchies": cgroups.hierarchies(),
            "pause": str(pause),
        }
        namespaces = ["--mount", "--pid", "--fork", "--uts", "--ipc", "--cgroup", "--propagation=private"]
        python = [sys.executable, "-I", "-S", str(_INIT), json.dumps(settings)]
        outer = self._processes.start(
            self._outer, self._joined(["unshare", *namespaces, *python]), netns=self.netns
        )
        inner = until(
            lambda: self._inner(outer, pause), f"process 1 of node {self.name}", seconds=20, every=0.01
        )
        self._processes.record(self._one, inner)

    def stop(self) -> None:
        """Cut the node's power: everything in it ends at once. Its disk stays; so does its network."""
        self._processes.stop(self._one)
        for name in reversed(self._processes.names()):
            if name.startswith(f"{self.name}-"):
                self._processes.stop(name)
        found = self.directory.read(self._facts)
        if isinstance(found, list):
            cgroups.NodeGroups(tuple(map(Path, found))).remove()

    def spawn(self, daemon: str, command: Sequence[str | Path]) -> None:
        """Start a daemon in the node; its log is `NODE-DAEMON.log`."""
        name = f"{self.name}-{daemon}"
        outer = self._processes.start(name, self._joined(self._entered(command)))

        def inner() -> int | None:
            self._processes.check(name)
            return next(_children(outer, "nsenter"), None)

        # nsenter(1) only waits for it: the daemon's own record tells its memory, and it alone is killed.
        self._processes.record(name, until(inner, f"{daemon} of node {self.name}", every=0.002))

    def kill(self, daemon: str, how: signal.Signals = signal.SIGKILL) -> bool:
        """End a daemon by a signal; return whether it ran."""
        return self._processes.stop(f"{self.name}-{daemon}", how=how)

    def check(self, daemon: str) -> None:
        """Raise RuntimeError with the end of its log when the daemon has ended."""
        self._processes.check(f"{self.name}-{daemon}")

    def tail(self, daemon: str, lines: int = 5) -> str:
        """Return the last lines of a daemon's log."""
        return self._processes.tail(f"{self.name}-{daemon}", lines)

    def wait_for(self, daemon: str, url: str, seconds: int = 30) -> None:
        """Wait until a daemon answers `url`, as seen in the node, with 200. Raises RuntimeError otherwise."""
        try:
            self.run([binaries.find("probe"), "get", url, str(seconds)], seconds=seconds + 10)
        except RuntimeError:
            self.check(daemon)
            raise

    def run(self, command: Sequence[str | Path], *, seconds: float = 120) -> str:
        """Run a command in the node and return its output. Raises RuntimeError with what it said."""
        words = self._entered(command)
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds)
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise RuntimeError(f"{' '.join(map(str, command))} in node {self.name} failed: {said}")
        return done.stdout

    def _entered(self, command: Sequence[str | Path]) -> list[str]:
        """Return a command that runs `command` in the node's namespaces."""
        kinds = ["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup"]
        return ["nsenter", "--target", str(self.init_pid), *kinds, "--", *map(str, command)]

    def _joined(self, command: Sequence[str]) -> list[str]:
        """Return a command that runs `command` in the node's control groups."""
        found = self.directory.read(self._facts)
        paths = tuple(map(Path, found)) if isinstance(found, list) else ()
        return ["/bin/sh", "-c", f'{cgroups.NodeGroups(paths).script()} && exec "$@"', "join", *command]

    def _inner(self, outer: int, pause: Path) -> int | None:
        """Return the child of unshare(1) once it has become the pause program."""
        self._processes.check(self._outer)
        for pid in _children(outer, "unshare"):
            if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0] == bytes(pause):
                return pid
        raise NotYet("its mounts are not ready")

    @property
    def _processes(self) -> Processes:
        """The cluster's processes."""
        return self.directory.processes()

    @property
    def _one(self) -> str:
        """Name of process 1."""
        return f"{self.name}-init"

    @property
    def _outer(self) -> str:
        """Name of process 1's parent on the host."""
        return f"{self.name}-unshare"

    @property
    def _facts(self) -> str:
        """Where the paths of the control groups are kept."""
        return f"node-{self.name}"


def _children(pid: int, program: str) -> Iterator[int]:
    """Yield the children of a process once it is `program`, not the shell that starts it."""
    try:
        if Path(f"/proc/{pid}/comm").read_text().strip() == program:
            yield from map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    except OSError as error:
        raise NotYet(str(error)) from None
