"""The dashboard Job: one run, from the question how far it is to the question who held it up.

What a run is asked for at one moment (`last`) is looked up over the whole time range: the series of a run
end with it, and the page of a finished run must not be empty.
"""

from __future__ import annotations

from charts.dashboards.model import Column, Dashboard, Panel, Query, Section, Variable
from engram.spec.names import MetricName as M

UID = "engram-job"
RUN = 'namespace="$namespace", job="$job"'
WINDOW = "[$__rate_interval]"

GOOD_HIGH = ((0.5, "orange"), (0.7, "yellow"), (0.85, "green"))
"""Shares of which more is better."""
GOOD_LOW = ((0.1, "yellow"), (0.3, "orange"), (0.5, "red"))
"""Shares of which less is better."""
STATES = (
    ("connected", "blue"),
    ("training", "green"),
    ("uploading", "purple"),
    ("disconnected", "orange"),
    ("failed", "red"),
    ("finished", "#8e8e8e"),
)
"""In the order of the numbers that stand for them in the timeline, from 1."""
PHASES = {
    "broadcast": "blue",
    "train": "green",
    "upload": "purple",
    "aggregate": "orange",
    "evaluate": "yellow",
    "checkpoint": "#8e8e8e",
}
NOTHING_YET = "nothing measured yet: the first figures come at the end of task 1"
NO_TASK_BEFORE = "not defined before the end of task 2: there is nothing old to compare with"


def of(name: M, more: str = "", window: str = "") -> str:
    """Return a selector of the run's series."""
    return f"{name}{{{RUN}{', ' if more else ''}{more}}}{window}"


def last(name: M, more: str = "") -> str:
    """Return the newest values within the time range."""
    return f"last_over_time({of(name, more, '[$__range]')})"


def _now(name: M, legend: str = "") -> Query:
    return Query(last(name), legend, once=True)


def _last_in(state: str) -> str:
    return last(M.WORKER_STATE, f'state="{state}"')


def _by_worker(name: M) -> str:
    return f"max by (worker) ({last(name)})"


POSITION = Section(
    "Where the run is",
    (
        Panel(
            "stat",
            "Progress",
            "Share of all rounds that are closed. It stands still while a round waits for its quorum: look "
            "at the workers below.",
            "percentunit",
            (_now(M.PROGRESS_RATIO),),
            4,
            4,
            base="blue",
            thresholds=((1.0, "green"),),
            decimals=0,
            no_value="no run of this name in this time range",
        ),
        Panel(
            "stat",
            "Task",
            "The task that is running, of how many. A task brings classes that the model has not seen "
            "before.",
            "none",
            (_now(M.TASK, "running"), _now(M.TASKS, "of")),
            4,
            4,
            base="text",
            no_value="no run of this name in this time range",
        ),
        Panel(
            "stat",
            "Round",
            "The round that is running, of how many in all tasks together. In a round workers train on their "
            "own data and the aggregator averages what they have learned.",
            "none",
            (_now(M.ROUND, "running"), _now(M.ROUNDS, "of")),
            4,
            4,
            base="text",
            no_value="no run of this name in this time range",
        ),
        Panel(
            "stat",
            "Accuracy",
            "Share of the test images of ALL classes seen so far that the model gets right, after the newest "
            "task. With more classes it is harder, so some decline is normal.",
            "percentunit",
            (_now(M.ACCURACY),),
            4,
            4,
            base="red",
            thresholds=GOOD_HIGH,
            decimals=1,
            no_value=NOTHING_YET,
        ),
        Panel(
            "stat",
            "Forget rate",
            "How much accuracy an old class has lost since its best, on average over old classes. 0 % is "
            "best; below it old classes have improved.",
            "percentunit",
            (_now(M.FORGET_RATE),),
            4,
            4,
            thresholds=GOOD_LOW,
            decimals=1,
            no_value=NO_TASK_BEFORE,
        ),
        Panel(
            "stat",
            "Workers that are away",
            "Workers that the aggregator has lost or given up. Rounds go on without them while the quorum "
            "(spec.aggregation.quorum) can be reached.",
            "none",
            (
                Query(f"sum({_last_in('disconnected')})", "disconnected", once=True),
                Query(f"sum({_last_in('failed')})", "failed", once=True),
            ),
            4,
            4,
            thresholds=((1.0, "orange"),),
            no_value="no worker has connected yet",
        ),
    ),
)

