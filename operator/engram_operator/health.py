"""/healthz and /metrics of the operator.

A server that answers says nothing: a loop can be alive with its queue stuck. So health is the age of what
ought to happen: the watches' last sign of life (bookmarks come every minute, failed attempts count) and the
oldest work in the queue (every request has a deadline, so none takes minutes). A blocked event loop answers
nothing at all, which the kubelet's own deadline notices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from engram.spec.names import HEALTH_PATH, METRICS_PATH
from engram_operator.errors import StartError

MOST_SECONDS = 300.0
"""Silence, or work on one job, for longer than this is a stall."""


class Pulse:
    """When something last happened."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = clock()

    def beat(self) -> None:
        """Something happened."""
        self._last = self._clock()

    def age(self) -> float:
        """Return the seconds since."""
        return self._clock() - self._last


def complaints(ages: Iterable[tuple[str, float]], most: float = MOST_SECONDS) -> str:
    """Return what is wrong, a line each; empty: all is well. `ages` is a sentence and its seconds."""
    return "\n".join(f"{sentence} for {age:.0f} s" for sentence, age in ages if age > most)


class HealthServer:
    """Serves /healthz and /metrics.

    Args:
        ages: sentences and how many seconds each has been true for.
    """

    def __init__(
        self, port: int, registry: CollectorRegistry, ages: Callable[[], Iterable[tuple[str, float]]]
    ) -> None:
        self._port, self._registry, self._ages = port, registry, ages
        application = web.Application()
        application.router.add_get(HEALTH_PATH, self._health)
        application.router.add_get(METRICS_PATH, self._metrics)
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self) -> None:
        """Start serving on all addresses.

        Raises:
            StartError: the port cannot be had.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, port=self._port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise StartError(
                f"port {self._port} for /healthz and /metrics cannot be used ({error.strerror}): choose "
                "another with --health-port, or 0 for none"
            ) from error

    async def stop(self) -> None:
        """Stop serving."""
        await self._runner.cleanup()

    async def _health(self, _request: web.Request) -> web.Response:
        wrong = complaints(self._ages())
        return web.Response(text=(wrong or "ok") + "\n", status=503 if wrong else 200)

    async def _metrics(self, _request: web.Request) -> web.Response:
        text = generate_latest(self._registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})
