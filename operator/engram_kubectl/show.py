"""What the commands draw: a bar, a table of jobs, the diagnosis of one. Pure: objects in, renderables out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from engram_kubectl import words
from engram_kubectl.jobs import age, duration, phase_of, status_of
from engram_operator.model import Object, parse_time

BAR = 40
LAST_EVENTS = 10
STYLES = {"Succeeded": "green", "Failed": "red", "Suspended": "yellow", "Unseen": "yellow"}


def progress(job: Object, now: datetime) -> RenderableType:
    """Return the job's bar with where the run is, and below it what keeps it from going on."""
    done = words.percent(job)
    grid = Table.grid(padding=(0, 2))
    name, phase = Text(job["metadata"]["name"], style="bold"), _phase(job)
    bar = ProgressBar(total=100, completed=done or 0, width=BAR)
    grid.add_row(name, phase, bar, Text("-" if done is None else f"{done}%"))
    where = "  ".join(part for part in (words.place(job), words.left(job, now)) if part)
    lines: list[RenderableType] = [grid]
    if where:
        lines.append(Text(f"  {where}"))
    lines += [Text(f"  {sentence}", style="yellow") for sentence in _worries(job)]
    return Group(*lines)


def jobs_table(jobs: Sequence[Object], now: datetime, *, everywhere: bool) -> Table:
    """Return one line a job."""
    names = ("NAME", "PHASE", "DONE", "TASK", "ROUND", "ACCURACY", "FORGETTING", "WORKERS", "LEFT", "AGE")
    table = _table(*(("NAMESPACE",) if everywhere else ()), *names)
    for job in jobs:
        shown, done = status_of(job).get("display") or {}, words.percent(job)
        cells = [
            *([Text(job["metadata"]["namespace"])] if everywhere else []),
            Text(job["metadata"]["name"]),
            _phase(job),
            Text("-" if done is None else f"{done}%"),
            *(
                Text(words.one_line(shown.get(key) or "-"))
                for key in ("task", "round", "accuracy", "forgetting", "workers")
            ),
            Text(words.left(job, now).removeprefix("about ").removesuffix(" left") or "-"),
            Text(age(parse_time(job["metadata"].get("creationTimestamp")), now)),
        ]
        table.add_row(*cells)
    return table


def diagnosis(job: Object, events: Sequence[Object] | None, now: datetime) -> RenderableType:
    """Return everything that there is to say of a job, the worst first.

    Args:
        job: as the API server sends it.
        events: of the job; None: they may not be read.
        now: for ages.
    """
    parts: list[RenderableType] = [progress(job, now), Text(f"  {words.headline(job)}"), Text()]
    parts += _section("Conditions", _conditions(job))
    parts += _section("Workers", _workers(job, now))
    parts += _section("Tasks", _tasks(job))
    parts += _section("Where", _places(job))
    if events is None:
        parts += _section("Events", [Text("they may not be read with these rights")])
    else:
        parts += _section(f"Events, the last {LAST_EVENTS}", _events(events, now) or [Text("none")])
    return Group(*parts)


def _section(title: str, content: Iterable[RenderableType]) -> list[RenderableType]:
    found = list(content)
    return (
        [Text(title, style="bold"), *(Padding(item, (0, 0, 0, 2)) for item in found), Text()] if found else []
    )


def _conditions(job: Object) -> list[RenderableType]:
    grid = Table.grid(padding=(0, 2))
    for kind, fine, sentence in words.conditions(job):
        grid.add_row(
            Text("ok" if fine else "!!", style="green" if fine else "red"), Text(kind), Text(sentence)
        )
    return [grid] if grid.row_count else []


def _workers(job: Object, now: datetime) -> list[RenderableType]:
    status = status_of(job)
    counts, entries = status.get("workers") or {}, status.get("workerStatuses") or []
    if not counts and not entries:
        return []
    ordered = sorted(entries, key=lambda entry: not words.not_fine(entry))
    table = _table("NAME", "STATE", "NODE", "DEVICE", "ROUND", "RESTARTS", "LAST SEEN", "WHAT IS WRONG")
    for entry in ordered:
        why = ": ".join(words.one_line(entry[key]) for key in ("reason", "message") if entry.get(key))
        table.add_row(
            Text(words.one_line(entry["name"]), style="red" if words.not_fine(entry) else ""),
            *(
                Text(words.one_line(entry.get(key, "-")))
                for key in ("state", "node", "device", "round", "restarts")
            ),
            Text(age(parse_time(entry.get("lastSeenTime")), now)),
            Text(why or "-"),
        )
    told = [
        f"{counts[key]} {key}"
        for key in ("desired", "running", "connected", "disconnected", "failed")
        if key in counts
    ]
    rest = int(counts.get("desired") or 0) - len(entries)
    more = f"; {rest} more are not listed" if rest > 0 and entries else ""
    lines: list[RenderableType] = [Text(", ".join(told) + more)] if told else []
    return [*lines, table] if entries else lines


def _tasks(job: Object) -> list[RenderableType]:
    entries = status_of(job).get("tasks") or []
    table = _table("TASK", "CLASSES", "ACCURACY", "NOW", "FORGET RATE", "TIME")
    for entry in entries:
        table.add_row(
            str(entry["index"]),
            ", ".join(map(str, entry.get("classes") or ())) or "-",
            *(_share(entry.get(key)) for key in ("accuracy", "accuracyNow", "forgetRate")),
            duration(entry["seconds"]) if "seconds" in entry else "-",
        )
    return [table] if entries else []


def _places(job: Object) -> list[RenderableType]:
    status = status_of(job)
    aggregator, report = status.get("aggregator") or {}, status.get("report") or {}
    found = {
        "aggregator": " ".join(
            words.one_line(aggregator[key])
            for key in ("state", "node", "endpoint", "message")
            if aggregator.get(key)
        ),
        "report": ", ".join(
            f"{what} {words.one_line(report[key])}"
            for key, what in (("configMap", "ConfigMap"), ("location", "spec.report.volume at"))
            if report.get(key)
        ),
    }
    grid = Table.grid(padding=(0, 2))
    for name, text in found.items():
        if text:
            grid.add_row(Text(name), Text(text))
    return [grid] if grid.row_count else []


def _events(events: Sequence[Object], now: datetime) -> list[RenderableType]:
    last = sorted(events, key=event_time)[-LAST_EVENTS:]
    grid = Table.grid(padding=(0, 2))
    for event in last:
        warning = event.get("type") == "Warning"
        grid.add_row(
            Text(age(parse_time(event_time(event)), now)),
            Text(words.one_line(event.get("reason") or ""), style="yellow" if warning else ""),
            Text(words.one_line(event.get("message") or "")),
        )
    return [grid] if last else []


def event_time(event: Object) -> str:
    """Return when an Event was last seen."""
    return str(
        event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp")
        or ""
    )


def _worries(job: Object) -> list[str]:
    return [sentence for kind, fine, sentence in words.conditions(job) if not fine and kind in words.WORRYING]


def _phase(job: Object) -> Text:
    phase = phase_of(job)
    return Text(words.one_line(phase), style=STYLES.get(phase, ""))


def _share(value: Any) -> str:
    try:
        return "-" if value is None else f"{100 * float(value):.1f}%"
    except (TypeError, ValueError):
        return "-"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column != "WHAT IS WRONG", overflow="fold")
    return table
