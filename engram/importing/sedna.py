"""A FederatedLearningJob of Sedna and the objects beside it: documents in, a job and its account out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from engram.importing.counterparts import (
    OWN_CODE,
    Counterpart,
    aggregation_of,
    job_name,
    plain,
    training_field,
)
from engram.importing.credentials import REMEDY, holds_credential
from engram.importing.draft import Draft, Imported, accepts
from engram.importing.ledger import Document, Ledger, Reading
from engram.importing.sedna_data import (
    NO_CREDENTIALS,
    Catalogue,
    kind_of,
    read_dataset,
    read_models,
    write_dataset,
    write_unknown,
)
from engram.importing.sedna_pods import (
    Pod,
    bind,
    keep_other_affinity,
    read_container,
    read_resources,
    read_template,
    read_volumes,
)
from engram.spec.names import MOST_GROUPS
from engram.spec.problems import shown

KIND = "FederatedLearningJob"
API_GROUP = "sedna.io/"

ROUNDS = ("exitround", "rounds")
RULE = ("aggregationalgorithm",)
SEDNA_PATH = "/FedAvg"
"""What Sedna's workers dial by default."""

ENGRAM_WORKER = "the pod runs engram worker"
AGGREGATION_CODE = "for Sedna's aggregation code, which does not run"
IMAGE_REMARK = (
    f"{ENGRAM_WORKER}: build it upon engram-runtime (images/README.md), or remove it for engram's own image"
)
DIALECT_REMARK = "its own code trains, over Sedna's protocol"
ENTRYPOINT = "[]: the image's entrypoint, where the input names no command; absent: engram worker"
CONFINED = (
    "65532, and only /tmp can be written: an image that needs more gets another user here, or "
    "securityContext and volumes in podTemplate"
)
OTHER_OBJECTS: Mapping[str, str] = {
    "Secret": "credentials are never read",
    "Dataset": "the job does not name it",
    "Model": "the job does not name it",
}


def convert(documents: Sequence[Document], *, dialect: bool) -> Imported:
    """Return the job for the FederatedLearningJob among `documents`.

    Args:
        documents: all documents of the input; Datasets and Models give URLs, others are left.
        dialect: whether the workers' images train with their own code, over Sedna's protocol; otherwise
            engram's worker takes its place.

    Raises ConfigurationError naming file and field for an input without such a job or with several, and for
    parts of the wrong kind.
    """
    ledger, draft = Ledger(), Draft()
    roots = [ledger.open(document) for document in documents]
    objects = [item for root in roots for item in _objects(root)]
    job = _the_job(objects, roots[0])
    catalogue = Catalogue([item for item in objects if item is not job])
    _read_metadata(draft, job)
    spec = job["spec"]
    variables = _read_aggregator(draft, spec["aggregationWorker"]["template"])
    workers, urls = _read_workers(draft, spec["trainingWorkers"], catalogue, dialect=dialect)
    _read_aggregation(draft, variables, dialect=dialect)
    models = spec["aggregationWorker"]["model"]["name"], spec["pretrainedModel"]["name"]
    read_models(draft, *models, catalogue, dialect=dialect)
    if dialect:
        write_unknown(draft)
        draft.note("spec.workers[].runAsUser", CONFINED)
        if not all(pod.container()["command"] for pod in workers):
            draft.note("spec.workers[].podTemplate.spec.containers[0].command", ENTRYPOINT)
    else:
        _read_hyperparameters(draft, [item for pod in workers for item in pod.environment])
        write_dataset(draft, workers, urls)
    _read_transmitter(draft, spec["transmitter"], dialect=dialect)
    for item in catalogue.unused():
        item.left(OTHER_OBJECTS.get(kind_of(item), f"no part of a {KIND}"))
    return Imported(draft.document(), ledger.entries(), tuple(draft.assumed))


def _objects(root: Reading) -> list[Reading]:
    """Return the objects of a document: itself, or the items of a List, as kubectl writes several."""
    if kind_of(root) != "List":
        return [root]
    root["apiVersion"].becomes("a list of objects")
    root["kind"].becomes("a list of objects")
    root["metadata"].left("says nothing of the objects")
    return root["items"].items()


