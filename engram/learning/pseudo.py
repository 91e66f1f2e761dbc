"""How well pseudo-labels do, counted over a round: metrics of every semi-supervised algorithm."""

from __future__ import annotations

import torch
from torch import Tensor


class PseudoLabelCount:
    """Counts of a round, kept on the device so that counting waits for nothing."""

    def __init__(self) -> None:
        self._offered = 0
        self._counts: Tensor | None = None

    def add(self, labels: Tensor, accepted: Tensor, hidden: Tensor) -> None:
        """Count a batch: pseudo-labels [u] (rows), which were accepted [u] (bool), the hidden rows [u]."""
        right = accepted & (labels == hidden)
        found = torch.stack([accepted.sum(), right.sum()])
        self._counts = found if self._counts is None else self._counts + found
        self._offered += len(labels)

    def metrics(self) -> dict[str, float]:
        """Return accept ratio and accuracy of those accepted, where any was; {} without data."""
        if self._counts is None or self._offered == 0:
            return {}
        accepted, right = (int(count) for count in self._counts.tolist())
        result = {"pseudo_label_accept_ratio": accepted / self._offered}
        if accepted:
            result["pseudo_label_accuracy"] = right / accepted
        return result
