"""The loop: a key, what is seen of it, what should be, and the difference carried out.

Events only wake it; what it does depends on the job and its children alone, so it may run twice, late, or
after a crash. Besides the queue's workers three loops keep it awake: the watches of children, the reading of
running aggregators, and a resync that lists all jobs and looks at each, spread over time.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from engram.spec.names import KIND
from engram_operator import evidence
from engram_operator.api import Api, path_of
from engram_operator.cluster import Cluster
from engram_operator.errors import ApiError, OperatorError
from engram_operator.health import Pulse
from engram_operator.live import LiveReader, Poller
from engram_operator.metrics import Metrics, Result
from engram_operator.model import Credentials, JobKey, JobView, Object, Observed, Plan, PodView
from engram_operator.observing import Clock, Sight, Tables
from engram_operator.pace import Pace
from engram_operator.queue import WorkQueue
from engram_operator.settings import Settings
from engram_operator.status.conditions import timestamp
from engram_operator.tables import ChildTable, JobTable, key_of, version_of
from engram_operator.watching import Watch

logger = logging.getLogger(__name__)

SETTLE_SECONDS = 0.5
"""Changes of children that come within this time are looked at together."""
LEFTOVER_PAUSE = 1.0
"""After which leftovers of a deleted job are looked at again."""
READ_SECONDS_PER_JOB = 0.25
"""Each unfinished job adds so much to the time for which children that were read are believed."""
RESYNC_SPREAD = 0.5
"""Share of the resync time over which the looks are spread."""
PAGE = 100

Reconcile = Callable[[Object, Credentials | None, Observed, Settings, datetime], Plan]
"""The pure core: (job, credentials, observed, settings, now) -> plan."""


class Controller:
    """Everything that runs, but kopf.

    Args:
        api: the API server.
        reconcile: the pure core.
        clock: time.
    """

    def __init__(self, api: Api, reconcile: Reconcile, settings: Settings, clock: Clock) -> None:
        self._api, self._reconcile, self._settings, self._clock = api, reconcile, settings, clock
        self.pulse = Pulse(clock.monotonic)
        self.queue: WorkQueue[JobKey] = WorkQueue(clock.monotonic, random.random)
        self.table = JobTable()
        self.metrics = Metrics(self.table, self.pulse.age)
        self.tables = tables = Tables(
            ChildTable(JobView.from_object, self._child_changed),
            ChildTable(PodView.from_object, self._child_changed),
        )
        self._cluster = Cluster(api, self.table, tables, settings, clock)
        self._reader = LiveReader(api, settings)
        self._poller = Poller(self._reader, settings, clock, self.queue.add)
        self._pace = Pace(clock.monotonic)
        self._departed: dict[JobKey, Object] = {}
        """Jobs that are gone while pods of theirs are not, until that is explained or over."""
        self._watches = [
            Watch(api, kind, namespace, table, self.pulse.beat)
            for namespace in settings.namespaces or ("",)
            for kind, table in (("Job", tables.jobs), ("Pod", tables.pods))
        ]

    def job_seen(self, job: Mapping[str, Any], *, listed: bool = False) -> None:
        """Take over a FederatedIncrementalJob and look at it, if it is news."""
        self.pulse.beat()
        if self.table.put(job, listed=listed):
            self._departed.pop(JobKey(job["metadata"]["namespace"], job["metadata"]["name"]), None)
            self.queue.add(JobKey(job["metadata"]["namespace"], job["metadata"]["name"]))

    def job_gone(self, job: Mapping[str, Any]) -> None:
        """Forget a FederatedIncrementalJob, unless another has taken its name already."""
        self.pulse.beat()
        key = JobKey(job["metadata"]["namespace"], job["metadata"]["name"])
        known = self.table.get(key)
        if known is not None and known["metadata"].get("uid") == job["metadata"].get("uid"):
            self._forget(key)
            if self.tables.pods.of(key, known["metadata"]["uid"]):
                deleted = {**known["metadata"], "deletionTimestamp": timestamp(self._clock.now())}
                self._departed[key] = {**known, "metadata": deleted}
                self.queue.add_after(key, SETTLE_SECONDS)

    @property
    def remembered(self) -> int:
        """How many things this process remembers of jobs; of those that are gone it is none."""
        return self._cluster.unfinished + len(self._pace) + len(self._departed)

    def ages(self) -> tuple[tuple[str, float], ...]:
        """Return what would be wrong if it were true for long, and the seconds for which it is."""
        return (
            ("no sign of life from the API server's watches", self.pulse.age()),
            ("the queue has not moved", self.queue.stalled()),
        )

    async def run(self) -> None:
        """Never ends, unless something breaks that no retry mends."""
        try:
            async with asyncio.TaskGroup() as group:
                for watch in self._watches:
                    group.create_task(watch.run())
                # Before all children are known, every job would look as if it had none.
                for watch in self._watches:
                    await watch.listed.wait()
                for _ in range(self._settings.concurrency):
                    group.create_task(self._work())
                group.create_task(self._poller.run())
                group.create_task(self._resync())
        finally:
            await self._reader.close()

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            started = self._clock.monotonic()
            result: Result = "error"
            try:
                result = await self.look(key)
                self.queue.done(key)
            except OperatorError as error:
                delay = self._failed(key)
                logger.warning("%s: %s; again in %.0f s", key, error, delay)
            except Exception:
                # The edge of the work on one job: a defect that it meets must not stop all others.
                delay = self._failed(key)
                logger.exception("%s: defect in the operator; again in %.0f s", key, delay)
            if key not in self.table:
                # Gone while it was worked on, which has remembered it anew.
                self._forget(key)
            self.metrics.reconciled(result, self._clock.monotonic() - started)

    def _failed(self, key: JobKey) -> float:
        self._cluster.distrust(key)
        return self.queue.failed(key)

    async def look(self, key: JobKey) -> Result:
        """Look at a job once and do what is to be done.

        Raises:
            OperatorError: not all of it was done.
        """
        job = self.table.get(key)
        if job is None or not evidence.managed(job) or job["metadata"].get("deletionTimestamp"):
            # Children go by their ownerReferences.
            self._poller.want(key, False)
            return await self._see_off(key, job or self._departed.get(key))
        believed = max(self._settings.objects_seconds, READ_SECONDS_PER_JOB * self._cluster.unfinished)
        sight = await self._cluster.observe(job, self._poller.newest(key), believed)
        if sight.leftovers:
            self._cluster.distrust(key)
            self.queue.add_after(key, LEFTOVER_PAUSE)
            return "unchanged"
        newest = self.table.get(key)
        if newest is None or newest["metadata"]["uid"] != job["metadata"]["uid"]:
            # Gone while it was looked at; if another has taken the name, its event has woken us.
            return "unchanged"
        job = newest
        plan = self._reconcile(job, sight.credentials, sight.observed, self._settings, self._clock.now())
        return await self._carry_out(key, job, plan, sight)

    async def _see_off(self, key: JobKey, job: Object | None) -> Result:
        """Explain why pods of a deleted job do not go, if so; of one that is gone, by an Event only."""
        if job is None or not evidence.managed(job):
            self._departed.pop(key, None)
            return "unchanged"
        observed = await self._cluster.leaving(job)
        if not observed.pods:
            self._departed.pop(key, None)
            return "unchanged"
        plan = self._reconcile(job, None, observed, self._settings, self._clock.now())
        if key not in self._departed:
            return await self._carry_out(key, job, plan, Sight(observed))
        for note in plan.notes:
            await self._cluster.write_event(job, note, plan.status or {})
        if not plan.notes:
            return "unchanged"
        self._departed.pop(key, None)
        return "changed"

    async def _carry_out(self, key: JobKey, job: Object, plan: Plan, sight: Sight) -> Result:
        delays = [seconds for seconds in (plan.wake_after, sight.look_again) if seconds is not None]
        if plan.status is not None and not plan.notes:
            seconds = max(self._settings.status_seconds, self._poller.interval)
            wait = self._pace.wait(key, job.get("status") or {}, plan.status, seconds)
            if wait > 0.0:
                delays.append(wait)
                plan = replace(plan, status=None)
        self._poller.want(key, plan.poll)
        if delays:
            self.queue.add_after(key, min(delays))
        await self._cluster.carry_out(job, plan, sight.observed)
        if plan.status is not None:
            self._pace.written(key, plan.status)
        changed = any((plan.apply, plan.create, plan.patch, plan.delete, plan.notes, plan.status))
        return "changed" if changed else "unchanged"

    def _child_changed(self, key: JobKey) -> None:
        self.queue.add_after(key, SETTLE_SECONDS)

    def _forget(self, key: JobKey) -> None:
        self.table.drop(key)
        self.queue.forget(key)
        self._poller.want(key, False)
        self._pace.forget(key)
        self._cluster.forget(key)

    async def _resync(self) -> None:
        """List all jobs from time to time, whatever the watch has told, and look at each."""
        while True:
            await asyncio.sleep(self._settings.resync_seconds)
            for namespace in self._settings.namespaces or ("",):
                try:
                    await self._list(namespace)
                except ApiError as error:
                    logger.warning("resync: %s", error)
            for key in self.table:
                share = RESYNC_SPREAD * random.random()
                self.queue.add_after(key, share * self._settings.resync_seconds)

    async def _list(self, namespace: str) -> None:
        """Take over the jobs of `namespace` (empty: all), and forget those that are gone."""
        seen: set[JobKey] = set()
        query = {"limit": str(PAGE)}
        while True:
            page = await self._api.request("GET", path_of(KIND, namespace), query=query)
            for job in page.get("items") or ():
                seen.add(key_of(job))
                self.job_seen(job)
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                break
            query["continue"] = token
        for key in self.table:
            job = self.table.get(key)
            within = not namespace or key.namespace == namespace
            if within and key not in seen and job is not None and version_of(job) <= version_of(page):
                self._forget(key)
