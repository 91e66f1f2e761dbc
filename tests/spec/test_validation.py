"""Rules that span fields, each with its message; and jobs that are just right."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engram.errors import ConfigurationError
from engram.spec import FederatedIncrementalJob, load_yaml, parse_job
from engram.spec.algorithms import ALGORITHMS
from engram.spec.validation import sampled_workers

Parse = Callable[[str], FederatedIncrementalJob]
Refuse = Callable[[str], str]

BAD = [
    # classes
    (
        "{tasks: {count: 5, classesPerTask: 3}}",
        "spec.tasks: 5 tasks of 3 classes need 15 classes, digits has 10: "
        "lower count or classesPerTask until their product is at most 10",
    ),
    (
        "{dataset: {name: cifar100}, tasks: {count: 1, classesPerTask: 101}}",
        "spec.tasks: 1 task of 101 classes need 101 classes, cifar100 has 100",
    ),
    (
        "{tasks: {classes: [1, 2]}}",
        "spec.tasks.classes: is given although classOrder is shuffled: write classOrder: listed, or"
        " remove classes",
    ),
    (
        "{tasks: {classOrder: listed}}",
        "spec.tasks.classes: is missing although classOrder is listed: "
        "write count x classesPerTask = 10 label ids in learning order",
    ),
    (
        "{tasks: {count: 2, classOrder: listed, classes: [1, 2, 1, 4]}}",
        "spec.tasks.classes: names more than once: 1: name each class once",
    ),
    (
        "{tasks: {count: 3, classOrder: listed, classes: [0, 1, 2, 3, 4, 5, 6]}}",
        "spec.tasks.classes: has 7 classes, but 3 tasks of 2 classes need 6: "
        "list count x classesPerTask label ids, or change count or classesPerTask",
    ),
    (
        "{tasks: {count: 1, classOrder: listed, classes: [0, 10]}}",
        "spec.tasks.classes: names class 10, but digits has classes 0 to 9: write label ids of the data set",
    ),
    (
        "{dataset: {partition: {method: local, minSamples: 5}}}",
        "spec.dataset.partition.minSamples: has no effect with method local",
    ),
    # names
    (
        "{dataset: {name: fashon-mnist}}",
        "spec.dataset.name: 'fashon-mnist' is not a data set of engram: did you mean f",
    ),
    ("{dataset: {name: FashionMNIST}}", "did you mean fashion-mnist?"),
    (
        "{dataset: {name: xyz}}",
        "spec.dataset.name: 'xyz' is not a data set of engram: write one of: digits, fashion-",
    ),
    (
        "{model: {name: resnet50}}",
        "spec.model.name: 'resnet50' is not a model of engram: did you mean resnet32? write",
    ),
    (
        "{algorithm: {name: icral}}",
        "spec.algorithm.name: 'icral' is not an algorithm of engram: did you mean icarl?",
    ),
    ("{aggregation: {name: FedAvgM}}", "'FedAvgM' is not an aggregation of engram: did you mean fedavgm?"),
    ("{aggregation: {name: trimmed_mean}}", "did you mean trimmed-mean?"),
    ("{training: {augmentation: crop}}", "'crop' is not an augmentation of engram: did you mean crop-flip?"),
    (
        "{algorithm: {name: my.module.Name}}",
        "spec.algorithm.name: 'my.module.Name' is neither an algorithm of engram nor a dotted path:"
        " write one of: "
        f"{', '.join(ALGORITHMS)}; or package.module:Class, such as my_package.my_module:MyName",
    ),
    ("{algorithm: {name: 'my-module:Name'}}", "is neither an algorithm of engram nor a dotted path"),
    ("{algorithm: {name: 'my..module:Name'}}", "is neither an algorithm of engram nor a dotted path"),
    ("{algorithm: {name: 'module:Name.other'}}", "is neither an algorithm of engram nor a dotted path"),
    ("{algorithm: {name: ':Name'}}", "is neither an algorithm of engram nor a dotted path"),
    (
        "{model: {name: 'my/model.py:build'}}",
        "or package.module:function, such as my_package.my_module:MyName",
    ),
    # parameters
    (
        "{algorithm: {name: icarl, parameters: {exemplars: 5}}}",
        "spec.algorithm.parameters.exemplars: unknown parameter: did you mean exemplarsPerWorker?",
    ),
    (
        "{algorithm: {name: replay, parameters: {temperature: 5}}}",
        "spec.algorithm.parameters.temperature: unknown parameter: "
        "replay takes exemplarsPerWorker, classifierCorrection, heldOutShare, weightAlignment; temperature "
        "belongs to fedlwf, icarl, bic",
    ),
    (
        "{algorithm: {parameters: {mu: 5}}}",
        "spec.algorithm.parameters.mu: unknown parameter: finetune takes no parameters; mu belongs "
        "to fedprox",
    ),
    (
        "{algorithm: {name: fedprox, parameters: {bogus: 5}}}",
        "spec.algorithm.parameters.bogus: unknown parameter: fedprox takes mu",
    ),
    (
        "{algorithm: {name: icarl, parameters: {exemplarsPerWorker: 0}}}",
        "spec.algorithm.parameters.exemplarsPerWorker: 0 is too small: write a whole number from 1 "
        "to 10000000",
    ),
    (
        "{algorithm: {name: icarl, parameters: {exemplarsPerWorker: 9}}}",
        "spec.algorithm.parameters.exemplarsPerWorker: 9 is less than one exemplar for each of the "
        "job's 10 classes: write at least 10",
    ),
    (
        "{algorithm: {name: replay, parameters: {exemplarsPerWorker: 3}}, tasks: {count: 2}}",
        "3 is less than one exemplar for each of the job's 4 classes: write at least 4, or 0 for none",
    ),
    (
        "{algorithm: {name: bic, parameters: {exemplarsPerWorker: 40}}}",
        "spec.algorithm.parameters.heldOutShare: leaves bic 8 of 40 exemplars, less than one for each of the "
        "job's 10 classes: write exemplarsPerWorker: 50 or more, or another classifierCorrection",
    ),
    (
        "{algorithm: {name: lga, parameters: {proxyServer: reconstruct}}}",
        "spec.algorithm.parameters.proxyServer: reconstruct lets the aggregator rebuild images of the "
        "workers: write acceptPrivacyRisk: true beside it if it may, or proxyServer: none",
    ),
    (
        "{algorithm: {name: replay, parameters: {exemplarsPerWorker: 0, classifierCorrection: bic}}}",
        "leaves bic 0 of 0 exemplars",
    ),
    (
        "{algorithm: {name: replay, parameters: {weightAlignment: false, classifierCorrection: align}}}",
        "spec.algorithm.parameters.weightAlignment: contradicts classifierCorrection: align: remove one of "
        "them",
    ),
    (
        "{algorithm: {name: fedlwf, parameters: {unlabelled: true}}}",
        "spec.dataset.labelRatio: 1 leaves no worker with unlabelled data, and fedlwf with these parameters "
        "uses them: write less than 1, or algorithm.parameters.unlabelled: false",
    ),
    (
        "{dataset: {labelRatio: 0.1}, workers: [{dataset: {labelRatio: 1}}], "
        "algorithm: {name: fedewc, parameters: {unlabelled: true}}}",
        "spec.dataset.labelRatio: 1 leaves no worker with unlabelled data, and fedewc",
    ),
    (
        "{algorithm: {name: scaffold}, training: {optimizer: {name: adam}}}",
        "spec.training.optimizer.name: scaffold reads gradients off the steps of SGD, those of adam have no "
        "size of their own: write sgd",
    ),
    (
        "{algorithm: {name: feddyn}, aggregation: {buffer: {size: 1}}}",
        "spec.aggregation.buffer.size: feddyn compares each update with the weights of its round, in a "
        "buffer they are of several: write 0",
    ),
    (
        "{algorithm: {name: feddyn}, aggregation: {name: fedavgm}}",
        "spec.aggregation.name: feddyn corrects the average of the workers, fedavgm makes something else of "
        "it: write fedavg",
    ),
    (
        "{algorithm: {name: target}, model: {name: cnn}}",
        "spec.model.parameters.norm: none leaves target nothing to make images from: it needs the statistics "
        "that BatchNorm layers keep: write batch",
    ),
    (
        "{algorithm: {name: mfcl}, model: {name: resnet18}}",
        "spec.model.parameters.norm: group leaves mfcl nothing to make images from",
    ),
    ("{algorithm: {name: mfcl}, model: {name: cnn, parameters: {norm: none}}}", "norm: none leaves mfcl"),
    (
        "{algorithm: {name: replay, parameters: {weightAlignment: 1}}}",
        "spec.algorithm.parameters.weightAlignment: 1 is not true or false: write true or false",
    ),
    (
        "{algorithm: {name: fedprox, parameters: {mu: small}}}",
        "spec.algorithm.parameters.mu: 'small' is not a number: write a number from 0 to 1000",
    ),
    (
        "{model: {name: cnn, parameters: {norm: batchnorm}}}",
        "spec.model.parameters.norm: 'batchnorm' is not known here: did you mean batch? write one "
        "of: none, group, batch",
    ),
    (
        "{model: {name: cnn, parameters: {channels: 16}}}",
        "spec.model.parameters.channels: 16 is not a list: write a list",
    ),
    (
        "{model: {name: cnn, parameters: {channels: []}}}",
        "spec.model.parameters.channels: has 0 items: write 1 to 8 items",
    ),
    (
        "{model: {name: cnn, parameters: {channels: [16, 0]}}}",
        "spec.model.parameters.channels[1]: 0 is too small: write a whole number from 1 to 65536",
    ),
    (
        "{aggregation: {name: trimmed-mean, parameters: {trim: 0.5}}}",
        "spec.aggregation.parameters.trim: 0.5 is too large: write a number at least 0 and below 0.5",
    ),
    # quorum
    (
        "{aggregation: {quorum: 120%}}",
        "spec.aggregation.quorum: '120%' is neither a number of workers nor a percentage: "
        "write a whole number from 1, or 1% to 100%",
    ),
    ("{aggregation: {quorum: 0%}}", "spec.aggregation.quorum: '0%' is neither"),
    ("{aggregation: {quorum: 50.5%}}", "spec.aggregation.quorum: '50.5%' is neither"),
    ("{aggregation: {quorum: all}}", "spec.aggregation.quorum: 'all' is neither"),
    ("{aggregation: {quorum: '3'}}", "spec.aggregation.quorum: '3' is text: write 3 without quotes, or 3%"),
    (
        "{aggregation: {quorum: 0}}",
        "spec.aggregation.quorum: 0 is too small: write a whole number from 1, or 1% to 100%",
    ),
    (
        "{aggregation: {quorum: 7}}",
        "spec.aggregation.quorum: 7 can never be reached: there are 3 workers: write at most 3",
    ),
    (
        "{aggregation: {quorum: 3, clientFraction: 0.5}}",
        "spec.aggregation.quorum: 3 can never be reached: a round samples 2 of 3 workers "
        "(clientFraction 0.5): "
        "write at most 2",
    ),
    # straggler factor
    (
        "{aggregation: {stragglerFactor: 2}}",
        "spec.aggregation.stragglerFactor: has no effect with quorum 100%: a round waits for all 3 workers: "
        "lower aggregation.quorum, for example to 75%, or remove it",
    ),
    (
        "{aggregation: {stragglerFactor: 2, quorum: 3}}",
        "spec.aggregation.stragglerFactor: has no effect with quorum 3: a round waits for all 3 workers",
    ),
    (
        "{aggregation: {stragglerFactor: 1, quorum: 50%}}",
        "spec.aggregation.stragglerFactor: 1 is too small: write a number above 1 and at most 1000",
    ),
    # buffer
    (
        "{aggregation: {buffer: {size: 4}}}",
        "spec.aggregation.buffer.size: 4 can never be reached: each of 3 workers adds one update to a round "
        "at most: write at most 3",
    ),
    (
        "{aggregation: {buffer: {size: 2}, quorum: 3}}",
        "spec.aggregation.quorum: 3 can never be reached: buffer.size makes a round of 2 updates: write at "
        "most 2, or a percentage",
    ),
    (
        "{aggregation: {buffer: {size: 2}, name: median}}",
        "spec.aggregation.name: median compares updates of one model, in a buffer they are of several: write "
        "fedavg, fedavgm or fedadam, or aggregation.buffer.size: 0",
    ),
    (
        "{aggregation: {buffer: {size: 1}, clientFraction: 0.5}}",
        "spec.aggregation.clientFraction: with buffer.size nobody is sampled: every worker trains all the "
        "time: write clientFraction: 1",
    ),
    (
        "{aggregation: {buffer: {size: 2}, quorum: 50%, stragglerFactor: 2}}",
        "spec.aggregation.stragglerFactor: with buffer.size nobody is late: an update counts in a later "
        "round: remove it",
    ),
    (
        "{aggregation: {buffer: {size: 2}}, evaluation: {location: workers, every: round}}",
        "spec.evaluation.every: with aggregation.buffer.size workers train on while a round closes, "
        "evaluation would stop them: write every: task",
    ),
    (
        "{aggregation: {buffer: {size: 2}}, protocol: sedna, tasks: {count: 1}}",
        "spec.aggregation.buffer.size: with protocol: sedna every round waits for its workers: write 0",
    ),
    (
        "{aggregation: {buffer: {size: 2, maxStaleness: -1}}}",
        "spec.aggregation.buffer.maxStaleness: -1 is too small",
    ),
    # krum
    (
        "{aggregation: {name: krum}}",
        "spec.aggregation.parameters.byzantine: krum against 1 needs 2f + 3 = 5 workers a round, 3 "
        "are sampled: "
        "lower byzantine to 0 or add workers",
    ),
    (
        "{aggregation: {name: krum, parameters: {keep: 4}}, workers: [{replicas: 6}]}",
        "spec.aggregation.parameters.keep: krum cannot keep 4 of 6 updates against 1: "
        "write at most workers - byzantine - 2 = 3",
    ),
    # workers
    (
        "{workers: [{name: a}, {name: b}, {name: a}]}",
        "spec.workers[2].name: a is also the name of spec.workers[0]: name each group once",
    ),
    (
        "{workers: [{name: report}]}",
        "spec.workers[0].name: report is reserved: write another name than aggregation, report, "
        "spec, credentials",
    ),
    (
        "{workers: [{name: a, dataset: {labelRatio: 0}}, {name: b, dataset: {labelRatio: 0}}]}",
        "spec.workers: every group has dataset.labelRatio 0, so nobody holds a label: "
        "give at least one group a labelRatio above 0",
    ),
    (
        "{workers: [" + ", ".join(f"{{name: g{i}, replicas: 1000}}" for i in range(11)) + "]}",
        "spec.workers: are 11000 workers: write at most 10000 over all groups",
    ),
    # aggregator
    (
        "{aggregator: {expose: {type: HostPort}}}",
        "spec.aggregator.nodeName: is missing although expose.type is HostPort: write the node "
        "whose port it is",
    ),
    (
        "{aggregator: {expose: {port: 30000}}}",
        "spec.aggregator.expose.port: has no effect with type ClusterIP: write type: NodePort or "
        "HostPort, or remove it",
    ),
    (
        "{aggregator: {checkpoint: {size: 1GB}}}",
        "spec.aggregator.checkpoint.size: '1GB' is no quantity: Kubernetes writes G or Gi for GB",
    ),
    (
        "{aggregator: {checkpoint: {size: '0'}}}",
        "spec.aggregator.checkpoint.size: 0 is too small: write a quantity",
    ),
    (
        "{aggregator: {checkpoint: {size: 1Gi, volume: {hostPath: {path: /c}}}}}",
        "spec.aggregator.checkpoint: has both volume and size: keep one: size makes a new claim",
    ),
    (
        "{aggregator: {checkpoint: {storageClassName: fast}}}",
        "spec.aggregator.checkpoint.size: is missing although storageClassName is given: write a "
        "size such as 1Gi",
    ),
    # report
    (
        "{report: {prometheus: {url: 'prometheus:9090'}}}",
        "spec.report.prometheus.url: 'prometheus:9090' is no URL: write http://HOST:PORT or https://...",
    ),
    # Sedna
    (
        "{protocol: sedna}",
        "spec.tasks.count: 5 tasks with protocol: sedna, whose workers know rounds only: write count: 1, and "
        "all classes as classesPerTask",
    ),
    (
        "{protocol: sedna, tasks: {count: 1}, algorithm: {name: icarl}}",
        "spec.algorithm.name: icarl exchanges more than weights, which protocol: sedna cannot carry: write "
        "finetune or fedprox, or protocol: engram",
    ),
    (
        "{protocol: sedna, tasks: {count: 1}, aggregation: {clientFraction: 0.5}}",
        "spec.aggregation.clientFraction: with protocol: sedna every worker trains in every round: write "
        "clientFraction: 1, or protocol: engram",
    ),
    (
        "{protocol: sedna, tasks: {count: 1}, evaluation: {location: workers}}",
        "spec.evaluation.location: with protocol: sedna nobody can ask workers to evaluate: write "
        "location: aggregator, or protocol: engram",
    ),
    (
        "{protocol: sedna, tasks: {count: 1}, dataset: {name: none}}",
        "spec.model.name: is given although dataset.name is none: write none for both, or name both: "
        "without data nobody can tell what the model's input is",
    ),
    (
        "{dataset: {name: none}}",
        "spec.dataset.name: none is for protocol: sedna only: write what the workers train",
    ),
]


@pytest.mark.parametrize(("spec", "message"), BAD, ids=lambda value: value[:60])
def test_rules_that_span_fields(refuse: Refuse, spec: str, message: str) -> None:
    told = refuse(spec)
    assert told.startswith("job.yaml: spec.")
    assert message in told


GOOD = [
    "{tasks: {count: 3, classesPerTask: 3}}",
    "{tasks: {count: 2, classOrder: listed, classes: [3, 1, 9, 0]}}",
    "{dataset: {name: imagenet}, tasks: {count: 10, classesPerTask: 100}}",
    "{dataset: {name: image-folder}, tasks: {count: 10, classesPerTask: 500}}",
    "{dataset: {name: 'my_package.data:Photos'}, model: {name: 'm:build'}, algorithm: {name: '_a.b.c:D_e'}}",
    "{algorithm: {name: 'm:A', parameters: {anything: [1, {a: b}]}}}",
    "{algorithm: {name: replay, parameters: {exemplarsPerWorker: 0, weightAlignment: off}}}",
    "{algorithm: {name: fedprox, parameters: {mu: 1}}}",
    "{algorithm: {name: glfc, parameters: {proxyServer: reconstruct, acceptPrivacyRisk: true}}}",
    "{algorithm: {name: fedlwf, parameters: {unlabelled: true}}, dataset: {labelRatio: 0.5}}",
    "{algorithm: {name: fedewc, parameters: {unlabelled: true}}, workers: [{name: a}, {name: b, dataset:"
    " {labelRatio: 0}}]}",
    "{algorithm: {name: scaffold}, aggregation: {name: fedadam}}",
    "{algorithm: {name: feddyn}, training: {optimizer: {name: adam}}, aggregation: {name: median}}",
    "{model: {name: cnn, parameters: {channels: [8, 16, 32], dense: 64}}}",
    "{aggregation: {name: krum}, workers: [{replicas: 5}]}",
    "{aggregation: {name: krum, clientFraction: 0.5}, workers: [{replicas: 9}]}",
    "{aggregation: {name: krum, parameters: {byzantine: 2, keep: 3}}, workers: [{name: a, replicas:"
    " 4}, {name: b}]}",
    "{aggregation: {quorum: 3}}",
    "{aggregation: {quorum: 1, clientFraction: 0.01}}",
    "{aggregation: {quorum: 75%, stragglerFactor: 2}}",
    "{aggregation: {buffer: {size: 3}}}",
    "{aggregation: {name: fedadam, quorum: 50%, buffer: {size: 2, maxStaleness: 0}}}",
    "{aggregation: {buffer: {size: 2}}, evaluation: {location: workers}}",
    "{aggregation: {quorum: 3, stragglerFactor: 1.5}, dataset: {partition: {method: local}}}",
    "{workers: [{name: a, dataset: {labelRatio: 0}}, {name: b}]}",
    "{aggregator: {expose: {type: HostPort}, nodeName: node-1}}",
    "{aggregator: {checkpoint: {size: 1Gi, storageClassName: fast}}}",
    "{report: {prometheus: {url: 'https://prometheus.example'}}}",
    "{protocol: engram, aggregation: {compression: topk, topkShare: 1}}",
    "{protocol: sedna, tasks: {count: 1, classesPerTask: 10}, algorithm: {name: fedprox}}",
    "{protocol: sedna, tasks: {count: 1}, dataset: {name: none}, model: {name: none}}",
]


@pytest.mark.parametrize("spec", GOOD, ids=lambda value: value[:60])
def test_jobs_that_are_right(parse: Parse, spec: str) -> None:
    parse(spec)


def test_krum_counts_the_sampled_workers(refuse: Refuse) -> None:
    told = refuse("{aggregation: {name: krum, clientFraction: 0.5}, workers: [{replicas: 8}]}")
    assert "needs 2f + 3 = 5 workers a round, 4 are sampled: lower byzantine to 0 or add workers" in told


def test_all_rules_are_told_at_once(refuse: Refuse) -> None:
    lines = refuse(
        "{tasks: {count: 6}, workers: [{name: spec}], report: {prometheus: {url: nowhere}}}"
    ).splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "spec.tasks",
        "spec.workers[0].name",
        "spec.report.prometheus.url",
    ]
    assert all(line.startswith("job.yaml: ") for line in lines)


@pytest.mark.parametrize(
    ("workers", "fraction", "sampled"), [(3, 1.0, 3), (3, 0.5, 2), (5, 0.1, 1), (1, 0.01, 1)]
)
def test_sampled_workers(parse: Parse, workers: int, fraction: float, sampled: int) -> None:
    spec = f"{{workers: [{{replicas: {workers}}}], aggregation: {{clientFraction: {fraction}}}}}"
    assert sampled_workers(parse(spec).spec) == sampled


def test_errors_keep_their_parts() -> None:
    text = (
        "apiVersion: engram.dev/v1alpha1\nkind: FederatedIncrementalJob\nmetadata: {name: a}\n"
        "spec: {workers: [{name: spec}]}\n"
    )
    with pytest.raises(ConfigurationError) as caught:
        parse_job(load_yaml(text), "x.yaml")
    assert (caught.value.file, caught.value.field) == ("x.yaml", "spec.workers[0].name")
    assert caught.value.problem == "spec is reserved"
    assert caught.value.remedy.startswith("write another name")
