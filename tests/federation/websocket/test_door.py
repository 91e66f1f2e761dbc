"""Strangers that only open connections: they take no worker's place, and no file that is needed."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engram.errors import ConfigurationError, PortTakenError
from engram.federation.tokens import authenticator
from engram.federation.websocket import door as door_module
from engram.federation.websocket.door import FEWEST_PLACES, FILES, Door, cannot_listen, open_door
from engram.federation.websocket.server import serve
from engram.federation.websocket.tls import TlsClient, server_context
from engram.federation.websocket.wire import SPARE_CONNECTIONS
from tests.federation.certificates import NAME, Authority
from tests.federation.websocket.raw import KEY, A, B, work_at

MakeFederation = Callable[..., Any]
STRANGERS = 200


@pytest.fixture
def callers() -> Iterator[Callable[[int, int], list[socket.socket]]]:
    """Open so many connections to a port of this machine, which say nothing."""
    opened: list[socket.socket] = []

    def call(port: int, count: int) -> list[socket.socket]:
        new = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(count)]
        opened.extend(new)
        return new

    yield call
    for caller in opened:
        caller.close()


Call = Callable[[int, int], list[socket.socket]]


def test_who_has_stood_there_longest_makes_way(callers: Call) -> None:
    with Door(socket.AF_INET, 3) as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        first, *_ = callers(door.getsockname()[1], 5)
        inside = [door.accept()[0] for _ in range(3)]
        with pytest.raises(BlockingIOError):
            door.accept()
        assert first.recv(1) == b"", "it was shown out"
        with pytest.raises(BlockingIOError):
            door.accept()  # it has not gone yet
        inside.pop(0).close()
        inside.append(door.accept()[0])
        with pytest.raises(BlockingIOError):
            door.accept()
        for one in inside:
            one.close()


@pytest.fixture
def files() -> Iterator[None]:
    """Give the limits of this process back."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_process_with_few_files_keeps_those_that_it_needs(
    files: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    monkeypatch.setattr(door_module, "MOST_FILES", 600)
    with open_door("127.0.0.1", 0, 100) as door:
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 600, "as many as are of use"
        assert door._places == 100
    granted: dict[str, tuple[int, int]] = {"now": (512, 512)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: granted["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: granted.update(now=limits))
    with open_door("127.0.0.1", 0, 300) as door:
        assert door._places == 512 - 300 - FILES
    assert "512 files may be open, 728 would be better" in caplog.text
    with open_door("127.0.0.1", 0, 1000) as door:
        assert door._places == FEWEST_PLACES


def test_a_place_that_cannot_be_had_is_said() -> None:
    with open_door("127.0.0.1", 0, 1) as door:
        door.listen()
        port = door.getsockname()[1]
        with pytest.raises(OSError, match="in use") as caught:
            open_door("127.0.0.1", port, 1)
        error = cannot_listen("127.0.0.1", port, caught.value)
        assert isinstance(error, PortTakenError)
        assert error.problem == f"port {port} of 127.0.0.1 is taken"
    with pytest.raises(OSError, match="assign requested address") as caught:
        open_door("192.0.2.1", 0, 1)
    assert type(cannot_listen("192.0.2.1", 0, caught.value)) is ConfigurationError


def test_a_small_message_does_not_wait_for_the_last_one_to_be_acknowledged(callers: Call) -> None:
    """Nagle's algorithm is off for whoever comes in by the door, as asyncio has it for its own sockets."""

    async def main() -> int:
        inside: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
        server = await asyncio.start_server(
            lambda reader, writer: inside.set_result(writer), sock=open_door("127.0.0.1", 0, 1)
        )
        async with server:
            callers(server.sockets[0].getsockname()[1], 1)
            writer = await asyncio.wait_for(inside, 20)
            found: int = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            writer.close()
            await writer.wait_closed()
        return found

    assert asyncio.run(main()) != 0


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_who_comes_while_a_server_closes_is_shown_out(
    callers: Call, tmp_path: Path, secure: bool, turns: int
) -> None:
    """Whichever turn of the event loop it comes in: Python 3.11 forgets a connection in one of them."""
    tls = server_context(*Authority(tmp_path / "pki").issue()) if secure else None

    async def main() -> socket.socket:
        door = open_door("127.0.0.1", 0, 1)
        server = await asyncio.start_server(lambda reader, writer: writer.close(), sock=door, ssl=tls)
        (caller,) = callers(door.getsockname()[1], 1)
        for _ in range(turns):
            await asyncio.sleep(0)
        await door.close_with(server)
        return caller

    caller = asyncio.run(main())
    with contextlib.suppress(ConnectionResetError):  # the kernel's, for who was not accepted yet
        assert caller.recv(1) == b""


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_run_goes_on_whoever_stands_before_the_door(
    make_federation: MakeFederation, callers: Call, tmp_path: Path, secure: bool
) -> None:
    federation = make_federation(workers=2, rounds=(2,), hello_seconds=60.0, linger_seconds=1.0)
    authority = Authority(tmp_path / "pki") if secure else None
    training, go_on = threading.Event(), threading.Event()
    learners = federation.workers()

    def on_train(order: Any) -> None:
        training.set()
        assert go_on.wait(20)

    learners[A].on_train = on_train

    def work(name: str, port: int) -> str:
        return work_at(
            port, name, learners[name], tls=None if authority is None else TlsClient(authority.ca, NAME)
        )

    async def main() -> Any:
        listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(
            serve(
                federation.aggregator(),
                host="127.0.0.1",
                port=0,
                authenticate=authenticator(KEY, "uid"),
                stop=asyncio.Event(),
                listening=listening.set_result,
                tls=None if authority is None else server_context(*authority.issue()),
            )
        )
        port = await listening
        early = asyncio.create_task(asyncio.to_thread(work, A, port))
        before = await asyncio.to_thread(callers, port, STRANGERS)
        late = asyncio.create_task(asyncio.to_thread(work, B, port))
        assert await asyncio.to_thread(training.wait, 20)
        await asyncio.to_thread(callers, port, STRANGERS)
        go_on.set()
        assert [await early, await late] == ["complete", "complete"]
        for stranger in before[: STRANGERS - SPARE_CONNECTIONS]:
            assert await asyncio.to_thread(stranger.recv, 1) == b""
        return await serving

    outcome = asyncio.run(main())
    assert outcome.reason == "complete"
    assert outcome.history.faults.reconnects == {}
