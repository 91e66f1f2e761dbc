from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from engram.federation.history import Faults, History
from engram.federation.messages import Heartbeat, Hello, Reject
from engram.federation.versions import PROTOCOL
from engram.metrics.status import WORKERS_SHOWN, LiveStatus, decimal
from engram.metrics.worker_view import timestamp

CLASSES = [[0, 1], [2, 3], [4, 5]]
WORKERS = [("trainworker-edge-0", "edge"), ("trainworker-edge-1", "edge")]


class Clock:
    def __init__(self, now: float = 1_760_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def live(clock: Clock) -> LiveStatus:
    return LiveStatus(CLASSES, [2, 2, 2], WORKERS, clock)


def replay(live: LiveStatus, history: History) -> None:
    """Tell `live` a finished history event by event, as an aggregator would."""
    told = History()
    for task in history.tasks:
        for row in (row for row in history.rounds if row.task == task.task):
            live.round_started(row.task, row.round)
            told.rounds.append(row)
            live.round_closed(row, told)
        told.tasks.append(task)
        live.task_closed(task, told)


def test_before_the_first_round(live: LiveStatus) -> None:
    status = live.as_dict()
    assert status["phase"] == "Starting"
    assert status["progress"] == {"task": 0, "tasks": 3, "round": 0, "rounds": 6, "percent": 0}
    assert status["workers"] == {"desired": 2, "running": 0, "connected": 0, "disconnected": 0, "failed": 0}
    assert status["metrics"] == {}
    assert status["workerStatuses"] == []


def test_progress_counts_rounds_over_the_whole_run(
    live: LiveStatus, make_history: Callable[..., History]
) -> None:
    replay(live, make_history(2))
    live.round_started(3, 1)
    progress = live.as_dict()["progress"]
    assert (progress["task"], progress["round"], progress["rounds"]) == (3, 5, 6)
    assert progress["percent"] == 66
    # Two rounds of 3.3 s and one end of task of 0.8 s are left.
    assert progress["secondsLeft"] == round(2 * 3.3 + 0.8)


def test_progress_inside_a_round_follows_the_workers(
    live: LiveStatus, clock: Clock, make_history: Callable[..., History]
) -> None:
    replay(live, make_history(2))
    live.round_started(3, 1)
    for name, _ in WORKERS:
        live.worker_changed(name, "training")
        live.heartbeat(name, Heartbeat(state="training", progress=0.5, loss=0.25))
    assert live.as_dict()["progress"]["percent"] == 75
    clock.now += 1
    assert live.seconds_left() == pytest.approx(2 * 3.3 + 0.8 - 1)


def test_metrics_are_decimal_strings_and_undefined_ones_are_absent(
    live: LiveStatus, make_history: Callable[..., History]
) -> None:
    replay(live, make_history(1))
    assert live.as_dict()["metrics"] == {"accuracy": "0.9750", "averageIncrementalAccuracy": "0.9750"}
    assert live.as_dict()["display"]["accuracy"] == "97.5%"
    assert "forgetting" not in live.as_dict()["display"]


def test_tasks_say_what_was_learned_and_what_is_left(
    live: LiveStatus, make_history: Callable[..., History]
) -> None:
    replay(live, make_history(3))
    first, *_, last = live.as_dict()["tasks"]
    assert first == {
        "index": 1,
        "classes": [0, 1],
        "seconds": 8,
        "bytes": 2 * 2 * 1900 + 2 * 10,
        "accuracy": "0.9750",
        "accuracyNow": "0.6750",
    }
    assert last["forgetRate"] == "0.2250"
    assert last["accuracy"] == last["accuracyNow"]


def test_workers_not_fine_come_first_and_the_list_is_bounded() -> None:
    many = [(f"trainworker-edge-{index}", "edge") for index in range(50)]
    live = LiveStatus(CLASSES, [2, 2, 2], many, Clock())
    for name, _ in many:
        live.worker_changed(name, "training")
    live.worker_changed("trainworker-edge-49", "failed")
    live.worker_changed("trainworker-edge-48", "disconnected")
    shown = live.as_dict()["workerStatuses"]
    assert len(shown) == WORKERS_SHOWN
    assert [row["state"] for row in shown[:3]] == ["failed", "disconnected", "training"]
    counts = live.as_dict()["workers"]
    assert counts == {"desired": 50, "running": 49, "connected": 48, "disconnected": 1, "failed": 1}


def test_a_newcomer_is_taken_in_with_the_group_of_its_name(live: LiveStatus) -> None:
    live.worker_changed("trainworker-gpu-7", "connected")
    live.introduced("trainworker-gpu-7", hello("trainworker-gpu-7", device="cuda:0"))
    (row,) = live.as_dict()["workerStatuses"]
    assert (row["group"], row["device"], row["lastSeenTime"]) == ("gpu", "cuda:0", "2025-10-09T08:53:20Z")


def test_what_is_wrong_with_a_worker_is_said_until_it_is_back(live: LiveStatus) -> None:
    name = "trainworker-edge-0"

    def message() -> str | None:
        live.worker_changed(name, "connected")
        (row,) = live.as_dict()["workerStatuses"]
        found: str | None = row.get("message")
        return found

    live.introduced(name, hello(name, trouble="agg:7363: DNS: agg is not known here"))
    assert message() == "agg:7363: DNS: agg is not known here"
    live.worker_failed(name, "ValueError: " + "x" * 300 + "\nTraceback ...", 1)
    assert len(message() or "") == 256
    live.introduced(name, hello(name))
    assert message() is None


def test_the_display_counts_workers_that_are_done_and_the_present_size_of_the_groups(
    live: LiveStatus,
) -> None:
    for index in range(2):
        live.worker_changed(f"trainworker-edge-{index}", "finished")
    live.resized(2)
    assert live.as_dict()["display"]["workers"] == "2/2"


def hello(worker: str, **said: str) -> Hello:
    return Hello(worker, 1, PROTOCOL, "job", "split", 10, **said)  # type: ignore[arg-type]


def test_reconnects_and_refusals_are_counted(live: LiveStatus) -> None:
    for state in ("connected", "disconnected", "connected", "disconnected", "training"):
        live.worker_changed("trainworker-edge-0", state)
    live.rejected("trainworker-edge-0", Reject("late", "not wanted", 1, 1))
    status = live.as_dict()
    assert status["workerStatuses"][0]["reconnects"] == 2
    assert status["faults"]["rejected"] == 1


def test_a_workers_refusals_are_kept_by_reason_the_newest_first(
    live: LiveStatus, make_history: Callable[..., History]
) -> None:
    replay(live, make_history(1))
    live.round_started(2, 1)
    first, second = (name for name, _ in WORKERS)
    for name in (first, second):
        live.worker_changed(name, "connected")
    for reject in (
        Reject("late", "not wanted", 2, 1),
        Reject("norm", "too large", 2, 1),
        Reject("norm", "far too large", 2, 2),
        Reject("non-finite", "x" * 300, 2, 0),
    ):
        live.rejected(second, reject)
    live.rejected("trainworker-edge-9", Reject("unauthorised", "no worker of this job", 2, 1))
    worst, fine = live.as_dict()["workerStatuses"]
    assert (worst["name"], fine["name"]) == (second, first), "those not fine come first"
    assert "rejected" not in fine
    assert [(row["reason"], row["count"], row["round"]) for row in worst["rejected"]] == [
        ("non-finite", 1, 4),
        ("norm", 2, 4),
        ("late", 1, 3),
    ]
    assert [len(row["message"]) for row in worst["rejected"]] == [256, 13, 10]
    assert worst["acceptedRound"] == fine["acceptedRound"] == 2, "rounds count over the whole run"
    assert live.as_dict()["faults"]["rejected"] == 5


def test_the_most_memory_of_a_worker_stays_known_when_it_is_lost(live: LiveStatus) -> None:
    name = "trainworker-edge-0"
    live.worker_changed(name, "training")
    assert "memoryBytes" not in live.as_dict()["workerStatuses"][0]
    for size in (5, 9, 7):
        live.heartbeat(name, Heartbeat("training", memory_bytes=size))
    live.worker_changed(name, "disconnected")
    assert live.as_dict()["workerStatuses"][0]["memoryBytes"] == 9


def test_the_aggregators_own_memory_is_told_where_it_is_known(live: LiveStatus) -> None:
    assert live.as_dict()["aggregator"] == {}
    known = LiveStatus(CLASSES, [2, 2, 2], WORKERS, memory=lambda: 77)
    assert known.as_dict()["aggregator"] == {"memoryBytes": 77}


def test_a_round_without_a_worker_is_none_that_counted(
    live: LiveStatus, make_history: Callable[..., History]
) -> None:
    history = make_history(1)
    absent, abstained = (name for name, _ in WORKERS)
    history.rounds[-1].workers[absent].outcome = "absent"
    history.rounds[-1].workers[abstained].outcome = "abstained"
    replay(live, history)
    for name, _ in WORKERS:
        live.worker_changed(name, "connected")
    assert [row["acceptedRound"] for row in live.as_dict()["workerStatuses"]] == [1, 2]


def test_the_stage_says_what_the_run_is_busy_with(
    live: LiveStatus, make_history: Callable[..., History]
) -> None:
    stages = [live.as_dict()["stage"]]
    events: tuple[Callable[[], None], ...] = (
        lambda: live.round_started(1, 1),
        lambda: live.evaluation_started(1, 1),
        lambda: live.round_started(1, 2),
        lambda: live.consolidation_started(1),
        lambda: live.evaluation_started(1, 0),
        lambda: live.round_started(2, 1),
        lambda: live.finished("complete", "", make_history(3)),
    )
    for event in events:
        event()
        stages.append(live.as_dict()["stage"])
    assert stages == [
        *("gathering", "rounds", "evaluating", "rounds", "consolidating", "evaluating", "rounds", "over")
    ]


def test_a_run_that_is_resumed_at_the_end_of_a_task_runs(
    live: LiveStatus, make_history: Callable[..., History]
) -> None:
    history = make_history(2)
    history.tasks.pop()
    live.restored(history)
    live.consolidation_started(2)
    status = live.as_dict()
    assert (status["phase"], status["stage"]) == ("Running", "consolidating")
    assert (status["progress"]["task"], status["progress"]["round"]) == (2, 4)


def test_traffic_is_summed_over_workers(live: LiveStatus) -> None:
    for name, _ in WORKERS:
        live.transferred(name, "down", 100)
        live.transferred(name, "up", 40)
    assert live.as_dict()["transfer"] == {"bytesDown": 200, "bytesUp": 80}


def test_a_resumed_run_shows_its_past_at_once(live: LiveStatus, make_history: Callable[..., History]) -> None:
    history = make_history(2)
    history.faults = Faults(resumes=1, reconnects={"trainworker-edge-0": 3})
    live.restored(history)
    status = live.as_dict()
    assert status["progress"]["round"] == 4
    assert status["metrics"]["forgetRate"] == "0.1500"
    assert status["faults"] == {"reconnects": 3, "rejected": 0, "roundsDegraded": 0, "resumes": 1}


@pytest.mark.parametrize(
    ("reason", "phase"), [("complete", "Succeeded"), ("failed", "Failed"), ("suspended", "Suspended")]
)
def test_the_end_decides_the_phase(
    live: LiveStatus, make_history: Callable[..., History], reason: str, phase: str
) -> None:
    live.finished(reason, "so it ended", make_history(3))
    status = live.as_dict()
    assert (status["phase"], status["message"]) == (phase, "so it ended")
    assert "secondsLeft" not in status["progress"]


def test_status_is_json(live: LiveStatus, make_history: Callable[..., History]) -> None:
    replay(live, make_history(3))
    assert json.loads(json.dumps(live.as_dict(), allow_nan=False)) == live.as_dict()


def test_number_formats() -> None:
    assert decimal(0.93101) == "0.9310"
    assert decimal(-0.00001) == "0.0000"
    assert decimal(-0.25) == "-0.2500"
    assert timestamp(0) == "1970-01-01T00:00:00Z"
