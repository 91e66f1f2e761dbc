"""The lower half of the dashboard Job: its workers, what was survived and refused, GPUs, scarce labels."""

from __future__ import annotations

from charts.dashboards.model import Column, Panel, Query, Section
from charts.dashboards.queries import NO_ROUND, RUN, STATES, WINDOW, by_worker, now, of
from engram.spec.names import MetricName as M


def _states() -> str:
    """Return one line a worker, its value the number of its state."""
    each = [f'{M.WORKER_STATE}{{{RUN}, state="{state}"}}' for state, _ in STATES]
    parts = " or ".join(f"{series} * {number}" for number, series in enumerate(each, start=1))
    return f"max by (worker) ({parts})"


WORKERS = Section(
    "Workers",
    (
        Panel(
            "state-timeline",
            "State of each worker",
            "A bar a worker. Mostly green: it trains. Mostly blue: it waits for slower ones. Orange: the "
            "aggregator hears nothing from it.",
            "none",
            (Query(_states(), "{{worker}}"),),
            16,
            9,
            mappings=tuple(
                (str(number), state, colour) for number, (state, colour) in enumerate(STATES, start=1)
            ),
            no_value="no worker has connected yet",
        ),
        Panel(
            "timeseries",
            "Workers by state",
            "How many are in which state: the picture for runs with more workers than bars can be read.",
            "none",
            (Query(f"sum by (state) ({of(M.WORKER_STATE)})", "{{state}}"),),
            8,
            9,
            stacked=True,
            steps=True,
            low=0.0,
            decimals=0,
            colours=dict(STATES),
            no_value="no worker has connected yet",
        ),
        Panel(
            "table",
            "Workers now",
            "Newest values. Silent for: seconds since the last sign of life, which comes every few seconds. "
            "A loss far above the others': unusual data. A long training time: the one that all wait for.",
            "none",
            tuple(
                Query(by_worker(name), once=True)
                for name in (
                    M.WORKER_HEARTBEAT_AGE_SECONDS,
                    M.WORKER_LOSS,
                    M.WORKER_TRAIN_SECONDS,
                    M.WORKER_SAMPLES,
                    M.WORKER_MEMORY_BYTES,
                )
            ),
            24,
            8,
            no_value="no worker has connected yet",
            columns=(
                Column("worker", "worker"),
                Column("Value #A", "silent for", "s", ((30.0, "yellow"), (60.0, "red"))),
                Column("Value #B", "loss", "short"),
                Column("Value #C", "training time", "s"),
                Column("Value #D", "samples so far", "short"),
                Column("Value #E", "memory", "bytes"),
            ),
            sort=("silent for", True),
        ),
        Panel(
            "timeseries",
            "Training loss",
            "Of each worker. It jumps when a task brings new classes, and falls within the task. One that "
            "rises within a task: the learning rate is too high for its data.",
            "short",
            (Query(of(M.WORKER_LOSS), "{{worker}}"),),
            no_value="no worker has trained yet",
        ),
        Panel(
            "timeseries",
            "Training time of a round",
            "Seconds that each worker computed in its newest round. The highest line sets the pace of all, "
            "unless spec.aggregation.stragglerFactor lets rounds close without it.",
            "s",
            (Query(of(M.WORKER_TRAIN_SECONDS), "{{worker}}"),),
            low=0.0,
            steps=True,
            no_value="no worker has trained yet",
        ),
        Panel(
            "timeseries",
            "Memory of workers",
            "Resident memory of each worker's process. Towards the limit of its pod it ends as OutOfMemory.",
            "bytes",
            (Query(of(M.WORKER_MEMORY_BYTES), "{{worker}}"),),
            low=0.0,
            no_value="no worker has said anything of its memory: Sedna's do not",
        ),
        Panel(
            "timeseries",
            "Samples a second",
            "Training images that each worker uses, of the rounds that were accepted.",
            "short",
            (Query(f"sum by (worker) (rate({of(M.WORKER_SAMPLES, window=WINDOW)}))", "{{worker}}"),),
            low=0.0,
            no_value=NO_ROUND,
        ),
    ),
)


def _rejected() -> str:
    """Return the refusals within the time range: a counter that starts anew with the aggregator's process."""
    return f"round(sum by (reason) (increase({of(M.UPDATES_REJECTED, window='[$__range]')})))"


FAULTS = Section(
    "Faults, survived and refused",
    (
        Panel(
            "bargauge",
            "Rejected updates and connections",
            "Within the time range, by reason. late and duplicate are how deadlines and reconnections look. "
            "unauthorised: somebody without a token. All others: docs/troubleshooting.md.",
            "none",
            (Query(f"sort_desc({_rejected()})", "{{reason}}", once=True),),
            8,
            8,
            low=0.0,
            thresholds=((1.0, "orange"),),
            no_value="no run of this name in this time range",
        ),
        Panel(
            "timeseries",
            "Rejections over time",
            "Updates and connections that were refused, by reason, in the moment's interval.",
            "none",
            (Query(f"sum by (reason) (increase({of(M.UPDATES_REJECTED, window=WINDOW)}))", "{{reason}}"),),
            8,
            8,
            stacked=True,
            low=0.0,
            no_value="no run of this name in this time range",
        ),
        Panel(
            "stat",
            "Faults survived",
            "Connections that workers opened again; rounds that the deadline closed with the quorum only; "
            "times that the aggregator continued from its checkpoint. None of them changes what is learned, "
            "but for the updates that degraded rounds lack.",
            "none",
            (
                now(M.RECONNECTS, "reconnections"),
                now(M.ROUNDS_DEGRADED, "degraded rounds"),
                now(M.RESUMES, "resumes"),
            ),
            8,
            8,
            base="text",
            no_value="no run of this name in this time range",
        ),
    ),
)

NO_GPU = "no worker of this job trains on a GPU"
NO_PSEUDO = "the job's algorithm gives no pseudo-labels"

DEVICES = Section(
    "GPU",
    (
        Panel(
            "timeseries",
            "GPU memory",
            "Memory that each worker has reserved on its GPU; 0 for workers that train on the CPU.",
            "bytes",
            (Query(of(M.WORKER_GPU_MEMORY_BYTES), "{{worker}}"),),
            low=0.0,
            no_value=NO_GPU,
        ),
        Panel(
            "timeseries",
            "GPU use",
            "Share of time that the GPU was busy. Low: batches are too small to fill it, or reading data "
            "takes longer than computing.",
            "percentunit",
            (Query(of(M.WORKER_GPU_UTILIZATION_RATIO), "{{worker}}"),),
            low=0.0,
            high=1.0,
            no_value=NO_GPU,
        ),
    ),
)

LABELS = Section(
    "Scarce labels",
    (
        Panel(
            "timeseries",
            "Pseudo-labels accepted",
            "Share of the unlabelled images whose guessed label was sure enough to train on.",
            "percentunit",
            (Query(of(M.PSEUDO_LABEL_ACCEPT_RATIO), "{{worker}}"),),
            low=0.0,
            high=1.0,
            no_value=NO_PSEUDO,
        ),
        Panel(
            "timeseries",
            "Pseudo-labels that are right",
            "Share of the accepted ones, where the hidden labels are known (spec.dataset.labelRatio hides "
            "them). Below the accuracy of the model: it teaches itself its own mistakes.",
            "percentunit",
            (Query(of(M.PSEUDO_LABEL_ACCURACY), "{{worker}}"),),
            low=0.0,
            high=1.0,
            no_value=NO_PSEUDO,
        ),
    ),
)
