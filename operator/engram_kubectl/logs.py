"""`kubectl engram logs`: what the workers of a job said, wherever that is still to be read.

A kubelet at the edge often cannot be asked (KubeEdge's edgeStream is off by default). But a worker that fails
sends its last words and its traceback over the connection that it trains by, and the aggregator logs them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engram.errors import ConfigurationError
from engram.spec.names import AGGREGATOR_WORKER, MAIN_CONTAINER, Role, worker_name
from engram_kubectl.connection import Cluster, Target, connected
from engram_kubectl.errors import NothingThereError
from engram_kubectl.jobs import key_of, pods_of, read_job, status_of
from engram_kubectl.words import one_line, printable
from engram_operator.api import path_of
from engram_operator.errors import ApiError
from engram_operator.model import JobKey, Object, PodView

AGGREGATOR = "aggregator"
MOST_BYTES = 4 * 2**20
TOLD_LINES = 5000
"""Lines of the aggregator's log that are searched for what came over the connection."""
MOST_TOLD = 120
"""Lines of one traceback."""
_OURS = re.compile(r"(round|task) \d+/\d+ |trainworker-[a-z0-9]+-\d+[ :]|engram: ")
"""Begins a line of the aggregator's own, which ends what a worker has sent."""


@dataclass(frozen=True)
class Speaker:
    """A pod whose log is asked for."""

    name: str
    """Of the worker, or `aggregator`."""
    pod: str
    node: str


async def logs(target: Target, name: str, wanted: str, tail: int) -> int:
    """Print the log of one worker, of the aggregator, or of every worker; return the exit code."""
    async with connected(target) as cluster:
        key = key_of(name, cluster.namespace)
        job = await read_job(cluster, key)
        speakers = speakers_of(await pods_of(cluster, key))
        chosen = choose(speakers, wanted, job)
        sent = await _sent(cluster, key, speakers)
        for index, worker in enumerate(chosen):
            print(("\n" if index else "") + f"==> {worker} <==", flush=True)
            for speaker in (found for found in speakers if found.name == worker):
                print(await _log(cluster, key, speaker, tail), flush=True)
            if not any(found.name == worker for found in speakers):
                print("its pod is gone, and its log with it")
            if worker in sent and worker != AGGREGATOR:
                print(f"--> over the training connection: {sent[worker]}", flush=True)
            _print_status(job, worker)
        return 0


def speakers_of(pods: Sequence[Object]) -> list[Speaker]:
    """Return the pods of aggregator and workers under the names that status has for them."""
    found = []
    for view in map(PodView.from_object, pods):
        if view.role == Role.AGGREGATOR:
            found.append(Speaker(AGGREGATOR, view.name, view.node))
        elif view.role == Role.WORKER and view.group and view.index is not None:
            found.append(Speaker(worker_name(view.group, view.index), view.name, view.node))
    return found


def choose(speakers: Sequence[Speaker], wanted: str, job: Object) -> list[str]:
    """Return whose logs are printed: the one wanted, else every worker that is known.

    Raises:
        ConfigurationError: there is no such worker.
        NothingThereError: the job has no pods, and none of its workers is known.
    """
    known = {speaker.name for speaker in speakers} | {
        one_line(entry["name"]) for entry in status_of(job).get("workerStatuses") or ()
    }
    workers = sorted(known - {AGGREGATOR}, key=_by_number)
    if wanted in (AGGREGATOR, AGGREGATOR_WORKER):
        return [AGGREGATOR]
    if not wanted:
        if not workers:
            raise NothingThereError(
                f"job {job['metadata']['name']} has no pods of workers: their logs go with them; "
                "the report has what the run knew of its workers"
            )
        return workers
    full = wanted if wanted.startswith("trainworker-") else f"trainworker-{wanted}"
    if full in known:
        return [full]
    shown = ", ".join([AGGREGATOR, *workers[:10]]) + (" ..." if len(workers) > 10 else "")
    raise ConfigurationError(f"there is no worker {wanted}", remedy=f"write one of {shown}")


def told(log: str) -> dict[str, str]:
    """Return by worker what it has sent last before its end, from the aggregator's log."""
    found: dict[str, str] = {}
    lines = log.splitlines()
    for number, line in enumerate(lines):
        match = re.match(r"(trainworker-[a-z0-9]+-\d+) ended with exit code (\d+): (.*)", line)
        if match:
            rest = _until_ours(lines[number + 1 : number + 1 + MOST_TOLD])
            found[match[1]] = "\n".join([f"exit code {match[2]}: {match[3]}", *rest])
    return found


def _until_ours(lines: Iterable[str]) -> list[str]:
    taken = []
    for line in lines:
        if _OURS.match(line):
            break
        taken.append(line)
    return taken


async def _sent(cluster: Cluster, key: JobKey, speakers: Sequence[Speaker]) -> dict[str, str]:
    """Return what workers have sent, from the newest pod of the aggregator whose log can be read."""
    found: dict[str, str] = {}
    for speaker in speakers:
        if speaker.name == AGGREGATOR:
            try:
                found |= told(await _text(cluster, key, speaker, TOLD_LINES))
            except ApiError:
                continue  # asked for by name, it says why
    return {worker: printable(text) for worker, text in found.items()}


async def _log(cluster: Cluster, key: JobKey, speaker: Speaker, tail: int) -> str:
    try:
        return printable(await _text(cluster, key, speaker, tail)).rstrip() or "(nothing yet)"
    except ApiError as error:
        where = f" on node {speaker.node}" if speaker.node else ""
        return f"the log of pod {speaker.pod}{where} cannot be read: {one_line(error.message)}"


async def _text(cluster: Cluster, key: JobKey, speaker: Speaker, tail: int) -> str:
    query = {"container": MAIN_CONTAINER, "tailLines": str(tail), "limitBytes": str(MOST_BYTES)}
    return await cluster.api.text(path_of("Pod", key.namespace, speaker.pod, "log"), query)


def _print_status(job: Object, worker: str) -> None:
    """Print what the job's status says of a worker that is not fine."""
    for entry in status_of(job).get("workerStatuses") or ():
        why = ": ".join(one_line(entry[part]) for part in ("reason", "message") if entry.get(part))
        if entry.get("name") == worker and why:
            print(f"--> status: {why}", flush=True)


def _by_number(name: str) -> tuple[str, int]:
    group, _, index = name.rpartition("-")
    return group, int(index) if index.isdigit() else 0
