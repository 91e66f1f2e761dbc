"""What the builders need to know beside the job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from engram.spec.topology import WorkerGroup
from engram_operator.model import Credentials
from engram_operator.settings import Settings


@dataclass(frozen=True)
class Context:
    """Settings of the operator and what was worked out or read for this job."""

    settings: Settings
    credentials: Credentials
    endpoints: tuple[str, ...]
    """What `endpoints_of` returned. Empty while a node port is not known: then only the Services of the
    children are of use."""
    replicas: Mapping[str, int] = field(default_factory=dict)
    """Group name -> workers wanted now, where that is another number than the job's: a computed split stays
    that of the start while some of its workers rest."""

    def replicas_of(self, group: WorkerGroup) -> int:
        """Return how many workers of `group` shall run."""
        return self.replicas.get(group.name, group.replicas)
