"""Pure: what is seen of a job, put into `.status`: conditions with sentences, figures, Events.

`explain`, `ends` and `refusals` find the words for single pods; `census` counts everybody; `figures` takes
what the run says of itself; `situation` and `standing` decide the conditions; `build` puts the status
together.
"""

from engram_operator.status.build import Content, build_status, notes_of, write_in
from engram_operator.status.conditions import (
    Statement,
    Statements,
    active_seconds,
    holds,
    phase_of,
    report_awaited,
    view,
)

__all__ = [
    "Content",
    "Statement",
    "Statements",
    "active_seconds",
    "build_status",
    "holds",
    "notes_of",
    "phase_of",
    "report_awaited",
    "view",
    "write_in",
]
