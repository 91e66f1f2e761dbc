"""The process `engram-operator`: settings, checks, then kopf and the controller until a signal.

    python -m engram_operator [--kubeconfig FILE] [--namespace NAME] [--image IMAGE]

Exit code 0 after SIGTERM or SIGINT, 42 for a wrong setting, 1 when it cannot start or has broken.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import kopf

from engram import __version__
from engram.errors import EngramError
from engram_operator.api import Api
from engram_operator.controller import Controller
from engram_operator.handlers import Ending, Insights, build_registry, end_if_blind, kopf_settings
from engram_operator.health import HealthServer
from engram_operator.login import connection_info, load_configuration, runs_in_pod
from engram_operator.observing import Clock
from engram_operator.preflight import check, until_outdated
from engram_operator.reconcile import reconcile
from engram_operator.settings import Settings, read_settings

DEEPEST_JSON = 12_000
"""Levels of JSON that can be read: the API server takes 10,000 of an object, and kopf, which reads every job,
ends at one that it cannot read. From Python 3.12 on the parser has a limit of its own, about as high."""

logger = logging.getLogger("engram_operator")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the operator; never returns."""
    try:
        settings = read_settings(sys.argv[1:] if arguments is None else arguments, os.environ)
        settings = replace(settings, in_cluster=runs_in_pod(settings))
        _log(settings)
        sys.setrecursionlimit(DEEPEST_JSON)
        broken = asyncio.run(operate(settings))
    except EngramError as error:
        print(f"engram-operator: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        broken = False
    sys.exit(1 if broken else 0)


async def operate(settings: Settings) -> bool:
    """Run until a signal; return whether it ended because something broke.

    Raises:
        EngramError: it cannot start.
    """
    configuration = await load_configuration(settings)
    api = Api(lambda: load_configuration(settings), settings)
    try:
        await check(api, configuration.host, settings)
        controller = Controller(api, reconcile, settings, Clock(lambda: datetime.now(UTC), time.monotonic))
        server = HealthServer(settings.health_port, controller.metrics.registry, controller.ages)
        if settings.health_port:
            await server.start()
        where = ", ".join(settings.namespaces) or "all namespaces"
        logger.info("engram-operator %s works on %s of %s", __version__, where, configuration.host)
        try:
            return await _watch(controller, api, settings)
        finally:
            await server.stop()
    finally:
        await api.close()


async def _watch(controller: Controller, api: Api, settings: Settings) -> bool:
    """Run kopf, which runs the controller, until a signal, an older CRD, or until the controller breaks."""
    ending = Ending(asyncio.Event())

    async def login() -> kopf.ConnectionInfo:
        return connection_info(await load_configuration(settings))

    async def end_if_outdated() -> None:
        logger.error("%s: until then no job is touched", await until_outdated(api))
        ending.broken = True
        ending.flag.set()

    insights = Insights()
    guards = [asyncio.create_task(end_if_blind(insights, ending)), asyncio.create_task(end_if_outdated())]
    try:
        await kopf.operator(
            registry=build_registry(controller, login, ending),
            settings=kopf_settings(settings),
            clusterwide=not settings.namespaces,
            namespaces=settings.namespaces,
            stop_flag=ending.flag,
            insights=insights,
        )
    finally:
        for guard in guards:
            guard.cancel()
    return ending.broken


def _log(settings: Settings) -> None:
    """Log to standard error; kopf speaks up only when something is wrong."""
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    if settings.log_level != "debug":
        logging.getLogger("kopf").setLevel(logging.WARNING)


if __name__ == "__main__":
    main()
