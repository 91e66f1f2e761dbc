"""An Ianvs test environment: data set, tasks, rounds, clients, metrics."""

from __future__ import annotations

import posixpath
from typing import Any

from engram.importing.counterparts import METRICS, dataset_in, dataset_of, metric_of, no_metric
from engram.importing.draft import Draft
from engram.importing.ianvs_algorithm import FEDERATED, INCREMENTAL, LIFELONG, Follows
from engram.importing.ledger import Reading
from engram.spec.parameters import CLASS_COUNTS

TRAIN = ("train_url", "train_index", "train_data", "train_data_info")
TEST = ("test_url", "test_index", "test_data", "test_data_info")
TEXT_FORMATS = ("jsonl",)
"""Formats that hold language, not images."""

IANVS_ROUNDS, IANVS_TASKS, IANVS_CLIENTS = 1, 2, 1
"""What Ianvs takes where its file is silent: round, incremental_rounds, client_number."""
UNKNOWN_CLASSES = 2
"""Classes of a task where neither the file nor the name of the data set says how many there are."""

BUNDLED = ("digits",)


def read_environment(draft: Draft, environment: Reading, paradigm: str, files: Follows) -> None:
    """Write the test environment into `draft`. Raises ConfigurationError for what has no counterpart."""
    if environment["if_mode_llm"].value is True:
        raise environment["if_mode_llm"].error(
            "language models have no counterpart", "engram classifies images"
        )
    environment["if_mode_llm"].left("false, as everything here")
    _read_dataset(draft, environment["dataset"], files)
    _read_tasks(draft, environment, paradigm)
    _read_rounds(draft, environment, paradigm)
    _read_workers(draft, environment, paradigm)
    _read_metrics(draft, environment["metrics"])
    environment["backend"].left("engram trains with PyTorch")
    environment["model_eval"].left(
        "engram evaluates the global model after every task, whatever its accuracy"
    )


def _read_dataset(draft: Draft, dataset: Reading, files: Follows) -> None:
    """Name and path of the data; Ianvs' index files themselves are not read."""
    train = next((dataset[key] for key in TRAIN if dataset[key].present), dataset[TRAIN[0]])
    test = next((dataset[key] for key in TEST if dataset[key].present), dataset[TEST[0]])
    if not train.text():
        raise train.error("is missing", f"write one of {', '.join(TRAIN)}")
    for reading in (train, test):
        if _format(reading.text()) in TEXT_FORMATS:
            raise reading.error(
                f"a {_format(reading.text())} file has no counterpart", "engram classifies images"
            )
    name = _dataset_name(draft, dataset["name"], train)
    _read_paths(draft, name, train, test, files)
    dataset["label"].left("labels come with the data set, not in a column of a table")


def _dataset_name(draft: Draft, named: Reading, train: Reading) -> str:
    """Decide which data set it is: by its name, else by the words of its path."""
    if _format(train.text()) == "npz":
        named.left("the file says it all")
        draft.fill("spec.dataset.name", "npz", train)
        return "npz"
    known = dataset_of([named.text()])
    if known:
        draft.fill("spec.dataset.name", known, named)
        return known
    guessed = dataset_in(train.text())
    if guessed:
        named.left("not a name that engram knows; the path of the training data has one")
        draft.fill("spec.dataset.name", guessed, train, "by the words of the path")
        return guessed
    named.left("not a name that engram knows (docs/data.md)")
    draft.assume(
        "spec.dataset.name",
        "image-folder",
        "index files are not read: put images in train/<class>/ and test/<class>/, or name your own class",
    )
    return "image-folder"


def _read_paths(draft: Draft, name: str, train: Reading, test: Reading, files: Follows) -> None:
    """`spec.dataset.path`: the folder of both index files, or the one file of npz."""
    if name in BUNDLED:
        for reading in (train, test):
            reading.left(f"not needed: {name} comes with scikit-learn")
        return
    urls = [reading for reading in (train, test) if reading.text() and "://" in reading.text()]
    for reading in urls:
        reading.left("engram downloads nothing; mount the data (spec.dataset.volume) or give a path")
    local = [reading for reading in (train, test) if reading.text() and "://" not in reading.text()]
    if not local:
        return
    path = files.data_path(local[0].text() if name == "npz" else _folder([item.text() for item in local]))
    remark = f"engram reads {name} from there, not the index file (docs/data.md)" if name != "npz" else ""
    draft.fill("spec.dataset.path", path, local[0], remark)
    for reading in local[1:]:
        reading.becomes(
            "spec.dataset.path", "" if name == "npz" else "engram brings the test part with the data set"
        )


