"""The floor: a bare PyTorch loop, and the same as a CUDA graph."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable

import torch
from torch.nn import functional

from benchmarks.training_load.setting import CLIP, DECAY, MOMENTUM, RATE, Case, job_of, seconds
from engram.learning.device import pick_device, precision
from engram.learning.models import build_network


class Floor:
    """The bare loop of one algorithm's forward passes."""

    def __init__(self, case: Case, passes: Counter[tuple[int, bool]], steps: int) -> None:
        self._steps = steps
        self._device = pick_device()
        job = job_of(case, "finetune", 1, steps)
        self._training = job.spec.training
        self._network = build_network(job, case.shape, 4).to(self._device)
        self.parameters = sum(parameter.numel() for parameter in self._network.parameters())
        self._optimizer = torch.optim.SGD(
            self._network.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY, foreach=True
        )
        self._passes = [
            (torch.randn(images, *case.shape, device=self._device), gradient)
            for (images, gradient), times in passes.items()
            for _ in range(times)
        ]
        self._targets = torch.arange(max(images for images, _ in passes), device=self._device) % 4

    def step(self) -> None:
        """Take one SGD step."""
        self._optimizer.zero_grad()
        loss = torch.zeros((), device=self._device)
        with precision(self._device, self._training):
            for images, gradient in self._passes:
                with torch.set_grad_enabled(gradient):
                    logits = self._network(images)
                    if gradient:
                        loss = loss + functional.cross_entropy(logits.float(), self._targets[: len(images)])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), CLIP)
        self._optimizer.step()

    def round(self, step: Callable[[], None]) -> float:
        """Return the milliseconds a step of one round."""
        before = seconds()
        for _ in range(self._steps):
            step()
        return 1000 * (seconds() - before) / self._steps


def graphed(step: Callable[[], None]) -> Callable[[], None] | None:
    """Return `step` as a CUDA graph; None without CUDA, or where it cannot be captured."""
    if pick_device().type != "cuda":
        return None
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            step()
    except RuntimeError as error:
        print(f"no CUDA graph of the floor: {error}", file=sys.stderr)
        return None
    return graph.replay
