"""The report as one HTML file: no script, no request to anywhere, everything inline.

Templates and style are in `templates/`; every value is escaped by Jinja, charts escape their own text.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from engram import __version__
from engram.errors import ConfigurationError
from engram.report import formats
from engram.report.charts import Chart, report_charts
from engram.report.leaderboard import heading
from engram.report.svg import WIDTH, render

if TYPE_CHECKING:
    from jinja2 import Environment

TILES = ("final_accuracy", "average_incremental_accuracy", "forget_rate", "backward_transfer")
MOST_TASKS = 30
"""Rows and columns of the tables of tasks; more are shown evenly spread."""
MOST_CLASSES = 30
MOST_WORKERS = 50
TOGETHER = "; workers trained together (--batched), so close to a run without, but not bit for bit"


def report_html(document: Mapping[str, Any]) -> str:
    """Return the page of a report document."""
    return _environment().get_template("report.html.j2").render(_context(document))


def page(template: str, context: Mapping[str, Any]) -> str:
    """Return a template of this package filled with `context`."""
    return _environment().get_template(template).render(context)


def drawn(charts: Mapping[str, Chart], width: int = WIDTH) -> dict[str, dict[str, Any]]:
    """Return title and SVG of each chart, for templates."""
    from markupsafe import Markup

    # Safe by construction: `svg.render` escapes all text and writes every other character itself.
    return {key: {"title": chart.title, "svg": Markup(render(chart, width))} for key, chart in charts.items()}


def _environment() -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise ConfigurationError(
            f"the report needs {error.name}, which is not installed",
            remedy="pip install 'engram[report]'",
        ) from error
    environment = Environment(
        loader=PackageLoader("engram.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = files("engram.report").joinpath("templates/style.css").read_text(encoding="utf-8")
    environment.globals.update(style=Markup(style), engram_version=__version__)
    environment.filters.update(
        percent=formats.share,
        percent_number=lambda value: formats.number(100 * value, 1),
        percent_or_dash=lambda value: "\N{EN DASH}" if value is None else formats.share(value),
        size=formats.size,
        duration=formats.duration,
        behind=lambda row: formats.behind(row["staleness"], row["most_staleness"]),
        whole=formats.whole,
        listed=formats.listed,
        heading=heading,
        shorten=lambda text: text if len(text) <= 8 else text[:7] + "\N{HORIZONTAL ELLIPSIS}",
    )
    return environment


def _context(document: Mapping[str, Any]) -> dict[str, Any]:
    workers, labels, tasks = document["workers"], document["labels"], document["tasks"]
    square = document["task_accuracy"]
    many = len(labels["classes"]) > MOST_CLASSES or len(workers) > MOST_WORKERS
    return {
        "telemetry": None,
        **document,
        "charts": drawn(report_charts(document)),
        "facts": _facts(document),
        "tiles": [item for item in document["explained"] if item["key"] in TILES],
        "shown_tasks": formats.evenly(len(tasks), MOST_TASKS),
        "has_unseen": any(value is not None for t, row in enumerate(square) for value in row[t + 1 :]),
        "classes": _classes(document),
        "has_worker_accuracy": any(row["accuracy"] is not None for row in workers),
        "has_staleness": any(row["staleness"] is not None for row in workers),
        "has_pseudo": any(row["pseudo_label_accept_ratio"] is not None for row in workers),
        "label_classes": labels["class_names"],
        "label_rows": [] if many else _label_rows(labels),
        "most_labels": max((n for row in labels["by_worker"].values() for n in row.values()), default=0),
        "fault_rows": _fault_rows(document["faults"]),
        "origin": _origin(document["setting"]),
        "job_text": _yaml(document["setting"]["job"]),
    }


def _facts(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    spec = document["setting"]["job"].get("spec", {})
    dataset = document["setting"]["dataset"]
    found = [
        ("algorithm", spec.get("algorithm", {}).get("name", "")),
        ("data", dataset["name"]),
        ("tasks", str(document["progress"]["tasks"])),
        ("workers", str(len(document["workers"]))),
        ("model", spec.get("model", {}).get("name", "")),
        ("aggregation", spec.get("aggregation", {}).get("name", "")),
        ("seed", str(spec.get("seed", ""))),
        ("started", moment(document["started"])),
    ]
    return [(fact, value) for fact, value in found if value]


def moment(iso: str) -> str:
    """Return an ISO 8601 time in UTC without its seconds: `2026-01-31 09:05 UTC`."""
    date, _, time = iso.partition("T")
    return f"{date} {time[:5]} UTC" if time else iso


def _classes(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one entry a class with its accuracy after each task; none where there are too many to read."""
    tasks, accuracy = document["tasks"], document["matrix"]["accuracy"]
    labels = [
        (row["task"], label, name)
        for row in tasks
        for label, name in zip(row["classes"], row["class_names"], strict=True)
    ]
    if not 1 < len(labels) <= MOST_CLASSES or all(len(row["classes"]) == 1 for row in tasks):
        return []
    return [
        {"label": label, "task": task, "name": name, "accuracy": [row.get(str(label)) for row in accuracy]}
        for task, label, name in labels
    ]


def _label_rows(labels: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": worker, "counts": list(row.values()), "total": sum(row.values())}
        for worker, row in labels["by_worker"].items()
    ]


def _fault_rows(faults: Mapping[str, Any]) -> list[tuple[str, int, str]]:
    def named(counts: Mapping[str, int]) -> str:
        return formats.listed([f"{name}: {count}" for name, count in counts.items() if count], 6)

    rows = [
        ("Connections opened again", faults["reconnects"], named(faults["reconnects_by_worker"])),
        ("Updates and connections refused", faults["rejected"], named(faults["rejected_by_reason"])),
        ("Updates that never came", faults["updates_absent"], "a worker was away when its round closed"),
        ("Rounds closed with the quorum only", faults["rounds_degraded"], "the deadline passed"),
        ("Times the aggregator resumed", faults["resumes"], "from its checkpoint"),
        ("Processes started again", faults["restarts"], "workers"),
    ]
    return [row for row in rows if row[1]]


def _origin(setting: Mapping[str, Any]) -> list[tuple[str, str]]:
    environment, dataset = setting["environment"], setting["dataset"]
    shape = " x ".join(map(str, dataset["shape"]))
    cores = formats.plural(environment["cores"], "core")
    images = (
        f"{formats.whole(dataset['train_samples'])} training, {formats.whole(dataset['test_samples'])} test"
    )
    versions = ", ".join(f"{key} {environment[key]}" for key in ("engram", "python", "torch", "numpy"))
    rows = [
        ("Job digest", setting["job_digest"]),
        ("Split digest", setting["split_digest"]),
        ("Data digest", dataset["sha256"]),
        ("Images", f"{images}, {shape} each"),
        ("Versions", versions),
        ("Machine", ", ".join([environment["platform"], environment["cpu"], cores])),
        ("Transport", environment["transport"] + (TOGETHER if environment["batched"] else "")),
        *((f"Image of {part}", digest) for part, digest in environment["images"].items()),
    ]
    return [(fact, value) for fact, value in rows if value]


def _yaml(job: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(job), sort_keys=False, allow_unicode=True, width=78)
