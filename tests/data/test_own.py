from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engram.data import load_dataset
from engram.errors import ConfigurationError, DataError

Module = Callable[[str], str]
_numbers = itertools.count()

SOURCE = """
import numpy as np
class Source:
    shape = (1, 2, 2)
    def __init__(self, count=6):
        self.labels = np.arange(count, dtype=np.int64) % 3
    def read(self, indices):
        return np.zeros((len(indices), *self.shape), np.float32)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    """Write a module and return its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text: str) -> str:
        name = f"users_own_data_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        return name

    return write


def both(train: str = "Source()", test: str = "Source(3)", before: str = "", after: str = "pass") -> str:
    """Return a module with a class Mine that has two sources."""
    return f"""{SOURCE}
{before}
class Mine:
    def __init__(self, root):
        self.root, self.train, self.test = root, {train}, {test}
        {after}
"""


def test_an_object_with_two_sources(module: Module, tmp_path: Path) -> None:
    name = module(both())
    dataset = load_dataset(f"{name}:Mine", tmp_path)
    assert dataset.name == f"{name}:Mine"
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.train.read(np.arange(2)).shape == (2, 1, 2, 2)
    assert len(dataset.sha256) == 64
    assert load_dataset(f"{name}:Mine", None).sha256 == dataset.sha256


def test_a_function_that_returns_a_data_set(module: Module) -> None:
    text = """
    from engram.data import DataSet
    def mine(root):
        return DataSet("x", Source(), Source(), ("a", "b", "c"), "digest")
    """
    dataset = load_dataset(f"{module(SOURCE + textwrap.dedent(text))}:mine", None)
    assert dataset.class_names == ("a", "b", "c")
    assert dataset.sha256 == "digest"


def test_the_root_reaches_the_class(module: Module, tmp_path: Path) -> None:
    name = module(both(before="seen = []", after="seen.append(root)"))
    load_dataset(f"{name}:Mine", tmp_path)
    assert __import__(name).seen == [tmp_path]


FAILING = """
def helper():
    return 1 / 0
def Mine(root):
    return helper()
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import no_such_package_here\n", r"(?s)no_such_package_here.*users_own_data_\d+.py"),
        ("x = 1 +\n", r"SyntaxError"),
        ("x = 1\n", r"has no Mine"),
        ("Mine = 3\n", r"is not callable"),
        (FAILING, r"(?s)ZeroDivisionError.*in Mine.*in helper"),
        ("def Mine(root):\n    return root\n", r"its `train` has no method read"),
        (both(test="None"), r"its `test` has no method read"),
        (both(before="Source.shape = (2, 2)"), r"`train.shape` is not \(channels"),
        (both(after="self.train.labels = [1]"), r"`train.labels` is not a numpy array of int64"),
        (both(after="self.test.shape = (1, 9, 9)"), r"train images have shape"),
    ],
)
def test_what_is_wrong_with_it_is_said(module: Module, text: str, words: str) -> None:
    name = module(text)
    with pytest.raises(ConfigurationError, match=words) as caught:
        load_dataset(f"{name}:Mine", None)
    assert caught.value.field == "spec.dataset.name"
    assert "importlib" not in str(caught.value)
    assert "own.py" not in str(caught.value)


def test_labels_outside_the_class_names(module: Module) -> None:
    name = module(both(after="self.class_names = ['a', 'b']"))
    with pytest.raises(DataError, match=r"train.labels: label 2 is not in 0\.\.1"):
        load_dataset(f"{name}:Mine", None)


def test_its_own_data_error_passes(module: Module) -> None:
    name = module(
        "from engram.errors import DataError\ndef mine(root):\n    raise DataError('put x there')\n"
    )
    with pytest.raises(DataError, match=r"^put x there$"):
        load_dataset(f"{name}:mine", None)
