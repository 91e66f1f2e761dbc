"""`kubectl engram get` and `describe`: how a job is, at one look or for as long as it runs."""

from __future__ import annotations

from contextlib import aclosing

from rich.text import Text

from engram.spec.names import KIND
from engram_kubectl import show, terminal
from engram_kubectl.connection import Cluster, Target, connected
from engram_kubectl.jobs import follow, has_ended, key_of, list_all, list_jobs, read_job
from engram_operator.api import path_of
from engram_operator.errors import ApiError
from engram_operator.model import Object


async def get(target: Target, name: str, *, watch: bool, everywhere: bool) -> int:
    """Print the bar of one job, until its end where it is watched, or one line for each job."""
    async with connected(target) as cluster:
        if not name:
            await _list(cluster, "" if everywhere else cluster.namespace)
        elif watch:
            await _watch(cluster, name)
        else:
            job = await read_job(cluster, key_of(name, cluster.namespace))
            terminal.show(show.progress(job, terminal.now()))
        return 0


async def describe(target: Target, name: str) -> int:
    """Print the diagnosis of a job."""
    async with connected(target) as cluster:
        job = await read_job(cluster, key_of(name, cluster.namespace))
        events = await _events(cluster, job)
        terminal.show(show.diagnosis(job, events, terminal.now()))
        return 0


async def _list(cluster: Cluster, namespace: str) -> None:
    jobs = await list_jobs(cluster, namespace)
    if jobs:
        terminal.show(show.jobs_table(jobs, terminal.now(), everywhere=not namespace))
        return
    where = f"namespace {namespace}" if namespace else "any namespace"
    terminal.show(Text(f"There are no jobs in {where} of context {cluster.context}."))


async def _watch(cluster: Cluster, name: str) -> None:
    stream = follow(cluster, key_of(name, cluster.namespace))
    async with aclosing(stream):
        with terminal.live(show.progress) as draw:
            async for job in stream:
                draw(job)
                if has_ended(job):
                    return


async def _events(cluster: Cluster, job: Object) -> list[Object] | None:
    """Return the job's Events; None: they may not be read."""
    meta = job["metadata"]
    query = {"fieldSelector": f"involvedObject.kind={KIND},involvedObject.uid={meta['uid']}"}
    try:
        return await list_all(cluster, path_of("Event", meta["namespace"]), query)
    except ApiError as error:
        if error.status != 403:
            raise
        return None
