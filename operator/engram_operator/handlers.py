"""What kopf does for us: it watches the FederatedIncrementalJobs and wakes the controller. Nothing else.

Only event handlers, which write nothing: no finalizer (with the operator gone, jobs and namespaces would
hang), no annotations, no Events of kopf's own. They return at once; retries, order and bounds are the queue's
affair.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import kopf
from kopf._cogs.structs.references import Insights  # nothing public tells what kopf watches

from engram.spec.names import GROUP, PLURAL, VERSION
from engram_operator.settings import Settings

logger = logging.getLogger(__name__)

__all__ = ["Ending", "Insights", "Woken", "build_registry", "end_if_blind", "kopf_settings"]

EXIT_SECONDS = 30.0
"""After which kopf gives up on an orderly end."""
ERROR_BACKOFFS = (0.5, 1.0, 2.0, 3.0)
"""Seconds between kopf's attempts at a request; then its watch starts over, however long an outage lasts."""


class Woken(Protocol):
    """What the handlers need of the controller."""

    def job_seen(self, job: Mapping[str, Any], *, listed: bool = False) -> None:
        """A FederatedIncrementalJob has come or changed, or was found in a list."""

    def job_gone(self, job: Mapping[str, Any]) -> None:
        """A FederatedIncrementalJob is gone."""

    async def run(self) -> None:
        """Work until cancelled."""


@dataclass
class Ending:
    """How the operator ends."""

    flag: asyncio.Event
    """Set to make kopf end, and at its end: kopf would wait five seconds for whoever waits for it."""
    broken: bool = False
    """Whether the controller broke."""


class NothingKept(kopf.DiffBaseStorage):
    """What kopf keeps of a job to tell what has changed: nothing, nobody asks.

    Else it would copy each job whole at each event, which a job that nests deeply breaks.
    """

    def build(self, *, body: kopf.Body, extra_fields: object = None) -> kopf.BodyEssence:
        """Return what may differ."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> None:
        """Return what was kept."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Keep it: the operator writes nothing of kopf's into jobs."""
        return None


def kopf_settings(settings: Settings) -> kopf.OperatorSettings:
    """Return kopf's settings: a silent, single, standalone observer."""
    ours = kopf.OperatorSettings()
    ours.posting.enabled = False
    ours.peering.standalone = True
    ours.persistence.diffbase_storage = NothingKept()
    # The CRD is checked at start; watching CRDs and namespaces would need rights that nothing else needs.
    ours.scanning.disabled = True
    ours.networking.request_timeout = settings.request_seconds
    ours.networking.connect_timeout = settings.connect_seconds
    ours.networking.error_backoffs = ERROR_BACKOFFS
    ours.process.ultimate_exiting_timeout = EXIT_SECONDS
    ours.queueing.idle_timeout = 1.0
    return ours


async def end_if_blind(insights: Insights, ending: Ending) -> None:
    """End the operator when kopf has found nothing to watch: it would wait for ever, and say nothing.

    An API server that has just started may not serve the CRD yet at the moment when kopf asks, once.
    """
    await insights.ready_resources.wait()
    if not insights.watched_resources:
        logger.error("the API server does not serve %s.%s yet: starting again mends it", PLURAL, GROUP)
        ending.broken = True
        ending.flag.set()


def build_registry(
    controller: Woken, login: Callable[[], Awaitable[kopf.ConnectionInfo]], ending: Ending
) -> kopf.OperatorRegistry:
    """Return the handlers of one operator.

    Args:
        controller: woken by events; runs between startup and cleanup.
        login: tells where the cluster is, at start and after each 401.
        ending: told when the controller has broken, so that kopf ends, too.
    """
    registry = kopf.OperatorRegistry()
    tasks: list[asyncio.Task[None]] = []

    @kopf.on.login(registry=registry)
    async def log_in(**_: Any) -> kopf.ConnectionInfo:
        return await login()

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            ending.broken = True
            ending.flag.set()

    @kopf.on.startup(registry=registry)
    async def start(**_: Any) -> None:
        task = asyncio.create_task(controller.run(), name="controller")
        task.add_done_callback(ended)
        tasks.append(task)

    @kopf.on.cleanup(registry=registry)
    async def end(**_: Any) -> None:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                logger.error("the controller broke", exc_info=result)
        ending.flag.set()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def job_event(event: Mapping[str, Any], **_: Any) -> None:
        job: Mapping[str, Any] = event["object"]
        if event["type"] == "DELETED":
            controller.job_gone(job)
        else:
            controller.job_seen(job, listed=event["type"] is None)

    return registry
