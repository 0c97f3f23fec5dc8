"""TTC's primitives, each the inverse of the one in python-oracledb's thin mode."""

import struct
from collections.abc import Callable
from typing import Self

LONG_VALUE = 0xFE  # instead of a length: chunks follow, each with its length
CHUNK = 32767
SHORT = 252  # the largest one-byte length


class Reader:
    """Reads a client's message; `more` fetches its next packet if it spans several."""

    def __init__(self, data: bytes, more: Callable[[], bytes]) -> None:
        self._data = bytearray(data)
        self._position = 0
        self._more = more

    def raw(self, length: int) -> bytes:
        """The next bytes, unchanged."""
        while len(self._data) - self._position < length:
            self._data += self._more()
        start = self._position
        self._position += length
        return bytes(self._data[start : self._position])

    def at_end(self) -> bool:
        """Whether all received bytes are read."""
        return self._position >= len(self._data)

    def byte(self) -> int:
        """One byte."""
        return self.raw(1)[0]

    def two_bytes(self) -> int:
        """A two-byte number, high byte first."""
        return int.from_bytes(self.raw(2), "big")

    def number(self) -> int:
        """A packed integer: its length (bit 7 set: negative), then its bytes, high byte first."""
        length = self.byte()
        value = int.from_bytes(self.raw(length & 0x7F), "big")
        return -value if length & 0x80 else value

    def numbers(self, count: int) -> list[int]:
        """Packed integers."""
        return [self.number() for _ in range(count)]

    def skip(self, layout: str) -> None:
        """Skips fields that do not matter here: `b` is a byte, `n` a packed integer."""
        for kind in layout:
            if kind == "b":
                self.byte()
            else:
                self.number()

    def value(self) -> bytes | None:
        """Bytes behind a one-byte length, or in chunks. Length 0 is NULL."""
        length = self.byte()
        if length in {0, 0xFF}:
            return None
        if length != LONG_VALUE:
            return self.raw(length)
        value = bytearray()
        while (chunk := self.number()) > 0:
            value += self.raw(chunk)
        return bytes(value)

    def counted(self) -> bytes:
        """A packed length and, unless it is 0, a value."""
        return (self.value() or b"") if self.number() else b""

    def text(self) -> str:
        """A counted value as text."""
        return self.counted().decode()

    def until_nul(self) -> bytes:
        """Bytes up to a NUL, without it."""
        found = bytearray()
        while (byte := self.byte()) != 0:
            found.append(byte)
        return bytes(found)


class Writer(bytearray):
    """Builds a server's message."""

    def byte(self, *values: int) -> Self:
        """Bytes."""
        self.extend(value & 0xFF for value in values)
        return self

    def two_bytes(self, value: int) -> Self:
        """A two-byte number, high byte first."""
        self.extend(struct.pack(">H", value))
        return self

    def number(self, *values: int) -> Self:
        """Packed integers."""
        for value in values:
            size = abs(value)
            length = (size.bit_length() + 7) // 8
            self.append(length | (0x80 if value < 0 else 0))
            self.extend(size.to_bytes(length, "big"))
        return self

    def value(self, data: bytes | None) -> Self:
        """Bytes behind their length, or in chunks; None and empty bytes are NULL."""
        if not data:
            self.append(0)
        elif len(data) <= SHORT:
            self.append(len(data))
            self.extend(data)
        else:
            self.append(LONG_VALUE)
            for start in range(0, len(data), CHUNK):
                chunk = data[start : start + CHUNK]
                self.number(len(chunk))
                self.extend(chunk)
            self.append(0)
        return self

    def counted(self, data: bytes | str | None) -> Self:
        """A packed length and, unless it is 0, the value."""
        encoded = data.encode() if isinstance(data, str) else data or b""
        self.number(len(encoded))
        return self.value(encoded) if encoded else self

    def raw(self, data: bytes) -> Self:
        """The bytes, unchanged."""
        self.extend(data)
        return self
