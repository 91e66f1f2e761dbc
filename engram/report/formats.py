"""How numbers are written for people: the same in HTML, Markdown and figures."""

from __future__ import annotations

MINUS = "\N{MINUS SIGN}"
NOT_MEASURED = "not measured"


def share(value: float | None, digits: int = 1) -> str:
    """Return a share 0..1 in percent, `93.1%`; signed values keep their sign."""
    return NOT_MEASURED if value is None else f"{number(100 * value, digits)}%"


def number(value: float | None, digits: int = 1) -> str:
    """Return a number with a real minus sign and never minus zero."""
    if value is None:
        return NOT_MEASURED
    text = f"{value:,.{digits}f}"
    if text.startswith("-"):
        text = text[1:] if not text.strip("-0.,") else MINUS + text[1:]
    return text


def whole(value: float) -> str:
    """Return a count with thousands separated: `18,154`."""
    return f"{value:,.0f}"


def size(value: float) -> str:
    """Return bytes with a decimal unit, `9.1 MB`, as network tools count."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(seconds: float | None) -> str:
    """Return seconds for people: `0.42 s`, `12.3 s`, `4 min 10 s`, `2 h 5 min`."""
    if seconds is None:
        return NOT_MEASURED
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def behind(mean: float | None, most: float | None) -> str:
    """Return how many rounds updates were behind the newest model: `1.4 (3)`, mean and most."""
    return NOT_MEASURED if mean is None or most is None else f"{number(mean)} ({whole(most)})"


def plural(count: float, noun: str, many: str = "") -> str:
    """Return `1 task` or `5 tasks`."""
    return f"{whole(count)} {noun if count == 1 else many or noun + 's'}"


def listed(names: list[str], most: int = 4) -> str:
    """Return names joined by commas, cut after `most` with how many are left."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def evenly(count: int, most: int) -> list[int]:
    """Return at most `most` of the indices 0..count-1, evenly spread, first and last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(index * (count - 1) / (most - 1)) for index in range(most)})
