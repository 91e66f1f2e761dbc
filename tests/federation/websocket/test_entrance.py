"""Handshakes that become no connection: answered, and counted without being kept."""

from __future__ import annotations

from typing import Any, cast

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from engram.federation.websocket.entrance import Entrance
from engram.federation.websocket.wire import PATH, WORKER_HEADER


class Socket:
    """What a connection answers a handshake with."""

    def respond(self, status: int, text: str) -> Response:
        return Response(int(status), "", Headers(), text.encode())


def admit(entrance: Entrance, token: str = "right", path: str = PATH, *, full: bool = False) -> int:
    """Return the status that a worker is answered with; 101: it is let in."""
    headers = Headers({WORKER_HEADER: "edge-0", "Authorization": f"Bearer {token}"})
    response = entrance.admit(cast(Any, Socket()), Request(path, headers), full=full)
    return 101 if response is None else response.status_code


def entrance() -> Entrance:
    return Entrance(lambda worker, token: (worker, token) == ("edge-0", "right"))


def test_who_shows_the_token_comes_in_while_there_is_room() -> None:
    door = entrance()
    assert admit(door) == admit(door, path=f"{PATH}?x=1") == 101
    assert admit(door, full=True) == 503
    assert admit(door, "wrong") == 401
    assert admit(door, path="/v1/metrics") == 404


def test_every_refusal_is_told_once_and_none_is_kept() -> None:
    door = entrance()
    for _ in range(1000):
        admit(door, "wrong")
    admit(door, full=True)

    assert len(door._refused) == 2  # as many as there are reasons, however many strangers there were
    assert sorted(door.refusals()) == ["too many connections"] + ["unknown worker or wrong token"] * 1000
    assert list(door.refusals()) == []
    admit(door, "wrong")
    assert list(door.refusals()) == ["unknown worker or wrong token"]


def test_a_path_that_there_is_not_is_no_refusal_of_a_worker() -> None:
    door = entrance()
    admit(door, path="/")
    assert list(door.refusals()) == []
