"""How far all jobs of a namespace are: one watch, whatever their number."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress

import aiohttp

from engram.spec.names import KIND
from tests.cluster.api import APPLY, Api, Object, path_of
from tests.cluster.watch import lines

CONNECTIONS = 32
"""Jobs that are applied at the same time."""


class Phases:
    """The phase of every job of a namespace; an asynchronous context manager that keeps them current.

    Args:
        session: to the API server.
        namespace: whose jobs.
    """

    def __init__(self, session: aiohttp.ClientSession, namespace: str) -> None:
        self._session, self._path = session, path_of(KIND, namespace)
        self._phases: dict[str, str] = {}
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Phases:
        self._following = asyncio.create_task(self._follow())
        self._following.add_done_callback(lambda _: self._changed.set())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._following.cancel()
        with suppress(asyncio.CancelledError):
            await self._following

    def count(self) -> Counter[str]:
        """Return how many jobs are in each phase; empty for jobs of which no status has been written."""
        return Counter(self._phases.values())

    async def reach(self, wanted: Callable[[Counter[str]], bool], what: str, seconds: float) -> None:
        """Wait until the counts are as `wanted`. Raises TimeoutError, which says how things stand."""
        try:
            async with asyncio.timeout(seconds):
                while not wanted(self.count()):
                    if self._following.done():
                        self._following.result()
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            stands = ", ".join(f"{count} {phase or 'unseen'}" for phase, count in self.count().items())
            raise TimeoutError(f"waited {seconds:g} s in vain for {what}: {stands}") from None

    async def _follow(self) -> None:
        """List and watch, anew when the watch ends or the API server is not ready for it; never ends."""
        patience = aiohttp.ClientTimeout(total=None)
        while True:
            with suppress(aiohttp.ClientError):
                async with self._session.get(self._path, raise_for_status=True) as answer:
                    found = await answer.json()
                for job in found["items"]:
                    self._see(job)
                query = {"watch": "1", "resourceVersion": found["metadata"]["resourceVersion"]}
                async with self._session.get(
                    self._path, params=query, timeout=patience, raise_for_status=True
                ) as answer:
                    async for line in lines(answer):
                        event = json.loads(line)
                        if event["type"] in ("ADDED", "MODIFIED"):
                            self._see(event["object"])
            await asyncio.sleep(0.1)

    def _see(self, job: Object) -> None:
        self._phases[job["metadata"]["name"]] = (job.get("status") or {}).get("phase", "")
        self._changed.set()


@asynccontextmanager
async def connected(api: Api) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a session to the API server."""
    server, headers, tls = api.connection()
    connector = aiohttp.TCPConnector(ssl=tls, limit=CONNECTIONS)
    async with aiohttp.ClientSession(
        server, connector=connector, headers=headers, read_bufsize=2**21
    ) as session:
        yield session


async def apply_all(session: aiohttp.ClientSession, jobs: Iterable[Object]) -> None:
    """Apply jobs, as many at a time as the session has connections. Raises RuntimeError."""

    async def apply(job: Object) -> None:
        meta, query = job["metadata"], {"fieldManager": "benchmark", "fieldValidation": "Strict"}
        path = path_of(KIND, meta["namespace"], meta["name"])
        async with session.patch(path, params=query, json=job, headers={"Content-Type": APPLY}) as answer:
            if answer.status != 201:
                raise RuntimeError(f"{meta['name']} was refused: {await answer.text()}")

    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(apply(job))
