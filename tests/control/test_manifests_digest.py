"""What counts as a change of a running job, and what the job was when it was started."""

from __future__ import annotations

import pytest

from engram.spec import parse_job
from engram_operator.manifests import as_started, spec_digest
from tests.control.building import HEAD, UID, build, make_job

START = """
dataset: {partition: {method: local}}
workers:
- {name: edge, replicas: 2, podTemplate: {spec: {priorityClassName: low}}}
- {name: gpu, replicas: 1}
"""


@pytest.mark.parametrize(
    "edit",
    [
        "suspend: true",
        "workers: [{name: edge, replicas: 5}]",
        "runPolicy: {ttlSecondsAfterFinished: 60}",
        "runPolicy: {cleanPodPolicy: All}",
        "report: {graceSeconds: 1}",
        "seed: 0",
        "training: {batchSize: 32}",
    ],
)
def test_mutable_fields_and_defaults_written_out_do_not_count(edit: str) -> None:
    assert spec_digest(make_job(edit)) == spec_digest(make_job())


@pytest.mark.parametrize(
    "edit",
    [
        "seed: 1",
        "workers: [{name: other}]",
        "workers: [{name: edge}, {name: gpu}]",
        "workers: [{name: edge, podTemplate: {spec: {priorityClassName: high}}}]",
        "workers: [{name: edge, dataset: {volume: {}}}]",
        "aggregator: {image: other}",
        "runPolicy: {backoffLimit: 1}",
        "algorithm: {name: fedprox, parameters: {mu: 0.5}}",
        "dataset: {volume: {hostPath: {path: /data}}}",
    ],
)
def test_everything_else_counts(edit: str) -> None:
    assert spec_digest(make_job(edit)) != spec_digest(make_job())


def test_the_digest_of_a_resolved_job_is_that_of_the_short_one() -> None:
    short = make_job(START)
    long = parse_job({**HEAD, "metadata": {"name": "digits", "uid": UID}, "spec": short.spec.dump()})
    assert spec_digest(long) == spec_digest(short)


def test_an_unedited_job_is_as_it_was_started() -> None:
    job = make_job(START)
    assert as_started(job, build(job).config_map) == (job, False)


def test_an_edit_is_ignored_but_for_what_may_change() -> None:
    config = build(make_job(START)).config_map
    edited = make_job(
        """
        suspend: true
        seed: 7
        dataset: {partition: {method: local}}
        runPolicy: {cleanPodPolicy: All, backoffLimit: 1}
        report: {graceSeconds: 9}
        workers:
        - {name: gpu, replicas: 4}
        - {name: edge, replicas: 3, podTemplate: {spec: {priorityClassName: high}}}
        - {name: late, replicas: 1}
        """
    )
    held, differs = as_started(edited, config)
    assert differs
    spec = held.spec
    assert (spec.suspend, spec.seed, spec.report.grace_seconds) == (True, 0, 9)
    assert (spec.run_policy.clean_pod_policy, spec.run_policy.backoff_limit) == ("All", 6)
    assert [(group.name, group.replicas) for group in spec.workers] == [("edge", 3), ("gpu", 4)]
    assert spec.workers[0].pod_template == {"spec": {"priorityClassName": "low"}}
    assert build(held).config_map["data"]["digest"] == config["data"]["digest"]


@pytest.mark.parametrize("data", [None, {}, {"job.yaml": "hello"}, {"job.yaml": "{}", "digest": "x"}])
def test_a_config_map_that_holds_no_job_any_more_is_no_memory(data: object) -> None:
    job = make_job("seed: 3")
    assert as_started(job, {"data": data}) == (job, False)
