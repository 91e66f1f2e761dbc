"""An Ianvs benchmarking job and all that it names: documents in, a job and its account out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from engram.importing.counterparts import METRICS, job_name, metric_of, model_of, no_metric
from engram.importing.draft import Draft, Imported
from engram.importing.ianvs_algorithm import Facts, Follows, assemble, opened, read_algorithm
from engram.importing.ianvs_testenv import read_environment
from engram.importing.ledger import Document, Ledger, Reading
from engram.spec.algorithms import ALGORITHMS
from engram.spec.problems import shown

MOST_ALGORITHMS = 32

EXEMPLARS_PER_CLASS = 20

SMALL_IMAGES = ("digits", "mnist", "fashion-mnist")

RANK_LEFT: Mapping[str, str] = {
    "visualization": "engram prints the leaderboard and writes report.html",
    "selected_dataitem": "the leaderboard shows everything that was measured",
    "save_mode": "everything is kept in the run directory",
}


def convert(benchmark: Document, files: Follows) -> Imported:
    """Return the job for a benchmarking job; `files` gives the documents that it names.

    Raises ConfigurationError naming file and field for what is no benchmarking job, for a file that is not
    there, and for what has no counterpart at all.
    """
    ledger, draft = Ledger(), Draft()
    job = _job_in(ledger.open(benchmark))
    _name(draft, job["name"])
    job["workspace"].left("engram run --out DIR says where the run directory goes; default: runs/<job name>")
    job["simulation"].left("engram run needs no cluster; make cluster-up starts one")
    body = opened(job["testenv"], files)["testenv"]
    if not body.mapping():
        raise body.error("is missing", f"name an Ianvs test environment in {job['testenv'].field}")
    algorithms = _algorithms(job["test_object"], files)
    read_environment(draft, body, algorithms[0].paradigm, files)
    options = [word for text in assemble(draft, algorithms) for word in ("--vary", text)]
    _partition(draft)
    _exemplars(draft)
    _labels(draft)
    _model(draft, algorithms)
    draft.note(
        "spec.training.optimizer",
        "sgd, momentum 0.9 and weight decay 0.0005 where not said: Ianvs leaves it to basemodel.py",
    )
    options += _rank(job["rank"])
    return Imported(draft.document(), ledger.entries(), tuple(draft.assumed), tuple(options))


def _job_in(root: Reading) -> Reading:
    """Return the benchmarking job of a document, or say what it is instead."""
    if not isinstance(root.value, Mapping):
        raise root.error(
            f"is {shown(root.value)}, not a benchmarking job", "name a file that starts with benchmarkingjob:"
        )
    job = root["benchmarkingjob"]
    if job.mapping():
        return job
    remedy = "name the file that starts with benchmarkingjob:"
    if "kind" in root.value:
        remedy = "import a FederatedLearningJob with engram import sedna"
    elif "testenv" in root.value or "algorithm" in root.value:
        remedy = "this is a part of one: name the benchmarking job that leads to it"
    raise job.error("is missing", remedy)


def _name(draft: Draft, name: Reading) -> None:
    made = job_name(name.text())
    if name.present:
        draft.fill("metadata.name", made, name, "" if made == name.value else "as a name for Kubernetes")
    else:
        draft.assume("metadata.name", made, "a job has a name")


def _algorithms(tested: Reading, files: Follows) -> list[Facts]:
    kind = tested["type"]
    if kind.text() != "algorithms":
        raise kind.error(f"is {shown(kind.text())}, not algorithms", "Ianvs tests algorithms only")
    kind.becomes("spec.algorithm")
    items = tested["algorithms"].items()
    if not items:
        raise tested["algorithms"].error("is missing", "write at least one algorithm with name and url")
    if len(items) > MOST_ALGORITHMS:
        raise tested["algorithms"].error(f"are {len(items)}", f"write at most {MOST_ALGORITHMS}")
    return [read_algorithm(item, files) for item in items]


def _partition(draft: Draft) -> None:
    if draft.get("spec.dataset.partition.method") is None:
        draft.assume(
            "spec.dataset.partition.method", "iid", "what Ianvs takes where data_partition is missing"
        )


def _exemplars(draft: Draft) -> None:
    """Room for every class, where the files name no budget and the algorithm's own has less."""
    parameters = ALGORITHMS[draft.get("spec.algorithm.name") or "finetune"]
    budget = parameters.model_fields.get("exemplars_per_worker")
    field = "spec.algorithm.parameters.exemplarsPerWorker"
    count, size = draft.get("spec.tasks.count"), draft.get("spec.tasks.classesPerTask")
    if (
        budget is None
        or draft.get(field) is not None
        or not (count and size)
        or budget.default >= count * size
    ):
        return
    draft.assume(
        field,
        EXEMPLARS_PER_CLASS * count * size,
        f"{EXEMPLARS_PER_CLASS} of each class, as iCaRL has on CIFAR-100: Ianvs' budget is in basemodel.py",
    )


def _labels(draft: Draft) -> None:
    """Where everything is labelled, an algorithm that also uses images without labels does without."""
    name, written = draft.get("spec.algorithm.name"), draft.get("spec.algorithm.parameters")
    ratio = draft.get("spec.dataset.labelRatio")
    if name is None or ratio not in (None, 1):
        return
    try:
        parameters = ALGORITHMS[name].model_validate(written or {})
    except ValidationError:
        return  # what is wrong is said of the finished job
    if getattr(parameters, "needs_unlabelled", False):
        weighted = hasattr(parameters, "unlabelled_weight")
        field, off = ("unlabelledWeight", 0) if weighted else ("unlabelled", False)
        draft.assume(f"spec.algorithm.parameters.{field}", off, "all data are labelled (label_data_ratio)")


def _model(draft: Draft, algorithms: Sequence[Facts]) -> None:
    """The network: Ianvs' is code and a file of weights; only the file's name says something."""
    url = algorithms[0].model_url
    for facts in algorithms[1:]:
        if facts.model_url is not None:
            facts.model_url.left("engram starts from weights drawn by the seed")
    named = model_of(url.text()) if url is not None else ""
    if url is not None and named:
        draft.fill(
            "spec.model.name", named, url, "by the file's name only: its weights are not read; correct it"
        )
        return
    if url is not None:
        url.left("engram starts from weights drawn by the seed")
    model = "cnn" if draft.get("spec.dataset.name") in SMALL_IMAGES else "resnet18"
    draft.assume(
        "spec.model.name",
        model,
        "Ianvs' network is in basemodel.py: choose the nearest (docs/reference/job.md)",
    )


def _rank(rank: Reading) -> list[str]:
    """Return `--rank` with its value for `rank.sort_by`."""
    for key, why in RANK_LEFT.items():
        rank[key].left(why)
    order: dict[str, str] = {}
    for item in rank["sort_by"].items():
        for name, direction in item.mapping().items():
            known, way = metric_of(name), direction.text()
            if known is None or known is METRICS["MATRIX"]:
                direction.left(no_metric(name))
            elif way not in ("ascend", "descend"):
                raise direction.error(f"{shown(way)} is no direction", "write ascend or descend")
            else:
                order.setdefault(known.name, way)
                direction.becomes(f"--rank {known.name}:{way}", known.remark)
    return ["--rank", ",".join(f"{name}:{way}" for name, way in order.items())] if order else []
