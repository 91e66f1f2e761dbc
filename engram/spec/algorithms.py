"""Parameter types of the built-in algorithms, one class each; a user's own algorithm brings its own."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from engram.spec.base import Spec

CORRECTION = (
    "After each task: align shrinks the head's rows of new classes to the mean norm of old ones, if longer; "
    "bic fits a factor and an offset of their scores on held-out samples."
)
CANDIDATES = (
    "Classes that a pseudo-label may name. task: those of the current task only, where it is known that "
    "unlabelled images are of no other."
)
PSEUDO_EXEMPLARS = "Fill the budget that labelled samples leave with pseudo-labelled ones."
COMPENSATION = (
    "How old classes are compensated. prevalence: new rows get an offset in training for how much more often "
    "their classes come; gradients: samples are weighed as in glfc."
)
EXEMPLARS = "Exemplars that each worker keeps."
COMPENSATION_WEIGHT = (
    "Weight (lambda_2) of compensation: of the offset, or of the weighed loss of labelled samples beside "
    "1 - lambda_2 of their plain cross-entropy."
)
ROUNDING = 1e-9
"""Added before rounding down, so that .29 of 100 is 29."""


class NoParameters(Spec):
    """Takes no parameters."""


class PseudoLabelParameters(Spec):
    """What every algorithm has that learns from its own guesses about unlabelled images."""

    unlabelled_weight: float = Field(
        1.0,
        ge=0,
        le=10_000,
        description="Weight of the loss on pseudo-labels; 0: unlabelled data are not used.",
    )
    threshold: float = Field(
        0.9, gt=0, le=1, description="Probability (tau) from which a pseudo-label is believed."
    )
    warmup_rounds: int = Field(
        1, ge=0, le=100_000, description="First rounds of each task without pseudo-labels."
    )

    @property
    def needs_unlabelled(self) -> bool:
        """Whether there must be unlabelled data for the parameters to make sense."""
        return self.unlabelled_weight > 0


class JointParameters(PseudoLabelParameters):
    """joint: train on all data so far."""

    upfront: bool = Field(False, description="true: all classes from round 1, tasks x roundsPerTask rounds.")
    unlabelled_weight: float = Field(
        0.0,
        ge=0,
        le=10_000,
        description="Weight of the loss on pseudo-labels; 0: unlabelled data are not used.",
    )


class FedProxParameters(Spec):
    """fedprox: proximal term."""

    mu: float = Field(0.01, ge=0, le=1000, description="Weight of mu/2 ||w - w_global||^2.")


class FedLwfParameters(Spec):
    """fedlwf: distillation from the last task's global model."""

    temperature: float = Field(2.0, gt=0, le=100, description="Temperature T of the distillation.")
    strength: float = Field(3.0, ge=0, le=10_000, description="Weight (lambda) of the distillation loss.")
    unlabelled: bool = Field(False, description="Distil on unlabelled images too.")

    @property
    def needs_unlabelled(self) -> bool:
        """Whether the job must have unlabelled data."""
        return self.unlabelled


class FedEwcParameters(Spec):
    """fedewc: elastic weight consolidation."""

    strength: float = Field(100.0, ge=0, le=1e9, description="Weight (lambda) of lambda/2 sum F (w - w*)^2.")
    decay: float = Field(0.9, ge=0, le=1, description="Decay of the Fisher information of older tasks.")
    unlabelled: bool = Field(
        False,
        description="Measure the Fisher information on unlabelled images too, as the model labels them.",
    )

    @property
    def needs_unlabelled(self) -> bool:
        """Whether the job must have unlabelled data."""
        return self.unlabelled


class ScaffoldParameters(Spec):
    """scaffold: control variates."""

    needs_sgd: ClassVar[bool] = True
    needs_whole_rounds: ClassVar[bool] = True


class FedDynParameters(Spec):
    """feddyn: dynamic regularisation."""

    needs_whole_rounds: ClassVar[bool] = True
    takes_server_step: ClassVar[bool] = True

    alpha: float = Field(0.1, ge=0, le=1000, description="Strength of the regulariser; 0: finetune.")


class FotParameters(Spec):
    """fot: updates orthogonal to the inputs of old tasks; experimental."""

    threshold: float = Field(
        0.95, ge=0, le=1, description="Share of the energy of each layer's inputs that is protected."
    )
    sketch: int = Field(
        128,
        ge=1,
        le=65_536,
        description="Columns of the random projection of a layer's inputs; layers with fewer inputs send "
        "their second moment as it is.",
    )


