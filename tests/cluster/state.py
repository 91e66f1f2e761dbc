"""Where a cluster of the tests keeps everything it has: certificates, logs, records of processes, data.

The folder is the cluster: whoever knows it can tell what runs, use it and end it, also when the process that
started the cluster is long dead. A folder whose owner (a pytest process) is gone is swept by the next one.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.processes import Identity, Processes

CACHE_VARIABLE = "ENGRAM_CACHE"
"""Folder of what the tests build and start; default `~/.cache/engram`."""


def cache_folder() -> Path:
    """Return the folder for everything that is not part of the source tree."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "engram")


def clusters_folder() -> Path:
    """Return the folder that holds those of the clusters; it is made if need be."""
    folder = cache_folder() / "clusters"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class ClusterDirectory:
    """The folder of one cluster."""

    path: Path

    @classmethod
    def named(cls, name: str) -> ClusterDirectory:
        """Return the folder of the cluster that is called `name` on this machine."""
        return cls(clusters_folder() / name)

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self.path.name

    @property
    def pki(self) -> Path:
        """Certificates, keys and kubeconfigs."""
        return self.path / "pki"

    @property
    def logs(self) -> Path:
        """One log file for each process, and the API server's audit log."""
        return self.path / "log"

    @property
    def run(self) -> Path:
        """Records of processes, and unix sockets."""
        return self.path / "run"

    @property
    def data(self) -> Path:
        """What dies with the cluster: etcd's data, the nodes' file systems."""
        return self.path / "data"

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig of the administrator, for use on this machine."""
        return self.pki / "admin.kubeconfig"

    @property
    def audit_log(self) -> Path:
        """What the API server was asked (see `audit`)."""
        return self.logs / "audit.log"

    @property
    def exists(self) -> bool:
        """Whether there is such a cluster, running or left behind."""
        return self.path.is_dir()

    def processes(self) -> Processes:
        """Return the cluster's processes."""
        return Processes(self.run, self.logs)

    def create(self) -> None:
        """Make the folder and those in it, readable by the owner only; what is there stays."""
        for folder in (self.path, self.pki, self.logs, self.run, self.data):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, name: str, content: object) -> None:
        """Keep a fact about the cluster (plain data) for other processes."""
        partial = self.path / f".{name}.{os.getpid()}"
        partial.write_text(json.dumps(content, indent=2), encoding="utf-8")
        partial.replace(self.path / f"{name}.json")

    def read(self, name: str) -> object | None:
        """Return what was kept under `name`, None for nothing."""
        try:
            return json.loads((self.path / f"{name}.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]
        except FileNotFoundError:
            return None

    def own(self) -> None:
        """Bind the cluster's life to this process: once it is gone, `lifecycle.sweep` ends it."""
        self.write("owner", Identity.of(os.getpid()).text)

    @property
    def orphaned(self) -> bool:
        """Whether a process owned the cluster and is gone."""
        owner = self.read("owner")
        return isinstance(owner, str) and not Identity(owner).alive

    def remove(self) -> None:
        """Delete the folder. Raises RuntimeError while something is mounted in it: that may be the user's."""
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        inside = [line.split()[4] for line in mounts if line.split()[4].startswith(f"{self.path}/")]
        if inside:
            raise RuntimeError(f"{inside[0]} is still mounted: unmount it, then delete {self.path}")
        shutil.rmtree(self.path)


def clusters() -> list[ClusterDirectory]:
    """Return every cluster that this machine has, by name."""
    return [ClusterDirectory(path) for path in sorted(clusters_folder().glob("*")) if path.is_dir()]
