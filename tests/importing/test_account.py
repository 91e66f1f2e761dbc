"""Properties of every import, over inputs that are changed at random: nothing is lost, nothing crashes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.errors import ConfigurationError
from engram.importing import ianvs, sedna
from engram.importing.command import check_job
from engram.importing.draft import Imported
from engram.importing.ledger import Document, leaves
from engram.spec.algorithms import ALGORITHMS
from tests.importing.samples import (
    SECRET_KEY,
    Given,
    benchmark,
    copy,
    from_ianvs,
    from_sedna,
    sedna_job,
    sedna_objects,
    text_of,
)

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9999)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
CREDENTIAL = st.sampled_from(
    [
        ("password", SECRET_KEY),
        ("secretKey", SECRET_KEY),
        ("env", [{"name": "SECRET_ACCESS_KEY", "value": SECRET_KEY}]),
        ("args", ["--secret-key", SECRET_KEY]),
        ("labels", {"apiKey": SECRET_KEY}),
    ]
)


def nodes(value: Any) -> list[Any]:
    """Every mapping and list of `value`."""
    found = [value] if isinstance(value, dict | list) else []
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return found + [node for item in below for node in nodes(item)]


@st.composite
def changes(draw: st.DrawFn, value: Any, extra: st.SearchStrategy[tuple[str, Any]]) -> Any:
    """A copy of `value` with a few parts replaced, removed or added; what `extra` adds goes into mappings."""
    changed = copy(value)
    for _ in range(draw(st.integers(1, 4))):
        node = draw(st.sampled_from(nodes(changed)))
        kind = draw(st.sampled_from(["replace", "remove", "add", "extra"]))
        if kind in ("replace", "remove") and node:
            key = draw(st.sampled_from(list(node) if isinstance(node, dict) else list(range(len(node)))))
            if kind == "replace":
                node[key] = draw(JUNK)
            else:
                del node[key]
        elif isinstance(node, dict):
            key, added = draw(extra) if kind == "extra" else (draw(st.text(max_size=6)), draw(JUNK))
            node[key] = copy(added)
        else:
            node.append(draw(JUNK))
    return changed


def check(imported: Imported, documents: dict[str, Any]) -> None:
    """Every leaf is in the account, the file holds no credential and is valid, or says which input is not."""
    spoken = {(entry.file, entry.path) for entry in imported.entries}
    for file, value in documents.items():
        lost = [
            path
            for path, _ in leaves(value)
            if not any((file, path[:length]) in spoken for length in range(len(path) + 1))
        ]
        assert not lost
    assert all(entry.target or entry.remark for entry in imported.entries)
    text = text_of(imported)
    assert SECRET_KEY not in text
    try:
        check_job(imported, text, "first")
    except ConfigurationError as error:
        refusal(error, {**documents, "first": None})


def refusal(error: ConfigurationError, documents: dict[str, Any]) -> None:
    """A refusal names a file of the input and says what is wrong, without showing credentials."""
    assert error.file in documents
    assert error.problem
    assert SECRET_KEY not in str(error)


@settings(deadline=None, max_examples=150)
@given(changes(benchmark(), CREDENTIAL))
def test_ianvs(files: dict[str, Any]) -> None:
    if "bench.yaml" not in files:
        return
    try:
        imported = ianvs.convert(Document("bench.yaml", files["bench.yaml"]), Given(files))
    except ConfigurationError as error:
        refusal(error, files)
        return
    read = {"bench.yaml", *(entry.target.removeprefix("read: ") for entry in imported.mapped)}
    check(imported, {file: value for file, value in files.items() if file in read})


@settings(deadline=None, max_examples=150)
@given(changes([sedna_job(), *sedna_objects()], CREDENTIAL), st.booleans())
def test_sedna(values: list[Any], dialect: bool) -> None:
    documents = {f"input: document {number}": value for number, value in enumerate(values, 1)}
    try:
        imported = sedna.convert(
            [Document(file, value) for file, value in documents.items()], dialect=dialect
        )
    except ConfigurationError as error:
        refusal(error, {**documents, "": None})
        return
    check(imported, documents)


@given(st.text(max_size=12).filter(str.strip), st.text(max_size=12))
def test_names_of_all_kinds_are_taken(name: str, module: str) -> None:
    files = benchmark()
    job = files["bench.yaml"]["benchmarkingjob"]
    job["name"] = job["test_object"]["algorithms"][0]["name"] = name
    files["./fedavg/algorithm.yaml"]["algorithm"]["modules"][0]["name"] = module
    imported = from_ianvs(files)
    check_job(imported, text_of(imported), "first")
    assert imported.job["spec"]["algorithm"]["name"] in ALGORITHMS


def test_characters_that_no_file_can_hold_are_written_as_escapes() -> None:
    job = sedna_job()
    job["metadata"]["labels"] = {"\ud800": "x", "a": "\x07\n# spec: {}"}
    job["spec"]["\x85\u2028odd\nkey"] = {"\ud800": "\ud800"}
    imported = from_sedna(job)
    text = text_of(imported)
    text.encode("utf-8")
    head = text.partition("\napiVersion")[0]
    assert all(line.startswith("#") for line in head.splitlines() if line)
    with pytest.raises(ConfigurationError):
        check_job(imported, text, "first")
