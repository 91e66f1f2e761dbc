"""Light checks of what Kubernetes types elsewhere: volumes, resources, labels, selectors, pull secrets.

The CRD leaves these objects open (inlining them would make it too large to apply), so a slip in them would
show only when a pod is refused, long after. Here the slips that people make are found at once; the API server
still judges the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from engram.spec.problems import Problem, did_you_mean, shown
from engram.spec.quantities import EXAMPLES, parse_quantity

VOLUME_SOURCES = (
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "glusterfs",
    "hostPath",
    "image",
    "iscsi",
    "nfs",
    "persistentVolumeClaim",
    "photonPersistentDisk",
    "portworxVolume",
    "projected",
    "quobyte",
    "rbd",
    "scaleIO",
    "secret",
    "storageos",
    "vsphereVolume",
)
"""Volume sources of a Kubernetes 1.34 pod."""

OBJECT_META = (
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
)
"""Keys of metadata beside name, namespace and uid."""

SELECTOR_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_OBJECT_NAME = _PREFIX


def check_metadata(extra: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield problems of metadata, name, namespace and uid aside."""
    for key in extra:
        if key not in OBJECT_META:
            choices = ["name", "namespace", *OBJECT_META]
            yield Problem(f"metadata.{key}", "unknown field", did_you_mean(key, choices))
    yield from check_labels(extra.get("labels"), "metadata.labels")
    yield from check_labels(extra.get("annotations"), "metadata.annotations", values=False)


def check_volume(volume: Mapping[str, Any], field: str) -> Iterator[Problem]:
    """Yield problems of a volume source; an empty one means none is asked for."""
    if not volume:
        return
    for key in volume:
        if key == "name":
            yield Problem(f"{field}.name", "is set by engram", "write the volume's source only")
        elif key not in VOLUME_SOURCES:
            remedy = did_you_mean(key, ["hostPath", "persistentVolumeClaim", "nfs"])
            yield Problem(f"{field}.{key}", "is no volume source of Kubernetes", _source_remedy(key, remedy))
    if len([key for key in volume if key in VOLUME_SOURCES]) > 1:
        yield Problem(field, f"has several sources ({', '.join(volume)})", "keep one")
    for key, source in volume.items():
        if key in VOLUME_SOURCES and not isinstance(source, Mapping):
            yield Problem(f"{field}.{key}", f"is {shown(source)}, not a mapping", _example(key))
    yield from _check_claim(volume.get("persistentVolumeClaim"), field)
    yield from _check_host_path(volume.get("hostPath"), field)


def _source_remedy(key: str, usual: str) -> str:
    """Return the likely source among all, or the usual ones."""
    near = did_you_mean(key, VOLUME_SOURCES)
    return near if near.startswith("did you mean") else usual


def _example(key: str) -> str:
    """Return how the source `key` is written."""
    examples = {
        "hostPath": "{path: /data}",
        "persistentVolumeClaim": "{claimName: my-claim}",
        "emptyDir": "{}",
        "nfs": "{server: my-server, path: /data}",
    }
    return f"write {key}: {examples.get(key, '{...}')}"


def _check_claim(claim: object, field: str) -> Iterator[Problem]:
    if isinstance(claim, Mapping) and not claim.get("claimName"):
        yield Problem(
            f"{field}.persistentVolumeClaim.claimName",
            "is missing",
            "write the name of a PersistentVolumeClaim",
        )


def _check_host_path(source: object, field: str) -> Iterator[Problem]:
    if not isinstance(source, Mapping):
        return
    path = source.get("path")
    if not isinstance(path, str) or not path.startswith("/") or ".." in path.split("/"):
        yield Problem(f"{field}.hostPath.path", f"is {shown(path)}", "write an absolute path without ..")


