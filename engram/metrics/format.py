"""The file format of `engram metrics`: strict to read, exact to write, every error names file and field.

    {"classes":   [[0, 1], [2, 3]],                      label ids of each task in learning order
     "counts":    {"0": 100, "1": 100, "2": 80, "3": 0}, test samples of each class
     "accuracy":  [{"0": 0.6, "1": 0.8}, {"0": 0.5, "1": 0.7, "2": 0.9, "3": null}],
     "initial":   [0.1, 0.12],                           optional, b[j] by task
     "unseen":    {"1,2": 0.14},                         optional, R[1][2]; tasks count from 1
     "reference": [0.9, 0.85]}                           optional, a*_t of a joint reference run

`counts` may be a list with one entry a task instead. An entry is either a mapping for the evaluation after
that task, which names the task's classes and, if their number changed since, older ones; or one number, the
test samples of every class of the task. A class without test samples (count 0) may be absent from `accuracy`
or be null there; its value, if any, is ignored. Keys are label ids written as JSON strings.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engram.errors import ConfigurationError
from engram.metrics.matrix import AccuracyMatrix

REQUIRED = ("classes", "counts", "accuracy")
OPTIONAL = ("initial", "unseen", "reference")


def load_matrix(path: Path) -> AccuracyMatrix:
    """Read and check a matrix file."""
    file = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError("no such file", file=file, remedy="give the path of a matrix.json") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"is not UTF-8 text ({error.reason})", file=file) from error
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", file=file) from error
    try:
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_finite_only)
    except json.JSONDecodeError as error:
        problem = f"is not JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        raise ConfigurationError(problem, file=file) from error
    except RecursionError as error:
        raise ConfigurationError("is nested too deeply", file=file) from error
    except ConfigurationError as error:
        raise error.within(file) from None
    except ValueError as error:
        raise ConfigurationError(f"is not JSON that can be read: {error}", file=file) from error
    return parse_matrix(document, file)


def parse_matrix(document: Any, file: str = "") -> AccuracyMatrix:
    """Check a decoded matrix file and take it over."""
    try:
        return _parse(document)
    except ConfigurationError as error:
        raise error.within(file) from None


def dump_matrix(matrix: AccuracyMatrix) -> dict[str, Any]:
    """Return the JSON-able document of a matrix; counts are one mapping unless they changed between tasks."""
    document: dict[str, Any] = {"classes": [list(task) for task in matrix.classes]}
    final: Mapping[int, int] = matrix.counts[-1] if matrix.counts else {}
    if all(row[label] == final[label] for row in matrix.counts for label in row):
        document["counts"] = _strings(final)
    else:
        document["counts"] = [_strings(row) for row in matrix.counts]
    document["accuracy"] = [_strings(row) for row in matrix.accuracy]
    if matrix.initial is not None:
        document["initial"] = list(matrix.initial)
    if matrix.unseen:
        document["unseen"] = {f"{task},{later}": value for (task, later), value in matrix.unseen.items()}
    if matrix.reference is not None:
        document["reference"] = list(matrix.reference)
    return document


def _strings(row: Mapping[int, Any]) -> dict[str, Any]:
    return {str(label): value for label, value in row.items()}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ConfigurationError(f'key "{key}" is there twice', remedy="keep one")
        found[key] = value
    return found


def _finite_only(constant: str) -> float:
    raise ConfigurationError(
        f"{constant} is not JSON and no accuracy", remedy="write null for what was not measured"
    )


def _parse(document: Any) -> AccuracyMatrix:
    if not isinstance(document, Mapping):
        raise ConfigurationError(
            f"must be a mapping with {', '.join(REQUIRED)}, not {_kind(document)}",
        )
    for key in document:
        if key not in REQUIRED + OPTIONAL:
            close = difflib.get_close_matches(str(key), REQUIRED + OPTIONAL, 1)
            remedy = f"did you mean {close[0]}?" if close else f"known are {', '.join(REQUIRED + OPTIONAL)}"
            raise ConfigurationError("unknown field", field=str(key), remedy=remedy)
    for key in REQUIRED:
        if key not in document:
            raise ConfigurationError("is missing", field=key, remedy=f"a matrix has {', '.join(REQUIRED)}")
    classes = _classes(document["classes"])
    counts = _counts(document["counts"], classes)
    accuracy = _accuracy(document["accuracy"], classes, counts)
    initial = _by_task(document.get("initial"), "initial", len(classes))
    reference = _by_task(document.get("reference"), "reference", len(classes))
    unseen = _unseen(document.get("unseen"), len(classes))
    return AccuracyMatrix(classes, counts, accuracy, initial, unseen, reference)


def _classes(value: Any) -> tuple[tuple[int, ...], ...]:
    owner: dict[int, int] = {}
    tasks: list[tuple[int, ...]] = []
    for task, labels in enumerate(_list(value, "classes", "a list of lists of label ids"), start=1):
        field = f"classes[{task - 1}]"
        if not _list(labels, field, "a list of label ids"):
            raise ConfigurationError(f"task {task} has no class", field=field, remedy="name its label ids")
        for label in labels:
            if not isinstance(label, int) or isinstance(label, bool) or label < 0:
                raise ConfigurationError(
                    f"{_show(label)} is no label id", field=field, remedy="write whole numbers from 0"
                )
            if label in owner:
                where = f"tasks {owner[label]} and {task}" if owner[label] != task else f"task {task} twice"
                raise ConfigurationError(
                    f"class {label} is in {where}", field=field, remedy="a class belongs to one task"
                )
            owner[label] = task
        tasks.append(tuple(labels))
    return tuple(tasks)


def _counts(value: Any, classes: tuple[tuple[int, ...], ...]) -> tuple[dict[int, int], ...]:
    task_of = {label: task for task, labels in enumerate(classes, start=1) for label in labels}
    if isinstance(value, Mapping):
        counts = _count_row(value, "counts", task_of)
        _all_there(counts, tuple(task_of), "counts", "write 0 for a class without test samples")
        return tuple(
            {label: counts[label] for labels in classes[:task] for label in labels}
            for task in range(1, len(classes) + 1)
        )
    entries = _list(value, "counts", "a mapping from class to test samples, or a list with one entry a task")
    _length(entries, "counts", len(classes))
    rows: list[dict[int, int]] = []
    before: dict[int, int] = {}
    for task, entry in enumerate(entries, start=1):
        field = f"counts[{task - 1}]"
        if isinstance(entry, Mapping):
            found = _count_row(entry, field, {label: at for label, at in task_of.items() if at <= task})
        else:
            found = dict.fromkeys(classes[task - 1], _count(entry, field))
        merged = before | found
        _all_there(merged, classes[task - 1], field, "write 0 for a class without test samples")
        before = {label: merged[label] for labels in classes[:task] for label in labels}
        rows.append(before)
    return tuple(rows)


def _count_row(row: Mapping[Any, Any], field: str, known: Mapping[int, int]) -> dict[int, int]:
    return {_label(key, field, known): _count(value, f'{field}["{key}"]') for key, value in row.items()}


def _count(value: Any, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigurationError(
            f"{_show(value)} is no number of test samples", field=field, remedy="write a whole number from 0"
        )
    return value


def _accuracy(
    value: Any, classes: tuple[tuple[int, ...], ...], counts: tuple[Mapping[int, int], ...]
) -> tuple[dict[int, float | None], ...]:
    entries = _list(value, "accuracy", "a list with one mapping a task, from class to accuracy")
    _length(entries, "accuracy", len(classes))
    rows: list[dict[int, float | None]] = []
    for task, entry in enumerate(entries, start=1):
        field = f"accuracy[{task - 1}]"
        if not isinstance(entry, Mapping):
            raise ConfigurationError(
                f"must be a mapping from class to accuracy, not {_kind(entry)}", field=field
            )
        known = counts[task - 1]
        found: dict[int, float | None] = {}
        for key, share in entry.items():
            label, place = _label(key, field, known), f'{field}["{key}"]'
            if share is None and known[label]:
                raise ConfigurationError(
                    f"class {label} has {known[label]} test samples but no accuracy", field=place
                )
            found[label] = None if share is None else _share(share, place)
        tested = tuple(label for label, samples in known.items() if samples)
        _all_there(found, tested, field, f"after task {task} every class of tasks 1..{task} is evaluated")
        rows.append({label: found.get(label) if known[label] else None for label in known})
    return tuple(rows)


def _unseen(value: Any, tasks: int) -> dict[tuple[int, int], float]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f'must be a mapping such as {{"1,2": 0.14}}, not {_kind(value)}', field="unseen"
        )
    found: dict[tuple[int, int], float] = {}
    for key, share in value.items():
        place = f'unseen["{key}"]'
        first, comma, second = str(key).partition(",")
        pair = tuple(int(part) if _canonical(part.strip()) else 0 for part in (first, second))
        if not comma or not 1 <= pair[0] < pair[1] <= tasks:
            raise ConfigurationError(
                f"names no later task of the {tasks} tasks",
                field=place,
                remedy='write "t,j" for the accuracy after task t on task j, with 1 <= t < j',
            )
        found[pair[0], pair[1]] = _share(share, place)
    return found


def _by_task(value: Any, field: str, tasks: int) -> tuple[float | None, ...] | None:
    if value is None:
        return None
    entries = _list(value, field, "a list with one accuracy a task")
    _length(entries, field, tasks)
    return tuple(
        None if share is None else _share(share, f"{field}[{index}]") for index, share in enumerate(entries)
    )


def _share(value: Any, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ConfigurationError(f"{_show(value)} is no accuracy", field=field, remedy="write 0 to 1")
    # Compared before any conversion: an integer may be too large for a float.
    if not 0 <= value <= 1:
        remedy = f"percent? write {value / 100:g}" if 1 < value <= 100 else "write 0 to 1"
        raise ConfigurationError(f"accuracy {_show(value)} is outside [0, 1]", field=field, remedy=remedy)
    return float(value)


def _label(key: Any, field: str, known: Mapping[int, Any]) -> int:
    label = int(key) if isinstance(key, str) and _canonical(key) else key
    if not isinstance(label, int) or isinstance(label, bool) or label not in known:
        expected = ", ".join(map(str, list(known)[:20])) + (", ..." if len(known) > 20 else "")
        raise ConfigurationError(f"unknown class {_show(key)}", field=field, remedy=f"known here: {expected}")
    return label


def _canonical(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10 and (text == "0" or text[0] != "0")


def _all_there(found: Mapping[int, Any], labels: tuple[int, ...], field: str, remedy: str) -> None:
    missing = [label for label in labels if label not in found]
    if missing:
        names = ", ".join(map(str, missing[:20])) + (", ..." if len(missing) > 20 else "")
        noun = "class" if len(missing) == 1 else "classes"
        raise ConfigurationError(f"{noun} {names} missing", field=field, remedy=remedy)


def _list(value: Any, field: str, form: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise ConfigurationError(f"must be {form}, not {_kind(value)}", field=field)
    return value


def _length(entries: Sequence[Any], field: str, tasks: int) -> None:
    if len(entries) != tasks:
        raise ConfigurationError(
            f"has {len(entries)} entries for {tasks} tasks", field=field, remedy="write one a task"
        )


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _show(value: Any) -> str:
    if isinstance(value, str):
        return f"'{value[:40]}'"
    if isinstance(value, int) and abs(value) > 10**18:
        return "a huge number"
    return json.dumps(value, default=str)[:60]
