"""Wall time of what a newcomer waits for, beside the bars: the import of the command line, one run, the demo.

    python benchmarks/wall.py [--quick] [--json FILE]

Each figure is the median over its repetitions, on an otherwise idle machine; a run includes the start of all
processes and the report. `--quick` measures the import only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUN = ["-m", "engram", "run", "examples/01-digits.yaml"]


@dataclass(frozen=True)
class Subject:
    """What is timed: arguments of the interpreter, and the seconds that it may take."""

    name: str
    arguments: list[str]
    repetitions: int
    at_most: float
    quick: bool = False


SUBJECTS = (
    Subject("import engram.cli", ["-c", "import engram.cli"], 15, 0.3, quick=True),
    Subject("engram run examples/01-digits.yaml", RUN, 3, 40),
    Subject("make demo, installed", [*RUN, "--vary", "algorithm.name=finetune,replay,icarl"], 3, 90),
)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    subject: str
    seconds: float
    smallest: float
    largest: float
    repetitions: int
    at_most: float
    reached: bool


def bare_start() -> float:
    """Return the median seconds of a bare interpreter's start, which the import does not pay for."""
    return statistics.median(timed(["-c", ""]) for _ in range(15))


def timed(arguments: list[str]) -> float:
    """Return the wall seconds of one interpreter run; a run's directory is thrown away."""
    with tempfile.TemporaryDirectory() as scratch:
        out = ["--out", f"{scratch}/run"] if "run" in arguments else []
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments, *out], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started


def measured(subject: Subject, start: float) -> Row:
    """Time a subject; the interpreter's own start is taken off the import."""
    off = start if subject.arguments[0] == "-c" else 0.0
    seconds = [timed(subject.arguments) - off for _ in range(subject.repetitions)]
    median = statistics.median(seconds)
    return Row(
        subject=subject.name,
        seconds=median,
        smallest=min(seconds),
        largest=max(seconds),
        repetitions=subject.repetitions,
        at_most=subject.at_most,
        reached=median <= subject.at_most,
    )


def main() -> int:
    """Measure, print, and return 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="the import only")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    start = bare_start()
    rows = [measured(subject, start) for subject in SUBJECTS if subject.quick or not options.quick]
    print(f"{'subject':36} {'median s':>9} {'min - max':>15} {'n':>3}  bar")
    for row in rows:
        spread = f"{row.smallest:.2f} - {row.largest:.2f}"
        verdict = f"<= {row.at_most:g}: {'reached' if row.reached else 'MISSED'}"
        print(f"{row.subject:36} {row.seconds:9.2f} {spread:>15} {row.repetitions:3}  {verdict}")
    if options.json:
        facts = {
            "command": " ".join(["python", "benchmarks/wall.py", *sys.argv[1:]]),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "load_at_end": round(os.getloadavg()[0], 2),
            "python": platform.python_version(),
        }
        options.json.write_text(json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    return 0 if all(row.reached for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
