from __future__ import annotations

import math

import pytest

from engram.federation.history import History
from engram.federation.journal import Journal


@pytest.mark.parametrize(
    ("said", "train"),
    [([2.0, 5.0], 5.0), ([99.0], 8.0), ([math.nan], 8.0), ([math.nan, 3.0], 3.0), ([-5.0], 0.0), ([], 8.0)],
)
def test_the_seconds_that_workers_report_stay_within_the_rounds(said: list[float], train: float) -> None:
    journal = Journal(History(), None)  # type: ignore[arg-type]
    journal.open(100.0)
    journal.answered(108.0, "train", [{"seconds": seconds} for seconds in said])
    row = journal.round_row(1, 1, {}, ())
    assert row.seconds == {"broadcast": 0.0, "train": train, "upload": 8.0 - train}


def test_broadcast_lasts_until_the_last_order_has_left() -> None:
    journal = Journal(History(), None)  # type: ignore[arg-type]
    journal.open(100.0)
    journal.sent(100.5)
    journal.sent(101.0)
    journal.answered(108.0, "train", [{"seconds": 5.0}])
    assert journal.round_row(1, 1, {}, ()).seconds == {"broadcast": 1.0, "train": 5.0, "upload": 2.0}
