"""How a plan is carried out: every write to the cluster, in the order in which a crash does no harm.

Secrets first and one by one: everything else is derived from the key in them, so if another has been made
meanwhile nothing may follow. Then what pods mount, then the batch Jobs, patches and removals, then status,
and Events last. Steps that do not depend on each other run at the same time. A failure does not keep the
others from being tried; then it is raised, and the job is looked at again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import replace
from typing import Any

from engram.spec.names import KIND, OPERATOR
from engram_operator import evidence
from engram_operator.api import APPLY_PATCH, JSON, MERGE_PATCH, Api, path_of
from engram_operator.errors import ApiError, OperatorError, StaleError
from engram_operator.events import build_event
from engram_operator.manifests.names import spec_name
from engram_operator.memory import Memory
from engram_operator.model import JobKey, Live, Note, Object, Observed, Patch, Plan, Removal
from engram_operator.observing import Clock, Observer, Sight, Tables
from engram_operator.patching import difference
from engram_operator.peers import compares, peers_of
from engram_operator.settings import Settings
from engram_operator.tables import JobTable, key_of

logger = logging.getLogger(__name__)

_MANAGER = {"fieldManager": OPERATOR}
_NAMESPACE_TERMINATING = "NamespaceTerminating"


class Cluster:
    """The children of jobs: seen, made, changed and removed.

    Args:
        table: the jobs; takes over what writes answer.
        tables: their batch Jobs and pods; likewise.
    """

    def __init__(self, api: Api, table: JobTable, tables: Tables, settings: Settings, clock: Clock) -> None:
        self._api, self._table, self._tables, self._clock = api, table, tables, clock
        self._memory = Memory()
        self._observer = Observer(api, tables, self._memory, settings, clock)

    async def observe(self, job: Object, live: Live | None, believed: float) -> Sight:
        """Look at the children of `job` (see Observer.observe), and at the jobs that it is compared with."""
        sight = await self._observer.observe(job, live, believed)
        peers = peers_of(job, self._table.values) if compares(job) else ()
        return sight._replace(observed=replace(sight.observed, peers=peers)) if peers else sight

    async def leaving(self, job: Object) -> Observed:
        """Look at what is left of a deleted job (see Observer.leaving)."""
        return await self._observer.leaving(job)

    @property
    def unfinished(self) -> int:
        """How many jobs are under way."""
        return len(self._memory)

    def distrust(self, key: JobKey) -> None:
        """Have the children of `key` read at the next look."""
        self._memory.distrust(key)

    def forget(self, key: JobKey) -> None:
        """Drop what is remembered of a job that is gone."""
        self._observer.forget(key)

    async def carry_out(self, job: Object, plan: Plan, observed: Observed) -> None:
        """Do what `plan`, made from `observed`, says.

        Raises:
            ApiError: something failed; what does not depend on it was done.
            StaleError: something is not as it was observed; what does not depend on it was done.
        """
        key = key_of(job)
        secrets = [item for item in plan.create if item["kind"] == "Secret"]
        others = [item for item in plan.create if item["kind"] != "Secret"]
        failures: list[OperatorError] = []
        for secret in secrets:
            if not failures:
                failures += await _all([self.create(job, secret)])
        if not failures:
            failures += await _all(self.apply(job, item) for item in plan.apply)
        steps = [self.patch(key, patch) for patch in plan.patch]
        steps += [self.remove(key, removal) for removal in plan.delete]
        if not failures:
            steps += [self.create(job, item) for item in others]
        failures += await _all(steps)
        renewed = any(removal.kind == "Secret" for removal in plan.delete)
        if failures or renewed or any(_opens_node_port(item) for item in plan.apply):
            # The port that Kubernetes has chosen has to be read, and so has what went or came in between.
            self.distrust(key)
        # Status waits for the look that knows of a refusal: now it would say that all is well, and be wrong.
        unexplained = self._memory.of(key).refused.keys() - observed.refusals.keys()
        if failures and (unexplained or not all(_is_refusal(error) for error in failures)):
            raise failures[0]
        status = plan.status
        if status is not None:
            await self.write_status(job, status)
        for note in plan.notes:
            await self.write_event(job, note, job.get("status") or {} if status is None else status)
        if failures:
            raise failures[0]

    async def apply(self, job: Object, item: Object) -> None:
        """Make or change an object by server-side apply; fields that others have added stay."""
        query = {**_MANAGER, "force": "true"}
        await self._make(job, item, "PATCH", _path(item), query, APPLY_PATCH)

    async def create(self, job: Object, item: Object) -> None:
        """Make an object, never overwriting one.

        Raises:
            StaleError: one exists, which had not been seen.
        """
        try:
            await self._make(job, item, "POST", _path(item, named=False), _MANAGER, JSON)
        except ApiError as error:
            if error.status != 409:
                raise
            await self._look_at(job, item)

    async def _look_at(self, job: Object, item: Object) -> None:
        """See whose the object is that exists where one was to be made.

        A batch Job of ours is only one whose event has not arrived yet: nothing is wrong. One without our
        label would never be seen, so it is remembered. All else is seen at the next look.
        """
        kind, name = item["kind"], item["metadata"]["name"]
        if kind == "Job":
            found = await self._observer.get(job["metadata"]["namespace"], kind, name)
            owner = "leftover" if found is None else evidence.ownership(found, job)
            if found is not None and owner == "ours":
                self._tables.jobs.put(found)
                return
            if owner == "foreign":
                self._memory.of(key_of(job)).taken.add(name)
        raise StaleError(f"{kind} {name} exists already")

    async def patch(self, key: JobKey, patch: Patch) -> None:
        """Change fields of an object by merge patch; one that is gone is left alone."""
        path = path_of(patch.kind, key.namespace, patch.name)
        try:
            answer = await self._api.request(
                "PATCH", path, query=_MANAGER, body=dict(patch.body), content_type=MERGE_PATCH
            )
        except ApiError as error:
            if error.status == 404:
                return
            raise self._noted(key, patch.name, error) from error
        self._accepted(key, patch.kind, patch.name, answer)

    async def remove(self, key: JobKey, removal: Removal) -> None:
        """Delete an object with its dependants; one that is gone, or another of that name, is left alone."""
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if removal.uid:
            body["preconditions"] = {"uid": removal.uid}
        try:
            await self._api.request("DELETE", path_of(removal.kind, key.namespace, removal.name), body=body)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def write_status(self, job: Object, status: Object) -> None:
        """Make `status` the job's status, by a merge patch of the difference.

        Raises:
            StaleError: the job has changed; the newest is in the table.
        """
        change = difference(job.get("status") or {}, status)
        if not change:
            return
        meta = job["metadata"]
        body = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": change}
        path = path_of(KIND, meta["namespace"], meta["name"])
        try:
            answer = await self._api.request(
                "PATCH", f"{path}/status", query=_MANAGER, body=body, content_type=MERGE_PATCH
            )
        except ApiError as error:
            if error.status == 409:
                newest = await self._observer.get(meta["namespace"], KIND, meta["name"])
                if newest is not None:
                    self._table.put(newest)
                raise StaleError(f"{meta['name']} has changed meanwhile") from error
            if error.status == 404:
                return
            raise
        self._table.put(answer)

    async def write_event(self, job: Object, note: Note, status: Object) -> None:
        """Write the Event of a transition; one that exists is the same, and one lost is not tried again."""
        event = build_event(job, note, status, self._clock.now())
        try:
            await self._api.request("POST", _path(event, named=False), query=_MANAGER, body=event)
        except ApiError as error:
            if error.status != 409:
                logger.warning("%s: Event %s was not written: %s", key_of(job), note.reason, error)

    async def _make(
        self, job: Object, item: Object, method: str, path: str, query: Mapping[str, str], content_type: str
    ) -> None:
        key, name = key_of(job), item["metadata"]["name"]
        try:
            answer = await self._api.request(method, path, query=query, body=item, content_type=content_type)
        except ApiError as error:
            raise self._noted(key, name, error) from error
        self._accepted(key, item["kind"], name, answer)

    def _noted(self, key: JobKey, name: str, error: ApiError) -> ApiError:
        """Remember a refusal, for the status that explains it."""
        if error.refusal:
            known = self._memory.of(key)
            known.refused[name] = error.message
            known.terminating = known.terminating or _NAMESPACE_TERMINATING in error.causes
        return error

    def _accepted(self, key: JobKey, kind: str, name: str, answer: Object) -> None:
        """Take over what the API server has made of a write, before the watch tells."""
        known = self._memory.of(key)
        known.refused.pop(name, None)
        known.terminating = False
        if kind == "Job":
            self._tables.jobs.put(answer)
        elif kind == "ConfigMap" and name == spec_name(key.name):
            # Else the next look would hold the job against what an earlier, refused spec had left.
            known.config = answer


async def _all(steps: Iterable[Coroutine[Any, Any, None]]) -> list[OperatorError]:
    """Do all steps at the same time; return what failed."""
    failures = []
    for result in await asyncio.gather(*steps, return_exceptions=True):
        if isinstance(result, OperatorError):
            failures.append(result)
        elif isinstance(result, BaseException):
            raise result
    return failures


def _path(item: Object, *, named: bool = True) -> str:
    meta = item["metadata"]
    return path_of(item["kind"], meta["namespace"], meta["name"] if named else "")


def _is_refusal(error: OperatorError) -> bool:
    return isinstance(error, ApiError) and error.refusal


def _opens_node_port(item: Object) -> bool:
    return item["kind"] == "Service" and (item.get("spec") or {}).get("type") == "NodePort"
