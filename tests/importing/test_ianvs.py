"""Benchmarking jobs of Ianvs: what each field becomes, and what is said of the rest."""

from __future__ import annotations

from typing import Any

import pytest

from engram.errors import ConfigurationError
from engram.spec.algorithms import ALGORITHMS
from tests.importing.samples import algorithm, assumed, benchmark, fates, from_ianvs, text_of, valid

ENVIRONMENT, ALGORITHM = "./env/testenv.yaml", "./fedavg/algorithm.yaml"


def changed(file: str, path: str, value: Any) -> dict[str, Any]:
    """The sample with another value at the dotted `path` of `file`; None removes it."""
    files = benchmark()
    node = files[file]
    *keys, last = (int(step) if step.isdigit() else step for step in path.split("."))
    for key in keys:
        node = node[key]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return files


def environment(**values: Any) -> dict[str, Any]:
    """The sample with other values in its test environment."""
    files = benchmark()
    files[ENVIRONMENT]["testenv"].update(values)
    return files


def setting(**values: Any) -> dict[str, Any]:
    """The sample with other values in its data setting."""
    files = benchmark()
    files[ALGORITHM]["algorithm"]["fl_data_setting"].update(values)
    return files


def module(name: str, **hyperparameters: Any) -> dict[str, Any]:
    """The sample with another basemodel."""
    files = benchmark()
    files["bench.yaml"]["benchmarkingjob"]["test_object"]["algorithms"][0]["name"] = "under test"
    files[ALGORITHM] = algorithm(name, **hyperparameters)
    return files


def test_the_sample_becomes_the_job_that_it_describes() -> None:
    imported = from_ianvs(benchmark())
    job = valid(imported)
    spec = job.spec
    assert job.name == "digits-benchmark"
    assert (spec.dataset.name, spec.dataset.label_ratio) == ("digits", 0.5)
    assert spec.dataset.partition.method == "iid"
    assert (spec.tasks.count, spec.tasks.classes_per_task, spec.tasks.class_order) == (3, 2, "natural")
    assert (spec.training.rounds_per_task, spec.training.local_epochs, spec.training.batch_size) == (4, 2, 16)
    assert spec.training.optimizer.learning_rate == 0.05
    assert (spec.algorithm.name, spec.aggregation.name, spec.model.name) == ("finetune", "fedavg", "cnn")
    assert [(group.name, group.replicas) for group in spec.workers] == [("edge", 2)]
    assert imported.options == ("--rank", "accuracy:descend,forget_rate_ianvs:ascend")


def test_what_has_no_counterpart_is_said_with_why() -> None:
    found = fates(from_ianvs(benchmark()))
    for place, words in {
        "bench.yaml: benchmarkingjob.workspace": "engram run --out",
        "bench.yaml: benchmarkingjob.rank.visualization": "leaderboard",
        f"{ENVIRONMENT}: testenv.backend": "PyTorch",
        f"{ENVIRONMENT}: testenv.model_eval": "after every task",
        f"{ENVIRONMENT}: testenv.metrics[1].url": "not run",
        f"{ALGORITHM}: algorithm.modules[0].url": "own-code",
        f"{ALGORITHM}: algorithm.fl_data_setting.splitting_method": "by class",
    }.items():
        ((target, remark),) = found[place]
        assert target == ""
        assert words in remark


def test_nothing_is_called_equal_that_is_only_near() -> None:
    remarks = " ".join(entry.remark for entry in from_ianvs(module("GLFC-Client")).entries)
    assert "nearest to 'GLFC-Client'" in remarks
    assert "equal" not in remarks


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("FedAvg", "finetune"),
        ("fcil", "finetune"),
        ("FediCarl-Client", "icarl"),
        ("GLFCMatch-Client", "glfc" if "glfc" in ALGORITHMS else "icarl"),
        ("fci_ssl", "semifci" if "semifci" in ALGORITHMS else "icarl"),
        ("FedCI_Match", "semifci" if "semifci" in ALGORITHMS else "icarl"),
        ("SemiFCI", "semifci" if "semifci" in ALGORITHMS else "icarl"),
        ("TARGET", "fedlwf"),
        ("FedProx", "fedprox"),
        ("fed-ewc", "fedewc"),
        ("FedLwF", "fedlwf"),
        ("LwF-Client", "fedlwf"),
        ("my_own_thing", "finetune"),
        ("targeted", "finetune"),
    ],
)
def test_algorithms_by_name(name: str, nearest: str) -> None:
    assert valid(from_ianvs(module(name))).spec.algorithm.name == nearest


