"""The figures of a report as PNG files, for papers and slides: the same charts as in the page, by matplotlib.

Drawn with the Agg canvas directly, so neither a display nor matplotlib's global state is involved, and with
no metadata, so the same record gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engram.errors import ConfigurationError
from engram.report.charts import BarChart, Chart, LineChart
from engram.report.formats import duration, evenly, share, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0068a8", "#bd4b00", "#00745a", "#96428a", "#8a6100", "#5a52c4")
"""Those of the page: apart for all common kinds of colour blindness, dark enough for text on white."""
MUTED = "#59636e"
RESOLUTION = 160
"""Dots per inch."""

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#b8c0c8",
    "axes.labelcolor": MUTED,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e8ec",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
}


def write_figures(folder: Path, document: Mapping[str, Any], charts: Mapping[str, Chart]) -> list[Path]:
    """Write accuracy_matrix.png and one PNG a chart into `folder`; return their paths."""
    try:
        import matplotlib
    except ImportError as error:
        raise ConfigurationError(
            f"the figures need {error.name}, which is not installed", remedy="pip install 'engram[report]'"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    with matplotlib.rc_context(STYLE):
        if document["task_accuracy"]:
            written.append(_save(_matrix(document["task_accuracy"]), folder / "accuracy_matrix.png"))
        for chart in charts.values():
            figure = _lines(chart) if isinstance(chart, LineChart) else _bars(chart)
            written.append(_save(figure, folder / f"{chart.key}.png"))
    return written


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=RESOLUTION, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, metadata={"Software": None})
    return path


def _matrix(square: Sequence[Sequence[float | None]]) -> Figure:
    tasks = len(square)
    side = min(8.0, 2.4 + 0.55 * tasks)
    figure, axes = _figure(side + 0.8, side)
    values = [[float("nan") if value is None else 100 * value for value in row] for row in square]
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=100)
    axes.grid(visible=False)
    if tasks <= 12:
        for after, row in enumerate(square):
            for task, value in enumerate(row):
                if value is not None:
                    colour = "white" if value > 0.6 else "#15191e"
                    axes.text(task, after, f"{100 * value:.1f}", ha="center", va="center", color=colour)
    shown = evenly(tasks, 12)
    axes.set_xticks(shown, [str(index + 1) for index in shown])
    axes.set_yticks(shown, [str(index + 1) for index in shown])
    axes.set(title="Accuracy matrix, %", xlabel="on task", ylabel="after task")
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, shrink=0.8).outline.set_visible(False)
    return figure


def _lines(chart: LineChart) -> Figure:
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(7.2, 3.4)
    for index, (start, end, _) in enumerate(chart.bands):
        if index % 2 == 0:
            axes.axvspan(start, end, color="#f3f5f8", zorder=0)
    for index, series in enumerate(chart.series):
        xs = [x for x, _ in series.points]
        ys = [float("nan") if y is None else 100 * y if chart.percent else y for _, y in series.points]
        axes.plot(
            xs,
            ys,
            label=series.name,
            color=_colour(chart, index),
            linestyle=":" if series.dashed else "-",
            marker="o" if len(xs) <= 60 else "",
            markersize=4,
        )
    axes.set(title=chart.title, xlabel=chart.x_label)
    axes.set_ylabel(f"{chart.y_label}, %" if chart.percent else chart.y_label)
    if chart.percent:
        axes.set_ylim(top=103)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if chart.bands:
        axes.set_xlim(chart.bands[0][0], chart.bands[-1][1])
    if len(chart.series) > 1:
        figure.legend(loc="outside right center")
    return figure


def _colour(chart: LineChart, index: int) -> Any:
    if not chart.ordinal:
        return COLOURS[index % len(COLOURS)]
    import matplotlib

    return matplotlib.colormaps["cividis"](0.85 * index / max(1, len(chart.series) - 1))


def _bars(chart: BarChart) -> Figure:
    figure, axes = _figure(7.2, 1.1 + 0.34 * len(chart.bars))
    names = [name for name, _ in chart.bars]
    left = [0.0] * len(names)
    for index, part in enumerate(chart.parts):
        widths = [values[index] for _, values in chart.bars]
        axes.barh(names, widths, left=left, label=part, color=COLOURS[index], height=0.62)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    total = sum(left)
    for row, (_, values) in enumerate(chart.bars):
        axes.text(left[row], row, f"  {_amount(chart, values, total)}", va="center", color=MUTED)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set(title=chart.title, xticks=[])
    axes.margins(x=0.25)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0)
    if len(chart.parts) > 1:
        axes.legend(loc="lower right", ncols=len(chart.parts), bbox_to_anchor=(1, 1), borderaxespad=0)
    return figure


def _amount(chart: BarChart, values: Sequence[float], total: float) -> str:
    if chart.unit == "bytes":
        return " + ".join(size(value) for value in values)
    return duration(sum(values)) + (f" ({share(sum(values) / total, 0)})" if total else "")
