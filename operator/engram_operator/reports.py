"""What the report's pod has printed: the compact report at the end of its log, read through `pods/log`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from engram.spec.compact import LINE, MOST_LINES, unpack
from engram.spec.compact import CompactReport as Report
from engram.spec.names import MAIN_CONTAINER
from engram_operator.api import Api, path_of
from engram_operator.errors import ApiError
from engram_operator.model import JobView, PodView

LAST_LINES = MOST_LINES + 50
"""Of the log: the whole report, and what a process that ends may still say after it."""
MOST_BYTES = 2 * LAST_LINES * LINE
"""Of the log's end: the whole report, and lines of others among its own."""


class Found(NamedTuple):
    """The report, or why there is none."""

    report: Report | None = None
    problem: str = ""


async def read_report(api: Api, namespace: str, job: JobView, pods: Iterable[PodView]) -> Found:
    """Return what the succeeded pod of the report's Job has printed.

    A log that cannot be read now (a kubelet out of reach) may be read later; what it says does not change.
    """
    done = [pod for pod in pods if pod.owner == job.name and pod.main is not None and pod.main.exit_code == 0]
    if not done:
        return Found(problem="the report's pod is gone, and its log with it")
    query = {
        "container": MAIN_CONTAINER,
        "tailLines": str(LAST_LINES),
        "limitBytes": str(MOST_BYTES),
    }
    try:
        text = await api.text(path_of("Pod", namespace, done[-1].name, "log"), query)
    except ApiError as error:
        return Found(problem=f"the log of pod {done[-1].name} cannot be read: {error}")
    try:
        report = unpack(text)
    except ValueError as error:
        return Found(problem=f"pod {done[-1].name}: {error}")
    if report is None:
        return Found(problem=f"the log of pod {done[-1].name} holds no report")
    return Found(report)
