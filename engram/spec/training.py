"""`spec.model`, `spec.training`, `spec.algorithm`, `spec.aggregation`, `spec.evaluation`: how the model
learns.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from engram.spec.base import OPAQUE, Spec

Parameters = Annotated[dict[str, Any], Field(json_schema_extra=OPAQUE)]


class Model(Spec):
    """The network."""

    name: str = Field(
        "lenet5",
        min_length=1,
        max_length=253,
        description="lenet5, cnn, resnet18, resnet32, or package.module:function of your own; none: Sedna's "
        "workers bring it (protocol sedna).",
    )
    parameters: Parameters = Field(
        default_factory=dict, description="Parameters of the model, checked by its own type."
    )


class Optimizer(Spec):
    """The workers' optimiser, new at the start of every round."""

    name: Literal["sgd", "adam", "adamw"] = Field("sgd", description="Optimiser of torch.optim.")
    learning_rate: float = Field(0.05, gt=0, le=1000, description="Step size at the start of the schedule.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD; beta1 of Adam and AdamW.")
    weight_decay: float = Field(0.0005, ge=0, le=10, description="L2 penalty (decoupled for adamw).")


class Training(Spec):
    """Local training on the workers."""

    rounds_per_task: int = Field(5, ge=1, le=1_000_000, description="Federated rounds in each task.")
    local_epochs: int = Field(
        2,
        ge=1,
        le=100_000,
        description="Epochs a round; an epoch is ceil((labelled samples + exemplars) / batchSize) steps.",
    )
    local_steps: int | None = Field(
        None,
        ge=1,
        le=100_000_000,
        description="SGD steps a round; overrides localEpochs. Use it for fair comparisons.",
    )
    batch_size: int = Field(32, ge=1, le=1_000_000, description="Labelled samples in a step.")
    augmentation: str = Field(
        "none",
        min_length=1,
        max_length=253,
        description="none, shift1 (shift by up to one pixel), crop-flip (pad 4, crop, mirror), or "
        "package.module:Class.",
    )
    optimizer: Optimizer = Field(default_factory=Optimizer, description="The workers' optimiser.")
    learning_rate_schedule: Literal["constant", "cosine", "steps"] = Field(
        "constant",
        description="Over the rounds of a task: constant; cosine to zero; steps: a tenth after half and "
        "again after three "
        "quarters of the rounds.",
    )
    gradient_clip: float | None = Field(
        None, gt=0, le=1_000_000, description="Largest gradient norm; null: no clipping."
    )
    threads: int = Field(1, ge=1, le=1024, description="Torch threads of a worker; part of bit identity.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 autocast on CUDA, float32 elsewhere."
    )


class Algorithm(Spec):
    """The class-incremental algorithm."""

    name: str = Field(
        "finetune",
        min_length=1,
        max_length=253,
        description="The algorithm: see docs/algorithms.md for those built in; or "
        "package.module:Class of your own.",
    )
    parameters: Parameters = Field(
        default_factory=dict, description="Parameters of the algorithm, checked by its own type."
    )


class Buffer(Spec):
    """Asynchronous rounds (FedBuff): nobody waits for the slowest worker but at the end of a task."""

    size: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Updates that make a round; whoever still trains goes on, and counts in a later round. "
        "0: rounds wait for their workers.",
    )
    max_staleness: int = Field(
        5,
        ge=0,
        le=100,
        description="Rounds that an update may be behind; it counts by 1 / sqrt(1 + rounds behind). The "
        "aggregator keeps so many earlier models in memory.",
    )


class Aggregation(Spec):
    """How updates become the next global model, and when a round closes."""

    name: str = Field(
        "fedavg",
        min_length=1,
        max_length=253,
        description="fedavg, fedavgm, fedadam, median, trimmed-mean, krum, or package.module:Class of "
        "your own.",
    )
    parameters: Parameters = Field(
        default_factory=dict, description="Parameters of the aggregation, checked by its own type."
    )
    quorum: int | str = Field(
        "100%",
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "minimum": 1,
            "maxLength": 4,
            "pattern": "^(100|[1-9][0-9]?)%$",
        },
        description="Updates that must be in when the deadline closes a round: a number, or a percentage "
        "of the sampled "
        "workers such as 80%.",
    )
    round_deadline_seconds: int = Field(
        600, ge=1, le=31_536_000, description="After so many seconds a round closes if the quorum is in."
    )
    deadline_policy: Literal["Wait", "Fail"] = Field(
        "Wait",
        description="Below the quorum at the deadline: Wait (Degraded, QuorumNotReached) or Fail the run.",
    )
    straggler_factor: float | None = Field(
        None,
        gt=1,
        le=1000,
        description="A round that has its quorum waits so many times the median time of the workers, never "
        "longer than roundDeadlineSeconds; null: roundDeadlineSeconds alone.",
    )
    buffer: Buffer = Field(default_factory=Buffer, description="Asynchronous rounds; off by default.")
    client_fraction: float = Field(1.0, gt=0, le=1, description="Share of the workers sampled in each round.")
    weighting: Literal["used", "labelled", "uniform"] = Field(
        "used",
        description="Weight of a worker: used = labelled samples + exemplars + unlabelled samples that "
        "this round's loss "
        "used; labelled = labelled samples + exemplars; uniform = 1.",
    )
    clip_norm: float | None = Field(
        None,
        gt=0,
        le=1_000_000,
        description="Largest L2 norm of the change of the model in an update; a larger one is scaled down to "
        "it. null: no clipping.",
    )
    compression: Literal["none", "float16", "int8", "topk"] = Field(
        "none",
        description="What travels of the model, both ways: none: all weights as they are; float16: their "
        "change in half the bytes; int8: in a quarter; topk: the largest changes only. What int8 and topk "
        "leave unsaid goes with later rounds.",
    )
    topk_share: float = Field(
        0.05,
        gt=0,
        le=1,
        description="Share of each tensor's values that go up with compression topk.",
    )

    @property
    def owes(self) -> bool:
        """Whether workers owe what compression has left unsaid, and so keep it over restarts."""
        return self.compression in ("int8", "topk")


class Evaluation(Spec):
    """Where and how often the global model is evaluated."""

    location: Literal["aggregator", "workers"] = Field(
        "aggregator",
        description="aggregator: on the whole test set; workers: each on its part, counts are summed.",
    )
    every: Literal["task", "round"] = Field(
        "task", description="After each task, or after each round as well."
    )
    unseen: bool = Field(
        False, description="Also evaluate classes not yet seen, which forward transfer needs."
    )
