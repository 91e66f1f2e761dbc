"""What a running aggregator says of itself: `/v1/status`, read through the job's Service.

In a pod the Service is dialled; elsewhere the API server forwards the request (`services/proxy`). Read by its
own loop with its own bound, so that an aggregator which does not answer holds up no reconcile; the more jobs
run, the more seldom each is read. There is one reading a job, never one a pod.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import aiohttp
from aiohttp.abc import AbstractResolver

from engram.spec.names import STATUS_PATH, STATUS_PORT, STATUS_PORT_NAME
from engram_operator.api import Api, path_of
from engram_operator.errors import ApiError
from engram_operator.manifests.names import aggregation_name
from engram_operator.model import JobKey, Live
from engram_operator.observing import Clock
from engram_operator.queue import WorkQueue
from engram_operator.settings import Settings

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 3.0
MOST_BYTES = 1 << 20
PER_JOB_SECONDS = 0.05
"""Each running job adds so much to the time between two readings of one."""
RETRY_SECONDS = 30.0
"""Longest time between two attempts to read an aggregator that does not answer."""
READERS = 16
"""Aggregators read at the same time."""
STALE_READINGS = 5
"""What was read is shown until so many readings in a row would have been due."""


class LiveReader:
    """Reads one aggregator once.

    Args:
        resolver: finds the address of a Service; None: as the system does.
    """

    def __init__(self, api: Api, settings: Settings, resolver: AbstractResolver | None = None) -> None:
        self._api, self._settings, self._resolver = api, settings, resolver
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close connections."""
        if self._session is not None:
            await self._session.close()

    async def read(self, key: JobKey) -> dict[str, object] | None:
        """Return the status of the aggregator of `key`; None when it does not answer with one."""
        try:
            if self._settings.in_cluster:
                return await self._dial(key)
            service = f"{aggregation_name(key.name)}:{STATUS_PORT_NAME}"
            path = path_of("Service", key.namespace, service, f"proxy{STATUS_PATH}")
            return await self._api.request("GET", path, seconds=ANSWER_SECONDS)
        except (ApiError, aiohttp.ClientError, OSError, ValueError, RecursionError):
            return None

    async def _dial(self, key: JobKey) -> dict[str, object] | None:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=self._resolver),
                timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
            )
        host = f"{aggregation_name(key.name)}.{key.namespace}.svc.{self._settings.cluster_domain}"
        url = f"http://{host}:{STATUS_PORT}{STATUS_PATH}"
        # The job's own image answers: it does not choose where the operator goes next.
        async with self._session.get(url, allow_redirects=False) as answer:
            if answer.status != 200:
                return None
            text = bytearray()
            async for chunk in answer.content.iter_any():
                text += chunk
                if len(text) > MOST_BYTES:
                    return None
        found = json.loads(text)
        return found if isinstance(found, dict) else None


class Reader(Protocol):
    """Reads one aggregator once."""

    async def read(self, key: JobKey) -> Mapping[str, Any] | None:
        """Return the status of the aggregator of `key`; None when it does not answer with one."""


class Poller:
    """Reads the aggregators that are worth reading, again and again.

    Args:
        reader: reads one aggregator.
        fresh: is told the jobs of which something new was read.
    """

    def __init__(
        self, reader: Reader, settings: Settings, clock: Clock, fresh: Callable[[JobKey], None]
    ) -> None:
        self._reader, self._settings, self._clock, self._fresh = reader, settings, clock, fresh
        self._queue: WorkQueue[JobKey] = WorkQueue(clock.monotonic, random.random, RETRY_SECONDS)
        self._polled: dict[JobKey, Live | None] = {}

    @property
    def interval(self) -> float:
        """Seconds between two readings of one aggregator."""
        return max(self._settings.poll_seconds, PER_JOB_SECONDS * len(self._polled))

    def want(self, key: JobKey, wanted: bool) -> None:
        """Read `key` from now on, or no more."""
        if wanted and key not in self._polled:
            self._polled[key] = None
            self._queue.add(key)
        elif not wanted and key in self._polled:
            del self._polled[key]
            self._queue.forget(key)

    def newest(self, key: JobKey) -> Live | None:
        """Return what was read of `key` last; None: nothing, or too long ago."""
        live = self._polled.get(key)
        if live is None:
            return None
        age = (self._clock.now() - live.read).total_seconds()
        return live if age <= max(STALE_READINGS * self.interval, 2 * ANSWER_SECONDS) else None

    async def run(self) -> None:
        """Never ends."""
        async with asyncio.TaskGroup() as group:
            for _ in range(READERS):
                group.create_task(self._read_all())

    async def _read_all(self) -> None:
        while True:
            key = await self._queue.get()
            found = await self._answer(key)
            if key not in self._polled:
                self._queue.done(key)
            elif found is None:
                # Not sooner than one that answers: many jobs that start together do not answer yet.
                self._queue.failed(key, self.interval)
            else:
                self._polled[key] = Live(found, self._clock.now())
                self._queue.done(key)
                self._queue.add_after(key, self.interval)
                self._fresh(key)

    async def _answer(self, key: JobKey) -> Mapping[str, Any] | None:
        try:
            return await self._reader.read(key)
        except Exception:
            # The edge to what a job's own image serves: no answer of one may end the reading of all others.
            logger.exception("%s: what its aggregator answers cannot be read", key)
            return None
