"""A cluster in a dictionary: carries out plans as the operator does, and can stop after any single write."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from engram.spec.compact import CompactReport
from engram.spec.names import KIND, Condition, Phase, Reason
from engram.spec.summary import FinalSummary
from engram_operator.model import Credentials, JobView, Object, Observed, Plan, PodView
from engram_operator.reconcile import reconcile
from engram_operator.settings import Settings
from tests.control.builders import (
    DURABLE,
    NOW,
    SETTINGS,
    condition,
    ended,
    job_object,
    live,
    pod,
    stored,
    true,
    valid_status,
)

Write = Callable[[], None]


class Crash(Exception):
    """The operator was killed."""


@dataclass
class World:
    """The API server's store for one job, and a clock."""

    raw: Object | None
    settings: Settings = SETTINGS
    objects: dict[str, Object] = field(default_factory=dict)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    jobs: dict[str, Object] = field(default_factory=dict)
    pods: tuple[PodView, ...] = ()
    events: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    made: int = 0
    now: datetime = NOW
    views: dict[str, dict[str, object]] = field(default_factory=dict)
    """Changes to the views of batch Jobs, as Kubernetes' controllers would make them."""
    changes: dict[str, object] = field(default_factory=dict)
    """Changes to the observation."""

    def observe(self) -> tuple[Observed, Credentials | None]:
        """What the operator sees now, objects included."""
        observed = Observed(
            jobs={name: self._view(name) for name in self.jobs},
            pods=self.pods,
            objects=copy.deepcopy(self.objects),
            secrets={name: tuple(sorted(data)) for name, data in self.secrets.items()},
        )
        return replace(observed, **self.changes), self.credentials()  # type: ignore[arg-type]

    def credentials(self) -> Credentials:
        """What the Secret holds, or new ones."""
        for name, data in self.secrets.items():
            if name.endswith("-credentials"):
                return Credentials(data["key"], data["ca.crt"], data["tls.crt"], data["tls.key"])
        self.made += 1
        return Credentials(f"{self.made:064x}", f"CA{self.made}", f"CERT{self.made}", f"KEY{self.made}")

    def plan(self) -> Plan:
        """What the operator would do now."""
        observed, credentials = self.observe()
        return reconcile(copy.deepcopy(self.raw or {}), credentials, observed, self.settings, self.now)

    def step(self, crash_after: int | None = None) -> Plan:
        """Reconcile once; stop after so many writes if asked. Raises Crash then."""
        plan = self.plan()
        for number, write in enumerate(self._writes(plan)):
            if number == crash_after:
                raise Crash
            write()
        return plan

    def settle(self, most: int = 12) -> list[Plan]:
        """Reconcile until nothing is written; fails when that takes too long, or if nobody would look again.

        Writes to batch Jobs come back by the watches, those to the job itself do not.
        """
        plans: list[Plan] = []
        asleep = False
        for _ in range(most):
            before = len(self.writes)
            plans.append(plan := self.step())
            written = self.writes[before:]
            if written and asleep:
                raise AssertionError(f"nobody would have looked again, to do {written}")
            if not written or self.raw is None:
                return plans
            woken = plan.poll or (plan.wake_after is not None and plan.wake_after <= 1)
            asleep = not woken and all(text.startswith(("status", "event")) for text in written)
            self.now += timedelta(seconds=1)
        raise AssertionError(f"no rest after {most} plans: {self.writes[-10:]}")

    def _writes(self, plan: Plan) -> Iterator[Write]:
        """Yield every write in the order of the operator: Secrets first, status and Events last."""
        secrets = [item for item in plan.create if item["kind"] == "Secret"]
        others = [item for item in plan.create if item["kind"] != "Secret"]
        for item in secrets:
            yield lambda item=item: self._create(item)  # type: ignore[misc]
        for item in plan.apply:
            yield lambda item=item: self._apply(item)  # type: ignore[misc]
        for item in others:
            yield lambda item=item: self._create(item)  # type: ignore[misc]
        for patch in plan.patch:
            yield lambda patch=patch: self._patch(patch.name, dict(patch.body["spec"]))  # type: ignore[misc]
        for removal in plan.delete:
            yield lambda removal=removal: self._delete(removal.kind, removal.name)  # type: ignore[misc]
        if plan.status is not None:
            yield lambda: self._status(plan.status or {})
        for note in plan.notes:
            yield lambda note=note: self._event(note.reason)  # type: ignore[misc]

    def _create(self, item: Object) -> None:
        name = item["metadata"]["name"]
        kept = self.secrets if item["kind"] == "Secret" else self.jobs
        self.writes.append(f"create {item['kind']}/{name}")
        if name in kept:
            raise AssertionError(f"{name} is made twice")
        if item["kind"] == "Secret":
            self.secrets[name] = _decoded(item)
        else:
            self.jobs[name] = copy.deepcopy(item)

    def _apply(self, item: Object) -> None:
        self.writes.append(f"apply {item['kind']}/{item['metadata']['name']}")
        if item["kind"] == "Secret":
            self.secrets.setdefault(item["metadata"]["name"], {}).update(_decoded(item))
        else:
            self.objects |= stored([item])

    def _patch(self, name: str, spec: Object) -> None:
        self.writes.append(f"patch {name} {sorted(spec)}")
        self.jobs[name]["spec"] |= spec

    def _delete(self, kind: str, name: str) -> None:
        self.writes.append(f"delete {kind}/{name}")
        if kind == KIND:
            self.raw = None
        elif kind == "Secret":
            self.secrets.pop(name, None)
        else:
            self.jobs.pop(name, None)
            self.pods = tuple(pod for pod in self.pods if pod.owner != name)

    def _status(self, status: Object) -> None:
        self.writes.append("status")
        if self.raw is not None:
            self.raw = {**self.raw, "status": copy.deepcopy(status)}

    def _event(self, reason: str) -> None:
        self.writes.append(f"event {reason}")
        self.events.append(reason)

    def _view(self, name: str) -> JobView:
        view = JobView.from_object({**self.jobs[name], "status": {"startTime": "2026-01-02T12:00:00Z"}})
        return replace(view, **self.views.get(name, {}))  # type: ignore[arg-type]

    def state(self) -> Object:
        """Everything that lasts, without times."""
        status = (self.raw or {}).get("status") or {}
        return {
            "objects": self.objects,
            "secrets": {name: sorted(data) for name, data in self.secrets.items()},
            "jobs": self.jobs,
            "phase": status.get("phase"),
            "conditions": [
                (item["type"], item["status"], item["reason"]) for item in status.get("conditions") or ()
            ],
        }


