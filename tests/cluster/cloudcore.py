"""cloudcore: KubeEdge's half in the cloud, beside the control plane.

Edge nodes talk to it alone, never to the API server. It makes its own CA, the nodes' certificates and the
token that lets a new node in, and keeps them as Secrets: one that is restarted is known to its nodes. It has
the rights of KubeEdge's own ClusterRole. CRDs and roles are read from KubeEdge's sources, in the version that
was built.
"""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import binaries
from tests.cluster.api import Api, ApiError
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubectl import Kubectl
from tests.cluster.locking import locked
from tests.cluster.network import answers
from tests.cluster.waiting import NotYet, until

NAMESPACE = "kubeedge"
HUB_PORT, HTTPS_PORT = 10000, 10002
"""Where nodes connect for good (a web socket), and where they ask for their certificate."""
USER = f"system:serviceaccount:{NAMESPACE}:cloudcore"
"""Whom KubeEdge's ClusterRoleBinding gives its rights to."""
HEARTBEAT_SECONDS = 2
"""How often a node says that it is there; edgecore waits twice as long before it connects again. KubeEdge's
default is 15."""
KEEPALIVE_SECONDS = 10
"""Without a heartbeat for that long cloudcore drops the connection; KubeEdge's default is 30."""
CRDS = (
    "clusterobjectsyncs.reliablesyncs.kubeedge.io",
    "devicemodels.devices.kubeedge.io",
    "devices.devices.kubeedge.io",
    "devicestatuses.devices.kubeedge.io",
    "objectsyncs.reliablesyncs.kubeedge.io",
)
"""What cloudcore watches. Without those of `reliablesyncs` it serves nobody, and only its log says so."""

_SOURCE = binaries.SOURCES["cloudcore"]
_NODE_LIMIT = 10
_PARTS = {"build/crds": "crds", "build/cloud": "roles"}
_ROLES = ("01-namespace.yaml", "02-serviceaccount.yaml", "03-clusterrole.yaml", "04-clusterrolebinding.yaml")


@dataclass(frozen=True)
class CloudCore:
    """cloudcore of a cluster whose control plane runs in a network namespace."""

    control_plane: ControlPlane
    address: str
    """Where edge nodes reach it."""

    def install(self, kubectl: Kubectl) -> None:
        """Apply KubeEdge's CRDs and roles; once more is no error."""
        folder = manifests()
        files = [*sorted((folder / "crds").rglob("*.yaml")), *(folder / "roles" / name for name in _ROLES)]
        kubectl.run("apply", "--server-side", *(f"--filename={file}" for file in files))

    def start(self, api: Api) -> None:
        """Start it and wait until nodes can connect: it begins with a nap of up to ten seconds.

        Raises RuntimeError when CRDs are missing, or with the end of its log when it ends.
        """
        missing = [name for name in CRDS if not _established(api, name)]
        if missing:
            raise RuntimeError(
                f"KubeEdge's CRDs are missing: {', '.join(missing)}; without them cloudcore serves "
                "nobody, or no devices. Apply build/crds of KubeEdge's sources first"
            )
        processes = self.control_plane.directory.processes()
        program, settings = binaries.find("cloudcore"), f"--config={self._configured()}"
        processes.start("cloudcore", [program, settings], netns=self.control_plane.netns)
        until(lambda: self._serves() and self.token(api), "cloudcore to let nodes in", seconds=90, every=0.2)

    def stop(self) -> bool:
        """End it at once; return whether it ran. Nodes and their containers go on."""
        return self.control_plane.directory.processes().stop("cloudcore")

    def token(self, api: Api) -> str:
        """Return what lets a new node in. Raises NotYet before cloudcore has made it."""
        try:
            found = api.get("Secret", "tokensecret", NAMESPACE)["data"]["tokendata"]
        except ApiError as error:
            raise NotYet(f"no token yet: {error}") from None
        return base64.b64decode(found).decode()

    def _serves(self) -> bool:
        """Tell whether both ports are open."""
        self.control_plane.directory.processes().check("cloudcore")
        for port in (HUB_PORT, HTTPS_PORT):
            if not answers(self.control_plane.netns or "", self.address, port):
                raise NotYet(f"nobody listens at port {port}")
        return True

    def _configured(self) -> Path:
        """Write the configuration; return its path."""
        pki = self.control_plane.directory.pki
        file, folder = pki / "cloudcore.json", pki / "kubeedge"
        folder.mkdir(mode=0o700, exist_ok=True)
        authority = self.control_plane.authority
        server = f"https://127.0.0.1:{self.control_plane.ports.api}"
        content = configuration(self.address, authority.kubeconfig("cloudcore", server, user=USER), folder)
        file.write_text(json.dumps(content, indent=2), encoding="utf-8")  # JSON is YAML
        return file


def manifests() -> Path:
    """Return the folder with `crds` and `roles`, kept beside the programs: a start needs no network."""
    kept = _SOURCE.target / "manifests"
    if not kept.is_dir():
        sources = binaries.module_folder(_SOURCE)
        with locked(_SOURCE.target / ".lock"):
            partial = _SOURCE.target / ".manifests.partial"
            shutil.rmtree(partial, ignore_errors=True)
            for there, here in _PARTS.items():
                # Only the contents: what Go keeps is read-only, and could not be deleted again.
                shutil.copytree(sources / there, partial / here, copy_function=shutil.copyfile)
            for folder in (partial, *(path for path in partial.rglob("*") if path.is_dir())):
                folder.chmod(0o755)
            if not kept.is_dir():
                partial.rename(kept)
    return kept


def configuration(address: str, kubeconfig: Path, folder: Path) -> dict[str, Any]:
    """Return a CloudCore configuration; `folder` may hold certificates, which it makes itself otherwise."""
    return {
        "apiVersion": "cloudcore.config.kubeedge.io/v1alpha1",
        "kind": "CloudCore",
        "kubeAPIConfig": {"kubeConfig": str(kubeconfig), "master": ""},
        "modules": {
            "cloudHub": {
                "advertiseAddress": [address],
                "dnsNames": ["cloudcore"],
                "nodeLimit": _NODE_LIMIT,
                "keepaliveInterval": KEEPALIVE_SECONDS,
                "tlsCAFile": str(folder / "rootCA.crt"),
                "tlsCAKeyFile": str(folder / "rootCA.key"),
                "tlsCertFile": str(folder / "server.crt"),
                "tlsPrivateKeyFile": str(folder / "server.key"),
                # Not opened, but its folder is made: that of the default address is the machine's.
                "unixsocket": {"enable": False, "address": f"unix://{folder / 'kubeedge.sock'}"},
                "websocket": {"enable": True, "address": "0.0.0.0", "port": HUB_PORT},
                "https": {"enable": True, "address": "0.0.0.0", "port": HTTPS_PORT},
            },
            "cloudStream": {"enable": False},
            "dynamicController": {"enable": False},
            "iptablesManager": {"enable": False},
            "router": {"enable": False},
        },
    }


def _established(api: Api, name: str) -> bool:
    """Tell whether there is a CRD of that name and its objects can be asked for."""
    try:
        found = api.get("CustomResourceDefinition", name)
    except ApiError as error:
        if error.code != 404:
            raise
        return False
    conditions = found.get("status", {}).get("conditions") or ()
    return any(item["type"] == "Established" and item["status"] == "True" for item in conditions)
