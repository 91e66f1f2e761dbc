"""A store of images from which every node starts: a gigabyte imported into each would take most of a minute.

One containerd without nodes imports an archive once, into a folder of the cache. A new node gets a copy of
that folder made of hard links: what lies in it (blobs, unpacked layers) is never written to, only deleted,
because overlay file systems copy a file before they change it. The two databases are copied in full.
"""

from __future__ import annotations

import fcntl
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.cluster import binaries
from tests.cluster.images import RECORD, Store
from tests.cluster.state import ClusterDirectory, cache_folder
from tests.cluster.waiting import NotYet, until

STATE = Path("var/lib/containerd")
"""Where a node keeps its containerd's data."""

_PROCESS = "image-cache"
_CONFIG = """\
version = 2
root = "{root}"
state = "{run}/state"
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]
[grpc]
  address = "{socket}"
"""


def seed(directory: ClusterDirectory, archives: Sequence[Path], roots: Sequence[Path]) -> None:
    """Give each node's disk (`roots`) the images of `archives`, before its containerd is started.

    What the cache lacks is imported by a containerd that runs meanwhile, recorded in `directory`. Raises
    ValueError for a bad archive, RuntimeError or TimeoutError when containerd fails.
    """
    folder = cache_folder() / "image-cache"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if Store(_no_client, folder / RECORD).missing(archives):
            try:
                _add(directory, folder, archives)
            except RuntimeError:
                # Its own clean-up can take away a layer that an import counts on; an empty store has none.
                shutil.rmtree(folder / "root", ignore_errors=True)
                (folder / RECORD).unlink(missing_ok=True)
                _add(directory, folder, archives)
        for root in roots:
            _clone(folder, root)


def _add(directory: ClusterDirectory, folder: Path, archives: Sequence[Path]) -> None:
    with _containerd(directory, folder) as store:
        store.add(archives)


def _clone(folder: Path, root: Path) -> None:
    """Copy the store to a node's disk by hard links."""
    target = root / STATE
    target.parent.mkdir(parents=True, exist_ok=True)
    source = folder / "root"
    subprocess.run(["cp", "--archive", "--link", str(source), str(target)], check=True, timeout=300)
    for database in source.glob("*/*.db"):
        own = target / database.relative_to(source)
        own.unlink()
        shutil.copy2(database, own)
    shutil.copy2(folder / RECORD, root / RECORD)


@contextmanager
def _containerd(directory: ClusterDirectory, folder: Path) -> Iterator[Store]:
    """Run a containerd over the store, with mounts that only it sees."""
    processes = directory.processes()
    with tempfile.TemporaryDirectory(prefix="engram-images-") as run:
        socket, config = f"{run}/containerd.sock", Path(run, "config.toml")
        config.write_text(_CONFIG.format(root=folder / "root", run=run, socket=socket), encoding="utf-8")
        # It must not outlive us, for it holds the store; its mounts go with it.
        alone = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--propagation=private"]
        processes.start(_PROCESS, [*alone, binaries.find("containerd"), "--config", config])

        def client(*arguments: str) -> str:
            processes.check(_PROCESS)
            words = ["ctr", "--address", socket, "--namespace", "k8s.io", *arguments]
            done = subprocess.run(words, capture_output=True, text=True, timeout=600)
            if done.returncode:
                raise RuntimeError(f"{' '.join(words)} failed: {(done.stderr or done.stdout).strip()}")
            return done.stdout

        def answers() -> bool:
            try:
                client("version")
            except RuntimeError as error:
                processes.check(_PROCESS)
                raise NotYet(str(error)) from None
            return True

        try:
            until(answers, "containerd of the image cache")
            yield Store(client, folder / RECORD)
        finally:
            processes.stop(_PROCESS, how=signal.SIGTERM)


def _no_client(*arguments: str) -> str:
    """Stand for a containerd that is not running."""
    raise RuntimeError(f"no containerd runs here to do {' '.join(arguments)}")
