"""The proxy server of glfc, opt-in: the aggregator chooses the best old model on images that it rebuilds from
gradients which workers send.

This leaks by design. Dong et al. 2022, section 4.2, has each worker send the gradient that a small encoding
network, known to both sides, has on one perturbed prototype image of each new class, and rebuild the image by
minimising the distance of gradients. Whoever can do that has the image: here the encoding network begins with
a linear layer, whose gradient gives its input in closed form (Phong et al. 2018, "Privacy-preserving deep
learning via additively homomorphic encryption", section 3), so that nobody takes the detour for protection.
What protects is the Gaussian noise in the image, and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from engram.data.types import Indices
from engram.federation.messages import EMPTY, Tensors
from engram.learning.best_model import BestModel
from engram.learning.context import FORWARD_BATCH, GlobalContext, LocalContext, TaskScope
from engram.learning.seeds import generator
from engram.learning.tensors import to_numpy

UNITS = 8
"""Of the encoding network's hidden layer."""
PER_CLASS = 8
"""Rebuilt images that the aggregator keeps of each class, those of the first workers by name."""
LARGEST_PIXEL = 10.0
"""Images are normalised; what is rebuilt from a lie stays within bounds."""
PREFIX, IMAGES, ROWS = "prototype", "proxy_images", "proxy_rows"


class ProxyServer:
    """Judges models on rebuilt images of all tasks so far."""

    def __init__(self, noise: float) -> None:
        self._best = BestModel()
        self._noise = noise
        self._context: GlobalContext | None = None
        self._images: dict[int, list[Tensor]] = {}
        """Rebuilt images [channels, height, width] by row."""

    def in_round(self, context: LocalContext, labelled: Indices) -> Tensors:
        """Send gradients in a task's first round."""
        return self.gradients(context, labelled) if context.round == 1 else EMPTY

    def in_consolidation(self, context: LocalContext, labelled: Indices) -> Tensors:
        """Send nothing: the aggregator has what it needs."""
        return EMPTY

    def gradients(self, context: LocalContext, labelled: Indices) -> dict[str, NDArray[np.float32]]:
        """Return the encoding network's gradient on a perturbed prototype of each of the task's classes that
        `labelled` holds, by `prototype/<row>`.

        A prototype is the sample whose features are nearest to the mean of its class.
        """
        result = {}
        rows = len(context.scope.seen)
        draws = context.generator("prototype")
        for label, positions in context.by_class(labelled).items():
            if len(positions) == 0:
                continue
            features = context.features(positions)
            nearest = int((features - features.mean(dim=0)).norm(dim=1).argmin())
            image = context.images(positions[nearest : nearest + 1]).cpu()
            image = image + self._noise * torch.randn(image.shape, generator=draws)
            row = context.scope.seen.index(label)
            gradient = encoded(encoding_network(context.seed, image[0].numel(), rows), image, row)
            result[f"{PREFIX}/{row}"] = to_numpy(gradient)
        return result

    def begin_run(self, context: GlobalContext) -> None:
        """Take what rebuilding and judging need."""
        self._context = context

    def close_round(self, scope: TaskScope, round: int, weights: Tensors, sent: Collection[Tensors]) -> None:
        """Rebuild the task's images in its first round; judge the new model at once."""
        for gradients in sent if round == 1 else ():
            self.take(scope, gradients)
        self._judge(weights)

    def check(self, scope: TaskScope, results: Tensors) -> None:
        """Refuse nothing: workers send nothing in consolidation, and nothing of it is looked at."""

    def close_task(self, scope: TaskScope, final: Tensors, sent: Collection[Tensors]) -> Tensors:
        """Judge the last model as it was corrected; return the best."""
        self._judge(final)
        return self._best.settle() or final

    def _judge(self, weights: Tensors) -> None:
        self._best.propose(weights)
        self._best.judge([self.right_of_total(weights)])

    def take(self, scope: TaskScope, sent: Tensors) -> None:
        """Rebuild a worker's images of the task's classes; what is no gradient of one is left out."""
        if self._context is None:
            return
        shape = self._context.shape
        size = encoded_size(int(np.prod(shape)), len(scope.seen))
        for row in range(scope.old, len(scope.seen)):
            gradient = sent.get(f"{PREFIX}/{row}")
            kept = self._images.setdefault(row, [])
            if gradient is None or gradient.shape != (size,) or gradient.dtype != np.float32:
                continue
            image = rebuilt(torch.from_numpy(np.array(gradient)), int(np.prod(shape)))
            if image is not None and len(kept) < PER_CLASS:
                kept.append(image.reshape(shape))

    def right_of_total(self, weights: Tensors) -> tuple[int, int]:
        """Return how many of the rebuilt images of all tasks so far a model gets right, and their number."""
        images, rows = self._all()
        if self._context is None or len(rows) == 0:
            return 0, 0
        network = self._context.frozen(weights)
        right = 0
        with torch.no_grad():
            for start in range(0, len(rows), FORWARD_BATCH):
                part = slice(start, start + FORWARD_BATCH)
                found = network(images[part].to(self._context.device)).argmax(dim=1).cpu()
                right += int((found == rows[part]).sum())
        return right, len(rows)

    def _all(self) -> tuple[Tensor, Tensor]:
        rows = [row for row, kept in self._images.items() for _ in kept]
        images = [image for kept in self._images.values() for image in kept]
        return torch.stack(images) if images else torch.empty(0), torch.tensor(rows, dtype=torch.int64)

    def state(self) -> Tensors:
        """Return the images beside the best model."""
        images, rows = self._all()
        kept = {IMAGES: to_numpy(images), ROWS: to_numpy(rows)} if len(rows) else {}
        return {**self._best.state(), **kept}

    def restore(self, state: Tensors) -> None:
        """Take them back."""
        self._best.restore(state)
        self._images = {}
        for row, image in zip(state.get(ROWS, ()), state.get(IMAGES, ()), strict=True):
            self._images.setdefault(int(row), []).append(torch.from_numpy(np.array(image)))


