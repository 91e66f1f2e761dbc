"""The command: measure algorithms, print the table, write the rows."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.fcil.command import without_places
from benchmarks.fcil.page import write
from benchmarks.training_load.federation import Federation
from benchmarks.training_load.floor import Floor, graphed
from benchmarks.training_load.page import NAME, against_prototype, section
from benchmarks.training_load.setting import CASES, PSEUDO, Case, named
from engram.learning.algorithms import BUILT_IN
from engram.learning.device import pick_device
from engram.run.facts import environment

NAMES = (
    *("finetune", "fedprox", "fedlwf", "fedewc", "scaffold", "feddyn", "replay", "icarl", "bic"),
    *("glfc", "lga", "fedcimatch", PSEUDO, "semifci", "discmatch"),
)
QUICK = ("finetune", "icarl", "discmatch")


@dataclass(frozen=True)
class Row:
    """One line of the table; milliseconds are those of one step of one worker, medians over rounds."""

    data: str
    algorithm: str
    batch: int
    parameters: int
    passes: dict[str, int]
    """Forward passes of one step: `16` with and `16 without gradient` -> how many."""
    milliseconds: float
    samples_per_second: float
    """Labelled images; unlabelled ones come on top."""
    floor_milliseconds: float
    ratio: float
    """Times the floor."""
    prototype_milliseconds: float | None
    """What the design's prototype took, which is not to be exceeded; None where it has no figure."""
    together_milliseconds: float | None
    """With `--batched`; None where the algorithm cannot."""
    together_speed_up: float | None
    graph_milliseconds: float | None
    """The floor as a CUDA graph."""
    gpu_use: float | None
    """Share of the last sample period in which the card was busy."""


def measured(case: Case, algorithm: str, rounds: int, steps: int) -> Row:
    """Let an algorithm, alone and together, and its floor take turns and return the line."""
    federation = Federation(case, algorithm, rounds + 3, steps)
    federation.round()  # a task's first round has no helpers yet
    passes = federation.passes()
    floor = Floor(case, passes, steps)
    graph = graphed(floor.step)
    vectorised = BUILT_IN[named(algorithm)[0]].vectorised
    crew = Federation(case, algorithm, rounds + 1, steps, batched=True) if vectorised else None
    ours, bare, replayed, together, used = [], [], [], [], []
    for _ in range(rounds + 1):
        bare.append(floor.round(floor.step))
        if graph is not None:
            replayed.append(floor.round(graph))
        taken, use = federation.round()
        ours.append(taken)
        used.append(use)
        if crew is not None:
            together.append(crew.round()[0])
    alone, lowest = statistics.median(ours[1:]), statistics.median(bare[1:])  # the first round warms up
    batched = statistics.median(together[1:]) if together else None
    known = [use for use in used if use is not None]
    return Row(
        data=case.name,
        algorithm=algorithm,
        batch=case.batch,
        parameters=floor.parameters,
        passes={f"{n}{'' if grad else ' without gradient'}": t for (n, grad), t in sorted(passes.items())},
        milliseconds=round(alone, 4),
        samples_per_second=round(1000 * case.batch / alone, 1),
        floor_milliseconds=round(lowest, 4),
        ratio=round(alone / lowest, 3),
        prototype_milliseconds=case.prototype.get(algorithm) if pick_device().type == "cpu" else None,
        together_milliseconds=None if batched is None else round(batched, 4),
        together_speed_up=None if batched is None else round(alone / batched, 3),
        graph_milliseconds=round(statistics.median(replayed[1:]), 4) if replayed else None,
        gpu_use=round(statistics.median(known), 3) if known else None,
    )


HEAD = (
    f"{'data':20} {'algorithm':20} {'batch':>5} {'ms':>8} {'samples/s':>10} {'floor ms':>8} {'ratio':>6} "
    f"{'together':>8} {'speed-up':>8} {'graph ms':>8} {'GPU use':>7}  forward passes of a step"
)


def line(row: Row) -> str:
    """Return a row as the table shows it."""
    shown = ["-" if value is None else f"{value:.2f}" for value in (row.together_speed_up, row.gpu_use)]
    times = [
        "-" if value is None else f"{value:.3f}"
        for value in (row.together_milliseconds, row.graph_milliseconds)
    ]
    passes = ", ".join(f"{count} x {what}" for what, count in row.passes.items())
    return (
        f"{row.data:20} {row.algorithm:20} {row.batch:5} {row.milliseconds:8.3f} "
        f"{row.samples_per_second:10.0f} {row.floor_milliseconds:8.3f} {row.ratio:6.2f} "
        f"{times[0]:>8} {shown[0]:>8} {times[1]:>8} {shown[1]:>7}  {passes}"
    )


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="Local training beside its floor.")
    parser.add_argument("--quick", action="store_true", help="three algorithms, few rounds: some seconds")
    parser.add_argument("--only", default="", help="algorithms, separated by commas")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE as well")
    parser.add_argument("--page", type=Path, metavar="FILE", help="put the table into FILE's place for it")
    options = parser.parse_args()
    rounds, steps = (2, 6) if options.quick else (9, 32)
    torch.set_num_threads(1)
    device = pick_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, one thread"
    known = environment("", "").model_dump(include={"engram", "python", "torch", "numpy", "cpu", "cores"})
    load = [round(os.getloadavg()[0], 2)]
    print(f"One local SGD step on {name}, torch {torch.__version__}; load {load[0]}\n\n{HEAD}")
    wanted = options.only.split(",") if options.only else QUICK if options.quick else NAMES
    rows = []
    for case in CASES:
        if case.cuda_only and device.type != "cuda":
            continue
        for algorithm in wanted:
            rows.append(measured(case, algorithm, rounds, steps))
            print(line(rows[-1]), flush=True)
    load.append(round(os.getloadavg()[0], 2))
    command = shlex.join(without_places(["python", *sys.argv]))
    facts = {"command": command, **known, "device": name, "rounds": rounds, "load_before_and_after": load}
    found = {**facts, "rows": [asdict(row) for row in rows]}
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if options.page is not None:
        write(options.page, NAME, section(found))
    for row in rows:
        if row.prototype_milliseconds is not None:
            print(f"{row.algorithm}: {against_prototype(row.milliseconds, row.prototype_milliseconds)}")
    return 0
