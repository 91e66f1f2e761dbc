"""What a run was started with holds to its end, whatever is edited, set or seen later."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engram.spec.names import Condition, Phase, Reason
from tests.control.builders import SETTINGS, job_object
from tests.control.simulation import FLEET, World, edit, says, status, up


def test_an_edited_volume_makes_no_run_durable_whatever_is_seen_of_it() -> None:
    world = up(aggregator={})
    edit(
        world,
        suspend=True,
        aggregator={"checkpoint": {"volume": {"persistentVolumeClaim": {"claimName": "late"}}}},
    )
    for complete in (False, True, False, True):
        world.changes["complete"] = complete
        world.settle()
        assert status(world)["phase"] == Phase.RUNNING
        assert says(world, Condition.SUSPENDED) == ("False", Reason.CHECKPOINT_NOT_DURABLE)
    assert not any(job["spec"]["suspend"] for job in world.jobs.values())


def test_another_default_checkpoint_changes_no_run_under_way() -> None:
    world = up(aggregator={})
    world.settings = replace(world.settings, checkpoint_size="1Gi")
    world.settle()
    edit(world, suspend=True)
    world.settle()
    assert "PersistentVolumeClaim/digits-checkpoint" not in world.objects
    assert says(world, Condition.SUSPENDED) == ("False", Reason.CHECKPOINT_NOT_DURABLE)


@pytest.mark.parametrize("lost", [False, True], ids=["config kept", "config lost"])
def test_a_claim_that_the_operator_gave_stays_the_runs_own(lost: bool) -> None:
    world = World(job_object(aggregator={}), replace(SETTINGS, checkpoint_size="1Gi"))
    world.settle()
    world.pods = FLEET
    world.settle()
    world.settings = SETTINGS
    if lost:
        del world.objects["ConfigMap/digits-spec"]
    edit(world, suspend=True)
    world.settle()
    assert status(world)["phase"] == Phase.SUSPENDED
    claim = world.objects["PersistentVolumeClaim/digits-checkpoint"]
    assert claim["spec"]["resources"]["requests"] == {"storage": "1Gi"}
    assert says(world, Condition.ACCEPTED)[1] == Reason.VALID
