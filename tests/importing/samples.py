"""Small inputs in the shapes that Ianvs and Sedna publish, and a stand-in for the files that a file names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from engram.importing import ianvs, sedna
from engram.importing.draft import Imported
from engram.importing.ledger import Document, Reading, path_text
from engram.importing.render import account, job_text
from engram.spec import FederatedIncrementalJob, load_yaml, parse_job

ACCESS_KEY, SECRET_KEY = "a-key-of-minio", "hunter2-of-minio"
"""What must never be seen again."""


class Given:
    """Files by the path that names them, as `engram.importing.files.Files` finds them on a disk."""

    def __init__(self, files: Mapping[str, Any]) -> None:
        self._files = files

    def follow(self, reference: Reading) -> Document:
        """Return the file called so."""
        if reference.text() not in self._files:
            raise reference.error("was not found")
        return Document(reference.text(), self._files[reference.text()])

    def data_path(self, written: str) -> str:
        """Return it unchanged: the job is written where Ianvs would run."""
        return written


def from_ianvs(files: Mapping[str, Any]) -> Imported:
    """Import the benchmark whose first file is `bench.yaml`."""
    return ianvs.convert(Document("bench.yaml", files["bench.yaml"]), Given(files))


def from_sedna(*documents: Any, dialect: bool = False) -> Imported:
    """Import the documents of one input."""
    numbered = [Document(f"input: document {number}", value) for number, value in enumerate(documents, 1)]
    return sedna.convert(numbered, dialect=dialect)


def text_of(imported: Imported) -> str:
    """The job file as it is written."""
    return job_text(imported, account(imported, "a test", ["engram run job.yaml"]))


def valid(imported: Imported) -> FederatedIncrementalJob:
    """The job as everybody reads it; fails for one that is not valid."""
    return parse_job(load_yaml(text_of(imported)))


def fates(imported: Imported) -> dict[str, list[tuple[str, str]]]:
    """`file: field` -> where it went (empty: nowhere) and the remark, for each entry."""
    found: dict[str, list[tuple[str, str]]] = {}
    for entry in imported.entries:
        place = f"{entry.file}: {path_text(entry.path)}"
        found.setdefault(place, []).append((entry.target, entry.remark))
    return found


def assumed(imported: Imported) -> dict[str, str]:
    """Field -> why, of what the input does not say."""
    return {item.field.partition(":")[0]: item.why for item in imported.assumed}


def copy(value: Any) -> Any:
    """A deep copy of plain data."""
    return json.loads(json.dumps(value))


def benchmark() -> dict[str, Any]:
    """A federated class-incremental benchmark on digits."""
    return {
        "bench.yaml": {
            "benchmarkingjob": {
                "name": "Digits_Benchmark",
                "workspace": "./workspace",
                "testenv": "./env/testenv.yaml",
                "test_object": {
                    "type": "algorithms",
                    "algorithms": [{"name": "fedavg_test", "url": "./fedavg/algorithm.yaml"}],
                },
                "rank": {
                    "sort_by": [{"task_avg_acc": "descend"}, {"forget_rate": "ascend"}],
                    "visualization": {"mode": "selected_only", "method": "print_table"},
                    "selected_dataitem": {"paradigms": ["all"], "metrics": ["accuracy"]},
                    "save_mode": "selected_and_all",
                },
            }
        },
        "./env/testenv.yaml": {
            "testenv": {
                "backend": "keras",
                "dataset": {
                    "name": "digits",
                    "train_url": "./data/digits/train.txt",
                    "test_url": "./data/digits/test.txt",
                },
                "model_eval": {"model_metric": {"name": "accuracy", "url": "./acc.py"}, "threshold": 0.01},
                "metrics": [{"name": "task_avg_acc"}, {"name": "accuracy", "url": "./acc.py"}],
                "task_size": 2,
                "incremental_rounds": 3,
                "round": 4,
                "client_number": 2,
            }
        },
        "./fedavg/algorithm.yaml": algorithm(
            "FedAvg-Client", batch_size=[16], learning_rate=[0.05], epochs=[2]
        ),
    }


def algorithm(name: str, **hyperparameters: Any) -> dict[str, Any]:
    """An algorithm file whose basemodel is called `name`."""
    return {
        "algorithm": {
            "paradigm_type": "federatedclassincrementallearning",
            "fl_data_setting": {
                "train_ratio": 1.0,
                "splitting_method": "default",
                "label_data_ratio": 0.5,
                "data_partition": "iid",
            },
            "initial_model_url": "./models/cnn.pb",
            "modules": [
                {
                    "type": "basemodel",
                    "name": name,
                    "url": "./basemodel.py",
                    "hyperparameters": [{key: {"values": values}} for key, values in hyperparameters.items()],
                },
                {"type": "aggregation", "name": "FedAvg", "url": "./aggregation.py"},
            ],
        }
    }


def sedna_job() -> dict[str, Any]:
    """A FederatedLearningJob with an aggregator in the cloud and two workers at the edge."""
    return {
        "apiVersion": "sedna.io/v1alpha1",
        "kind": "FederatedLearningJob",
        "metadata": {"name": "tile-defects", "namespace": "factory"},
        "spec": {
            "pretrainedModel": {"name": "tile-pretrained"},
            "transmitter": {"ws": {}},
            "aggregationWorker": {
                "model": {"name": "tile-model"},
                "template": {
                    "spec": {
                        "nodeName": "cloud",
                        "containers": [
                            {
                                "name": "agg-worker",
                                "image": "example/tile-aggregation:1",
                                "env": [{"name": "exit_round", "value": "3"}],
                                "resources": {"limits": {"memory": "2Gi"}},
                            }
                        ],
                    }
                },
            },
            "trainingWorkers": [sedna_worker(1), sedna_worker(2)],
        },
    }


def sedna_worker(number: int, **container: Any) -> dict[str, Any]:
    """A training worker at the edge node `edge<number>`."""
    return {
        "dataset": {"name": f"tiles-{number}"},
        "template": {
            "spec": {
                "nodeName": f"edge{number}",
                "containers": [
                    {
                        "name": "train-worker",
                        "image": "example/tile-train:1",
                        "imagePullPolicy": "IfNotPresent",
                        "args": ["-i", str(number)],
                        "env": [
                            {"name": "batch_size", "value": "16"},
                            {"name": "learning_rate", "value": "1e-2"},
                            {"name": "epochs", "value": "2"},
                        ],
                        "resources": {"limits": {"memory": "2Gi"}},
                        **container,
                    }
                ],
            }
        },
    }


def sedna_objects() -> list[dict[str, Any]]:
    """The objects that `sedna_job` names, and a Secret with credentials."""
    datasets: Sequence[dict[str, Any]] = [
        {
            "apiVersion": "sedna.io/v1alpha1",
            "kind": "Dataset",
            "metadata": {"name": f"tiles-{number}"},
            "spec": {"url": f"/data/{number}/tiles.txt", "format": "txt", "nodeName": f"edge{number}"},
        }
        for number in (1, 2)
    ]
    model = {
        "apiVersion": "sedna.io/v1alpha1",
        "kind": "Model",
        "metadata": {"name": "tile-model"},
        "spec": {"url": "/model", "format": "pb"},
    }
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "minio"},
        "stringData": {"ACCESS_KEY_ID": ACCESS_KEY, "SECRET_ACCESS_KEY": SECRET_KEY},
    }
    return [*datasets, model, secret]
