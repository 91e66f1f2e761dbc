from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from engram.spec.names import STATUS_PATH
from engram_operator import live
from engram_operator.live import LiveReader, Poller
from engram_operator.model import JobKey
from tests.control.api_server import ApiServer, Asked, Refusal, serving
from tests.control.builders import SETTINGS
from tests.control.edge import KEY, FakeClock, api_of, background, run, until

PROXY = "/api/v1/namespaces/lab/services/digits-aggregation:http-metrics/proxy/v1/status"


def test_outside_the_cluster_the_api_server_forwards() -> None:
    async def scenario() -> None:
        async with serving() as server, api_of(server) as api:
            server.other[PROXY] = {"phase": "Running"}
            assert await LiveReader(api, SETTINGS).read(KEY) == {"phase": "Running"}
            assert [asked.path for asked in server.asked] == [PROXY]

    run(scenario())


@pytest.mark.parametrize("status", [404, 403, 500, 503])
def test_an_aggregator_that_does_not_answer_is_no_error(status: int) -> None:
    async def scenario() -> None:
        async with serving() as server, api_of(server) as api:
            server.refuse = lambda asked: Refusal(status, "ServiceUnavailable", "no endpoints available")
            assert await LiveReader(api, SETTINGS).read(KEY) is None

    run(scenario())


def test_in_the_cluster_a_name_that_is_not_known_is_no_error() -> None:
    async def scenario() -> None:
        async with serving() as server, api_of(server) as api:
            inside = replace(SETTINGS, in_cluster=True, cluster_domain="invalid")
            reader = LiveReader(api, inside)
            assert await reader.read(KEY) is None
            assert server.asked == []
            await reader.close()

    run(scenario())


def test_an_answer_that_nests_without_end_is_no_answer() -> None:
    async def scenario() -> None:
        async with serving() as server, api_of(server) as api:
            server.failures[PROXY] = lambda: web.Response(text="[" * 200_000)
            assert await LiveReader(api, SETTINGS).read(KEY) is None

    run(scenario())


class Loopback(AbstractResolver):
    """Finds every Service at the address of the fake server."""

    def __init__(self, server: ApiServer) -> None:
        host, _, port = server.url.removeprefix("http://").partition(":")
        self.found = ResolveResult(
            hostname="", host=host, port=int(port), family=socket.AF_INET, proto=0, flags=0
        )
        self.names: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        self.names.append(host)
        return [self.found]

    async def close(self) -> None:
        self.names.clear()


@asynccontextmanager
async def inside(server: ApiServer) -> AsyncIterator[tuple[LiveReader, Loopback]]:
    """A reader in the cluster."""
    resolver = Loopback(server)
    async with api_of(server) as api:
        reader = LiveReader(api, replace(SETTINGS, in_cluster=True), resolver)
        try:
            yield reader, resolver
        finally:
            await reader.close()


def test_in_the_cluster_the_jobs_service_is_dialled() -> None:
    async def scenario() -> None:
        async with serving() as server, inside(server) as (reader, resolver):
            server.other[STATUS_PATH] = {"phase": "Running"}
            assert await reader.read(KEY) == {"phase": "Running"}
            assert resolver.names == ["digits-aggregation.lab.svc.cluster.local"]

    run(scenario())


def test_a_jobs_image_does_not_choose_what_the_operator_reads() -> None:
    async def scenario() -> None:
        async with serving() as server, inside(server) as (reader, resolver):
            server.other["/secret"] = {"phase": "Running"}
            to = {"Location": "http://metadata.internal/secret"}
            server.failures[STATUS_PATH] = lambda: web.Response(status=302, headers=to)
            assert await reader.read(KEY) is None
            assert len(resolver.names) == len(server.asked) == 1

    run(scenario())


def test_in_the_cluster_an_answer_that_nests_without_end_is_no_answer() -> None:
    async def scenario() -> None:
        async with serving() as server, inside(server) as (reader, _):
            server.failures[STATUS_PATH] = lambda: web.Response(text="[" * 200_000)
            assert await reader.read(KEY) is None

    run(scenario())


class FakeReader:
    """Answers with the next of what it is given, None for no answer; then for ever with the last."""

    def __init__(self, *answers: dict[str, Any] | None) -> None:
        self.answers: Iterator[dict[str, Any] | None] = iter(answers)
        self.last: dict[str, Any] | None = None
        self.read_keys: list[JobKey] = []

    async def read(self, key: JobKey) -> dict[str, Any] | None:
        self.read_keys.append(key)
        self.last = next(self.answers, self.last)
        return self.last