def _the_job(objects: Sequence[Reading], root: Reading) -> Reading:
    """Return the one FederatedLearningJob; `root` is what an error names when there is none."""
    found = [item for item in objects if kind_of(item) == KIND]
    if not found and len(objects) == 1:
        kind = objects[0]["kind"]
        problem = f"is {shown(kind.value)}, not {KIND}" if kind.present else "is missing"
        raise kind.error(problem, f"name a file with a {KIND} of Sedna{_ianvs_hint(objects[0])}")
    if not found:
        kinds = ", ".join(sorted({shown(kind_of(item)) for item in objects})) or "none"
        raise root["kind"].error(f"no object is a {KIND}: there are {kinds}", "add the job")
    if len(found) > 1:
        raise found[1]["kind"].error(f"a second {KIND}", "keep one in a file")
    version = found[0]["apiVersion"]
    if not version.text().startswith(API_GROUP):
        raise version.error(f"is {shown(version.value)}, not of Sedna", f"write {API_GROUP}v1alpha1")
    version.becomes("apiVersion")
    found[0]["kind"].becomes("kind")
    return found[0]


def _ianvs_hint(item: Reading) -> str:
    return ", or import it with engram import ianvs" if item["benchmarkingjob"].present else ""


def _read_metadata(draft: Draft, job: Reading) -> None:
    metadata = job["metadata"]
    name = metadata["name"]
    if not name.text():
        raise name.error("is missing", "write the name of the job")
    made = job_name(name.text())
    draft.fill(
        "metadata.name", made, name, "" if made == name.value else "at most 40 characters, from a letter"
    )
    if metadata["namespace"].present:
        draft.fill("metadata.namespace", metadata["namespace"].value, metadata["namespace"])
    labels: dict[str, Any] = {}
    for key, label in metadata["labels"].mapping().items():
        if holds_credential({key: label.value}):
            label.left(REMEDY)
        else:
            labels[key] = label.value
            label.becomes("metadata.labels")
    if labels:
        draft.put("metadata.labels", labels)
    for key in set(metadata.mapping()) - {"name", "namespace", "labels"}:
        metadata[key].left("belongs to the object in the cluster, or to the tool that wrote it")
    job["status"].left("says how it was, not how it shall be")


def _read_aggregator(draft: Draft, template: Reading) -> list[Reading]:
    """Write `spec.aggregator`; return the variables of its container that are plain text."""
    pod, container = read_template(template)
    spec = template["spec"]
    if spec["nodeName"].text():
        pod.fill(spec["nodeName"], "nodeName")
        keep_other_affinity(pod, spec["affinity"])
    else:
        bind(pod, spec["nodeName"], spec["affinity"])
    read_resources(pod, container["resources"], gpus=False)
    for key in sorted(set(container.mapping()) - {"resources", "env"}):
        container[key].left("engram's own aggregator runs in its place")
    for volume in spec["volumes"].items():
        volume.left("engram's own aggregator runs in its place")
    _read_secrets(draft, spec["imagePullSecrets"])
    pod.enter("spec.aggregator")
    draft.put("spec.aggregator", pod.values)
    variables = []
    for variable in container["env"].items():
        if holds_credential(variable.value):
            variable.left(REMEDY)
        elif "valueFrom" in variable.mapping():
            variable.left(AGGREGATION_CODE)
        else:
            variables.append(variable)
    return variables


def _read_workers(
    draft: Draft, listed: Reading, catalogue: Catalogue, *, dialect: bool
) -> tuple[list[Pod], list[str]]:
    """Write `spec.workers`, equal workers as replicas of one group.

    Returns the pods of all workers, and the URLs of their data.
    """
    pods, urls = [], []
    for worker in listed.items():
        pod, container = read_template(worker["template"])
        spec = worker["template"]["spec"]
        data = read_dataset(pod, worker["dataset"]["name"], catalogue, dialect=dialect)
        _place(pod, spec, data.node)
        _read_program(pod, container, dialect=dialect)
        read_volumes(pod, spec["volumes"], container["volumeMounts"])
        read_container(pod, container)
        _read_secrets(draft, spec["imagePullSecrets"])
        pods.append(pod)
        urls.append(data.url)
    if not pods:
        raise listed.error("is missing", "write at least one worker with dataset and template")
    groups: dict[str, list[Pod]] = {}
    for pod in pods:
        groups.setdefault(json.dumps(pod.values, sort_keys=True), []).append(pod)
    if len(groups) > MOST_GROUPS:
        raise listed.error(
            f"are {len(groups)} different workers",
            f"a job has at most {MOST_GROUPS} groups: import a part of them",
        )
    for index, group in enumerate(groups.values()):
        for pod in group:
            pod.enter(f"spec.workers[{index}]")
    made = [
        {"name": f"worker{number}", "replicas": len(group), **group[0].values}
        for number, group in enumerate(groups.values(), 1)
    ]
    draft.put("spec.workers", made)
    return pods, urls


