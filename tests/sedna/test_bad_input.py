"""What KubeEdge's aggregator lets happen with bad input, and what happens here: each test names both.

Whatever one client does, the other two finish their round, and the sender reads why it was turned away.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from engram.sedna import wire
from engram.sedna.blind import BlindLearner
from engram.spec.tokens import worker_token
from tests.sedna.conftest import KEY, Clock, Connect, Known, Running, settings

GOOD = [[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]], [0.0, 3.0]]
OTHER = [[[4.0, 4.0, 4.0], [4.0, 4.0, 4.0]], [6.0, 0.0]]
MEAN = [[[2.5, 2.5, 2.5], [2.5, 2.5, 2.5]], [3.0, 1.5]]
FIRST, SECOND = "trainworker-edge-0", "trainworker-edge-1"
BAD_MESSAGE, NO_SUBSCRIBE, REFUSED, TOO_LARGE = 1002, 4000, 4003, 1009


class Trio:
    """Three workers with a quorum of two: two good ones, and one for the test."""

    def __init__(self, running: Running, client: Connect) -> None:
        self.running = running
        self.first, self.second, self.bad = (client(running, f"w{i}").subscribe() for i in range(3))

    def others_finish(self, clock: Clock) -> None:
        """Let the two good workers close round 1 without the third and see that nothing bad is in it."""
        self.first.upload(GOOD)
        self.second.upload(OTHER)
        self.running.until_in(FIRST, SECOND)
        clock.skip(1000)
        assert self.first.weights()["data"]["weights"] == MEAN
        assert self.second.weights()["data"] == {
            "total_sample": 200,
            "round_number": 1,
            "weights": MEAN,
            "exit_flag": "continue",
        }


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=[BlindLearner, Known], ids=["unknown-model", "known-model"])
def trio(request: pytest.FixtureRequest, client: Connect, clock: Clock) -> Iterator[Trio]:
    rule = {"quorum": 2, "roundDeadlineSeconds": 900}
    with Running(settings(3, aggregation=rule), request.param("split"), clock=clock) as running:
        yield Trio(running, client)


def test_a_client_cannot_spoof_the_global_model(trio: Trio, clock: Clock) -> None:
    """The original sends a client's recv_weight to all, who take it for the global model."""
    forged = {"type": "recv_weight", "data": {"weights": [[9.0]], "exit_flag": "ok", "round_number": 9}}
    trio.bad.say({**forged, "client": "w2"})
    trio.running.events.wait_for(lambda: trio.running.events.rejected_for == ["protocol"])
    trio.others_finish(clock)
    # It is ignored, no more: the worker's own update of the round is still taken, though late.
    trio.bad.upload(GOOD)
    assert trio.bad.weights()["data"]["weights"] == MEAN


def test_a_client_cannot_speak_for_another(trio: Trio, clock: Clock) -> None:
    """The original never looks at `client`."""
    trio.bad.upload(GOOD, client="w0")
    assert trio.bad.closing() == (REFUSED, "unauthorised: w2 speaks for w0")
    assert trio.running.events.rejected_for == ["unauthorised"]
    trio.others_finish(clock)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_weights_that_are_not_finite_are_rejected(trio: Trio, clock: Clock, value: str) -> None:
    """The original averages NaN and Infinity in, and every worker goes on from there."""
    text = json.dumps(trio.bad.update(GOOD)).replace("3.0", value)
    trio.bad.say(text)
    code, reason = trio.bad.closing()
    assert code == wire.CLOSE_BAD_UPDATE
    assert reason.startswith("non-finite: ")
    assert trio.running.events.rejected_for == ["non-finite"]
    trio.others_finish(clock)


@pytest.mark.parametrize("samples", [0, -100, 1.5, "many", None, True])
def test_a_number_of_samples_below_one_is_rejected(trio: Trio, clock: Clock, samples: Any) -> None:
    """The original weighs with whatever it is: 0 and negative numbers are averaged in."""
    trio.bad.upload(GOOD, samples)
    code, reason = trio.bad.closing()
    assert (code, reason.split(":")[0]) == (wire.CLOSE_BAD_UPDATE, "norm")
    assert "num_samples is" in reason
    assert trio.running.events.rejected_for == ["norm"]
    trio.others_finish(clock)


