"""What is done after a task about a head that prefers new classes: nothing, weight alignment, or bias
correction. A part of `replay` and of all that build on it.

Plentiful new samples beside few exemplars make the scores of new classes too large. Both corrections end in
the head's own weights, so nothing else has to know of them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engram.data.types import Indices, WorkerShare
from engram.federation.messages import EMPTY, Tensors
from engram.federation.validation import check_like
from engram.learning.algorithm import LocalContext, TaskScope
from engram.learning.memory import Memory
from engram.learning.seeds import generator
from engram.learning.tensors import HEAD_BIAS, HEAD_WEIGHT, to_numpy
from engram.spec.algorithms import ExemplarParameters

ALPHAS: NDArray[np.float64] = 2.0 ** (np.arange(-24, 25) / 12)
"""Factors that bias correction tries: 1/4 to 4 in steps of 6 %."""
BETAS: NDArray[np.float64] = np.arange(-80, 81) / 20
"""Offsets that it tries: -4 to 4."""
LOSSES, COUNTS = "bias_losses", "bias_counts"
LARGEST_LOSS = 1e4
"""Cross-entropy of one sample above which a worker's sums are refused; logits are rarely above 100."""


class Correction:
    """Changes nothing; the base of the others."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        """What is left of a worker's exemplars for training."""

    def trained_on(self, share: WorkerShare, task: int, labelled: Indices) -> Indices:
        """Worker: which of the task's labelled samples training may use."""
        return labelled

    def consolidate(self, context: LocalContext) -> Tensors:
        """Worker: what `corrected` needs of it, at the end of a task."""
        return EMPTY

    def state(self) -> Tensors:
        """Worker: what to keep over tasks."""
        return EMPTY

    def restore(self, state: Tensors) -> None:
        """Worker: take over what `state` returned."""

    def check(self, scope: TaskScope, results: Tensors) -> None:
        """Aggregator: raise ValueError unless `corrected` can use a worker's results; others may be there."""

    def corrected(self, scope: TaskScope, weights: Tensors, results: Iterable[Tensors]) -> Tensors:
        """Aggregator: return the task's final weights, or `weights` themselves if they are to stay."""
        return weights


class Alignment(Correction):
    """Weight alignment (Zhao et al. 2020): needs nothing but the head."""

    def corrected(self, scope: TaskScope, weights: Tensors, results: Iterable[Tensors]) -> Tensors:
        """Return the weights with an aligned head."""
        return aligned(weights, scope.old)


class BiasCorrection(Correction):
    """Bias correction (Wu et al. 2019, "Large scale incremental learning", equations 4 and 5).

    The scores o of new classes become alpha o + beta; alpha and beta are those of the least cross-entropy on
    held-out samples, old and new in balance. Each worker holds a share of its exemplars, and of a new task's
    labelled samples, out of training.

    In a federation no one has all of these samples. But two numbers are few enough to try them all: each
    worker sends its summed loss at every point of one grid, old and new samples apart, and the least total is
    what a fit on everybody's samples together would find; a mean of the workers' own fits would not be.
    """

    def __init__(self, budget: int, held: int, share: float) -> None:
        super().__init__(budget - held)
        self._share = share
        self._memory = Memory(held)

    def trained_on(self, share: WorkerShare, task: int, labelled: Indices) -> Indices:
        """Return `labelled` without the samples held out."""
        return labelled[~self._held_out(share, task, len(labelled))]

    def _held_out(self, share: WorkerShare, task: int, count: int) -> NDArray[np.bool_]:
        """Return which of a task's `count` labelled samples are held out: always the same ones."""
        mask = np.zeros(count, bool)
        chosen = torch.randperm(count, generator=generator(0, "held-out", share.worker, task)).numpy()
        mask[chosen[: int(self._share * count)]] = True
        return mask

    def consolidate(self, context: LocalContext) -> Tensors:
        """Keep held-out exemplars of the new classes; return the sums of losses over the grid."""
        task = context.scope.task
        labelled = context.share.tasks[task - 1].labelled
        fresh = labelled[self._held_out(context.share, task, len(labelled))]
        candidates = {
            label: (found, context.features(found)) for label, found in context.by_class(fresh).items()
        }
        self._memory.learn(candidates, len(context.scope.seen))
        if context.scope.old == 0:
            return EMPTY
        old = [kept for label, kept in self._memory.positions.items() if label not in context.scope.classes]
        positions = np.concatenate([*old, fresh])
        rows = context.rows(positions)
        sums = grid_losses(context.logits(positions), rows, context.scope.old)
        new = int((rows >= context.scope.old).sum())
        return {LOSSES: sums, COUNTS: np.array([len(positions) - new, new], np.int64)}

    def state(self) -> Tensors:
        """Return the held-out exemplars."""
        return self._memory.state()

    def restore(self, state: Tensors) -> None:
        """Take them back."""
        self._memory.restore(state)

    def check(self, scope: TaskScope, results: Tensors) -> None:
        """Refuse sums of another shape, below zero, or too large for their counts."""
        own = {name: array for name, array in results.items() if name in (LOSSES, COUNTS)}
        if not own:
            return
        expected = {LOSSES: np.empty((2, len(ALPHAS), len(BETAS))), COUNTS: np.empty(2, np.int64)}
        check_like(own, expected)
        losses, counts = results[LOSSES], results[COUNTS]
        if counts.min() < 0 or losses.min() < 0 or (losses.max(axis=(1, 2)) > LARGEST_LOSS * counts).any():
            raise ValueError("losses that no samples could have")

    def corrected(self, scope: TaskScope, weights: Tensors, results: Iterable[Tensors]) -> Tensors:
        """Return the weights with alpha and beta folded into the new rows of the head."""
        measured = [result for result in results if LOSSES in result]
        if scope.old == 0 or not measured:
            return weights
        losses = np.sum([result[LOSSES] for result in measured], axis=0)
        counts = np.sum([result[COUNTS] for result in measured], axis=0)
        return folded(weights, scope.old, *best_bias(losses, counts, scope))


