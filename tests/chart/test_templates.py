"""What the chart makes of its values: each toggle, labels, security, and every setting of the operator."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engram import __version__
from engram.spec.crd import build_crd
from engram.spec.names import STATUS_PORT, STATUS_PORT_NAME, Label, Role
from engram_operator.manifests.labels import MANAGER
from engram_operator.preflight import RIGHTS, RIGHTS_POLICY
from engram_operator.settings import Settings
from tests.chart.objects import container_of, names, one, pod_of, settings_of
from tests.cluster.helm import OFFLINE, Helm, HelmError, Values
from tests.control.restricted import violations

pytestmark = pytest.mark.control

BY_DEFAULT = {
    "ServiceAccount": ["engram-operator"],
    "CustomResourceDefinition": ["federatedincrementaljobs.engram.dev"],
    "ClusterRole": ["engram-view", "engram-edit", "engram-admin", "engram-operator"],
    "ClusterRoleBinding": ["engram-operator"],
    "Deployment": ["engram-operator"],
}
EVERYTHING: Values = {
    "networkPolicy": {"enabled": True},
    "jobs": {"networkPolicy": True, "hostPaths": {"restrict": True, "allowed": ["/data"]}},
    "prometheus": {"monitor": {"enabled": True, "kind": "ServiceMonitor"}, "rules": {"enabled": True}},
    "grafana": {"dashboards": {"enabled": True}},
}


def test_helm_finds_nothing_to_complain_of(helm: Helm) -> None:
    for values in ({}, EVERYTHING):
        said = helm.run("lint", str(helm.chart), "--strict", OFFLINE, values=values)
        assert "[WARNING]" not in said


def test_by_default_there_is_an_operator_for_the_whole_cluster(helm: Helm) -> None:
    objects = helm.template()
    assert names(objects) == BY_DEFAULT
    deployment = one(objects, "Deployment")["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    assert container_of(objects)["image"] == f"engram-operator:{__version__}"
    assert settings_of(objects) == replace(Settings(), own_namespace="engram-system")


TOGGLES: list[tuple[Values, dict[str, list[str]], dict[str, list[str]]]] = [
    ({"crds": {"enabled": False}}, {}, {"CustomResourceDefinition": BY_DEFAULT["CustomResourceDefinition"]}),
    (
        {"rbac": {"create": False}},
        {},
        {"ClusterRole": ["engram-operator"], "ClusterRoleBinding": ["engram-operator"]},
    ),
    ({"userRoles": {"create": False}}, {}, {"ClusterRole": ["engram-view", "engram-edit", "engram-admin"]}),
    ({"serviceAccount": {"create": False, "name": "robot"}}, {}, {"ServiceAccount": ["engram-operator"]}),
    ({"networkPolicy": {"enabled": True}}, {"NetworkPolicy": ["engram-operator"]}, {}),
    ({"prometheus": {"monitor": {"enabled": True}}}, {"PodMonitor": ["engram-operator", "engram-jobs"]}, {}),
    (
        {"prometheus": {"monitor": {"enabled": True, "kind": "ServiceMonitor"}}},
        {"Service": ["engram-operator"], "ServiceMonitor": ["engram-operator", "engram-jobs"]},
        {},
    ),
    ({"prometheus": {"rules": {"enabled": True}}}, {"PrometheusRule": ["engram"]}, {}),
    (
        {"grafana": {"dashboards": {"enabled": True}}},
        {"ConfigMap": ["engram-dashboard-fleet", "engram-dashboard-job"]},
        {},
    ),
    (
        {"jobs": {"hostPaths": {"restrict": True}}},
        {
            "ValidatingAdmissionPolicy": ["engram-host-paths"],
            "ValidatingAdmissionPolicyBinding": ["engram-host-paths"],
        },
        {},
    ),
]
"""Values, what there is then in addition, and what there is not."""


@pytest.mark.parametrize(("values", "more", "less"), TOGGLES, ids=lambda part: "-".join(part))
def test_a_toggle_adds_or_takes_away_what_it_is_named_for(
    helm: Helm, values: Values, more: dict[str, list[str]], less: dict[str, list[str]]
) -> None:
    kept = {
        kind: [name for name in had if name not in less.get(kind, ())] for kind, had in BY_DEFAULT.items()
    }
    assert names(helm.template(values=values)) == {kind: had for kind, had in kept.items() if had} | more


def test_named_namespaces_make_a_role_in_each_and_none_in_the_cluster(helm: Helm) -> None:
    teams = ["team-a", "team-b"]
    others = {"userRoles": {"create": False}, "crds": {"enabled": False}}
    objects = helm.template(values={"watchNamespaces": teams, **others})
    places = [
        (item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"])
        for item in objects
        if item["kind"] not in ("Deployment", "ServiceAccount")
    ]
    assert places == [(kind, team, "engram-operator") for kind in ("Role", "RoleBinding") for team in teams]
    assert settings_of(objects).namespaces == ("team-a", "team-b")


@pytest.mark.parametrize("watched", [[], ["lab"]])
def test_policies_for_jobs_come_with_the_right_to_make_them(helm: Helm, watched: list[str]) -> None:
    values = {"watchNamespaces": watched, "userRoles": {"create": False}, "jobs": {"networkPolicy": True}}
    (role,) = (item for item in helm.template(values=values) if item["kind"] in ("Role", "ClusterRole"))
    granted = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    asked = {
        (right.group, right.resource, verb) for right in (*RIGHTS, *RIGHTS_POLICY) for verb in right.verbs
    }
    assert granted - asked <= {("", "nodes", "get"), ("", "nodes", "list")}
    assert asked <= granted


def test_the_crd_is_that_of_the_types_and_stays_when_the_release_goes(helm: Helm) -> None:
    crd = one(helm.template(), "CustomResourceDefinition")
    assert crd["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert crd == build_crd()


@pytest.mark.parametrize("kind", ["PodMonitor", "ServiceMonitor"])
def test_what_is_scraped_is_there(helm: Helm, kind: str) -> None:
    """Selectors and port names are those of our pods and Services, and their labels are not pushed aside."""
    monitor = {"enabled": True, "kind": kind, "labels": {"a": "b"}}
    objects = helm.template(values={"prometheus": {"monitor": monitor}})
    own, jobs = (item for item in objects if item["kind"] == kind)
    target = pod_of(objects) if kind == "PodMonitor" else one(objects, "Service")
    assert own["spec"]["selector"]["matchLabels"].items() <= target["metadata"]["labels"].items()
    assert jobs["spec"]["selector"]["matchLabels"] == {str(Label.ROLE): str(Role.AGGREGATOR)}
    assert jobs["spec"]["namespaceSelector"] == {"any": True}
    for item in (own, jobs):
        (endpoint,) = item["spec"]["podMetricsEndpoints" if kind == "PodMonitor" else "endpoints"]
        assert endpoint == {"port": STATUS_PORT_NAME, "interval": "15s", "honorLabels": True}
        assert item["metadata"]["labels"]["a"] == "b"
    assert container_of(objects)["ports"][0]["name"] == STATUS_PORT_NAME


def test_monitors_look_at_the_watched_namespaces_only(helm: Helm) -> None:
    values = {"watchNamespaces": ["lab"], "prometheus": {"monitor": {"enabled": True}}}
    jobs = next(item for item in helm.template(values=values) if item["metadata"]["name"] == "engram-jobs")
    assert jobs["spec"]["namespaceSelector"] == {"matchNames": ["lab"]}


def test_the_operators_policy_lets_in_prometheus_and_out_what_it_needs(helm: Helm) -> None:
    values = {
        "networkPolicy": {"enabled": True, "apiServerPorts": [7443]},
        "prometheus": {"namespace": "monitoring"},
    }
    objects = helm.template(values=values)
    policy = one(objects, "NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= pod_of(objects)["metadata"]["labels"].items()
    ((peer,),) = (rule["from"] for rule in policy["ingress"])
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "monitoring"}
    assert [port["port"] for rule in policy["egress"] for port in rule["ports"]] == [
        53,
        53,
        7443,
        STATUS_PORT,
    ]


def test_everything_is_labelled_as_kubernetes_recommends(helm: Helm) -> None:
    objects = helm.template("lab", values={**EVERYTHING, "commonLabels": {"team": "edge"}})
    for item in objects:
        labels = item["metadata"]["labels"]
        if item["kind"] == "CustomResourceDefinition":  # shared by all releases, and by none
            continue
        assert {
            "app.kubernetes.io/name": MANAGER,  # by which a job's NetworkPolicy lets the operator in
            "app.kubernetes.io/instance": "lab",
            "app.kubernetes.io/component": "operator",
            "app.kubernetes.io/part-of": "engram",
            "app.kubernetes.io/version": __version__,
            "app.kubernetes.io/managed-by": "Helm",
            "helm.sh/chart": f"engram-{__version__}",
            "team": "edge",
        }.items() <= labels.items()
    selector = one(objects, "Deployment")["spec"]["selector"]["matchLabels"]
    assert selector.items() <= pod_of(objects)["metadata"]["labels"].items()
    assert "helm.sh/chart" not in pod_of(objects)["metadata"]["labels"], (
        "a new chart would restart the operator"
    )


def test_the_operators_pod_is_restricted_and_its_platform_may_choose_the_user(helm: Helm) -> None:
    assert violations(pod_of(helm.template())["spec"]) == []
    chosen = helm.template(values={"podSecurityContext": {"runAsUser": None, "runAsGroup": None}})
    spec = pod_of(chosen)["spec"]
    assert set(spec["securityContext"]) == {"runAsNonRoot", "seccompProfile"}
    assert violations(spec) == []


def test_the_pod_takes_what_administrators_set(helm: Helm) -> None:
    toleration = {"key": "dedicated", "operator": "Exists"}
    volume, mount = {"name": "ca", "configMap": {"name": "ca"}}, {"name": "ca", "mountPath": "/ca"}
    values: Values = {
        "podLabels": {"cost": "lab"},
        "podAnnotations": {"note": "x"},
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"zone": "a"},
        "tolerations": [toleration],
        "affinity": None,
        "resources": {"limits": {"memory": "1Gi"}},
        "operator": {"extraVolumes": [volume], "extraVolumeMounts": [mount]},
        "serviceAccount": {"name": "robot", "annotations": {"role": "y"}},
    }
    objects = helm.template(values=values)
    pod, container = pod_of(objects), container_of(objects)
    assert pod["metadata"]["labels"]["cost"] == "lab"
    assert pod["metadata"]["annotations"] == {"note": "x"}
    spec = pod["spec"]
    assert (spec["priorityClassName"], spec["nodeSelector"]) == ("system-cluster-critical", {"zone": "a"})
    assert (spec["tolerations"], spec["serviceAccountName"]) == ([toleration], "robot")
    assert "affinity" not in spec
    assert volume in spec["volumes"]
    assert mount in container["volumeMounts"]
    assert container["resources"]["limits"]["memory"] == "1Gi"
    account = one(objects, "ServiceAccount")["metadata"]
    assert (account["name"], account["annotations"]) == ("robot", {"role": "y"})
    assert one(objects, "ClusterRoleBinding")["subjects"][0]["name"] == "robot"


def test_names_start_with_the_release_or_as_wished(helm: Helm) -> None:
    for release, values in (("lab", {}), ("engram", {"fullnameOverride": "lab"})):
        found = names(helm.template(release, values=values))
        assert found["Deployment"] == ["lab-operator"]
        assert found["ClusterRole"] == ["lab-view", "lab-edit", "lab-admin", "lab-operator"]


def test_the_chart_is_of_this_version(helm: Helm) -> None:
    text = (helm.chart / "Chart.yaml").read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\nappVersion: {__version__}\n" in text


@pytest.mark.parametrize(
    ("version", "refused"), [("1.30.9", True), ("1.31.0", False), ("1.33.2-gke.100", False)]
)
def test_kubernetes_must_be_one_that_the_operator_takes(helm: Helm, version: str, refused: bool) -> None:
    command = ("template", "engram", str(helm.chart), f"--kube-version={version}")
    if refused:
        with pytest.raises(HelmError, match=r"requires kubeVersion: >=1\.31\.0-0"):
            helm.run(*command)
    else:
        helm.run(*command)
