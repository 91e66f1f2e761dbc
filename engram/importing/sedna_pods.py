"""Sedna's pod templates: what becomes fields of an aggregator or worker group, and what their podTemplate.

Sedna creates the template's pod with its own additions; engram has fields for what is common, merges the rest
into its own pod, and keeps identity, security and restarts to itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engram.importing.credentials import REMEDY, holds_credential
from engram.importing.ledger import Reading
from engram.spec.names import GROUP, MAIN_CONTAINER, Environment, Label, MountPath

OWN_VOLUMES = ("spec", "credentials", "data", "checkpoint", "state", "tmp")
"""Names of volumes in the operator's pods."""
OWN_LABELS = (f"{GROUP}/", "app.kubernetes.io/")

LISTS = ("tolerations", "hostAliases", "topologySpreadConstraints")
"""Parts of a pod's spec that podTemplate takes as they are: lists, then everything else."""
VALUES = (
    "hostNetwork",
    "dnsPolicy",
    "dnsConfig",
    "runtimeClassName",
    "priorityClassName",
    "schedulerName",
    "terminationGracePeriodSeconds",
)
ELSEWHERE = {"containers", "nodeName", "nodeSelector", "volumes", "affinity", "imagePullSecrets"}
"""Parts of a pod's spec that are read by name."""
CONTAINER_VALUES = ("imagePullPolicy", "workingDir")
CONTAINER_ELSEWHERE = {"name", "image", "command", "args", "resources", "env", "envFrom", "volumeMounts"}
"""The same of a container."""

LEFT: Mapping[str, str] = {
    "restartPolicy": "the Job decides: a failed pod is replaced by a new one",
    "securityContext": "engram's pods have their own; spec.workers[].runAsUser says who reads the data",
    "serviceAccountName": "a training pod never needs the Kubernetes API",
    "serviceAccount": "a training pod never needs the Kubernetes API",
    "automountServiceAccountToken": "it is false: a training pod never needs the Kubernetes API",
    "hostPID": "not allowed: no training needs it",
    "hostIPC": "not allowed: no training needs it",
}
BY_HAND = "not copied: write it into podTemplate if it is needed"


@dataclass
class Pod:
    """The fields of an aggregator or a worker group, and which values of the input they were made of."""

    values: dict[str, Any] = field(default_factory=dict)
    environment: list[Reading] = field(default_factory=list)
    """Entries of the container's environment that are plain text, for who looks for hyperparameters."""
    _made: list[tuple[str, Reading, str]] = field(default_factory=list)

    def put(self, value: Any, *keys: str) -> None:
        """Set the field at `keys`."""
        node = self.values
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = value

    def takes(self, reading: Reading, target: str, remark: str = "") -> bool:
        """Tell whether `reading` may become the field `target`, and note that it does.

        What holds a credential may not: it is left, with that reason.
        """
        key = reading.path[-1]
        if holds_credential({key: reading.value} if isinstance(key, str) else reading.value):
            reading.left(REMEDY)
            return False
        self._made.append((target, reading, remark))
        return True

    def fill(self, reading: Reading, *keys: str, remark: str = "") -> None:
        """Set the field at `keys` to what `reading` has, if anything and if it may be taken."""
        if reading.present and self.takes(reading, ".".join(keys), remark):
            self.put(reading.value, *keys)

    def enter(self, prefix: str) -> None:
        """Enter everything that was made, for the pod whose fields are below `prefix`."""
        for target, reading, remark in self._made:
            reading.becomes(f"{prefix}.{target}", remark)

    def container(self) -> dict[str, Any]:
        """Return the main container of the podTemplate."""
        spec = self.values.setdefault("podTemplate", {}).setdefault("spec", {})
        containers: list[dict[str, Any]] = spec.setdefault("containers", [{"name": MAIN_CONTAINER}])
        return containers[0]


def read_template(template: Reading) -> tuple[Pod, Reading]:
    """Return what a template says apart from its container, and the container (the first one).

    Raises ConfigurationError for parts of the wrong kind and for a template without a container.
    """
    pod = Pod()
    _read_metadata(pod, template["metadata"])
    spec = template["spec"]
    keys = set(spec.mapping())
    containers = spec["containers"].items()
    if not containers:
        raise spec["containers"].error("is missing", "write the container that trains")
    for other in containers[1:]:
        other.left(f"one container trains; {BY_HAND}")
    _read_node_selector(pod, spec["nodeSelector"])
    for key in LISTS:
        spec[key].items()
        pod.fill(spec[key], "podTemplate", "spec", key)
    for key in VALUES:
        pod.fill(spec[key], "podTemplate", "spec", key)
    for key in sorted(keys - ELSEWHERE - {*LISTS, *VALUES}):
        spec[key].left(LEFT.get(key, BY_HAND))
    return pod, containers[0]


