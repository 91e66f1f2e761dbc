from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from engram.errors import ProtocolError
from engram.learning.models import Network
from engram.learning.tensors import (
    copied,
    finite,
    from_module,
    grown,
    into_module,
    prefixed,
    to_torch,
    unprefixed,
)


def network(rows: int = 2) -> Network:
    return Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3)), 3, rows)


def test_weights_go_out_and_in() -> None:
    one, other = network(), network()
    into_module(from_module(one), other)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


def test_order_and_dtypes() -> None:
    tensors = from_module(network())
    assert list(tensors)[-2:] == ["head.weight", "head.bias"]
    # An integer dtype marks what is exchanged but never averaged.
    assert {name for name, array in tensors.items() if array.dtype.kind != "f"} == {
        "features.2.num_batches_tracked"
    }
    assert tensors["head.weight"].dtype == np.float32
    assert all(array.flags.c_contiguous for array in tensors.values())


def test_arrays_are_copies_both_ways() -> None:
    module = network()
    tensors = from_module(module)
    tensors["head.bias"][:] = 7
    assert not (module.head.bias == 7).any()
    into_module(tensors, module)
    tensors["head.bias"][:] = 8
    assert (module.head.bias == 7).all()


def test_read_only_arrays_are_accepted() -> None:
    tensors = from_module(network())
    for array in tensors.values():
        array.flags.writeable = False
    into_module(tensors, network())
    assert to_torch(tensors, torch.device("cpu")).keys() == tensors.keys()


def test_misfits_are_refused() -> None:
    tensors = from_module(network())
    with pytest.raises(ProtocolError, match=r"head\.weight has shape \(2, 3\)"):
        into_module(tensors, network(3))
    del tensors["head.bias"]
    with pytest.raises(ProtocolError, match=r"head\.bias is on one side only"):
        into_module(tensors, network())


def test_head_grows_by_copying_rows() -> None:
    old = {"a": np.ones(2), "head.weight": np.full((2, 3), 5.0), "head.bias": np.full(2, 6.0)}
    initial = {
        "a": np.zeros(2),
        "head.weight": np.arange(12.0).reshape(4, 3),
        "head.bias": np.arange(4.0),
    }
    new = grown(old, initial, 3)
    assert new["head.weight"].tolist() == [[5.0] * 3, [5.0] * 3, [6.0, 7.0, 8.0]]
    assert new["head.bias"].tolist() == [6.0, 6.0, 2.0]
    assert new["a"] is old["a"]
    assert list(new) == list(old)


def test_prefixes_and_copies() -> None:
    state = {**prefixed("x", {"w": np.ones(1)}), **prefixed("y", {"w": np.zeros(1)})}
    assert {name: array.tolist() for name, array in unprefixed("y", state).items()} == {"w": [0.0]}
    assert unprefixed("z", state) == {}
    source = {"w": np.ones(1)}
    kept = copied(source)
    source["w"][0] = 3
    assert kept["w"][0] == 1


def test_finite_looks_at_floating_tensors() -> None:
    good = {"n": torch.tensor(3), "w": torch.ones(2)}
    assert finite(good)
    assert not finite({**good, "v": torch.tensor([1.0, torch.inf])})
    assert not finite({**good, "v": torch.tensor([torch.nan])})
