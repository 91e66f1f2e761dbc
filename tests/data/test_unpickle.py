from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.data.sources.unpickle import load_arrays
from engram.errors import DataError

BATCH: dict[bytes, Any] = {
    b"data": np.arange(12, dtype=np.uint8).reshape(3, 4),
    b"labels": [1, 2, 300],
    b"names": [b"a", "b"],
}


def complaint(content: bytes) -> str:
    """Return the text of the DataError that `content` gives; any other exception is a failure."""
    try:
        load_arrays(content, "batch")
    except DataError as error:
        return str(error)
    return "none"


class Attack:
    """Pickles to a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL))
def test_arrays_lists_and_bytes_come_back(protocol: int) -> None:
    loaded = load_arrays(pickle.dumps(BATCH, protocol=protocol), "batch")
    assert np.array_equal(loaded[b"data"], BATCH[b"data"])
    assert loaded[b"data"].dtype == np.uint8
    assert loaded[b"labels"] == [1, 2, 300]
    assert loaded[b"names"] == [b"a", "b"]


@pytest.mark.parametrize("dtype", ["<i8", ">i4", "<f4", ">u2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_plain_array_comes_back(dtype: str, order: Any) -> None:
    array = np.asarray(np.arange(6).reshape(2, 3), dtype=dtype, order=order)
    assert np.array_equal(load_arrays(pickle.dumps(array, protocol=2), "batch"), array)


def test_a_file_of_old_numpy_and_python_2_comes_back() -> None:
    text = pickle.dumps(BATCH[b"data"], protocol=2).replace(b"numpy._core", b"numpy.core")
    assert b"numpy.core.multiarray" in text
    assert np.array_equal(load_arrays(text, "batch"), BATCH[b"data"])
    assert load_arrays(b"\x80\x02}U\x06labels]K\x01as.", "batch") == {b"labels": [1]}


@pytest.mark.parametrize(
    "function", [eval, exec, __import__("os").system, __import__("subprocess").call, np.load, getattr, open]
)
def test_a_pickle_with_code_is_refused_and_never_run(function: Callable[..., Any], tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    arguments: dict[Any, tuple[object, ...]] = {
        eval: (f"open({str(proof)!r}, 'w')",),
        exec: (f"open({str(proof)!r}, 'w').close()",),
        open: (str(proof), "w"),
        np.load: (str(proof),),
        getattr: ("text", "upper"),
    }
    call = arguments.get(function, (f"touch {proof}",))
    content = pickle.dumps({b"data": Attack(function, *call)})
    with pytest.raises(DataError, match=r"data_batch_1: refused: the pickle asks for .* could run code"):
        load_arrays(content, "data_batch_1")
    assert not proof.exists()


def test_the_attack_of_the_test_above_would_work(tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    pickle.loads(pickle.dumps(Attack(exec, f"open({str(proof)!r}, 'w').close()")))
    assert proof.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80",
        b"no pickle",
        pickle.dumps(BATCH)[:-3],
        pickle.dumps({1, 2}),
        pickle.dumps((1, 2)),
        pickle.dumps(np.array([None, "text"], dtype=object), protocol=2),
        pickle.dumps(np.array(["text"]), protocol=2),
        pickle.dumps(np.zeros(2, "u1,i4"), protocol=2),
        b"cnumpy\nndarray\n.",
        b"cnumpy\nndarray\n}b.",
        b"c_codecs\nencode\n(N}X\x08\x00\x00\x00__code__K\x01s\x86b.",
        b"cnumpy._core.multiarray\n_reconstruct\n)R.",
        b"]q\x00h\x00a.",
        b"\x80\x04r\xff\xff\xff\xff.",
        b"B\xff\xff\xff\x7fabc.",
        b"cos\nsystem\n.",
        b"P1\n.",
    ],
)
def test_what_is_no_batch_is_a_data_error(content: bytes) -> None:
    with pytest.raises(DataError, match=r"^batch: "):
        load_arrays(content, "batch")


def test_an_array_that_claims_more_than_it_holds_is_refused() -> None:
    content = pickle.dumps(np.zeros(3, np.uint8), protocol=2)
    swollen = content.replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85")
    assert swollen != content
    with pytest.raises(DataError, match=r"shape .2147483647,. with 3 bytes"):
        load_arrays(swollen, "batch")


@given(
    place=st.integers(0, 10_000),
    value=st.integers(0, 255),
    cut=st.integers(0, 400),
    protocol=st.sampled_from([2, 4]),
)
def test_damage_gives_a_value_or_a_data_error(place: int, value: int, cut: int, protocol: int) -> None:
    content = bytearray(pickle.dumps(BATCH, protocol=protocol))
    content[place % len(content)] = value
    damaged = bytes(content[: len(content) - cut] if cut < len(content) else content)
    assert complaint(damaged).startswith(("batch: ", "none"))


@given(st.binary(max_size=80))
def test_any_bytes_give_a_value_or_a_data_error(content: bytes) -> None:
    assert complaint(content).startswith(("batch: ", "none"))
