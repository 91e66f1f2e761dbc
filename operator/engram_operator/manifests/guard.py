"""What a job's `podTemplate` may not break: identity, credentials, results, and the pod's confinement.

Command, image, probes, resources and everything else of Kubernetes may be changed: an escape hatch is there
to be used, and the API server judges the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engram.spec.names import GROUP, MAIN_CONTAINER, STATUS_PORT, MountPath
from engram.spec.names import Environment as Env
from engram.spec.objects import check_labels
from engram.spec.problems import Problem, as_error, did_you_mean, shown
from engram_operator.model import Object

FREE_VARIABLES = frozenset(
    {
        Env.MODEL_URL,
        Env.PRETRAINED_MODEL_URL,
        Env.TRAIN_DATASET_URL,
        Env.TEST_DATASET_URL,
        Env.DATASET_NAME,
        Env.MODEL_NAME,
        Env.TRANSMITTER,
        Env.DATA_PATH_PREFIX,
        Env.LC_SERVER,
    }
)
"""Variables of `Environment` that code of the user's own may want otherwise; the others are ours."""


def check_pod_template(template: Mapping[str, Any], field: str) -> None:
    """Raise ConfigurationError unless `template`, as written in the job, can be merged at all."""
    _refuse(_check_shape(template, field))


def check_merged(base: Object, merged: Object, field: str, *, allow_service_accounts: bool) -> None:
    """Raise ConfigurationError, with every problem, if `merged` lacks what the operator needs of `base`."""
    before, after = base["spec"], _map(merged, "spec")
    problems = [
        *_check_labels_kept(base, merged, f"{field}.metadata"),
        *_check_confinement(after, f"{field}.spec"),
        *_check_affinity(before, after, f"{field}.spec"),
        *_check_volumes(before, after, f"{field}.spec"),
        *_check_containers(before, after, f"{field}.spec"),
    ]
    if not allow_service_accounts:
        problems += _check_service_account(after, f"{field}.spec")
    _refuse(problems)


def _refuse(problems: Iterator[Problem] | Sequence[Problem]) -> None:
    found = list(problems)
    if found:
        raise as_error(found, "")


def _check_shape(template: Mapping[str, Any], field: str) -> Iterator[Problem]:
    parts = {"metadata": ("labels", "annotations"), "spec": None}
    for key, value in template.items():
        if key.startswith("$"):
            continue  # merge says it better
        if key not in parts:
            yield Problem(f"{field}.{key}", "unknown field", did_you_mean(key, list(parts)))
        elif not isinstance(value, Mapping):
            yield Problem(f"{field}.{key}", f"is {shown(value)}, not a mapping", "write it as in a pod")
    meta = template.get("metadata")
    if not isinstance(meta, Mapping):
        return
    for key in meta:
        if key not in ("labels", "annotations") and not key.startswith("$"):
            yield Problem(
                f"{field}.metadata.{key}", "is set by Kubernetes", "write labels or annotations only"
            )
    for key in ("labels", "annotations"):
        kept = meta.get(key)
        if isinstance(kept, Mapping):
            kept = {name: value for name, value in kept.items() if value is not None}
        yield from check_labels(kept, f"{field}.metadata.{key}", values=key == "labels")


def _check_labels_kept(base: Object, merged: Object, field: str) -> Iterator[Problem]:
    before = base["metadata"]["labels"]
    after = _map(_map(merged, "metadata"), "labels")
    for key in {**before, **after}:
        ours = key.startswith((f"{GROUP}/", "app.kubernetes.io/"))
        if ours and key in before and after.get(key) != before[key]:
            yield Problem(f"{field}.labels.{key}", "is set by the operator", "remove it")
        elif key.startswith(f"{GROUP}/") and key not in before:
            yield Problem(f"{field}.labels.{key}", f"{GROUP}/ is kept for the operator", "write another key")


def _check_confinement(spec: Mapping[str, Any], field: str) -> Iterator[Problem]:
    if spec.get("restartPolicy") != "Never":
        yield Problem(
            f"{field}.restartPolicy",
            f"{shown(spec.get('restartPolicy'))} does not go with a failure policy",
            "remove it: it is Never, and the Job replaces failed pods",
        )
    for key in ("hostPID", "hostIPC"):
        if spec.get(key):
            yield Problem(f"{field}.{key}", "is not allowed", "remove it: no training needs it")
    for kind in ("containers", "initContainers"):
        for container in _items(spec, kind):
            place = f"{field}.{kind}[{container.get('name')}]"
            if _map(container, "securityContext").get("privileged"):
                yield Problem(
                    f"{place}.securityContext.privileged",
                    "is not allowed",
                    "remove it; for a device write gpus or resources.limits",
                )
            for port in _items(container, "ports"):
                yield from _check_port(port, bool(spec.get("hostNetwork")), f"{place}.ports")


def _check_port(port: Mapping[str, Any], host_network: bool, field: str) -> Iterator[Problem]:
    number, host = port.get("containerPort"), port.get("hostPort")
    if number == STATUS_PORT and host:
        yield Problem(
            f"{field}[{number}].hostPort", "would open the status port to the network", "remove hostPort"
        )
    elif host_network and host and host != number:
        yield Problem(
            f"{field}[{number}].hostPort",
            f"{host} cannot differ from the container's port on the host's network",
            "write 0 in spec.aggregator.expose.port, or remove hostNetwork",
        )


