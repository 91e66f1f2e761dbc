"""What the tests of the operator's edge share: an Api of the fake server, raw children, time by hand."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from kubernetes.aio.client import Configuration

from engram.spec.names import API_VERSION, KIND, Label
from engram_operator.api import Api
from engram_operator.cluster import Cluster
from engram_operator.model import JobKey, JobView, Object, Observed, Plan, PodView
from engram_operator.observing import Clock, Sight, Tables
from engram_operator.settings import Settings
from engram_operator.tables import ChildTable, JobTable
from tests.control.api_server import ApiServer, Asked, Refusal, serving
from tests.control.builders import NOW, SETTINGS, UID, job_object

T = TypeVar("T")

KEY = JobKey("lab", "digits")

OWNER = {"apiVersion": API_VERSION, "kind": KIND, "name": "digits", "uid": UID, "controller": True}


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """Run a scenario that is to end in seconds."""

    async def limited() -> T:
        async with asyncio.timeout(20):
            return await scenario

    return asyncio.run(limited())


async def until(condition: Callable[[], object], what: str) -> None:
    """Let others run until `condition` holds; fail after five seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 5.0
    while not condition():
        if loop.time() > deadline:
            raise TimeoutError(f"waited in vain for {what}")
        await asyncio.sleep(0.005)


@dataclass
class FakeClock:
    """Time that stands until it is told to pass."""

    seconds: float = 5000.0
    start: datetime = field(default=NOW)

    def now(self) -> datetime:
        return self.start + timedelta(seconds=self.seconds - 5000.0)

    def monotonic(self) -> float:
        return self.seconds

    def clock(self) -> Clock:
        return Clock(self.now, self.monotonic)


@asynccontextmanager
async def api_of(server: ApiServer, settings: Settings = SETTINGS) -> AsyncIterator[Api]:
    """An Api that speaks to the fake server."""

    async def login() -> Configuration:
        return Configuration(host=server.url)

    api = Api(login, settings)
    try:
        yield api
    finally:
        await api.close()


@asynccontextmanager
async def background(coroutine: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run something that never ends while the block runs."""
    task = asyncio.create_task(coroutine)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def child(kind: str, name: str, *, uid: str = UID, job: str = "digits", **rest: Any) -> Object:
    """A raw child of the job digits, as the API server stores it."""
    version = "batch/v1" if kind == "Job" else "v1"
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "lab",
            "labels": {Label.JOB: job, Label.JOB_UID: uid},
            "ownerReferences": [{**OWNER, "uid": uid}],
        },
        **rest,
    }


def batch_job(name: str, *, uid: str = UID, parallelism: int = 1, **status: Any) -> Object:
    """A raw batch Job of the job digits."""
    spec = {"parallelism": parallelism, "completions": parallelism}
    return child("Job", name, uid=uid, spec=spec, status=status)


def raw_pod(name: str, *, phase: str = "Running", owner: str = "digits-edge", **rest: Any) -> Object:
    """A raw pod of the job digits."""
    found = child("Pod", name, spec={"nodeName": "edge1", "containers": [{"name": "main"}]}, **rest)
    found["metadata"]["ownerReferences"] = [{"kind": "Job", "name": owner, "uid": "u"}]
    return {**found, "status": {"phase": phase, **found.get("status", {})}}


@dataclass
class Edge:
    """A Cluster over the fake server, with tables that the test fills."""

    server: ApiServer
    api: Api
    cluster: Cluster
    table: JobTable
    tables: Tables
    clock: FakeClock
    changed: list[JobKey] = field(default_factory=list)

    async def job(self, **spec: Any) -> Object:
        """Store the job on the server and in the table; return it as stored."""
        stored = await self.server.put(job_object(**spec))
        self.table.put(stored)
        return self.stored

    @property
    def stored(self) -> Object:
        found = self.table.get(KEY)
        assert found is not None
        return found

    async def look(self, believed: float = 30.0) -> Sight:
        return await self.cluster.observe(self.stored, None, believed)

    async def carry_out(self, plan: Plan, observed: Observed | None = None) -> None:
        await self.cluster.carry_out(self.stored, plan, observed or Observed())


@asynccontextmanager
async def edge(settings: Settings = SETTINGS) -> AsyncIterator[Edge]:
    clock = FakeClock()
    changed: list[JobKey] = []
    tables = Tables(
        ChildTable(JobView.from_object, changed.append), ChildTable(PodView.from_object, changed.append)
    )
    table = JobTable()
    async with serving() as server, api_of(server, settings) as api:
        cluster = Cluster(api, table, tables, settings, clock.clock())
        yield Edge(server, api, cluster, table, tables, clock, changed)


def secret(data: dict[str, str], name: str = "digits-credentials", **rest: Any) -> Object:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return child("Secret", name, data=encoded, **rest)


def refusing(
    what: str, status: int, reason: str, message: str = "", causes: tuple[str, ...] = ()
) -> Callable[[Asked], Refusal | None]:
    def refuse(asked: Asked) -> Refusal | None:
        named = asked.what == what or (
            isinstance(asked.body, dict)
            and f"{asked.what} {asked.body.get('metadata', {}).get('name')}" == what
        )
        return Refusal(status, reason, message, causes) if named else None

    return refuse
