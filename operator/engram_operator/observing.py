"""What a job's children are. Jobs and pods come from the watches, the rest is read when there is a reason to.

Services, ConfigMaps, claims and Secrets are read by their names, all at once: never for a finished job, else
when the job is new to this process, its spec or its batch Jobs have changed, a write has failed, or what is
known has grown old. Secrets are never listed or watched: no right to other people's is needed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from engram_operator import evidence
from engram_operator.api import Api, path_of
from engram_operator.errors import ApiError
from engram_operator.evidence import Named
from engram_operator.manifests import credentials, names
from engram_operator.memory import Known, Memory
from engram_operator.model import (
    Credentials,
    JobKey,
    JobView,
    Live,
    NodeView,
    Object,
    Observed,
    PodView,
)
from engram_operator.nodes import Nodes
from engram_operator.reports import read_report
from engram_operator.settings import Settings
from engram_operator.tables import ChildTable, key_of
from engram_operator.troubles import Troubles

LEFTOVER_SECONDS = 60.0
"""How long children of a deleted job of the same name may take to go before they count as somebody else's."""


class Clock(NamedTuple):
    """Time, passed in."""

    now: Callable[[], datetime]
    monotonic: Callable[[], float]


class Tables(NamedTuple):
    """What the watches keep current."""

    jobs: ChildTable[JobView]
    pods: ChildTable[PodView]


class Sight(NamedTuple):
    """What was seen of one job."""

    observed: Observed
    credentials: Credentials | None = None
    """Read from the Secret, or new ones where there is none; None when objects were not read."""
    leftovers: bool = False
    """Children of a deleted job of the same name are still there: wait until they are gone."""
    look_again: float | None = None
    """Seconds after which there is more to see."""


