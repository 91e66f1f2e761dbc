"""What is printed: a file whose head says what became of the input."""

from __future__ import annotations

from engram.importing.draft import Assumption, Imported
from engram.importing.ledger import Entry
from engram.importing.render import LONGEST, account, job_text
from engram.spec import load_yaml

JOB = {"apiVersion": "x", "spec": {"seed": 3, "workers": [{"name": "edge"}]}}


def imported(*entries: Entry) -> Imported:
    return Imported(JOB, entries, (Assumption("spec.seed: 3", "because"),), ())


def lines(*entries: Entry) -> list[str]:
    return account(imported(*entries), "a test", ["engram run job.yaml"])


def test_the_account() -> None:
    found = lines(
        Entry("f", ("a", "b"), "spec.seed", ""),
        Entry("f", ("c", 0), "read: g", "moved"),
        Entry("g", (), "", "is empty"),
    )
    assert found == [
        "Imported from a test. Not the same experiment in every detail: see what differs.",
        "",
        "Run it:",
        "  engram run job.yaml",
        "",
        "Mapped:",
        "  f",
        "    a.b -> spec.seed: 3",
        "    c[0] -> read: g; moved",
        "",
        "Without a counterpart:",
        "  g",
        "    the whole document: is empty",
        "",
        "Not said by the input:",
        "  spec.seed: 3: because",
    ]


def test_items_that_fare_alike_share_a_line() -> None:
    entries = [Entry("f", ("w", index, "image"), f"spec.workers[{index}].image", "") for index in range(3)]
    assert "    w[*].image (3 times) -> spec.workers[*].image" in lines(*entries)
    assert "    w[1].image -> spec.workers[1].image" in lines(entries[1])


def test_nothing_is_said_too() -> None:
    assert lines().count("  nothing") == 2


def test_lines_cannot_leave_the_comment() -> None:
    found = lines(Entry("f\nspec: {}", ("a\x07\x85\u2028", "x" * 999), "", "why\rspec: {}"))
    text = job_text(imported(), found)
    assert load_yaml(text) == JOB
    assert max(map(len, found)) <= LONGEST
    assert all(line.isprintable() for line in found)


def test_the_head_is_a_comment_and_the_rest_the_job() -> None:
    head, _, job = job_text(imported(), lines()).partition("\n\n")
    assert all(line.startswith("#") for line in head.splitlines())
    assert load_yaml(job) == JOB


def test_a_command_is_never_cut_off() -> None:
    command = f"engram run job.yaml --vary seed={','.join(map(str, range(200)))}"
    assert f"  {command}" in account(imported(), "a test", [command])
