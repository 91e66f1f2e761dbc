"""Data: sets, split into tasks, partition over workers, label scarcity. No torch; images are numpy arrays.

    load_dataset(name, root)              DataSet        registry.py, sources/*: one module a file format
    class_order(job, class_count)         tasks          tasks.py
    make_split(job, dataset)              Split          split.py over selection, partition, scarcity
    local_share(job, worker, dataset)     WorkerShare    what one worker holds
    label_counts, test_counts             for the report

Importing this package loads numpy only; scikit-learn's file, Pillow and the user's own code are reached when
a data set that needs them is loaded.
"""

from engram.data.registry import load_dataset
from engram.data.split import (
    evaluation_source,
    label_counts,
    local_share,
    make_split,
    share_warnings,
    test_counts,
)
from engram.data.tasks import class_order
from engram.data.types import DataSet, ImageSource, Indices, Split, TaskShare, WorkerShare

__all__ = [
    "DataSet",
    "ImageSource",
    "Indices",
    "Split",
    "TaskShare",
    "WorkerShare",
    "class_order",
    "evaluation_source",
    "label_counts",
    "load_dataset",
    "local_share",
    "make_split",
    "share_warnings",
    "test_counts",
]
