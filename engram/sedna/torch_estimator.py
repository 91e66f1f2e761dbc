"""Makes any torch.nn.Module an Estimator as Sedna and Ianvs want it.

Sedna's own torch backend cannot take part in federated learning: its `train` does nothing, and it has neither
`get_weights` nor `set_weights`. A subclass of this one runs in a job of engram's, and in KubeEdge's own
workers with BACKEND_TYPE set to none of its backends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

BATCH = 256


class TorchEstimator(ABC):
    """Trains the module that `build` makes with SGD and cross-entropy.

        class Estimator(TorchEstimator):
            def build(self) -> nn.Module:
                return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    Images come as [n, height, width, channels] and reach the module with channels first; labels are the
    numbers of its outputs. Override `loss` or `train` for another kind of training.
    """

    def __init__(
        self, learning_rate: float = 0.05, momentum: float = 0.9, batch_size: int = 32, epochs: int = 1
    ) -> None:
        self.learning_rate, self.momentum = learning_rate, momentum
        self.batch_size, self.epochs = batch_size, epochs
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = self.build().to(self.device)

    @abstractmethod
    def build(self) -> nn.Module:
        """Return a new module with an output for every class of the job."""

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch, a scalar to minimise."""
        return nn.functional.cross_entropy(outputs, labels)

    def train(self, train_data: Any, valid_data: Any = None, **options: Any) -> dict[str, Any]:
        """Train on the pair (images, labels); return the number of samples and each epoch's mean loss."""
        images, labels = _images(train_data[0]), torch.as_tensor(np.asarray(train_data[1]), dtype=torch.int64)
        optimizer = torch.optim.SGD(self.model.parameters(), lr=self.learning_rate, momentum=self.momentum)
        self.model.train()
        losses = []
        for _ in range(self.epochs):
            total = 0.0
            for chosen in torch.split(torch.randperm(len(labels)), self.batch_size):
                outputs = self.model(images[chosen].to(self.device))
                loss = self.loss(outputs, labels[chosen].to(self.device))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += float(loss.detach()) * len(chosen)
            losses.append(total / max(1, len(labels)))
        return {"num_samples": len(labels), "loss": losses}

    def predict(self, data: Any, **options: Any) -> Any:
        """Return the scores of all classes for each image, as a numpy array."""
        self.model.eval()
        with torch.inference_mode():
            parts = [self.model(part.to(self.device)).cpu() for part in torch.split(_images(data), BATCH)]
        return torch.cat(parts).numpy()

    def evaluate(self, data: Any, **options: Any) -> dict[str, float]:
        """Return the accuracy on the pair (images, labels)."""
        right = self.predict(data[0]).argmax(axis=1) == np.asarray(data[1])
        return {"accuracy": float(right.mean())}

    def get_weights(self) -> list[Any]:
        """Return parameters and buffers as nested lists, as Sedna's wire wants them."""
        return [tensor.detach().cpu().tolist() for tensor in self.model.state_dict().values()]

    def set_weights(self, weights: list[Any]) -> None:
        """Take over what `get_weights` returned, or arrays of the same shapes."""
        own = self.model.state_dict()
        with torch.no_grad():
            for (name, target), given in zip(own.items(), weights, strict=True):
                array = torch.as_tensor(np.asarray(given))
                if array.shape != target.shape:
                    raise ValueError(f"{name} is {list(target.shape)}, {list(array.shape)} was given")
                target.copy_(array)

    def save(self, model_url: str = "") -> str:
        """Write the weights; return where to."""
        torch.save(self.model.state_dict(), model_url)
        return model_url

    def load(self, model_url: str = "") -> None:
        """Read what `save` wrote. Runs no code of the file's."""
        self.model.load_state_dict(torch.load(model_url, map_location=self.device, weights_only=True))


def _images(data: Any) -> Tensor:
    images = torch.as_tensor(np.asarray(data, dtype=np.float32))
    return images.permute(0, 3, 1, 2).contiguous()
