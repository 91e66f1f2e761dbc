from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from engram.learning.optimise import Schedule, Sgd, build_optimizer, learning_rate

if TYPE_CHECKING:
    from tests.learning.conftest import MakeJob


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1.0, 1.0, 1.0, 1.0]),
        ("cosine", [1.0, 0.853553, 0.5, 0.146447]),
        ("steps", [1.0, 1.0, 0.1, 0.01]),
    ],
)
def test_schedules_over_four_rounds(schedule: Schedule, expected: list[float]) -> None:
    assert [learning_rate(1.0, schedule, r, 4) for r in range(1, 5)] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_sgd_equals_torch_bit_for_bit(momentum: float, weight_decay: float) -> None:
    start = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    mine, theirs, unused = (
        nn.Parameter(start.clone()),
        nn.Parameter(start.clone()),
        nn.Parameter(torch.ones(2)),
    )
    own = Sgd([mine, unused], 0.1, momentum, weight_decay)
    reference = torch.optim.SGD([theirs], lr=0.1, momentum=momentum, weight_decay=weight_decay, foreach=True)
    for step in range(5):
        gradient = torch.randn(4, 3, generator=torch.Generator().manual_seed(step + 1))
        mine.grad, theirs.grad = gradient.clone(), gradient.clone()
        own.step()
        reference.step()
        own.zero_grad()
        assert mine.grad is None
        assert torch.equal(mine, theirs)
    assert torch.equal(unused, torch.ones(2))


def test_parameter_that_gets_its_first_gradient_later() -> None:
    late = nn.Parameter(torch.zeros(1))
    always = nn.Parameter(torch.zeros(1))
    own = Sgd([late, always], 1.0, 0.5, 0.0)
    always.grad = torch.ones(1)
    own.step()
    late.grad, always.grad = torch.ones(1), torch.ones(1)
    own.step()
    assert late.item() == -1.0
    assert always.item() == -1.0 - 1.5


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", Sgd), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_optimizer_by_name(make_job: MakeJob, name: str, kind: type) -> None:
    spec = {"name": name, "learningRate": 0.1, "momentum": 0.8, "weightDecay": 0.02}
    training = make_job(training={"optimizer": spec, "learningRateSchedule": "steps"}).spec.training
    parameter = nn.Parameter(torch.ones(1))
    optimizer = build_optimizer([parameter], training, round=2, rounds=2)
    assert type(optimizer) is kind
    if isinstance(optimizer, torch.optim.Optimizer):
        group = optimizer.param_groups[0]
        assert (group["lr"], group["betas"], group["weight_decay"]) == (
            pytest.approx(0.01),
            (0.8, 0.999),
            0.02,
        )
    else:
        parameter.grad = torch.ones(1)
        optimizer.step()
        assert parameter.item() == pytest.approx(1 - 0.01 * (1 + 0.02))
