"""Pseudo-labels: whom to believe about an image without a label, what it then costs to disagree, and how
often that was right.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Agreement = Literal["votes", "required", "proposal"]


class PseudoLabels(NamedTuple):
    """What a batch of unlabelled images is taken for."""

    labels: Tensor
    """[u], rows of the head."""
    accepted: Tensor
    """[u], bool: sure enough to be learned from."""


def within(logits: Tensor, barred: int) -> Tensor:
    """Return probabilities [u, rows] over the rows from `barred` on; the rows before get 0."""
    allowed = torch.arange(logits.shape[1], device=logits.device) >= barred
    return logits.float().masked_fill(~allowed, -torch.inf).softmax(dim=1)


def agreed(own: Tensor, helpers: Tensor, rule: Agreement, threshold: float | Tensor) -> PseudoLabels:
    """Return what the own model and `helpers` take images for, section 3.4 of the project's proposal.

    `own` are probabilities [u, rows], `helpers` those of H helper models [H, u, rows]; with H = 0 every rule
    is FixMatch's (Sohn et al. 2020, equation 4). `threshold` is a number, or one for each row.

    votes: the class with most of the H + 1 votes, ties to the own; required: all must vote alike; proposal:
    the largest of mean probability plus the own vote, which is always the own class. Accepted is where the
    mean of the H + 1 probabilities of the class reaches the threshold.
    """
    rows = own.shape[1]
    mine = own.argmax(dim=1)
    votes = functional.one_hot(helpers.argmax(dim=2), rows).sum(dim=0)
    mean = (own + helpers.sum(dim=0)) / (len(helpers) + 1)
    first = functional.one_hot(mine, rows)
    if rule == "proposal":
        labels = (mean + first).argmax(dim=1)
    elif rule == "required":
        labels = mine
    else:
        labels = (2 * (votes + first) + first).argmax(dim=1)
    sure = mean.gather(1, labels.unsqueeze(1)).squeeze(1)
    needed = threshold[labels] if isinstance(threshold, Tensor) else threshold
    accepted = sure >= needed
    if rule == "required":
        accepted = accepted & (votes.gather(1, labels.unsqueeze(1)).squeeze(1) == len(helpers))
    return PseudoLabels(labels, accepted)


def consistency(logits: Tensor, pseudo: PseudoLabels) -> Tensor:
    """Cross-entropy of strongly augmented images' `logits` [u, rows] against accepted pseudo-labels.

    The mean over the whole batch, refused ones counting as zero (Sohn et al. 2020, equation 4); 0 for u = 0.
    """
    if len(logits) == 0:
        return logits.sum() * 0.0
    each = functional.cross_entropy(logits.float(), pseudo.labels, reduction="none")
    return (each * pseudo.accepted).mean()


class AdaptiveThreshold:
    """A threshold for each class, lower for those that are seldom accepted, as old ones' bias makes new ones.

    Zhang et al. 2021 ("FlexMatch"), equations 5 to 12: with sigma_c the accepted images of class c so far in
    the round, beta_c = sigma_c / max(max sigma, refused images), threshold_c = tau beta_c / (2 - beta_c).
    Counted are predictions, step by step, instead of every image's last one. Below `least` no threshold
    falls.
    """

    def __init__(self, tau: float, rows: int, device: torch.device, least: float = 0.5) -> None:
        self._tau, self._least = tau, least
        self._accepted = torch.zeros(rows, device=device)
        self._refused = torch.zeros((), device=device)

    def thresholds(self) -> Tensor:
        """Return the thresholds as they are now, [rows]."""
        most = torch.maximum(self._accepted.max(), self._refused).clamp(min=1)
        beta = self._accepted / most
        return (self._tau * beta / (2 - beta)).clamp(min=self._least)

    def learn(self, probabilities: Tensor) -> None:
        """Count a batch's predictions [u, rows] that reach tau itself, and those that do not."""
        sure, labels = probabilities.max(dim=1)
        above = sure >= self._tau
        self._accepted += functional.one_hot(labels, len(self._accepted))[above].sum(dim=0)
        self._refused += (~above).sum()


class PseudoLabelCount:
    """Counts of a round, kept on the device so that counting waits for nothing."""

    def __init__(self) -> None:
        self._offered = 0
        self._counts: Tensor | None = None

    def add(self, pseudo: PseudoLabels, hidden: Tensor) -> None:
        """Count a batch; `hidden` [u] are the rows that the images really belong to."""
        right = pseudo.accepted & (pseudo.labels == hidden)
        found = torch.stack([pseudo.accepted.sum(), right.sum()])
        self._counts = found if self._counts is None else self._counts + found
        self._offered += len(hidden)

    def metrics(self) -> dict[str, float]:
        """Return accept ratio and accuracy of those accepted, where any was; {} without data."""
        if self._counts is None or self._offered == 0:
            return {}
        accepted, right = (int(count) for count in self._counts.tolist())
        result = {"pseudo_label_accept_ratio": accepted / self._offered}
        if accepted:
            result["pseudo_label_accuracy"] = right / accepted
        return result
