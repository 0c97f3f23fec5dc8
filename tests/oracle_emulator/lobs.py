"""Large objects, all temporary. The client receives or requests a locator for each."""

import secrets

from tests.oracle_emulator import values

LENGTH = 40  # of a locator, in bytes
CHUNK = 8132  # the read size recommended to clients


class LargeObjects:
    """A session's large objects by locator. CLOBs are kept in UTF-16, as on the wire."""

    def __init__(self) -> None:
        self._objects: dict[bytes, bytearray] = {}

    def create(self, kind: int, value: str | bytes = b"") -> bytes:
        """The locator of a new large object. The driver reads the flags in its bytes 4 to 7."""
        locator = bytearray(b"\x00\x26" + secrets.token_bytes(LENGTH - 2))
        locator[4] = 0x01 if kind == values.BLOB else 0
        locator[5] = 0x08
        locator[6] = 0x80 if kind == values.CLOB else 0  # UTF-16
        locator[7] = 0x01  # temporary: the driver will free it
        data = value.encode("utf-16-be") if isinstance(value, str) else value
        self._objects[bytes(locator)] = bytearray(data)
        return bytes(locator)

    def find(self, locator: bytes) -> bytearray | None:
        """The bytes, which the caller may change."""
        return self._objects.get(locator)

    def free(self, locator: bytes) -> None:
        """Frees a large object."""
        self._objects.pop(locator, None)

    def value(self, locator: bytes, kind: int) -> str | bytes | None:
        """The whole content, as a bind's value."""
        if not locator:
            return None
        data = bytes(self._objects.get(locator, b""))
        return data.decode("utf-16-be") if kind == values.CLOB else data


def unit(locator: bytes) -> int:
    """The size in bytes of the client's unit: a UTF-16 code unit, or a byte."""
    return 2 if locator[6] & 0x80 else 1
