"""Texts of a job in the environment of its pods, read by the kubelet's rules."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engram.spec.names import Environment
from engram_operator.manifests.environment import literal
from tests.control.building import build, make_job

VARIABLES = {"X": "expanded", "": "nothing", "WORKER_NAME": "trainworker-edge-0"}


def expanded(text: str) -> str:
    """What the kubelet makes of the value of a variable, from left to right.

    `$$` is a `$`; `$(NAME)` is the value of NAME, or itself where there is none; a `$` before anything else,
    or before a bracket that is not closed, is itself.
    """
    if "$" not in text:
        return text
    before, _, rest = text.partition("$")
    if rest.startswith("$"):
        return f"{before}${expanded(rest[1:])}"
    if rest.startswith("(") and ")" in rest:
        name, _, rest = rest[1:].partition(")")
        return before + VARIABLES.get(name, f"$({name})") + expanded(rest)
    return f"{before}${rest[:1]}{expanded(rest[1:])}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$(X)", "expanded"),
        ("$$(X)", "$(X)"),
        ("$$$(X)", "$expanded"),
        ("a$$b", "a$b"),
        ("a$b$", "a$b$"),
        ("$(Y)$(X", "$(Y)$(X"),
        ("$a$(X)", "$aexpanded"),
    ],
)
def test_the_rules_are_the_kubelets(text: str, value: str) -> None:
    assert expanded(text) == value


@given(st.text(st.sampled_from("$()X a"), max_size=12))
@example("$$(X)")
@example("a$$b")
def test_a_literal_text_reaches_the_pod_as_it_is(text: str) -> None:
    assert expanded(literal(text)) == text


def test_a_path_of_a_job_reaches_its_pods_as_it_is() -> None:
    path = "$$(WORKER_NAME)/$X"
    children = build(make_job(f"dataset: {{path: '{path}'}}\nworkers: [{{name: edge}}]"))
    for job in children.jobs:
        (main,) = job["spec"]["template"]["spec"]["containers"]
        values = {item["name"]: item.get("value", "") for item in main["env"]}
        assert expanded(values[Environment.TRAIN_DATASET_URL]) == path