class Observer:
    """Looks at the children of jobs."""

    def __init__(self, api: Api, tables: Tables, memory: Memory, settings: Settings, clock: Clock) -> None:
        self._api, self._tables, self._memory = api, tables, memory
        self._settings, self._clock = settings, clock
        self._nodes = Nodes(api, clock.monotonic)
        self._troubles = Troubles(api, clock.monotonic)

    def forget(self, key: JobKey) -> None:
        """Drop what is remembered of a job that is gone or finished."""
        self._memory.forget(key)
        self._troubles.forget(key)

    async def observe(self, job: Object, live: Live | None, believed: float) -> Sight:
        """Look at the children of `job`.

        Args:
            job: the FederatedIncrementalJob.
            live: what its aggregator says of itself, where known.
            believed: seconds for which children that are read now are believed.

        Raises:
            ApiError: something cannot be read.
        """
        key, uid = key_of(job), job["metadata"]["uid"]
        jobs = self._tables.jobs.of(key, uid)
        pods = tuple(sorted(self._tables.pods.of(key, uid).values(), key=lambda pod: pod.name))
        seen = Observed(jobs=jobs, pods=pods, live=live, complete=False)
        if evidence.settled(job):
            self.forget(key)
            return Sight(seen)
        known = self._memory.of(key)
        reporting = evidence.ended(job)
        stale = _changed(job, jobs, known) or reporting or self._clock.monotonic() >= known.trusted_until
        troubles, nodes = await asyncio.gather(
            self._troubles.of(key, tuple(jobs.values()), pods, self._clock.now()),
            self._nodes_for(job, pods, complete=stale),
        )
        seen = replace(seen, refusals=troubles.refusals, warnings=troubles.warnings, nodes=nodes)
        if not stale:
            seen = replace(
                seen,
                objects=_remembered(job, known),
                refusals={**known.refused, **troubles.refusals},
                foreign=tuple(f"Job/{name}" for name in sorted(known.taken)),
                namespace_terminating=known.terminating,
            )
            return Sight(seen, look_again=troubles.look_again)
        found = await self._read(job, known)
        if reporting:
            seen = await self._with_report(job, seen)
        sight = self._complete(job, known, found, seen)
        # What somebody else's object keeps us from doing is looked at anew each time: they may take it away.
        known.trusted_until = self._clock.monotonic() + (0.0 if sight.observed.foreign else believed)
        return sight._replace(look_again=troubles.look_again)

    async def leaving(self, job: Object) -> Observed:
        """Look at what is left of a job that is deleted: its batch Jobs and pods, and nodes that may be lost.

        Raises:
            ApiError: something cannot be read.
        """
        key, uid = key_of(job), job["metadata"]["uid"]
        pods = tuple(sorted(self._tables.pods.of(key, uid).values(), key=lambda pod: pod.name))
        nodes = await self._nodes_for(job, pods, complete=False)
        return Observed(jobs=self._tables.jobs.of(key, uid), pods=pods, nodes=nodes, complete=False)

    def _complete(self, job: Object, known: Known, found: Mapping[Named, Object], seen: Observed) -> Sight:
        """Sort what was read into ours and not ours."""
        owners = {name: evidence.ownership(item, job) for name, item in found.items()}
        strangers = [Named("Job", name) for name in self._strange_jobs(job)]
        foreign = {name for name, owner in owners.items() if owner == "foreign"}
        leftovers = {*strangers, *(name for name, owner in owners.items() if owner == "leftover")}
        known.taken = {name.name for name in foreign if name.kind == "Job"}
        if not leftovers:
            known.leftovers_since = None
        elif known.leftovers_since is None:
            known.leftovers_since = self._clock.monotonic()
        if known.leftovers_since is not None:
            if self._clock.monotonic() - known.leftovers_since < LEFTOVER_SECONDS:
                return Sight(seen, leftovers=True)
            foreign |= leftovers
        ours = {name: found[name] for name, owner in owners.items() if owner == "ours"}
        known.config = ours.get(Named("ConfigMap", names.spec_name(job["metadata"]["name"])))
        secret = Named("Secret", names.credentials_name(job["metadata"]["name"]))
        observed = replace(
            seen,
            objects=evidence.without_secrets(ours),
            secrets={
                name.name: tuple(sorted(item.get("data") or {}))
                for name, item in ours.items()
                if name.kind == "Secret"
            },
            foreign=tuple(sorted(map(str, foreign))),
            refusals={**known.refused, **seen.refusals},
            namespace_terminating=known.terminating,
            complete=True,
        )
        return Sight(observed, _credentials(job, ours.get(secret)))

    async def _with_report(self, job: Object, seen: Observed) -> Observed:
        """Add what the report's pod has printed, once it is done."""
        view = seen.jobs.get(names.report_name(job["metadata"]["name"]))
        if view is None or not view.succeeding:
            return seen
        found = await read_report(self._api, job["metadata"]["namespace"], view, seen.pods)
        return replace(seen, report=found.report, report_problem=found.problem)

    async def _read(self, job: Object, known: Known) -> dict[Named, Object]:
        """Read the children that no watch shows; those that do not exist are left out."""
        wanted = evidence.objects_of(job, self._settings)
        wanted += tuple(Named("Job", name) for name in sorted(known.taken))
        namespace = job["metadata"]["namespace"]
        answers = await asyncio.gather(*(self.get(namespace, *name) for name in wanted))
        found = {name: item for name, item in zip(wanted, answers, strict=True) if item is not None}
        claim = evidence.claim_of(job, found)
        if claim is not None and claim not in wanted:
            item = await self.get(namespace, *claim)
            found |= {} if item is None else {claim: item}
        return found

    async def get(self, namespace: str, kind: str, name: str) -> Object | None:
        """Return an object; None: it does not exist."""
        try:
            return await self._api.request("GET", path_of(kind, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def _nodes_for(
        self, job: Object, pods: tuple[PodView, ...], *, complete: bool
    ) -> tuple[NodeView, ...] | None:
        """Return all nodes where workers dial one, else those that may be lost; None: not read.

        The list of all is believed for longer than a node that may be lost: that one is read anew.
        """
        doubtful = evidence.doubtful_nodes(pods)
        lost = await self._nodes.some(doubtful) if doubtful else None
        if not (complete and evidence.needs_addresses(job)):
            return lost
        known = await self._nodes.all()
        if known is None or lost is None:
            return known
        return (*(node for node in known if node.name not in doubtful), *lost)

    def _strange_jobs(self, job: Object) -> tuple[str, ...]:
        """Return the batch Jobs under our names that say to belong to another job of this name."""
        strangers = self._tables.jobs.strangers(key_of(job), job["metadata"]["uid"])
        return tuple(name for name in evidence.job_names(job) if name in strangers)


def _remembered(job: Object, known: Known) -> dict[str, Object]:
    """Return what a job was started with, for a look that reads nothing."""
    if known.config is None:
        return {}
    return evidence.without_secrets(
        {Named("ConfigMap", names.spec_name(job["metadata"]["name"])): known.config}
    )


def _changed(job: Object, jobs: Mapping[str, JobView], known: Known) -> bool:
    """Return whether the children have to be read anew: the spec is another, or a batch Job is gone.

    Batch Jobs that have come are no reason: it is we who make them.
    """
    generation = job["metadata"].get("generation")
    edited = known.generation != generation
    if edited:
        known.generation = generation
        known.refused.clear()
    present = {view.uid for view in jobs.values()}
    lost = not known.batch_jobs <= present
    known.batch_jobs = present
    return edited or lost


def _credentials(job: Object, secret: Object | None) -> Credentials | None:
    """Return what the Secret holds; new credentials where there is none; None when it is unusable."""
    if secret is None:
        return credentials.generate(job["metadata"]["namespace"], job["metadata"]["name"])
    try:
        data = {
            key: base64.b64decode(value, validate=True).decode()
            for key, value in (secret.get("data") or {}).items()
        }
    except (binascii.Error, UnicodeDecodeError):
        return None
    return Credentials.from_data(data)
