"""What target and mfcl share: the generator, its losses, and what becomes of a run that is interrupted."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from engram.errors import ConfigurationError, NumericalError
from engram.federation.messages import Shared, Tensors
from engram.learning.algorithm import GlobalContext
from engram.learning.models import Network, build_network
from engram.learning.synthesis import ImageGenerator, Layer, Watched, inversion
from engram.learning.synthesis.generative import train_generator
from engram.learning.synthesis.inversion import Inversion
from engram.learning.synthesis.priors import (
    boundary,
    roughness,
    statistics_distance,
    statistics_divergence,
    uniformity,
)
from engram.learning.tensors import from_module
from engram.spec.algorithms import MfclParameters, TargetParameters

if TYPE_CHECKING:
    from engram.spec import FederatedIncrementalJob
    from tests.learning.conftest import MakeJob, MakeWorld

BATCH = {"name": "cnn", "parameters": {"channels": [4], "dense": 8, "norm": "batch"}}
SMALL = {"noiseSize": 4, "generatorWidth": 2, "generatorBatch": 8, "syntheticBatch": 8}
QUICK = {
    "target": {**SMALL, "syntheticImages": 12, "generatorSteps": 2, "studentSteps": 1},
    "mfcl": {**SMALL, "generatorSteps": 3},
}
ALGORITHMS = sorted(QUICK)


def quick_job(make_job: MakeJob, algorithm: str, **parameters: object) -> FederatedIncrementalJob:
    return make_job(algorithm, {**QUICK[algorithm], **parameters}, model=BATCH)


def digest(tensors: Tensors) -> str:
    text = hashlib.sha256()
    for name, array in tensors.items():
        text.update(name.encode() + array.tobytes())
    return text.hexdigest()


def same(one: Shared, other: Shared) -> bool:
    return one.keys() == other.keys() and all(digest(one[name]) == digest(other[name]) for name in one)


class TestNetwork:
    """ImageGenerator."""

    @pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 9, 13)])
    def test_makes_images_of_any_size(self, shape: tuple[int, int, int]) -> None:
        assert ImageGenerator(shape, 5, 2)(torch.randn(6, 5)).shape == (6, *shape)

    def test_channels_are_standardised(self) -> None:
        images = ImageGenerator((2, 8, 8), 5, 4)(torch.randn(64, 5))
        assert images.mean((0, 2, 3)).tolist() == pytest.approx([0, 0], abs=1e-5)
        assert images.var((0, 2, 3)).tolist() == pytest.approx([1, 1], rel=1e-2)


class TestLosses:
    """Each on numbers small enough for paper."""

    def layer(self, mean: list[float], variance: list[float]) -> Layer:
        kept = torch.zeros(len(mean)), torch.ones(len(mean))
        return Layer(torch.tensor(mean), torch.tensor(variance), *kept)

    def test_distance(self) -> None:
        # ||(3, 4)|| + ||(0, 2)||, and for the second layer 0 + 1.
        layers = [self.layer([3, 4], [1, 3]), self.layer([0], [2])]
        assert statistics_distance(layers).item() == pytest.approx(5 + 2 + 1)

    def test_divergence(self) -> None:
        # KL( N(0, 1) || N(1, 4) ) = log 2 - 1/2 (1 - (1 + 1) / 4); the other channel agrees.
        found = statistics_divergence([self.layer([1, 0], [4, 1])]).item()
        assert found == pytest.approx((math.log(2) - 0.25) / 2)
        assert statistics_divergence([self.layer([0], [1])]).item() == pytest.approx(0)

    def test_boundary_counts_images_on_which_the_two_disagree(self) -> None:
        teacher = torch.tensor([[3.0, 0.0], [0.0, 3.0], [3.0, 0.0]]).log_softmax(1)
        student = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]]).log_softmax(1)
        divergence = (teacher.exp() * (teacher - student)).sum(1)
        # The first is a tie, which both settle in favour of class 0.
        expected = -(divergence[1] + divergence[2]) / 3
        assert boundary(teacher, student).item() == pytest.approx(expected.item(), rel=1e-5)
        assert boundary(teacher, teacher).item() == 0

    def test_uniformity(self) -> None:
        sure = 50 * torch.eye(4)
        assert uniformity(sure).item() == pytest.approx(0, abs=1e-6)
        assert uniformity(sure[:1].repeat(3, 1)).item() == pytest.approx(1, abs=1e-6)
        assert uniformity(sure[:2]).item() == pytest.approx(1 - math.log(2) / math.log(4), abs=1e-6)
        assert uniformity(torch.randn(3, 1)).item() == 0

    def test_roughness(self) -> None:
        assert roughness(torch.full((1, 2, 8, 8), 3.0)).item() == pytest.approx(0, abs=1e-10)
        image = torch.zeros(1, 1, 9, 9)
        image[0, 0, 4, 4] = 1
        line = np.exp(-(np.arange(-2, 3) ** 2) / 2)
        kernel = np.outer(line, line) / line.sum() ** 2
        kernel[2, 2] -= 1
        assert roughness(image).item() == pytest.approx((kernel**2).sum() / 81, rel=1e-5)


class TestTerms:
    """What a term of the generators' losses weighs is what they go by: heavier, its value falls lower."""

    @pytest.fixture
    def context(self, make_job: MakeJob) -> GlobalContext:
        job = make_job(model=BATCH)
        return GlobalContext(
            workers=("a",),
            shape=(1, 8, 8),
            seed=0,
            device=torch.device("cpu"),
            make_network=lambda rows: build_network(job, (1, 8, 8), rows),
            training=job.spec.training,
            tasks=2,
        )

    @pytest.fixture
    def model(self, context: GlobalContext) -> Tensors:
        """A model with another opinion than the student, who begins as the seed's network."""
        weights = from_module(context.make_network(3))
        return {**weights, "head.weight": -weights["head.weight"]}

    def answers(
        self, context: GlobalContext, model: Tensors, **changed: float
    ) -> tuple[torch.Tensor, torch.Tensor, list[Layer]]:
        """Return images of mfcl's generator, trained with these weights, and what the model says of them."""
        weights = {"diversity": 0.0, "statistics": 0.0, "smoothness": 0.0, "generator_steps": 25, **changed}
        quick = {
            "noise_size": 4,
            "generator_width": 2,
            "generator_batch": 16,
            "generator_learning_rate": 0.02,
        }
        parameters = MfclParameters.model_validate(quick | weights, by_name=True)
        maker = ImageGenerator((1, 8, 8), 4, 2)
        trained = train_generator(context, parameters, 1, model, {})
        maker.load_state_dict({name: torch.tensor(array) for name, array in trained.items()})
        with torch.no_grad():
            images = maker(torch.randn(64, 4, generator=torch.Generator().manual_seed(1)))
            return images, *Watched(context.frozen(model))(images)

    def test_of_mfcl_s_classes(self, context: GlobalContext, model: Tensors) -> None:
        early, late = (
            self.answers(context, model, generator_steps=steps)[1].softmax(1).amax(1).mean().item()
            for steps in (1, 25)
        )
        assert late > early + 0.01

    @pytest.mark.parametrize(
        ("term", "value"),
        [
            ("diversity", lambda images, logits, layers: uniformity(logits)),
            ("statistics", lambda images, logits, layers: statistics_divergence(layers)),
            ("smoothness", lambda images, logits, layers: roughness(images)),
        ],
    )
    def test_of_mfcl(
        self, context: GlobalContext, model: Tensors, term: str, value: Callable[..., torch.Tensor]
    ) -> None:
        without, heavy = (
            value(*self.answers(context, model, **{term: weight})).item() for weight in (0, 100)
        )
        assert heavy < without - 1e-3

    @pytest.mark.parametrize("term", ["boundary", "statistics"])
    def test_of_target(
        self, context: GlobalContext, model: Tensors, term: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The student stands against the generator from the second batch of images on."""
        name = {"boundary": "boundary", "statistics": "statistics_distance"}[term]
        measure = getattr(inversion, name)
        values: list[float] = []

        def noted(*given: Any) -> torch.Tensor:
            found: torch.Tensor = measure(*given)
            values.append(found.item())
            return found

        monkeypatch.setattr(inversion, name, noted)
        last = []
        for weight in (1e-6, 100.0):
            weights = {"boundary": 0.0, "statistics": 0.0, term: weight}
            quick = {"noise_size": 4, "generator_width": 2, "generator_batch": 16, "synthetic_images": 32}
            parameters = TargetParameters(
                **{**quick, **weights}, generator_steps=25, generator_learning_rate=0.02, student_steps=1
            )
            Inversion(context, parameters, 1, model).run()
            last.append(values[-1])
        assert len(values) == 2 * (25 if term == "boundary" else 50)
        assert last[1] < last[0] - 1e-3


class TestWatched:
    """What a network's BatchNorm layers saw."""

    def network(self) -> Network:
        features = nn.Sequential(nn.BatchNorm2d(2), nn.Flatten())
        return Network(features, 8, 3).eval()

    def test_statistics_are_those_of_the_layer_s_input(self) -> None:
        network = self.network()
        network.features.get_buffer("0.running_mean")[:] = torch.tensor([1.0, 2.0])
        images = torch.randn(5, 2, 2, 2, generator=torch.Generator().manual_seed(0))
        logits, (layer,) = Watched(network)(images)
        assert torch.equal(logits, network(images))
        assert layer.mean.tolist() == pytest.approx(images.mean((0, 2, 3)).tolist(), abs=1e-6)
        assert layer.variance.tolist() == pytest.approx(images.var((0, 2, 3), correction=0).tolist())
        assert layer.kept_mean.tolist() == [1, 2]
        assert layer.kept_variance.tolist() == [1, 1]

    def test_every_call_has_its_own(self) -> None:
        watched = Watched(self.network())
        _, before = watched(torch.zeros(2, 2, 2, 2))
        watched(torch.ones(2, 2, 2, 2))
        assert len(before) == 1
        assert before[0].mean.tolist() == [0, 0]

    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    def test_a_model_of_one_s_own_without_any_is_refused_at_the_start(
        self, make_job: MakeJob, make_world: MakeWorld, module_folder: Path, algorithm: str
    ) -> None:
        (module_folder / "own_plain.py").write_text(
            "from torch import nn\n"
            "def build(shape, parameters):\n"
            "    norm = nn.BatchNorm2d(1, track_running_stats=parameters['kept'])\n"
            "    return nn.Sequential(norm, nn.Flatten())\n"
        )
        model = {"name": "own_plain:build", "parameters": {"kept": True}}
        make_world(make_job(algorithm, QUICK[algorithm], model=model))
        model = {"name": "own_plain:build", "parameters": {"kept": False}}
        with pytest.raises(ConfigurationError, match=r"spec\.model: .*no BatchNorm layer"):
            make_world(make_job(algorithm, QUICK[algorithm], model=model))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
class TestRuns:
    """Whole runs of both algorithms."""

    def test_two_agree_to_the_bit(self, make_job: MakeJob, make_world: MakeWorld, algorithm: str) -> None:
        job = quick_job(make_job, algorithm)
        torch.manual_seed(1)
        weights, counts = make_world(job).run()
        torch.manual_seed(2)
        again, counts_again = make_world(job).run()
        assert digest(weights) == digest(again)
        assert counts == counts_again
        assert all(np.isfinite(array).all() for array in weights.values())
        other, _ = make_world(quick_job(make_job, algorithm, generatorSteps=1)).run()
        assert digest(weights) != digest(other)

    def test_first_task_gets_nothing(self, make_job: MakeJob, make_world: MakeWorld, algorithm: str) -> None:
        world = make_world(quick_job(make_job, algorithm))
        world.central.begin_task(1, None)
        assert world.central.shared("trainworker-edge-0", 1, 1) == {}
        first = world.task(1, None)
        plain = make_world(make_job(model=BATCH)).task(1, None)
        assert digest(first) == digest(plain)

    def test_goes_on_from_what_is_kept(
        self, make_job: MakeJob, make_world: MakeWorld, algorithm: str
    ) -> None:
        job = quick_job(make_job, algorithm)
        expected, _ = make_world(job).run()
        world = make_world(job)
        weights = world.task(1, None)
        for task in (2, 3):
            weights = world.central.begin_task(task, weights)
            weights = world.round(task, 1, weights)
            state, sent = world.central.state(), world.central.shared("", task, 1)
            world = make_world(job)
            world.central.restore(task, state)
            assert same(world.central.shared("", task, 1), sent)
            weights = world.round(task, 2, weights)
            weights = world.central.close_task(task, weights, world.consolidate(task, weights))
        assert digest(weights) == digest(expected)

    def test_is_kept_by_value(self, make_job: MakeJob, make_world: MakeWorld, algorithm: str) -> None:
        world = make_world(quick_job(make_job, algorithm))
        weights = world.task(1, None)
        sent = {name: digest(group) for name, group in world.central.shared("", 2, 1).items()}
        for array in weights.values():
            array += 1
        assert {name: digest(group) for name, group in world.central.shared("", 2, 1).items()} == sent
        assert world.central.shared("", 2, 0) == {}

    def test_nothing_is_made_for_a_task_that_does_not_come(
        self, make_job: MakeJob, make_world: MakeWorld, algorithm: str
    ) -> None:
        world = make_world(quick_job(make_job, algorithm))
        weights = world.task(2, world.task(1, None))
        before = digest(world.central.state())
        world.task(3, weights)
        assert digest(world.central.state()) == before

    def test_a_generator_that_diverges_is_told(
        self, make_job: MakeJob, make_world: MakeWorld, algorithm: str
    ) -> None:
        world = make_world(quick_job(make_job, algorithm))
        weights = world.central.begin_task(1, None)
        spoilt = {**weights, "features.0.weight": weights["features.0.weight"] * np.float32("nan")}
        with pytest.raises(NumericalError, match=r"generatorLearningRate: .*end of task 1: .*has diverged"):
            world.central.close_task(1, spoilt, {})
