"""`python -m tests.chaos`: a job under SIGKILLs at random and at chosen instants gives the same matrix."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from engram.spec.loader import load_job
from tests.chaos.plan import Kill, plan
from tests.chaos.storm import JOB, Outcome, Storm

CERTAIN = (
    *("update-sent", "checkpoint-before-rename", "checkpoint-after-rename", "manifest-before-rename") * 4,
    *("consolidate-worker", "consolidate-aggregator") * 2,
)


def main() -> int:
    """Run, print what was done and what came of it; 0: the same matrix."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help=f"at least {len(CERTAIN)} (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the instants (default: 0)")
    options = parser.parse_args()
    if options.kills < len(CERTAIN):
        parser.error(f"--kills: at least {len(CERTAIN)}, so that each chosen instant is hit")
    spec = load_job(JOB).spec
    kills = plan(options.seed, options.kills, CERTAIN, spec.tasks.count, spec.training.rounds_per_task)
    with tempfile.TemporaryDirectory(prefix="engram-chaos-") as name:
        calm, calm_seconds = _run(Path(name) / "calm", ())
        stormy, seconds = _run(Path(name) / "storm", kills)
    print(f"{len(stormy.losses)} rounds, {seconds:.0f} s ({calm_seconds:.0f} s without kills)")
    print("same matrix" if stormy.matrix == calm.matrix else "ANOTHER MATRIX")
    print("same loss of every round, same final weights" if stormy == calm else "OTHER LOSSES OR WEIGHTS")
    return int(stormy != calm)


def _run(folder: Path, kills: Sequence[Kill]) -> tuple[Outcome, float]:
    """Run the job under `kills`, print them by kind, and return what came of it and the seconds it took."""
    start = time.monotonic()
    with Storm(folder, [str(JOB)]) as storm:
        storm.suffer(kills)
        storm.end()
    if kills:
        print(f"{storm.killed.total()} kills:")
        for words, count in sorted(storm.killed.items(), key=lambda item: -item[1]):
            print(f"{count:5} {words}")
        pairs = zip(storm.rounds_at_kills, storm.rounds_at_kills[1:], strict=False)
        assert all(before < after for before, after in pairs)
        print("at least one round closed between any two kills of the aggregator")
    return Outcome.of(folder / "run"), time.monotonic() - start


if __name__ == "__main__":
    raise SystemExit(main())
