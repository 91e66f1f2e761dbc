"""Light checks of Kubernetes' own objects inside a job."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engram.spec import FederatedIncrementalJob

Parse = Callable[[str], FederatedIncrementalJob]
Refuse = Callable[[str], str]

BAD = [
    # volumes
    (
        "{dataset: {volume: {hostpath: {path: /x}}}}",
        "spec.dataset.volume.hostpath: is no volume source of Kubernetes: did you mean hostPath?",
    ),
    (
        "{dataset: {volume: {pvc: {claimName: x}}}}",
        "spec.dataset.volume.pvc: is no volume source of Kubernetes: ",
    ),
    (
        "{dataset: {volume: {hostPath: /x}}}",
        "spec.dataset.volume.hostPath: is '/x', not a mapping: write hostPath: {path",
    ),
    (
        "{dataset: {volume: {hostPath: {path: x}}}}",
        "spec.dataset.volume.hostPath.path: is 'x': write an absolute path",
    ),
    ("{dataset: {volume: {hostPath: {path: /a/../b}}}}", "is '/a/../b': write an absolute path without .."),
    (
        "{dataset: {volume: {hostPath: {}}}}",
        "spec.dataset.volume.hostPath.path: is null: write an absolute path",
    ),
    (
        "{dataset: {volume: {persistentVolumeClaim: {}}}}",
        "spec.dataset.volume.persistentVolumeClaim.claimName: is missing: write the name of a "
        "PersistentVolumeClaim",
    ),
    (
        "{dataset: {volume: {emptyDir: {}, hostPath: {path: /x}}}}",
        "spec.dataset.volume: has several sources (emptyDir, hostPath): keep one",
    ),
    (
        "{dataset: {volume: {name: x, emptyDir: {}}}}",
        "spec.dataset.volume.name: is set by engram: write the volume's source only",
    ),
    (
        "{workers: [{state: {volume: {emptydir: {}}}}]}",
        "spec.workers[0].state.volume.emptydir: is no volume source",
    ),
    (
        "{workers: [{dataset: {volume: {nfs: x}}}]}",
        "spec.workers[0].dataset.volume.nfs: is 'x', not a mapping: write",
    ),
    (
        "{aggregator: {checkpoint: {volume: {x: {}}}}}",
        "spec.aggregator.checkpoint.volume.x: is no volume source",
    ),
    ("{report: {volume: {hostPath: 5}}}", "spec.report.volume.hostPath: is 5, not a mapping"),
    # resources
    (
        "{aggregator: {resources: {limit: {cpu: 1}}}}",
        "spec.aggregator.resources.limit: unknown field: did you mean limits?",
    ),
    (
        "{aggregator: {resources: {limits: 5}}}",
        "spec.aggregator.resources.limits: is 5, not a mapping: write {cpu: 500m",
    ),
    (
        "{workers: [{resources: {limits: {memory: 2GB}}}]}",
        "spec.workers[0].resources.limits.memory: '2GB' is no quantity: Kubernetes writes G or Gi for GB",
    ),
    (
        "{workers: [{resources: {limits: {cpu: -1}}}]}",
        "spec.workers[0].resources.limits.cpu: -1 is too small: write a",
    ),
    (
        "{workers: [{resources: {limits: {cpu: true}}}]}",
        "spec.workers[0].resources.limits.cpu: true is no quantity",
    ),
    (
        "{workers: [{resources: {requests: {memory: 2Gi}, limits: {memory: 2G}}}]}",
        "spec.workers[0].resources.requests.memory: 2Gi is above the limit 2G: raise the limit or "
        "ask for less",
    ),
    # secrets and selectors
    (
        "{imagePullSecrets: [{name: a}, {secret: b}]}",
        "spec.imagePullSecrets[1]: is no reference to a Secret: write {name: my-secret}",
    ),
    ("{imagePullSecrets: [my-secret]}", "spec.imagePullSecrets[0]: 'my-secret' is not a mapping"),
    (
        "{report: {compareWith: {selector: {labels: {a: b}}}}}",
        "spec.report.compareWith.selector.labels: unknown field: ",
    ),
    (
        "{report: {compareWith: {selector: {matchLabels: {a: true}}}}}",
        'spec.report.compareWith.selector.matchLabels.a: true is not text: write "true" in quotes',
    ),
    (
        "{report: {compareWith: {selector: {matchLabels: {a: 'b c'}}}}}",
        "spec.report.compareWith.selector.matchLabels.a: 'b c' is no valid label value: write at "
        "most 63 letters",
    ),
    (
        "{report: {compareWith: {selector: {matchLabels: [a]}}}}",
        "spec.report.compareWith.selector.matchLabels: is a list, not a mapping",
    ),
    (
        "{report: {compareWith: {selector: {matchExpressions: {key: a}}}}}",
        "spec.report.compareWith.selector.matchExpressions: is not a list: write [{key: KEY, "
        "operator: Exists}]",
    ),
    (
        "{report: {compareWith: {selector: {matchExpressions: [{operator: In}]}}}}",
        "spec.report.compareWith.selector.matchExpressions[0]: has no key: write {key: KEY, operator: In",
    ),
    (
        "{report: {compareWith: {selector: {matchExpressions: [{key: a, operator: in, values: [b]}]}}}}",
        "spec.report.compareWith.selector.matchExpressions[0].operator: 'in' is not known: did you mean In?",
    ),
    (
        "{report: {compareWith: {selector: {matchExpressions: [{key: a, operator: In}]}}}}",
        "matchExpressions[0].values: operator In needs values: write or remove values: [...]",
    ),
    (
        "{report: {compareWith: {selector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}}}",
        "matchExpressions[0].values: operator Exists takes no values",
    ),
]


@pytest.mark.parametrize(("spec", "message"), BAD, ids=lambda value: value[:70])
def test_slips_are_found(refuse: Refuse, spec: str, message: str) -> None:
    assert message in refuse(spec)


GOOD = [
    "{dataset: {volume: {hostPath: {path: /data, type: Directory}}}}",
    "{dataset: {volume: {persistentVolumeClaim: {claimName: data, readOnly: true}}}}",
    "{dataset: {volume: {nfs: {server: nas, path: /data}}}}",
    "{aggregator: {checkpoint: {volume: {emptyDir: {}}}}}",
    "{workers: [{dataset: {volume: {hostPath: {path: /data}}}, state: {volume: {emptyDir: {}}}}]}",
    "{workers: [{resources: {requests: {cpu: 500m, memory: 1Gi}, limits: {cpu: 2, memory: 2Gi, "
    "nvidia.com/gpu: 1}}}]}",
    "{workers: [{resources: {requests: {cpu: 0.5}, limits: {cpu: 500m}}}]}",
    "{workers: [{resources: {claims: [{name: gpu}]}}]}",
    "{workers: [{podTemplate: {spec: {anything: [1, null]}}}]}",
    "{imagePullSecrets: [{name: my.registry-secret}]}",
    "{report: {compareWith: {names: [a], selector: {matchLabels: {team: blue, example.org/x: ''}}}}}",
    "{report: {compareWith: {selector: {matchExpressions: [{key: a, operator: In, values: [b]}]}}}}",
    "{report: {compareWith: {selector: {matchExpressions: [{key: a, operator: Exists}]}}}}",
]


@pytest.mark.parametrize("spec", GOOD, ids=lambda value: value[:70])
def test_right_objects_are_taken(parse: Parse, spec: str) -> None:
    parse(spec)


def test_objects_are_kept_as_they_are(parse: Parse) -> None:
    job = parse("{workers: [{podTemplate: {spec: {x: null, y2: [1.5, on, '012']}}}]}")
    assert job.spec.workers[0].pod_template == {"spec": {"x": None, "y2": [1.5, True, "012"]}}
    assert job.dump()["spec"]["workers"][0]["podTemplate"] == {"spec": {"x": None, "y2": [1.5, True, "012"]}}
