"""The batch Jobs: failure policy from the table of exit codes, hash, patches."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engram.spec.exit_codes import EXIT_MEANINGS, ExitCode
from engram_operator.manifests import job_patch
from engram_operator.model import ConditionView, JobView, Object
from tests.control.building import SETTINGS, build, make_job

DISRUPTED = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def on_exit(action: str, code: int) -> Object:
    return {
        "action": action,
        "onExitCodes": {"containerName": "main", "operator": "In", "values": [code]},
    }


def template_hash(job: Object) -> str:
    found: str = job["metadata"]["annotations"]["engram.dev/template-hash"]
    return found


def test_the_aggregation_job() -> None:
    spec = build(make_job("runPolicy: {backoffLimit: 4}")).aggregation["spec"]
    assert {key: value for key, value in spec.items() if key != "template"} == {
        "suspend": False,
        "parallelism": 1,
        "completions": 1,
        "completionMode": "NonIndexed",
        "backoffLimit": 4,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": [
                DISRUPTED,
                on_exit("FailJob", 42),
                on_exit("FailJob", 43),
                on_exit("FailJob", 44),
                on_exit("Ignore", 75),
            ]
        },
    }


def test_a_worker_job() -> None:
    spec = build(make_job("suspend: true\nworkers: [{name: edge, replicas: 7}]")).workers["edge"]["spec"]
    assert {key: value for key, value in spec.items() if key != "template"} == {
        "suspend": True,
        "parallelism": 7,
        "completions": 7,
        "completionMode": "Indexed",
        "backoffLimitPerIndex": 6,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": [
                DISRUPTED,
                on_exit("FailJob", 42),
                on_exit("FailIndex", 43),
                on_exit("FailIndex", 44),
                on_exit("Ignore", 75),
            ]
        },
    }


def test_every_final_or_ignored_code_of_the_table_has_a_rule_and_success_has_none() -> None:
    children = build(make_job())
    for job, actions in (
        (children.aggregation, {row.code: row.aggregator for row in EXIT_MEANINGS}),
        (children.workers["edge"], {row.code: row.worker for row in EXIT_MEANINGS}),
    ):
        rules = job["spec"]["podFailurePolicy"]["rules"][1:]
        found = {rule["onExitCodes"]["values"][0]: rule["action"] for rule in rules}
        assert found == {code: action for code, action in actions.items() if action not in (None, "Count")}
        assert ExitCode.DONE not in found


def test_the_hash_is_of_what_cannot_change() -> None:
    plain = build(make_job()).workers["edge"]
    resumed = build(make_job("suspend: true\nworkers: [{name: edge, replicas: 3}]")).workers["edge"]
    assert template_hash(resumed) == template_hash(plain)
    for changed in (
        build(make_job("workers: [{name: edge, image: other}]")),
        build(make_job("runPolicy: {backoffLimit: 1}")),
        build(make_job(), replace(SETTINGS, image="runtime:2")),
    ):
        assert template_hash(changed.workers["edge"]) != template_hash(plain)


def test_jobs_carry_the_digest_of_the_spec_they_were_made_from() -> None:
    children = build(make_job())
    digest = children.config_map["metadata"]["annotations"]["engram.dev/spec-digest"]
    assert digest == children.config_map["data"]["digest"].strip()
    for job in children.jobs:
        assert job["metadata"]["annotations"]["engram.dev/spec-digest"] == digest


def view(suspend: bool = False, parallelism: int = 3, completions: int = 3, condition: str = "") -> JobView:
    status = {"conditions": [{"type": condition, "status": "True"}]} if condition else {}
    made = {"suspend": suspend, "parallelism": parallelism, "completions": completions}
    return JobView.from_object({"metadata": {"name": "digits-edge"}, "spec": made, "status": status})


@pytest.mark.parametrize(
    ("seen", "suspend", "replicas", "body"),
    [
        (view(), False, 3, None),
        (view(), True, 3, {"suspend": True}),
        (view(suspend=True), False, 3, {"suspend": False}),
        (view(), False, 5, {"parallelism": 5, "completions": 5}),
        (view(parallelism=5), False, 3, {"parallelism": 3, "completions": 3}),
        (view(), True, 1, {"suspend": True, "parallelism": 1, "completions": 1}),
        (view(condition="Complete"), True, 5, None),
        (view(condition="SuccessCriteriaMet"), True, 5, None),
        (view(condition="FailureTarget"), True, 5, None),
        (replace(view(), deleting=True), True, 5, None),
        (replace(view(), conditions={"Suspended": ConditionView("True")}), True, 3, {"suspend": True}),
    ],
)
def test_a_job_is_patched_to_what_should_be(
    seen: JobView, suspend: bool, replicas: int, body: Object | None
) -> None:
    patch = job_patch(seen, suspend=suspend, replicas=replicas)
    if body is None:
        assert patch is None
    else:
        assert patch is not None
        assert (patch.kind, patch.name, patch.body) == ("Job", "digits-edge", {"spec": body})
