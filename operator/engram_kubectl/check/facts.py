"""What the checks know of a cluster: read once, all at the same time; None for what may not be read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from engram_kubectl.connection import Cluster
from engram_kubectl.jobs import list_all
from engram_operator.api import path_of
from engram_operator.errors import ApiError
from engram_operator.model import Object

Objects = Sequence[Object] | None
_FINISHED = "status.phase!=Succeeded,status.phase!=Failed"


@dataclass(frozen=True)
class Facts:
    """Of the cluster, and of the job's namespace."""

    version: str
    namespace: Object | None
    """None: it does not exist, or may not be read."""
    namespace_missing: bool
    nodes: Objects
    pods: Objects
    """Of all namespaces, those that have not ended."""
    quotas: Objects
    claims: Mapping[str, Object] | None
    config_maps: Mapping[str, Object] | None
    secrets: Mapping[str, Object] | None
    """Those that the job names, read one by one (`secrets_named`); nobody else's."""
    storage_classes: Objects
    operators: Objects
    """Deployments of engram's operator, wherever they are."""
    services: Objects
    """Of all namespaces."""
    dns: Objects
    """Services of the cluster's DNS."""


async def gather(cluster: Cluster, namespace: str) -> Facts:
    """Read everything that the checks look at.

    Raises:
        ApiError: the cluster cannot be asked at all.
    """
    version = await cluster.api.request("GET", "/version")
    place = f"/api/v1/namespaces/{namespace}"
    found, missing = await _one(cluster, place)
    answers = await asyncio.gather(
        _list(cluster, path_of("Node")),
        _list(cluster, path_of("Pod"), {"fieldSelector": _FINISHED}),
        _list(cluster, f"{place}/resourcequotas"),
        _list(cluster, path_of("PersistentVolumeClaim", namespace)),
        _list(cluster, path_of("ConfigMap", namespace)),
        _list(cluster, "/apis/storage.k8s.io/v1/storageclasses"),
        _list(
            cluster,
            "/apis/apps/v1/deployments",
            {"labelSelector": "app.kubernetes.io/name=engram-operator"},
        ),
        _list(cluster, path_of("Service")),
        _list(cluster, path_of("Service", "kube-system"), {"labelSelector": "k8s-app=kube-dns"}),
    )
    nodes, pods, quotas, claims, config_maps, classes, operators, services, dns = answers
    return Facts(
        version=str(version.get("gitVersion") or ""),
        namespace=found,
        namespace_missing=missing,
        nodes=nodes,
        pods=pods,
        quotas=quotas,
        claims=_by_name(claims),
        config_maps=_by_name(config_maps),
        secrets={},
        storage_classes=classes,
        operators=operators,
        services=services,
        dns=dns,
    )


async def secrets_named(
    cluster: Cluster, namespace: str, names: Iterable[str]
) -> Mapping[str, Object] | None:
    """Return the type of each Secret of these names that exists, and not what is in it."""
    found: dict[str, Object] = {}
    for name in names:
        try:
            secret = await cluster.api.request("GET", path_of("Secret", namespace, name))
        except ApiError as error:
            if error.status == 403:
                return None
            if error.status != 404:
                raise
        else:
            found[name] = {"type": secret.get("type")}
    return found


async def _one(cluster: Cluster, path: str) -> tuple[Object | None, bool]:
    """Return an object, and whether it is known not to exist."""
    try:
        return await cluster.api.request("GET", path), False
    except ApiError as error:
        if error.status not in (403, 404):
            raise
        return None, error.status == 404


async def _list(cluster: Cluster, path: str, query: dict[str, str] | None = None) -> Objects:
    try:
        return await list_all(cluster, path, query or {})
    except ApiError as error:
        if error.status not in (403, 404):
            raise
        return None


def _by_name(items: Objects) -> Mapping[str, Object] | None:
    return None if items is None else {str(item["metadata"]["name"]): item for item in items}
