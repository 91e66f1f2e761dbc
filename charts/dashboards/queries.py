"""What the panels of the dashboard Job ask, and the colours of what they show.

What a run is asked for at one moment (`last`) is looked up over the whole time range: the series of a run
end with it, and the page of a finished run must not be empty.
"""

from __future__ import annotations

from charts.dashboards.model import Query
from engram.spec.names import MetricName as M

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
NO_ROUND = "no round was closed in this time range"
NO_TASK_BEFORE = "not defined before the end of task 2: there is nothing old to compare with"


def of(name: M, more: str = "", window: str = "") -> str:
    """Return a selector of the run's series."""
    return f"{name}{{{RUN}{', ' if more else ''}{more}}}{window}"


def last(name: M, more: str = "") -> str:
    """Return the newest values within the time range."""
    return f"last_over_time({of(name, more, '[$__range]')})"


def now(name: M, legend: str = "") -> Query:
    """Return the query of a figure as it stands, with the legend of its line."""
    return Query(last(name), legend, once=True)


def last_in(state: str) -> str:
    """Return the expression of how many workers were last in a state."""
    return last(M.WORKER_STATE, f'state="{state}"')


def by_worker(name: M) -> str:
    """Return the expression of a figure's last value for each worker."""
    return f"max by (worker) ({last(name)})"
