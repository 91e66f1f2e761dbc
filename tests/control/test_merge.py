"""podTemplate: the merge as a table."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from engram.errors import ConfigurationError
from engram_operator.manifests.merge import merge
from engram_operator.model import Object

BASE: Object = {
    "metadata": {"labels": {"a": "1"}},
    "spec": {
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        "tolerations": [{"key": "edge"}],
        "imagePullSecrets": [{"name": "ours"}],
        "containers": [
            {
                "name": "main",
                "args": ["x"],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                "ports": [{"containerPort": 1, "name": "one"}],
            }
        ],
    },
}


DIRECTIVE = "is a patch directive: write the values you want, or null to remove one"


def in_pod(spec: Object) -> Object:
    return {"spec": spec}


def in_main(patch: Object) -> Object:
    return {"spec": {"containers": [{"name": "main", **patch}]}}


@pytest.mark.parametrize(
    ("patch", "path", "expected"),
    [
        ({}, (), BASE),
        ({"metadata": {"labels": {"b": "2"}}}, ("metadata", "labels"), {"a": "1", "b": "2"}),
        ({"metadata": {"labels": {"a": None}}}, ("metadata", "labels"), {}),
        ({"metadata": {"labels": {"env": "x"}}}, ("metadata", "labels"), {"a": "1", "env": "x"}),
        (
            {"spec": {"tolerations": [{"key": "gpu"}]}},
            ("spec", "tolerations"),
            [{"key": "edge"}, {"key": "gpu"}],
        ),
        ({"spec": {"tolerations": [{"key": "edge"}]}}, ("spec", "tolerations"), [{"key": "edge"}]),
        (
            {"spec": {"tolerations": None}},
            ("spec",),
            {key: value for key, value in BASE["spec"].items() if key != "tolerations"},
        ),
        ({"spec": {"imagePullSecrets": [{"name": "x"}]}}, ("spec", "imagePullSecrets"), [{"name": "x"}]),
        ({"spec": {"affinity": {"a": {"b": None, "c": 1}}}}, ("spec", "affinity"), {"a": {"c": 1}}),
        ({"spec": {"hostAliases": [{"ip": "1", "x": None}]}}, ("spec", "hostAliases"), [{"ip": "1"}]),
        (
            in_pod(
                {"volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory"}}, {"name": "d", "csi": {}}]}
            ),
            ("spec", "volumes"),
            [{"name": "tmp", "emptyDir": {"medium": "Memory"}}, {"name": "d", "csi": {}}],
        ),
        (
            {"spec": {"volumes": [{"name": "tmp", "emptyDir": None, "nfs": {"path": "/"}}]}},
            ("spec", "volumes"),
            [{"name": "tmp", "nfs": {"path": "/"}}],
        ),
        (in_main({"args": ["y", "z"]}), ("spec", "containers", 0, "args"), ["y", "z"]),
        (
            in_main({"env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]}),
            ("spec", "containers", 0, "env"),
            [{"name": "A", "value": "1"}, {"name": "B", "value": "3"}, {"name": "C", "value": "4"}],
        ),
        (
            in_main({"volumeMounts": [{"mountPath": "/tmp", "name": "n"}, {"mountPath": "/x", "name": "x"}]}),
            ("spec", "containers", 0, "volumeMounts"),
            [{"name": "n", "mountPath": "/tmp"}, {"mountPath": "/x", "name": "x"}],
        ),
        (
            in_main({"ports": [{"containerPort": 1, "hostPort": 9}, {"containerPort": 2}]}),
            ("spec", "containers", 0, "ports"),
            [{"containerPort": 1, "name": "one", "hostPort": 9}, {"containerPort": 2}],
        ),
        (
            {"spec": {"initContainers": [{"name": "i", "env": [{"name": "E", "value": None}]}]}},
            ("spec", "initContainers"),
            [{"name": "i", "env": [{"name": "E"}]}],
        ),
    ],
)
def test_merge(patch: Object, path: tuple[str | int, ...], expected: object) -> None:
    before = deepcopy((BASE, patch))
    found: Any = merge(BASE, patch, "podTemplate")
    for step in path:
        found = found[step]
    assert found == expected
    assert before == (BASE, patch)


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (
            {"spec": {"$patch": "replace"}},
            f"t.spec.$patch: {DIRECTIVE}",
        ),
        (
            {"spec": {"containers": [{"name": "main", "$patch": "delete"}]}},
            f"t.spec.containers[0].$patch: {DIRECTIVE}",
        ),
        (
            {"spec": {"hostAliases": [{"$patch": "delete"}]}},
            f"t.spec.hostAliases[0].$patch: {DIRECTIVE}",
        ),
        (
            {"spec": {"containers": [{"image": "x"}]}},
            "t.spec.containers[0]: has no name: write name: which item of containers it is",
        ),
        (
            in_main({"volumeMounts": [{"name": "x"}]}),
            "t.spec.containers[0].volumeMounts[0]: has no mountPath: write mountPath: which item of "
            "volumeMounts it is",
        ),
        (
            {"spec": {"containers": {"name": "main"}}},
            "t.spec.containers: is a mapping, not a list: write it as in a Kubernetes pod",
        ),
        (
            {"metadata": {"labels": "a"}},
            "t.metadata.labels: is 'a', not a mapping: write it as in a Kubernetes pod",
        ),
        (
            in_main({"args": "y"}),
            "t.spec.containers[0].args: is 'y', not a list: write it as in a Kubernetes pod",
        ),
    ],
)
def test_what_cannot_be_merged(patch: Object, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        merge(BASE, patch, "t")
    assert str(caught.value) == message
