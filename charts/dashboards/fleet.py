"""The dashboard Fleet: all jobs, the best first, and whether the operator is well."""

from __future__ import annotations

from charts.dashboards.job import UID as JOB_UID
from charts.dashboards.model import Column, Dashboard, Panel, Query, Section, Variable
from charts.dashboards.queries import GOOD_HIGH, GOOD_LOW, WINDOW
from engram.spec.names import MetricName as M

UID = "engram-fleet"
JOBS = 'namespace=~"$namespace", job=~"$job"'
OPERATOR_SILENT = ((60.0, "yellow"), (180.0, "red"))
"""Seconds: a bookmark comes every minute; at 180 there is an alert, at 300 the probe fails."""
PHASES = {
    "Pending": "#8e8e8e",
    "Starting": "blue",
    "Running": "green",
    "Reporting": "purple",
    "Suspended": "yellow",
    "Succeeded": "dark-green",
    "Failed": "red",
}
NO_OPERATOR = "no figures of an operator: is it scraped?"
NONE_ENDED = "no job that has ended has figures of its accuracy"
NONE_RUNS = "no job runs"


def _of_jobs(name: M) -> str:
    return f"{name}{{{JOBS}}}"


def _by_job(name: M) -> Query:
    return Query(f"max by (namespace, job) ({_of_jobs(name)})", once=True)


def _described(name: M) -> Query:
    """Return a figure of each job with the labels that say what the job is."""
    info = f"max by (namespace, job, algorithm, dataset, phase) ({_of_jobs(M.JOB_INFO)})"
    return Query(
        f"max by (namespace, job) ({_of_jobs(name)}) * on (namespace, job) "
        f"group_left (algorithm, dataset, phase) {info}",
        once=True,
    )


LINK = f"/d/{JOB_UID}?var-namespace=${{__data.fields.namespace}}&var-job=${{__data.fields.job}}"

NOW = Section(
    "Jobs",
    (
        Panel(
            "bargauge",
            "Jobs by phase",
            "Every FederatedIncrementalJob whose object exists. Pending or Starting for long: it waits for a "
            "node, an image or a volume; kubectl describe fij says which.",
            "none",
            (Query(f"sum by (phase) ({M.OPERATOR_JOBS})", "{{phase}}", once=True),),
            8,
            8,
            low=0.0,
            colours=PHASES,
            no_value=NO_OPERATOR,
        ),
        Panel(
            "timeseries",
            "Jobs by phase over time",
            "What the cluster was busy with. A growing Pending: more is asked for than nodes can take.",
            "none",
            (Query(f"sum by (phase) ({M.OPERATOR_JOBS})", "{{phase}}"),),
            16,
            8,
            stacked=True,
            steps=True,
            low=0.0,
            decimals=0,
            colours=PHASES,
            no_value=NO_OPERATOR,
        ),
        Panel(
            "table",
            "Jobs that run",
            "The newest figures of their aggregators. A click on a job opens its page.",
            "none",
            (
                _by_job(M.PROGRESS_RATIO),
                _by_job(M.ACCURACY),
                _by_job(M.FORGET_RATE),
                Query(
                    f'sum by (namespace, job) ({M.WORKER_STATE}{{{JOBS}, state=~"disconnected|failed"}})',
                    once=True,
                ),
            ),
            24,
            7,
            no_value=NONE_RUNS,
            columns=(
                Column("namespace", "namespace"),
                Column("job", "job", link=LINK),
                Column("Value #A", "progress", "percentunit"),
                Column("Value #B", "accuracy", "percentunit", GOOD_HIGH, "red"),
                Column("Value #C", "forget rate", "percentunit", GOOD_LOW),
                Column("Value #D", "workers away", "none", ((1.0, "orange"),)),
            ),
            sort=("progress", True),
        ),
    ),
)

