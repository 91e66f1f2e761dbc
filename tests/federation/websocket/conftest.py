"""A real server with a check beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from engram.federation.messages import Train
from engram.federation.outcome import Outcome
from engram.federation.tokens import authenticator
from engram.federation.websocket.server import serve
from tests.federation.websocket.raw import KEY, A, Check, Server, WithServer

MakeFederation = Callable[..., Any]


@pytest.fixture
def with_server(make_federation: MakeFederation) -> WithServer:
    """Run a server of two workers, a check beside it, then stop it; return the outcome and the observer."""

    def run(check: Check, **settings: Any) -> tuple[Outcome, Any]:
        settings = {"workers": 2, "tick_seconds": 0.01, "linger_seconds": 0.2, **settings}
        federation = make_federation(**settings)

        async def main() -> Outcome:
            server = Server(federation.aggregator())
            serving = asyncio.create_task(
                serve(
                    server.aggregator,
                    host="127.0.0.1",
                    port=0,
                    authenticate=authenticator(KEY, "uid"),
                    stop=server.stop,
                    listening=server.listening,
                )
            )
            server.serving = serving
            await server.ready()
            try:
                async with asyncio.timeout(20):
                    await check(server)
            finally:
                server.stop.set()
                outcome = await serving
            return outcome

        return asyncio.run(main()), federation.observer

    return run


@pytest.fixture
def learner(make_federation: MakeFederation) -> Any:
    return make_federation(workers=1).workers()[A]


@pytest.fixture
def train(make_federation: MakeFederation) -> Callable[..., Train]:
    weights = make_federation(workers=1).aggregator().weights

    def make(round: int = 1) -> Train:
        return Train(1, round, weights, (0, 1))

    return make
