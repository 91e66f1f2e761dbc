"""`kubectl engram wait`: a line of progress, and an exit code that a script can trust.

0: the condition holds. 1: it never will. 124: not in the time given, as timeout(1) says it. What was typed
wrong is 42, as everywhere.
"""

from __future__ import annotations

import asyncio
import re
import sys
from contextlib import aclosing

from engram.errors import ConfigurationError
from engram.spec.names import Condition, Reason
from engram_kubectl import show, terminal, words
from engram_kubectl.connection import Target, connected
from engram_kubectl.jobs import condition_of, follow, holds, key_of
from engram_operator.model import Object

MET, NEVER, TIMED_OUT = 0, 1, 124
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|m|h|d)?")
AWAITED = (Condition.COMPLETE, Condition.FAILED, Condition.REPORT_READY, Condition.WORKERS_READY)


async def wait(target: Target, name: str, condition: Condition, seconds: float | None) -> int:
    """Wait until the job meets `condition`, for at most `seconds`; return the exit code."""
    last: Object | None = None
    async with connected(target) as cluster:
        stream = follow(cluster, key_of(name, cluster.namespace))
        code: int | None = None
        try:
            async with asyncio.timeout(seconds), aclosing(stream):
                with terminal.live(show.progress) as draw:
                    async for job in stream:
                        last = job
                        draw(job)
                        code = verdict(job, condition)
                        if code is not None:
                            break
        except TimeoutError:
            code = TIMED_OUT
    print(_ending(name, condition, code, last, seconds), file=sys.stderr if code else sys.stdout, flush=True)
    return MET if code is None else code


def verdict(job: Object, condition: Condition) -> int | None:
    """Return the exit code of a wait for `condition` once it is known; None: wait on."""
    if holds(job, condition):
        return MET
    failed, complete = holds(job, Condition.FAILED), holds(job, Condition.COMPLETE)
    if condition is Condition.REPORT_READY:
        report = condition_of(job, condition)
        if report is not None and report.reason != Reason.REPORT_PENDING:
            return NEVER
        # The run's end says at once whether there will be a report.
        return NEVER if report is None and (failed or complete) else None
    return NEVER if failed or complete else None


def seconds_of(text: str) -> float | None:
    """Return the seconds of `90`, `90s`, `15m`, `2h` or `1d`; None for `0`: without limit."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ConfigurationError(
            f"{text!r} is no duration",
            field="--timeout",
            remedy="write seconds, or 90s, 15m, 2h, 1d; 0: no limit",
        )
    return float(found[1]) * UNITS[found[2] or "s"] or None


def condition_named(text: str) -> Condition:
    """Return the condition to wait for, in any spelling of its letters."""
    known = {str(kind).lower(): kind for kind in AWAITED}
    found = known.get(text.lower().removeprefix("condition="))
    if found is None:
        raise ConfigurationError(
            f"{text!r} is nothing to wait for",
            field="--for",
            remedy=f"write one of {', '.join(map(str, AWAITED))}",
        )
    return found


def _ending(
    name: str, condition: Condition, code: int | None, job: Object | None, seconds: float | None
) -> str:
    if code == TIMED_OUT:
        where = f": {words.line(job, terminal.now())}" if job is not None else ""
        return f"{name}: not {condition} within {seconds:g} s{where}"
    if code == NEVER and job is not None:
        report = condition_of(job, Condition.REPORT_READY)
        why = words.one_line(report.message) if condition is Condition.REPORT_READY and report else ""
        return f"{name}: will not be {condition}: {why or words.headline(job)}"
    return f"{name}: {condition}"
