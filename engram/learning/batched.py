"""The local steps of several workers at once: their networks stacked into one, with torch.func.

On a GPU a small network keeps the card waiting for the next kernel: five workers one after the other launch
five times the kernels of one. Here a step of all of them is one step of stacked parameters [workers, ...]:
the batches are the same ones, drawn from the same generators, and neither losses nor gradients nor clips mix
workers. Sums are taken in another order than one worker alone takes them, so results agree closely, but not
bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from engram.federation.roles import Progress
from engram.learning.algorithm import Algorithm
from engram.learning.context import Batch, LocalContext
from engram.learning.device import precision
from engram.learning.optimise import build_optimizer
from engram.learning.seeds import global_generator
from engram.learning.steps import GPU_CHECK_INTERVAL, WEIGHT_NOT_FINITE, LocalSteps, RoundData, diverged
from engram.learning.tensors import finite


@dataclass(frozen=True)
class Part:
    """One worker's round among those that are trained together."""

    algorithm: Algorithm
    context: LocalContext
    data: RoundData
    progress: Progress


class Loss(nn.Module):
    """An algorithm's loss as a module, so that `functional_call` can lend its network another's weights."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.network = part.context.network
        self._algorithm, self._context = part.algorithm, part.context

    def forward(
        self, images: Tensor, targets: Tensor, unlabelled: Tensor, hidden: Tensor, step: int
    ) -> Tensor:
        """Return the loss of one worker's batch."""
        return self._algorithm.loss(self._context, Batch(images, targets, unlabelled, hidden, step))


class Stack:
    """The networks of several workers, alike but for their values, as one of stacked tensors."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self._networks = networks
        stacked, self.buffers = stack_module_state(list(networks))
        self.parameters = {
            name: nn.Parameter(tensor, tensor.requires_grad) for name, tensor in stacked.items()
        }

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that take a gradient."""
        return [parameter for parameter in self.parameters.values() if parameter.requires_grad]

    def state(self) -> dict[str, Tensor]:
        """Return parameters and buffers as the network of a `Loss` names them."""
        return {f"network.{name}": tensor for name, tensor in {**self.parameters, **self.buffers}.items()}

    @torch.no_grad()
    def hand_back(self) -> None:
        """Give each network its own values."""
        for place, network in enumerate(self._networks):
            own = {**dict(network.named_parameters()), **dict(network.named_buffers())}
            for name, tensor in {**self.parameters, **self.buffers}.items():
                own[name].copy_(tensor[place])


def clip_each(parameters: Sequence[nn.Parameter], largest: float) -> None:
    """Shorten the gradient of each worker, over all of its parameters, to a norm of at most `largest`.

    What `torch.nn.utils.clip_grad_norm_` does for one network.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
    scale = (largest / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale.view(-1, *(1 for _ in gradient.shape[1:])))


class BatchedSteps:
    """Runs the steps of one round of several workers; each takes `training.localSteps` of them."""

    def __init__(self, steps: LocalSteps) -> None:
        """`steps` is what one worker alone would take."""
        self._steps, self._training = steps, steps.training

    def run(self, parts: Sequence[Part]) -> list[tuple[int, float]]:
        """Train every part's network in place and return each one's (steps, mean loss over them).

        Raises NumericalError, which names the worker, when a loss or a weight is not finite.
        """
        count = self._training.local_steps or 0
        lead = parts[0].context
        stack = Stack([part.context.network.train() for part in parts])
        optimizer = build_optimizer(stack.trained, self._training, lead.round, self._steps.rounds)
        loss_of = _over_workers(Loss(parts[0]))
        interval = GPU_CHECK_INTERVAL if lead.device.type == "cuda" else 1
        total = torch.zeros(len(parts), dtype=torch.float64, device=lead.device)
        feeds = [self._steps.feed(part.context, part.data, count) for part in parts]
        with global_generator(lead.device, lead.seed, "torch", "together", lead.scope.task, lead.round):
            for done, batches in enumerate(zip(*feeds, strict=True), start=1):
                with precision(lead.device, self._training):
                    losses = loss_of(stack.state(), *_stacked(batches), done - 1)
                optimizer.zero_grad()
                losses.sum().backward()  # type: ignore[no-untyped-call]
                if self._training.gradient_clip is not None:
                    clip_each(stack.trained, self._training.gradient_clip)
                optimizer.step()
                total += losses.detach()
                if done % interval == 0 or done == count:
                    self._look(parts, losses.detach(), done, count)
        stack.hand_back()
        for part in parts:
            if not finite(part.context.network.state_dict()):
                raise diverged(self._training, part.context, WEIGHT_NOT_FINITE)
        return [(count, mean) for mean in (total / count).tolist()]

    def _look(self, parts: Sequence[Part], losses: Tensor, done: int, count: int) -> None:
        """Stop at a loss that is not finite, and report progress."""
        for part, loss in zip(parts, losses.tolist(), strict=True):
            if loss - loss != 0:
                raise diverged(self._training, part.context, f"the loss is {loss} in step {done}")
            part.progress(done / count, loss)


def _over_workers(loss: Loss) -> Callable[..., Tensor]:
    """Return a function of stacked weights and batches to the workers' losses [workers]."""

    def one(state: dict[str, Tensor], *arguments: Tensor | int) -> Tensor:
        lost: Tensor = functional_call(loss, state, arguments)
        return lost

    over: Callable[..., Tensor] = vmap(one, in_dims=(0, 0, 0, 0, 0, None), randomness="different")
    return over


def _stacked(batches: Sequence[Batch]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return images, targets, unlabelled images and hidden rows of all workers, [workers, b, ...] each."""
    return (
        torch.stack([batch.images for batch in batches]),
        torch.stack([batch.targets for batch in batches]),
        torch.stack([batch.unlabelled for batch in batches]),
        torch.stack([batch.hidden for batch in batches]),
    )
