"""The dashboard Job: one run, from the question how far it is to the question who held it up."""

from __future__ import annotations

from charts.dashboards.job_workers import DEVICES, FAULTS, LABELS, WORKERS
from charts.dashboards.model import Dashboard, Panel, Query, Section, Variable
from charts.dashboards.queries import (
    GOOD_HIGH,
    GOOD_LOW,
    NO_ROUND,
    NO_TASK_BEFORE,
    NOTHING_YET,
    PHASES,
    RUN,
    WINDOW,
    last,
    last_in,
    now,
    of,
)
from engram.spec.names import MetricName as M

UID = "engram-job"

POSITION = Section(
    "Where the run is",
    (
        Panel(
            "stat",
            "Progress",
            "Share of all rounds that are closed. It stands still while a round waits for its quorum: look "
            "at the workers below.",
            "percentunit",
            (now(M.PROGRESS_RATIO),),
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
            (now(M.TASK, "running"), now(M.TASKS, "of")),
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
            (now(M.ROUND, "running"), now(M.ROUNDS, "of")),
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
            (now(M.ACCURACY),),
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
            (now(M.FORGET_RATE),),
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
                Query(f"sum({last_in('disconnected')})", "disconnected", once=True),
                Query(f"sum({last_in('failed')})", "failed", once=True),
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
