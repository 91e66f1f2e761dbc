from __future__ import annotations

from collections.abc import Iterable

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from engram.spec.names import METRICS, MetricName, Phase
from engram_operator.errors import StartError
from engram_operator.health import HealthServer, Pulse, complaints
from engram_operator.metrics import Metrics
from engram_operator.tables import JobTable
from tests.cluster.ports import free_port
from tests.control.builders import job_object
from tests.control.edge import FakeClock, run

Ages = Iterable[tuple[str, float]]


def finished(name: str) -> JobTable:
    table = JobTable()
    job = job_object(name, algorithm={"name": "replay"}, dataset={"name": "digits"})
    job["status"] = {
        "phase": "Succeeded",
        "completionTime": "2026-01-02T12:00:00Z",
        "metrics": {"accuracy": "0.931", "forgetRate": "-0.01"},
    }
    table.put(job)
    return table


async def served(metrics: Metrics, ages: Ages = ()) -> tuple[str, int, str]:
    """What /metrics says, and the status and text of /healthz."""
    port = free_port()
    server = HealthServer(port, metrics.registry, lambda: ages)
    await server.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            async with session.get("/metrics") as answer:
                assert answer.headers["Content-Type"].startswith("text/plain")
                text = await answer.text()
            async with session.get("/healthz") as answer:
                return text, answer.status, await answer.text()
    finally:
        await server.stop()


def test_every_metric_of_the_operator_is_shown_as_the_contract_says() -> None:
    metrics = Metrics(finished("digits"), lambda: 7.5)
    metrics.reconciled("changed", 0.02)
    metrics.reconciled("error", 2.0)
    text, _, _ = run(served(metrics))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    contract = {
        name: METRICS[name] for name in MetricName if name.startswith(("engram_operator_", "engram_job_"))
    }
    assert set(families) == {metric.base_name for metric in contract.values()}
    for metric in contract.values():
        family = families[metric.base_name]
        assert family.type == metric.kind
        assert family.documentation == metric.help
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert values["engram_operator_reconciles_total", "changed"] == 1
    assert values["engram_operator_reconciles_total", "unchanged"] == 0
    assert values["engram_operator_reconcile_seconds_count",] == 2
    assert values["engram_operator_reconcile_seconds_sum",] == pytest.approx(2.02)
    assert values["engram_operator_reconcile_seconds_bucket", "0.03"] == 1
    assert values["engram_operator_jobs", "Succeeded"] == 1
    assert {key[1] for key in values if key[0] == "engram_operator_jobs"} == set(Phase)
    assert values["engram_operator_last_event_age_seconds",] == 7.5
    assert values["engram_job_accuracy", "digits", "lab"] == 0.931
    assert values["engram_job_forget_rate", "digits", "lab"] == -0.01
    assert values["engram_job_completion_timestamp_seconds", "digits", "lab"] == 1767355200
    info = next(sample for sample in families["engram_job_info"].samples)
    assert info.labels == {
        "namespace": "lab", "job": "digits", "algorithm": "replay", "dataset": "digits", "phase": "Succeeded"
    }  # fmt: skip


def test_a_job_without_status_is_pending_and_has_no_result() -> None:
    table = JobTable()
    table.put(job_object())
    text, _, _ = run(served(Metrics(table, lambda: 0.0)))
    assert 'engram_operator_jobs{phase="Pending"} 1.0' in text
    assert "engram_job_accuracy{" not in text


def test_health_is_the_age_of_what_ought_to_happen() -> None:
    metrics = Metrics(JobTable(), lambda: 0.0)
    _, status, text = run(served(metrics, [("the queue has not moved", 299.0)]))
    assert (status, text) == (200, "ok\n")
    _, status, text = run(served(metrics, [("the queue has not moved", 312.0), ("silence", 1.0)]))
    assert (status, text) == (503, "the queue has not moved for 312 s\n")


def test_a_pulse_is_the_time_since_the_last_beat() -> None:
    clock = FakeClock()
    pulse = Pulse(clock.monotonic)
    clock.seconds += 301.0
    assert complaints([("silence", pulse.age())]) == "silence for 301 s"
    pulse.beat()
    assert complaints([("silence", pulse.age())]) == ""


def test_a_port_that_is_taken_is_one_sentence() -> None:
    async def scenario() -> None:
        metrics = Metrics(JobTable(), lambda: 0.0)
        port = free_port()
        first = HealthServer(port, metrics.registry, tuple)
        await first.start()
        try:
            with pytest.raises(StartError, match=rf"port {port} .* choose another with --health-port, or 0"):
                await HealthServer(port, metrics.registry, tuple).start()
        finally:
            await first.stop()

    run(scenario())
