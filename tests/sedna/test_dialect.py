"""The dialect without sockets: updates sent again, slow and replaced workers, restarts, in any order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engram.errors import ConfigurationError
from engram.federation.aggregator import Aggregator
from engram.federation.checkpoint import CheckpointStore
from engram.sedna import wire
from engram.sedna.blind import BlindLearner
from engram.sedna.client_state import Client
from engram.sedna.dialect import Close, Dialect, Effect
from tests.sedna.conftest import Events, Known, settings

SLOW, FAST = 6.0, 0.01


class Talk:
    """A dialect and what it has sent to whom."""

    def __init__(
        self, workers: int = 2, rounds: int = 3, store: CheckpointStore | None = None, **changes: Any
    ) -> None:
        self.events = Events()
        job = settings(workers, rounds, **changes)
        self.aggregator = Aggregator(job, BlindLearner("split"), store, self.events)
        self.dialect = Dialect(self.aggregator)
        self.now = 0.0
        self.heard: dict[Client, list[dict[str, Any]]] = {}
        self.closed: dict[Client, Close] = {}

    def take(self, effects: list[Effect]) -> None:
        for client, out in effects:
            if isinstance(out, Close):
                self.closed[client] = out
            elif (message := json.loads(out))["type"] == "recv_weight":
                self.heard.setdefault(client, []).append(message)

    def join(self, name: str) -> Client:
        client = Client()
        text = json.dumps({"type": "subscribe", "client_id": name})
        self.take(self.dialect.message(client, text, FAST, self.now))
        return client

    def upload(self, client: Client, value: float, seconds: float = FAST, samples: int = 10) -> None:
        data = {"num_samples": samples, "weights": [[value]]}
        text = json.dumps({"type": "update_weight", "client": client.id, "data": data, "job_name": "job"})
        self.take(self.dialect.message(client, text, seconds, self.now))

    def received(self, client: Client) -> list[tuple[int, float]]:
        return [
            (message["round_number"], message["data"]["weights"][0][0])
            for message in self.heard.get(client, [])
        ]


def test_a_slow_upload_that_is_sent_again_after_the_round_has_closed_is_no_update_of_the_next() -> None:
    """The client sends all again when sending takes more than 5 s; the original takes it for the next."""
    talk = Talk()
    first, second = talk.join("w0"), talk.join("w1")
    talk.upload(first, 1.0)
    talk.upload(second, 3.0, SLOW)
    talk.upload(second, 3.0, SLOW)
    assert talk.events.rejected_for == ["duplicate"]
    talk.upload(first, 5.0)
    talk.upload(second, 7.0)
    assert talk.received(second) == [(1, 2.0), (2, 6.0)]


def test_training_that_changes_nothing_is_no_update_sent_again() -> None:
    talk = Talk(workers=1)
    only = talk.join("w0")
    for _ in range(3):
        talk.upload(only, 1.0)
    assert talk.received(only) == [(1, 1.0), (2, 1.0), (3, 1.0)]
    assert talk.events.rejected_for == []
    assert talk.aggregator.outcome is not None


def test_a_worker_that_is_ten_times_slower_always_goes_on_from_the_newest_model() -> None:
    talk = Talk(rounds=4, aggregation={"quorum": 1, "roundDeadlineSeconds": 1})
    fast, slow = talk.join("w0"), talk.join("w1")
    for value in (1.0, 2.0):
        talk.upload(fast, value)
        talk.now += 2
        talk.take(talk.dialect.tick(talk.now))
    talk.upload(slow, 9.0)
    assert talk.received(slow) == [(2, 2.0)]
    talk.upload(fast, 5.0)
    talk.upload(slow, 7.0)
    assert talk.received(slow)[-1] == (3, 6.0)
    assert talk.events.rejected_for == ["late"]


def test_an_aggregator_that_restarts_gives_its_model_to_all_before_it_counts_them(tmp_path: Path) -> None:
    talk = Talk(store=CheckpointStore(tmp_path))
    first, second = talk.join("w0"), talk.join("w1")
    talk.upload(first, 1.0)
    talk.upload(second, 3.0)
    assert talk.received(first) == [(1, 2.0)]
    again = Talk(store=CheckpointStore(tmp_path))
    first, second = again.join("w0"), again.join("w1")
    again.upload(first, 100.0)
    again.upload(second, 200.0)
    assert again.received(first) == again.received(second) == [(1, 2.0)]
    again.upload(first, 4.0)
    again.upload(second, 6.0)
    assert again.received(first)[-1] == (2, 5.0)
    assert again.events.rejected_for == ["late", "late"]


def test_the_first_update_is_no_model_when_it_is_bad() -> None:
    talk = Talk()
    bad, _ = talk.join("w0"), talk.join("w1")
    talk.take(talk.dialect.message(bad, json.dumps(update(bad, [["x"]])), FAST, 0.0))
    assert talk.closed[bad].reason.startswith("shape: ")
    assert not talk.aggregator.weights


def update(client: Client, weights: Any) -> dict[str, Any]:
    return {"type": "update_weight", "client": client.id, "data": {"num_samples": 1, "weights": weights}}


def test_a_model_that_no_sedna_worker_could_receive_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "CLIENT_LIMIT", 100)
    talk = Talk(workers=1)
    only = talk.join("w0")
    with pytest.raises(ConfigurationError, match="a Sedna worker takes at most 100"):
        talk.upload(only, 1.0)


@pytest.mark.parametrize("rule", ["fedavg", "fedavgm", "fedadam", "median", "trimmed-mean", "krum"])
def test_every_rule_works_without_knowing_the_model(rule: str) -> None:
    """The original can only average."""
    talk = Talk(5, 2, aggregation={"name": rule})
    clients = [talk.join(f"w{index}") for index in range(5)]
    for _ in range(2):
        for client in clients:
            talk.upload(client, 2.0 if client.id != "w4" else 1000.0)
    [first, last] = [value for _, value in talk.received(clients[0])]
    assert talk.aggregator.outcome is not None
    assert talk.aggregator.outcome.reason == "complete"
    if rule in ("median", "krum"):
        assert (first, last) == (2.0, 2.0)


def test_a_worker_may_hold_far_more_than_the_first_one_but_not_any_number() -> None:
    talk = Talk()
    first, second = talk.join("w0"), talk.join("w1")
    talk.upload(first, 1.0, samples=2)
    talk.upload(second, 4.0, samples=60_000)
    assert talk.received(first)[0][1] == pytest.approx((2 * 1 + 60_000 * 4) / 60_002, rel=1e-6)
    talk.upload(second, 4.0, samples=60_001)
    assert talk.closed[second].reason == "norm: 60001 samples, but the worker said it holds 60000"


def test_beyond_a_hundred_clients_newcomers_are_no_news() -> None:
    talk = Talk(103)
    sent = []
    for number in range(103):
        text = json.dumps({"type": "subscribe", "client_id": f"w{number}"})
        sent.append(len(talk.dialect.message(Client(), text, FAST, 0.0)))
    assert sent == [1 + 2 * number for number in range(100)] + [1, 1, 1]


def test_a_failed_run_is_said_to_all() -> None:
    talk = Talk(aggregation={"deadlinePolicy": "Fail", "roundDeadlineSeconds": 1})
    first = talk.join("w0")
    talk.now = 2.0
    talk.take(talk.dialect.tick(talk.now))
    assert "1 of 2 workers at the deadline" in talk.closed[first].reason


def test_a_client_keeps_its_place_and_a_newcomer_takes_one_that_is_empty() -> None:
    talk = Talk()
    first = talk.join("w0")
    assert talk.join("trainworker-edge-1").worker == "trainworker-edge-1"
    assert first.worker == "trainworker-edge-0"
    talk.dialect.gone(first, 0.0)
    assert talk.join("w0").worker == "trainworker-edge-0"
    assert talk.join("w5").worker == ""
    talk.dialect.gone(talk.dialect._clients["trainworker-edge-1"], 0.0)
    assert talk.join("w5").worker == "trainworker-edge-1"


def test_integers_are_floats_and_a_known_models_types_are_kept() -> None:
    events = Events()
    aggregator = Aggregator(settings(1, 1), Known("split"), None, events)
    dialect = Dialect(aggregator)
    client = Client()
    dialect.message(client, '{"type": "subscribe", "client_id": "w0"}', FAST, 0.0)
    text = json.dumps(update(client, [[[1, 2, 3], [4, 5, 6]], [0.25, 2]]))
    effects = dialect.message(client, text, FAST, 0.0)
    [answer] = [json.loads(out) for _, out in effects if isinstance(out, str)]
    assert answer["data"]["weights"] == [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [0.25, 2.0]]
    assert '"weights":[[[1.0,2.0,' in str(effects[0].out)
    assert aggregator.weights["w"].dtype == "float32"


class Conversations(RuleBasedStateMachine):
    """Clients that behave as Sedna's do, in any order: one that trained from round r sends r as its weights.

    So the model that a round r closes with is r - 1 exactly when nothing stale was counted.
    """

    ROUNDS = 6
    NAMES = ("w0", "w1", "w2")

    @initialize()
    def start(self) -> None:
        self.talk = Talk(3, self.ROUNDS, aggregation={"quorum": 2, "roundDeadlineSeconds": 5})
        self.clients: dict[str, Client] = {}
        self.read: dict[Client, int] = {}
        self.waits: set[Client] = set()

    @rule(name=st.sampled_from(NAMES))
    def subscribe(self, name: str) -> None:
        if name not in self.clients:
            client = self.talk.join(name)
            assert client not in self.talk.closed
            self.clients[name], self.read[client] = client, 0

    @rule(name=st.sampled_from(NAMES))
    def die(self, name: str) -> None:
        client = self.clients.pop(name, None)
        if client is not None:
            self.talk.take(self.talk.dialect.gone(client, self.talk.now))

    @rule(name=st.sampled_from(NAMES), again=st.integers(0, 2))
    def train(self, name: str, again: int) -> None:
        """Upload, perhaps more than once, and then read."""
        client = self.clients.get(name)
        if client is None or client in self.waits:
            return
        if self.read[client] < len(self.talk.heard.get(client, [])):
            return
        based_on = self.talk.received(client)[-1][0] if self.talk.received(client) else 0
        self.waits.add(client)
        for _ in range(1 + again):
            self.talk.upload(client, float(based_on), SLOW)

    @rule(name=st.sampled_from(NAMES))
    def receive(self, name: str) -> None:
        client = self.clients.get(name)
        if client in self.waits and self.read[client] < len(self.talk.heard.get(client, [])):
            self.read[client] += 1
            self.waits.discard(client)

    @rule(seconds=st.integers(0, 7))
    def pass_time(self, seconds: int) -> None:
        self.talk.now += seconds
        self.talk.take(self.talk.dialect.tick(self.talk.now))

    @precondition(lambda self: hasattr(self, "talk"))
    @invariant()
    def nothing_stale_was_counted(self) -> None:
        for messages in self.talk.heard.values():
            for message in messages:
                assert message["data"]["weights"] == [[float(message["round_number"] - 1)]]

    @precondition(lambda self: hasattr(self, "talk"))
    @invariant()
    def no_honest_client_is_closed(self) -> None:
        assert not self.talk.closed
        assert set(self.talk.events.rejected_for) <= {"late", "duplicate"}


TestConversations = Conversations.TestCase
TestConversations.settings = hypothesis_settings(max_examples=60, stateful_step_count=50, deadline=None)
