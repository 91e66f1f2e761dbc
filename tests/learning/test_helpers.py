"""Which worker's model helps whom."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from engram.federation.messages import Tensors, Update
from engram.learning.algorithm import GlobalContext, TaskScope
from engram.learning.helpers import KNOWN, MASKS, HelperChoice, Helpers
from engram.learning.models import build_network
from engram.learning.tensors import from_module
from tests.learning.answers import Fixed

if TYPE_CHECKING:
    from tests.learning.conftest import MakeJob

SCOPE = TaskScope(task=2, classes=(1,), seen=(5, 0, 1))
WORKERS = ("a", "b", "c", "d")


@pytest.fixture
def context(make_job: MakeJob) -> GlobalContext:
    job = make_job()
    return GlobalContext(
        workers=WORKERS,
        shape=(1, 8, 8),
        seed=0,
        device=torch.device("cpu"),
        make_network=lambda rows: build_network(job, (1, 8, 8), rows),
        training=job.spec.training,
        tasks=3,
    )


@pytest.fixture
def models(context: GlobalContext) -> dict[str, Tensors]:
    """Models that differ by the bias of the head alone: b is near a, c is farther, d farthest."""
    basis = from_module(context.make_network(3))
    moved = {"a": 0.0, "b": 0.1, "c": 1.0, "d": 3.0}
    return {name: {**basis, "head.bias": np.array([by, 0, 0], np.float32)} for name, by in moved.items()}


def updates(models: dict[str, Tensors]) -> dict[str, Update]:
    known = {KNOWN: np.array([True, False, True])}
    return {name: Update(2, 1, 5, weights, info=known) for name, weights in models.items()}


def choice(
    context: GlobalContext, models: dict[str, Tensors], count: int, how: str = "similar"
) -> HelperChoice:
    made = HelperChoice(count, "random" if how == "random" else "similar")
    made.begin(context)
    made.learn(SCOPE, updates(models))
    return made


def test_models_that_answer_alike_help_each_other(context: GlobalContext, models: dict[str, Tensors]) -> None:
    helpers = choice(context, models, 2)
    assert helpers.helpers_of("a", SCOPE, 2) == ["b", "c"]
    assert helpers.helpers_of("d", SCOPE, 2) == ["c", "b"]
    assert helpers.helpers_of("", SCOPE, 2) == []


def test_nobody_helps_himself_and_there_are_no_more_than_others(
    context: GlobalContext, models: dict[str, Tensors]
) -> None:
    for how in ("similar", "random"):
        assert set(choice(context, models, 9, how).helpers_of("a", SCOPE, 2)) == {"b", "c", "d"}


def test_random_helpers_change_with_the_round_and_not_with_a_restart(
    context: GlobalContext, models: dict[str, Tensors]
) -> None:
    one, other = (choice(context, models, 1, "random") for _ in range(2))
    drawn = [one.helpers_of("a", SCOPE, round) for round in range(2, 20)]
    assert drawn == [other.helpers_of("a", SCOPE, round) for round in range(2, 20)]
    assert {name for (name,) in drawn} == {"b", "c", "d"}


def test_models_go_to_the_worker_they_were_chosen_for_whatever_the_order_of_arrival(
    context: GlobalContext, models: dict[str, Tensors]
) -> None:
    backwards = HelperChoice(2, "similar")
    backwards.begin(context)
    backwards.learn(SCOPE, dict(reversed(updates(models).items())))
    for worker in WORKERS:
        expected = choice(context, models, 2).shared(worker, SCOPE, 2)
        groups = backwards.shared(worker, SCOPE, 2)
        assert groups.keys() == expected.keys() == {"helper-1", "helper-2", MASKS}
        assert all(
            np.array_equal(groups[name][key], expected[name][key]) for name in groups for key in groups[name]
        )
    assert np.array_equal(backwards.shared("a", SCOPE, 2)["helper-1"]["head.bias"], models["b"]["head.bias"])


def test_models_are_kept_by_value_until_the_task_ends(
    context: GlobalContext, models: dict[str, Tensors]
) -> None:
    helpers = choice(context, models, 1)
    models["b"]["head.bias"][:] = 7
    assert helpers.shared("a", SCOPE, 2)["helper-1"]["head.bias"][0] == np.float32(0.1)
    helpers.forget()
    assert helpers.shared("a", SCOPE, 2) == {}


def test_a_worker_that_took_no_part_keeps_its_model(
    context: GlobalContext, models: dict[str, Tensors]
) -> None:
    helpers = choice(context, models, 1)
    helpers.learn(SCOPE, {"b": Update(2, 2, 0), "a": updates(models)["a"]})
    assert helpers.helpers_of("a", SCOPE, 3) == ["b"]


def test_what_a_worker_says_it_knows_is_looked_at(context: GlobalContext, models: dict[str, Tensors]) -> None:
    lies = [np.ones(2, np.bool_), np.ones(3), np.zeros(3, np.bool_)]
    helpers = HelperChoice(3, "similar")
    helpers.begin(context)
    sent = updates(models)
    for name, lie in zip("bcd", lies, strict=True):
        sent[name] = Update(2, 1, 5, models[name], info={KNOWN: lie})
    helpers.learn(SCOPE, sent)
    assert helpers.shared("a", SCOPE, 2)[MASKS][KNOWN].tolist() == [[True] * 3] * 3
    assert helpers.shared("b", SCOPE, 2)[MASKS][KNOWN][0].tolist() == [True, False, True]


def test_it_survives_a_restart(context: GlobalContext, models: dict[str, Tensors]) -> None:
    helpers = choice(context, models, 2)
    again = HelperChoice(2, "similar")
    again.begin(context)
    again.restore(helpers.state())
    for worker in WORKERS:
        before, after = helpers.shared(worker, SCOPE, 2), again.shared(worker, SCOPE, 2)
        assert before.keys() == after.keys()
        assert all(np.array_equal(before[g][name], after[g][name]) for g in before for name in before[g])


def test_a_helper_is_asked_only_of_rows_that_it_has_had_labels_of() -> None:
    """Three helpers who say ln 1, ln 2, ln 5: one knows rows 0 and 2, one all, and one row 0 alone."""
    received: dict[str, Tensors] = {f"helper-{place}": {} for place in (1, 2, 3)}
    known = torch.tensor([[True, False, True], [True, True, True], [True, False, False]])
    seen: Any = SimpleNamespace(
        groups={**received, MASKS: {}},
        shared={MASKS: {KNOWN: known}},
        frozen=lambda weights, spent: Fixed(torch.tensor([1.0, 2.0, 5.0]).log()),
    )
    helpers = Helpers()
    helpers.begin(seen)
    images = torch.zeros(2, 1, 8, 8)
    everywhere = helpers.probabilities(images, 3)
    expected = torch.tensor([[1 / 6, 0, 5 / 6], [1 / 8, 2 / 8, 5 / 8], [1, 0, 0]])
    assert torch.allclose(everywhere, expected.unsqueeze(1).expand(3, 2, 3))
    # Of the last two rows the third helper knows nothing, so it has no vote.
    expected = torch.tensor([[0, 0, 1], [0, 2 / 7, 5 / 7]])
    helpers.begin(seen, barred=1)
    assert torch.allclose(helpers.probabilities(images, 3), expected.unsqueeze(1).expand(2, 2, 3))
    helpers.begin(SimpleNamespace(groups={}, shared={}, frozen=None))  # type: ignore[arg-type]
    assert helpers.probabilities(images, 3).shape == (0, 2, 3)
