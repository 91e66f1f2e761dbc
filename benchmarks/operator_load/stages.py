"""The three measurements: one job on an idle cluster, many at once, and many that have ended."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from benchmarks.operator_load.ground import CONTROLLERS_USER, OPERATOR_USER, Ground, make_namespace
from benchmarks.operator_load.jobs import PODS_OF_A_SMALL_JOB, digits_job, ending, owner_of, small_job
from benchmarks.operator_load.phases import Phases, apply_all, connected
from benchmarks.operator_load.process import OperatorProcess
from engram.spec.names import KIND, Label, Phase
from tests.cluster import audit
from tests.cluster.fake_kubelet import FakeKubelet
from tests.cluster.waiting import NotYet, until

SECONDS = 120.0
SECONDS_PER_JOB = 1.0
"""A stage with many jobs may take `SECONDS` and so much for each of them."""
QUIET_SECONDS = 5.0
"""Without a write of the operator for so long, nothing more is to be done."""
PROBE_SECONDS, SCRAPE_SECONDS = 5.0, 30.0
"""How often the kubelet and Prometheus look at an operator that is deployed."""


@dataclass(frozen=True)
class Load:
    """What many jobs, applied at once, have cost until all of them were Running."""

    seconds: float
    writes: Counter[str]
    """API writes of the operator by job, refused ones and Events included."""
    kinds: Counter[tuple[str, str]]
    """The same by (verb, resource)."""
    pods_made: int
    duplicates: int
    """Objects that were made more than once by the operator, or pods beyond those that jobs ask for."""


@dataclass(frozen=True)
class Idle:
    """What the operator takes while nothing happens."""

    cpu_percent: float
    memory: int
    """Bytes."""


def one_by_one(ground: Ground, operator: OperatorProcess, namespace: str, count: int) -> list[float]:
    """Return the seconds from apply to the last pod of `count` jobs, each on an otherwise idle cluster.

    From before the request is sent to the moment at which the API server had answered the last pod's
    creation. One job before them is not counted: it waits for the operator to start.
    """
    make_namespace(ground.api, namespace)
    applied: list[datetime] = []
    pods = 0
    with FakeKubelet(ground.api):
        for number in range(count + 1):
            job = digits_job(namespace, number)
            name = job["metadata"]["name"]
            pods = 1 + sum(group["replicas"] for group in job["spec"]["workers"])
            applied.append(datetime.now(UTC))
            ground.api.apply(job)
            until(_runs(ground, operator, namespace, name), f"job {name} to be Running", seconds=SECONDS)
            ground.api.delete(KIND, name, namespace)
            until(_gone(ground, namespace, name), f"the pods of {name} to be gone", seconds=SECONDS)
    made = [
        request.time
        for request in audit.requests(ground.audit_log, user=CONTROLLERS_USER, namespace=namespace)
        if _makes_pod(request)
    ]
    return list(delays(applied, made, pods))[1:]


def at_once(ground: Ground, operator: OperatorProcess, namespace: str, jobs: int) -> Load:
    """Apply `jobs` small jobs at once, restart the operator by force in the middle, count its writes."""
    make_namespace(ground.api, namespace)
    began = datetime.now(UTC)
    with FakeKubelet(ground.api):
        seconds = asyncio.run(_run_all(ground, operator, namespace, jobs))
        _quiet(ground, operator, namespace)
    log = ground.audit_log
    written = [
        request
        for request in audit.requests(log, user=OPERATOR_USER, namespace=namespace, since=began)
        if request.verb in audit.WRITING
    ]
    made = Counter((request.resource, request.name) for request in written if request.code == 201)
    controllers = audit.requests(log, user=CONTROLLERS_USER, namespace=namespace, since=began)
    pods = sum(map(_makes_pod, controllers))
    return Load(
        seconds,
        Counter(owner_of(request.name) for request in written),
        Counter((request.verb, request.resource) for request in written),
        pods,
        sum(number - 1 for number in made.values()) + max(0, pods - PODS_OF_A_SMALL_JOB * jobs),
    )


def finish(ground: Ground, operator: OperatorProcess, namespace: str, jobs: int) -> float:
    """End all pods as a run that has succeeded does; return the seconds until all jobs are Succeeded."""
    with FakeKubelet(ground.api, ending):
        seconds = asyncio.run(_end_all(ground, namespace, jobs))
        _quiet(ground, operator, namespace)
    return seconds


def idle(operator: OperatorProcess, seconds: float) -> Idle:
    """Return what the operator takes over `seconds`, probed and scraped as one that is deployed."""
    clock = began = time.monotonic()
    cpu = operator.cpu_seconds()
    probe, scrape = began, began + SCRAPE_SECONDS / 2
    while clock < began + seconds:
        time.sleep(max(0.0, min(probe, scrape, began + seconds) - clock))
        clock = time.monotonic()
        if clock >= probe:
            operator.probe()
            probe += PROBE_SECONDS
        if clock >= scrape:
            operator.scrape()
            scrape += SCRAPE_SECONDS
    return Idle(100.0 * (operator.cpu_seconds() - cpu) / (time.monotonic() - began), operator.memory())


async def _run_all(ground: Ground, operator: OperatorProcess, namespace: str, jobs: int) -> float:
    """Return the seconds from the first apply until all jobs are Running."""
    limit = SECONDS + SECONDS_PER_JOB * jobs
    async with connected(ground.api) as session, Phases(session, namespace) as phases:
        began = time.monotonic()
        applying = asyncio.create_task(apply_all(session, (small_job(namespace, n) for n in range(jobs))))
        await phases.reach(lambda count: count.total() - count[""] >= jobs / 2, "half of the jobs", limit)
        await asyncio.to_thread(operator.kill)
        await asyncio.to_thread(operator.start)
        await applying
        await phases.reach(lambda count: count[Phase.RUNNING] == jobs, "all jobs to be Running", limit)
        return time.monotonic() - began


async def _end_all(ground: Ground, namespace: str, jobs: int) -> float:
    """Return the seconds until all jobs are Succeeded."""
    began = time.monotonic()
    async with connected(ground.api) as session, Phases(session, namespace) as phases:
        limit = SECONDS + SECONDS_PER_JOB * jobs
        await phases.reach(lambda count: count[Phase.SUCCEEDED] == jobs, "all jobs to be Succeeded", limit)
    return time.monotonic() - began


def _makes_pod(request: audit.Request) -> bool:
    return (request.verb, request.resource, request.code) == ("create", "pods", 201)


def delays(applied: Sequence[datetime], made: Sequence[datetime], pods: int) -> Iterator[float]:
    """Yield the seconds from each apply to its last pod. Raises RuntimeError unless `pods` were made."""
    for start, end in zip(applied, (*applied[1:], datetime.max.replace(tzinfo=UTC)), strict=True):
        times = [time for time in made if start <= time < end]
        if len(times) != pods:
            raise RuntimeError(f"a job got {len(times)} pods, not {pods}")
        yield (max(times) - start).total_seconds()


def _runs(ground: Ground, operator: OperatorProcess, namespace: str, name: str) -> Callable[[], bool]:
    """Return the condition that a job is Running."""

    def condition() -> bool:
        operator.check()
        status = ground.api.get(KIND, name, namespace).get("status") or {}
        if status.get("phase") != Phase.RUNNING:
            raise NotYet(f"it is {status.get('phase') or 'unseen'}: {status.get('message', '')}")
        return True

    return condition


def _gone(ground: Ground, namespace: str, name: str) -> Callable[[], bool]:
    """Return the condition that a job has no pods."""
    return lambda: not ground.api.list("Pod", namespace, f"{Label.JOB}={name}")


def _quiet(ground: Ground, operator: OperatorProcess, namespace: str) -> None:
    """Wait until the operator has written nothing for a while."""

    def condition() -> bool:
        operator.check()
        since = datetime.now(UTC) - timedelta(seconds=QUIET_SECONDS)
        found = audit.count_writes(ground.audit_log, user=OPERATOR_USER, namespace=namespace, since=since)
        if found:
            raise NotYet(f"{found.total()} writes in the last {QUIET_SECONDS:g} s")
        return True

    until(condition, "the operator to be done", seconds=SECONDS, every=1.0)
