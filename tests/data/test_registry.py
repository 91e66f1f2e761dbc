from __future__ import annotations

import subprocess
import sys

import pytest

from engram.data import load_dataset
from engram.data.registry import LOADERS
from engram.errors import ConfigurationError, DataError
from engram.spec.parameters import CLASS_COUNTS, DATASETS


def test_the_names_are_those_of_the_contract() -> None:
    assert tuple(LOADERS) == DATASETS


def test_class_counts_of_the_contract_are_true() -> None:
    assert len(load_dataset("digits", None).class_names) == CLASS_COUNTS["digits"]


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean fashion-mnist") as caught:
        load_dataset("fashion_mnist", None)
    assert caught.value.field == "spec.dataset.name"
    with pytest.raises(ConfigurationError, match=r"write one of digits.*package.module:Class"):
        load_dataset("zzz", None)


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in ("digits", "fashion-mnist")])
def test_a_set_that_needs_a_directory_says_what_belongs_there(name: str) -> None:
    with pytest.raises(DataError, match=f"data set {name} needs a directory: set spec.dataset.path"):
        load_dataset(name, None)


def test_import_is_light() -> None:
    code = (
        "import sys, engram.data; engram.data.load_dataset('digits', None); "
        "print([m for m in ('torch', 'sklearn', 'scipy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
