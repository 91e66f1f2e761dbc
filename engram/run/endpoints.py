"""Where a worker finds the aggregator: what it was told, asked again before each attempt to reconnect."""

from __future__ import annotations

import os
from pathlib import Path

from engram.errors import ConfigurationError
from engram.federation.standing import StandingFile
from engram.spec.names import FEDERATION_PORT, Environment


class Endpoints:
    """Endpoints in the order in which they are tried: those given, or what file and environment say now."""

    def __init__(self, given: tuple[str, ...] = (), file: Path | None = None) -> None:
        """Try `given`, each `HOST:PORT` or a URL.

        `file` has one a line; it is of a mounted ConfigMap, so it may change while the worker runs.
        """
        self._given = given
        self._file = None if file is None else StandingFile(file)

    def __call__(self) -> tuple[str, ...]:
        """Return them without repetition.

        Without any given: the file's lines, then ENGRAM_AGGREGATOR_ENDPOINTS (comma-separated), then AGG_IP
        and AGG_PORT, Sedna's names. Raises ConfigurationError when there is none, or one without a port.
        """
        found = self._given or (*self._lines(), *_environment())
        if not found:
            raise ConfigurationError(
                "where the aggregator is was not said",
                field="--endpoint",
                remedy=f"write --endpoint HOST:PORT, or set {Environment.AGG_IP} and {Environment.AGG_PORT}",
            )
        return tuple(dict.fromkeys(map(_with_port, found)))

    def _lines(self) -> tuple[str, ...]:
        """Return the file's lines; none while it never was there: the environment may know."""
        if self._file is None:
            return ()
        try:
            lines = self._file.read().decode().splitlines()
        except (OSError, UnicodeDecodeError):
            return ()
        return tuple(line.strip() for line in lines if line.strip())


def _environment() -> tuple[str, ...]:
    listed = os.environ.get(Environment.ENGRAM_AGGREGATOR_ENDPOINTS, "")
    found = tuple(part.strip() for part in listed.split(",") if part.strip())
    address = os.environ.get(Environment.AGG_IP, "")
    if address:
        found = (*found, f"{address}:{os.environ.get(Environment.AGG_PORT) or FEDERATION_PORT}")
    return found


def _with_port(endpoint: str) -> str:
    """Return the endpoint; without a port a worker would dial in vain for `runPolicy.orphanSeconds`."""
    if "://" not in endpoint and not endpoint.rpartition(":")[2].isdigit():
        raise ConfigurationError(
            f"{endpoint!r} names no port", field="--endpoint", remedy=f"write {endpoint}:{FEDERATION_PORT}"
        )
    return endpoint
