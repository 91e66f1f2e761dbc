"""The account: everything of the input is in it once, in the input's order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.errors import ConfigurationError
from engram.importing.ledger import EMPTY, UNKNOWN, Document, Entry, Ledger, Reading, leaves, path_text

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


def opened(value: Any) -> Reading:
    return Ledger().open(Document("f", value))


def covered(path: tuple[str | int, ...], entries: tuple[Entry, ...]) -> bool:
    return any(entry.path == path[: len(entry.path)] for entry in entries)


@given(PLAIN, st.data())
def test_every_leaf_is_accounted_for_whatever_was_read(value: Any, data: st.DataObject) -> None:
    root = opened(value)
    paths = [path for path, _ in leaves(value)]
    for path in data.draw(st.lists(st.sampled_from(paths), max_size=4)):
        reading = root
        for step in path[: data.draw(st.integers(0, len(path)))]:
            reading = reading[step]
        data.draw(st.sampled_from([lambda r: r.left("why"), lambda r: r.becomes("spec.seed")]))(reading)
    entries = root.ledger.entries()
    assert all(covered(path, entries) for path in paths)
    assert len(set(entries)) == len(entries)


def test_entries_come_in_the_order_of_the_input() -> None:
    root = opened({"a": {"b": 1, "c": [2, 3]}, "d": None, "e": {"f": 4}})
    root["e"]["f"].becomes("spec.seed")
    root["a"]["c"][1].left("not wanted")
    assert [(path_text(entry.path), entry.target, entry.remark) for entry in root.ledger.entries()] == [
        ("a.b", "", UNKNOWN),
        ("a.c[0]", "", UNKNOWN),
        ("a.c[1]", "", "not wanted"),
        ("d", "", EMPTY),
        ("e.f", "spec.seed", ""),
    ]


def test_what_nobody_spoke_of_is_one_line_where_it_hangs_together() -> None:
    root = opened({"known": 1, "strange": {"a": {"b": 1}, "c": [1, 2]}})
    root["known"].becomes("spec.seed")
    assert [path_text(entry.path) for entry in root.ledger.entries()] == ["known", "strange"]


def test_a_part_of_what_was_spoken_of_as_a_whole_may_be_spoken_of_too() -> None:
    root = opened([{"name": "batch_size", "value": "16"}])
    root[0].becomes("podTemplate")
    root[0]["value"].becomes("spec.training.batchSize")
    found = [(path_text(entry.path), entry.target) for entry in root.ledger.entries()]
    assert found == [("[0]", "podTemplate"), ("[0].value", "spec.training.batchSize")]


def test_what_is_missing_enters_nothing_and_has_no_kind() -> None:
    root = opened({"a": 1})
    missing = root["b"][3]["c"]
    missing.becomes("spec.seed")
    assert not missing.present
    assert (missing.text(), missing.items(), missing.mapping(), missing.number()) == ("", [], {}, None)
    assert [entry.remark for entry in root.ledger.entries()] == [UNKNOWN]


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3), (0.5, 0.5), ("3", 3), (" 1e-3 ", 0.001), ("012", 10), (True, None), ("", None), (".nan", None)],
)
def test_numbers_may_stand_in_quotes(value: Any, number: float | None) -> None:
    assert opened(value).number() == number


@pytest.mark.parametrize(
    ("value", "read", "message"),
    [
        ([1], lambda reading: reading.mapping(), "f: a.list: is a list, not a mapping: write keys and"),
        ({"x": 1}, lambda reading: reading.items(), "f: a.list: is a mapping, not a list: write a hyphen"),
        (8, lambda reading: reading.text(), "f: a.list: is 8, not text: write it in quotes"),
    ],
)
def test_the_wrong_kind_is_refused_with_its_place(value: Any, read: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(opened({"a": {"list": value}})["a"]["list"])
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("a", 0, "b"), "a[0].b"),
        (("a.b", "c"), "'a.b'.c"),
        (("", "x\n"), "''.'x\\n'"),
        ((1,), "[1]"),
        ((), ""),
    ],
)
def test_paths_are_readable(path: tuple[str | int, ...], text: str) -> None:
    assert path_text(path) == text