def check_resources(resources: Mapping[str, Any], field: str) -> Iterator[Problem]:
    """Yield problems of a container's resources: unknown keys, bad quantities, requests above limits."""
    for key, amounts in resources.items():
        if key == "claims":
            continue
        if key not in ("requests", "limits"):
            yield Problem(
                f"{field}.{key}", "unknown field", did_you_mean(key, ["requests", "limits", "claims"])
            )
        elif not isinstance(amounts, Mapping):
            yield Problem(
                f"{field}.{key}", f"is {shown(amounts)}, not a mapping", "write {cpu: 500m, memory: 1Gi}"
            )
        else:
            for name, amount in amounts.items():
                yield from check_quantity(amount, f"{field}.{key}.{name}")
    requests, limits = resources.get("requests"), resources.get("limits")
    if not isinstance(requests, Mapping) or not isinstance(limits, Mapping):
        return
    for name in requests:
        try:
            above = name in limits and parse_quantity(requests[name]) > parse_quantity(limits[name])
        except ValueError:
            continue
        if above:
            yield Problem(
                f"{field}.requests.{name}",
                f"{requests[name]} is above the limit {limits[name]}",
                "raise the limit or ask for less",
            )


def check_quantity(amount: Any, field: str, *, positive: bool = False) -> Iterator[Problem]:
    """Yield a problem unless `amount` is a quantity of at least (or, where `positive`, above) zero."""
    try:
        value = parse_quantity(amount)
    except ValueError as error:
        yield Problem(field, f"{shown(amount)} is no quantity", str(error))
        return
    if value < 0 or (positive and value == 0):
        yield Problem(field, f"{amount} is too small", EXAMPLES)


def check_labels(labels: object, field: str, *, values: bool = True) -> Iterator[Problem]:
    """Yield problems of labels, or of annotations (`values` false: their values are free text)."""
    if labels is None:
        return
    if not isinstance(labels, Mapping):
        yield Problem(field, f"is {shown(labels)}, not a mapping", "write keys and values below it, indented")
        return
    for key, value in labels.items():
        prefix, slash, name = key.rpartition("/")
        if not _NAME.fullmatch(name) or (slash and (len(prefix) > 253 or not _PREFIX.fullmatch(prefix))):
            yield Problem(
                f"{field}.{key}",
                "is no valid key",
                "write letters, digits, '-', '_' and '.', at most 63, after an optional dns.prefix/",
            )
        if not isinstance(value, str):
            yield Problem(
                f"{field}.{key}", f"{shown(value)} is not text", f'write "{shown(value)}" in quotes'
            )
        elif values and value and not _NAME.fullmatch(value):
            yield Problem(
                f"{field}.{key}",
                f"{value!r} is no valid label value",
                "write at most 63 letters, digits, '-', '_', '.'",
            )


def check_selector(selector: Mapping[str, Any], field: str) -> Iterator[Problem]:
    """Yield problems of a label selector."""
    for key in selector:
        if key not in ("matchLabels", "matchExpressions"):
            yield Problem(
                f"{field}.{key}", "unknown field", did_you_mean(key, ["matchLabels", "matchExpressions"])
            )
    yield from check_labels(selector.get("matchLabels"), f"{field}.matchLabels")
    expressions = selector.get("matchExpressions", [])
    if not isinstance(expressions, list):
        yield Problem(f"{field}.matchExpressions", "is not a list", "write [{key: KEY, operator: Exists}]")
        return
    for index, expression in enumerate(expressions):
        place = f"{field}.matchExpressions[{index}]"
        if not isinstance(expression, Mapping) or not expression.get("key"):
            yield Problem(place, "has no key", "write {key: KEY, operator: In, values: [A, B]}")
            continue
        operator = expression.get("operator")
        if operator not in SELECTOR_OPERATORS:
            yield Problem(
                f"{place}.operator",
                f"{shown(operator)} is not known",
                did_you_mean(str(operator), SELECTOR_OPERATORS),
            )
        elif (operator in ("In", "NotIn")) != bool(expression.get("values")):
            wanted = "needs values" if operator in ("In", "NotIn") else "takes no values"
            yield Problem(f"{place}.values", f"operator {operator} {wanted}", "write or remove values: [...]")


def check_pull_secret(secret: Mapping[str, Any], field: str) -> Iterator[Problem]:
    """Yield problems of one entry of imagePullSecrets."""
    name = secret.get("name")
    if list(secret) != ["name"] or not isinstance(name, str) or not _OBJECT_NAME.fullmatch(name):
        yield Problem(field, "is no reference to a Secret", "write {name: my-secret}")
