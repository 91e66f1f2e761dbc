from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from engram.sedna.torch_estimator import TorchEstimator


class Small(TorchEstimator):
    """A network with a buffer that is no floating-point number."""

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    state = np.random.RandomState(0)
    labels = state.randint(0, 2, 200)
    images = state.normal(size=(200, 8, 8, 1)) + labels[:, None, None, None]
    return images.astype(np.float32), labels


def test_any_module_learns_and_tells(data: tuple[np.ndarray, np.ndarray]) -> None:
    torch.manual_seed(0)
    estimator = Small(epochs=3)
    said = estimator.train(data, task_id=0)
    assert said["num_samples"] == 200
    assert said["loss"][-1] < said["loss"][0]
    assert estimator.evaluate(data)["accuracy"] > 0.9
    assert estimator.predict(data[0]).shape == (200, 2)


def test_weights_travel_as_json_and_change_nothing(data: tuple[np.ndarray, np.ndarray]) -> None:
    first, second = Small(), Small()
    first.train(data)
    second.set_weights(json.loads(json.dumps(first.get_weights())))
    assert np.array_equal(first.predict(data[0]), second.predict(data[0]))
    assert second.model.state_dict()["1.num_batches_tracked"].dtype == torch.int64
    with pytest.raises(ValueError, match=r"0\.weight is \[4, 1, 3, 3\], \[1\] was given"):
        second.set_weights([[1.0], *first.get_weights()[1:]])


def test_a_file_keeps_the_model(tmp_path: Path, data: tuple[np.ndarray, np.ndarray]) -> None:
    first, second = Small(), Small()
    second.load(first.save(str(tmp_path / "model.pt")))
    assert np.array_equal(first.predict(data[0]), second.predict(data[0]))
