"""The network that every algorithm trains: a feature extractor and a head with one row for each seen class.

Row i of the head belongs to the i-th class in learning order, and the head grows by copying rows. The
extractor is the only thing that the job's `model` decides.
"""

from __future__ import annotations

from torch import Tensor, nn


class Network(nn.Module):
    """`features` maps images [b, channels, height, width] to [b, size]; `head` maps those to [b, rows]."""

    def __init__(self, features: nn.Module, size: int, rows: int) -> None:
        super().__init__()
        self.features = features
        self.head = nn.Linear(size, rows)

    @property
    def rows(self) -> int:
        """Number of classes that the head tells apart."""
        return self.head.out_features

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [b, rows]."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def resize(self, rows: int) -> None:
        """Give the head `rows` rows of zeros, to be overwritten by weights that are loaded next."""
        if rows == self.rows:
            return
        weight = self.head.weight
        self.head.weight = nn.Parameter(weight.new_zeros(rows, weight.shape[1]))
        self.head.bias = nn.Parameter(weight.new_zeros(rows))
        self.head.out_features = rows
