"""A training run on real nodes that is watched while faults happen to it.

A thread looks several times a second, and keeps what it saw: at the job's status as the user sees it, and at
the aggregator's own `/v1/status`, asked from inside a node so that it answers when the API server does not.
So a test never misses what was true for a second only, and recovery times are read off afterwards.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from urllib3.exceptions import HTTPError

from engram.spec.names import KIND, STATUS_PATH, STATUS_PORT, Condition, Label, Phase, Reason, Role
from engram_operator.manifests.names import aggregation_name
from tests.cluster import binaries
from tests.cluster.api import ApiError, Object
from tests.cluster.node_level import NodeLevel
from tests.cluster.waiting import NotYet, until
from tests.e2e.jobs import Jobs, Matrix, condition_of

EVERY = 0.2
"""Seconds between two looks."""
ENDS_WITHIN = 300.0
"""Seconds within which a run must end after its last fault, on a busy machine."""
CLOUD = "cloud"


@dataclass(frozen=True)
class Sample:
    """What was seen at one moment."""

    at: float
    """`time.monotonic()`."""
    status: Object
    """The job's status as users see it; the last one known while the API server is away."""
    round: int
    """Round under way over the whole run, in the aggregator's own words; 0 when it does not answer."""

    @property
    def phase(self) -> str:
        """The job's phase, empty before the operator's first word."""
        return str(self.status.get("phase", ""))

    def says(self, reason: Reason) -> bool:
        """Tell whether Degraded or one of the workers carries `reason`."""
        degraded = condition_of(self.status, Condition.DEGRADED)
        workers = self.status.get("workerStatuses") or ()
        own = degraded.get("status") == "True" and degraded["reason"] == reason
        return own or any(item.get("reason") == reason for item in workers)

    def __str__(self) -> str:
        degraded = condition_of(self.status, Condition.DEGRADED)
        why = f"{degraded.get('reason')}: {degraded.get('message')}"
        return f"phase {self.phase}, round {self.round}, Degraded {degraded.get('status')}, {why}"


@dataclass(frozen=True)
class Told:
    """What the status said, and how many seconds after the fault."""

    reason: Reason
    seconds: float


@dataclass
class Recording:
    """Everything that was seen of a run so far."""

    look: Callable[[], Sample]
    samples: list[Sample] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Look from now on."""
        self._thread = threading.Thread(target=self._run, name="recording")
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def first(
        self, condition: Callable[[Sample], bool], what: str, *, since: float = 0.0, seconds: float = 60.0
    ) -> Sample:
        """Return the first sample from `since` on that meets `condition`; wait for it if need be."""

        def found() -> Sample:
            if self._thread is None or not self._thread.is_alive():
                raise RuntimeError("nobody looks any more")
            seen = list(self.samples)
            for sample in seen:
                if sample.at >= since and condition(sample):
                    return sample
            raise NotYet(str(seen[-1]) if seen else "nothing was seen")

        return until(found, what, seconds=seconds, every=EVERY)

    def closed(self, since: float) -> list[float]:
        """Return when rounds were seen closed since then."""
        answered = [sample for sample in list(self.samples) if sample.round]
        return [
            after.at
            for before, after in pairwise(answered)
            if after.at > since and after.round > before.round
        ]

    def _run(self) -> None:
        while not self._stop.is_set():
            self.samples.append(self.look())
            self._stop.wait(EVERY)


class Training:
    """One job, watched from its creation on; `close` it."""

    def __init__(self, jobs: Jobs, level: NodeLevel, job: Object) -> None:
        self.jobs, self.level, self.name = jobs, level, str(job["metadata"]["name"])
        self._eyes = level.api()
        self._status: Object = {}
        self._address = ""
        self.recording = Recording(self._look)
        jobs.apply(job)
        self.recording.start()

    def close(self) -> None:
        """Look no more; the job itself goes with its namespace."""
        self.recording.stop()
        self._eyes.close()

    def reach(self, number: int) -> Sample:
        """Wait until round `number` or a later one is under way."""
        return self.recording.first(
            lambda sample: sample.round >= number, f"round {number}", since=time.monotonic(), seconds=120
        )

    def told(self, reason: Reason, since: float) -> Told:
        """Return how long after `since` the status said `reason`; wait for it if need be."""
        found = self.recording.first(
            lambda sample: sample.says(reason), f"{reason} in the status", since=since, seconds=90
        )
        return Told(reason, found.at - since)

    def well(self, since: float) -> None:
        """Wait until the status has said after `since` that nothing is wrong."""

        def fine(sample: Sample) -> bool:
            return condition_of(sample.status, Condition.DEGRADED).get("status") == "False"

        self.recording.first(fine, "the end of Degraded", since=since, seconds=120)

    def standstill(self, since: float) -> tuple[float, float]:
        """Return begin and end of the longest time since then in which no round closed."""
        times = [since, *self.recording.closed(since)]
        assert len(times) > 1, "no round was closed after the fault"
        return max(pairwise(times), key=lambda pair: pair[1] - pair[0])

    def succeeds(self) -> Matrix:
        """Wait for the end; return the accuracy matrix. Raises AssertionError for a run that failed."""
        ended = self.recording.first(
            lambda sample: sample.phase in (Phase.SUCCEEDED, Phase.FAILED),
            "the run's end",
            seconds=ENDS_WITHIN,
        )
        assert ended.phase == Phase.SUCCEEDED, ended.status["message"]
        return self.jobs.matrix(self.name)

    def pod(self, role: Role, group: str = "") -> Object:
        """Return the one pod of a role or group that has not ended. Raises AssertionError for none or two."""
        found = [
            pod
            for pod in self.jobs.pods(self.name, role, group)
            if pod["status"]["phase"] not in ("Succeeded", "Failed")
        ]
        assert len(found) == 1, [pod["metadata"]["name"] for pod in found]
        return found[0]

    def uids(self) -> set[str]:
        """Return the uids of the run's pods: who is still there has not been replaced.

        The report's pod comes when the run is over, and is none of them.
        """
        pods = self.jobs.pods(self.name)
        return {
            pod["metadata"]["uid"] for pod in pods if pod["metadata"]["labels"][Label.ROLE] != Role.REPORT
        }

    def _look(self) -> Sample:
        try:
            namespace = self.jobs.namespace
            self._status = self._eyes.get(KIND, self.name, namespace).get("status") or {}
            if not self._address:
                service = self._eyes.get("Service", aggregation_name(self.name), namespace)
                self._address = service["spec"]["clusterIP"]
        except (ApiError, HTTPError):
            pass  # the API server is away, or the object is not there yet
        return Sample(time.monotonic(), self._status, self._round())

    def _round(self) -> int:
        """Return the round under way as the aggregator says it, 0 for no answer."""
        if not self._address:
            return 0
        url = f"http://{self._address}:{STATUS_PORT}{STATUS_PATH}"
        try:
            text = self.level.nodes[CLOUD].run([binaries.find("probe"), "get", url, "0"], seconds=10)
            return int(json.loads(text)["progress"].get("round") or 0)
        except (RuntimeError, ValueError, KeyError):
            return 0
