"""How the supervisor watches an aggregator: its status over HTTP, its lines in its log."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engram.run.observers import ROUND_MARK, TASK_MARK
from engram.run.ports import LOOPBACK
from engram.spec.names import STATUS_PATH

PATIENCE_SECONDS = 1.0


def fetch_status(port: int) -> Mapping[str, Any] | None:
    """Return the aggregator's status, None while it does not answer."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", STATUS_PATH)
        response = connection.getresponse()
        found = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return found if response.status == 200 and isinstance(found, dict) else None


class LineTail:
    """Reads the lines of rounds and tasks that a growing log has gained."""

    def __init__(self, path: Path) -> None:
        """Lines that the file holds already (of a run before `--resume`) are passed over."""
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0
        self._rest = b""
        self.newest = ""
        """The last line that was read."""

    def read(self) -> list[str]:
        """Return the new complete lines."""
        try:
            with self._path.open("rb") as log:
                log.seek(self._offset)
                new = log.read()
        except OSError:
            return []
        self._offset += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        found = [line.decode(errors="replace") for line in lines]
        known = [line for line in found if line.startswith((ROUND_MARK, TASK_MARK))]
        self.newest = known[-1] if known else self.newest
        return known
