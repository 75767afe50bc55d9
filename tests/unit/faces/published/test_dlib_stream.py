"""The reader against a packer that follows dlib's documentation the other way round."""

import contextlib
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sphereid.faces.published.dlib.stream import Reader, StreamError


def pack(value: int) -> bytes:
    digits = abs(value).to_bytes(max(1, (abs(value).bit_length() + 7) // 8), "little")
    return bytes([len(digits) | (0x80 if value < 0 else 0)]) + digits


def pack_real(value: float) -> bytes:
    if value == math.inf:
        return pack(0) + pack(32000)
    if value == -math.inf:
        return pack(0) + pack(32001)
    if math.isnan(value):
        return pack(0) + pack(32002)
    mantissa, exponent = math.frexp(value)
    return pack(int(mantissa * 2**53)) + pack(exponent - 53)


@given(st.lists(st.integers(-(2**63), 2**63)))
def test_integers_come_back(values: list[int]) -> None:
    reader = Reader(b"".join(map(pack, values)))
    assert reader.integers(len(values)) == tuple(values)
    reader.end()


@given(st.floats())
def test_floats_come_back_exactly(value: float) -> None:
    found = Reader(pack_real(value)).real()
    assert found == value or (math.isnan(found) and math.isnan(value))


def test_string_and_tensor_come_back() -> None:
    numbers = np.arange(24, dtype="<f4").reshape(1, 2, 3, 4)
    stream = pack(4) + b"con_" + pack(2) + b"".join(map(pack, numbers.shape)) + numbers.tobytes() + b"10"
    reader = Reader(stream)
    assert reader.string() == "con_"
    np.testing.assert_array_equal(reader.tensor(), numbers)
    assert (reader.boolean(), reader.boolean()) == (True, False)
    reader.end()


@given(st.binary(max_size=64), st.sampled_from(["integer", "real", "string", "boolean", "tensor"]))
def test_any_bytes_are_read_or_refused(data: bytes, kind: str) -> None:
    reader = Reader(data)
    with contextlib.suppress(StreamError):
        getattr(reader, kind)()
    assert 0 <= reader.offset <= len(data)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "ends early"),
        (b"\x02\x01", "ends early"),
        (b"\x09" + bytes(9), "no packed integer"),
        (b"\x00", "no packed integer"),
        (b"\x41\x01", "no packed integer"),
    ],
)
def test_bad_integers(data: bytes, complaint: str) -> None:
    with pytest.raises(StreamError, match=complaint):
        Reader(data).integer()


def test_a_huge_tensor_is_refused_before_it_is_allocated() -> None:
    stream = pack(2) + pack(2**40) + pack(2**20) + pack(1) + pack(1)
    with pytest.raises(StreamError, match="no tensor at offset 2"):
        Reader(stream).tensor()


def test_expect_says_what_it_found() -> None:
    with pytest.raises(StreamError, match="expected 7 at offset 2, found 8"):
        Reader(pack(7) + pack(8)).expect(7, 7)


def test_leftovers_are_an_error() -> None:
    reader = Reader(struct.pack("4B", 1, 5, 1, 6))
    assert reader.integer() == 5
    with pytest.raises(StreamError, match="2 bytes are left"):
        reader.end()
