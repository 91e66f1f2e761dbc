"""Names that two sides share: each well-formed, each said once."""

from __future__ import annotations

import re

import pytest

from engram.federation.history import WorkerState
from engram.spec import exit_codes, names
from engram.spec.exit_codes import EXIT_MEANINGS, ExitCode, meaning_of
from engram.spec.names import (
    METRICS,
    Condition,
    Environment,
    MetricName,
    Reason,
    RoundPhase,
    WorkerCondition,
    worker_name,
)


def test_every_reason_is_explained_and_belongs_to_a_condition() -> None:
    for reason in Reason:
        assert re.fullmatch(r"[A-Z][A-Za-z]+", reason)
        assert reason.meaning.endswith("."), reason
        assert "\n" not in reason.meaning
        assert reason.conditions, reason
        assert {Condition(kind) for kind in reason.conditions}


def test_every_condition_has_reasons() -> None:
    for condition in Condition:
        assert any(condition in reason.conditions for reason in Reason), condition


def test_a_reason_is_its_text() -> None:
    assert f"{Reason.QUORUM_NOT_REACHED}" == "QuorumNotReached"
    assert Reason("QuorumNotReached") is Reason.QUORUM_NOT_REACHED


@pytest.mark.parametrize(
    "reason",
    [
        "SpecChangeIgnored",
        "NameConflict",
        "CheckpointNotDurable",
        "QuorumNotReached",
        "AggregatorNodeLost",
        "CredentialsLost",
        "GPUNotAdmitted",
        "PodSecurityViolation",
    ],
)
def test_reasons_that_the_design_names(reason: str) -> None:
    assert Reason(reason).meaning


def test_every_metric_is_in_the_table_with_help() -> None:
    assert set(METRICS) == set(MetricName)
    for metric in METRICS.values():
        assert re.fullmatch(r"engram_[a-z_]+", metric.name)
        assert metric.help.endswith("."), metric.name
        assert (metric.kind == "counter") == metric.name.endswith("_total"), metric.name
        assert len(set(metric.labels)) == len(metric.labels)
        assert not {"round", "uid", "pod"} & set(metric.labels), metric.name


def test_metrics_of_a_run_name_their_job_first() -> None:
    for name, metric in METRICS.items():
        if not name.startswith("engram_operator_"):
            assert metric.labels[:2] == ("namespace", "job"), name


def test_counters_have_a_base_name() -> None:
    assert METRICS[MetricName.TRANSFER_BYTES].base_name == "engram_transfer_bytes"
    assert METRICS[MetricName.WORKER_LOSS].base_name == "engram_worker_loss"
    assert METRICS[MetricName.TRANSFER_BYTES].labels == ("namespace", "job", "direction", "worker")


def test_states_of_workers_are_those_of_the_federation() -> None:
    assert tuple(WorkerCondition) == WorkerState.__args__  # type: ignore[attr-defined]


def test_phases_of_a_round_are_in_order() -> None:
    assert list(RoundPhase) == ["broadcast", "train", "upload", "aggregate", "evaluate", "checkpoint"]


def test_environment_is_sednas_or_has_our_prefix() -> None:
    ours = {str(name) for name in Environment if name.startswith("ENGRAM_")}
    assert "ENGRAM_AGGREGATOR_ENDPOINTS" in ours
    assert {str(name) for name in Environment} - ours >= {"AGG_IP", "AGG_PORT", "WORKER_NAME", "LC_SERVER"}
    assert all(name.name == name.value for name in Environment)


def test_everything_exported_exists() -> None:
    assert all(hasattr(names, name) for name in names.__all__)
    assert (names.FEDERATION_PORT, names.STATUS_PORT) == (7363, 9464)


def test_worker_names_are_valid_at_their_longest() -> None:
    assert worker_name("edge", 0) == "trainworker-edge-0"
    assert len(worker_name("a" * names.GROUP_NAME_LENGTH, names.MOST_REPLICAS - 1)) <= 63


def test_children_of_the_longest_job_name_are_valid() -> None:
    for suffix in (*names.Child, "g" * names.GROUP_NAME_LENGTH):
        assert len(f"{'j' * names.JOB_NAME_LENGTH}-{suffix}") <= 57, (
            "a Job adds six characters to its pods' names"
        )


@pytest.mark.parametrize(
    ("code", "aggregator", "worker"),
    [
        (0, None, None),
        (42, "FailJob", "FailJob"),
        (43, "FailJob", "FailIndex"),
        (44, "FailJob", "FailIndex"),
        (75, "Ignore", "Ignore"),
        (1, "Count", "Count"),
    ],
)
def test_exit_codes_are_the_contract(code: int, aggregator: str | None, worker: str | None) -> None:
    row = next(row for row in EXIT_MEANINGS if row.code == code)
    assert (row.aggregator, row.worker) == (aggregator, worker)


def test_exit_codes_agree_with_the_errors() -> None:
    from engram import errors

    assert errors.ConfigurationError.exit_code == ExitCode.CONFIGURATION
    assert errors.DataError.exit_code == ExitCode.DATA
    assert errors.RefusedError.exit_code == ExitCode.REFUSED
    assert errors.RetryError.exit_code == ExitCode.RETRY
    assert errors.EngramError.exit_code == ExitCode.FAILURE


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (75, "try again: the state is saved"),
        (137, "killed by signal 9 (often out of memory)"),
        (139, "killed by signal 11"),
        (3, "crashed"),
    ],
)
def test_exit_codes_in_words(code: int, words: str) -> None:
    assert meaning_of(code).startswith(words)
    assert exit_codes.OUT_OF_MEMORY == 137
