"""From files to jobs, and what is refused on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engram.errors import ConfigurationError
from engram.spec import FederatedIncrementalJob, load_job, load_jobs, load_yaml, parse_job
from engram.spec.nesting import DEEPEST

HEAD = "apiVersion: engram.dev/v1alpha1\nkind: FederatedIncrementalJob\nmetadata: {name: %s}\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_job_of_defaults(tmp_path: Path) -> None:
    job = load_job(write(tmp_path, HEAD % "digits"))
    assert job.name == "digits"
    assert job.spec.dataset.name == "digits"
    assert job.spec.workers[0].replicas == 3
    assert [worker.name for worker in job.workers()] == [f"trainworker-edge-{index}" for index in range(3)]


def test_what_is_dumped_parses_to_the_same_job(tmp_path: Path) -> None:
    job = load_job(write(tmp_path, HEAD % "digits" + "spec: {seed: 7, workers: [{name: a}, {name: b}]}\n"))
    assert parse_job(job.dump()) == job


def test_several_jobs_in_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, f"{HEAD % 'a'}---\n# empty\n---\n{HEAD % 'b'}")
    assert [job.name for job in load_jobs(path)] == ["a", "b"]
    with pytest.raises(
        ConfigurationError, match=r"job\.yaml: found 2 documents where one is meant: keep one"
    ):
        load_job(path)


def test_one_bad_job_among_several_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, f"{HEAD % 'a'}---\n{HEAD % 'b'}spec: {{seed: -1}}\n")
    with pytest.raises(ConfigurationError, match=r"job\.yaml: document 2: spec\.seed: -1 is too small"):
        load_jobs(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found no document"),
        ("just text\n", "not a job: the document is no mapping: start with apiVersion: engram.dev/v1alpha1"),
        ("kind: FederatedIncrementalJob\n", "apiVersion: is missing: write apiVersion: engram.dev/v1alpha1"),
        (
            "apiVersion: engram.dev/v1\nkind: FederatedIncrementalJob\n",
            "apiVersion: is 'engram.dev/v1', not engram.dev/v1alpha1: write apiVersion: engram.dev/v1alpha1",
        ),
        (
            "apiVersion: engram.dev/v1alpha1\nkind: FederatedLearningJob\n",
            "kind: is 'FederatedLearningJob', not FederatedIncrementalJob",
        ),
        ("apiVersion: engram.dev/v1alpha1\nkind: FederatedIncrementalJob\n", "metadata: is missing"),
        (
            "apiVersion: engram.dev/v1alpha1\nkind: FederatedIncrementalJob\nmetadata: {}\n",
            "metadata.name: is missing: write text",
        ),
        (
            HEAD % "Digits",
            "metadata.name: 'Digits' does not match ^[a-z]([-a-z0-9]*[a-z0-9])?$: "
            "Name of the job: lower-case letters, digits and hyphens, at most 40.",
        ),
        (HEAD % ("a" * 41), "metadata.name: has 41 characters: write at most 40"),
        (HEAD % "12", 'metadata.name: 12 is not text: write "12" in quotes'),
        (HEAD % "on", "metadata.name: true is not text: write it in quotes: YAML reads yes"),
        (HEAD % "'digits', labls: {a: b}", "metadata.labls: unknown field: did you mean labels?"),
        (HEAD % "'digits', labels: {a: 5}", 'metadata.labels.a: 5 is not text: write "5" in quotes'),
        (HEAD % "'digits', labels: {a b: c}", "metadata.labels.a b: is no valid key"),
        (HEAD % "a" + "foo: 1\n", "foo: unknown field: write one of: apiVersion, kind, metadata, spec"),
        (HEAD % "a" + "dataset: {name: digits}\n", "dataset: unknown field: did you mean spec.dataset?"),
    ],
)
def test_what_is_no_job(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        load_jobs(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert caught.value.exit_code == 42


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml: no such file: check the path"):
        load_job(tmp_path / "none.yaml")
    with pytest.raises(ConfigurationError, match="is a directory: name a job file"):
        load_job(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(ConfigurationError, match=r"latin\.yaml: byte 3 is not UTF-8: save the file as UTF-8"):
        load_job(tmp_path / "latin.yaml")


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + (HEAD % "digits").encode())
    assert load_job(path).name == "digits"


def test_an_object_from_the_api_server_is_a_job() -> None:
    job = parse_job(
        {
            "apiVersion": "engram.dev/v1alpha1",
            "kind": "FederatedIncrementalJob",
            "metadata": {
                "name": "digits",
                "namespace": "team",
                "uid": "5f1c",
                "generation": 2,
                "resourceVersion": "17",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "managedFields": [{"manager": "kubectl"}],
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{...}"},
            },
            "spec": {"tasks": None},
            "status": {"phase": "Running", "anything": 1},
        }
    )
    assert (job.metadata.namespace, job.metadata.uid) == ("team", "5f1c")
    assert job.spec.tasks.count == 5


def test_null_is_the_default_as_the_api_server_has_it() -> None:
    text = HEAD % "digits" + "spec:\n  dataset:\n  training:\n    batchSize:\n    localSteps:\n"
    assert parse_job(load_yaml(text)).spec == parse_job(load_yaml(HEAD % "digits")).spec


def test_a_worker_group_overrides_the_data_set(tmp_path: Path) -> None:
    text = """
