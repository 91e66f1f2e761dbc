"""Loss functions that algorithms are composed of; each is a pure function of tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of `logits` [b, rows] against `targets` [b] (rows of the head); 0 for b = 0."""
    if len(targets) == 0:
        return logits.sum() * 0.0
    return functional.cross_entropy(logits.float(), targets)


def distillation(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 KL( softmax(teacher / T) || softmax(student / T) ), mean over the batch.

    Both [b, rows of the old classes]. Hinton, Vinyals and Dean 2015, section 2 (the factor T^2 keeps the
    gradient's size independent of T); Li and Hoiem 2016 ("Learning without forgetting"), equation 2.
    """
    student = functional.log_softmax(logits.float() / temperature, dim=1)
    teacher = functional.log_softmax(teacher_logits.float() / temperature, dim=1)
    # Bit for bit what kl_div makes of logarithms, which torch.vmap would take worker by worker.
    divergence = (teacher.exp() * (teacher - student)).sum() / len(logits)
    return divergence * temperature**2


def proximal(parameters: Mapping[str, Tensor], anchor: Mapping[str, Tensor]) -> Tensor:
    """||w - w_global||^2, the squared Euclidean distance over all parameters (Li et al. 2020, equation 2)."""
    return torch.stack([(tensor - anchor[name]).square().sum() for name, tensor in parameters.items()]).sum()


def elastic(
    parameters: Mapping[str, Tensor], anchor: Mapping[str, Tensor], importance: Mapping[str, Tensor]
) -> Tensor:
    """sum_i F_i (w_i - w*_i)^2 (Kirkpatrick et al. 2017, equation 3, without lambda/2).

    Head tensors may have more rows than `anchor` and `importance`: the additional rows are new classes,
    about which the old tasks know nothing.
    """
    terms = []
    for name, weight in importance.items():
        current = parameters[name]
        if current.shape != weight.shape:
            current = current[: len(weight)]
        terms.append((weight * (current - anchor[name]).square()).sum())
    return torch.stack(terms).sum()
