from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engram.learning import TaskPlan, curriculum

if TYPE_CHECKING:
    from tests.learning.conftest import MakeJob

TASKS = ((5, 0), (3, 1), (4, 2))


@pytest.mark.parametrize("algorithm", ["finetune", "joint", "icarl"])
def test_one_plan_a_task(make_job: MakeJob, algorithm: str) -> None:
    job = make_job(algorithm)
    assert curriculum(job, TASKS) == tuple(TaskPlan(classes=task, rounds=2) for task in TASKS)


def test_joint_upfront_is_one_task_with_all_rounds(make_job: MakeJob) -> None:
    job = make_job("joint", {"upfront": True})
    assert curriculum(job, TASKS) == (TaskPlan(classes=(5, 0, 3, 1, 4, 2), rounds=6),)
