"""An Estimator and an Aggregation as Sedna's and Ianvs' users write them, used by 07-sedna-estimator.yaml.

`model.name: sedna_estimator:Estimator` names the first class: engram gives it data and weights, and it trains
itself, here softmax regression in numpy. `aggregation.name: sedna_estimator:FedAvg` names the second. Neither
imports engram. Where KubeEdge's library is installed, both may be registered with its ClassFactory as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np

CLASSES = 10


class Estimator:
    """Softmax regression on 8 x 8 images."""

    def __init__(self, learning_rate: float = 0.1, batch_size: int = 16) -> None:
        self.learning_rate, self.batch_size = learning_rate, batch_size
        self.weights = [np.zeros((64, CLASSES)), np.zeros(CLASSES)]

    def train(
        self, train_data: Any, valid_data: Any = None, epochs: int = 1, **options: Any
    ) -> dict[str, Any]:
        """Train on `train_data` = (images, labels); `options` has task_id, round and task_size."""
        images, labels = train_data[0].reshape(len(train_data[0]), -1), train_data[1]
        losses = []
        for _ in range(epochs):
            order = np.random.permutation(len(labels))
            for start in range(0, len(order), self.batch_size):
                chosen = order[start : start + self.batch_size]
                losses.append(self._step(images[chosen], np.eye(CLASSES)[labels[chosen]]))
        return {"num_samples": len(labels), "loss": losses}

    def _step(self, x: np.ndarray, y: np.ndarray) -> float:
        scores = self._scores(x)
        likely = np.exp(scores - scores.max(axis=1, keepdims=True))
        likely /= likely.sum(axis=1, keepdims=True)
        error = (likely - y) / len(x)
        self.weights[0] -= self.learning_rate * x.T @ error
        self.weights[1] -= self.learning_rate * error.sum(axis=0)
        return float(-np.log(likely[y == 1] + 1e-12).mean())

    def _scores(self, x: np.ndarray) -> np.ndarray:
        scores: np.ndarray = x @ self.weights[0] + self.weights[1]
        return scores

    def predict(self, data: Any, **options: Any) -> np.ndarray:
        """Return the scores of all classes for each image; a label for each would do as well."""
        return self._scores(np.asarray(data).reshape(len(data), -1))

    def evaluate(self, data: Any, **options: Any) -> dict[str, float]:
        """Return the accuracy on (images, labels)."""
        return {"accuracy": float((self.predict(data[0]).argmax(axis=1) == data[1]).mean())}

    def get_weights(self) -> list[Any]:
        """Return the model as a list of arrays."""
        return [array.tolist() for array in self.weights]

    def set_weights(self, weights: list[Any]) -> None:
        """Take the global model over."""
        self.weights = [np.array(array) for array in weights]

    def save(self, model_url: str = "") -> str:
        """Write the model."""
        np.savez(model_url, *self.weights)
        return model_url

    def load(self, model_url: str = "") -> None:
        """Read what `save` wrote."""
        with np.load(model_url) as file:
            self.weights = [file[name] for name in file.files]


class FedAvg:
    """The mean of the clients' weights by their samples."""

    def __init__(self) -> None:
        self.total_size = 0

    def aggregate(self, clients: list[Any]) -> list[Any]:
        """Return the next global model; a client has `num_samples` and `weights`."""
        self.total_size = sum(client.num_samples for client in clients)
        samples = [client.num_samples for client in clients]
        layers = zip(*(client.weights for client in clients), strict=True)
        return [np.average(np.array(layer), axis=0, weights=samples) for layer in layers]