def _decoded(secret: Object) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


LOCAL = {"partition": {"method": "local"}, "volume": {"hostPath": {"path": "/data"}}}

FLEET = (pod(), pod(0), pod(1))


def started(**spec: Any) -> World:
    """A job whose objects have been made."""
    world = World(job_object(**{"aggregator": DURABLE, **spec}))
    world.settle()
    world.writes.clear()
    world.events.clear()
    return world


def up(**spec: Any) -> World:
    """A job that runs."""
    world = started(**spec)
    world.pods = FLEET
    world.settle()
    assert status(world)["phase"] == Phase.RUNNING
    world.writes.clear()
    world.events.clear()
    return world


def status(world: World) -> dict[str, Any]:
    assert world.raw is not None
    found: dict[str, Any] = world.raw["status"]
    valid_status(found)
    for item in found["conditions"]:
        reason = Reason(item["reason"])
        assert item["type"] in reason.conditions, f"{item['type']} may not say {reason}"
    return found


def says(world: World, kind: Condition) -> tuple[str, str]:
    found = condition(status(world), kind)
    return found["status"], found["reason"]


def edit(world: World, **spec: Any) -> None:
    assert world.raw is not None
    world.raw = copy.deepcopy(world.raw)
    world.raw["spec"] |= spec
    world.raw["metadata"]["generation"] += 1


SUMMARY = FinalSummary(
    outcome="complete",
    metrics={"accuracy": "0.9310", "forgetRate": "0.0420"},
    tasks=[{"index": 1, "classes": [0, 1], "accuracy": "0.99"}],
    display={"task": "5/5", "round": "25/25", "accuracy": "93.1%", "forgetting": "4.2%"},
    progress={"task": 5, "tasks": 5, "round": 25, "rounds": 25, "percent": 100},
    rounds=25,
    resumes=1,
)
AGGREGATION = "digits-aggregation"


def done(world: World, kind: str = "Complete", message: str | None = None) -> None:
    """The aggregator has ended with exit code 0."""
    world.pods = (
        ended(None, 0, SUMMARY.encode() if message is None else message),
        *(view for view in world.pods if view.index is not None),
    )
    world.views[AGGREGATION] = {"conditions": {kind: true(since=world.now)}, "active": 0}


REPORT = "digits-report"
COMPACT = CompactReport({"report.json": "{}", "report.md": "# digits\n"})


def serving(world: World, phase: Phase = Phase.SUCCEEDED) -> None:
    """The aggregator has come to its end and waits for its record to be fetched."""
    world.changes["live"] = live(phase=phase, recordServed=True)


def printed(world: World, report: CompactReport | None = COMPACT, problem: str = "") -> None:
    """The report's pod is done; `report` is what the operator reads in its log."""
    world.views[REPORT] = {"conditions": {"Complete": true(since=world.now)}, "active": 0}
    world.changes |= {"report": report, "report_problem": problem}


def workers_end(world: World) -> None:
    """The workers have ended with exit code 0, and their Job knows."""
    world.pods = (world.pods[0], ended(0), ended(1))
    world.views["digits-edge"] = {"conditions": {"Complete": true(since=world.now)}, "active": 0}


def failed(world: World, *tries: PodView, reason: str = "BackoffLimitExceeded", kind: str = "Failed") -> None:
    """The aggregation Job has failed."""
    world.pods = (*tries, *(view for view in world.pods if view.index is not None))
    world.views[AGGREGATION] = {"conditions": {kind: true(reason, "Job has failed", world.now)}, "failed": 1}