def _folder(paths: list[str]) -> str:
    """Return the folder that holds all files, or that of the first where they have none in common."""
    folders = [posixpath.dirname(path) or "." for path in paths]
    try:
        common = posixpath.commonpath(folders)
    except ValueError:  # absolute and relative ones
        common = ""
    return common if common not in ("", "/") else folders[0]


def _read_tasks(draft: Draft, environment: Reading, paradigm: str) -> None:
    rounds, size = environment["incremental_rounds"], environment["task_size"]
    name = draft.get("spec.dataset.name")
    classes = CLASS_COUNTS.get(str(name))
    wanted = _whole(size)
    if paradigm == FEDERATED:
        rounds.left("no effect in Ianvs' federatedlearning: there is one task")
        size.left("no effect in Ianvs' federatedlearning: there is one task")
        draft.assume("spec.tasks.count", 1, "plain federated learning: one task with all classes")
        count, wanted = 1, None
    elif rounds.present:
        draft.fill("spec.tasks.count", rounds.numeric(), rounds)
        count = int(rounds.number() or 1)
    else:
        count = IANVS_TASKS
        draft.assume("spec.tasks.count", count, "what Ianvs takes where incremental_rounds is missing")
    if classes is not None and count > classes:
        raise rounds.error(
            f"{count} tasks need a class each, {name} has {classes}", f"write at most {classes}"
        )
    if wanted and (classes is None or count * wanted <= classes):
        draft.fill("spec.tasks.classesPerTask", wanted, size)
    else:
        _assume_classes(draft, size, count, classes)
    if count > 1:
        draft.assume("spec.tasks.classOrder", "natural", "Ianvs cuts tasks in the order of the index file")


def _assume_classes(draft: Draft, size: Reading, count: int, classes: int | None) -> None:
    """`spec.tasks.classesPerTask` where the file does not say it, or says what cannot be."""
    if classes is None:
        why = "how many classes the data have is not said: correct it"
        draft.assume("spec.tasks.classesPerTask", UNKNOWN_CLASSES, why)
        return
    size.left(
        f"{count} tasks of that size need more than the {classes} classes of {draft.get('spec.dataset.name')}"
    )
    over = classes - count * (classes // count)
    rest = f"; {over} classes are left over" if over else ""
    draft.assume("spec.tasks.classesPerTask", classes // count, f"{classes} classes in {count} tasks{rest}")


def _read_rounds(draft: Draft, environment: Reading, paradigm: str) -> None:
    rounds = environment["round"]
    if paradigm == LIFELONG:
        rounds.left("no effect in Ianvs' lifelonglearning: a task is trained once")
        draft.assume("spec.training.roundsPerTask", 1, "lifelong learning in Ianvs has no rounds")
    elif rounds.present:
        remark = "Ianvs' rounds of each task" if paradigm == INCREMENTAL else ""
        draft.fill("spec.training.roundsPerTask", rounds.numeric(), rounds, remark)
    else:
        draft.assume("spec.training.roundsPerTask", IANVS_ROUNDS, "what Ianvs takes where round is missing")


def _read_workers(draft: Draft, environment: Reading, paradigm: str) -> None:
    clients, gpu = environment["client_number"], environment["use_gpu"]
    group: dict[str, Any] = {"name": "edge", "replicas": IANVS_CLIENTS}
    if gpu.value is True:
        group["gpus"] = {"count": 1}
        gpu.becomes("spec.workers[0].gpus.count")
    else:
        gpu.left("no GPU is asked for; a worker uses one where there is one")
    environment["gpu_num"].left("spec.workers[0].gpus.count is per worker")
    if clients.present and paradigm != LIFELONG:
        draft.fill("spec.workers", [{**group, "replicas": clients.numeric()}], clients)
    else:
        clients.left("lifelong learning in Ianvs has one node")
        draft.assume("spec.workers", [group], "Ianvs trains on one node where nothing else is said")


def _read_metrics(draft: Draft, metrics: Reading) -> None:
    """Every measure of engram is always computed; here it is said which one each metric is."""
    for metric in metrics.items():
        name = metric["name"]
        known = metric_of(name.text())
        if known is None:
            name.left(no_metric(name.text()))
        else:
            name.becomes(f"report: {known.name}", known.remark)
        if known is METRICS["FWT"]:
            draft.assume("spec.evaluation.unseen", True, "forward transfer needs it")
        metric["url"].left("its code is not run")
        metric["mode"].left("Ianvs' own code reads it")


def _whole(reading: Reading) -> int | None:
    number = reading.number()
    return number if isinstance(number, int) and number > 0 else None


def _format(url: str) -> str:
    return posixpath.splitext(url)[1].removeprefix(".").lower()