def _check_service_account(spec: Mapping[str, Any], field: str) -> Iterator[Problem]:
    """Training pods never need the Kubernetes API; an administrator may think otherwise."""
    remedy = "remove it, or have the operator's administrator allow it (--allow-service-accounts)"
    for key in ("serviceAccountName", "serviceAccount"):
        if spec.get(key):
            yield Problem(f"{field}.{key}", "is not allowed", remedy)
    if spec.get("automountServiceAccountToken") is not False:
        yield Problem(f"{field}.automountServiceAccountToken", "must stay false", remedy)
    for volume in _items(spec, "volumes"):
        sources = _items(_map(volume, "projected"), "sources")
        if any("serviceAccountToken" in source for source in sources):
            yield Problem(
                f"{field}.volumes[{volume.get('name')}].projected", "holds a service account's token", remedy
            )


def _check_affinity(before: Object, after: Mapping[str, Any], field: str) -> Iterator[Problem]:
    """A pod that was bound to a node by name (its address is handed to the workers) stays bound to it."""
    bound = [term["matchFields"] for term in _node_terms(before) if "matchFields" in term]
    if bound and not all(term.get("matchFields") == bound[0] for term in _node_terms(after) or [{}]):
        yield Problem(
            f"{field}.affinity.nodeAffinity",
            "removes the node of spec.aggregator.nodeName",
            "leave requiredDuringSchedulingIgnoredDuringExecution out, or remove nodeName",
        )


def _node_terms(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    required = _map(
        _map(_map(spec, "affinity"), "nodeAffinity"), "requiredDuringSchedulingIgnoredDuringExecution"
    )
    return _items(required, "nodeSelectorTerms")


def _check_volumes(before: Object, after: Mapping[str, Any], field: str) -> Iterator[Problem]:
    merged = {volume["name"]: volume for volume in _items(after, "volumes")}
    for ours in before["volumes"]:
        if ours["name"] != "tmp" and not _holds(merged.get(ours["name"]), ours):
            yield Problem(
                f"{field}.volumes[{ours['name']}]",
                "is the operator's and was changed",
                "give your own volume another name; the job's volumes are fields of the spec",
            )
    for name, volume in merged.items():
        sources = [key for key in volume if key != "name"]
        if len(sources) > 1:
            yield Problem(
                f"{field}.volumes[{name}]",
                f"has several sources ({', '.join(sources)})",
                "keep one; write null for one of ours that shall go, such as emptyDir: null",
            )


def _check_containers(before: Object, after: Mapping[str, Any], field: str) -> Iterator[Problem]:
    ours = next(item for item in before["containers"] if item["name"] == MAIN_CONTAINER)
    main = next((item for item in _items(after, "containers") if item.get("name") == MAIN_CONTAINER), None)
    place = f"{field}.containers[{MAIN_CONTAINER}]"
    if main is None:
        yield Problem(
            f"{field}.containers",
            f"has no container {MAIN_CONTAINER}",
            "remove null: containers are added to it, and it is changed by its name",
        )
        return
    if main.get("terminationMessagePath", MountPath.TERMINATION_LOG) != MountPath.TERMINATION_LOG:
        yield Problem(f"{place}.terminationMessagePath", "hides the result from the operator", "remove it")
    yield from _check_kept(ours, main, "ports", "containerPort", place)
    yield from _check_kept(ours, main, "volumeMounts", "mountPath", place)
    yield from _check_environment(ours, main, f"{place}.env")


def _check_kept(ours: Object, main: Mapping[str, Any], part: str, key: str, field: str) -> Iterator[Problem]:
    """Items of ours must still be there, with all they had."""
    found = {item.get(key): item for item in _items(main, part)}
    for item in ours.get(part, ()):
        if not _holds(found.get(item[key]), item):
            yield Problem(f"{field}.{part}[{item[key]}]", "is the operator's and was changed", "remove it")


def _check_environment(ours: Object, main: Mapping[str, Any], field: str) -> Iterator[Problem]:
    kept = {name.value for name in Env} - FREE_VARIABLES
    before = {entry["name"]: entry for entry in ours["env"]}
    after = {entry.get("name"): entry for entry in _items(main, "env")}
    for name in sorted(kept):
        if before.get(name) != after.get(name):
            yield Problem(f"{field}[{name}]", "is set by the operator", "remove it")
    for entry in after.values():
        if "value" in entry and "valueFrom" in entry:
            yield Problem(
                f"{field}[{entry.get('name')}]",
                "has value and valueFrom",
                "write value: null beside valueFrom",
            )


def _map(holder: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a mapping that a user may have written as anything."""
    found = holder.get(key)
    return found if isinstance(found, Mapping) else {}


def _items(holder: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """Return the mappings of a list that a user may have written as anything."""
    found = holder.get(key)
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


def _holds(value: object, part: object) -> bool:
    """Return whether `value` has everything of `part`; more is welcome."""
    if isinstance(part, Mapping):
        return isinstance(value, Mapping) and all(
            key in value and _holds(value[key], below) for key, below in part.items()
        )
    return value == part
