"""Whether a worker that says hello belongs to this run (its name, version, job file and data split), and what
it is told then.
"""

from __future__ import annotations

from engram.errors import RefusedError
from engram.federation.messages import Hello, Welcome
from engram.federation.settings import Settings
from engram.federation.versions import refusal


def check_hello(worker: str, hello: Hello, settings: Settings, split_digest: str) -> None:
    """Raise RefusedError, which says what differs, when the connection of `worker` brings a hello that does
    not fit.
    """
    if hello.worker != worker or not settings.may_join(worker):
        raise RefusedError(f"{hello.worker} is no worker of this job, or speaks for another")
    other_version = refusal(worker, hello.version, hello.protocol)
    if other_version is not None:
        raise RefusedError(other_version)
    if hello.job_digest != settings.job_digest:
        raise RefusedError(
            f"{worker} has another job file (digest {hello.job_digest[:12]}, here "
            f"{settings.job_digest[:12]}): start both from the same file"
        )
    if hello.split_digest != split_digest:
        raise RefusedError(
            f"{worker} splits its data otherwise (digest {hello.split_digest[:12]}, here "
            f"{split_digest[:12]}): give both the same data set"
        )


def welcome(settings: Settings, position: tuple[int, int], state: bytes, resend: bool) -> Welcome:
    """Return the answer to a hello: where the run is, and the state that the worker left here."""
    task, round = position
    return Welcome(
        job_digest=settings.job_digest,
        task=task,
        round=round,
        heartbeat_seconds=settings.heartbeat_seconds,
        state=state,
        resend=resend,
        whole_bytes=settings.whole_bytes,
    )
