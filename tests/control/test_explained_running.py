"""Faults of a job that runs: what a user reads, that the run goes on, and what mends it."""

from __future__ import annotations

import pytest

from engram.spec.exit_codes import ExitCode
from engram.spec.names import Child, Condition, Phase, Reason, Role
from engram.spec.summary import FinalSummary
from tests.cluster.api import Object
from tests.cluster.fake_kubelet import Ending, end_pod
from tests.cluster.kubectl import KubectlError
from tests.cluster.waiting import until
from tests.control.explaining import User, World, job_of

pytestmark = [pytest.mark.control, pytest.mark.timeout(240)]

DURABLE: Object = {"aggregator": {"checkpoint": {"volume": {"hostPath": {"path": "/srv/checkpoint"}}}}}


def test_the_secret_deleted_while_running(user: User, world: World) -> None:
    user.apply(job_of("vault", DURABLE))
    user.until_phase("vault", Phase.RUNNING)
    secret = f"vault-{Child.CREDENTIALS}"
    before = user.children("vault")

    user.kubectl.delete("secret", secret)
    user.poke("vault", world.operator)

    words = (
        f"Secret {secret} was deleted",
        "running pods go on",
        "set spec.suspend to true and back to false",
    )
    user.until_told("vault", Reason.CREDENTIALS_LOST, *words, phase=Phase.RUNNING)
    user.poke("vault", world.operator)
    assert user.warnings("vault") == [Reason.CREDENTIALS_LOST]
    now = user.children("vault")
    assert f"Secret/{secret}" not in now
    assert {key: uid for key, uid in now.items() if key.startswith("Pod/")} == {
        key: uid for key, uid in before.items() if key.startswith("Pod/")
    }

    for suspend, phase in (("true", Phase.SUSPENDED), ("false", Phase.RUNNING)):
        user.kubectl.run(
            "patch", "fij", "vault", "--type=merge", f'--patch={{"spec":{{"suspend":{suspend}}}}}'
        )
        user.until_phase("vault", phase, seconds=60)
    assert f"Secret/{secret}" in user.children("vault")
    assert user.condition("vault", Condition.DEGRADED)["status"] == "False"
    assert user.warnings("vault") == [Reason.CREDENTIALS_LOST]


def test_an_edit_that_cannot_change_a_running_job(user: User) -> None:
    user.apply(job_of("stone"))
    user.until_phase("stone", Phase.RUNNING)

    with pytest.raises(KubectlError, match="the job has started: only ") as refusal:
        user.apply(job_of("stone", {"seed": 7}))
    assert "Delete the job and apply it anew for the rest" in str(refusal.value)
    user.apply(job_of("stone", {"algorithm": {"parameters": {"unknown": 1}}}))

    def told() -> str:
        accepted = user.condition("stone", Condition.ACCEPTED)
        return str(accepted["message"]) if accepted["reason"] == Reason.SPEC_CHANGE_IGNORED else ""

    message = until(told, "the edit to be answered")
    print(message)
    assert "spec.algorithm.parameters.unknown: unknown parameter" in message
    assert "delete the job and apply it anew" in message
    until(lambda: user.warnings("stone"), "the Event, which follows the status")
    assert user.warnings("stone") == [Reason.SPEC_CHANGE_IGNORED]
    assert user.status("stone")["phase"] == Phase.RUNNING


DOTTED = "spec.algorithm.name: 'photos.algorithms:Mine' cannot be imported: No module named 'photos'"
TAKEN = "port 7363 of 0.0.0.0 is taken: end what listens there, or take another port"
ENDS: dict[str, tuple[Role, Ending, Reason, Phase, tuple[str, ...]]] = {
    "configuration": (
        Role.AGGREGATOR,
        Ending(42, FinalSummary(outcome="failed", exit_code=42, message=DOTTED).encode()),
        Reason.CONFIGURATION_ERROR,
        Phase.FAILED,
        (DOTTED,),
    ),
    "port": (
        Role.AGGREGATOR,
        Ending(42, FinalSummary(outcome="failed", reason="PortTaken", exit_code=42, message=TAKEN).encode()),
        Reason.PORT_TAKEN,
        Phase.FAILED,
        (TAKEN, "with another spec.aggregator.nodeName"),
    ),
    "loss": (
        Role.WORKER,
        Ending(ExitCode.CONFIGURATION, "NumericalError: task 1, round 2: the loss is nan"),
        Reason.NUMERICAL_ERROR,
        Phase.RUNNING,
        ("trainworker-edge-0: task 1, round 2: the loss is nan; it is not replaced",),
    ),
    "data": (
        Role.WORKER,
        Ending(ExitCode.DATA, "DataError: /data: the directory is empty: check volume and path"),
        Reason.DATA_ERROR,
        Phase.RUNNING,
        (
            "trainworker-edge-0: /data: the directory is empty",
            "it is not replaced: to have it back, delete the job",
        ),
    ),
    "version": (
        Role.WORKER,
        Ending(
            ExitCode.REFUSED,
            "WorkerRefused: this worker runs engram 0.0.9 and the aggregator engram 0.1.0: use one image",
        ),
        Reason.WORKER_REFUSED,
        Phase.RUNNING,
        (
            "trainworker-edge-0: this worker runs engram 0.0.9",
            "use one image",
            "it is not replaced: to have it back",
        ),
    ),
    "memory": (
        Role.WORKER,
        Ending(137, reason="OOMKilled"),
        Reason.OUT_OF_MEMORY,
        Phase.RUNNING,
        ("trainworker-edge-0: killed for memory", "Kubernetes tries again", "limits.memory", "batchSize"),
    ),
    "aggregator-memory": (
        Role.AGGREGATOR,
        Ending(137, reason="OOMKilled"),
        Reason.OUT_OF_MEMORY,
        Phase.FAILED,
        ("killed for memory", "spec.aggregator.resources.limits.memory"),
    ),
}


@pytest.mark.parametrize(("role", "ending", "reason", "phase", "words"), ENDS.values(), ids=ENDS)
def test_a_pod_that_ends(
    user: User,
    world: World,
    role: Role,
    ending: Ending,
    reason: Reason,
    phase: Phase,
    words: tuple[str, ...],
    request: pytest.FixtureRequest,
) -> None:
    name = request.node.callspec.id
    user.apply(job_of(name, {"runPolicy": {"backoffLimit": 0 if phase is Phase.FAILED else 6}}))
    user.until_phase(name, Phase.RUNNING)
    pod = min(user.pods(name, role), key=lambda found: str(found["metadata"]["name"]))

    end_pod(user.api, pod, ending)

    message = user.until_told(name, reason, *words, phase=phase)
    if phase is Phase.FAILED:
        assert "Kubernetes tries again" not in message
        assert user.row(name)["PHASE"] == Phase.FAILED
    user.poke(name, world.operator)
    assert user.warnings(name) == [reason]
    if reason is Reason.OUT_OF_MEMORY and role is Role.WORKER:  # Kubernetes waits 10 s before the next pod
        until(lambda: user.status(name)["reason"] == Reason.TRAINING, "the worker to be back", seconds=60)