BROADCASTABLE = [[[1.0], [1.0]], [[0.0, 3.0]]]
WRONG: dict[str, Any] = {
    "broadcastable": BROADCASTABLE,
    "one array less": GOOD[:1],
    "one array more": [*GOOD, [1.0]],
    "another shape": [GOOD[0], [1.0, 2.0, 3.0]],
    "ragged": [[[1.0, 1.0, 1.0], [1.0]], [0.0, 3.0]],
    "texts": [[["1", "1", "1"], ["1", "1", "1"]], [0.0, 3.0]],
    "nothing": [],
    "no list": {"w": 1},
}


@pytest.mark.parametrize("weights", WRONG.values(), ids=WRONG.keys())
def test_weights_of_another_shape_are_rejected(trio: Trio, clock: Clock, weights: Any) -> None:
    """The original broadcasts what numpy can broadcast, so that the model changes silently; any other wrong
    shape ends the connection of the worker whose update came last, which may be a good one.
    """
    trio.first.upload(GOOD)  # where the model is not known, the first update says what it is
    trio.running.until_in(FIRST)
    trio.bad.upload(weights)
    code, reason = trio.bad.closing()
    assert (code, reason.split(":")[0]) == (wire.CLOSE_BAD_UPDATE, "shape")
    assert trio.running.events.rejected_for == ["shape"]
    trio.second.upload(OTHER)
    trio.running.until_in(FIRST, SECOND)
    clock.skip(1000)
    assert trio.first.weights()["data"]["weights"] == MEAN


def test_a_second_client_of_the_same_name_is_refused(trio: Trio, client: Connect, clock: Clock) -> None:
    """The original drops the first one, or both."""
    twin = client(trio.running, "w0")
    twin.say({"type": "subscribe", "client_id": "w0"})
    code, reason = twin.closing()
    assert code == REFUSED
    assert "w0 is connected already: give each worker its own WORKER_NAME" in reason
    assert trio.running.events.rejected_for == ["unauthorised"]
    trio.others_finish(clock)


def test_a_worker_that_proves_who_it_is_replaces_its_older_connection(client: Connect) -> None:
    name = "trainworker-edge-0"
    token = worker_token(KEY, "uid", name)
    proof = {"Authorization": f"Bearer {token}", "Engram-Worker": name}
    with Running(settings(1), BlindLearner("split")) as running:
        old = client(running, name).subscribe()
        new = client(running, name, **proof).subscribe()
        assert old.closing() == (4001, "replaced")
        new.upload(GOOD)
        assert new.weights()["round_number"] == 1


@pytest.mark.parametrize("shown", ["Basic x", "Bearer", "", "Bearer wrong"])
def test_who_shows_no_token_of_ours_proves_nothing(client: Connect, shown: str) -> None:
    """The original has no tokens: whoever knows a name speaks for it."""
    name = "trainworker-edge-0"
    with Running(settings(1), BlindLearner("split")) as running:
        held = client(running, name).subscribe()
        with pytest.raises(InvalidStatus, match="401"):
            client(running, name, **{"Authorization": shown, "Engram-Worker": name})
        held.upload(GOOD)
        assert held.weights()["round_number"] == 1
        assert running.events.rejected_for == ["unauthorised"]


def test_the_same_update_sent_twice_counts_once(trio: Trio, clock: Clock) -> None:
    """The original overwrites the first with the second, which need not be the same."""
    trio.bad.upload(GOOD)
    trio.bad.upload([[[9.0] * 3, [9.0] * 3], [9.0, 9.0]])
    trio.running.events.wait_for(lambda: trio.running.events.rejected_for == ["duplicate"])
    trio.first.upload(GOOD)
    trio.second.upload(OTHER)
    assert trio.bad.weights()["data"]["total_sample"] == 300
    assert trio.first.weights()["data"]["weights"][1] == [2.0, 2.0]
    assert trio.running.events.rejected_for == ["duplicate"]


def test_an_update_that_comes_late_is_refused_and_its_worker_gets_the_model(trio: Trio, clock: Clock) -> None:
    """The original counts it for the next round."""
    trio.others_finish(clock)
    trio.bad.upload([[[9.0] * 3, [9.0] * 3], [9.0, 9.0]])
    message = trio.bad.weights()
    assert (message["round_number"], message["data"]["weights"]) == (1, MEAN)
    assert trio.running.events.rejected_for == ["late"]
    for each in (trio.first, trio.second, trio.bad):
        each.upload(GOOD)
    assert trio.bad.weights()["data"]["exit_flag"] == "ok"
    assert trio.running.events.rejected_for == ["late"]


