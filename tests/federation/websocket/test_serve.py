"""What `serve` ends with when its port cannot be had, or code of the user's own has a bug."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from engram.errors import ConfigurationError, PortTakenError
from engram.federation.messages import Down, Finish, Train, Wait
from engram.federation.outcome import Outcome
from engram.federation.websocket.server import serve
from tests.federation.websocket.raw import A, B, Server, WithServer, update_of

MakeFederation = Callable[..., Any]


async def serve_once(aggregator: Any, host: str, port: int) -> Outcome:
    return await serve(
        aggregator,
        host=host,
        port=port,
        authenticate=lambda worker, token: False,
        stop=asyncio.Event(),
        listening=lambda port: None,
    )


def test_a_taken_port_is_an_error_of_its_own_that_names_it(make_federation: MakeFederation) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTakenError, match=f"port {port} of 127.0.0.1 is taken: end what listens"):
            asyncio.run(serve_once(make_federation().aggregator(), "127.0.0.1", port))


def test_a_host_that_is_not_ours_is_a_configuration_error(make_federation: MakeFederation) -> None:
    with pytest.raises(ConfigurationError, match="cannot be listened on"):
        asyncio.run(serve_once(make_federation().aggregator(), "192.0.2.1", 0))


def test_a_bug_in_a_learner_is_raised_after_workers_are_told(
    with_server: WithServer,
) -> None:
    heard: list[Down] = []

    async def check(server: Server) -> None:
        def broken(task: int, weights: Any) -> Any:
            raise ZeroDivisionError("a bug")

        server.aggregator._engine._learner.evaluate = broken
        async with server.peer(A) as one, server.peer(B) as two:
            for peer in (one, two):
                train: Down = Wait()
                while not isinstance(train, Train):
                    train = await peer.hear()
                await peer.say(update_of(train))
            while not heard or not isinstance(heard[-1], Finish):
                heard.append(await one.hear())

    with pytest.raises(ZeroDivisionError, match="a bug"):
        with_server(check, rounds=(1, 1), evaluation={"every": "round"})
    assert heard[-1] == Finish("failed", "ZeroDivisionError: a bug")
