"""How long a run on real nodes stands still after a fault, and how soon its status says why.

    python benchmarks/faults.py [--quick] [--json FILE]

The faults are the tests of tests/e2e/test_faults.py and test_lost_node.py: each also checks that the run
succeeds with the same matrix as without the fault. Needs root and what `make e2e` needs; twenty minutes.
`--quick` does two.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TESTS = [ROOT / "tests/e2e" / name for name in ("test_faults.py", "test_lost_node.py")]
QUICK = "kubelet or cable"
RESULTS_VARIABLE = "ENGRAM_FAULTS_JSON"

Row = dict[str, Any]


def run_tests(quick: bool) -> tuple[int, list[Row]]:
    """Run the tests; return pytest's exit code and a row for each fault whose test passed."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "pytest", *map(str, TESTS), *(["-k", QUICK] if quick else [])]
        environment = {**os.environ, RESULTS_VARIABLE: str(results)}
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        rows = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else []
        return done.returncode, rows


def line(row: Row) -> str:
    """Return a row of the table, as docs/faults.md has it."""

    def seconds(key: str) -> str:
        return "-" if row[key] is None else f"{row[key]:.1f} s"

    said = f"{row['reason'] or 'nothing is wrong'}"
    times = " | ".join(seconds(key) for key in ("told_seconds", "mended_seconds", "next_round_seconds"))
    return f"| {row['fault']} | {said} | {times} | {row['outcome']} |"


def main() -> int:
    """Measure, print the table, and return pytest's exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="two faults only")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    code, rows = run_tests(options.quick)
    print("\n| fault | the status says | after | mended after | rounds go on after | end |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(line(row))
    if options.json and rows:
        facts = {
            "command": " ".join(["python", "benchmarks/faults.py", *sys.argv[1:]]),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "load_at_end": round(os.getloadavg()[0], 2),
            "python": platform.python_version(),
        }
        options.json.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
