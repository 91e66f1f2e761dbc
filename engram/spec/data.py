"""`spec.dataset` and `spec.tasks`: which data, who holds what, in which order classes appear."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from engram.spec.base import Opaque, Spec

Volume = Annotated[
    Opaque,
    Field(description="Any Kubernetes volume source, such as {hostPath: {path: /data}}; mounted read-only."),
]

ClassId = Annotated[int, Field(ge=0, le=65535)]


class Partition(Spec):
    """How the training samples are shared out among the workers."""

    method: Literal["iid", "dirichlet", "shards", "local"] = Field(
        "dirichlet",
        description="iid: equal random shares; dirichlet: per-class shares drawn from Dirichlet(alpha); "
        "shards: label-sorted "
        "shards, two a worker and task; local: each worker owns all that its volume holds.",
    )
    alpha: float = Field(
        0.5, gt=0, le=1_000_000, description="Concentration of the Dirichlet draw; small is uneven."
    )
    min_samples: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Redraw until every worker has at least this many samples of each task.",
    )


class Dataset(Spec):
    """The data set and how it is split over workers, labelled and capped."""

    name: str = Field(
        "digits",
        min_length=1,
        max_length=253,
        description="digits, fashion-mnist, mnist, cifar10, cifar100, tiny-imagenet, imagenet, image-"
        "folder, npz, or "
        "package.module:Class of your own; none: Sedna's workers know their data (protocol sedna).",
    )
    volume: Volume = Field(default_factory=dict)
    path: str = Field(
        "", max_length=4096, description="Folder inside the volume; locally a directory. Empty: its root."
    )
    partition: Partition = Field(
        default_factory=Partition, description="How samples are shared out among workers."
    )
    label_ratio: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of each worker's samples, per class, whose label is visible to training.",
    )
    samples_per_class: int | None = Field(
        None, ge=1, le=100_000_000, description="At most this many training samples a class, drawn by seed."
    )
    test_samples_per_class: int | None = Field(
        None,
        ge=1,
        le=100_000_000,
        description="At most this many test samples a class, the first in file order.",
    )
    validation_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the training data that is kept out for choosing hyperparameters; evaluation"
        " then runs on it "
        "instead of the test set.",
    )


class GroupDataset(Spec):
    """What one worker group overrides of `spec.dataset`; absent fields are inherited."""

    volume: Volume | None = Field(None, description="Volume of this group instead of spec.dataset.volume.")
    path: str | None = Field(
        None, max_length=4096, description="Path of this group instead of spec.dataset.path."
    )
    label_ratio: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Label ratio of this group; 0 means that its workers hold unlabelled data only.",
    )


class Tasks(Spec):
    """The sequence of tasks: which classes appear when."""

    count: int = Field(5, ge=1, le=1000, description="Number of tasks; 1 is plain federated learning.")
    classes_per_task: int = Field(2, ge=1, le=65536, description="Number of new classes in each task.")
    class_order: Literal["shuffled", "natural", "listed"] = Field(
        "shuffled", description="shuffled: drawn by seed; natural: by label id; listed: as `classes` says."
    )
    classes: list[ClassId] = Field(
        default_factory=list,
        max_length=65536,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="Label ids in learning order; required by, and only allowed with, classOrder listed.",
    )