LEARNING = Section(
    "What was learned, and what was forgotten",
    (
        Panel(
            "table",
            "Accuracy matrix",
            "Rows: after which task. Columns: accuracy on the classes of which task. Read a column "
            "downwards: it starts when the task is learned, and falls as it is forgotten. The newest 50 "
            "tasks.",
            "percentunit",
            (Query(f"max by (task, after_task) ({last(M.TASK_ACCURACY)})", once=True),),
            12,
            9,
            base="red",
            thresholds=GOOD_HIGH,
            decimals=0,
            no_value=NOTHING_YET,
            matrix=("after_task", "task", "after task"),
        ),
        Panel(
            "bargauge",
            "Accuracy of each class",
            "After the newest task, by the class's label in the data set. One bar far below its neighbours: "
            "a class that few workers hold, or that looks like another.",
            "percentunit",
            (Query(f"sort_desc(max by (class) ({last(M.CLASS_ACCURACY)}))", "{{class}}", once=True),),
            12,
            9,
            base="red",
            thresholds=GOOD_HIGH,
            low=0.0,
            high=1.0,
            decimals=0,
            no_value=NOTHING_YET,
        ),
        Panel(
            "timeseries",
            "Accuracy after each task",
            "Over all classes seen, and its mean over the tasks so far. A step at the end of each task. "
            "Accuracy far below its mean: the model has lost most of what it knew.",
            "percentunit",
            (
                Query(of(M.ACCURACY), "accuracy"),
                Query(of(M.AVERAGE_INCREMENTAL_ACCURACY), "mean over the tasks"),
            ),
            low=0.0,
            high=1.0,
            decimals=1,
            steps=True,
            no_value=NOTHING_YET,
        ),
        Panel(
            "timeseries",
            "Forgetting after each task",
            "Forget rate (by class) and forgetting (by task): lower is better. Backward transfer: below 0, "
            "later tasks harmed earlier ones. Forward transfer: needs spec.evaluation.unseen.",
            "percentunit",
            (
                Query(of(M.FORGET_RATE), "forget rate"),
                Query(of(M.FORGETTING), "forgetting"),
                Query(of(M.BACKWARD_TRANSFER), "backward transfer"),
                Query(of(M.FORWARD_TRANSFER), "forward transfer"),
            ),
            decimals=1,
            steps=True,
            no_value=NO_TASK_BEFORE,
        ),
    ),
)


def _mean_seconds() -> str:
    total, count = (f"{M.ROUND_DURATION_SECONDS}_{part}" for part in ("sum", "count"))
    seconds, rounds = (f"sum by (phase) (rate({name}{{{RUN}}}{WINDOW}))" for name in (total, count))
    return f"{seconds} / ({rounds} > 0)"


def _bytes_per_round() -> str:
    size = f"sum by (direction) ({last(M.TRANSFER_BYTES)})"
    closed = f'{M.ROUND_DURATION_SECONDS}_count{{{RUN}, phase="aggregate"}}[$__range]'
    return f"{size} / on () group_left () (sum(last_over_time({closed})) > 0)"


NO_ROUND = "no round was closed in this time range"

TIME = Section(
    "Where time and traffic go",
    (
        Panel(
            "timeseries",
            "Time of a round, by phase",
            "Mean of the rounds of the moment. train: the slowest worker. upload: everything until the last "
            "update is in, waiting included. Mostly upload: one worker holds up the others, or the network.",
            "s",
            (Query(_mean_seconds(), "{{phase}}"),),
            stacked=True,
            low=0.0,
            colours=PHASES,
            no_value=NO_ROUND,
        ),
        Panel(
            "bargauge",
            "Time so far, by phase",
            "Sum over the rounds since the aggregator's process was started: what to make faster first.",
            "s",
            (
                Query(
                    f"sum by (phase) (last_over_time({M.ROUND_DURATION_SECONDS}_sum{{{RUN}}}[$__range]))",
                    "{{phase}}",
                    once=True,
                ),
            ),
            6,
            low=0.0,
            colours=PHASES,
            no_value=NO_ROUND,
        ),
        Panel(
            "stat",
            "Bytes of a round",
            "Of all workers together, mean so far. down: the model to the workers. up: their updates. "
            "spec.aggregation.compression makes the latter smaller.",
            "bytes",
            (Query(_bytes_per_round(), "{{direction}}", once=True),),
            6,
            base="text",
            no_value=NO_ROUND,
        ),
        Panel(
            "timeseries",
            "Traffic",
            "Bytes on the wire a second, of all workers together.",
            "Bps",
            (Query(f"sum by (direction) (rate({of(M.TRANSFER_BYTES, window=WINDOW)}))", "{{direction}}"),),
            low=0.0,
            no_value="no traffic in this time range",
        ),
        Panel(
            "timeseries",
            "Traffic, the ten busiest workers",
            "Both directions together. All workers get the same model: one line far above the others has "
            "reconnected and been sent it again.",
            "Bps",
            (
                Query(
                    f"topk(10, sum by (worker) (rate({of(M.TRANSFER_BYTES, window=WINDOW)})))", "{{worker}}"
                ),
            ),
            low=0.0,
            no_value="no traffic in this time range",
        ),
    ),
)


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
                Query(_by_worker(name), once=True)
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
                _now(M.RECONNECTS, "reconnections"),
                _now(M.ROUNDS_DEGRADED, "degraded rounds"),
                _now(M.RESUMES, "resumes"),
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

JOB = Dashboard(
    UID,
    "engram / Job",
    "One FederatedIncrementalJob: how far it is, what it has learned and forgotten, where time goes, who is "
    "away. Running or finished: a run that has ended shows its last values.",
    (
        Variable("namespace", "Namespace", f"label_values({M.PROGRESS_RATIO}, namespace)"),
        Variable("job", "Job", f'label_values({M.PROGRESS_RATIO}{{namespace="$namespace"}}, job)'),
    ),
    (POSITION, LEARNING, TIME, WORKERS, FAULTS, DEVICES, LABELS),
    links=(("All jobs", "/d/engram-fleet"),),
)
