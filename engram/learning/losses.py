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


def linear(
    parameters: Mapping[str, Tensor], anchor: Mapping[str, Tensor], slope: Mapping[str, Tensor]
) -> Tensor:
    """sum_i s_i (w_i - w*_i): zero at the anchor, and its gradient is `slope` everywhere."""
    terms = [(weight * (parameters[name] - anchor[name])).sum() for name, weight in slope.items()]
    return torch.stack(terms).sum()


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


def weighted_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean over the batch of weights [b] times the cross-entropy of each sample; 0 for b = 0."""
    if len(targets) == 0:
        return logits.sum() * 0.0
    return (weights * functional.cross_entropy(logits.float(), targets, reduction="none")).mean()


def gradient_weights(logits: Tensor, targets: Tensor, kinds: Tensor, exponent: float = 1.0) -> Tensor:
    """Return |G_i|^exponent over its mean among the batch's samples of the same kind, [b], without gradient.

    G_i = p_i - 1 is the gradient of sample i's cross-entropy by the logit of its own class; p_i is the
    softmax of `logits` [b, rows] at its target. `kinds` [b] are any numbers. Each kind's weights have mean 1,
    so that within a kind hard samples pull more, but no kind more than another; where a kind has no gradient
    at all its weights are 1.
    Dong et al. 2022 ("Federated class-incremental learning"), section 4.1: G_i and the weight in L_GC.
    """
    log_chance = functional.log_softmax(logits.detach().float(), dim=1).gather(1, targets.unsqueeze(1))
    size = (-torch.expm1(log_chance.squeeze(1))).clamp(min=0).pow(exponent)
    alike = (kinds.unsqueeze(0) == kinds.unsqueeze(1)).float()
    mean = alike @ size / alike.sum(dim=1)
    return torch.where(mean > 0, size / mean, torch.ones_like(size))


def relation_distillation(
    logits: Tensor, teacher_logits: Tensor, targets: Tensor, weights: Tensor | None = None
) -> Tensor:
    """KL( Y || softmax(logits) ), mean over the batch of the samples' `weights` [b] (default 1) times it.

    Y joins what the teacher says of the old classes (the softmax of `teacher_logits` [b, old]) and the
    one-hot label in the new rows, over its sum: an old sample's Y is the teacher's answer, a new one's lies
    half on its class and half where the teacher sees it among the old ones. Dong et al. 2022, section 4.1,
    L_RD; there the arguments of KL are the other way round, which is infinite for a one-hot Y.
    """
    old = teacher_logits.shape[1]
    if len(targets) == 0:
        return logits.sum() * 0.0
    wanted = functional.one_hot(targets, logits.shape[1]).float()
    wanted[:, :old] = teacher_logits.float().softmax(dim=1)
    wanted = wanted / wanted.sum(dim=1, keepdim=True)
    student = functional.log_softmax(logits.float(), dim=1)
    divergence = functional.kl_div(student, wanted, reduction="none").sum(dim=1)
    return (divergence if weights is None else weights * divergence).mean()