def build_correction(parameters: ExemplarParameters) -> Correction:
    """Return what the parameters ask for."""
    budget, held = parameters.exemplars_per_worker, parameters.held_out
    match parameters.correction:
        case "none":
            return Correction(budget)
        case "align":
            return Alignment(budget)
        case "bic":
            return BiasCorrection(budget, held, parameters.held_out_share)


def aligned(weights: Tensors, old: int) -> Tensors:
    """Return `weights` with rows `old` and after of the head multiplied by gamma.

    gamma = min(1, mean ||w_old|| / mean ||w_new||): Zhao et al. 2020, "Maintaining discrimination and
    fairness in class incremental learning", equations 6 and 7. It only ever shrinks: after few local steps
    new rows are shorter than old ones, the bias that the paper corrects is not there, and stretching them
    would make one. Biases stay; without old or new rows nothing changes.
    """
    head = weights[HEAD_WEIGHT]
    norms = np.linalg.norm(head.astype(np.float64), axis=1)
    if old == 0 or old == len(head) or norms[old:].mean() <= norms[:old].mean():
        return weights
    gamma = norms[:old].mean() / norms[old:].mean()
    corrected = head.copy()
    corrected[old:] = (head[old:] * gamma).astype(head.dtype)
    return {**weights, HEAD_WEIGHT: corrected}


def grid_losses(logits: Tensor, rows: Tensor, old: int) -> NDArray[np.float64]:
    """Return summed cross-entropies [2, alphas, betas] of old and of new samples, where scores of rows `old`
    and after are alpha o + beta.

    `logits` [n, rows of the head], `rows` [n] the samples' own.
    """
    scores, betas = logits.double().cpu(), torch.from_numpy(BETAS)
    own = scores.gather(1, rows.cpu().unsqueeze(1))
    new = rows.cpu() >= old
    of_old = scores[:, :old].logsumexp(dim=1, keepdim=True)
    sums = torch.zeros(2, len(ALPHAS), len(BETAS), dtype=torch.float64)
    for place, alpha in enumerate(ALPHAS.tolist()):
        of_new = (alpha * scores[:, old:]).logsumexp(dim=1, keepdim=True) + betas
        reached = torch.where(new.unsqueeze(1), alpha * own + betas, own)
        loss = torch.logaddexp(of_old, of_new) - reached
        sums[0, place], sums[1, place] = loss[~new].sum(dim=0), loss[new].sum(dim=0)
    return to_numpy(sums.clamp(min=0))


def best_bias(
    losses: NDArray[np.float64], counts: NDArray[np.int64], scope: TaskScope
) -> tuple[float, float]:
    """Return alpha and beta of the least mean loss, where every class weighs the same.

    1 and 0 where old or new samples are missing, or where nothing else is better.
    """
    if not counts.all():
        return 1.0, 0.0
    old, new = losses / counts[:, None, None]
    total = scope.old * old + len(scope.classes) * new
    still = int(np.argmin(abs(ALPHAS - 1))), int(np.argmin(abs(BETAS)))
    best = np.unravel_index(int(total.argmin()), total.shape)
    alpha, beta = best if total[best] < total[still] else still
    return float(ALPHAS[alpha]), float(BETAS[beta])


def folded(weights: Tensors, old: int, alpha: float, beta: float) -> Tensors:
    """Return `weights` whose rows `old` and after of the head give alpha o + beta where they gave o."""
    if (alpha, beta) == (1.0, 0.0):
        return weights
    head, bias = weights[HEAD_WEIGHT].copy(), weights[HEAD_BIAS].copy()
    head[old:] = (alpha * head[old:].astype(np.float64)).astype(head.dtype)
    bias[old:] = (alpha * bias[old:].astype(np.float64) + beta).astype(bias.dtype)
    return {**weights, HEAD_WEIGHT: head, HEAD_BIAS: bias}