def test_a_killed_worker_does_not_stop_the_others(trio: Trio, clock: Clock) -> None:
    """The original waits for ever for participants_count updates."""
    trio.bad.vanish()
    trio.others_finish(clock)
    trio.first.upload(GOOD)
    trio.second.upload(OTHER)
    trio.running.until_in(FIRST, SECOND)
    clock.skip(1000)
    assert trio.first.weights()["data"]["exit_flag"] == "ok"
    trio.first.vanish()
    trio.second.vanish()
    outcome = trio.running.result()
    assert outcome.reason == "complete"
    assert [row.degraded for row in outcome.history.rounds] == [True, True]


def test_a_replaced_worker_gets_the_model_before_its_update_counts(
    trio: Trio, client: Connect, clock: Clock
) -> None:
    """The original averages in what a newcomer trained from nothing."""
    trio.bad.vanish()
    trio.others_finish(clock)
    again = client(trio.running, "w2").subscribe()
    again.upload([[[9.0] * 3, [9.0] * 3], [9.0, 9.0]])
    assert again.weights()["data"]["weights"] == MEAN
    for each in (trio.first, trio.second, again):
        each.upload(OTHER)
    assert again.weights()["data"]["weights"] == OTHER


GARBAGE: dict[str, Any] = {
    "no JSON": "garbage",
    "empty": "",
    "cut short": '{"type": "update_weight", ',
    "a list": [1, 2],
    "a number": "17",
    "null": "null",
    "unknown type": {"type": "message", "client": "w2", "data": 1},
    "no type": {"client_id": "w2"},
    "a type that is no text": {"type": ["subscribe"]},
    "no data": {"type": "update_weight", "client": "w2"},
    "data that is a list": {"type": "update_weight", "client": "w2", "data": [1]},
    "nested without end": "[" * 30_000,
    "a number without end": "1" * 30_000,
    "no UTF-8": b"\xff\xfe",
    "another name": {"type": "subscribe", "client_id": "w9"},
}


@pytest.mark.parametrize("message", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_ends_one_connection(trio: Trio, clock: Clock, message: Any) -> None:
    """The original raises inside its server and drops the connection without a reason; a list kills the
    handler before it can tell who has left.
    """
    trio.bad.say(message)
    code, reason = trio.bad.closing()
    assert (code, reason.split(":")[0]) == (BAD_MESSAGE, "protocol")
    assert trio.running.events.rejected_for == ["protocol"]
    trio.others_finish(clock)


def test_an_update_without_subscribing_ends_one_connection(trio: Trio, client: Connect, clock: Clock) -> None:
    """The original raises RuntimeError in its handler."""
    stranger = client(trio.running, "w7")
    stranger.upload(GOOD)
    assert stranger.closing() == (BAD_MESSAGE, "protocol: no subscribe before the first message")
    assert trio.running.events.rejected_for == ["protocol"]
    trio.others_finish(clock)


def test_a_client_that_never_subscribes_is_disconnected(client: Connect) -> None:
    """The original keeps it for ever."""
    with Running(settings(1, hello_seconds=0.2), BlindLearner("split")) as running:
        silent = client(running, "w0")
        assert silent.closing() == (NO_SUBSCRIBE, "no subscribe in time")
        assert running.events.rejected_for == ["protocol"]


def test_more_clients_than_workers_are_refused(trio: Trio, client: Connect, clock: Clock) -> None:
    """The original takes any number, and closes a round with the updates of whoever is first."""
    fourth = client(trio.running, "w3")
    fourth.say({"type": "subscribe", "client_id": "w3"})
    assert fourth.closing() == (REFUSED, "unauthorised: all 3 workers of this job are there")
    assert trio.running.events.rejected_for == ["unauthorised"]
    trio.others_finish(clock)


def test_a_message_is_measured_before_it_is_read(client: Connect) -> None:
    """The original parses up to 16 MiB whatever the model."""
    with Running(settings(1), Known("split")) as running:
        worker = client(running, "w0").subscribe()
        worker.say('{"type": "update_weight", "data": "' + " " * 2 * wire.BESIDE_BYTES + '"}')
        assert worker.closing()[0] == TOO_LARGE
        running.events.wait_for(lambda: running.events.rejected_for == ["too-large"])


def test_a_worker_that_answers_no_ping_stays(client: Connect, clock: Clock) -> None:
    """As in the original; it may train for hours."""
    with Running(settings(1), BlindLearner("split"), clock=clock) as running:
        worker = client(running, "w0").subscribe()
        clock.skip(36_000)
        running.events.wait_for(lambda: running.events.states == {"trainworker-edge-0": "training"})
        worker.upload(GOOD)
        assert worker.weights()["round_number"] == 1
        assert "disconnected" not in running.events.states.values()
