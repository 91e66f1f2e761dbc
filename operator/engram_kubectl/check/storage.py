"""Whether what a job mounts and pulls is there: claims, ConfigMaps, Secrets, classes, images. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engram.spec.job import FederatedIncrementalJob
from engram_kubectl.check.facts import Facts
from engram_kubectl.check.findings import Found, fail, ok, unreadable, warn
from engram_kubectl.check.nodes import Node
from engram_kubectl.check.pods import PodSet
from engram_operator.manifests import Children, checkpoint_is_durable, forgetful_groups
from engram_operator.model import Object

DOCKER_SECRETS = ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg")
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
LATE_BINDING = "WaitForFirstConsumer"
_SHARED = ("ReadWriteMany", "ReadOnlyMany")


def check_volumes(sets: Sequence[PodSet], children: Children, facts: Facts) -> list[Found]:
    """Return the worst of each volume that the job's pods mount; ours come with the job."""
    ours = {item["metadata"]["name"] for item in children.all}
    found: dict[str, Found] = {}
    for wanted in sets:
        for volume in wanted.spec.get("volumes") or ():
            for judged in _volume(wanted, volume, ours, facts):
                known = found.get(judged.subject)
                if known is None or judged.level > known.level:
                    found[judged.subject] = judged
    return list(found.values())


def secret_names(sets: Sequence[PodSet], children: Children) -> list[str]:
    """Return the Secrets that the job names: for registries, and as volumes."""
    ours = {item["metadata"]["name"] for item in children.all}
    names = [item.get("name") for wanted in sets for item in wanted.spec.get("imagePullSecrets") or ()]
    for wanted in sets:
        names += [
            volume["secret"].get("secretName")
            for volume in wanted.spec.get("volumes") or ()
            if volume.get("secret")
        ]
    return [str(name) for name in dict.fromkeys(names) if name and name not in ours]


def _volume(wanted: PodSet, volume: Mapping[str, Any], ours: set[str], facts: Facts) -> Iterator[Found]:
    for kind, source in volume.items():
        if kind == "persistentVolumeClaim" and source.get("claimName") not in ours:
            yield _claim(str(source.get("claimName")), wanted, facts)
        elif kind == "configMap" and source.get("name") not in ours:
            yield _named(
                "ConfigMap", str(source.get("name")), bool(source.get("optional")), facts.config_maps
            )
        elif kind == "secret" and source.get("secretName") not in ours:
            yield _named("Secret", str(source.get("secretName")), bool(source.get("optional")), facts.secrets)
        elif kind == "hostPath":
            yield warn(
                f"volume: {source.get('path')}",
                "a folder of each node with such a pod: whether it is there is seen at the start only",
                "make it on those nodes, readable by the pod's user",
            )
        elif kind == "nfs":
            yield warn(f"volume: {source.get('server')}", f"NFS {source.get('path')} is not tried from here")


def _claim(name: str, wanted: PodSet, facts: Facts) -> Found:
    subject = f"volume: {name}"
    if facts.claims is None:
        return unreadable(subject, "PersistentVolumeClaims")
    claim = facts.claims.get(name)
    if claim is None:
        return fail(subject, f"there is no PersistentVolumeClaim {name} in this namespace", "make it first")
    phase = str((claim.get("status") or {}).get("phase") or "Pending")
    modes = (claim.get("spec") or {}).get("accessModes") or ()
    if phase == "Lost":
        return fail(subject, "its PersistentVolume is gone (Lost)", "make claim and volume anew")
    if phase != "Bound":
        if _binds_late(claim, facts.storage_classes):
            return ok(subject, f"{phase}: its class binds it when the first pod comes")
        return fail(
            subject, f"{phase}: no PersistentVolume has been found for it", f"kubectl describe pvc {name}"
        )
    if wanted.replicas > 1 and not any(mode in _SHARED for mode in modes):
        return warn(
            subject,
            f"Bound, {', '.join(modes)}: all {wanted.replicas} pods of {wanted.name} must be on one node",
            "use a volume that many nodes can mount, or one group a node",
        )
    return ok(subject, f"Bound, {', '.join(modes)}")


def _binds_late(claim: Object, classes: Sequence[Object] | None) -> bool:
    name = (claim.get("spec") or {}).get("storageClassName")
    return any(
        item["metadata"]["name"] == name and item.get("volumeBindingMode") == LATE_BINDING
        for item in classes or ()
    )


