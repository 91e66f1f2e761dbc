"""A worker's side of compression: from the weights that training left to what is sent."""

from __future__ import annotations

from dataclasses import replace

from engram.federation.compression.arrays import Method
from engram.federation.compression.changes import pack_update
from engram.federation.compression.residuals import Residuals
from engram.federation.messages import EMPTY, Tensors, Train, Update

LOST = "residual_lost"
"""Metric of an update: 1 when this worker was to add what it still owed and had it no more."""


class Packer:
    """Packs a worker's updates."""

    def __init__(self, method: Method, residuals: Residuals) -> None:
        self._method, self._residuals = method, residuals

    def pack(self, update: Update, order: Train) -> Update:
        """Return an update as it is sent; what it leaves unsaid is kept first. Raises CheckpointError."""
        if update.samples == 0:
            return update
        owed = self._owed(order)
        weights, left = pack_update(update.weights, order.weights, owed or EMPTY, self._method)
        if self._method.feeds_back:
            self._residuals.write((order.task, order.round), left, order.counted)
        metrics = update.metrics if owed is not None else {**update.metrics, LOST: 1.0}
        return replace(update, weights=weights, metrics=metrics)

    def _owed(self, order: Train) -> Tensors | None:
        """Return what the newest update that counts has left unsaid; None when that is lost."""
        if order.counted is None or not self._method.feeds_back:
            return EMPTY
        return self._residuals.read(order.counted)
