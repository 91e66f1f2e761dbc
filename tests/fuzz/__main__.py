"""`python -m tests.fuzz`: mutated messages against the aggregator; nothing may crash, hang or grow."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import logging
import sys
import time
from collections import Counter
from pathlib import Path

from engram.federation.websocket.usage import peak_bytes, resident_bytes
from tests.fuzz.inside import Failure, Inside
from tests.fuzz.wire import Wire, WireFailure

WIRE_SHARE = 50
"""One of so many mutants goes over a real connection."""
WARM_UP, STEP = 5000, 1000
KEPT_BYTES, PEAK_BYTES = 8 * 2**20, 128 * 2**20
"""What memory may grow by after the warm-up, in the end and at any time. A header of lists in lists takes
up to a hundred MiB for a moment, whatever its size."""


def main(arguments: list[str] | None = None) -> int:
    """Try the mutants, print what became of them; 0: none did what none may do."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="mutants (default: 1000000)")
    parser.add_argument("--seconds", type=float, default=600, help="stop after so many (default: 600)")
    parser.add_argument("--seed", type=int, default=0, help="of all mutants (default: 0)")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for an input that failed")
    options = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)  # each refusal is one line of the aggregator's log
    start = time.monotonic()
    inside, wire = Inside(options.seed), Wire(options.seed)
    over_wire = options.inputs // WIRE_SHARE
    try:
        wire.run(over_wire)
        kept, peak = _run(inside, options.inputs - over_wire, start + options.seconds)
    except (Failure, WireFailure) as failure:
        path = _keep(failure, options.seed, options.out)
        print(f"FAILED: {failure}\nseed {options.seed}, input {inside.done}: {path}", file=sys.stderr)
        return 1
    finally:
        logging.disable(logging.NOTSET)
    _print(inside.counts + wire.counts)
    done, seconds = over_wire + inside.done, time.monotonic() - start
    cut = "" if done == options.inputs else f" of {options.inputs}: stopped after {options.seconds:g} s"
    print(f"{done} mutants{cut}, {over_wire} of them over WebSockets, seed {options.seed}, {seconds:.0f} s")
    print("no crash, no hang, the good workers finished their round")
    print(f"memory since the first {WARM_UP}: {kept / 2**20:+.1f} MiB, for a moment {peak / 2**20:+.1f} MiB")
    return int(kept > KEPT_BYTES or peak > PEAK_BYTES)


def _run(inside: Inside, inputs: int, deadline: float) -> tuple[int, int]:
    """Try inputs until all are done, or time is up; return what memory grew by, in the end and at most."""
    inside.run(min(WARM_UP, inputs))
    before = highest = _held()
    # What single inputs took for a moment counts too, where the kernel starts its peak anew.
    used = peak_bytes if _forget_peak() else resident_bytes
    while inside.done < inputs and time.monotonic() < deadline:
        inside.run(min(STEP, inputs - inside.done))
        highest = max(highest, used())
    return _held() - before, highest - before


def _held() -> int:
    """Return the memory in use, without what the C library only keeps for later."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
    return resident_bytes()


def _forget_peak() -> bool:
    """Let the kernel take the peak of memory from now on; return whether it does."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _keep(failure: Failure | WireFailure, seed: int, folder: Path) -> Path:
    """Write the input that failed as hexadecimal digits."""
    path = folder / f"fuzz-{seed}.hex"
    path.write_text(failure.data.hex() + "\n", encoding="ascii")
    return path.resolve()


def _print(counts: Counter[tuple[str, str]]) -> None:
    for (target, outcome), count in sorted(counts.items()):
        print(f"{count:9}  {target:16} {outcome}")


if __name__ == "__main__":
    raise SystemExit(main())
