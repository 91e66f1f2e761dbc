"""The compact report survives a log, whatever stands around it, and nothing else comes out of one."""

from __future__ import annotations

import base64
import gzip
import json
import random
import string
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.spec.compact import (
    LINE,
    MOST_INFLATED,
    MOST_LINES,
    MOST_PACKED,
    MOST_TEXT,
    REPORT_BEGIN,
    REPORT_END,
    CompactReport,
    pack,
    unpack,
)

NAMES = st.from_regex(r"[a-z][-_a-zA-Z0-9]{0,8}\.(md|json|csv|html)", fullmatch=True)
REPORTS = st.builds(
    CompactReport,
    files=st.dictionaries(NAMES, st.text(max_size=2000), max_size=5),
    location=st.text(max_size=80),
    notes=st.lists(st.text(max_size=80), max_size=3).map(tuple),
)
REPORT = CompactReport(
    {"report.json": '{"a": 1}\n', "report.md": "# Größe\n"}, "lab-digits-0a1b2c3d", ("Full.",)
)


def noise(size: int) -> str:
    """Return text that gzip cannot make much smaller."""
    return "".join(random.Random(7).choices(string.ascii_letters + string.digits + "-_", k=size))


def block(inner: object) -> str:
    """Return a block around any JSON."""
    return framed(zipped(json.dumps(inner).encode()))


def zipped(data: bytes) -> bytes:
    """Return `data` packed, the same bytes at any time: they are in the names of tests."""
    return gzip.compress(data, mtime=0)


def framed(packed: bytes) -> str:
    return f"{REPORT_BEGIN}\n{base64.b64encode(packed).decode()}\n{REPORT_END}\n"


def inner(**changes: object) -> dict[str, object]:
    return {
        "schema": "engram.report.compact/v1",
        "location": "",
        "notes": [],
        "files": {"report.md": "x"},
        **changes,
    }


@given(REPORTS, st.text(), st.text())
def test_a_report_survives_any_log(report: CompactReport, before: str, after: str) -> None:
    assert unpack(f"{before}\n{pack(report)}{after}") == report


def test_the_same_report_gives_the_same_text_and_digest() -> None:
    turned = CompactReport(dict(reversed(list(REPORT.files.items()))))
    assert pack(REPORT) == pack(REPORT)
    assert turned.digest == REPORT.digest
    assert CompactReport({"report.md": "# Größe"}).digest != REPORT.digest
    assert CompactReport({}).digest == (
        "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    )


def test_the_largest_report_fits_the_tail_of_a_log() -> None:
    files = {"report.json": noise(520_000), "report.html": "x" * 300_000}
    log = pack(CompactReport(files))
    lines = log.splitlines()
    assert len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= LINE
    assert len(log) - len(REPORT_BEGIN) - len(REPORT_END) - 3 <= MOST_PACKED
    assert unpack("\n".join(["before"] * 1000 + lines[-MOST_LINES:])) == CompactReport(files)


@pytest.mark.parametrize(
    "large",
    [noise(800_000), "x" * (MOST_TEXT + 1), "ü" * (MOST_TEXT // 2), "\x01" * 400_000],
    ids=["packed", "text", "bytes", "escapes"],
)
@pytest.mark.parametrize(("location", "where"), [("here", "the full report has"), ("", "spec.report.volume")])
def test_what_does_not_fit_is_left_out_and_named(large: str, location: str, where: str) -> None:
    small = {"report.json": "{}", "report.md": "# x"}
    found = unpack(pack(CompactReport({**small, "report.html": large}, location, ("First.",))))
    assert found is not None
    assert found.files == small
    first, note = found.notes
    assert first == "First."
    assert "left out: report.html;" in note
    assert where in note


def test_a_large_first_file_does_not_take_the_others_with_it() -> None:
    found = unpack(pack(CompactReport({"report.json": noise(MOST_TEXT), "report.md": "# x"})))
    assert found is not None
    assert found.files == {"report.md": "# x"}


def test_the_last_whole_block_counts() -> None:
    first, second = CompactReport({"report.md": "1"}), CompactReport({"report.md": "2"})
    cut = pack(REPORT).replace(REPORT_END, "")
    assert unpack(pack(first) + pack(second)) == second
    assert unpack(pack(first) + cut) == first
    assert unpack(cut + pack(second)) == second
    assert unpack(pack(first) + REPORT_END) == first


def test_a_line_of_another_stream_in_the_middle_does_no_harm() -> None:
    lines = pack(CompactReport({"report.json": noise(20_000)})).splitlines()
    lines.insert(3, "engram: warning: a word from stderr")
    assert unpack("\r\n".join(lines)) == CompactReport({"report.json": noise(20_000)})


@pytest.mark.parametrize("text", ["", "round 1/5", REPORT_BEGIN, REPORT_END, f"{REPORT_END}\n{REPORT_BEGIN}"])
def test_no_block_is_none(text: str) -> None:
    assert unpack(text) is None


@given(st.data())
def test_a_damaged_block_is_refused_or_whole_after_all(data: st.DataObject) -> None:
    begin, body, end, _ = pack(REPORT).split("\n")
    at = data.draw(st.integers(0, len(body) - 1))
    how = data.draw(st.sampled_from(["cut", "changed", "longer"]))
    other = "A" if body[at] != "A" else "B"
    damaged = {"cut": body[:at], "changed": body[:at] + other + body[at + 1 :], "longer": body + "AAAA"}[how]
    with suppress(ValueError):  # some bits of gzip's header mean nothing
        assert unpack("\n".join((begin, damaged, end))) == REPORT


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (framed(b"no gzip"), "damaged"),
        (framed(b""), "cut off"),
        (framed(zipped(b"\xff\xfe")), "no JSON"),
        (framed(zipped(b"[" * 1_000_000)), "no JSON"),
        (framed(random.Random(7).randbytes(MOST_PACKED)), "packed"),
        (block([]), "another version"),
        (block(inner(schema="engram.report.compact/v9")), "another version"),
        (block(inner(files=["report.md"])), "files is no map"),
        (block(inner(files={"report.md": 1})), "files is no map"),
        (block(inner(files={"../up": "x"})), "'../up' is no name"),
        (block(inner(files={"..": "x"})), "'..' is no name"),
        (block(inner(files={"": "x"})), "'' is no name"),
        (block(inner(files={"a\n": "x"})), "is no name"),
        (block(inner(files={"a": "x" * (MOST_TEXT + 1)})), "900,000 at most"),
        (block(inner(files={"a": "\ud800"})), "UTF-8"),
        (block(inner(location=None)), "location is no text"),
        (block(inner(location="x" * 1001)), "location has 1001 letters"),
        (block(inner(notes="x")), "notes is no list"),
        (block(inner(notes=[1])), "notes is no list"),
        (block(inner(notes=["x"] * 21)), "21 notes"),
    ],
)
def test_what_pack_never_made_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        unpack(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_bomb_is_not_unpacked_further_than_the_limit() -> None:
    import tracemalloc

    bomb = framed(zipped(bytes(200_000_000)))
    tracemalloc.start()
    with pytest.raises(ValueError, match="unpacks to more") as caught:
        unpack(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * MOST_INFLATED
    assert len(str(caught.value)) < 300


def test_keys_of_a_later_version_are_ignored() -> None:
    assert unpack(block(inner(energy=1))) == CompactReport({"report.md": "x"})
