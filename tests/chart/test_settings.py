"""Every setting of the operator can be said in values, and its images can come from anywhere."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from engram_operator.settings import PREFIX, Settings
from tests.chart.objects import container_of, pod_of, settings_of
from tests.cluster.helm import Helm, Values

pytestmark = pytest.mark.control

REACHED: dict[str, tuple[Values, Any]] = {
    "image": ({"imageRegistry": "registry.example.org/ai/", "jobs": {"image": {"tag": "1-cuda"}}}, None),
    "image_pull_policy": ({"jobs": {"image": {"pullPolicy": "Always"}}}, "Always"),
    "namespaces": ({"watchNamespaces": ["a", "b"]}, ("a", "b")),
    "cluster_domain": ({"operator": {"clusterDomain": "lab.example.org"}}, "lab.example.org"),
    "checkpoint_size": ({"jobs": {"checkpoint": {"size": "1Gi"}}}, "1Gi"),
    "checkpoint_storage_class": ({"jobs": {"checkpoint": {"storageClassName": "fast"}}}, "fast"),
    "allow_service_accounts": ({"jobs": {"allowServiceAccounts": True}}, True),
    "network_policy": ({"jobs": {"networkPolicy": True}}, True),
    "own_namespace": ({}, "engram-system"),
    "prometheus_namespace": ({"prometheus": {"namespace": "monitoring"}}, "monitoring"),
    "concurrency": ({"operator": {"concurrency": 256}}, 256),
    "resync_seconds": ({"operator": {"resyncSeconds": 31536000}}, 31536000.0),
    "poll_seconds": ({"operator": {"pollSeconds": 0.5}}, 0.5),
    "status_seconds": ({"operator": {"statusSeconds": 0}}, 0.0),
    "objects_seconds": ({"operator": {"objectsSeconds": 0}}, 0.0),
    "request_seconds": ({"operator": {"requestSeconds": 60}}, 60.0),
    "connect_seconds": ({"operator": {"connectSeconds": 1.5}}, 1.5),
    "health_port": ({"operator": {"port": 65535}}, 65535),
    "log_level": ({"operator": {"logLevel": "debug"}}, "debug"),
    "kubeconfig": ({"operator": {"extraEnv": [{"name": f"{PREFIX}KUBECONFIG", "value": "/c/k"}]}}, "/c/k"),
    "context": ({"operator": {"extraArgs": ["--context=lab"]}}, "lab"),
}
"""For each setting, values that say it, and what the operator then reads."""


def test_every_setting_is_reached() -> None:
    assert set(REACHED) == {item.name for item in fields(Settings) if "option" in item.metadata}


@pytest.mark.parametrize("name", REACHED)
def test_values_reach_the_operator(helm: Helm, name: str) -> None:
    values, wanted = REACHED[name]
    wanted = "registry.example.org/ai/engram-runtime:1-cuda" if name == "image" else wanted
    found = settings_of(helm.template(values=values))
    assert getattr(found, name) == wanted
    if name not in ("own_namespace", "image"):
        assert getattr(Settings(), name) != wanted, "the test says nothing"


def test_both_images_come_from_the_mirror_by_digest(helm: Helm) -> None:
    digest = "sha256:" + "0" * 64
    images = {"image": {"digest": digest}, "jobs": {"image": {"digest": digest, "tag": "ignored"}}}
    pull = [{"name": "mirror"}]
    objects = helm.template(values={"imageRegistry": "mirror:5000", "imagePullSecrets": pull, **images})
    assert container_of(objects)["image"] == f"mirror:5000/engram-operator@{digest}"
    assert settings_of(objects).image == f"mirror:5000/engram-runtime@{digest}"
    assert pod_of(objects)["spec"]["imagePullSecrets"] == pull