spec:
  dataset: {path: all, labelRatio: 0.5, volume: {hostPath: {path: /data}}}
  workers:
  - {name: a, replicas: 1}
  - {name: b, replicas: 2, dataset: {labelRatio: 0, path: b}}
"""
    workers = load_job(write(tmp_path, HEAD % "digits" + text)).workers()
    assert [(w.name, w.position, w.label_ratio, w.path) for w in workers] == [
        ("trainworker-a-0", 0, 0.5, "all"),
        ("trainworker-b-0", 1, 0.0, "b"),
        ("trainworker-b-1", 2, 0.0, "b"),
    ]
    assert workers[2].volume == {"hostPath": {"path": "/data"}}


def digest(spec: str) -> str:
    return parse_job(load_yaml(HEAD % "digits" + f"spec: {spec}\n")).digest()


@pytest.mark.parametrize(
    "spec",
    [
        "{suspend: true}",
        "{managedBy: me}",
        "{runPolicy: {backoffLimit: 1}}",
        "{report: {graceSeconds: 1}}",
        "{aggregator: {image: x}}",
        "{workers: [{placement: edge, image: my-image, gpus: {count: 1}}]}",
        "{seed: 0}",
        "{dataset: {labelRatio: 1}}",
    ],
)
def test_the_digest_does_not_depend_on_where_and_when(spec: str) -> None:
    assert digest(spec) == digest("{}")


@pytest.mark.parametrize(
    "spec",
    [
        "{seed: 1}",
        "{training: {batchSize: 8}}",
        "{workers: [{replicas: 4}]}",
        "{workers: [{dataset: {labelRatio: .5}}]}",
        "{algorithm: {name: replay, parameters: {exemplarsPerWorker: 11}}}",
    ],
)
def test_the_digest_depends_on_what_decides_the_result(spec: str) -> None:
    assert digest(spec) != digest("{}")


def test_replicas_of_elastic_groups_do_not_change_the_digest() -> None:
    elastic = "{dataset: {partition: {method: local}}, workers: [{replicas: %d}]}"
    assert digest(elastic % 2) == digest(elastic % 5)


def test_jobs_are_immutable(tmp_path: Path) -> None:
    job = load_job(write(tmp_path, HEAD % "digits"))
    with pytest.raises(ValueError, match="frozen"):
        job.spec.seed = 1  # type: ignore[misc]
    assert isinstance(job, FederatedIncrementalJob)


def job_with(depth: int, *, group: bool = False) -> dict[str, Any]:
    """A job as the API server sends it, with a podTemplate of so many levels: its own is level 3 or 4."""
    template: Any = 1
    for _ in range(depth):
        template = {"a": template}
    part = {"podTemplate": template}
    spec = {"workers": [{"name": "edge", **part}]} if group else {"aggregator": part}
    return {**load_yaml(HEAD % "digits"), "spec": spec}


@pytest.mark.parametrize("depth", [DEEPEST - 1, 600, 1_500, 9_990])
def test_what_nests_more_deeply_than_can_be_followed_is_refused(depth: int) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_job(job_with(depth))
    assert str(refused.value) == ("spec.aggregator.podTemplate.a: nested too deeply: nest at most 100 levels")
    with pytest.raises(ConfigurationError, match=r"spec\.workers\[0\]\.podTemplate: nested too deeply"):
        parse_job(job_with(depth, group=True))


def test_what_nests_just_not_too_deeply_is_taken() -> None:
    job = job_with(DEEPEST - 2)
    assert parse_job(job).spec.aggregator.pod_template == job["spec"]["aggregator"]["podTemplate"]
