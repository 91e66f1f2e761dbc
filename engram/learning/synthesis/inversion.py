"""target's images: a generator and a student that plays against it, both trained on what the old model says
(Zhang et al. 2023, algorithm 1, DataGeneration).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from engram.federation.messages import Tensors
from engram.learning.context import GlobalContext
from engram.learning.losses import cross_entropy, distillation
from engram.learning.optimise import Sgd
from engram.learning.seeds import global_generator
from engram.learning.synthesis.network import check_finite, fresh_generator, noise
from engram.learning.synthesis.priors import Watched, boundary, statistics_distance
from engram.spec.algorithms import TargetParameters

STUDENT_RATE, STUDENT_MOMENTUM, STUDENT_DECAY = 0.05, 0.9, 1e-4
LEVELS = 255


class Inversion:
    """Makes the images of one task's end from the task's final weights."""

    def __init__(
        self, context: GlobalContext, parameters: TargetParameters, task: int, weights: Tensors
    ) -> None:
        self._context, self._parameters, self._task = context, parameters, task
        self._rows = len(weights["head.bias"])
        self._teacher = Watched(context.frozen(weights))
        self._student = context.make_network(self._rows)
        self._generator = fresh_generator(context, parameters, self._rows, task)
        self._adam = torch.optim.Adam(
            self._generator.parameters(), lr=parameters.generator_learning_rate, betas=(0.5, 0.999)
        )
        self._sgd = Sgd(list(self._student.parameters()), STUDENT_RATE, STUDENT_MOMENTUM, STUDENT_DECAY)
        self._draws = context.generator("synthesis", task)

    def run(self) -> Tensor:
        """Return the images [syntheticImages, channels, height, width], every row of the head in turn."""
        wanted, size = self._parameters.synthetic_images, self._parameters.generator_batch
        pool: list[Tensor] = []
        with global_generator(self._context.device, self._context.seed, "synthesis", self._task):
            for number in range(math.ceil(wanted / size)):
                if pool:
                    self._teach(torch.cat(pool))
                labels = torch.arange(number * size, (number + 1) * size) % self._rows
                pool.append(self._batch(labels.to(self._context.device), against_student=bool(pool)))
        images = torch.cat(pool)[:wanted]
        check_finite({"images": images}, self._task)
        return images

    def _batch(self, labels: Tensor, *, against_student: bool) -> Tensor:
        """Train the generator on one draw of noise and return what it makes of it."""
        parameters = self._parameters
        draw = noise(len(labels), parameters.noise_size, self._draws, labels.device)
        codes = torch.cat([draw, functional.one_hot(labels, self._rows).float()], dim=1)
        self._student.eval().requires_grad_(False)
        for _ in range(parameters.generator_steps):
            images = self._generator(codes)
            logits, layers = self._teacher(images)
            loss = cross_entropy(logits, labels) + parameters.statistics * statistics_distance(layers)
            if against_student and parameters.boundary:
                loss = loss + parameters.boundary * boundary(logits, self._student(images))
            self._adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._adam.step()
        with torch.no_grad():
            made: Tensor = self._generator(codes)
        return made

    def _teach(self, pool: Tensor) -> None:
        """Let the student learn the teacher's answers to all images made so far (equation 10)."""
        self._student.train().requires_grad_(True)
        for _ in range(self._parameters.student_steps):
            index = torch.randint(len(pool), (self._parameters.generator_batch,), generator=self._draws)
            images = pool[index.to(pool.device)]
            with torch.no_grad():
                wanted = self._teacher.network(images)
            self._sgd.zero_grad()
            loss = distillation(self._student(images), wanted, self._parameters.temperature)
            loss.backward()  # type: ignore[no-untyped-call]
            self._sgd.step()


def packed(images: Tensor) -> dict[str, NDArray[Any]]:
    """Return images as a byte a pixel, with the lowest value and the step between levels of each channel."""
    array = images.cpu().numpy()
    low, high = array.min(axis=(0, 2, 3)), array.max(axis=(0, 2, 3))
    step = np.maximum((high - low) / LEVELS, np.finfo(np.float32).tiny)
    levels = np.rint((array - low[:, None, None]) / step[:, None, None])
    return {"pixels": levels.astype(np.uint8), "low": low, "step": step}


def unpacked(tensors: dict[str, Tensor]) -> Tensor:
    """Return the images that `packed` made bytes of, up to half a step."""
    low, step = (tensors[name][:, None, None] for name in ("low", "step"))
    return low + tensors["pixels"].float() * step
