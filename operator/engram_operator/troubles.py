"""What only Events tell: why a batch Job makes no pods (quota, Pod Security), why a pod does not start.

Listed by the object's uid, only of objects in trouble, and not more often than every 30 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from engram_operator.api import Api, path_of
from engram_operator.evidence import (
    MOST_STUCK,
    SHORT_SECONDS,
    STUCK_SECONDS,
    newest_message,
    short_jobs,
    stuck_pods,
)
from engram_operator.model import JobKey, JobView, PodView

AGAIN_SECONDS = 30.0
"""How long what the Events of one object say is believed."""
MOST_EVENTS = 50
_SOON = 0.1


class Found(NamedTuple):
    """What the Events say."""

    refusals: dict[str, str]
    """Batch Job -> message of its newest FailedCreate."""
    warnings: dict[str, str]
    """Pod -> message of its newest Warning."""
    look_again: float | None
    """Seconds after which there is more to see; None: a change will wake us."""


class Troubles:
    """Events of objects in trouble."""

    def __init__(self, api: Api, clock: Callable[[], float]) -> None:
        self._api, self._clock = api, clock
        self._short: dict[JobKey, dict[str, float]] = {}
        """Uids of the batch Jobs that lack pods, and since when."""
        self._read: dict[JobKey, dict[str, tuple[float, str]]] = {}
        """When the Events of an object (by uid) were read, and the newest message."""

    def forget(self, key: JobKey) -> None:
        """Drop what is remembered of a job."""
        self._short.pop(key, None)
        self._read.pop(key, None)

    async def of(self, key: JobKey, jobs: Sequence[JobView], pods: Sequence[PodView], now: datetime) -> Found:
        """Return what the Events say of the children of `key`.

        Raises:
            ApiError: Events cannot be read.
        """
        waits: list[float] = []
        short = self._overdue_jobs(key, jobs, pods, waits)
        stuck = _overdue_pods(pods, now, waits)
        kept, uids = self._read.get(key, {}), {*(job.uid for job in short), *(pod.uid for pod in stuck)}
        self._read[key] = {uid: read for uid, read in kept.items() if uid in uids}
        refusals, warnings = await asyncio.gather(
            asyncio.gather(*(self._newest(key, job.uid, "reason=FailedCreate") for job in short)),
            asyncio.gather(*(self._newest(key, pod.uid, "type=Warning") for pod in stuck)),
        )
        if short or stuck:
            waits.append(AGAIN_SECONDS)
        else:
            self._read.pop(key, None)
        return Found(
            {job.name: message for job, message in zip(short, refusals, strict=True) if message},
            {pod.name: message for pod, message in zip(stuck, warnings, strict=True) if message},
            min(waits, default=None),
        )

    def _overdue_jobs(
        self, key: JobKey, jobs: Sequence[JobView], pods: Sequence[PodView], waits: list[float]
    ) -> list[JobView]:
        """Return the batch Jobs that have lacked pods for long; say in `waits` when others will have."""
        lacking = short_jobs(jobs, pods)
        since = self._short.get(key, {})
        time = self._clock()
        self._short[key] = {job.uid: since.get(job.uid, time) for job in lacking}
        overdue = []
        for job in lacking:
            left = self._short[key][job.uid] + SHORT_SECONDS - time
            if left <= 0:
                overdue.append(job)
            else:
                waits.append(left + _SOON)
        if not lacking:
            del self._short[key]
        return overdue

    async def _newest(self, key: JobKey, uid: str, selector: str) -> str:
        known = self._read.get(key, {}).get(uid)
        if known is not None and self._clock() - known[0] < AGAIN_SECONDS:
            return known[1]
        query = {"fieldSelector": f"involvedObject.uid={uid},{selector}", "limit": str(MOST_EVENTS)}
        found = await self._api.request("GET", path_of("Event", key.namespace), query=query)
        message = newest_message(found.get("items") or ())
        if key in self._read:
            self._read[key][uid] = (self._clock(), message)
        return message


def _overdue_pods(pods: Sequence[PodView], now: datetime, waits: list[float]) -> list[PodView]:
    """Return the first pods that have not started for long; say in `waits` when others will be."""
    overdue: list[PodView] = []
    for pod, seconds in stuck_pods(pods, now):
        if seconds < STUCK_SECONDS:
            waits.append(STUCK_SECONDS - seconds + _SOON)
        elif len(overdue) < MOST_STUCK:
            overdue.append(pod)
    return overdue
