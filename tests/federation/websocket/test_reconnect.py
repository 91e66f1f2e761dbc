"""How soon a worker is back when the network is."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.federation.tokens import authenticator
from engram.federation.websocket.backoff import Backoff
from engram.federation.websocket.server import serve
from tests.federation.websocket.raw import KEY, A, work_at
from tests.federation.websocket.test_faulty_network import Proxy

MakeFederation = Callable[..., Any]


def first_attempt_after(cut: float, seed: str) -> float:
    """Return when a worker tries again after a cut of so many seconds, if attempts take no time."""
    backoff, now = Backoff(seed), 0.0
    while now < cut:
        now += backoff.next(now)
    return now - cut


@given(cut=st.floats(0, 60), seed=st.text(max_size=5))
def test_within_two_seconds_after_a_cut_of_up_to_a_minute(cut: float, seed: str) -> None:
    assert 0 <= first_attempt_after(cut, seed) <= 1.5


@given(cut=st.floats(60, 3600), seed=st.text(max_size=5))
def test_within_half_a_minute_after_a_cut_of_up_to_an_hour(cut: float, seed: str) -> None:
    assert 0 <= first_attempt_after(cut, seed) <= 30


class Cut:
    """A worker whose network is cut in the middle of its first round, and is back while it still trains."""

    def __init__(self, federation: Any, seconds: float) -> None:
        self.federation, self.seconds = federation, seconds
        self.back_after = 0.0
        """Seconds from the end of the cut to the worker's new connection."""
        self._training, self._go_on = threading.Event(), threading.Event()

    def run(self) -> Any:
        return asyncio.run(self._run())

    async def _run(self) -> Any:
        loop = asyncio.get_running_loop()
        listening: asyncio.Future[int] = loop.create_future()
        serving = asyncio.create_task(
            serve(
                self.federation.aggregator(),
                host="127.0.0.1",
                port=0,
                authenticate=authenticator(KEY, "uid"),
                stop=asyncio.Event(),
                listening=listening.set_result,
            )
        )
        upstream = await listening
        proxy = back = Proxy(upstream, [])
        await proxy.start()
        working = asyncio.create_task(asyncio.to_thread(self._work, proxy.port))
        try:
            await asyncio.to_thread(self._training.wait, 20)
            await proxy.stop()
            await asyncio.sleep(self.seconds)
            back = Proxy(upstream, [], proxy.port)
            await back.start()
            start = loop.time()
            async with asyncio.timeout(20):
                await back.connected.wait()
            self.back_after = loop.time() - start
            self._go_on.set()
            async with asyncio.timeout(20):
                await working
                return await serving
        finally:
            self._go_on.set()
            await proxy.stop()
            await back.stop()

    def _work(self, port: int) -> None:
        learner = self.federation.workers()[A]

        def on_train(order: Any) -> None:
            self._training.set()
            assert self._go_on.wait(self.seconds + 60)

        learner.on_train = on_train
        work_at(port, A, learner, orphan_seconds=600)


def test_an_update_that_was_made_during_a_cut_counts_without_training_again(
    make_federation: MakeFederation,
) -> None:
    cut = Cut(make_federation(workers=1, rounds=(2,), tick_seconds=0.05), seconds=1.0)
    outcome = cut.run()
    assert outcome.reason == "complete"
    assert outcome.history.faults.reconnects == {A: 1}
    assert cut.back_after < 10  # the next test has the real limit, for a machine with nothing else to do


@pytest.mark.slow
def test_after_a_minute_it_is_back_within_two_seconds(make_federation: MakeFederation) -> None:
    cut = Cut(make_federation(workers=1, rounds=(2,)), seconds=60.0)
    outcome = cut.run()
    assert outcome.history.faults.reconnects == {A: 1}
    assert cut.back_after < 2


def swallowed(seconds: float, *how: str) -> Any:
    """Run the worker of `swallowed.py`, whose packets are lost for so long; return what it prints."""
    command = ["unshare", "-n", sys.executable, "-m", "tests.federation.websocket.swallowed"]
    ran = subprocess.run(
        [*command, str(seconds), *how], check=True, stdout=subprocess.PIPE, timeout=seconds + 150
    )
    return json.loads(ran.stdout)


def can_swallow() -> bool:
    """Return whether this user may lose packets in a network namespace of its own."""
    if not all(map(shutil.which, ("unshare", "iptables", "ip"))):
        return False
    return (
        subprocess.run(["unshare", "-n", "iptables", "-S"], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.process
@pytest.mark.skipif(not can_swallow(), reason="needs a network namespace and iptables (root)")
def test_packets_that_are_swallowed_without_a_word_are_noticed_when_the_network_is_back() -> None:
    told = swallowed(8.0)
    assert told["reconnects"] == 1
    assert told["back"] < 10  # TCP alone would have taken about as long as the cut


@pytest.mark.process
@pytest.mark.skipif(not can_swallow(), reason="needs a network namespace and iptables (root)")
def test_after_a_cut_an_aggregator_that_acknowledges_and_says_nothing_is_noticed() -> None:
    told = swallowed(8.0, "late")
    assert told["reconnects"] == 1
    assert told["back"] < 10  # what it has sent would come about a cut's length later


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not can_swallow(), reason="needs a network namespace and iptables (root)")
@pytest.mark.parametrize("seconds", [20.0, 20.5, 21.0, 58.0])  # wherever between two looks it ends
def test_after_such_a_cut_it_is_back_within_two_seconds(seconds: float) -> None:
    told = swallowed(seconds)
    assert told["reconnects"] == 1
    assert told["back"] < 2
