from __future__ import annotations

import pytest

from engram.errors import ConfigurationError
from engram.report.rank import COLUMNS, parse_rank, ranked


def test_metric_and_direction_pairs() -> None:
    assert parse_rank("accuracy:descend,forget_rate:ascend") == (
        ("accuracy", "descend"),
        ("forget_rate", "ascend"),
    )
    assert parse_rank(" final_accuracy , megabytes-up ") == (
        ("accuracy", "descend"),
        ("megabytes_up", "ascend"),
    )
    assert all(parse_rank(column.key) == ((column.key, column.better),) for column in COLUMNS)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("acuracy", "unknown metric 'acuracy': did you mean accuracy"),
        ("forget:ascend", "did you mean forget"),
        ("qqqqq", "known are accuracy"),
        ("", "unknown metric ''"),
        ("accuracy,", "unknown metric ''"),
        ("accuracy:up", "unknown direction 'up' of accuracy: write accuracy:ascend"),
        ("accuracy:", "unknown direction ''"),
        ("accuracy,accuracy:ascend", "'accuracy' is there twice"),
        ("accuracy,final_accuracy", "'final_accuracy' is there twice"),
    ],
)
def test_errors_say_what_to_write(text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_rank(text)
    assert str(caught.value).startswith("--rank: ")
    assert problem in str(caught.value)


def test_unmeasured_comes_last_in_both_directions_and_ties_go_by_name() -> None:
    values = {"a": None, "b": 0.5, "c": 0.9, "d": 0.5}

    def order(direction: str) -> list[str]:
        return ranked(["d", "c", "b", "a"], [("accuracy", direction)], lambda row, _: values[row], str)

    assert order("descend") == ["c", "b", "d", "a"]
    assert order("ascend") == ["b", "d", "c", "a"]


def test_the_second_metric_decides_ties_of_the_first() -> None:
    table = {"a": (0.9, 0.4), "b": (0.9, 0.1), "c": (0.95, 0.9)}

    def value(row: str, key: str) -> float:
        return table[row][0 if key == "accuracy" else 1]

    assert ranked("abc", parse_rank("accuracy,forget_rate"), value, str) == ["c", "b", "a"]
