"""dlib's serialized streams: packed integers, packed floats, strings and tensors.

The layout is that of dlib's `serialize.h` and `tensor.h`, read here without dlib.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sphereid.faces.errors import ModelError

_SIGN: Final = 0x80
_LENGTH: Final = 0x0F
_RESERVED: Final = 0x70
_SPECIAL: Final = {32000: math.inf, 32001: -math.inf, 32002: math.nan}


class StreamError(ModelError):
    """The bytes are not the stream that was expected."""


class Reader:
    """Reads one dlib stream from front to back; every method moves past what it returns.

    All raise StreamError, with the offset, when the stream is cut short or holds something else.
    """

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self.offset = 0

    def take(self, count: int) -> memoryview:
        """The next `count` bytes."""
        end = self.offset + count
        if end > len(self._data):
            raise StreamError(
                f"the stream ends early: {count} bytes wanted at offset {self.offset} of {len(self._data)}"
            )
        piece = self._data[self.offset : end]
        self.offset = end
        return piece

    def integer(self) -> int:
        """A packed integer: a control byte (bit 7 sign, bits 0 to 3 length), then little-endian bytes."""
        start = self.offset
        control = self.take(1)[0]
        length = control & _LENGTH
        if control & _RESERVED or not 1 <= length <= 8:
            raise StreamError(f"no packed integer at offset {start}: control byte 0x{control:02x}")
        value = int.from_bytes(self.take(length), "little")
        return -value if control & _SIGN else value

    def real(self) -> float:
        """A packed float: mantissa and exponent as packed integers, mantissa · 2^exponent."""
        mantissa, exponent = self.integer(), self.integer()
        if exponent in _SPECIAL:
            return _SPECIAL[exponent]
        try:
            return math.ldexp(mantissa, exponent)
        except OverflowError:
            raise StreamError(f"no packed float before offset {self.offset}: exponent {exponent}") from None

    def string(self) -> str:
        """A length as packed integer, then that many bytes."""
        start = self.offset
        length = self.integer()
        try:
            if 0 <= length <= 256:
                return bytes(self.take(length)).decode("ascii")
        except UnicodeDecodeError:
            pass
        raise StreamError(f"no name at offset {start}")

    def boolean(self) -> bool:
        """One character, `1` or `0`."""
        start = self.offset
        value = bytes(self.take(1))
        if value not in (b"0", b"1"):
            raise StreamError(f"no boolean at offset {start}: {value!r}")
        return value == b"1"

    def integers(self, count: int) -> tuple[int, ...]:
        """`count` packed integers."""
        return tuple(self.integer() for _ in range(count))

    def expect(self, *wanted: int | str) -> None:
        """Read integers and strings that must have these values."""
        for value in wanted:
            start = self.offset
            found = self.integer() if isinstance(value, int) else self.string()
            if found != value:
                raise StreamError(f"expected {value!r} at offset {start}, found {found!r}")

    def tensor(self) -> NDArray[np.float32]:
        """A tensor: version 2, four dimensions (samples, channels, rows, columns), little-endian float32."""
        self.expect(2)
        start = self.offset
        shape = self.integers(4)
        if min(shape) < 0 or 4 * math.prod(shape) > len(self._data):
            raise StreamError(f"no tensor at offset {start}: dimensions {shape}")
        raw = self.take(4 * math.prod(shape))
        return np.frombuffer(raw, dtype="<f4").reshape(shape).astype(np.float32)

    def end(self) -> None:
        """Check that nothing is left."""
        if self.offset != len(self._data):
            raise StreamError(f"{len(self._data) - self.offset} bytes are left at offset {self.offset}")
