from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from engram.errors import ConfigurationError
from engram.learning.models import Network, build_network
from engram.learning.models.layers import Halving, normalisation
from engram.spec.parameters import Norm

if TYPE_CHECKING:
    from tests.learning.conftest import MakeJob

Shape = tuple[int, int, int]


def size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("model", "shape", "parameters"),
    [
        ({"name": "cnn"}, (1, 28, 28), 156_394),
        ({"name": "cnn"}, (1, 8, 8), 18_154),
        ({"name": "lenet5"}, (1, 28, 28), 61_706),
        ({"name": "lenet5"}, (3, 32, 32), 62_006),
        ({"name": "resnet18"}, (3, 32, 32), 11_173_962),
        ({"name": "resnet32"}, (3, 32, 32), 464_154),
    ],
)
def test_parameters_with_ten_classes(
    make_job: MakeJob, model: Mapping[str, Any], shape: Shape, parameters: int
) -> None:
    assert size(build_network(make_job(model=model), shape, 10)) == parameters


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 17, 23)])
@pytest.mark.parametrize(
    "model",
    [
        {"name": "lenet5"},
        {"name": "lenet5", "parameters": {"norm": "batch"}},
        {"name": "cnn", "parameters": {"channels": [6, 10, 12], "norm": "group"}},
        {"name": "resnet18", "parameters": {"width": 4}},
        {"name": "resnet32", "parameters": {"width": 4, "norm": "batch"}},
        {"name": "resnet32", "parameters": {"width": 4, "norm": "none"}},
    ],
)
def test_images_in_logits_and_gradients_out(
    make_job: MakeJob, model: Mapping[str, Any], shape: Shape
) -> None:
    network = build_network(make_job(model=model), shape, 3)
    logits = network(torch.randn(4, *shape, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (4, 3)
    gradients = torch.autograd.grad(logits.square().sum(), list(network.parameters()))
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert sum(float(gradient.abs().sum()) for gradient in gradients) > 0


def test_initial_values_are_seeded_whatever_the_global_generator_holds(make_job: MakeJob) -> None:
    torch.manual_seed(1)
    one = build_network(make_job(), (1, 8, 8), 4)
    torch.manual_seed(2)
    expected = torch.rand(1)
    torch.manual_seed(2)
    other = build_network(make_job(), (1, 8, 8), 4)
    assert torch.equal(torch.rand(1), expected)
    different = build_network(make_job(seed=1), (1, 8, 8), 4)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
        assert not torch.equal(tensor, different.state_dict()[name])


def test_resizing_the_head_keeps_the_features(make_job: MakeJob) -> None:
    network = build_network(make_job(), (1, 8, 8), 2)
    before = network.features.state_dict()
    network.resize(5)
    assert network.rows == 5
    assert network.head.weight.shape == (5, 8)
    assert [name for name, _ in network.named_parameters()][-2:] == ["head.weight", "head.bias"]
    for name, tensor in network.features.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(
    ("channels", "groups"), [(16, 4), (32, 8), (64, 16), (128, 32), (512, 32), (6, 1), (2, 1)]
)
def test_groups_of_at_least_four_channels(channels: int, groups: int) -> None:
    layer = normalisation("group", channels)
    assert isinstance(layer, nn.GroupNorm)
    assert layer.num_groups == groups


@pytest.mark.parametrize(("norm", "kind"), [("none", nn.Identity), ("batch", nn.BatchNorm2d)])
def test_norm_by_name(norm: Norm, kind: type) -> None:
    assert type(normalisation(norm, 4)) is kind


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("sides", [(28, 28), (14, 7), (5, 9), (2, 3)])
def test_pooling_gives_the_same_with_and_without_gradient(
    sides: tuple[int, int], layout: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 4, *sides, generator=generator).contiguous(memory_format=layout)
    images[0, 0, 0, 0] = torch.nan
    wanted = nn.functional.max_pool2d(images, 2)
    assert torch.equal(Halving()(images.requires_grad_()).nan_to_num(7), wanted.nan_to_num(7))
    with torch.no_grad():
        found = Halving()(images)
    assert found.isnan()[0, 0, 0, 0]
    assert torch.equal(found.nan_to_num(7), wanted.nan_to_num(7))
    assert found.is_contiguous(memory_format=layout)


def test_too_many_poolings_are_refused(make_job: MakeJob) -> None:
    job = make_job(model={"name": "cnn", "parameters": {"channels": [2, 2, 2, 2]}})
    with pytest.raises(ConfigurationError, match=r"channels.*8x8.*at most 3"):
        build_network(job, (1, 8, 8), 2)


class TestOwnModel:
    """spec.model.name as a dotted path."""

    def build(self, make_job: MakeJob, folder: Path, body: str, **parameters: Any) -> Network:
        (folder / "own_model.py").write_text(
            f"import torch\nfrom torch import nn\n\ndef build(shape, parameters):\n    {body}\n"
        )
        return build_network(
            make_job(model={"name": "own_model:build", "parameters": parameters}), (1, 8, 8), 3
        )

    @pytest.fixture(autouse=True)
    def _fresh_import(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(__import__("sys").modules, "own_model", raising=False)

    def test_gets_shape_and_parameters_and_a_head(self, make_job: MakeJob, module_folder: Path) -> None:
        body = "return nn.Sequential(nn.Flatten(), nn.Linear(shape[1] * shape[2], parameters['width']))"
        network = self.build(make_job, module_folder, body, width=5)
        assert network.head.in_features == 5
        assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 3)

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ("return 3", "returned int"),
            ("return nn.Identity()", r"to features \[b, d\]"),
            ("return nn.Linear(3, 4)", "does not take images of shape"),
            ("return nn.Linear(parameters['widht'], 2)", "KeyError: 'widht'"),
        ],
    )
    def test_what_is_wrong_is_said(
        self, make_job: MakeJob, module_folder: Path, body: str, message: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=message):
            self.build(make_job, module_folder, body)
