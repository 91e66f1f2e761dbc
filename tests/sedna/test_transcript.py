"""The wire as KubeEdge Sedna's library has it: 2 workers, 2 rounds, message for message."""

from __future__ import annotations

import http.client
import json
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

from engram.sedna.blind import BlindLearner
from tests.sedna.conftest import Connect, Known, Running, SednaClient, settings

ONES = [[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]], [0.0, 3.0]]
FOURS = [[[4.0, 4.0, 4.0], [4.0, 4.0, 4.0]], [6.0, 0.0]]
MEAN = [[[3.0, 3.0, 3.0], [3.0, 3.0, 3.0]], [4.0, 1.0]]
"""Of 100 samples of ONES and 200 of FOURS."""


def expected(round: int, flag: str, weights: Any, client: str = "w1") -> dict[str, Any]:
    return {
        "type": "recv_weight",
        "client": client,
        "data": {"total_sample": 300, "round_number": round, "weights": weights, "exit_flag": flag},
        "job_name": "job",
        "round_number": round,
    }


@pytest.mark.parametrize("learner", [BlindLearner("split"), Known("split")], ids=["unknown", "known"])
def test_two_workers_and_two_rounds(client: Connect, learner: BlindLearner) -> None:
    with Running(settings(), learner) as running:
        first = client(running, "w0").subscribe()
        second = client(running, "w1").subscribe()
        assert first.hear() == {"type": "CLIENT_JOIN", "data": "w1"}
        assert first.hear() == {"type": "subscribe", "client_id": "w1"}
        first.upload(ONES, 100)
        running.until_in("trainworker-edge-0")
        second.upload(FOURS, 200)
        assert first.hear() == second.hear() == expected(1, "continue", MEAN)
        second.upload(FOURS, 200)
        running.until_in("trainworker-edge-1")
        first.upload(ONES, 100)
        assert first.hear() == second.hear() == expected(2, "ok", MEAN, "w0")
        first.vanish()
        second.vanish()
        outcome = running.result()
    assert outcome.reason == "complete"
    assert outcome.message == ""
    assert [row.round for row in outcome.history.rounds] == [1, 2]
    assert [part.samples for part in outcome.history.rounds[0].workers.values()] == [100, 200]
    assert running.events.rejected_for == []
    assert np.array_equal(next(iter(outcome.weights.values())), np.array(MEAN[0]))


def test_what_engram_knows_it_evaluates_and_what_it_does_not_know_it_does_not(client: Connect) -> None:
    totals = []
    for learner in (Known("split"), BlindLearner("split")):
        with Running(settings(workers=1, rounds=1), learner) as running:
            worker = client(running, "w0").subscribe()
            worker.upload(ONES)
            worker.weights()
            worker.vanish()
            [row] = running.result().history.tasks
            totals.append(row.counts.total)
    assert totals == [{0: 5, 1: 5}, {}]


def test_deflate_is_accepted(client: Connect) -> None:
    with Running(settings(), BlindLearner("split")) as running:
        worker = client(running, "w0").subscribe()
        assert worker.socket.response is not None
        assert "permessage-deflate" in worker.socket.response.headers["Sec-WebSocket-Extensions"]


def get(running: Running, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    connection.request("GET", path)
    response = connection.getresponse()
    status, body = response.status, json.loads(response.read())
    connection.close()
    return status, body


def test_who_is_there_can_be_asked_and_other_paths_are_forbidden(client: Connect) -> None:
    with Running(settings(), BlindLearner("split")) as running:
        assert get(running, "/FedAvg") == (200, {"clients": []})
        client(running, "w1").subscribe()
        client(running, "w0").subscribe()
        assert get(running, "/FedAvg") == (200, {"clients": ["w1", "w0"]})
        assert get(running, "/other")[0] == 403
        with pytest.raises(InvalidStatus) as refused:
            SednaClient(running.port, "w2", path="/other")
        assert refused.value.response.status_code == 403


@pytest.mark.parametrize("path", ["/TrimmedMean", "/trimmed-mean", "/FedAvg"])
def test_the_path_is_the_aggregation_or_sednas_default(client: Connect, path: str) -> None:
    rule = {"name": "trimmed-mean", "parameters": {"trim": 0.1}}
    with Running(settings(aggregation=rule), BlindLearner("split")) as running:
        client(running, "w0", path=path).subscribe()
        with pytest.raises(InvalidStatus):
            SednaClient(running.port, "w1", path="/Median")


def test_updates_before_all_have_subscribed_count(client: Connect) -> None:
    with Running(settings(rounds=1), BlindLearner("split")) as running:
        first = client(running, "w0").subscribe()
        first.upload(ONES, 100)
        second = client(running, "w1").subscribe()
        running.until_in("trainworker-edge-0")
        second.upload(FOURS, 200)
        assert first.weights() == second.weights() == expected(1, "ok", MEAN)
        first.vanish()
        second.vanish()
        assert running.result().reason == "complete"
