"""What may change in a job, and when, by the real API server: everything before it starts, little after.

The cases come from the schema, so a new field is held fast without a line here.
"""

from __future__ import annotations

from typing import Any

import pytest

from engram.spec.cel import mutable_fields
from engram.spec.job import JobSpec
from engram.spec.names import API_VERSION, KIND
from engram.spec.schema import schema_of
from tests.cluster.api import Api, ApiError, Object, path_of

pytestmark = pytest.mark.control

Path = tuple[str, ...]

REFUSAL = (
    "the job has started: only spec.suspend, spec.workers[].replicas, "
    "spec.runPolicy.ttlSecondsAfterFinished, spec.runPolicy.cleanPodPolicy, spec.report may change. "
    "Delete the job and apply it anew for the rest"
)

SPEC: Object = {
    "dataset": {"volume": {"hostPath": {"path": "/data"}}},
    "training": {"localSteps": 16},
    "imagePullSecrets": [{"name": "one"}],
    "workers": [{"name": "edge", "replicas": 2}, {"name": "cloud", "dataset": {"labelRatio": 0.5}}],
}
"""A job with set and unset optional fields, and two groups."""

OPAQUE = "x-kubernetes-preserve-unknown-fields"


def leaves(schema: Object, path: Path = ()) -> dict[Path, Object]:
    """Return the schemas of all values below `schema` that are no objects of ours; `[]` is a list's item."""
    if "properties" in schema:
        return {
            place: leaf
            for key, below in schema["properties"].items()
            for place, leaf in leaves(below, (*path, key)).items()
        }
    if "x-kubernetes-list-map-keys" in schema:
        return leaves(schema["items"], (*path, "[]"))
    return {path: schema}


LEAVES = {".".join(path).replace(".[]", "[]"): schema for path, schema in leaves(schema_of(JobSpec)).items()}
MUTABLE = tuple(name.removeprefix("spec.") for name in mutable_fields(schema_of(JobSpec)))


def may_change(name: str) -> bool:
    """Tell whether the leaf may change while the job runs, as far as the API server can see."""
    schema = LEAVES[name]
    return name.startswith(MUTABLE) or bool(schema.get(OPAQUE) or schema.get("items", {}).get(OPAQUE))


def another(schema: Object, value: Any) -> Any:
    """Return a valid value other than `value`."""
    if schema.get(OPAQUE):
        return {"changed": "yes"}
    if "enum" in schema:
        return next(choice for choice in schema["enum"] if choice != value)
    if schema.get("x-kubernetes-int-or-string"):
        return 1
    kind = schema["type"]
    if kind == "boolean":
        return not value
    if kind == "array":
        return [{"name": "two"}] if schema["items"]["type"] == "object" else [value_of(schema["items"])]
    return value_of(schema, value)


def value_of(schema: Object, value: Any = None) -> Any:
    """Return a valid number or text other than `value`."""
    if schema["type"] == "string":
        return "http://other" if value != "http://other" else "another"
    least = schema["minimum"] + (1 if schema["type"] == "integer" else 0.01)
    return least if least != value else schema["maximum"]


def changed(job: Object, name: str) -> Object:
    """Return `job` with another value in one leaf; in the first group for those of workers."""
    spec = {**job["spec"]}
    holder: Any = spec
    *parents, last = name.replace("[]", ".0").split(".")
    for step in parents:
        key: Any = 0 if step == "0" else step
        holder[key] = list(holder[key]) if isinstance(holder[key], list) else {**holder[key]}
        holder = holder[key]
    holder[last] = another(LEAVES[name], holder.get(last))
    return {**job, "spec": spec}


def put(api: Api, job: Object) -> Object:
    """Replace a job, as a dry run; return it as it would be stored."""
    path = path_of(KIND, job["metadata"]["namespace"], job["metadata"]["name"])
    found: Object = api.ask("PUT", path, job, query={"dryRun": "All", "fieldValidation": "Strict"}).body
    return found


