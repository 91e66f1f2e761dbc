"""podTemplate: everything that it may not break, each with its sentence; what it may; and whatever else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.errors import ConfigurationError
from engram.spec import FederatedIncrementalJob
from engram_operator.model import Object
from engram_operator.settings import Settings
from tests.control.building import SETTINGS, build, main_of, make_job, mounts_of, pod_of, volumes_of
from tests.control.restricted import violations


def in_pod(spec: Object) -> Object:
    return {"spec": spec}


def in_main(patch: Object) -> Object:
    return {"spec": {"containers": [{"name": "main", **patch}]}}


def with_template(template: Object, **group: object) -> FederatedIncrementalJob:
    """Return a job whose only group has this podTemplate, and a data volume."""
    job = make_job("dataset: {volume: {persistentVolumeClaim: {claimName: d}}}\nworkers: [{name: a}]")
    made = job.spec.workers[0].model_copy(update={"pod_template": template, **group})
    return job.model_copy(update={"spec": job.spec.model_copy(update={"workers": [made]})})


def merged(template: Object, settings: Settings = SETTINGS, **group: object) -> Object:
    return build(with_template(template, **group), settings).workers["a"]


def refusal(template: Object, settings: Settings = SETTINGS) -> str:
    with pytest.raises(ConfigurationError) as caught:
        merged(template, settings)
    assert caught.value.exit_code == 42
    return str(caught.value)


FIELD = "spec.workers[0].podTemplate"
POD = f"{FIELD}.spec"
MAIN = f"{FIELD}.spec.containers[main]"
ACCOUNT = "remove it, or have the operator's administrator allow it (--allow-service-accounts)"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ({"sepc": {}}, f"{FIELD}.sepc: unknown field: did you mean spec?"),
        ({"spec": []}, f"{FIELD}.spec: is a list, not a mapping: write it as in a pod"),
        (
            {"metadata": {"name": "x"}},
            f"{FIELD}.metadata.name: is set by Kubernetes: write labels or annotations only",
        ),
        (
            {"metadata": {"labels": {"team": 5}}},
            f'{FIELD}.metadata.labels.team: 5 is not text: write "5" in quotes',
        ),
        (
            {"metadata": {"labels": {"engram.dev/job": "other"}}},
            f"{FIELD}.metadata.labels.engram.dev/job: is set by the operator: remove it",
        ),
        (
            {"metadata": {"labels": {"engram.dev/role": None}}},
            f"{FIELD}.metadata.labels.engram.dev/role: is set by the operator: remove it",
        ),
        (
            {"metadata": {"labels": {"engram.dev/mine": "x"}}},
            f"{FIELD}.metadata.labels.engram.dev/mine: engram.dev/ is kept for the operator: write another "
            "key",
        ),
        (
            {"spec": {"restartPolicy": "OnFailure"}},
            f"{FIELD}.spec.restartPolicy: 'OnFailure' does not go with a failure policy: remove it: it is "
            "Never, and the Job replaces failed pods",
        ),
        (
            {"spec": {"containers": None}},
            f"{FIELD}.spec.containers: has no container main: remove null: containers are added to it, and "
            "it is changed by its name",
        ),
        (in_pod({"hostPID": True}), f"{POD}.hostPID: is not allowed: remove it: no training needs it"),
        (in_pod({"hostIPC": True}), f"{POD}.hostIPC: is not allowed: remove it: no training needs it"),
        (
            in_main({"securityContext": {"privileged": True}}),
            f"{MAIN}.securityContext.privileged: is not allowed: remove it; for a device write gpus or "
            "resources.limits",
        ),
        (
            {"spec": {"initContainers": [{"name": "i", "securityContext": {"privileged": True}}]}},
            f"{POD}.initContainers[i].securityContext.privileged: is not allowed: remove it; for a device "
            "write gpus or resources.limits",
        ),
        (in_pod({"serviceAccountName": "x"}), f"{POD}.serviceAccountName: is not allowed: {ACCOUNT}"),
        (
            {"spec": {"automountServiceAccountToken": True}},
            f"{FIELD}.spec.automountServiceAccountToken: must stay false: {ACCOUNT}",
        ),
        (
            {"spec": {"automountServiceAccountToken": None}},
            f"{FIELD}.spec.automountServiceAccountToken: must stay false: {ACCOUNT}",
        ),
        (
            {"spec": {"volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {}}]}}]}},
            f"{FIELD}.spec.volumes[t].projected: holds a service account's token: {ACCOUNT}",
        ),
        (
            {"spec": {"volumes": [{"name": "spec", "configMap": {"name": "mine"}}]}},
            f"{POD}.volumes[spec]: is the operator's and was changed: give your own volume another name; "
            "the job's volumes are fields of the spec",
        ),
        (
            {"spec": {"volumes": [{"name": "data", "hostPath": {"path": "/x"}}]}},
            f"{POD}.volumes[data]: has several sources (persistentVolumeClaim, hostPath): keep one; write "
            "null for one of ours that shall go, such as emptyDir: null",
        ),
        (
            in_main({"env": [{"name": "WORKER_NAME", "value": "me"}]}),
            f"{MAIN}.env[WORKER_NAME]: is set by the operator: remove it",
        ),
        (
            in_main({"env": [{"name": "ENGRAM_STATE_DIR", "value": "/x"}]}),
            f"{MAIN}.env[ENGRAM_STATE_DIR]: is set by the operator: remove it",
        ),
        (
            in_main({"env": [{"name": "HOME", "valueFrom": {"secretKeyRef": {}}}]}),
            f"{MAIN}.env[HOME]: has value and valueFrom: write value: null beside valueFrom",
        ),
        (
            in_main({"volumeMounts": [{"mountPath": "/data", "readOnly": False}]}),
            f"{MAIN}.volumeMounts[/data]: is the operator's and was changed: remove it",
        ),
        (
            in_main({"volumeMounts": None}),
            f"{MAIN}.volumeMounts[/etc/engram/spec]: is the operator's and was changed: remove it",
        ),
        (
            in_main({"terminationMessagePath": "/tmp/x"}),
            f"{MAIN}.terminationMessagePath: hides the result from the operator: remove it",
        ),
    ],
)
def test_what_a_pod_template_may_not_do(template: Object, message: str) -> None:
    assert refusal(template).splitlines()[0] == message


def test_every_problem_is_told_at_once() -> None:
    lines = refusal({"spec": {"hostPID": True, "hostIPC": True, "serviceAccountName": "x"}}).splitlines()
    assert [line.partition(": ")[0].rpartition(".")[2] for line in lines] == [
        "hostPID",
        "hostIPC",
        "serviceAccountName",
    ]


AGGREGATOR = "spec.aggregator.podTemplate.spec"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{spec: {containers: [{name: main, ports: null}]}}",
            f"{AGGREGATOR}.containers[main].ports[7363]: is the operator's and was changed: remove it",
        ),
        (
            "{spec: {containers: [{name: main, ports: [{containerPort: 9464, hostPort: 80}]}]}}",
            f"{AGGREGATOR}.containers[main].ports[9464].hostPort: would open the status port to the network: "
            "remove hostPort",
        ),
        (
            "{spec: {hostNetwork: true}}",
            f"{AGGREGATOR}.containers[main].ports[7363].hostPort: 9000 cannot differ from the container's "
            "port on the host's network: write 0 in spec.aggregator.expose.port, or remove hostNetwork",
        ),
        (
            "{spec: {affinity: null}}",
            f"{AGGREGATOR}.affinity.nodeAffinity: removes the node of spec.aggregator.nodeName: leave "
            "requiredDuringSchedulingIgnoredDuringExecution out, or remove nodeName",
        ),
    ],
)
def test_what_the_aggregators_may_not_do(template: str, message: str) -> None:
    expose = "nodeName: n1, expose: {type: HostPort, port: 9000}"
    with pytest.raises(ConfigurationError) as caught:
        build(make_job(f"aggregator: {{{expose}, podTemplate: {template}}}"))
    assert str(caught.value).splitlines()[0] == message


def test_what_it_may_do() -> None:
    template = {
        "metadata": {"labels": {"team": "vision"}, "annotations": {"note": "any text at all"}},
        "spec": {
            "priorityClassName": "low",
            "runtimeClassName": "nvidia",
            "nodeSelector": {"disk": "ssd"},
            "securityContext": {"supplementalGroups": [44]},
            "volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory"}}, {"name": "mine", "nfs": {}}],
            "containers": [
                {
                    "name": "main",
                    "command": ["nice", "engram", "worker"],
                    "env": [{"name": "MODEL_URL", "value": "s3://x"}, {"name": "MINE", "value": "1"}],
                    "volumeMounts": [{"name": "mine", "mountPath": "/mine"}],
                    "securityContext": {"readOnlyRootFilesystem": False},
                }
            ],
        },
    }
    job = merged(template)
    pod, main = pod_of(job), main_of(job)
    assert job["spec"]["template"]["metadata"]["labels"]["team"] == "vision"
    assert (pod["priorityClassName"], pod["nodeSelector"]) == ("low", {"disk": "ssd"})
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert volumes_of(job)["tmp"] == {"emptyDir": {"medium": "Memory"}}
    assert main["command"] == ["nice", "engram", "worker"]
    assert mounts_of(job)["/mine"]["name"] == "mine"
    assert {"name": "MODEL_URL", "value": "s3://x"} in main["env"]
    assert main["env"][0]["name"] == "WORKER_INDEX"
    assert main["securityContext"]["allowPrivilegeEscalation"] is False


def test_tolerations_come_after_ours() -> None:
    job = merged({"spec": {"tolerations": [{"key": "mine", "operator": "Exists"}]}})
    assert [item["key"] for item in pod_of(job)["tolerations"]] == ["node-role.kubernetes.io/edge", "mine"]


def test_a_container_of_the_users_own_is_confined_unless_it_says_otherwise() -> None:
    own = {"name": "own", "securityContext": {"allowPrivilegeEscalation": True}}
    job = merged({"spec": {"containers": [{"name": "side"}, own]}})
    found = {item["name"]: item["securityContext"] for item in pod_of(job)["containers"]}
    required = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert found["side"] == required
    assert found["own"] == {**required, "allowPrivilegeEscalation": True}
    assert violations(pod_of(job)) == ["own: allowPrivilegeEscalation"]


@pytest.mark.parametrize(
    ("spec", "policy"),
    [
        ({"hostNetwork": True}, "ClusterFirstWithHostNet"),
        ({"hostNetwork": True, "dnsPolicy": "Default"}, "Default"),
        ({"priorityClassName": "low"}, None),
    ],
)
def test_a_pod_on_the_hosts_network_still_knows_the_clusters_names(spec: Object, policy: str | None) -> None:
    assert pod_of(merged({"spec": spec})).get("dnsPolicy") == policy


def test_an_administrator_may_allow_service_accounts() -> None:
    settings = replace(SETTINGS, allow_service_accounts=True)
    spec = {"serviceAccountName": "x", "automountServiceAccountToken": True}
    assert pod_of(merged({"spec": spec}, settings))["serviceAccountName"] == "x"


KEYS = [
    *(
        "spec",
        "metadata",
        "labels",
        "containers",
        "initContainers",
        "volumes",
        "env",
        "ports",
        "volumeMounts",
    ),
    *("securityContext", "affinity", "nodeAffinity", "nodeSelectorTerms", "tolerations", "hostNetwork", "a"),
    *("requiredDuringSchedulingIgnoredDuringExecution", "projected", "sources"),
]
NAMED = st.fixed_dictionaries({"name": st.sampled_from(["main", "tmp", "spec", "HOME"])})
SCALARS = st.none() | st.booleans() | st.integers() | st.sampled_from(["", "main", "Never", "x"])


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    mapping = st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    named = st.tuples(NAMED, mapping).map(lambda pair: {**pair[0], **pair[1]})
    return mapping | st.lists(named | inner, max_size=3)


TEMPLATES = st.dictionaries(st.sampled_from(KEYS), st.recursive(SCALARS, _nested, max_leaves=12), max_size=3)


SPECS = st.dictionaries(st.sampled_from(KEYS), st.recursive(SCALARS, _nested, max_leaves=12), max_size=4)


def merged_or_refused(template: Object) -> Object | None:
    """Return the Job; None if the template was refused, naming a field of it."""
    try:
        return merged(template)
    except ConfigurationError as error:
        if not str(error).startswith(FIELD):
            raise
        return None


@given(TEMPLATES)
def test_whatever_is_written_is_merged_or_refused_and_the_pod_stays_as_it_must(template: Object) -> None:
    job = merged_or_refused(template)
    if job is not None:
        assert main_of(job)["env"][0]["name"] == "WORKER_INDEX"
        assert pod_of(job)["restartPolicy"] == "Never"
        assert pod_of(job)["automountServiceAccountToken"] is False
        assert job["spec"]["template"]["metadata"]["labels"]["engram.dev/role"] == "worker"


@given(SPECS, SPECS)
def test_whatever_is_written_into_the_pod_is_merged_or_refused(spec: Object, main: Object) -> None:
    job = merged_or_refused({"spec": {**spec, "containers": [{**main, "name": "main"}]}})
    if job is not None:
        assert set(mounts_of(job)) >= {"/etc/engram/spec", "/etc/engram/credentials/token", "/data", "/tmp"}
        assert set(volumes_of(job)) >= {"spec", "credentials", "data"}
