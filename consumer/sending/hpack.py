"""HPACK (RFC 7541), the header compression of HTTP/2: encodes requests without state, decodes answers within limits.

No I/O.
"""

from collections.abc import Iterator
from functools import lru_cache

from consumer.sending.answer import HEAD_LIMIT

Field = tuple[bytes, bytes]

_TABLE = 4_096  # bytes of the dynamic table, the default (RFC 9113, 6.5.2)
_ENTRY = 32  # bytes that each entry counts beyond its name and value (section 4.1)
_UPDATES = 2  # changes of the table's size at the start of a block (section 4.2)
_LONGEST_NUMBER = 4  # bytes of a number after its first
_CACHED = 256  # bytes; longer strings are not cached
_NEVER_INDEXED = 0x10  # section 6.2.3: no proxy may put a field into a table; it may be a credential
_LONG = 127  # bytes from which on a string's length takes more than a byte
_SHORT = [bytes((length,)) for length in range(_LONG)]
_CONTENT_TYPE = b"\r\ncontent-type: "
_OWN_TABLE_IS_EMPTY = b"\x20"
# These belong to an HTTP/1.1 connection (RFC 9113, 8.2.2); `host` is sent as `:authority`.
_LEFT_OUT = frozenset((b"host", b"connection", b"keep-alive", b"proxy-connection", b"upgrade", b"te"))

# Appendix A. A name without a value stands alone.
_NAMES_AND_VALUES = """
:authority|:method=GET|:method=POST|:path=/|:path=/index.html|:scheme=http|:scheme=https|:status=200|:status=204
:status=206|:status=304|:status=400|:status=404|:status=500|accept-charset|accept-encoding=gzip, deflate|accept-language
accept-ranges|accept|access-control-allow-origin|age|allow|authorization|cache-control|content-disposition
content-encoding|content-language|content-length|content-location|content-range|content-type|cookie|date|etag|expect
expires|from|host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|link|location
max-forwards|proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|server|set-cookie
strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate
"""
_STATIC: tuple[Field, ...] = tuple(
    (name.encode(), value.encode())
    for name, _, value in (entry.partition("=") for entry in _NAMES_AND_VALUES.strip().replace("\n", "|").split("|"))
)
_AUTHORITY, _METHOD, _PATH = 1, 2, 4
_POST, _HTTPS = b"\x83", b"\x87"  # indexed fields: the method and the scheme

# Appendix B: the bytes of each code length. The code is canonical, so that the lengths determine it.
_LENGTHS: dict[int, bytes] = {
    5: b"012aceiost",
    6: b" %-./3456789=A_bdfghlmnpru",
    7: b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    8: b"&*,;XZ",
    10: b'!"()?',
    11: b"'+|",
    12: b"#>",
    13: b"\x00$@[]~",
    14: b"^}",
    15: b"<`{",
    19: bytes.fromhex("5cc3d0"),
    20: bytes.fromhex("808283a2b8c2e0e2"),
    21: bytes.fromhex("99a1a7acb0b1b3d1d8d9e3e5e6"),
    22: bytes.fromhex("818485868892 9a9ca0a3a4a9aaad b2b5b9babbbdbe c4c6e4e8e9"),
    23: bytes.fromhex("0187898a8b8c8d8f 9395969798 9b9d9e a5a6a8aeaf b4b6b7bcbf c5e7ef"),
    24: bytes.fromhex("098e9091949fabced7e1eced"),
    25: bytes.fromhex("c7cfeaeb"),
    26: bytes.fromhex("c0c1c8c9cacdd2d5dadbeef0f2f3ff"),
    27: bytes.fromhex("cbccd3d4d6dddedff1f4f5f6f7f8fafbfcfdfe"),
    28: bytes.fromhex("0203040506 0708 0b0c 0e0f10111213141517 18191a1b1c1d1e1f 7fdcf9"),
    30: bytes.fromhex("0a0d16"),  # the fourth code of 30 bits ends a string; it must not occur
}


