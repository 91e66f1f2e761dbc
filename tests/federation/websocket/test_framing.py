"""Heads and masks, beside the library's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.utils import apply_mask

from engram.federation.websocket.framing import BINARY, CONTINUATION, Head, Mask, head_bytes, head_of

SIZES = [0, 1, 125, 126, 65_535, 65_536, 1_000_000]
KEY = bytes([1, 200, 3, 77])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("opcode", [CONTINUATION, BINARY])
def test_a_head_is_read_and_written_as_the_library_writes_it(size: int, fin: bool, opcode: int) -> None:
    for mask in (b"", KEY):
        data = Frame(Opcode(opcode), bytes(size), fin).serialize(mask=bool(mask))
        head = head_of(data)
        assert head is not None
        assert len(data) - head.length == size
        assert head == Head(opcode, fin, size, data[head.length - len(mask) : head.length], head.length)
        again = head_bytes(opcode, fin=fin, size=size, mask=head.mask)
        assert again == data[: head.length]
        assert {head_of(data[:cut]) for cut in range(head.length)} == {None}


@pytest.mark.parametrize(("first", "opcode"), [(0x82, 2), (0xC2, 0x42), (0x89, 9), (0x81, 1)])
def test_reserved_bits_make_an_opcode_of_their_own(first: int, opcode: int) -> None:
    head = head_of(bytes([first, 3]) + b"abc")
    assert head is not None
    assert head.opcode == opcode


@given(st.binary(max_size=200), st.lists(st.integers(0, 40), max_size=8))
def test_a_mask_in_parts_is_the_librarys(data: bytes, cuts: list[int]) -> None:
    masked, place = bytearray(data), memoryview(bytearray(len(data)))
    mask, start = Mask(KEY), 0
    for size in [*cuts, len(data)]:
        end = min(start + size, len(data))
        mask.apply(data[start:end], place[start:end], start)
        part = memoryview(masked)[start:end]
        mask.apply(part, part, start)
        start = end
    assert bytes(place) == bytes(masked) == apply_mask(data, KEY)
