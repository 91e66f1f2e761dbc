"""Our loader against kubectl and the API server: the same text is the same job in both.

kubectl turns YAML 1.1 into JSON before it sends anything, and the API server sees only that.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from engram.errors import ConfigurationError
from engram.spec import load_yaml, parse_job
from engram.spec.names import API_VERSION, KIND
from tests.cluster.kubectl import Kubectl, KubectlError
from tests.spec.test_yaml_text import KUBECTL

pytestmark = pytest.mark.control

HEAD = f"apiVersion: {API_VERSION}\nkind: {KIND}\nmetadata: {{name: digits}}\n"


def sent(kubectl: Kubectl, text: str) -> dict[str, Any]:
    """Return the object that the server would store."""
    printed = kubectl.apply(text, flags=("--dry-run=server", "--output=json"))
    found: dict[str, Any] = json.loads(printed)
    return found


def test_every_spelling_of_a_scalar_means_the_same(crd: str, kubectl: Kubectl) -> None:
    lines = [f"      k{index}: {text}" for index, (text, _) in enumerate(KUBECTL)]
    text = f"{HEAD}spec:\n  algorithm:\n    parameters:\n" + "\n".join(lines) + "\n"
    theirs = sent(kubectl, text)["spec"]["algorithm"]["parameters"]
    ours = load_yaml(text)["spec"]["algorithm"]["parameters"]
    # `kubectl apply` never sends a key whose value is null.
    assert {key: value for key, value in ours.items() if value is not None} == theirs
    for index, (spelling, meaning) in enumerate(KUBECTL):
        found = theirs.get(f"k{index}")
        assert (found, type(found)) == (meaning, type(meaning)), spelling


def test_every_spelling_of_a_key_means_the_same(crd: str, kubectl: Kubectl) -> None:
    keys = ("on", "no", "1e3", "012", "0x1f", "2_000", "1.50", "'on'", "yEs")
    lines = [f"      {key}: {{was: '{index}'}}" for index, key in enumerate(keys)]
    text = f"{HEAD}spec:\n  algorithm:\n    parameters:\n" + "\n".join(lines) + "\n"
    theirs = sent(kubectl, text)["spec"]["algorithm"]["parameters"]
    assert load_yaml(text)["spec"]["algorithm"]["parameters"] == theirs


@pytest.mark.parametrize(
    ("spec", "path", "value"),
    [
        ("suspend: on", ("suspend",), True),
        ("suspend: No", ("suspend",), False),
        ("seed: 012", ("seed",), 10),
        ("seed: 1_000", ("seed",), 1000),
        ("seed: 1e3", ("seed",), 1000),
        ("seed: 5.0", ("seed",), 5),
        ("training: {optimizer: {learningRate: 1e-3}}", ("training", "optimizer", "learningRate"), 0.001),
        ("dataset: {path: 'on'}", ("dataset", "path"), "on"),
        ("dataset: {path: '012'}", ("dataset", "path"), "012"),
        ("aggregation: {quorum: 80%}", ("aggregation", "quorum"), "80%"),
        ("seed: ~", ("seed",), 0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_typed_fields_take_the_same_values(
    crd: str, kubectl: Kubectl, spec: str, path: tuple[str, ...], value: Any
) -> None:
    text = f"{HEAD}spec: {{{spec}}}\n"
    theirs: Any = sent(kubectl, text)["spec"]
    ours: Any = parse_job(load_yaml(text)).spec.dump()
    for step in path:
        theirs, ours = theirs[step], ours[step]
    assert theirs == ours == value


@pytest.mark.parametrize(
    ("spec", "refusal"),
    [
        ("seed: '5'", 'must be of type integer: "string"'),
        ("dataset: {path: on}", 'must be of type string: "boolean"'),
        ("dataset: {path: 012}", 'must be of type string: "integer"'),
        ("training: {optimizer: {name: no}}", 'must be of type string: "boolean"'),
        ("seed: 0o8", 'must be of type integer: "string"'),
    ],
)
def test_both_refuse_the_same(crd: str, kubectl: Kubectl, spec: str, refusal: str) -> None:
    text = f"{HEAD}spec: {{{spec}}}\n"
    with pytest.raises(KubectlError, match=refusal):
        sent(kubectl, text)
    with pytest.raises(ConfigurationError):
        parse_job(load_yaml(text))