class BadFields(Exception):
    """A header block that cannot be decoded, or is larger than allowed. The connection cannot be used any longer."""


# Requests.


def request_block(head: bytes, *, first: bool) -> bytes:
    """The header block of a request whose head has been rendered for HTTP/1.1, with Host as its first header.

    It uses no dynamic table, so that blocks do not depend on each other. The `first` block of a connection states this.
    """
    # The part before the content type is the same for all requests of a subscription.
    start, line_end, rest = head.removesuffix(b"\r\n\r\n").partition(_CONTENT_TYPE)
    block = _start_of_block(start) if line_end else _start_of_block.__wrapped__(start)
    if line_end:
        block += _fields_of((line_end + rest).split(b"\r\n")[1:])
    return _OWN_TABLE_IS_EMPTY + block if first else block


@lru_cache(10_000)
def _start_of_block(start: bytes) -> bytes:
    lines = start.split(b"\r\n")
    method, path, _ = lines[0].split(b" ")
    method_field = _POST if method == b"POST" else _literal(_METHOD, method)
    authority = _literal(_AUTHORITY, lines[1].partition(b": ")[2])
    return b"".join((method_field, _HTTPS, _literal(_PATH, path), authority, _fields_of(lines[2:])))


def _fields_of(lines: list[bytes]) -> bytes:
    parts: list[bytes] = []
    for line in lines:
        name, _, value = line.partition(b":")
        start = _name(name)
        if start:
            value = value.strip(b" ")
            parts += (start, _SHORT[len(value)] if len(value) < _LONG else _size(0, 7, len(value)), value)
    return b"".join(parts)


@lru_cache(10_000)
def _name(name: bytes) -> bytes:
    """The start of a field: its name. Empty if the field is left out."""
    name = name.lower()
    return b"" if name in _LEFT_OUT else bytes((_NEVER_INDEXED,)) + _size(0, 7, len(name)) + name


def _literal(index: int, value: bytes) -> bytes:
    """A field with the name of this entry of the static table."""
    return _size(_NEVER_INDEXED, 4, index) + _size(0, 7, len(value)) + value


def _size(pattern: int, bits: int, number: int) -> bytes:
    """A number after a bit pattern (section 5.1)."""
    most = (1 << bits) - 1
    if number < most:
        return bytes((pattern | number,))
    found = bytearray((pattern | most,))
    number -= most
    while number > 127:  # noqa: PLR2004 (seven bits a byte)
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


# Answers.


class FieldDecoder:
    """Decodes the header blocks of one connection, one after another."""

    __slots__ = ("_entries", "_most", "_size")

    def __init__(self) -> None:
        self._entries: list[Field] = []  # the dynamic table, newest last
        self._size = 0
        self._most = _TABLE

    def decode(self, block: bytes, room: int) -> tuple[list[Field], int]:
        """The fields of a block, and the rest of `room`, which is in bytes. Raises BadFields, also if that is full."""
        try:
            return self._decode(block, room)
        except IndexError:
            raise BadFields("a header block ends within a field") from None

    def _decode(self, block: bytes, room: int) -> tuple[list[Field], int]:
        fields: list[Field] = []
        at = updates = 0
        while at < len(block):
            first = block[at]
            if first & 0x80:
                index, at = _number(block, at, 7)
                field = self._entry(index)
            elif first & 0xE0 == 0x20:  # noqa: PLR2004 (section 6.3)
                most, at = _number(block, at, 5)
                updates += 1
                if fields or updates > _UPDATES or most > _TABLE:
                    raise BadFields("a header block changes the table's size where it must not")
                self._most = most
                self._evict(0)
                continue
            else:
                index, at = _number(block, at, 6 if first & 0x40 else 4)
                if index:
                    name = self._entry(index)[0]
                else:
                    name, at = _string(block, at)
                value, at = _string(block, at)
                field = (name, value)
                if first & 0x40:
                    self._add(field)
            room -= len(field[0]) + len(field[1]) + _ENTRY
            if room < 0:
                raise BadFields(f"the head of its answer has more than {HEAD_LIMIT // 1024} KiB")
            fields.append(field)
        return fields, room

    def _entry(self, index: int) -> Field:
        if 0 < index <= len(_STATIC):
            return _STATIC[index - 1]
        back = index - len(_STATIC)
        if not 0 < back <= len(self._entries):
            raise BadFields("a header block names an entry that its table does not have")
        return self._entries[-back]

    def _add(self, field: Field) -> None:
        size = len(field[0]) + len(field[1]) + _ENTRY
        self._evict(size)
        if size <= self._most:
            self._entries.append(field)
            self._size += size

    def _evict(self, room: int) -> None:
        """Drop the oldest entries until there is `room`."""
        gone = 0
        for name, value in self._entries:
            if self._size + room <= self._most:
                break
            self._size -= len(name) + len(value) + _ENTRY
            gone += 1
        del self._entries[:gone]


