from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from engram.federation.history import Faults, History
from engram.federation.messages import Heartbeat, Reject
from engram.metrics.exporter import MOST_TASKS, MOST_WORKERS, Exporter
from engram.spec.metric_names import ROUND_SECONDS_BUCKETS
from engram.spec.names import METRICS, MetricName

CLASSES = [[0, 1], [2, 3], [4, 5]]
EDGE = "trainworker-edge-0"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def exporter(clock: Clock) -> Exporter:
    return Exporter("lab", "digits", CLASSES, [2, 2, 2], clock)


def value(exporter: Exporter, name: str, **labels: str) -> float | None:
    return exporter.registry.get_sample_value(name, {"namespace": "lab", "job": "digits", **labels})


def finish(exporter: Exporter, history: History) -> None:
    told = History(faults=history.faults)
    for row in history.rounds:
        exporter.round_started(row.task, row.round)
        told.rounds.append(row)
        exporter.round_closed(row, told)
    for task in history.tasks:
        told.tasks.append(task)
        exporter.task_closed(task, told)


def test_scrape_has_only_names_types_and_labels_of_the_contract(
    exporter: Exporter, make_history: Callable[..., History]
) -> None:
    history = make_history(3)
    history.rounds[0].workers[EDGE].metrics |= {
        "pseudo_label_accept_ratio": 0.5,
        "pseudo_label_accuracy": 0.9,
        "gpu_utilization_ratio": 0.7,
    }
    finish(exporter, history)
    exporter.worker_changed(EDGE, "training")
    exporter.heartbeat(EDGE, Heartbeat(state="training", memory_bytes=5, gpu_memory_bytes=6))
    exporter.transferred(EDGE, "up", 1)
    text = generate_latest(exporter.registry).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    known = {metric.base_name: metric for metric in METRICS.values()}
    assert set(families) <= set(known)
    missing = {name for name in known if not name.startswith(("engram_operator", "engram_job"))} - set(
        families
    )
    assert missing == {"engram_forward_transfer"}  # not measured, so it has no series
    for name, family in families.items():
        assert family.type == known[name].kind
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(known[name].labels)
    assert "_created" not in text


def test_matrix_and_scalars(exporter: Exporter, make_history: Callable[..., History]) -> None:
    finish(exporter, make_history(3))
    assert value(exporter, "engram_accuracy") == pytest.approx(0.825)
    assert value(exporter, "engram_forget_rate") == pytest.approx(0.225)
    assert value(exporter, "engram_task_accuracy", task="1", after_task="3") == pytest.approx(0.675)
    assert value(exporter, "engram_task_accuracy", task="3", after_task="1") is None
    assert value(exporter, "engram_class_accuracy", **{"class": "5"}) == pytest.approx(0.95)
    assert value(exporter, "engram_progress_ratio") == 1


def test_before_anything_happened_nothing_is_invented(exporter: Exporter) -> None:
    assert value(exporter, "engram_accuracy") is None
    assert value(exporter, "engram_tasks") == 3
    assert value(exporter, "engram_rounds") == 6
    assert value(exporter, "engram_updates_rejected_total", reason="late") == 0


def test_round_counts_over_the_whole_run(exporter: Exporter) -> None:
    exporter.round_started(2, 1)
    assert value(exporter, "engram_task") == 2
    assert value(exporter, "engram_round") == 3


def test_exactly_one_state_of_a_worker_is_one(exporter: Exporter) -> None:
    exporter.worker_changed(EDGE, "connected")
    exporter.worker_changed(EDGE, "training")
    states = ("connected", "training", "uploading", "disconnected", "finished", "failed")
    found = {state: value(exporter, "engram_worker_state", worker=EDGE, state=state) for state in states}
    assert found == {state: float(state == "training") for state in states}


def test_heartbeat_age_is_of_the_moment_of_the_scrape(exporter: Exporter, clock: Clock) -> None:
    exporter.heartbeat(EDGE, Heartbeat(state="training", loss=0.5))
    clock.now += 7
    assert value(exporter, "engram_worker_heartbeat_age_seconds", worker=EDGE) == 7
    exporter.worker_changed(EDGE, "disconnected")
    assert value(exporter, "engram_worker_heartbeat_age_seconds", worker=EDGE) == 7
    assert value(exporter, "engram_worker_loss", worker=EDGE) == 0.5


