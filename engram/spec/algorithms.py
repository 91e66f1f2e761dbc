"""Parameter types of the built-in algorithms, one class each; a user's own algorithm brings its own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from engram.spec.base import Spec

ROUNDING = 1e-9
"""Added before rounding down, so that .29 of 100 is 29."""


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


class ExemplarParameters(Spec):
    """What every algorithm has that keeps exemplars and classifies by its head."""

    exemplars_per_worker: int = Field(
        50, ge=1, le=10_000_000, description="Exemplars that each worker keeps."
    )
    classifier_correction: Literal["none", "align", "bic"] = Field(
        "none",
        description="After each task: align shrinks the head's rows of new classes to the mean norm of old "
        "ones, if longer; bic fits a factor and an offset of their scores on held-out samples.",
    )
    held_out_share: float = Field(
        0.2,
        gt=0,
        le=0.5,
        description="Share of the exemplars, and of a task's labelled samples, that bic holds out.",
    )

    @property
    def correction(self) -> Literal["none", "align", "bic"]:
        """What is done about the head after each task."""
        return self.classifier_correction

    @property
    def held_out(self) -> int:
        """How many of a worker's exemplars serve the correction and not training."""
        if self.correction != "bic":
            return 0
        return int(self.held_out_share * self.exemplars_per_worker + ROUNDING)


class ReplayParameters(ExemplarParameters):
    """replay: exemplars chosen by herding."""

    exemplars_per_worker: int = Field(
        50, ge=0, le=10_000_000, description="Exemplars that each worker keeps."
    )
    classifier_correction: Literal["none", "align", "bic"] = Field(
        "align",
        description="After each task: align shrinks the head's rows of new classes to the mean norm of old "
        "ones, if longer; bic fits a factor and an offset of their scores on held-out samples.",
    )
    weight_alignment: bool = Field(
        True, description="false: no alignment, as with classifierCorrection: none."
    )

    @property
    def correction(self) -> Literal["none", "align", "bic"]:
        """What is done about the head after each task."""
        if self.classifier_correction == "align" and not self.weight_alignment:
            return "none"
        return self.classifier_correction


class IcarlParameters(Spec):
    """icarl: exemplars, distillation and nearest-mean classification."""

    exemplars_per_worker: int = Field(
        50, ge=1, le=10_000_000, description="Exemplars that each worker keeps."
    )
    temperature: float = Field(2.0, gt=0, le=100, description="Temperature T of the distillation.")
    strength: float = Field(1.0, ge=0, le=10_000, description="Weight (lambda) of the distillation loss.")


class GlfcParameters(ExemplarParameters):
    """glfc: gradient compensation, relation distillation, exemplars, best old model."""

    gradient_compensation: bool = Field(
        True,
        description="Weigh each sample's cross-entropy by its gradient over its kind's mean, old or new.",
    )
    classification_strength: float = Field(
        0.5,
        ge=0,
        le=10_000,
        description="Weight (lambda_1) of the classification loss from the second task on; 1 in the first.",
    )
    distillation_strength: float = Field(
        0.5, ge=0, le=10_000, description="Weight (lambda_2) of the relation distillation loss."
    )
    proxy_server: Literal["none", "reconstruct"] = Field(
        "none",
        description="How the best old model is chosen. none: workers count what it gets right. reconstruct: "
        "on images of the workers that the aggregator rebuilds from gradients; needs acceptPrivacyRisk.",
    )
    accept_privacy_risk: bool = Field(
        False, description="true: the aggregator may see the workers' prototype images (proxyServer)."
    )
    prototype_noise: float = Field(
        0.5,
        ge=0,
        le=100,
        description="Standard deviation of the Gaussian noise in a prototype image (proxyServer); images are "
        "normalised.",
    )


class LgaParameters(GlfcParameters):
    """lga: glfc with gradients normalised by task, an adaptive exponent and weighted distillation."""


class BicParameters(ExemplarParameters):
    """bic: exemplars, distillation and bias correction."""

    classifier_correction: Literal["none", "align", "bic"] = Field(
        "bic",
        description="After each task: align shrinks the head's rows of new classes to the mean norm of old "
        "ones, if longer; bic fits a factor and an offset of their scores on held-out samples.",
    )
    temperature: float = Field(2.0, gt=0, le=100, description="Temperature T of the distillation.")
    strength: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Weight (lambda) of the distillation, and 1 - lambda of the cross-entropy; null: old "
        "classes over all classes seen.",
    )


ALGORITHMS: dict[str, type[Spec]] = {
    "finetune": NoParameters,
    "joint": JointParameters,
    "fedprox": FedProxParameters,
    "fedlwf": FedLwfParameters,
    "fedewc": FedEwcParameters,
    "replay": ReplayParameters,
    "icarl": IcarlParameters,
    "glfc": GlfcParameters,
    "lga": LgaParameters,
    "bic": BicParameters,
}
