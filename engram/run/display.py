"""What a person sees while a job runs: a live panel on a terminal, else lines, nothing in a cell."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from engram.run.observers import ROUND_MARK, TASK_MARK, size
from engram.spec.names import Phase

if TYPE_CHECKING:
    from rich.console import RenderableType

SHOWN_WORKERS = 12
"""Workers in the live panel; a terminal has few lines."""


class Display(Protocol):
    """Shows a run. `line` gets the aggregator's lines, `status` the newest `/v1/status`."""

    follows: bool
    """Whether it shows what `status` gets; else nobody needs to make one at every event."""

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        ...

    def line(self, text: str) -> None:
        """Show a line of the run's log."""
        ...

    def note(self, text: str) -> None:
        """Show a warning or what happens beside the rounds."""
        ...

    def status(self, status: Mapping[str, Any]) -> None:
        """Show where the run is."""
        ...


class QuietDisplay:
    """Shows nothing: a grid shows a line a cell."""

    follows = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to undo."""

    def line(self, text: str) -> None:
        """Drop it: the log has it."""

    def note(self, text: str) -> None:
        """Drop it: the record has it."""

    def status(self, status: Mapping[str, Any]) -> None:
        """Drop it."""


class PlainDisplay(QuietDisplay):
    """Lines on stdout as they come, for logs and pipes."""

    def __enter__(self) -> Self:
        return self

    def line(self, text: str) -> None:
        """Print it."""
        print(text, flush=True)

    def note(self, text: str) -> None:
        """Print it."""
        print(f"note: {text}", flush=True)


class LiveDisplay(QuietDisplay):
    """A panel that follows the run, with the line of each finished task left above it."""

    follows = True

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self._title = title
        self._status: Mapping[str, Any] = {}
        self._console = Console()
        self._live = Live(
            get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the panel away."""
        self._live.stop()

    def line(self, text: str) -> None:
        """Keep the lines of tasks; rounds are in the panel."""
        if not text.startswith(ROUND_MARK):
            self._console.print(
                text, highlight=False, markup=False, style="bold" if text.startswith(TASK_MARK) else None
            )

    def note(self, text: str) -> None:
        """Print it above the panel."""
        self._console.print(f"note: {text}", highlight=False, markup=False, style="yellow")

    def status(self, status: Mapping[str, Any]) -> None:
        """Show it at the next refresh."""
        self._status = status

    def _render(self) -> RenderableType:
        return panel(self._title, self._status)


def panel(title: str, status: Mapping[str, Any]) -> RenderableType:
    """Return the live panel for one status."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    head = Table.grid(padding=(0, 2))
    head.add_row(*(Text(text) for text in headline(status)))
    percent = float(status.get("progress", {}).get("percent", 0))
    bar = Table.grid(expand=True)  # a ProgressBar ends without a line feed: in a row of its own it gets one
    bar.add_row(ProgressBar(total=100, completed=percent))
    parts: list[RenderableType] = [head, bar]
    if status.get("workerStatuses"):
        parts.append(_worker_table(status["workerStatuses"]))
    connected = status.get("display", {}).get("workers", "-")
    return Panel(Group(*parts), title=title, subtitle=f"workers {connected}", title_align="left")


def headline(status: Mapping[str, Any]) -> list[str]:
    """Return the facts of the panel's first line: task, round, accuracy, forgetting, bytes, time left."""
    if not status or status.get("phase") == Phase.STARTING:
        return ["starting"]
    progress, shown = status.get("progress", {}), status.get("display", {})
    transfer = status.get("transfer", {})
    facts = [
        f"task {shown.get('task', '-')}",
        f"round {shown.get('round', '-')}",
        f"accuracy {shown.get('accuracy', '-')}",
        f"forgetting {shown.get('forgetting', '-')}",
        size(transfer.get("bytesDown", 0) + transfer.get("bytesUp", 0)),
    ]
    if "secondsLeft" in progress:
        facts.append(f"{duration(progress['secondsLeft'])} left")
    return facts


def duration(seconds: float) -> str:
    """Return `1 h 02 min`, `3 min 05 s` or `12 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


class GridDisplay:
    """One line that follows the running cells of a grid, on a terminal; elsewhere nothing."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.console import Console

        self._console = Console()
        self._spinner = self._console.status("") if _can_redraw() and not quiet else None

    def __enter__(self) -> Self:
        if self._spinner is not None:
            self._spinner.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the line away."""
        if self._spinner is not None:
            self._spinner.stop()

    def show(self, text: str) -> None:
        """Show where the cells are, cut to the width of the terminal."""
        if self._spinner is not None:
            from rich.text import Text

            self._spinner.update(Text(text[: max(10, self._console.width - 4)]))


def open_display(title: str, *, quiet: bool) -> Display:
    """Return the display that fits where stdout goes."""
    if quiet:
        return QuietDisplay()
    return LiveDisplay(title) if _can_redraw() else PlainDisplay()


def _can_redraw() -> bool:
    """Tell whether stdout is a terminal that can go back and draw over what it shows."""
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def _worker_table(workers: list[Mapping[str, Any]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2), show_header=False)
    ordered = sorted(workers, key=_place)
    for worker in ordered[:SHOWN_WORKERS]:
        style = {"disconnected": "yellow", "failed": "red"}.get(worker["state"], "")
        table.add_row(
            Text(str(worker["name"])),
            Text(str(worker["state"]), style=style),
            Text(f"{worker.get('percent', 0)}%"),
            Text(f"loss {worker['loss']}" if "loss" in worker else ""),
        )
    if len(workers) > SHOWN_WORKERS:
        table.add_row(Text(f"and {len(workers) - SHOWN_WORKERS} more"))
    return table


def _place(worker: Mapping[str, Any]) -> tuple[str, int]:
    """Return what keeps each worker in its line: the status lists those in trouble first."""
    group, _, index = str(worker["name"]).rpartition("-")
    return group, int(index) if index.isdigit() else 0
