"""The results as pictures in the style of a report: accuracy over label ratios and over forgetting."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.fcil.table import Table
from benchmarks.fcil.variants import VARIANTS
from engram.report.formats import share
from engram.report.leaderboard import Statistic
from engram.report.png import COLOURS, RESOLUTION, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vPX*"
WIDTH, HEIGHT, ENTRY = 7.6, 4.2, 0.2
"""Inches: of a picture, and how high an entry of its legend is."""
PLOTTED_RATIO = 0.2
"""Label ratio at which accuracy is set against forgetting, where it was measured."""


def draw(folder: Path, table: Table) -> list[Path]:
    """Write the figures that the table has figures for; return their paths."""
    import matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context(STYLE):
        if len(table.ratios) > 1:
            written.append(_saved(_over_ratios(table), folder / f"{table.benchmark}-labels.png"))
        ratio = PLOTTED_RATIO if PLOTTED_RATIO in table.ratios else max(table.ratios)
        if any(table.mean(name, ratio, "forget_rate").mean is not None for name in _plotted(table)):
            written.append(
                _saved(_over_forgetting(table, ratio), folder / f"{table.benchmark}-forgetting.png")
            )
    return written


def _plotted(table: Table) -> list[str]:
    """Return the variants that a picture shows: ablations are in the tables."""
    ablations = {variant.name for variant in VARIANTS if variant.ablates}
    return [name for name in table.variants if name not in ablations]


def _over_ratios(table: Table) -> Figure:
    """Draw final accuracy over the label ratio, one line a variant, with standard errors."""
    figure, axes = _axes(len(_plotted(table)))
    for index, name in enumerate(_plotted(table)):
        means = {ratio: table.mean(name, ratio) for ratio in table.ratios}
        points = [(ratio, mean) for ratio, mean in means.items() if mean.mean is not None]
        axes.errorbar(
            [ratio for ratio, _ in points],
            [_percent(mean.mean) for _, mean in points],
            yerr=[_percent(mean.error) for _, mean in points],
            label=name,
            capsize=2,
            markersize=4.5,
            linewidth=1.4,
            **_look(index),
        )
    axes.set_xscale("log")
    axes.set_xticks(table.ratios, [share(ratio, 0) for ratio in table.ratios])
    axes.minorticks_off()
    axes.set(title="Final accuracy by share of labels", xlabel="labels", ylabel="final accuracy, %")
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside right center")
    return figure


def _over_forgetting(table: Table, ratio: float) -> Figure:
    """Draw final accuracy over forget rate: the best are at the top left."""
    figure, axes = _axes(len(_plotted(table)))
    for index, name in enumerate(_plotted(table)):
        accuracy, forgot = table.mean(name, ratio), table.mean(name, ratio, "forget_rate")
        if accuracy.mean is None:
            continue
        look = _look(index)
        if forgot.mean is None:
            height = _percent(accuracy.mean)
            axes.axhline(
                height, label=f"{name} (one task)", color=look["color"], linestyle=":", linewidth=1.4
            )
            continue
        axes.errorbar(
            [_percent(forgot.mean)],
            [_percent(accuracy.mean)],
            xerr=[_percent(forgot.error)],
            yerr=[_percent(accuracy.error)],
            label=f"{name} ({_newest(table.mean(name, ratio, 'newest_task_accuracy'))})",
            capsize=2,
            markersize=6,
            **{**look, "linestyle": ""},
        )
    title = f"Accuracy and forgetting, {share(ratio, 0)} labels"
    axes.set(title=title, xlabel="forget rate, %", ylabel="final accuracy, %")
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside right center", title="in brackets: newest task")
    return figure


def _newest(value: Statistic) -> str:
    return "" if value.mean is None else share(value.mean, 0)


def _look(index: int) -> dict[str, Any]:
    """Return colour, marker and line of the nth variant: all three change, for who sees no colours."""
    turn = index // len(COLOURS)
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": ("-", "--", "-.", ":")[turn % 4],
    }


def _percent(value: float | None) -> float:
    return 0.0 if value is None else 100 * value


def _axes(entries: int) -> tuple[Figure, Axes]:
    """Return a picture that is as high as its legend needs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, max(HEIGHT, ENTRY * (entries + 2))), dpi=RESOLUTION, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _saved(figure: Figure, path: Path) -> Path:
    figure.savefig(path, metadata={"Software": None})
    return path
