"""Waiting for a condition with a deadline; the error says what was waited for and how things stood."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class NotYet(Exception):
    """Raised by a condition that does not hold yet: how things stand, for the error at the deadline."""


def until(
    condition: Callable[[], T | None],
    what: str,
    *,
    seconds: float = 30.0,
    every: float = 0.05,
) -> T:
    """Call `condition` every `every` seconds until it returns something true; return that.

    `what` is a noun phrase: "all pods Running". Raises TimeoutError after `seconds`, with the last reason
    that the condition gave by NotYet; every other exception goes through at once.
    """
    deadline = time.monotonic() + seconds
    while True:
        stands = ""
        try:
            found = condition()
        except NotYet as reason:
            stands = f": {reason}"
        else:
            if found:
                return found
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {seconds:g} s in vain for {what}{stands}")
        time.sleep(every)
