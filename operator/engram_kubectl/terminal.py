"""Where the commands write: a terminal that is redrawn, or lines that are only added to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console, RenderableType
from rich.live import Live

from engram_kubectl import words
from engram_operator.model import Object

WIDE = 200
"""Columns of tables that go into a file or a pipe."""


def console() -> Console:
    """Return where results go; a pipe or file gets wide lines without colour."""
    return Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)


def show(what: RenderableType) -> None:
    """Print a result; in a pipe or file without the spaces that fill up a table's lines."""
    out = console()
    if out.is_terminal:
        out.print(what)
        return
    with out.capture() as captured:
        out.print(what)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


Draw = Callable[[Object], None]


@contextmanager
def live(draw: Callable[[Object, datetime], RenderableType]) -> Iterator[Draw]:
    """Give what shows a job as it changes: in place on a terminal, else a line where the line changes."""
    out = console()
    if out.is_terminal:
        with Live(console=out, auto_refresh=False) as screen:

            def redraw(job: Object) -> None:
                screen.update(draw(job, now()), refresh=True)

            yield redraw
        return
    last = ""

    def add(job: Object) -> None:
        nonlocal last
        text = words.line(job, now())
        # How long is left changes by itself; that alone is no news.
        essence = text.removesuffix(words.left(job, now()))
        if essence != last:
            print(f"{job['metadata']['name']}: {text}", flush=True)
            last = essence

    yield add
