"""Which version of engram a peer runs: both sides of a federation must run the same one.

Messages may have other fields in another version, and algorithms other results; a worker's image is often
another one than the aggregator's (CPU and CUDA), so that it is easily forgotten.
"""

from __future__ import annotations

from engram import __version__

PROTOCOL = 4
"""The version of the messages."""
LONGEST = 40
"""Characters that are shown of what a peer claims."""


def refusal(worker: object, version: object, protocol: object) -> str | None:
    """Return why a worker that runs `version` and speaks `protocol` cannot join; None when it can."""
    if (version, protocol) == (__version__, PROTOCOL):
        return None
    theirs = f"engram {str(version)[:LONGEST]}" if version else "an older engram"
    return (
        f"{str(worker)[:80]} runs {theirs} (protocol {str(protocol)[:LONGEST]}), the aggregator engram "
        f"{__version__} (protocol {PROTOCOL}): give spec.aggregator.image and "
        "spec.workers[].image the same version"
    )