@pytest.fixture(scope="module")
def waiting(api: Api, crd: str) -> Object:
    """A job that has not started."""
    metadata = {"name": "unstarted", "namespace": "default"}
    return api.apply({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": SPEC})


@pytest.fixture(scope="module")
def started(api: Api, crd: str) -> Object:
    """A job that has."""
    metadata = {"name": "started", "namespace": "default"}
    api.apply({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": SPEC})
    status = {"status": {"startTime": "2026-01-01T00:00:00Z", "phase": "Running"}}
    return api.patch(KIND, "started", status, namespace="default", part="status")


@pytest.mark.parametrize("name", LEAVES)
def test_a_field_of_a_job_that_has_started(api: Api, started: Object, name: str) -> None:
    wanted = changed(started, name)
    if may_change(name):
        assert put(api, wanted)["metadata"]["generation"] == started["metadata"]["generation"] + 1
        return
    with pytest.raises(ApiError) as caught:
        put(api, wanted)
    assert f'<nil>: Invalid value: "object": {REFUSAL}' in caught.value.causes


@pytest.mark.parametrize("name", [name for name in LEAVES if not may_change(name)])
def test_a_field_of_a_job_that_waits_may_change(api: Api, waiting: Object, name: str) -> None:
    try:
        put(api, changed(waiting, name))
    except ApiError as error:  # rules that span fields may refuse it, but not for the job's age
        refusals = error.causes
    else:
        refusals = []
    assert not any("has started" in text for text in refusals)


def test_one_leaf_of_each_kind_is_held_fast() -> None:
    """Guards the cases above against an empty list of either sort."""
    held = {name for name in LEAVES if not may_change(name)}
    assert {"seed", "tasks.classes", "training.localSteps", "workers[].dataset.path", "dataset.name"} <= held
    free = set(LEAVES) - held
    assert {"suspend", "workers[].replicas", "report.volume", "algorithm.parameters"} <= free


def groups(*names: str) -> Object:
    """Return a spec with other groups."""
    known = {group["name"]: group for group in SPEC["workers"]}
    return {**SPEC, "workers": [known.get(name, {"name": name}) for name in names]}


@pytest.mark.parametrize(
    ("spec", "taken"),
    [
        (groups("edge", "cloud"), True),
        (groups("cloud", "edge"), True),
        (groups("edge"), False),
        (groups("edge", "cloud", "gpu"), False),
        (groups("edge", "gpu"), False),
        ({**SPEC, "training": {}}, False),
        ({**SPEC, "training": {"localSteps": None}}, False),
        ({**SPEC, "training": {"localSteps": 16, "gradientClip": 1.0}}, False),
        ({**SPEC, "dataset": {**SPEC["dataset"], "samplesPerClass": 5}}, False),
        ({**SPEC, "training": {"localSteps": 16, "gradientClip": None}}, True),
        ({**SPEC, "dataset": {**SPEC["dataset"], "labelRatio": 1.0}}, True),
        ({**SPEC, "suspend": True, "runPolicy": {"ttlSecondsAfterFinished": 5}}, True),
        ({**SPEC, "suspend": True, "seed": 1}, False),
        ({}, False),
    ],
    ids=str,
)
def test_the_job_that_has_started_is_applied_again(
    api: Api, started: Object, spec: Object, taken: bool
) -> None:
    wanted = {**started, "spec": spec}
    if taken:
        put(api, wanted)
        return
    with pytest.raises(ApiError) as caught:
        put(api, wanted)
    assert f'<nil>: Invalid value: "object": {REFUSAL}' in caught.value.causes


def test_status_goes_on_changing(api: Api, started: Object) -> None:
    status = {"status": {"phase": "Succeeded", "completionTime": "2026-01-01T01:00:00Z"}}
    found = api.patch(KIND, "started", status, namespace="default", part="status", dry_run=True)
    assert found["status"]["phase"] == "Succeeded"