def test_an_unknown_name_is_no_match_and_says_where_own_code_goes() -> None:
    found = fates(from_ianvs(module("my_own_thing")))
    ((target, remark),) = found[f"{ALGORITHM}: algorithm.modules[0].name"]
    assert target == "spec.algorithm.name"
    assert "no counterpart is known" in remark
    assert "package.module:Class" in remark


@pytest.mark.parametrize(
    ("name", "rule", "words"),
    [
        ("FedAvg", "fedavg", "aggregation.py is not run"),
        ("FedAvgM", "fedavgm", "aggregation.py is not run"),
        ("trimmed_mean", "trimmed-mean", "aggregation.py is not run"),
        ("MistNet", "fedavg", "no counterpart is known"),
        ("FedAvg-PEFT", "fedavg", "no counterpart is known"),
    ],
)
def test_aggregation_by_name(name: str, rule: str, words: str) -> None:
    imported = from_ianvs(changed(ALGORITHM, "algorithm.modules.1.name", name))
    assert valid(imported).spec.aggregation.name == rule
    assert words in fates(imported)[f"{ALGORITHM}: algorithm.modules[1].name"][0][1]


def test_several_values_become_a_grid() -> None:
    files = module("FedAvg", batch_size=[16, 32, 16], learning_rate=["0.1", 1e-05], epochs=[1])
    imported = from_ianvs(files)
    spec = valid(imported).spec
    assert (spec.training.batch_size, spec.training.optimizer.learning_rate) == (16, 0.1)
    assert imported.options[:4] == (
        "--vary",
        "training.batchSize=16,32",
        "--vary",
        "training.optimizer.learningRate=0.1,1e-05",
    )


def test_hyperparameters_of_the_algorithm_and_of_the_rule() -> None:
    files = module(
        "FediCarl", memory_size=[40], temperature=[2.5], mu=[0.1], api_key_env=["KEY"], momentum=[0]
    )
    modules = files[ALGORITHM]["algorithm"]["modules"]
    modules[1] |= {"name": "FedAvgM", "hyperparameters": [{"momentum": {"values": [0.5]}}]}
    imported = from_ianvs(files)
    spec = valid(imported).spec
    assert spec.algorithm.parameters == {"exemplarsPerWorker": 40, "temperature": 2.5}
    assert spec.training.optimizer.momentum == 0
    found = fates(imported)
    assert found[f"{ALGORITHM}: algorithm.modules[0].hyperparameters[2].mu.values"][0][0] == ""
    assert (
        "own code" in found[f"{ALGORITHM}: algorithm.modules[0].hyperparameters[3].api_key_env.values"][0][1]
    )


def test_the_rule_has_parameters_of_its_own_before_those_of_training() -> None:
    files = benchmark()
    modules = files[ALGORITHM]["algorithm"]["modules"]
    modules[1] |= {
        "name": "FedAdam",
        "hyperparameters": [{"beta1": {"values": [0.8]}}, {"learning_rate": {"values": [0.02]}}],
    }
    spec = valid(from_ianvs(files)).spec
    assert spec.aggregation.parameters == {"beta1": 0.8, "learningRate": 0.02}
    assert spec.training.optimizer.learning_rate == 0.05


