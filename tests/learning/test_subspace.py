"""Inputs of layers as subspaces: what a layer multiplies, what is principal, and what a projection leaves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engram.learning.subspace import (
    Layer,
    Moments,
    factor,
    inputs_of,
    layers_of,
    outside,
    principal,
    total,
    watched,
)
from engram.learning.tensors import from_module

NOTHING = torch.zeros(3, 0, dtype=torch.float64)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(6, 4),
        nn.Linear(6, 4, bias=False),
        nn.Conv2d(2, 4, 3, padding=1),
        nn.Conv2d(2, 4, (3, 1), stride=2, padding=(0, 2), dilation=(2, 1), bias=False),
    ],
)
def test_a_layer_is_its_matrix_times_its_inputs(layer: nn.Linear | nn.Conv2d) -> None:
    images = random(5, 2, 7, 6).float() if isinstance(layer, nn.Conv2d) else random(5, 6).float()
    weights = from_module(layer)
    [found] = layers_of(layer).values()
    shape = Layer(found.weight.strip("."), found.bias.strip("."), found.inputs)
    rows = inputs_of(layer, images)
    assert rows.shape[1] == shape.inputs
    expected = layer(images)
    expected = expected.flatten(2).transpose(1, 2).flatten(0, 1) if expected.dim() == 4 else expected
    assert torch.allclose(rows @ shape.matrix(weights).T, expected.double(), atol=1e-5)
    again = shape.tensors(shape.matrix(weights), weights)
    assert all((again[name] == weights[name]).all() for name in weights)
    assert all(again[name].dtype == weights[name].dtype for name in weights)


def test_layers_whose_inputs_are_not_plain_patches_are_left_out() -> None:
    network = nn.Sequential(
        nn.Conv2d(2, 2, 3),
        nn.Conv2d(2, 2, 3, groups=2),
        nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(2, 2, 3, padding="same"),
        nn.GroupNorm(1, 2),
    )
    assert list(layers_of(network)) == ["0"]


def test_moments_of_all_forward_passes_are_summed_and_only_inside_the_block() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    moments = {"0": Moments(layers_of(network)["0"], None)}
    with watched(network, moments):
        network(torch.tensor([[1.0, 2.0]]))
        network(torch.tensor([[0.0, 3.0]]))
    network(torch.tensor([[9.0, 9.0]]))
    assert moments["0"].sketch.tolist() == [[1, 2, 1], [2, 13, 5], [1, 5, 2]]
    assert moments["0"].energy.item() == 1 + 4 + 9 + 2


def test_a_sketch_of_enough_columns_gives_the_second_moment_back() -> None:
    inputs = random(40, 3) @ random(3, 20, seed=1)  # 20 inputs in a space of 3 dimensions
    omega = random(20, 6, seed=2)
    layer = Layer("weight", "", 20)
    exact, sketched = Moments(layer, None), Moments(layer, omega)
    for moments in (exact, sketched):
        moments.add(inputs)
    assert sketched.sketch.shape == (20, 6)
    for found in (factor(exact.sketch, None), factor(sketched.sketch, omega)):
        assert found.shape[1] == 3
        assert torch.allclose(found @ found.T, inputs.T @ inputs, rtol=1e-6)


def test_what_is_no_second_moment_has_its_positive_part() -> None:
    found = factor(torch.diag(torch.tensor([4.0, -9.0, 0.0], dtype=torch.float64)), None)
    assert (found @ found.T).tolist() == [[4, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert factor(-torch.eye(3, dtype=torch.float64), None).shape == (3, 0)


@pytest.mark.parametrize(("threshold", "count"), [(0.0, 0), (0.6, 1), (0.65, 2), (0.93, 3), (1.0, 3)])
def test_the_fewest_directions_that_hold_the_share(threshold: float, count: int) -> None:
    # Energies 9, 4, 1 of 14: .643, .929, 1.
    found = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    basis = principal(found, 14.0, NOTHING, threshold)
    assert basis.shape == (3, count)
    assert torch.allclose(basis.abs(), torch.eye(3, dtype=torch.float64)[:, :count])


def test_what_the_basis_holds_already_counts_and_is_not_added_again() -> None:
    found = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    first = torch.eye(3, dtype=torch.float64)[:, :1]
    assert principal(found, 14.0, first, 0.6).shape == (3, 0)
    added = principal(found, 14.0, first, 0.9)
    assert added.abs().T.tolist() == [[0, 1, 0]]


def test_an_energy_that_cannot_be_reached_takes_all_directions_and_no_noise() -> None:
    found = torch.tensor([[2.0, 0.0], [0.0, 1e-9], [0.0, 0.0]], dtype=torch.float64)
    assert principal(found, 1000.0, NOTHING, 1.0).shape == (3, 1)
    assert principal(torch.zeros(3, 0, dtype=torch.float64), 1.0, NOTHING, 1.0).shape == (3, 0)


def test_a_change_outside_leaves_outputs_for_old_inputs() -> None:
    old, change = random(2, 5), random(4, 5, seed=1)
    basis = torch.linalg.qr(old.T).Q
    kept = outside(change, basis)
    assert torch.allclose(kept @ old.T, torch.zeros(4, 2, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(outside(kept, basis), kept)
    assert kept.norm() > 0.1


def test_a_sum_is_in_float64() -> None:
    most = torch.tensor([3e38]).numpy()
    assert total([most, most]).isfinite().all()
