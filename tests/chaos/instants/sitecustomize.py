"""Ends engram's processes by SIGKILL at instants that no signal from outside is quick enough to hit.

Python imports a module of this name at its start when its folder is on PYTHONPATH, so no code of engram knows
of it. An instant is armed by a file of its name in ENGRAM_CHAOS; the process that is there first takes the
file away, leaves `<instant>.<pid>` instead, and ends itself.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any


def strike(instant: str) -> None:
    """End this process if the instant is armed."""
    path = os.path.join(os.environ["ENGRAM_CHAOS"], instant)
    try:
        os.rename(path, f"{path}.{os.getpid()}")
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def put(owner: Any, name: str, function: Callable[..., Any]) -> None:
    """Let `function` be what `owner` has under `name`."""
    setattr(owner, name, function)


def mine_aggregator() -> None:
    """Before and after a checkpoint gets its name, before the manifest does, and at the end of a task."""
    from engram.federation.engine import Engine

    replace, close_task = os.replace, Engine.close_task

    def replaced(source: Any, target: Any, **options: Any) -> None:
        name = os.path.basename(target)
        checkpoint = name.startswith("checkpoint-")
        if checkpoint or name == "manifest.json":
            strike("checkpoint-before-rename" if checkpoint else "manifest-before-rename")
        replace(source, target, **options)
        if checkpoint:
            strike("checkpoint-after-rename")

    def closed(engine: Engine, *arguments: Any) -> None:
        close_task(engine, *arguments)
        strike("consolidate-aggregator")

    put(os, "replace", replaced)
    put(Engine, "close_task", closed)


def mine_worker() -> None:
    """Once an update is with the kernel, and when exemplars are chosen but the task's end is not answered."""
    from engram.federation.websocket.uplink import Uplink
    from engram.learning import state

    get, pack = Uplink.get, state.pack
    sending: set[int] = set()

    async def got(uplink: Uplink) -> Any:
        # The next message is asked for when the one before is sent.
        if id(uplink) in sending:
            sending.discard(id(uplink))
            strike("update-sent")
        item = await get(uplink)
        # A whole message: "ENG1", the header's length, and in msgpack a list of three that begins so.
        if bytes(getattr(item, "parts", (b"",))[0][9:16]) == b"\xa6Update":
            sending.add(id(uplink))
        return item

    def packed(*arguments: Any) -> bytes:
        blob = pack(*arguments)
        strike("consolidate-worker")
        return blob

    put(Uplink, "get", got)
    put(state, "pack", packed)


MINES: dict[str, Callable[[], None]] = {"aggregator": mine_aggregator, "worker": mine_worker}
if sys.orig_argv[1:3] == ["-m", "engram"] and "ENGRAM_CHAOS" in os.environ:
    MINES.get(sys.orig_argv[3], lambda: None)()
