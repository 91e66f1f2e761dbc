"""Who a process is, and how it proves it."""

from __future__ import annotations

from pathlib import Path

from engram.errors import ConfigurationError
from engram.spec import FederatedIncrementalJob, WorkerIdentity
from engram.spec.names import split_worker_name


def find_worker(job: FederatedIncrementalJob, *, name: str = "", index: int | None = None) -> WorkerIdentity:
    """Return the worker called `name`, or the one at position `index` over all groups, from 0.

    With partition `local` a group may have grown since the job file was written: a name beyond its replicas
    is a newcomer, whose position comes after all others'.
    """
    workers = job.workers()
    for worker in workers:
        if worker.name == name or (not name and worker.position == index):
            return worker
    newcomer = _newcomer(job, name)
    if newcomer is not None:
        return newcomer
    wanted = f"called {name}" if name else f"with index {index}" if index is not None else "without a name"
    known = f"{workers[0].name} ... {workers[-1].name}" if len(workers) > 1 else workers[0].name
    raise ConfigurationError(
        f"{job.name} has no worker {wanted}",
        field="--name" if name else "--index",
        remedy=f"its workers are {known}, indices 0 to {len(workers) - 1}",
    )


def job_uid(job: FederatedIncrementalJob) -> str:
    """Return what stands for the job in tokens: Kubernetes' uid, locally the name."""
    return job.metadata.uid or job.name


def read_secret(path: Path) -> str:
    """Return the text of a key or token file."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"the secret cannot be read: {error}", file=str(path), remedy="mount or write it there"
        ) from error
    if not text:
        raise ConfigurationError("the secret is empty", file=str(path))
    return text


def read_key(path: Path) -> bytes:
    """Return the key in a key file, which holds it in hexadecimal."""
    try:
        return bytes.fromhex(read_secret(path))
    except ValueError as error:
        raise ConfigurationError(
            "the key is not hexadecimal", file=str(path), remedy="write 64 hexadecimal digits"
        ) from error


def _newcomer(job: FederatedIncrementalJob, name: str) -> WorkerIdentity | None:
    named = split_worker_name(name)
    if named is None or job.spec.dataset.partition.method != "local":
        return None
    group, index = named
    members = [worker for worker in job.workers() if worker.group == group]
    if not members:
        return None
    beyond = len(job.workers()) + index - len(members)
    return members[-1].model_copy(update={"name": name, "index": index, "position": beyond})