def test_a_worker_that_says_nothing_of_its_memory_has_no_figure_of_it(exporter: Exporter) -> None:
    exporter.heartbeat(EDGE, Heartbeat(state="training"))
    assert value(exporter, "engram_worker_memory_bytes", worker=EDGE) is None
    exporter.heartbeat(EDGE, Heartbeat(state="training", memory_bytes=5))
    assert value(exporter, "engram_worker_memory_bytes", worker=EDGE) == 5


def test_histogram_counts_each_round_once(exporter: Exporter, make_history: Callable[..., History]) -> None:
    finish(exporter, make_history(3))
    name = "engram_round_duration_seconds"
    assert value(exporter, f"{name}_count", phase="train") == 6
    assert value(exporter, f"{name}_sum", phase="train") == pytest.approx(18.0)
    bounds = [value(exporter, f"{name}_bucket", phase="train", le=str(le)) for le in ROUND_SECONDS_BUCKETS]
    assert bounds == [6.0 if le >= 3 else 0.0 for le in ROUND_SECONDS_BUCKETS]


def test_counters_of_samples_bytes_and_faults(
    exporter: Exporter, make_history: Callable[..., History]
) -> None:
    history = make_history(3)
    history.faults = Faults(reconnects={EDGE: 2, "b": 1}, rounds_degraded=1, resumes=4)
    finish(exporter, history)
    exporter.transferred(EDGE, "down", 10)
    exporter.transferred(EDGE, "down", 5)
    exporter.rejected(EDGE, Reject("late", "not wanted", 1, 1))
    exporter.rejected(EDGE, Reject("a reason of the future", "", 1, 1))
    assert value(exporter, "engram_worker_samples_total", worker=EDGE) == 60
    assert value(exporter, "engram_transfer_bytes_total", worker=EDGE, direction="down") == 15
    assert value(exporter, "engram_reconnects_total") == 3
    assert value(exporter, "engram_rounds_degraded_total") == 1
    assert value(exporter, "engram_resumes_total") == 4
    assert value(exporter, "engram_updates_rejected_total", reason="late") == 1
    assert value(exporter, "engram_updates_rejected_total", reason="other") == 1


def test_faults_show_while_a_round_still_runs(exporter: Exporter) -> None:
    history = History()
    exporter.restored(history)
    history.faults.reconnects[EDGE] = 2
    history.faults.resumes += 1
    assert value(exporter, "engram_reconnects_total") == 2
    assert value(exporter, "engram_resumes_total") == 1


def test_the_end_of_a_task_counts_its_phases(
    exporter: Exporter, make_history: Callable[..., History]
) -> None:
    finish(exporter, make_history(2))
    assert value(exporter, "engram_round_duration_seconds_count", phase="evaluate") == 2
    assert value(exporter, "engram_round_duration_seconds_sum", phase="evaluate") == pytest.approx(0.6)
    assert value(exporter, "engram_round_duration_seconds_count", phase="consolidate") is None


def test_series_are_bounded_whatever_connects(exporter: Exporter) -> None:
    for index in range(MOST_WORKERS + 500):
        exporter.worker_changed(f"w{index}", "connected")
        exporter.transferred(f"w{index}", "up", 2)
    values = generate_latest(exporter.registry).decode().splitlines()
    assert sum(line.startswith("engram_worker_state{") for line in values) == 6 * MOST_WORKERS
    assert value(exporter, "engram_transfer_bytes_total", worker="other", direction="up") == 1000


def test_the_matrix_keeps_the_newest_tasks(make_history: Callable[..., History]) -> None:
    tasks = MOST_TASKS + 5
    exporter = Exporter("lab", "digits", [[2 * t, 2 * t + 1] for t in range(tasks)], [1] * tasks)
    exporter.restored(make_history(tasks, rounds=1))
    assert value(exporter, "engram_task_accuracy", task="5", after_task=str(tasks)) is None
    assert value(exporter, "engram_task_accuracy", task="6", after_task=str(tasks)) is not None


def test_a_resumed_run_shows_its_past_at_once(
    exporter: Exporter, make_history: Callable[..., History]
) -> None:
    exporter.restored(make_history(2))
    assert value(exporter, "engram_round") == 4
    assert value(exporter, "engram_progress_ratio") == pytest.approx(4 / 6)
    assert value(exporter, "engram_accuracy") is not None


def test_two_exporters_share_nothing() -> None:
    first, second = (Exporter("lab", "digits", CLASSES, [1]) for _ in range(2))
    first.transferred(EDGE, "up", 9)
    assert value(second, MetricName.TRANSFER_BYTES, worker=EDGE, direction="up") is None
