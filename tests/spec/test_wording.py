"""Errors of single fields, in words: which field, what stands there, what to write."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engram.spec import FederatedIncrementalJob

Parse = Callable[[str], FederatedIncrementalJob]
Refuse = Callable[[str], str]

UNKNOWN = [
    # beside the field
    ("{tasks: {cout: 5}}", "spec.tasks.cout", "did you mean count?"),
    ("{tasks: {classes_per_task: 3}}", "spec.tasks.classes_per_task", "did you mean classesPerTask?"),
    ("{tasks: {classespertask: 3}}", "spec.tasks.classespertask", "did you mean classesPerTask?"),
    ("{Tasks: {}}", "spec.Tasks", "did you mean tasks?"),
    ("{training: {learningrate: .1}}", "spec.training.learningrate", "did you mean learningRateSchedule?"),
    ("{worker: []}", "spec.worker", "did you mean workers?"),
    ("{workers: [{name: a}, {replica: 3}]}", "spec.workers[1].replica", "did you mean replicas?"),
    ("{workers: [{gpus: {number: 1}}]}", "spec.workers[0].gpus.number", "write one of: count, resourceName"),
    ("{aggregator: {expose: {typ: NodePort}}}", "spec.aggregator.expose.typ", "did you mean type?"),
    ("{runPolicy: {backofLimit: 1}}", "spec.runPolicy.backofLimit", "did you mean backoffLimit?"),
    # at another level
    ("{rounds: 5}", "spec.rounds", "did you mean spec.training.roundsPerTask?"),
    ("{roundsPerTask: 5}", "spec.roundsPerTask", "did you mean spec.training.roundsPerTask?"),
    ("{epochs: 5}", "spec.epochs", "did you mean spec.training.localEpochs?"),
    ("{lr: 5}", "spec.lr", "did you mean spec.training.optimizer.learningRate?"),
    ("{learningRate: .1}", "spec.learningRate", "did you mean spec.training.optimizer.learningRate?"),
    ("{batchSize: 8}", "spec.batchSize", "did you mean spec.training.batchSize?"),
    ("{batch_size: 8}", "spec.batch_size", "did you mean spec.training.batchSize?"),
    ("{partition: {}}", "spec.partition", "did you mean spec.dataset.partition?"),
    ("{labelRatio: 1}", "spec.labelRatio", "did you mean spec.dataset.labelRatio?"),
    ("{quorum: 1}", "spec.quorum", "did you mean spec.aggregation.quorum?"),
    ("{replicas: 1}", "spec.replicas", "did you mean spec.workers[].replicas?"),
    ("{dataset: {alpha: 1}}", "spec.dataset.alpha", "did you mean spec.dataset.partition.alpha?"),
    ("{dataset: {seed: 1}}", "spec.dataset.seed", "did you mean spec.seed?"),
    (
        "{aggregator: {compression: none}}",
        "spec.aggregator.compression",
        "did you mean spec.aggregation.compression?",
    ),
    # nowhere
    ("{aggregation: {bogus: 1}}", "spec.aggregation.bogus", "write one of: name, parameters, quorum"),
]


@pytest.mark.parametrize(("spec", "field", "remedy"), UNKNOWN, ids=[field for _, field, _ in UNKNOWN])
def test_unknown_fields_come_with_a_suggestion(refuse: Refuse, spec: str, field: str, remedy: str) -> None:
    assert refuse(spec).startswith(f"job.yaml: {field}: unknown field: {remedy}")


VALUES = [
    ("{tasks: {count: '5'}}", "spec.tasks.count: '5' is not a whole number: write 5 without quotes"),
    (
        "{tasks: {count: many}}",
        "spec.tasks.count: 'many' is not a whole number: write a whole number from 1 to 1000",
    ),
    (
        "{tasks: {count: 2.5}}",
        "spec.tasks.count: 2.5 is not a whole number: write a whole number from 1 to 1000",
    ),
    (
        "{tasks: {count: true}}",
        "spec.tasks.count: true is not a whole number: write a whole number from 1 to 1000",
    ),
    ("{tasks: {count: 0}}", "spec.tasks.count: 0 is too small: write a whole number from 1 to 1000"),
    ("{tasks: {count: 1001}}", "spec.tasks.count: 1001 is too large: write a whole number from 1 to 1000"),
    (
        "{tasks: 5}",
        "spec.tasks: 5 is not a mapping: write its keys below it, indented: count, ",
    ),
    ("{tasks: [count, 5]}", "spec.tasks: a list is not a mapping: write its keys below it, indented: count"),
    (
        "{training: {threads: [1]}}",
        "spec.training.threads: a list is not a whole number: write a whole number from 1",
    ),
    (
        "{training: {gradientClip: 0}}",
        "spec.training.gradientClip: 0 is too small: write a number above 0 and at most",
    ),
    (
        "{training: {optimizer: {momentum: 1}}}",
        "momentum: 1 is too large: write a number at least 0 and below 1",
    ),
    (
        "{training: {optimizer: {learningRate: fast}}}",
        "spec.training.optimizer.learningRate: 'fast' is not a number: write a number above 0 and "
        "at most 1000",
    ),
    (
        "{training: {optimizer: {learningRate: '1e-3'}}}",
        "spec.training.optimizer.learningRate: '1e-3' is not a number: write 1e-3 without quotes",
    ),
    (
        "{dataset: {labelRatio: 0}}",
        "spec.dataset.labelRatio: 0 is too small: write a number above 0 and at most 1",
    ),
    (
        "{dataset: {labelRatio: 1.5}}",
        "spec.dataset.labelRatio: 1.5 is too large: write a number above 0 and at most 1",
    ),
    (
        "{dataset: {labelRatio: 20%}}",
        "spec.dataset.labelRatio: '20%' is not a number: write a number above 0",
    ),
    ("{workers: [{dataset: {labelRatio: -1}}]}", "labelRatio: -1 is too small: write a number from 0 to 1"),
    (
        "{dataset: {path: yes}}",
        "spec.dataset.path: true is not text: write it in quotes: YAML reads yes, no, on",
    ),
    ("{dataset: {path: 2024}}", 'spec.dataset.path: 2024 is not text: write "2024" in quotes'),
    ("{dataset: {path: {a: b}}}", "spec.dataset.path: a mapping is not text: write text"),
    ("{dataset: {name: ''}}", "spec.dataset.name: is empty: write digits, fashion-mnist, mnist, "),
    ("{suspend: 1}", "spec.suspend: 1 is not true or false: write true or false"),
    ("{suspend: 'yes'}", "spec.suspend: 'yes' is not true or false: write true or false without quotes"),
    (
        "{workers: 5}",
        "spec.workers: 5 is not a list: write a list: [A, B], or one item a line after a hyphen",
    ),
    ("{workers: {name: a}}", "spec.workers: a mapping is not a list: write a hyphen before the first key"),
    ("{workers: []}", "spec.workers: has 0 items: write 1 to 32 items"),
    (
        "{workers: [edge]}",
        "spec.workers[0]: 'edge' is not a mapping: write its keys below it, indented: name",
    ),
    ("{workers: [null]}", "spec.workers[0]: null is not a mapping: write its keys below it, indented: name"),
    (
        "{workers: [{name: Edge}]}",
        "spec.workers[0].name: 'Edge' does not match ^[a-z][a-z0-9]{0,11}$: Name of the",
    ),
    ("{workers: [{name: my-edge}]}", "spec.workers[0].name: 'my-edge' does not match"),
    (
        "{tasks: {classes: [1, -1]}}",
        "spec.tasks.classes[1]: -1 is too small: write a whole number from 0 to 65535",
    ),
    (
        "{training: {optimizer: {name: sdg}}}",
        "spec.training.optimizer.name: 'sdg' is not known here: did you mean sgd? write one of: "
        "sgd, adam, adamw",
    ),
    (
        "{evaluation: {every: epoch}}",
        "spec.evaluation.every: 'epoch' is not known here: write one of: task, round",
    ),
    ("{evaluation: {every: 5}}", "spec.evaluation.every: 5 is not known here: write one of: task, round"),
    ("{runPolicy: {cleanPodPolicy: none}}", "cleanPodPolicy: 'none' is not known here: did you mean None?"),
    (
        "{dataset: {volume: /data}}",
        "spec.dataset.volume: '/data' is not a mapping: write keys and values below it",
    ),
    (
        "{aggregation: {quorum: true}}",
        "spec.aggregation.quorum: true is not a number or a percentage: write a whole",
    ),
    (
        "{aggregation: {quorum: 1.5}}",
        "spec.aggregation.quorum: 1.5 is not a number or a percentage: write a whole",
    ),
    (
        "{aggregation: {quorum: [1]}}",
        "spec.aggregation.quorum: a list is not a number or a percentage: write a",
    ),
]


@pytest.mark.parametrize(("spec", "message"), VALUES, ids=[spec for spec, _ in VALUES])
def test_wrong_values_come_with_what_to_write(refuse: Refuse, spec: str, message: str) -> None:
    assert message in refuse(spec)


def test_a_long_text_is_refused_by_its_length(refuse: Refuse) -> None:
    message = refuse(f"{{dataset: {{name: {'x' * 254}}}}}")
    assert message == "job.yaml: spec.dataset.name: has 254 characters: write at most 253"


def test_a_long_value_is_shortened(refuse: Refuse) -> None:
    assert "..." in (message := refuse(f"{{seed: {'x' * 200}}}"))
    assert len(message) < 160


def test_all_errors_of_a_file_are_told_at_once_first_one_first(refuse: Refuse) -> None:
    lines = refuse("{rounds: 5, tasks: {count: 0}, suspend: maybe}").splitlines()
    assert lines == [
        "job.yaml: spec.rounds: unknown field: did you mean spec.training.roundsPerTask?",
        "job.yaml: spec.suspend: 'maybe' is not true or false: write true or false without quotes",
        "job.yaml: spec.tasks.count: 0 is too small: write a whole number from 1 to 1000",
    ]


def test_the_number_of_errors_is_bounded(refuse: Refuse) -> None:
    lines = refuse("{workers: [" + ", ".join(["{replicas: 0}"] * 14) + "]}").splitlines()
    assert len(lines) == 11
    assert lines[-1] == "and 4 more"


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "{dataset: }",
        "{dataset: {labelRatio: 1}}",
        "{training: {localSteps: null, gradientClip: 5}}",
        "{training: {optimizer: {learningRate: 1e-3}}}",
        "{seed: 012}",
        "{seed: 4_294_967_295}",
        "{seed: 1e3}",
        "{suspend: on}",
        "{aggregation: {quorum: 2}}",
        "{aggregation: {quorum: 80%}}",
        "{aggregation: {quorum: 1%, clientFraction: 0.1}}",
        "{workers: [{name: a, replicas: 1}, {name: b2}]}",
        "{tasks: {count: 1, classesPerTask: 10}}",
    ],
)
def test_good_values_are_taken(parse: Parse, spec: str) -> None:
    assert parse(spec).name == "digits"


def test_numbers_are_read_as_kubectl_reads_them(parse: Parse) -> None:
    job = parse("{seed: 012, training: {optimizer: {learningRate: 1e-3}}, suspend: on}")
    assert job.spec.seed == 10
    assert job.spec.training.optimizer.learning_rate == 0.001
    assert job.spec.suspend is True