def _place(pod: Pod, spec: Reading, of_data: Reading | None) -> None:
    """The node of a worker: its template's, else that of its Dataset."""
    node = spec["nodeName"]
    if of_data is not None and of_data.present:
        if not node.text():
            node = of_data
        elif node.text() == of_data.text():
            pod.takes(of_data, "podTemplate.spec.affinity", "the node of the template, too")
        else:
            of_data.left(f"the template's nodeName {shown(node.text())} counts")
    bind(pod, node, spec["affinity"])


def _read_program(pod: Pod, container: Reading, *, dialect: bool) -> None:
    """Image, command and arguments: the image's own, or engram's worker in it."""
    image = container["image"]
    if not image.text():
        raise image.error("is missing", "write the image that trains")
    pod.fill(image, "image", remark=DIALECT_REMARK if dialect else IMAGE_REMARK)
    if dialect:
        # An empty list is the image's entrypoint; without one the pod would run engram's worker.
        pod.container()["command"] = []
    for key in ("command", "args"):
        words = container[key]
        if not dialect:
            words.left(ENGRAM_WORKER)
        elif words.items() and pod.takes(words, f"podTemplate.spec.containers[0].{key}"):
            pod.container()[key] = words.value


def _read_secrets(draft: Draft, secrets: Reading) -> None:
    """Secrets for pulling images, by name, each once."""
    for secret in secrets.items():
        known = draft.get("spec.imagePullSecrets") or []
        if holds_credential(secret.value):
            secret.left(REMEDY)
            continue
        if secret.value not in known:
            draft.put("spec.imagePullSecrets", [*known, secret.value])
        secret.becomes("spec.imagePullSecrets")


def _read_aggregation(draft: Draft, variables: Sequence[Reading], *, dialect: bool) -> None:
    """What the aggregator reads from its environment is a field here."""
    for variable in variables:
        name, value = plain(variable["name"].text()), variable["value"]
        if name in ROUNDS:
            variable["name"].becomes("spec.training.roundsPerTask")
            _take(draft, "spec.training.roundsPerTask", value)
        elif name in RULE:
            none = f"{shown(value.text())} has no counterpart: the weighted average"
            none += f", of weights that are sent to {SEDNA_PATH}" if dialect else ""
            taken = aggregation_of(value.text()) or Counterpart("fedavg", none)
            variable["name"].becomes("spec.aggregation.name")
            draft.fill("spec.aggregation.name", taken.name, value, taken.remark)
        else:
            variable.left(AGGREGATION_CODE)
    if draft.get("spec.training.roundsPerTask") is None:
        draft.note("spec.training.roundsPerTask", "5, engram's default: no exit_round is in the environment")


def _read_hyperparameters(draft: Draft, variables: Sequence[Reading]) -> None:
    """What the workers' containers read from their environment is a field of training here."""
    for variable in variables:
        field = training_field(variable["name"].text())
        if field:
            _take(draft, field, variable["value"])


def _take(draft: Draft, field: str, value: Reading) -> None:
    """Set `field` by the first that says it; another value of a later one is left, and one that cannot be."""
    number, first = value.number(), draft.get(field)
    if not accepts(field, number):
        value.left(f"{field} takes no such value")
    elif first is None:
        draft.fill(field, number, value)
    elif first == number:
        value.becomes(field)
    else:
        value.left(f"a job has one {field}: {first}, of the first that says it")


def _read_transmitter(draft: Draft, transmitter: Reading, *, dialect: bool) -> None:
    transmitter["ws"].becomes("spec.protocol", "over a WebSocket, too")
    storage = transmitter["s3"]
    storage["aggDataPath"].left("updates go over the WebSocket: no storage lies between")
    storage["credentialName"].left(NO_CREDENTIALS)
    draft.note(
        "spec.aggregator.expose",
        "ClusterIP: edge nodes without EdgeMesh need NodePort or HostPort (docs/kubernetes.md)",
    )
    if dialect:
        draft.assume("spec.protocol", "sedna", "the images' own code speaks it; it has no TLS")
        draft.note(
            "spec.aggregation.quorum",
            "100%: a round waits for every worker, as in Sedna; less lets it close at roundDeadlineSeconds",
        )
    else:
        draft.note("spec.protocol", f"engram: the code in the images is not run; {OWN_CODE}")