def _named(kind: str, name: str, optional: bool, there: Mapping[str, Object] | None) -> Found:
    subject = f"volume: {name}"
    if there is None:
        return unreadable(subject, f"{kind}s")
    if name in there:
        return ok(subject, f"{kind} {name} is there")
    if optional:
        return ok(subject, f"{kind} {name} is optional and not there")
    return fail(subject, f"there is no {kind} {name} in this namespace", "make it first")


def check_checkpoint(job: FederatedIncrementalJob, facts: Facts) -> Found:
    """Judge where the checkpoint will be."""
    checkpoint = job.spec.aggregator.checkpoint
    if not checkpoint_is_durable(job):
        return warn(
            "checkpoint",
            "in an emptyDir: a lost aggregator starts again from round 1, and the job cannot be suspended",
            "set spec.aggregator.checkpoint.size or volume",
        )
    if checkpoint.volume or not checkpoint.size:
        return ok("checkpoint", "on the volume of the job")
    return claim_found(checkpoint.size, checkpoint.storage_class_name, facts.storage_classes)


def check_worker_state(job: FederatedIncrementalJob) -> list[Found]:
    """Judge where workers keep what compression owes; nothing to say where they owe nothing."""
    if not job.spec.aggregation.owes:
        return []
    groups = ", ".join(forgetful_groups(job))
    if not groups:
        return [ok("worker state", "on the volumes of the groups")]
    unsaid = f"what {job.spec.aggregation.compression} leaves unsaid dies with the pods of {groups}"
    harm = "the run stays valid, but a replaced worker changes its bits"
    return [warn("worker state", f"{unsaid}: {harm}", "set state.volume of these groups")]


def claim_found(size: str, name: str, classes: Sequence[Object] | None) -> Found:
    """Judge the storage class of a claim that the operator will make; no name: the default one."""
    if classes is None:
        return unreadable("checkpoint", "storage classes")
    names = [item["metadata"]["name"] for item in classes]
    default = [
        item["metadata"]["name"]
        for item in classes
        if (item["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"
    ]
    if name and name not in names:
        there = f"write one of {', '.join(names)}" if names else "the cluster has none"
        return fail("checkpoint", f"there is no storage class {name}", there)
    if not name and not default:
        return fail(
            "checkpoint",
            "the cluster has no default storage class for the claim",
            "name one in spec.aggregator.checkpoint.storageClassName, or give a volume",
        )
    return ok("checkpoint", f"a claim of {size} in class {name or default[0]}")


def check_images(sets: Sequence[PodSet], nodes: Sequence[Node] | None) -> list[Found]:
    """Say of each image where it is already: whether it can be pulled, only a pod can tell."""
    users: dict[str, list[str]] = {}
    for wanted in sets:
        for image in wanted.images():
            users.setdefault(image, []).append(wanted.name)
    found = []
    for image, names in users.items():
        having = sorted(node.name for node in nodes or () if _has(node, image))
        subject, who = f"image: {', '.join(dict.fromkeys(names))}", image
        if having:
            found.append(
                ok(subject, f"{who} is on {', '.join(having[:3])}{' ...' if len(having) > 3 else ''}")
            )
        else:
            found.append(
                warn(
                    subject,
                    f"{who} is on no node that is known: whether it can be pulled, only a pod can tell",
                )
            )
    return found


def _has(node: Node, image: str) -> bool:
    """Return whether a node says that it has an image; it writes names in full."""
    return any(name == image or name.endswith(f"/{image}") for name in node.images)


def check_pull_secrets(sets: Sequence[PodSet], facts: Facts) -> list[Found]:
    """Judge the Secrets for registries."""
    names = dict.fromkeys(
        str(item.get("name")) for wanted in sets for item in wanted.spec.get("imagePullSecrets") or ()
    )
    if names and facts.secrets is None:
        return [unreadable("pull secrets", "Secrets")]
    found = []
    for name in names:
        secret = (facts.secrets or {}).get(name)
        subject = f"pull secret: {name}"
        if secret is None:
            found.append(
                fail(
                    subject,
                    "there is no such Secret in this namespace",
                    f"kubectl create secret docker-registry {name} ...",
                )
            )
        elif secret.get("type") not in DOCKER_SECRETS:
            found.append(
                fail(subject, f"is of type {secret.get('type')}", f"make it of type {DOCKER_SECRETS[0]}")
            )
        else:
            found.append(ok(subject, "is there"))
    return found
