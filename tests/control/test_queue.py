from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram_operator.queue import FIRST_RETRY, JITTER, LAST_RETRY, WorkQueue, retry_delay


class FakeTime:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def queue(time: FakeTime) -> WorkQueue[str]:
    return WorkQueue(time, lambda: 0.5)


def drain(queue: WorkQueue[str]) -> list[str]:
    found = []
    while (key := queue.take()) is not None:
        found.append(key)
        queue.done(key)
    return found


def test_a_key_waits_once_however_often_it_is_added(queue: WorkQueue[str]) -> None:
    for key in ("a", "b", "a", "a"):
        queue.add(key)
    assert drain(queue) == ["a", "b"]


def test_a_key_is_not_worked_on_twice_at_the_same_time(queue: WorkQueue[str]) -> None:
    queue.add("a")
    assert queue.take() == "a"
    queue.add("a")
    assert queue.take() is None
    queue.done("a")
    assert queue.take() == "a"


def test_work_that_nobody_asked_for_again_does_not_come_back(queue: WorkQueue[str]) -> None:
    queue.add("a")
    assert drain(queue) == ["a"]
    assert queue.take() is None
    assert len(queue) == 0


def test_a_timed_key_comes_when_it_is_due(queue: WorkQueue[str], time: FakeTime) -> None:
    queue.add_after("a", 5.0)
    assert queue.take() is None
    assert queue.next_due() == 5.0
    time.now += 5.0
    assert drain(queue) == ["a"]
    assert queue.next_due() is None


def test_the_earliest_time_wins(queue: WorkQueue[str], time: FakeTime) -> None:
    queue.add_after("a", 5.0)
    queue.add_after("a", 60.0)
    queue.add_after("a", 2.0)
    assert queue.next_due() == 2.0
    time.now += 2.0
    assert drain(queue) == ["a"]
    time.now += 100.0
    assert drain(queue) == []


def test_a_key_that_is_added_does_not_come_again_at_its_time(queue: WorkQueue[str], time: FakeTime) -> None:
    queue.add_after("a", 5.0)
    queue.add("a")
    assert drain(queue) == ["a"]
    time.now += 10.0
    assert queue.take() is None


def test_a_time_asked_for_during_work_is_kept(queue: WorkQueue[str], time: FakeTime) -> None:
    queue.add("a")
    assert queue.take() == "a"
    queue.add_after("a", 3.0)
    queue.done("a")
    assert queue.take() is None
    time.now += 3.0
    assert queue.take() == "a"


def test_a_key_due_while_it_is_worked_on_runs_after(queue: WorkQueue[str], time: FakeTime) -> None:
    queue.add("a")
    assert queue.take() == "a"
    queue.add_after("a", 1.0)
    time.now += 1.0
    assert queue.take() is None
    queue.done("a")
    assert queue.take() == "a"


def test_failures_come_back_after_growing_delays(queue: WorkQueue[str], time: FakeTime) -> None:
    queue.add("a")
    delays = []
    for _ in range(12):
        assert queue.take() == "a"
        delays.append(queue.failed("a"))
        assert queue.take() is None
        time.now += delays[-1]
    assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_a_failure_may_be_asked_to_wait_longer(queue: WorkQueue[str], time: FakeTime) -> None:
    delays = []
    for _ in range(5):
        queue.add("a")
        assert queue.take() == "a"
        delays.append(queue.failed("a", 3.0))
    assert delays == [3.0, 3.0, 4.0, 8.0, 16.0]


def test_success_ends_the_row_of_failures(queue: WorkQueue[str], time: FakeTime) -> None:
    for delay in (1.0, 2.0):
        queue.add("a")
        assert queue.take() == "a"
        assert queue.failed("a") == delay
    queue.add("a")
    assert drain(queue) == ["a"]
    queue.add("a")
    assert queue.take() == "a"
    assert queue.failed("a") == 1.0


def test_an_event_does_not_wait_for_the_retry(queue: WorkQueue[str], time: FakeTime) -> None:
    queue.add("a")
    assert queue.take() == "a"
    queue.failed("a")
    queue.add("a")
    assert drain(queue) == ["a"]
    time.now += 400.0
    assert queue.take() is None, "the retry that was overtaken must not come as well"


def test_an_event_during_work_that_fails_is_not_lost(queue: WorkQueue[str]) -> None:
    queue.add("a")
    assert queue.take() == "a"
    queue.add("a")
    queue.failed("a")
    assert queue.take() == "a"


def test_a_forgotten_key_does_not_come(queue: WorkQueue[str], time: FakeTime) -> None:
    queue.add("a")
    queue.add_after("b", 1.0)
    queue.add("c")
    assert queue.take() == "a"
    queue.add("a")
    for key in "abc":
        queue.forget(key)
    queue.done("a")
    time.now += 10.0
    assert queue.take() is None
    assert len(queue) == 0


def test_a_forgotten_key_may_be_added_again(queue: WorkQueue[str]) -> None:
    queue.add("a")
    queue.forget("a")
    queue.add("a")
    assert drain(queue) == ["a"]


def test_a_stall_is_work_that_does_not_end(queue: WorkQueue[str], time: FakeTime) -> None:
    assert queue.stalled() == 0.0
    queue.add("a")
    assert queue.take() == "a"
    time.now += 400.0
    assert queue.stalled() == 400.0
    queue.done("a")
    time.now += 400.0
    assert queue.stalled() == 0.0, "an idle queue is no stall"


def test_a_long_queue_that_moves_is_no_stall(queue: WorkQueue[str], time: FakeTime) -> None:
    for key in "abcdef":
        queue.add(key)
    for _ in range(5):
        taken = queue.take()
        assert taken is not None
        time.now += 100.0
        assert queue.stalled() == 100.0
        queue.done(taken)
    time.now += 301.0
    assert queue.stalled() == 301.0, "nobody takes the last key"


@given(st.integers(1, 10_000), st.floats(0.0, 1.0))
def test_delays_stay_within_bounds(failures: int, chance: float) -> None:
    delay = retry_delay(failures, chance)
    assert FIRST_RETRY * (1 - JITTER) <= delay <= LAST_RETRY * (1 + JITTER)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["add", "later", "take", "done", "fail"]))))
def test_no_key_is_lost_or_worked_on_twice(steps: list[tuple[str, str]]) -> None:
    time = FakeTime()
    queue: WorkQueue[str] = WorkQueue(time, lambda: 0.5)
    working: list[str] = []
    owed: set[str] = set()
    for key, step in steps:
        time.now += 0.5
        if step == "add":
            queue.add(key)
            owed.add(key)
        elif step == "later":
            queue.add_after(key, 1.0)
            owed.add(key)
        elif step == "take":
            taken = queue.take()
            if taken is not None:
                assert taken not in working
                working.append(taken)
                owed.discard(taken)
        elif key in working:
            working.remove(key)
            if step == "fail":
                queue.failed(key)
                owed.add(key)
            else:
                queue.done(key)
    for key in working:
        queue.done(key)
    time.now += 1000.0
    assert set(drain(queue)) == owed


def test_get_waits_for_a_key() -> None:
    async def scenario() -> list[str]:
        loop = asyncio.get_running_loop()
        queue: WorkQueue[str] = WorkQueue(loop.time, lambda: 0.5)
        both = asyncio.gather(queue.get(), queue.get())
        await asyncio.sleep(0)
        queue.add("a")
        queue.add_after("b", 0.01)
        return list(await asyncio.wait_for(both, 5))

    assert sorted(asyncio.run(scenario())) == ["a", "b"]