def test_a_running_job_is_read_again_and_again_and_then_no_more() -> None:
    async def scenario() -> None:
        fresh: list[JobKey] = []
        clock = FakeClock()
        reader = FakeReader({"round": 1}, {"round": 2})
        poller = Poller(reader, SETTINGS, clock.clock(), fresh.append)
        assert poller.newest(KEY) is None
        async with background(poller.run()):
            poller.want(KEY, True)
            await until(lambda: fresh == [KEY], "the first reading")
            found = poller.newest(KEY)
            assert found is not None
            assert (found.status, found.read) == ({"round": 1}, clock.now())
            clock.seconds += SETTINGS.poll_seconds
            poller.want(KEY, True)
            poller.want(JobKey("lab", "other"), True)  # wakes the reader, whose time is faked
            await until(lambda: fresh.count(KEY) == 2, "the second reading")
            poller.want(KEY, False)
            assert poller.newest(KEY) is None
            clock.seconds += 100.0
            poller.want(JobKey("lab", "third"), True)
            await until(lambda: JobKey("lab", "third") in reader.read_keys, "another reading")
            assert reader.read_keys.count(KEY) == 2

    run(scenario())


def test_jobs_that_do_not_answer_are_not_read_more_often_than_those_that_do() -> None:
    async def scenario() -> None:
        clock, reader = FakeClock(), FakeReader(None)
        poller = Poller(reader, SETTINGS, clock.clock(), lambda key: None)
        for number in range(400):
            poller.want(JobKey("lab", f"job-{number}"), True)
        async with background(poller.run()):
            await until(lambda: len(reader.read_keys) == 400, "the first readings")
            clock.seconds += poller.interval - 0.1
            poller.want(KEY, True)  # wakes the reader, whose time is faked
            await until(lambda: KEY in reader.read_keys, "another reading")
            assert len(reader.read_keys) == 401
            clock.seconds += 1.0
            poller.want(JobKey("lab", "third"), True)
            await until(lambda: len(reader.read_keys) > 800, "the second readings")

    run(scenario())


def test_what_was_read_long_ago_is_not_shown() -> None:
    async def scenario() -> None:
        fresh: list[JobKey] = []
        clock = FakeClock()
        poller = Poller(FakeReader({"round": 1}), SETTINGS, clock.clock(), fresh.append)
        async with background(poller.run()):
            poller.want(KEY, True)
            await until(lambda: fresh, "the reading")
        clock.seconds += live.STALE_READINGS * SETTINGS.poll_seconds
        assert poller.newest(KEY) is not None
        clock.seconds += 0.1
        assert poller.newest(KEY) is None

    run(scenario())


def test_the_more_jobs_run_the_more_seldom_each_is_read() -> None:
    async def scenario() -> None:
        poller = Poller(FakeReader(None), SETTINGS, FakeClock().clock(), lambda key: None)
        assert poller.interval == SETTINGS.poll_seconds
        for number in range(1000):
            poller.want(JobKey("lab", f"job-{number}"), True)
        assert poller.interval == 50.0

    run(scenario())


def test_an_aggregator_that_hangs_holds_up_nobody_else() -> None:
    class Hanging(FakeReader):
        async def read(self, key: JobKey) -> dict[str, Any] | None:
            if key.name.startswith("hangs"):
                await asyncio.Event().wait()
            return await super().read(key)

    async def scenario() -> None:
        fresh: list[JobKey] = []
        poller = Poller(Hanging({"round": 1}), SETTINGS, FakeClock().clock(), fresh.append)
        async with background(poller.run()):
            for number in range(live.READERS - 1):
                poller.want(JobKey("lab", f"hangs-{number}"), True)
            poller.want(KEY, True)
            await until(lambda: fresh == [KEY], "the reading of the one that answers")

    run(scenario())


def test_an_answer_that_nobody_foresaw_is_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    class Surprised(FakeReader):
        async def read(self, key: JobKey) -> dict[str, Any] | None:
            if key.name == "strange":
                raise RecursionError("maximum recursion depth exceeded")
            return await super().read(key)

    async def scenario() -> None:
        fresh: list[JobKey] = []
        poller = Poller(Surprised({"round": 1}), SETTINGS, FakeClock().clock(), fresh.append)
        async with background(poller.run()) as task:
            for number in range(2 * live.READERS):
                poller.want(JobKey(f"lab-{number}", "strange"), True)
            poller.want(KEY, True)
            await until(lambda: task.done() or fresh == [KEY], "the reading of the one that answers")
            assert not task.done()

    run(scenario())
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "lab-0/strange: what its aggregator answers cannot be read"
    assert len(said) == 2 * live.READERS


def test_a_big_answer_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engram_operator.api.MOST_BYTES", 1000)

    async def scenario() -> None:
        async with serving() as server, api_of(server) as api:
            server.other[PROXY] = {"text": "x" * 2000}
            assert await LiveReader(api, SETTINGS).read(KEY) is None
            assert isinstance(server.asked[0], Asked)

    run(scenario())