def _number(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """The number at `at`, and the place after it (section 5.1)."""
    most = (1 << bits) - 1
    number = block[at] & most
    at += 1
    if number < most:
        return number, at
    for shift in range(0, 7 * _LONGEST_NUMBER, 7):
        byte = block[at]
        at += 1
        number += (byte & 127) << shift
        if byte < 128:  # noqa: PLR2004 (the last byte)
            return number, at
    raise BadFields("a header block holds a number that is too large")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    """The string at `at`, and the place after it (section 5.2)."""
    is_huffman = block[at] & 0x80
    length, at = _number(block, at, 7)
    end = at + length
    text = block[at:end]
    if len(text) != length:
        raise BadFields("a header block ends within a field")
    if is_huffman:
        text = _unpacked(text) if length > _CACHED else _cached(text)
    return text, end


# Huffman's code, four bits at a time.

_Step = tuple[int, int, bool]  # state after four bits, the byte that they complete or -1, whether a string may end here


def _codes() -> Iterator[tuple[int, int, int]]:
    """Each code, its length, and its byte; the last one ends a string."""
    code = before = 0
    for length, members in _LENGTHS.items():
        code <<= length - before
        before = length
        for byte in members:
            yield code, length, byte
            code += 1
    yield code, before, -1


def _steps() -> list[_Step]:
    """The decoder's automaton: 16 steps for each inner node of the code's tree, which are its states."""
    children: list[list[int]] = [[0, 0]]  # of each inner node: another one, or -2 - byte for a leaf; 0: unset
    for code, length, byte in _codes():
        node = 0
        for bit in range(length - 1, 0, -1):
            branch = code >> bit & 1
            if not children[node][branch]:
                children.append([0, 0])
                children[node][branch] = len(children) - 1
            node = children[node][branch]
        children[node][code & 1] = -2 - byte
    padding, node = {0}, 0
    for _ in range(7):  # a string is filled up with ones to a whole byte
        node = children[node][1]
        padding.add(node)
    steps: list[_Step] = []
    for state in range(len(children)):
        for nibble in range(16):
            node, found = state, -1
            for bit in (3, 2, 1, 0):
                node = children[node][nibble >> bit & 1]
                if node == -1:  # the end of a string, which must not occur
                    found, node = -2, 0
                    break
                if node < 0:
                    found, node = -2 - node, 0
            steps.append((node, found, node in padding))
    return steps


_STEPS = _steps()


def _unpacked(text: bytes) -> bytes:
    found = bytearray()
    steps, state, may_end = _STEPS, 0, True
    for byte in text:
        for nibble in (byte >> 4, byte & 15):
            state, symbol, may_end = steps[state << 4 | nibble]
            if symbol >= 0:
                found.append(symbol)
            elif symbol == -2:  # noqa: PLR2004 (the end of a string)
                raise BadFields("a header block holds text that is not Huffman-coded correctly")
    if not may_end:
        raise BadFields("a header block holds text that is not Huffman-coded correctly")
    return bytes(found)


_cached = lru_cache(1_000)(_unpacked)  # servers send the same values again and again
