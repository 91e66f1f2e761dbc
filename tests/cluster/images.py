"""Images without a registry: made by hand from a program, or by buildah as a tar file, and imported.

Every containerd has a store of its own; an image goes into each once, known by the digest of its
configuration.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.cluster import binaries
from tests.cluster.containerd import PAUSE_IMAGE, ctr
from tests.cluster.node import Node
from tests.cluster.state import cache_folder

PROBE_IMAGE = "docker.io/engram/probe:1"
"""What the pods of the cluster's own tests run; see nodetools/probe."""
RECORD = "images.json"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Archive:
    """A docker-archive tar: what `docker save` and `buildah push docker-archive:` write."""

    path: Path
    digest: str
    """Of the image's configuration: the image's id."""
    names: tuple[str, ...]
    """As containerd knows them."""

    @classmethod
    def read(cls, path: Path) -> Archive:
        """Read the manifest. Raises ValueError for a file that is no archive with one named image."""
        try:
            with tarfile.open(path, "r:") as tar:
                found = tar.extractfile("manifest.json")
                manifest = json.load(found) if found is not None else []
        except (tarfile.TarError, KeyError, ValueError) as error:
            raise ValueError(
                f"{path} is no docker-archive tar ({error}): 'buildah push IMAGE docker-archive:FILE'"
            ) from None
        if len(manifest) != 1 or not manifest[0].get("RepoTags"):
            raise ValueError(f"{path} must hold one image with a name and a tag")
        names = tuple(map(full_name, manifest[0]["RepoTags"]))
        return cls(path, Path(manifest[0]["Config"]).name.removesuffix(".json"), names)


def full_name(name: str) -> str:
    """Return the name that containerd gives an image: `engram:1` is `docker.io/library/engram:1`."""
    first, slash, _ = name.partition("/")
    if not slash:
        return f"docker.io/library/{name}"
    return name if "." in first or ":" in first or first == "localhost" else f"docker.io/{name}"


def cached() -> list[Path]:
    """Return every archive in the cache: the project's images if they were built, pause and probe always."""
    _write_archive(PAUSE_IMAGE, binaries.find("pause"))
    _write_archive(PROBE_IMAGE, binaries.find("probe"))
    return sorted(_folder().glob("*.tar"))


@dataclass(frozen=True)
class Store:
    """The images of one containerd."""

    client: Callable[..., str]
    """Runs `ctr` with these arguments, returns its output, raises RuntimeError with its words."""
    record: Path
    """Which image each name stands for; it lies where containerd's own data do."""

    @classmethod
    def of(cls, node: Node) -> Store:
        """Return the store of a node."""
        return cls(partial(ctr, node), node.root / RECORD)

    def missing(self, paths: Sequence[Path]) -> list[Archive]:
        """Return the archives that are not in it. Raises ValueError for a file that is none."""
        known = self._known()
        archives = map(Archive.read, paths)
        return [found for found in archives if {known.get(name) for name in found.names} != {found.digest}]

    def add(self, paths: Sequence[Path]) -> None:
        """Import what is missing. Raises RuntimeError when containerd refuses it.

        buildah calls an image without a registry `localhost/NAME`, Kubernetes looks for
        `docker.io/library/NAME`: such an image gets both names.
        """
        for archive in self.missing(paths):
            self.client("images", "import", str(archive.path))
            for name in archive.names:
                local = name.removeprefix("localhost/")
                if local != name:
                    self.client("images", "tag", "--force", name, full_name(local))
            known = {**self._known(), **dict.fromkeys(archive.names, archive.digest)}
            self.record.write_text(json.dumps(known, indent=2), encoding="utf-8")

    def _known(self) -> dict[str, str]:
        """Return the digest of each name."""
        try:
            found: dict[str, str] = json.loads(self.record.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return found


def _folder() -> Path:
    """Return where archives are kept."""
    return cache_folder() / "images"


def _write_archive(name: str, program: Path) -> None:
    """Write the archive of an image that holds one static program and runs it as a plain user."""
    target = _folder() / f"{name.rpartition('/')[2].replace(':', '-')}.tar"
    layer = _tar({program.name: (program.read_bytes(), 0o755)})
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Entrypoint": [f"/{program.name}"], "User": "65532"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created_by": "tests/cluster/images.py"}],
    }
    text = json.dumps(config).encode()
    digest = hashlib.sha256(text).hexdigest()
    manifest = [{"Config": f"{digest}.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    content = {
        f"{digest}.json": (text, 0o644),
        "layer.tar": (layer, 0o644),
        "manifest.json": (json.dumps(manifest).encode(), 0o644),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(_tar(content))
    unfinished.replace(target)


def _tar(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    """Return a tar of files given by name as content and mode; the same bytes for the same files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