def read_container(pod: Pod, container: Reading) -> None:
    """What becomes of a worker's container, apart from image, command and volumes."""
    container["name"].becomes(f"the container {MAIN_CONTAINER}")
    read_resources(pod, container["resources"], gpus=True)
    _read_environment(pod, container["env"])
    for key in CONTAINER_VALUES:
        if container[key].text() and pod.takes(container[key], f"podTemplate.spec.containers[0].{key}"):
            pod.container()[key] = container[key].value
    for source in container["envFrom"].items():
        if pod.takes(source, "podTemplate.spec.containers[0].envFrom", "by reference"):
            pod.container().setdefault("envFrom", []).append(source.value)
    for key in sorted(set(container.mapping()) - CONTAINER_ELSEWHERE - {*CONTAINER_VALUES}):
        container[key].left(LEFT.get(key, BY_HAND))


def bind(pod: Pod, node: Reading, affinity: Reading) -> None:
    """Bind a worker's pod to a node by name, through the scheduler, so that taints and room count."""
    name = node.text()
    if not name:
        affinity.mapping()
        pod.fill(affinity, "podTemplate", "spec", "affinity")
        return
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    remark = "by the scheduler; for an edge node write placement: edge, so that it trains on while offline"
    if pod.takes(node, "podTemplate.spec.affinity", remark):
        pod.put(required, "podTemplate", "spec", "affinity", "nodeAffinity")
    keep_other_affinity(pod, affinity)


def keep_other_affinity(pod: Pod, affinity: Reading) -> None:
    """Copy what an affinity says beside nodes, for a pod that is bound to a node by name."""
    for key in affinity.mapping():
        if key == "nodeAffinity":
            affinity[key].left("nodeName says it all")
        else:
            pod.fill(affinity[key], "podTemplate", "spec", "affinity", key)


def _read_metadata(pod: Pod, metadata: Reading) -> None:
    for kind in ("labels", "annotations"):
        for key, value in metadata[kind].mapping().items():
            if key.startswith(OWN_LABELS):
                value.left("kept for the operator")
            elif pod.takes(value, f"podTemplate.metadata.{kind}"):
                pod.put(value.text(), "podTemplate", "metadata", kind, key)
    for key in set(metadata.mapping()) - {"labels", "annotations"}:
        metadata[key].left("set by the Job that makes the pod")


def _read_node_selector(pod: Pod, selector: Reading) -> None:
    """The label of edge nodes is what `placement: edge` selects; other labels go on."""
    pod.put("any", "placement")
    for key, value in selector.mapping().items():
        if key == Label.EDGE_NODE and value.value == "":
            pod.takes(value, "placement")
            pod.put("edge", "placement")
        elif pod.takes(value, "podTemplate.spec.nodeSelector"):
            pod.put(value.text(), "podTemplate", "spec", "nodeSelector", key)


def read_volumes(pod: Pod, volumes: Reading, mounts: Reading) -> None:
    """Volumes and mounts under names and at places that are not the operator's."""
    copied: dict[str, Reading] = {}
    for volume in volumes.items():
        name = volume["name"].text()
        if name in OWN_VOLUMES:
            volume.left("its name is one of the operator's volumes: rename it")
        elif pod.takes(volume, "podTemplate.spec.volumes"):
            copied[name] = volume
    if copied:
        pod.put([volume.value for volume in copied.values()], "podTemplate", "spec", "volumes")
    for mount in mounts.items():
        if mount["name"].text() not in copied:
            mount.left("its volume is not copied")
        elif mount["mountPath"].text().rstrip("/") in {path.value for path in MountPath}:
            mount.left("the operator mounts something there: choose another place")
        elif pod.takes(mount, "podTemplate.spec.containers[0].volumeMounts"):
            pod.container().setdefault("volumeMounts", []).append(mount.value)


def read_resources(pod: Pod, resources: Reading, *, gpus: bool) -> None:
    """Requests and limits; GPUs become the field `gpus` where the pod has one (`gpus`)."""
    for kind, amounts in resources.mapping().items():
        if kind not in ("requests", "limits"):
            pod.fill(amounts, "resources", kind)
            continue
        for name, amount in amounts.mapping().items():
            count = amount.number()
            if gpus and name.endswith("/gpu") and isinstance(count, int) and count > 0:
                pod.takes(amount, "gpus")
                pod.put({"count": count, "resourceName": name}, "gpus")
            elif pod.takes(amount, f"resources.{kind}.{name}"):
                pod.put(amount.value, "resources", kind, name)


def _read_environment(pod: Pod, environment: Reading) -> None:
    """Variables go on by value or by reference, but credentials and what engram sets itself."""
    own = {name.value for name in Environment}
    for variable in environment.items():
        name = variable["name"].text()
        if not name:
            raise variable["name"].error("is missing", "write the name of the variable")
        if name in own:
            variable.left("engram sets it")
        elif pod.takes(variable, "podTemplate.spec.containers[0].env"):
            if "valueFrom" not in variable.mapping():
                variable["value"].text()
                pod.environment.append(variable)
            pod.container().setdefault("env", []).append(variable.value)
