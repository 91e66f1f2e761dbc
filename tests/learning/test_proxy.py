"""glfc's proxy server: what its images are, what leaves a worker, and which model they choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engram.federation.messages import Tensors, Update
from engram.learning.algorithms.glfc import Glfc
from engram.learning.best_model import Counts
from engram.learning.proxy import PER_CLASS, ProxyServer, encoded, encoded_size, encoding_network, rebuilt
from engram.spec.algorithms import GlfcParameters

if TYPE_CHECKING:
    from tests.learning.conftest import MakeJob, MakeWorld, World

ON = {"proxyServer": "reconstruct", "acceptPrivacyRisk": True, "prototypeNoise": 0.25}


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 10)])
def test_gradient_gives_the_image_back(shape: tuple[int, int, int]) -> None:
    image = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    network = encoding_network(3, image.numel(), 4)
    gradient = encoded(network, image, 2)
    assert len(gradient) == encoded_size(image.numel(), 4)
    found = rebuilt(gradient, image.numel())
    assert found is not None
    assert torch.allclose(found.reshape(image.shape), image, atol=1e-4)


def test_gradient_of_nothing_gives_nothing() -> None:
    assert rebuilt(torch.zeros(encoded_size(64, 2)), 64) is None
    assert rebuilt(torch.full((encoded_size(64, 2),), torch.nan), 64) is None
    wild = torch.full((encoded_size(64, 2),), 1e30)
    wild[8 * 64 : 8 * 65] = 1e-30
    found = rebuilt(wild, 64)
    assert found is None or found.abs().max() <= 10


def test_both_sides_have_the_same_network_in_each_job_its_own() -> None:
    first, again, other = (next(encoding_network(seed, 64, 2).parameters()) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def trained(world: World, task: int, round: int, weights: Tensors) -> dict[str, Update]:
    return {
        name: worker.train(world.order(name, task, round, weights), lambda done, loss: None)
        for name, worker in world.workers.items()
    }


def test_only_a_task_s_first_round_sends_gradients_and_none_without_consent(
    make_job: MakeJob, make_world: MakeWorld
) -> None:
    world = make_world(make_job("glfc", ON))
    weights = world.central.begin_task(2, world.task(1, None))
    for update in trained(world, 2, 1, weights).values():
        assert set(update.info) == {"prototype/2", "prototype/3"}
    for update in trained(world, 2, 2, weights).values():
        assert update.info == {}
    for answer in world.consolidate(2, weights).values():
        assert answer.results == {}
    world = make_world(make_job("glfc"))
    for update in trained(world, 1, 1, world.central.begin_task(1, None)).values():
        assert set(update.info) == {"right_of_total"}


def test_images_are_perturbed_prototypes(make_job: MakeJob, make_world: MakeWorld) -> None:
    def images(noise: float) -> NDArray[np.float32]:
        world = make_world(make_job("glfc", {**ON, "prototypeNoise": noise}))
        world.round(1, 1, world.central.begin_task(1, None))
        assert world.central.state()["proxy_rows"].tolist() == [0, 0, 1, 1]
        found: NDArray[np.float32] = world.central.state()["proxy_images"]
        for place, label in enumerate((5, 5, 0, 0)):
            own = world.dataset.train.read(np.arange(24 * label, 24 * label + 24))
            nearest = np.abs(own - found[place]).mean(axis=(1, 2, 3)).min()
            # The mean of |N(0, noise)| is .8 noise.
            assert nearest == pytest.approx(0.8 * noise, abs=0.3 * noise + 1e-4)
        return found

    assert np.array_equal(images(0.25), images(0.25))
    assert not np.allclose(images(0.25), images(0.0))


def test_best_model_is_the_best_on_the_images(make_job: MakeJob, make_world: MakeWorld) -> None:
    world = make_world(make_job("glfc", {**ON, "prototypeNoise": 0}, training={"localSteps": 20}))
    start = world.central.begin_task(1, None)
    good = world.round(1, 1, start)
    world.central.close_round(1, 2, start, {})  # an untrained model
    world.central.close_task(1, start, {})
    teacher = world.central.shared("", 2, 1)["teacher"]
    assert all(np.array_equal(teacher[name], good[name]) for name in good)


def test_survives_a_restart(make_job: MakeJob, make_world: MakeWorld) -> None:
    world = make_world(make_job("lga", ON))
    weights = world.round(2, 1, world.central.begin_task(2, world.task(1, None)))
    again = make_world(world.job)
    again.central.restore(2, world.central.state())
    before, after = world.central.state(), again.central.state()
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    for central in (world.central, again.central):
        central.close_task(2, weights, {})
    first, second = (central.shared("", 3, 1)["teacher"] for central in (world.central, again.central))
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "sent",
    [
        {"prototype/0": np.ones(3, np.float32)},
        {"prototype/0": np.zeros(encoded_size(64, 2), np.float32)},
        {"prototype/0": np.ones(encoded_size(64, 2), np.float64)},
        {"prototype/7": np.ones(encoded_size(64, 2), np.float32)},
        {"x": np.ones(1)},
    ],
)
def test_what_is_no_gradient_is_left_out(
    make_job: MakeJob, make_world: MakeWorld, sent: dict[str, NDArray[Any]]
) -> None:
    world = make_world(make_job("glfc", ON))
    start = world.central.begin_task(1, None)
    world.central.close_round(1, 1, start, {"a": Update(1, 1, 5, info=sent)})
    assert "proxy_images" not in world.central.state()
    world.central.close_task(1, start, {})
    assert world.central.shared("", 2, 1)["teacher"].keys() == start.keys()


def test_keeps_a_bounded_number_of_each_class(make_job: MakeJob, make_world: MakeWorld) -> None:
    world = make_world(make_job("glfc", ON))
    start = world.central.begin_task(1, None)
    info = next(iter(trained(world, 1, 1, start).values())).info
    many = {f"w{number}": Update(1, 1, 5, info=info) for number in range(PER_CLASS + 3)}
    world.central.close_round(1, 1, start, many)
    assert world.central.state()["proxy_rows"].tolist() == [0] * PER_CLASS + [1] * PER_CLASS


def test_is_off_by_default() -> None:
    assert isinstance(Glfc(GlfcParameters()).choice, Counts)
    assert ProxyServer(0.5).right_of_total({}) == (0, 0)


def test_run_learns(make_job: MakeJob, make_world: MakeWorld) -> None:
    world = make_world(make_job("glfc", ON, training={"roundsPerTask": 3, "localSteps": 10}))
    _, counts = world.run()
    assert sum(counts[-1].right.values()) / sum(counts[-1].total.values()) > 0.5
