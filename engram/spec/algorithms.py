"""Parameter types of the built-in algorithms, one class each; a user's own algorithm brings its own."""

from __future__ import annotations

from typing import ClassVar

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


ALGORITHMS: dict[str, type[Spec]] = {
    "finetune": NoParameters,
    "joint": JointParameters,
    "fedprox": FedProxParameters,
    "fedlwf": FedLwfParameters,
    "fedewc": FedEwcParameters,
    "replay": ReplayParameters,
    "icarl": IcarlParameters,
    "scaffold": ScaffoldParameters,
    "feddyn": FedDynParameters,
    "fot": FotParameters,
}
