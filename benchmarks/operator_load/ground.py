"""The cluster that is measured on: CRD, fake nodes, and the operator's own account and its rights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engram.spec.names import CRD_NAME
from engram.spec.yaml_text import load_documents
from tests.cluster import binaries
from tests.cluster.api import Api, Object, path_of
from tests.cluster.control_plane import ControlPlane
from tests.cluster.fake_nodes import build_node
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import until

_ROOT = Path(__file__).parents[2]
_SYSTEM, _ACCOUNT = "engram-system", "engram-operator"
OPERATOR_USER = f"system:serviceaccount:{_SYSTEM}:{_ACCOUNT}"
CONTROLLERS_USER = "system:kube-controller-manager"
_NODES = 4
_TOKEN_SECONDS = 4 * 3600

_PROXY = "engram-operator-outside"
"""A right that deploy/ need not give: outside the cluster aggregators are read through the API server."""


@dataclass(frozen=True)
class Ground:
    """A control plane on which jobs can be made."""

    control_plane: ControlPlane
    api: Api
    kubeconfig: Path
    """Of the operator's service account."""

    @property
    def audit_log(self) -> Path:
        """Who asked the API server for what."""
        return self.control_plane.directory.audit_log


@contextmanager
def prepared(control_plane: ControlPlane) -> Iterator[Ground]:
    """Install what the operator needs, and nodes; the nodes go at the end."""
    api = Api(control_plane.directory.kubeconfig)
    names = [f"fake-load-{number}" for number in range(_NODES)]
    try:
        _install(Kubectl(binaries.find("kubectl"), control_plane.directory.kubeconfig), api)
        for name in names:
            api.create(build_node(name))
        yield Ground(control_plane, api, _log_in(control_plane, api))
    finally:
        for name in names:
            api.delete("Node", name)
        api.close()


def make_namespace(api: Api, name: str) -> None:
    """Make a namespace in which pods can be made."""
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    until(lambda: api.list("ServiceAccount", name), f"the service account of namespace {name}")


def _install(kubectl: Kubectl, api: Api) -> None:
    """Apply the CRD, and of deploy/ all but the Deployment: the operator runs on this machine."""
    deploy = (_ROOT / "deploy" / "operator.yaml").read_text(encoding="utf-8")
    identity = [item for item in load_documents(deploy) if item["kind"] != "Deployment"]
    items = {"apiVersion": "v1", "kind": "List", "items": [*identity, *_proxy_rights()]}
    kubectl.apply(_ROOT / "crds", flags=("--server-side",))
    kubectl.apply(json.dumps(items), flags=("--server-side",))
    kubectl.apply(_ROOT / "deploy" / "rbac-cluster.yaml", flags=("--server-side",))

    def established() -> bool:
        found = api.get("CustomResourceDefinition", CRD_NAME).get("status", {}).get("conditions") or ()
        return any(item["type"] == "Established" and item["status"] == "True" for item in found)

    until(established, f"{CRD_NAME} to be Established")


def _proxy_rights() -> list[Object]:
    group = "rbac.authorization.k8s.io"
    rule = {"apiGroups": [""], "resources": ["services/proxy"], "verbs": ["get"]}
    common = {"apiVersion": f"{group}/v1", "metadata": {"name": _PROXY}}
    return [
        {**common, "kind": "ClusterRole", "rules": [rule]},
        {
            **common,
            "kind": "ClusterRoleBinding",
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": _PROXY},
            "subjects": [{"kind": "ServiceAccount", "name": _ACCOUNT, "namespace": _SYSTEM}],
        },
    ]


def _log_in(control_plane: ControlPlane, api: Api) -> Path:
    """Return a kubeconfig with a token of the operator's service account."""
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": _TOKEN_SECONDS},
    }
    answer = api.ask("POST", path_of("ServiceAccount", _SYSTEM, _ACCOUNT, "token"), request).body
    return control_plane.authority.write_kubeconfig(
        _ACCOUNT, control_plane.server, {"token": answer["status"]["token"]}
    )