class ExemplarParameters(Spec):
    """What every algorithm has that keeps exemplars and classifies by its head."""

    exemplars_per_worker: int = Field(50, ge=1, le=10_000_000, description=EXEMPLARS)
    classifier_correction: Literal["none", "align", "bic"] = Field("none", description=CORRECTION)
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

    exemplars_per_worker: int = Field(50, ge=0, le=10_000_000, description=EXEMPLARS)
    classifier_correction: Literal["none", "align", "bic"] = Field("align", description=CORRECTION)
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

    exemplars_per_worker: int = Field(50, ge=1, le=10_000_000, description=EXEMPLARS)
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

    classifier_correction: Literal["none", "align", "bic"] = Field("bic", description=CORRECTION)
    temperature: float = Field(2.0, gt=0, le=100, description="Temperature T of the distillation.")
    strength: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Weight (lambda) of the distillation, and 1 - lambda of the cross-entropy; null: old "
        "classes over all classes seen.",
    )


class SemiFciParameters(ExemplarParameters, PseudoLabelParameters):
    """semifci: pseudo-labels agreed on with helpers, compensated loss, fusion with the best old model."""

    classifier_correction: Literal["none", "align", "bic"] = Field("align", description=CORRECTION)
    helpers: int = Field(
        2,
        ge=0,
        le=100,
        description="Helper models (H) that go down to each worker with a round, at most one less than there "
        "are workers; 0: none.",
    )
    helper_choice: Literal["similar", "random"] = Field(
        "similar",
        description="similar: the workers whose models answer most alike on a common probe of noise.",
    )
    agreement: Literal["votes", "required", "proposal"] = Field(
        "votes",
        description="votes: the class with most of the H + 1 votes; required: only where all agree; "
        "proposal: mean probability plus the own vote, which no helper can overturn.",
    )
    thresholds: Literal["fixed", "adaptive"] = Field(
        "fixed",
        description="adaptive: lower for classes that are seldom accepted (FlexMatch).",
    )
    candidates: Literal["seen", "task"] = Field("task", description=CANDIDATES)
    pseudo_exemplars: bool = Field(True, description=PSEUDO_EXEMPLARS)
    compensation_weight: float = Field(0.5, ge=0, le=1, description=COMPENSATION_WEIGHT)
    compensation: Literal["prevalence", "gradients"] = Field("prevalence", description=COMPENSATION)
    fusion_weight: float = Field(
        1.0, ge=0, le=10_000, description="Weight (lambda_3) of distillation from the best old model."
    )
    temperature: float = Field(2.0, gt=0, le=100, description="Temperature T of the distillation.")
    best_momentum: float = Field(
        0.0, ge=0, lt=1, description="Share (alpha) of the best old model that stays at a task's end."
    )

    @property
    def keeps_guesses(self) -> bool:
        """Whether unlabelled samples may become exemplars."""
        return self.pseudo_exemplars and self.needs_unlabelled and self.exemplars_per_worker > 0


class FedCiMatchParameters(SemiFciParameters):
    """fedcimatch: semifci as proposed, without helpers: FixMatch with glfc's compensation."""

    helpers: int = Field(0, ge=0, le=0, description="Always 0.")
    candidates: Literal["seen", "task"] = Field("seen", description=CANDIDATES)
    pseudo_exemplars: bool = Field(False, description=PSEUDO_EXEMPLARS)
    compensation: Literal["prevalence", "gradients"] = Field("gradients", description=COMPENSATION)
    compensation_weight: float = Field(1.0, ge=0, le=1, description=COMPENSATION_WEIGHT)


class DiscMatchParameters(PseudoLabelParameters):
    """discmatch: icarl with task-wise pseudo-labels, pseudo-labelled exemplars and a linear discriminant."""

    exemplars_per_worker: int = Field(50, ge=1, le=10_000_000, description=EXEMPLARS)
    threshold: float = Field(
        0.95, gt=0, le=1, description="Probability (tau) from which a pseudo-label is believed."
    )
    candidates: Literal["seen", "task"] = Field("task", description=CANDIDATES)
    temperature: float = Field(2.0, gt=0, le=100, description="Temperature T of the distillation.")
    strength: float = Field(1.0, ge=0, le=10_000, description="Weight (lambda) of the distillation loss.")
    distil_unlabelled: bool = Field(
        True, description="Distil on the unlabelled images too, not on labelled samples and exemplars alone."
    )
    pseudo_exemplars: bool = Field(True, description=PSEUDO_EXEMPLARS)
    classifier: Literal["discriminant", "means"] = Field(
        "discriminant", description="means: nearest mean of the exemplars, as icarl."
    )
    shrinkage: float = Field(
        0.1, gt=0, le=1, description="Share of the identity in the discriminant's covariance."
    )


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
    "glfc": GlfcParameters,
    "lga": LgaParameters,
    "bic": BicParameters,
    "semifci": SemiFciParameters,
    "fedcimatch": FedCiMatchParameters,
    "discmatch": DiscMatchParameters,
    "scaffold": ScaffoldParameters,
    "feddyn": FedDynParameters,
    "fot": FotParameters,
    "target": TargetParameters,
    "mfcl": MfclParameters,
}
