"""Sedna's Dataset and Model objects beside a job: where the workers' data are, and which network is meant."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from engram.importing.counterparts import dataset_in, model_of
from engram.importing.draft import Draft
from engram.importing.ledger import Reading
from engram.importing.sedna_pods import Pod
from engram.spec.names import MountPath
from engram.spec.parameters import CLASS_COUNTS, NONE

UNKNOWN_CLASSES = 2
READ_BY_IMAGE = "the image's code knows how data are read"
READ_BY_NAME = "the data set's name decides how data are read (docs/data.md)"
SEEDED_WEIGHTS = (
    "engram starts from weights drawn by the seed; the result is in the checkpoint and the run's record"
)
OWN_WEIGHTS = (
    "not mounted: write a volume, PRETRAINED_MODEL_URL and MODEL_URL into podTemplate for files on the node; "
    "the result is in the aggregator's checkpoint"
)
NO_CREDENTIALS = "credentials are never copied: a volume that is mounted needs none"


class Catalogue:
    """The objects of the input beside the job, and which of them the job refers to."""

    def __init__(self, objects: Sequence[Reading]) -> None:
        self._objects = objects
        self._used: list[Reading] = []

    def find(self, kind: str, name: str) -> Reading | None:
        """Return the first object of that name; it counts as used from now on."""
        for item in self._objects:
            if name and (kind_of(item), item["metadata"]["name"].text()) == (kind, name):
                self._use(item)
                return item
        return None

    def unused(self) -> list[Reading]:
        """Return the objects that the job does not refer to."""
        return [item for item in self._objects if item not in self._used]

    def _use(self, item: Reading) -> None:
        self._used.append(item)
        item["apiVersion"].becomes("an object of Sedna")
        item["kind"].becomes("an object of Sedna")
        item["metadata"]["name"].becomes("its name, by which the job refers to it")
        item["metadata"]["namespace"].left("the job's own namespace counts")
        item["status"].left("says how it was, not how it shall be")


@dataclass(frozen=True)
class Data:
    """Where a worker's data are."""

    url: str = ""
    node: Reading | None = None


def kind_of(item: Reading) -> str:
    """Return the kind of an object. Raises ConfigurationError for what is no object."""
    return item["kind"].text()


def read_dataset(pod: Pod, name: Reading, catalogue: Catalogue, *, dialect: bool) -> Data:
    """Give a worker the data of the Dataset called `name`; return where they are, if the input says it."""
    if not name.text():
        raise name.error("is missing", "write the name of a Dataset")
    # Said in any case: otherwise the volume of spec.dataset would count, which is another worker's.
    pod.put({"volume": {}, "path": ""}, "dataset")
    found = catalogue.find("Dataset", name.text())
    if found is None:
        name.left(
            "the input has no such Dataset: append it (kubectl get datasets.sedna.io NAME -o yaml), "
            "or write dataset.volume of the group"
        )
        return Data()
    name.becomes("the Dataset of that name")
    spec = found["spec"]
    url = spec["url"]
    if "://" in url.text() or not url.text():
        url.left("engram downloads nothing: write a volume with the data into dataset.volume of the group")
    elif not url.text().startswith("/") or ".." in url.text().split("/"):
        url.left("not an absolute path of a node: write dataset.volume of the group")
    else:
        folder, file = _folder(url.text(), spec["format"].text())
        path, remark = _in_folder(file, dialect=dialect)
        if pod.takes(url, "dataset.volume", remark):
            pod.put({"volume": {"hostPath": {"path": folder}}, "path": path}, "dataset")
    spec["format"].left(READ_BY_IMAGE if dialect else READ_BY_NAME)
    spec["credentialName"].left(NO_CREDENTIALS)
    return Data(url.text(), spec["nodeName"])


def write_dataset(draft: Draft, workers: Sequence[Pod], urls: Sequence[str]) -> None:
    """`spec.dataset` and `spec.tasks`: each worker owns its data; what they are the input does not say."""
    draft.assume("spec.dataset.partition.method", "local", "each worker owns all that its Dataset holds")
    kinds = {"npz" if url.endswith(".npz") else dataset_in(url) for url in urls}
    name = kinds.pop() if len(kinds) == 1 else ""
    if name:
        draft.assume("spec.dataset.name", name, "by the words of the Datasets' URLs")
    else:
        why = "put images in train/<class>/ and test/<class>/ of each folder, or name a class of your own"
        draft.assume("spec.dataset.name", "image-folder", why)
    held = next((pod.values["dataset"] for pod in workers if pod.values["dataset"]["volume"]), None)
    if held is not None:
        why = "the aggregator reads class names and image size there: put data on its node, or change it"
        draft.assume("spec.dataset.volume", held["volume"], why)
        draft.put("spec.dataset.path", held["path"])
    classes = CLASS_COUNTS.get(name)
    draft.assume("spec.tasks.count", 1, "plain federated learning: one task with all classes")
    why = f"those of {name}" if classes else "how many classes the data have is not said: correct it"
    draft.assume("spec.tasks.classesPerTask", classes or UNKNOWN_CLASSES, why)
    draft.assume("spec.evaluation.location", "workers", "the test images are the workers' own too")


def write_unknown(draft: Draft) -> None:
    """`spec.dataset`, `spec.model` and `spec.tasks` where the images know what is trained, and on what.

    Nothing is guessed: workers whose weights have other shapes than a model that is named would be refused.
    """
    why = (
        "the image's code knows its data, so nothing is evaluated; name dataset and model where both are "
        "engram's (docs/sedna.md)"
    )
    draft.assume("spec.dataset.name", NONE, why)
    draft.assume("spec.model.name", NONE, "the image's code knows its network")
    draft.assume("spec.tasks.count", 1, "Sedna's workers know rounds, no tasks")


def read_models(
    draft: Draft, name: Reading, pretrained: Reading, catalogue: Catalogue, *, dialect: bool
) -> None:
    """`spec.model`: the network by its name at best; Sedna's is code in the image."""
    why = OWN_WEIGHTS if dialect else SEEDED_WEIGHTS
    guessed = ""
    for reading in (name, pretrained):
        found = catalogue.find("Model", reading.text())
        if found is not None:
            if reading is name:
                guessed = model_of(found["spec"]["url"].text())
            found["spec"]["url"].left(why)
            found["spec"]["format"].left(why)
            found["spec"]["credentialName"].left(NO_CREDENTIALS)
    pretrained.left(why)
    if dialect:
        name.left("Sedna's network is code in the image, which trains")
        return
    guessed = model_of(name.text()) or guessed
    if guessed:
        draft.fill("spec.model.name", guessed, name, "by its name only: correct it")
    else:
        name.left("Sedna's network is code in the image")
        draft.assume(
            "spec.model.name", "resnet18", "Sedna's network is code in the image: choose the nearest"
        )


def _in_folder(file: str, *, dialect: bool) -> tuple[str, str]:
    """Return what of the mounted folder is read, empty for all of it, and what is to be said of that."""
    if dialect:
        return file, f"below {MountPath.DATA}, as TRAIN_DATASET_URL says"
    if file and not file.endswith(".npz"):
        return "", f"its folder: engram does not read the index {file}"
    return file, ""


def _folder(url: str, form: str) -> tuple[str, str]:
    """Return the folder that `url` means on its node, and the file in it: empty for a folder."""
    path = posixpath.normpath(url)
    if form == "dir" or not posixpath.splitext(path)[1]:
        return path, ""
    return posixpath.dirname(path), posixpath.basename(path)