def encoding_network(seed: int, pixels: int, rows: int) -> nn.Sequential:
    """Return the encoding network, the same on every worker and on the aggregator."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(pixels, UNITS), nn.Sigmoid(), nn.Linear(UNITS, rows))
    draws = generator(seed, "prototype-encoder", pixels, rows)
    with torch.no_grad():
        for tensor in network.parameters():
            bound = (3 / tensor.shape[-1]) ** 0.5
            tensor.copy_(bound * (2 * torch.rand(tensor.shape, generator=draws) - 1))
    return network


def encoded(network: nn.Sequential, image: Tensor, row: int) -> Tensor:
    """Return the gradient of the cross-entropy of `image` [1, channels, height, width] by all parameters."""
    loss = functional.cross_entropy(network(image), torch.tensor([row]))
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(network.parameters()))])


def encoded_size(pixels: int, rows: int) -> int:
    """Return the length of what `encoded` returns."""
    return UNITS * (pixels + 1) + rows * (UNITS + 1)


def rebuilt(gradient: Tensor, pixels: int) -> Tensor | None:
    """Return the image [pixels] that has this gradient; None where the gradient says nothing of it.

    The first layer is W x + b, so dL/dW_u = dL/db_u x for every unit u: x is the least-squares solution over
    the units, sum_u dL/db_u dL/dW_u / sum_u (dL/db_u)^2.
    """
    by_weight = gradient[: UNITS * pixels].double().reshape(UNITS, pixels)
    by_bias = gradient[UNITS * pixels : UNITS * (pixels + 1)].double()
    length = by_bias.square().sum()
    if not length > 0:
        return None
    return (by_bias @ by_weight / length).clamp(-LARGEST_PIXEL, LARGEST_PIXEL).float()
