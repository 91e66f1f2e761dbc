"""What is asked of a run under way, in one place: the job, what was seen of it, and what follows at once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from engram.errors import ConfigurationError
from engram.spec.names import Condition, Reason, Role, SpecKey
from engram_operator.manifests import checkpoint_is_durable, endpoints_of
from engram_operator.manifests.names import (
    aggregation_name,
    credentials_name,
    group_name,
    node_port_name,
    spec_name,
)
from engram_operator.model import Credentials, Object, Observed
from engram_operator.reconcile.effective import Effective
from engram_operator.settings import Settings
from engram_operator.status import holds, view


@dataclass(frozen=True)
class Run:
    """Everything that is asked of a run under way, in one place."""

    raw: Object
    held: Effective
    credentials: Credentials | None
    observed: Observed
    settings: Settings
    now: datetime

    @property
    def status(self) -> Object:
        """The status as it is."""
        found: Object = self.raw.get("status") or {}
        return found

    @property
    def name(self) -> str:
        """The job's name."""
        return str(self.raw["metadata"]["name"])

    @property
    def durable(self) -> bool:
        """Whether the checkpoint outlives the aggregator's pod."""
        return checkpoint_is_durable(self.held.job)

    @property
    def at_rest(self) -> bool:
        """Whether the run is suspended: status says so, or its batch Jobs are (a crash came in between)."""
        jobs = [job for job in self.observed.jobs.values() if job.role != Role.REPORT]
        return holds(self.status, Condition.SUSPENDED) or (bool(jobs) and all(job.suspend for job in jobs))

    @property
    def rests(self) -> bool:
        """Whether the run shall rest; what was suspended before may rest on with any checkpoint."""
        return self.held.suspend and (self.durable or self.at_rest)

    @property
    def lost(self) -> bool:
        """Whether the Secret is gone that everything else is derived from."""
        if not self.observed.complete:
            degraded = view(self.status, Condition.DEGRADED)
            return degraded is not None and degraded.true and degraded.reason == Reason.CREDENTIALS_LOST
        missing = credentials_name(self.name) not in self.observed.secrets
        return bool(self.status.get("startTime")) and (missing or self.credentials is None)

    @property
    def job_names(self) -> dict[str, str]:
        """Worker group, and "" for the aggregator -> name of its batch Job."""
        return {
            "": aggregation_name(self.name),
            **{group: group_name(self.name, group) for group in self.held.replicas},
        }

    @property
    def endpoint(self) -> str:
        """What workers dial first; empty: not known yet."""
        known: Any = (self.status.get("aggregator") or {}).get("endpoint")
        return next(iter(self._stored_endpoints()), str(known or ""))

    def endpoints(self) -> tuple[str, ...]:
        """Return where workers find the aggregator: worked out anew, or as it was where that fails now."""
        service = self.observed.objects.get(f"Service/{node_port_name(self.name)}")
        try:
            found = endpoints_of(self.held.job, service, self.observed.nodes, self.settings)
        except ConfigurationError:
            found = ()
        return found or self._stored_endpoints()

    def _stored_endpoints(self) -> tuple[str, ...]:
        config = self.observed.objects.get(f"ConfigMap/{spec_name(self.name)}") or {}
        return tuple(str((config.get("data") or {}).get(SpecKey.ENDPOINTS) or "").split())