def test_hyperparameters_of_further_files() -> None:
    files = module("FedAvg", other_hyperparameters=["./more.yaml"])
    files["./more.yaml"] = {"batch_size": 8, "optimizer": "AdamW", "scheduler": "cosine"}
    imported = from_ianvs(files)
    spec = valid(imported).spec
    assert (spec.training.batch_size, spec.training.optimizer.name) == (8, "adamw")
    assert fates(imported)["./more.yaml: scheduler"][0][0] == ""


def test_values_that_a_field_cannot_have_are_left_or_refused() -> None:
    imported = from_ianvs(module("FedAvg", batch_size=["many"], optimizer=["lion"], epochs=[]))
    found = fates(imported)
    where = f"{ALGORITHM}: algorithm.modules[0].hyperparameters"
    assert "takes no such value" in found[f"{where}[0].batch_size.values"][0][1]
    assert "takes no such value" in found[f"{where}[1].optimizer.values"][0][1]
    assert found[f"{where}[2].epochs.values"][0][1] == "has no value"
    valid(imported)
    with pytest.raises(ConfigurationError) as caught:
        from_ianvs(module("FedAvg", batch_size=[16, 0]))
    assert str(caught.value) == (
        f"{ALGORITHM}: algorithm.modules[0].hyperparameters[0].batch_size.values: 0 is too small for "
        "spec.training.batchSize: write a whole number from 1 to 1000000"
    )


def test_two_algorithms_are_one_job_with_a_grid_over_their_names() -> None:
    files = benchmark()
    listed = files["bench.yaml"]["benchmarkingjob"]["test_object"]["algorithms"]
    listed.append({"name": "icarl", "url": "./icarl/algorithm.yaml"})
    files["./icarl/algorithm.yaml"] = algorithm(
        "FediCarl", batch_size=[16], learning_rate=[0.05], epochs=[3], memory_size=[40]
    )
    imported = from_ianvs(files)
    assert imported.options[:2] == ("--vary", "algorithm.name=finetune,icarl")
    assert valid(imported).spec.training.local_epochs == 2
    found = fates(imported)
    where = "./icarl/algorithm.yaml: algorithm.modules[0]"
    assert found[f"{where}.name"][0][0] == "--vary algorithm.name"
    assert found[f"{where}.hyperparameters[0].batch_size.values"][0] == (
        "spec.training.batchSize",
        "the same as in the first algorithm",
    )
    for place in (
        f"{where}.hyperparameters[2].epochs.values",
        f"{where}.hyperparameters[3].memory_size.values",
    ):
        ((target, remark),) = found[place]
        assert target == ""
        assert "differs from the first algorithm" in remark


def test_an_algorithm_of_another_paradigm_is_left() -> None:
    files = benchmark()
    listed = files["bench.yaml"]["benchmarkingjob"]["test_object"]["algorithms"]
    listed.append({"name": "plain", "url": "./plain/algorithm.yaml"})
    files["./plain/algorithm.yaml"] = algorithm("FedAvg")
    files["./plain/algorithm.yaml"]["algorithm"]["paradigm_type"] = "federatedlearning"
    imported = from_ianvs(files)
    assert valid(imported).spec.tasks.count == 3
    ((target, remark),) = fates(imported)["./plain/algorithm.yaml: algorithm.paradigm_type"]
    assert (target, remark[:7]) == ("", "differs")


def test_the_same_field_twice_keeps_the_first() -> None:
    imported = from_ianvs(module("FedAvg", learning_rate=[0.1], lr=[0.2]))
    assert valid(imported).spec.training.optimizer.learning_rate == 0.1
    place = f"{ALGORITHM}: algorithm.modules[0].hyperparameters[1].lr.values"
    assert "has a value already" in fates(imported)[place][0][1]


def test_partition() -> None:
    assert valid(from_ianvs(setting(data_partition="non-iid"))).spec.dataset.partition.method == "shards"
    imported = from_ianvs(changed(ALGORITHM, "algorithm.fl_data_setting.data_partition", None))
    assert valid(imported).spec.dataset.partition.method == "iid"
    assert "data_partition is missing" in assumed(imported)["spec.dataset.partition.method"]
    with pytest.raises(
        ConfigurationError, match=r"data_partition: 'zipf' is not known to Ianvs: write iid or"
    ):
        from_ianvs(setting(data_partition="zipf"))


