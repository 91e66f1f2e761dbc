"""A small file that is read anew whenever it is needed, since it may be renewed, and remembered, since it may
go away under a process that runs on.

KubeEdge's edgecore, started again while its node is cut off, empties the volumes of pods that never stopped:
a ConfigMap's files are gone until somebody mounts them for a new container (docs/kubeedge.md).
"""

from __future__ import annotations

from pathlib import Path


class StandingFile:
    """Bytes that stand as they were read last where they cannot be read any more."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last: bytes | None = None

    def read(self) -> bytes:
        """Return them. Raises OSError for a file that never could be read."""
        try:
            self._last = self.path.read_bytes()
        except OSError:
            if self._last is None:
                raise
        return self._last