LEADERBOARD = Section(
    "Results",
    (
        Panel(
            "table",
            "Leaderboard",
            "Jobs that have ended and still exist, the most accurate first. Compare like with like: jobs "
            "with other data or other tasks are not worse for a lower figure. A click on a job opens its "
            "page.",
            "none",
            (
                _described(M.JOB_ACCURACY),
                _described(M.JOB_FORGET_RATE),
                Query(f"1000 * ({_described(M.JOB_COMPLETION_TIMESTAMP_SECONDS).expr})", once=True),
            ),
            24,
            9,
            no_value=NONE_ENDED,
            columns=(
                Column("namespace", "namespace"),
                Column("job", "job", link=LINK),
                Column("algorithm", "algorithm"),
                Column("dataset", "data"),
                Column("phase", "phase"),
                Column("Value #A", "accuracy", "percentunit", GOOD_HIGH, "red"),
                Column("Value #B", "forget rate", "percentunit", GOOD_LOW),
                Column("Value #C", "ended", "dateTimeAsLocal"),
            ),
            sort=("accuracy", True),
        ),
        Panel(
            "bargauge",
            "Least forgotten",
            "Forget rate of jobs that have ended, the lowest first: how much accuracy an old class has lost "
            "since its best. Below 0 % old classes have improved.",
            "percentunit",
            (
                Query(
                    f"sort(max by (namespace, job) ({_of_jobs(M.JOB_FORGET_RATE)}))",
                    "{{namespace}}/{{job}}",
                    once=True,
                ),
            ),
            12,
            8,
            thresholds=GOOD_LOW,
            high=1.0,
            decimals=1,
            no_value=NONE_ENDED,
        ),
        Panel(
            "timeseries",
            "Accuracy of running jobs",
            "Over all classes that each has seen, a step at the end of each task.",
            "percentunit",
            (Query(f"max by (namespace, job) ({_of_jobs(M.ACCURACY)})", "{{namespace}}/{{job}}"),),
            12,
            8,
            low=0.0,
            high=1.0,
            steps=True,
            no_value=NONE_RUNS,
        ),
    ),
)


def _quantile(share: float) -> Query:
    buckets = f"sum by (le) (rate({M.OPERATOR_RECONCILE_SECONDS}_bucket{WINDOW}))"
    return Query(f"histogram_quantile({share}, {buckets})", f"{share:.0%} are faster")


OPERATOR = Section(
    "Is the operator well?",
    (
        Panel(
            "stat",
            "Last sign of life",
            "Seconds since its watches heard anything from the API server, bookmarks included, which come "
            "every minute. At three minutes there is an alert, at five it is started anew.",
            "s",
            (Query(f"max({M.OPERATOR_LAST_EVENT_AGE_SECONDS})", once=True),),
            6,
            8,
            thresholds=OPERATOR_SILENT,
            decimals=0,
            no_value=NO_OPERATOR,
        ),
        Panel(
            "timeseries",
            "Reconciles a second, by result",
            "How often it looks at jobs. error: it could not do what it planned, and tries again at ever "
            "longer intervals; its log names the job and the API server's own words.",
            "short",
            (Query(f"sum by (result) (rate({M.OPERATOR_RECONCILES}{WINDOW}))", "{{result}}"),),
            9,
            8,
            stacked=True,
            low=0.0,
            colours={"changed": "blue", "unchanged": "#8e8e8e", "error": "red"},
            no_value=NO_OPERATOR,
        ),
        Panel(
            "timeseries",
            "Time of a reconcile",
            "Half of them, and 99 of 100, are faster. Seconds instead of milliseconds: the API server is "
            "slow, or throttles.",
            "s",
            (_quantile(0.5), _quantile(0.99)),
            9,
            8,
            low=0.0,
            no_value="no reconcile in this time range",
        ),
    ),
)

FLEET = Dashboard(
    UID,
    "engram / Fleet",
    "All FederatedIncrementalJobs: what runs, what came out, and whether the operator is well.",
    (
        Variable("namespace", "Namespace", f"label_values({M.JOB_INFO}, namespace)", every=True),
        Variable("job", "Job", f'label_values({M.JOB_INFO}{{namespace=~"$namespace"}}, job)', every=True),
    ),
    (NOW, LEADERBOARD, OPERATOR),
    since="now-6h",
)
