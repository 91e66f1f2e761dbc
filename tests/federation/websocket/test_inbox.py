from __future__ import annotations

import pytest

from engram.errors import RetryError
from engram.federation.messages import Ack, Consolidate, Down, Evaluate, Finish, Train, Wait
from engram.federation.websocket.inbox import Inbox


def train(round: int) -> Train:
    return Train(1, round, {}, ())


def taken(inbox: Inbox) -> list[Down]:
    messages = []
    while (arrived := inbox.take(0)) is not None:
        messages.append(arrived.message)
    return messages


def test_a_slow_worker_skips_rounds_that_are_over_but_never_a_tasks_end() -> None:
    inbox = Inbox()
    end = Consolidate(1, {}, ())
    orders: list[Down] = [train(1), Ack(1, 1), train(2), Evaluate(1, 2, {}, ()), train(3), end, train(4)]
    for message in orders:
        inbox.put(message)
    assert taken(inbox) == [Ack(1, 1), end, train(4)]


def test_what_waits_does_not_grow_with_the_rounds_that_a_worker_misses() -> None:
    inbox = Inbox()
    for round in range(1, 100):
        inbox.put(train(round))
    assert taken(inbox) == [train(99)]


def test_a_round_is_overtaken_by_every_order_that_follows_it_and_by_no_other() -> None:
    evaluation, end = Evaluate(1, 2, {}, ()), Consolidate(1, {}, ())
    in_time: list[Down] = [train(1), train(2), evaluation, train(3), end, Train(2, 1, {}, ())]
    inbox = Inbox()
    for place, order in enumerate(in_time):
        inbox.put(order)
        inbox.put(Ack(9, 9))
        rounds = [other for other in in_time if isinstance(other, Train)]
        late = [other for other in rounds if in_time.index(other) < place]
        assert [other for other in rounds if inbox.overtaken(other.task, other.round)] == late
    inbox.open()
    assert not inbox.overtaken(1, 1)


def test_what_an_earlier_connection_brought_is_void_but_for_the_end() -> None:
    inbox = Inbox()
    assert inbox.open() == 1
    inbox.put(train(1))
    assert inbox.open() == 2
    inbox.put(Wait())
    assert inbox.take(0) == (2, Wait())
    inbox.put(Finish("failed"))
    inbox.open()
    assert taken(inbox) == [Finish("failed")]


def test_the_end_of_the_run_comes_before_everything() -> None:
    inbox = Inbox()
    inbox.put(train(1))
    inbox.put(Finish("complete"))
    inbox.fail(RetryError("no contact"))
    assert inbox.over
    assert taken(inbox) == [Finish("complete")]


def test_what_ended_the_network_is_raised_even_when_orders_wait() -> None:
    inbox = Inbox()
    inbox.put(train(1))
    inbox.fail(RetryError("no contact"))
    with pytest.raises(RetryError, match="no contact"):
        inbox.take(0)
