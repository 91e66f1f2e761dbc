"""A kubelet without containers: pods of fake nodes run at once, end when a test says so, go when deleted."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType

import aiohttp

from engram.spec.exit_codes import ExitCode
from tests.cluster.api import STRATEGIC, Api, Object, path_of
from tests.cluster.fake_nodes import FAKE
from tests.cluster.watch import lines


@dataclass(frozen=True)
class Ending:
    """How every container of a pod ends; `message` is what it leaves in its termination log."""

    exit_code: int = 0
    message: str = ""
    reason: str = ""
    """`OOMKilled`, `ContainerStatusUnknown` ...; empty: by the exit code."""


STOPPED = Ending(ExitCode.RETRY, "stopped by SIGTERM")
"""How a pod ends that is deleted while it runs: as ours do."""


def running(pod: Object, address: str = "239.255.0.1") -> Object:
    """Return the status of a pod that runs and is Ready."""
    addresses = {"podIP": address, "podIPs": [{"ip": address}], "hostIP": "192.0.2.1"}
    state = {"running": {"startedAt": _now()}}
    return {"phase": "Running", "startTime": _now(), **addresses, **_containers(pod, state, ready=True)}


def ended(pod: Object, ending: Ending) -> Object:
    """Return the status of a pod whose containers have ended."""
    reason = ending.reason or ("Error" if ending.exit_code else "Completed")
    state = {"exitCode": ending.exit_code, "reason": reason, "message": ending.message}
    state |= {"startedAt": pod["metadata"]["creationTimestamp"], "finishedAt": _now()}
    phase = "Failed" if ending.exit_code else "Succeeded"
    return {"phase": phase, **_containers(pod, {"terminated": state}, ready=False)}


def end_pod(api: Api, pod: Object, ending: Ending) -> None:
    """End a pod of a fake node."""
    meta, change = pod["metadata"], {"status": ended(pod, ending)}
    api.patch("Pod", meta["name"], change, namespace=meta["namespace"], part="status", content=STRATEGIC)


class FakeKubelet:
    """Serves all fake nodes from a thread of its own; a context manager.

    `decide` is asked about each pod that runs, whenever it changes: an Ending ends it, None lets it run on.
    """

    def __init__(self, api: Api, decide: Callable[[Object], Ending | None] = lambda pod: None) -> None:
        self._decide = decide
        self._connection = api.connection()
        # Multicast: the kernel refuses TCP to it, so nothing leaves this machine when a fake pod is dialled.
        self._addresses = (f"239.255.{n // 250 % 250}.{n % 250 + 1}" for n in itertools.count())
        self._started: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._stopping, self._abort = False, _nothing
        self._thread = threading.Thread(target=self._run, name="fake-kubelet")

    def __enter__(self) -> FakeKubelet:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join()

    def _run(self) -> None:
        """Serve until stopped."""
        self._loop.run_until_complete(self._serve())
        self._loop.run_until_complete(asyncio.sleep(0))  # aborted sockets close in the turn that follows
        self._loop.close()

    def _stop(self) -> None:
        """End the watch, which is all that takes long; not by cancelling, which leaves TLS half open."""
        self._stopping = True
        self._abort()

    async def _serve(self) -> None:
        """Follow all pods; list them anew when the watch ends, also after a restart of the API server."""
        server, headers, tls = self._connection
        connector = aiohttp.TCPConnector(ssl=tls, limit=32)
        async with (
            aiohttp.ClientSession(
                server, connector=connector, headers=headers, read_bufsize=2**21
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            while not self._stopping:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(path_of("Pod")) as answer:
                        pods = await answer.json()
                    for pod in pods["items"]:
                        self._look(pod, session, group)
                    await self._watch(pods["metadata"]["resourceVersion"], session, group)
                await asyncio.sleep(0.05)

    async def _watch(self, version: str, session: aiohttp.ClientSession, group: asyncio.TaskGroup) -> None:
        """Look at each pod that changes after `version`, until the watch ends."""
        query, patience = {"watch": "1", "resourceVersion": version}, aiohttp.ClientTimeout(total=None)
        async with session.get(path_of("Pod"), params=query, timeout=patience) as answer:
            if answer.connection is None or answer.connection.transport is None:
                return
            self._abort = answer.connection.transport.abort
            if self._stopping:
                self._abort()
            async for line in lines(answer):
                self._look(json.loads(line)["object"], session, group)

    def _look(self, pod: Object, session: aiohttp.ClientSession, group: asyncio.TaskGroup) -> None:
        """Start what a pod's state asks for; an error of the watch is no pod and is passed over."""
        if not str(pod.get("spec", {}).get("nodeName", "")).startswith(FAKE):
            return
        uid, phase = pod["metadata"]["uid"], pod["status"].get("phase")
        ending: Ending | None = None
        if pod["metadata"].get("deletionTimestamp"):
            ending = STOPPED if phase in ("Pending", "Running") else None
            group.create_task(self._change(pod, ended(pod, ending) if ending else None, session, gone=True))
        elif phase == "Pending" and uid not in self._started:
            self._started.add(uid)
            group.create_task(self._change(pod, running(pod, next(self._addresses)), session))
        elif phase == "Running" and (ending := self._decide(pod)) is not None:
            group.create_task(self._change(pod, ended(pod, ending), session))

    async def _change(
        self, pod: Object, status: Object | None, session: aiohttp.ClientSession, *, gone: bool = False
    ) -> None:
        """Write a pod's status and, when it is `gone`, delete it; until the API server has answered."""
        meta = pod["metadata"]
        path = path_of("Pod", meta["namespace"], meta["name"])
        while not self._stopping:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                if status is not None:
                    headers = {"Content-Type": STRATEGIC}
                    body = {"metadata": {"uid": meta["uid"]}, "status": status}
                    await (await session.patch(f"{path}/status", json=body, headers=headers)).read()
                if gone:
                    options = {"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}}
                    await (await session.delete(path, json=options)).read()
                return
            await asyncio.sleep(0.1)


def _containers(pod: Object, state: Object, *, ready: bool) -> Object:
    """Return containerStatuses with `state` for every container, and the conditions that go with them."""
    statuses = [
        {
            "name": item["name"],
            "image": item["image"],
            "imageID": f"fake://{item['image']}",
            "containerID": f"fake://{pod['metadata']['uid']}/{item['name']}",
            "ready": ready,
            "started": ready,
            "restartCount": 0,
            "state": state,
        }
        for item in pod["spec"]["containers"]
    ]
    value = "True" if ready else "False"
    conditions = [{"type": kind, "status": value} for kind in ("ContainersReady", "Ready")]
    return {
        "containerStatuses": statuses,
        "conditions": [{"type": "Initialized", "status": "True"}, *conditions],
    }


def _nothing() -> None:
    """There is no watch to end yet."""


def _now() -> str:
    """Return the time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
