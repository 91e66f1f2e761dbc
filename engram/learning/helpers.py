"""Helper models: other workers' models of the last round, whose opinion counts when images get pseudo-labels.

The aggregator keeps the model of every worker and picks H of them for each; that costs it a model a worker
in memory and in its checkpoint, each worker the download of H models a round, and rules out that updates are
only ever seen as a sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engram.federation.messages import Shared, Tensors, Update
from engram.learning.context import GlobalContext, LocalContext, TaskScope
from engram.learning.models import Network
from engram.learning.tensors import copied, prefixed, unprefixed

Choice = Literal["similar", "random"]
GROUP, MASKS, KNOWN = "helper", "known-by-helpers", "known_rows"
PROBES = 64
"""Images of noise on which models are compared."""


class HelperChoice:
    """The aggregator's side: keeps the workers' models and says which of them helps whom."""

    def __init__(self, count: int, choice: Choice) -> None:
        self.count = count
        self._choice = choice
        self._models: dict[str, Tensors] = {}
        self._known: dict[str, NDArray[np.bool_]] = {}
        """Rows of the head of which each worker has had labels."""
        self._answers: dict[str, Tensor] = {}
        self._context: GlobalContext | None = None

    def begin(self, context: GlobalContext) -> None:
        """Take what models are compared with."""
        self._context = context

    def learn(self, scope: TaskScope, updates: Mapping[str, Update]) -> None:
        """Keep the round's models; a worker that took no part keeps the one it had."""
        for worker, update in updates.items():
            if update.weights:
                self._models[worker] = copied(update.weights)
                self._known[worker] = _known(update.info.get(KNOWN), len(scope.seen))
                self._answers.pop(worker, None)

    def forget(self) -> None:
        """Drop the models at a task's end: the next task's have other rows."""
        self._models, self._answers = {}, {}

    def shared(self, worker: str, scope: TaskScope, round: int) -> Shared:
        """Return the groups that go down to `worker` with a round: H models, and the rows they know."""
        chosen = self.helpers_of(worker, scope, round)
        if not chosen:
            return {}
        groups = {f"{GROUP}-{place}": self._models[name] for place, name in enumerate(chosen, 1)}
        known = np.stack([self._known[name] for name in chosen])
        return {**groups, MASKS: {KNOWN: known}}

    def helpers_of(self, worker: str, scope: TaskScope, round: int) -> list[str]:
        """Return up to H workers whose models help `worker`, the best first.

        similar: those whose answers to a common probe of noise are nearest to the worker's own (as Jeong et
        al. 2021, "FedMatch", section 4.1, compare models); random: drawn anew for each round.
        """
        others = [name for name in self._models if name != worker]
        if not worker or self._context is None or not others:
            return []
        if self._choice == "random" or worker not in self._models:
            drawn = self._context.generator("helpers", worker, scope.task, round)
            order = torch.randperm(len(others), generator=drawn).tolist()
            return [others[place] for place in order[: self.count]]
        mine = self._answer(worker)
        distance = {name: float((self._answer(name) - mine).square().sum()) for name in others}
        return sorted(others, key=lambda name: (distance[name], name))[: self.count]

    def _answer(self, worker: str) -> Tensor:
        """Return a model's probabilities for the probe, [PROBES, rows]."""
        if self._context is None:
            raise RuntimeError("begin() comes first")
        if worker not in self._answers:
            generator = self._context.generator("probe")
            images = torch.randn(PROBES, *self._context.shape, generator=generator)
            network = self._context.frozen(self._models[worker])
            with torch.no_grad():
                self._answers[worker] = network(images.to(self._context.device)).softmax(1).cpu()
        return self._answers[worker]

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the models and what they know."""
        kept: dict[str, NDArray[Any]] = {}
        for worker, weights in self._models.items():
            kept |= prefixed(f"models/{worker}", weights)
            kept[f"known/{worker}"] = self._known[worker]
        return kept

    def restore(self, state: Tensors) -> None:
        """Take over what `state` returned."""
        self.forget()
        workers = [name.removeprefix("known/") for name in state if name.startswith("known/")]
        for worker in workers:
            self._models[worker] = unprefixed(f"models/{worker}", state)
            self._known[worker] = np.array(state[f"known/{worker}"])


class Helpers:
    """The worker's side: the models that came down."""

    def __init__(self) -> None:
        self._networks: list[Network] = []
        self._silent: list[Tensor] = []
        """Rows that each of them is not asked for."""

    def begin(self, context: LocalContext, barred: int = 0) -> None:
        """Make the received helpers ready for this round; rows before `barred` are not asked for.

        A helper without a label of any of the others is left out.
        """
        received = [weights for name, weights in context.groups.items() if name.startswith(f"{GROUP}-")]
        asked, self._silent = list[Tensors](), []
        for weights, known in zip(received, context.shared[MASKS][KNOWN] if received else (), strict=True):
            silent = ~known
            silent[:barred] = True
            if not silent.all():
                asked.append(weights)
                self._silent.append(silent)
        spent = [*self._networks, *[None] * len(asked)]
        self._networks = [context.frozen(weights, spent[place]) for place, weights in enumerate(asked)]

    def probabilities(self, images: Tensor, rows: int) -> Tensor:
        """Return each helper's probabilities [H, u, rows] over the classes that it has had labels of."""
        answers = [images.new_zeros(0, len(images), rows)]
        for network, silent in zip(self._networks, self._silent, strict=True):
            logits = network(images).float().masked_fill(silent, -torch.inf)
            answers.append(logits.softmax(dim=1).unsqueeze(0))
        return torch.cat(answers)


def _known(sent: NDArray[Any] | None, rows: int) -> NDArray[np.bool_]:
    """Return what a worker says it has had labels of; all rows where that is no such thing."""
    if sent is None or sent.shape != (rows,) or sent.dtype != np.bool_ or not sent.any():
        return np.ones(rows, np.bool_)
    return np.array(sent)
