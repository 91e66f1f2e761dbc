"""Parameter types of the built-in algorithms, one class each; a user's own algorithm brings its own."""

from __future__ import annotations

from pydantic import Field

from engram.spec.base import Spec


class NoParameters(Spec):
    """Takes no parameters."""


class JointParameters(Spec):
    """joint: train on all data so far."""

    upfront: bool = Field(False, description="true: all classes from round 1, tasks x roundsPerTask rounds.")


class FedProxParameters(Spec):
    """fedprox: proximal term."""

    mu: float = Field(0.01, ge=0, le=1000, description="Weight of mu/2 ||w - w_global||^2.")


class FedLwfParameters(Spec):
    """fedlwf: distillation from the last task's global model."""

    temperature: float = Field(2.0, gt=0, le=100, description="Temperature T of the distillation.")
    strength: float = Field(3.0, ge=0, le=10_000, description="Weight (lambda) of the distillation loss.")


class FedEwcParameters(Spec):
    """fedewc: elastic weight consolidation."""

    strength: float = Field(100.0, ge=0, le=1e9, description="Weight (lambda) of lambda/2 sum F (w - w*)^2.")
    decay: float = Field(0.9, ge=0, le=1, description="Decay of the Fisher information of older tasks.")


class ReplayParameters(Spec):
    """replay: exemplars chosen by herding."""

    exemplars_per_worker: int = Field(
        50, ge=0, le=10_000_000, description="Exemplars that each worker keeps."
    )
    weight_alignment: bool = Field(
        True,
        description="After each task shrink rows of new classes to the mean norm of old ones, if longer.",
    )


class IcarlParameters(Spec):
    """icarl: exemplars, distillation and nearest-mean classification."""

    exemplars_per_worker: int = Field(
        50, ge=1, le=10_000_000, description="Exemplars that each worker keeps."
    )
    temperature: float = Field(2.0, gt=0, le=100, description="Temperature T of the distillation.")
    strength: float = Field(1.0, ge=0, le=10_000, description="Weight (lambda) of the distillation loss.")


class DataFreeParameters(Spec):
    """Shared by algorithms that make images of old classes out of the model, at the aggregator."""

    noise_size: int = Field(64, ge=1, le=10_000, description="Random numbers that an image is made from.")
    generator_width: int = Field(
        16, ge=1, le=1024, description="Channels of the generator's last block; the first has twice as many."
    )
    generator_batch: int = Field(
        64, ge=2, le=65_536, description="Images in a step of the generator's training."
    )
    generator_learning_rate: float = Field(
        0.002, gt=0, le=1, description="Step size of the generator's training (Adam)."
    )
    statistics: float = Field(
        1.0, ge=0, le=10_000, description="Weight of the loss on the statistics of BatchNorm layers."
    )
    synthetic_batch: int = Field(
        32, ge=1, le=65_536, description="Synthetic images in a worker's step, beside batchSize real ones."
    )


class TargetParameters(DataFreeParameters):
    """target: distillation on synthetic images of old classes; experimental."""

    strength: float = Field(3.0, ge=0, le=10_000, description="Weight (alpha) of the distillation loss.")
    temperature: float = Field(2.0, gt=0, le=100, description="Temperature T of the distillation.")
    new_rows_only: bool = Field(
        True, description="Cross-entropy among the task's own classes; false: among all classes seen."
    )
    synthetic_images: int = Field(
        512, ge=1, le=1_000_000, description="Images made at a task's end, a byte a pixel."
    )
    generator_steps: int = Field(
        30, ge=1, le=1_000_000, description="Steps of the generator for each batch of images."
    )
    student_steps: int = Field(
        20, ge=0, le=1_000_000, description="Steps of the generator's opponent after each batch of images."
    )
    boundary: float = Field(
        1.0, ge=0, le=10_000, description="Weight of the loss that seeks images on which the opponent errs."
    )


class MfclParameters(DataFreeParameters):
    """mfcl: a generator of images of old classes on every worker; experimental."""

    generator_steps: int = Field(
        300, ge=1, le=10_000_000, description="Steps of the generator's training at a task's end."
    )
    diversity: float = Field(
        1.0, ge=0, le=10_000, description="Weight of the loss that wants all old classes equally often."
    )
    smoothness: float = Field(
        0.001, ge=0, le=10_000, description="Weight of the loss that wants images without noise."
    )
    fine_tuning: float = Field(
        1.0, ge=0, le=10_000, description="Weight of the head's cross-entropy over all classes."
    )
    distillation: float = Field(
        0.1, ge=0, le=10_000, description="Weight of the distillation of features, as the old head sees them."
    )


ALGORITHMS: dict[str, type[Spec]] = {
    "finetune": NoParameters,
    "joint": JointParameters,
    "fedprox": FedProxParameters,
    "fedlwf": FedLwfParameters,
    "fedewc": FedEwcParameters,
    "replay": ReplayParameters,
    "icarl": IcarlParameters,
    "target": TargetParameters,
    "mfcl": MfclParameters,
}