def test_a_training_share_is_not_mistaken_for_a_validation_share() -> None:
    imported = from_ianvs(setting(train_ratio=0.8))
    assert valid(imported).spec.dataset.validation_share == 0
    ((target, remark),) = fates(imported)[f"{ALGORITHM}: algorithm.fl_data_setting.train_ratio"]
    assert target == ""
    assert "validationShare" in remark


@pytest.mark.parametrize(
    ("ratio", "message"),
    [
        (0, "0 is too small for spec.dataset.labelRatio"),
        ("half", "'half' is not a number"),
        (1.5, "is too large"),
    ],
)
def test_label_ratios_that_cannot_be(ratio: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        from_ianvs(setting(label_data_ratio=ratio))
    assert str(caught.value).startswith(f"{ALGORITHM}: algorithm.fl_data_setting.label_data_ratio: ")
    assert message in str(caught.value)


def with_a_hundred_classes(name: str, **hyperparameters: Any) -> dict[str, Any]:
    """The shape of Ianvs' published class-incremental jobs: CIFAR-100, everything labelled."""
    files = module(name, **hyperparameters)
    files[ENVIRONMENT]["testenv"]["dataset"]["name"] = "cifar100"
    files[ENVIRONMENT]["testenv"].update(incremental_rounds=2, task_size=None)
    files[ALGORITHM]["algorithm"]["fl_data_setting"] = {"label_data_ratio": 1.0, "data_partition": "iid"}
    return files


@pytest.mark.parametrize("name", ["FediCarl-Client", "GLFC", "replay"])
def test_exemplars_have_room_for_every_class(name: str) -> None:
    imported = from_ianvs(with_a_hundred_classes(name))
    assert valid(imported).spec.algorithm.parameters["exemplarsPerWorker"] == 2000
    assert "20 of each class" in assumed(imported)["spec.algorithm.parameters.exemplarsPerWorker"]
    said = from_ianvs(with_a_hundred_classes(name, memory_size=[500]))
    assert valid(said).spec.algorithm.parameters["exemplarsPerWorker"] == 500
    assert "spec.algorithm.parameters.exemplarsPerWorker" not in assumed(said)


def test_where_all_is_labelled_an_algorithm_does_without_other_images() -> None:
    imported = from_ianvs(with_a_hundred_classes("FedCiMatch"))
    assert valid(imported).spec.dataset.label_ratio == 1
    field = "spec.algorithm.parameters.unlabelledWeight"
    assert "label_data_ratio" in assumed(imported)[field]
    with pytest.raises(ConfigurationError, match="helpers"):
        valid(from_ianvs(with_a_hundred_classes("FedCiMatch", helpers=[-1])))


class TestTasks:
    def test_classes_are_shared_out_where_no_size_is_given(self) -> None:
        imported = from_ianvs(changed(ENVIRONMENT, "testenv.task_size", None))
        tasks = valid(imported).spec.tasks
        assert (tasks.count, tasks.classes_per_task) == (3, 3)
        assert (
            assumed(imported)["spec.tasks.classesPerTask"] == "10 classes in 3 tasks; 1 classes are left over"
        )

    def test_a_size_that_the_data_cannot_have_is_left(self) -> None:
        imported = from_ianvs(environment(task_size=5))
        assert valid(imported).spec.tasks.classes_per_task == 3
        assert "10 classes of digits" in fates(imported)[f"{ENVIRONMENT}: testenv.task_size"][0][1]

    def test_more_tasks_than_classes_cannot_be(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            from_ianvs(environment(incremental_rounds=11))
        assert "testenv.incremental_rounds: 11 tasks need a class each, digits has 10" in str(caught.value)

    def test_silence_means_what_ianvs_takes(self) -> None:
        files = benchmark()
        for key in ("incremental_rounds", "round", "client_number", "task_size"):
            del files[ENVIRONMENT]["testenv"][key]
        imported = from_ianvs(files)
        spec = valid(imported).spec
        assert (spec.tasks.count, spec.training.rounds_per_task, spec.workers[0].replicas) == (2, 1, 1)
        assert {"spec.tasks.count", "spec.training.roundsPerTask", "spec.workers"} <= set(assumed(imported))

    def test_plain_federated_learning_is_one_task(self) -> None:
        files = changed(ALGORITHM, "algorithm.paradigm_type", "federatedlearning")
        imported = from_ianvs(files)
        spec = valid(imported).spec
        assert (spec.tasks.count, spec.tasks.classes_per_task, spec.dataset.label_ratio) == (1, 10, 1)
        found = fates(imported)
        for place in (
            f"{ENVIRONMENT}: testenv.incremental_rounds",
            f"{ENVIRONMENT}: testenv.task_size",
            f"{ALGORITHM}: algorithm.fl_data_setting.label_data_ratio",
        ):
            assert found[place][0][0] == ""

    def test_lifelong_learning_is_one_worker_without_rounds(self) -> None:
        files = changed(ALGORITHM, "algorithm.paradigm_type", "lifelonglearning")
        modules = files[ALGORITHM]["algorithm"]["modules"]
        modules[1] = {"type": "task_allocation", "name": "ByOrigin", "url": "./allocation.py"}
        imported = from_ianvs(files)
        spec = valid(imported).spec
        assert (spec.tasks.count, spec.training.rounds_per_task, spec.workers[0].replicas) == (3, 1, 1)
        assert fates(imported)[f"{ALGORITHM}: algorithm.modules[1]"][0][1].startswith("tasks are classes")


class TestData:
    @pytest.mark.parametrize(
        ("dataset", "name", "path"),
        [
            (
                {"name": "CIFAR_100", "train_url": "/d/x/train.txt", "test_url": "/d/x/test.txt"},
                "cifar100",
                "/d/x",
            ),
            (
                {"train_url": "./data/mnist/train.csv", "test_url": "./data/mnist/t.csv"},
                "mnist",
                "data/mnist",
            ),
            ({"train_index": "/a/cifar10_train.txt", "test_index": "/a/cifar10_test.txt"}, "cifar10", "/a"),
            ({"train_data": "/a/set.npz"}, "npz", "/a/set.npz"),
            ({"train_url": "/d/t/i.txt", "test_url": "/d/u/i.txt"}, "image-folder", "/d"),
            ({"train_url": "/d/i.txt", "test_url": "/e/i.txt"}, "image-folder", "/d"),
            ({"train_url": "s3://bucket/mnist/t.txt"}, "mnist", ""),
        ],
    )
    def test_name_and_path(self, dataset: dict[str, Any], name: str, path: str) -> None:
        files = environment(dataset=dataset, incremental_rounds=2, task_size=2)
        data = valid(from_ianvs(files)).spec.dataset
        assert (data.name, data.path) == (name, path)

    def test_a_guess_is_called_one(self) -> None:
        imported = from_ianvs(environment(dataset={"name": "our pictures", "train_url": "/d/i.txt"}))
        assert "train/<class>/" in assumed(imported)["spec.dataset.name"]
        assert fates(imported)[f"{ENVIRONMENT}: testenv.dataset.name"][0][0] == ""

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (
                {"dataset": {"train_data": "./t.jsonl"}},
                "testenv.dataset.train_data: a jsonl file has no counterpart",
            ),
            ({"dataset": {}}, "testenv.dataset.train_url: is missing"),
            ({"if_mode_llm": True}, "testenv.if_mode_llm: language models have no counterpart"),
            ({"dataset": "digits"}, "testenv.dataset: is 'digits', not a mapping"),
            ({"client_number": "two"}, "testenv.client_number: 'two' is not a whole number for spec.workers"),
            ({"client_number": 5000}, "testenv.client_number: 5000 is too large for spec.workers"),
            ({"round": 0}, "testenv.round: 0 is too small for spec.training.roundsPerTask"),
        ],
    )
    def test_what_cannot_be_imported(self, values: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            from_ianvs(environment(**values))
        assert str(caught.value).startswith(f"{ENVIRONMENT}: ")
        assert message in str(caught.value)


def test_forward_transfer_needs_unseen_classes_evaluated() -> None:
    assert valid(from_ianvs(environment(metrics=[{"name": "FWT"}]))).spec.evaluation.unseen
    assert not valid(from_ianvs(benchmark())).spec.evaluation.unseen


def test_gpus() -> None:
    assert valid(from_ianvs(environment(use_gpu=True))).spec.workers[0].gpus.count == 1
    assert valid(from_ianvs(environment(use_gpu=False))).spec.workers[0].gpus.count == 0


def test_ranks_that_engram_does_not_know_are_left() -> None:
    rank = {"sort_by": [{"map": "descend"}, {"BWT": "descend"}, {"samples_transfer_ratio": "ascend"}]}
    imported = from_ianvs(changed("bench.yaml", "benchmarkingjob.rank", rank))
    assert imported.options == ("--rank", "backward_transfer:descend")
    assert fates(imported)["bench.yaml: benchmarkingjob.rank.sort_by[0].map"][0][0] == ""
    with pytest.raises(
        ConfigurationError, match=r"sort_by\[0\].accuracy: 'up' is no direction: write ascend or"
    ):
        from_ianvs(changed("bench.yaml", "benchmarkingjob.rank.sort_by", [{"accuracy": "up"}]))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("bench.yaml", [1], "bench.yaml: is a list, not a benchmarking job"),
        ("bench.yaml", {"testenv": {}}, "bench.yaml: benchmarkingjob: is missing: this is a part of one"),
        (
            "bench.yaml",
            {"kind": "X"},
            "bench.yaml: benchmarkingjob: is missing: import a FederatedLearningJob",
        ),
        ("bench.yaml", {}, "bench.yaml: benchmarkingjob: is missing: name the file that starts with"),
        (
            ENVIRONMENT,
            {"algorithm": {}},
            f"{ENVIRONMENT}: testenv: is missing: name an Ianvs test environment",
        ),
        (ALGORITHM, {"testenv": {}}, f"{ALGORITHM}: algorithm: is missing: name an Ianvs algorithm file"),
    ],
)
def test_files_of_another_kind(file: str, content: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        from_ianvs({**benchmark(), file: content})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("paradigm", ["singletasklearning", "jointinference", "", "incrementallearning"])
def test_paradigms_without_a_counterpart(paradigm: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        from_ianvs(changed(ALGORITHM, "algorithm.paradigm_type", paradigm))
    assert str(caught.value).startswith(f"{ALGORITHM}: algorithm.paradigm_type: ")
    assert "engram imports federatedlearning" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("benchmarkingjob.test_object.type", "models", "test_object.type: is 'models', not algorithms"),
        ("benchmarkingjob.test_object.algorithms", [], "test_object.algorithms: is missing"),
        (
            "benchmarkingjob.test_object.algorithms",
            [{}] * 33,
            "test_object.algorithms: are 33: write at most 32",
        ),
        ("benchmarkingjob.testenv", "./other.yaml", "benchmarkingjob.testenv: was not found"),
    ],
)
def test_jobs_that_lead_nowhere(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        from_ianvs(changed("bench.yaml", path, value))
    assert str(caught.value).startswith("bench.yaml: benchmarkingjob.")
    assert message in str(caught.value)


def test_hyperparameters_with_secrets_are_not_shown() -> None:
    text = text_of(from_ianvs(module("FedAvg", openai_api_key=["hunter2"])))
    assert "openai_api_key" in text
    assert "hunter2" not in text
