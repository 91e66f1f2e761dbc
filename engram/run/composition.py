"""Puts a job together: data set, split, trained tasks, learners, settings; alike in every process."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from engram.data import (
    DataSet,
    Split,
    WorkerShare,
    label_counts,
    load_dataset,
    local_share,
    make_split,
    share_warnings,
)
from engram.errors import ConfigurationError
from engram.federation.roles import Crew, GlobalLearner, LocalLearner
from engram.federation.settings import Settings
from engram.learning import TaskPlan, build_crew, build_global, build_local, curriculum
from engram.run.holdings import Holding, check_holdings, without_samples
from engram.sedna.blind import BlindLearner
from engram.sedna.estimator import EstimatorCoordinator, EstimatorWorker, Given
from engram.sedna.plugin import estimator_class
from engram.spec import FederatedIncrementalJob, WorkerIdentity
from engram.spec.algorithm_rules import algorithm_warnings
from engram.spec.parameters import NONE


@dataclass(frozen=True)
class Place:
    """Where the files that a job names are to be found."""

    folder: Path
    """The job file's folder: relative paths start there, and modules of the user's own are found there."""
    mount: Path | None = None
    """Where the data volume is mounted (in a pod); None on a machine without mounts."""
    alone: bool = False
    """Only this process's own data are here: what workers own with partition local they have to say."""

    def data_root(self, volume: Mapping[str, Any], path: str) -> Path | None:
        """Return the directory of a data set, None when the job names none (bundled or default data).

        A `hostPath` volume is a directory of this machine already; any other volume exists in a pod only, so
        that locally `path` alone says where the data lie.
        """
        if self.mount is not None and volume:
            return self.mount / path if path else self.mount
        host = volume.get("hostPath")
        if isinstance(host, Mapping) and host.get("path"):
            return Path(str(host["path"])) / path
        return self.folder / path if path else None

    def open_modules(self) -> None:
        """Let `module:Name` in the job find modules beside the job file.

        The folder comes last on sys.path: a file of the user's there can never replace an installed package.
        """
        folder = str(self.folder.resolve())
        if folder not in sys.path:
            sys.path.append(folder)


@dataclass(frozen=True)
class Composition:
    """A job with its data read and its split made."""

    job: FederatedIncrementalJob
    place: Place
    dataset: DataSet
    split: Split
    _elsewhere: dict[Path | None, tuple[DataSet, Split]] = field(default_factory=dict, repr=False)

    @cached_property
    def plans(self) -> tuple[TaskPlan, ...]:
        """The trained tasks."""
        return curriculum(self.job, self.split.tasks)

    def settings(self) -> Settings:
        """What the federation needs to know."""
        return Settings.from_job(self.job, [plan.rounds for plan in self.plans])

    def global_learner(self) -> GlobalLearner:
        """Build the aggregator's side."""
        if self.job.spec.model.name == NONE:
            return BlindLearner(self.split.digest)
        if (kind := estimator_class(self.job)) is not None:
            return EstimatorCoordinator(Given(self.job, kind, self.dataset, self.split))
        return build_global(self.job, self.dataset, self.split)

    def local_learner(self, worker: WorkerIdentity) -> LocalLearner:
        """Build a worker's side; its group may have data of its own."""
        check_trainable(self.job)
        dataset, split, share = self.worker_data(worker)
        if (kind := estimator_class(self.job)) is not None:
            return EstimatorWorker(Given(self.job, kind, dataset, split), worker, share)
        return build_local(self.job, worker, dataset, share, split)

    def crew(self) -> Crew:
        """Build all workers of the job, to train their rounds together."""
        members = []
        for worker in self.job.workers():
            dataset, split, share = self.worker_data(worker)
            members.append((worker, dataset, share, split))
        return build_crew(self.job, members)

    def worker_data(self, worker: WorkerIdentity) -> tuple[DataSet, Split, WorkerShare]:
        """Return what `worker` sees: the data set of its group, the split and its share."""
        dataset, split = self._data_at(self.place.data_root(worker.volume, worker.path))
        if split.shares:
            return dataset, split, split.shares[worker.position]
        return dataset, split, local_share(self.job, worker, dataset)

    def _data_at(self, root: Path | None) -> tuple[DataSet, Split]:
        """Return the data set at `root` and the split as seen there; a group may own other data."""
        data = self.job.spec.dataset
        if root == self.place.data_root(data.volume, data.path):
            return self.dataset, self.split
        if root not in self._elsewhere:
            dataset = load_dataset(data.name, root)
            self._elsewhere[root] = dataset, make_split(self.job, dataset)
        return self._elsewhere[root]

    @cached_property
    def shares(self) -> tuple[tuple[WorkerShare, DataSet], ...]:
        """Every worker's share with its data set; empty where they own their data and those are not here."""
        if self.split.shares:
            return tuple((share, self.dataset) for share in self.split.shares)
        if self.place.alone:
            return ()
        seen = [self.worker_data(worker) for worker in self.job.workers()]
        return tuple((share, dataset) for dataset, _, share in seen)

    def holdings(self) -> list[Holding]:
        """Return what every worker holds; empty where `shares` is, and where only Sedna's workers know."""
        if not any(self.split.tasks):
            return []
        return [
            Holding(share.worker, *label_counts(self.split, dataset, share)) for share, dataset in self.shares
        ]

    def warnings(self) -> tuple[str, ...]:
        """Return what the user must know of the split and of the algorithm."""
        told = (*algorithm_warnings(self.job.spec), *self.split.warnings)
        if self.split.shares or not self.shares:
            return told
        absent = without_samples(self.split.tasks, self.dataset.class_names, self.holdings())
        empty = [warning for share, _ in self.shares for warning in share_warnings(share)]
        return (*told, *absent, *empty)


def check_trainable(job: FederatedIncrementalJob) -> None:
    """Raise ConfigurationError when only Sedna's workers know what is trained, and on what."""
    if job.spec.model.name == NONE:
        raise ConfigurationError(
            "none: the workers of this job bring model and data, so they are not engram's",
            field="spec.model.name",
            remedy="start `engram aggregator` and Sedna's workers (docs/sedna.md), or name what is trained",
        )


def compose(job: FederatedIncrementalJob, place: Place) -> Composition:
    """Read the job's data and make its split.

    Raises ConfigurationError for a job that does not fit its data, DataError for data that cannot be read.
    """
    place.open_modules()
    data = job.spec.dataset
    dataset = load_dataset(data.name, place.data_root(data.volume, data.path))
    composition = Composition(job, place, dataset, make_split(job, dataset))
    check_holdings(job, composition.split.tasks, dataset.class_names, composition.holdings())
    return composition


def compose_for_worker(job: FederatedIncrementalJob, place: Place, worker: WorkerIdentity) -> Composition:
    """As `compose`, reading only the data of `worker`'s group: a pod has no other."""
    place.open_modules()
    dataset = load_dataset(job.spec.dataset.name, place.data_root(worker.volume, worker.path))
    return Composition(job, place, dataset, make_split(job, dataset))
