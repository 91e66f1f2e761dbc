"""`engram worker`: what a worker pod starts, and the local runner once for each worker of the job."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engram.data.split import label_counts
from engram.errors import FederationError
from engram.federation.compression.packer import Packer
from engram.federation.compression.residuals import FileResiduals, MemoryResiduals
from engram.federation.messages import LabelCounts
from engram.federation.roles import LocalLearner
from engram.federation.websocket.client import run_worker
from engram.federation.websocket.tls import TlsClient
from engram.run.checks import check_code
from engram.run.composition import Composition, compose_for_worker
from engram.run.identity import find_worker, read_secret
from engram.run.mounted import explaining_data
from engram.run.observers import say
from engram.run.pod import Pod
from engram.run.source import load_placed
from engram.sedna.controller import ControllerClient
from engram.sedna.worker import Peer, Start, run_sedna_worker, sedna_name
from engram.spec import FederatedIncrementalJob, WorkerIdentity
from engram.spec.exit_codes import ExitCode
from engram.spec.names import Environment

LEAVE_SECONDS = 5.0
"""How long a worker that was told to stop may take to end its step and say goodbye."""


@dataclass(frozen=True)
class WorkerOptions:
    """Who a worker is and whom it dials."""

    job: Path
    name: str
    index: int | None
    endpoints: Callable[[], tuple[str, ...]]
    """`host:port`, tried in order; asked again before each attempt to reconnect."""
    token_file: Path
    ca: Path | None = None
    """Certificate of the CA that the aggregator is verified by; None: no TLS."""
    tls_name: str = ""
    """Name in the aggregator's certificate; empty: the host that is dialled."""
    attempt: int = 1
    data: Path | None = None
    state: Path | None = None
    """A directory of this worker's own that outlives it; None: what it owes is lost with the process."""


def run_worker_process(options: WorkerOptions, pod: Pod) -> int:
    """Train for the aggregator until the run is over; return the exit code.

    Raises EngramError with the code that the failure policy reads.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options.endpoints()
    job, place = load_placed(options.job, options.data)
    worker = find_worker(job, name=options.name, index=options.index)
    token = read_secret(options.token_file)
    tls = None if options.ca is None else TlsClient(options.ca, options.tls_name)
    place.open_modules()
    check_code(job)
    with explaining_data(
        place, worker.volume, worker.path, f"runAsUser of spec.workers[name={worker.group}]"
    ):
        composition = compose_for_worker(job, place, worker)
        learner = composition.local_learner(worker)
    remark = missing_gpu(job, worker, learner.device)
    if remark:
        say(f"warning: {worker.name}: {remark}")
    pod.orderly(LEAVE_SECONDS)
    if job.spec.protocol == "sedna":
        peer = Peer(
            worker.name,
            job.name,
            options.endpoints,
            sedna_name(job.spec.aggregation.name),
            token,
            float(job.spec.run_policy.orphan_seconds),
        )
        run_sedna_worker(learner, peer, start_of(composition), pod.asked, controller_of(job, worker, learner))
        say(f"{worker.name}: the run is over: complete")
        return ExitCode.DONE
    reason = run_worker(
        learner,
        worker=worker.name,
        job_digest=job.digest(),
        endpoints=options.endpoints,
        token=token,
        attempt=options.attempt,
        orphan_seconds=float(job.spec.run_policy.orphan_seconds),
        stop=pod.asked,
        tls=tls,
        labels=labels_of(composition, worker),
        remark=remark,
        packer=packer_of(composition, options.state),
    )
    say(f"{worker.name}: the run is over: {reason}")
    if reason == "complete":
        return ExitCode.DONE
    raise FederationError(f"{worker.name}: the aggregator ended the run: {reason}")


def packer_of(composition: Composition, state: Path | None) -> Packer | None:
    """Return what packs the updates, where the job compresses them."""
    settings = composition.settings()
    if settings.method is None:
        return None
    kept = MemoryResiduals() if state is None else FileResiduals(state, settings.job_digest)
    return Packer(settings.method, kept)


def start_of(composition: Composition) -> Start:
    """Return the seeded model that every worker's first round starts from: Sedna's aggregator sends none."""
    learner = composition.global_learner()
    return Start(learner.begin_task(1, None), learner.seen(1))


def controller_of(
    job: FederatedIncrementalJob, worker: WorkerIdentity, learner: LocalLearner
) -> ControllerClient | None:
    """Return whom to tell of each round, where LC_SERVER says."""
    server = os.environ.get(Environment.LC_SERVER, "")
    if not server:
        return None
    return ControllerClient(server, worker.name, job.name, job.metadata.namespace, learner.samples)


def labels_of(composition: Composition, worker: WorkerIdentity) -> LabelCounts | None:
    """Return what `worker` holds where nobody else can know it: with partition local."""
    dataset, split, share = composition.worker_data(worker)
    return None if split.shares else LabelCounts(*label_counts(split, dataset, share))


def missing_gpu(job: FederatedIncrementalJob, worker: WorkerIdentity, device: str) -> str:
    """Return why a worker of a group with GPUs trains on the CPU; empty when it does not, or needs none."""
    (gpus,) = [group.gpus for group in job.spec.workers if group.name == worker.group]
    if not gpus.count or device != "cpu":
        return ""
    import torch  # loaded long since: the learner computes with it

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if torch.version.cuda is None:
        why = f"torch {torch.__version__} is built without CUDA: give the group an image with it"
    elif visible is not None and not visible.strip():
        why = "CUDA_VISIBLE_DEVICES hides them"
    else:
        why = "the driver offers none: is the device plugin installed, and the container given the device?"
    return f"{gpus.count} {gpus.resource_name} asked for, but training runs on the CPU: {why}"
