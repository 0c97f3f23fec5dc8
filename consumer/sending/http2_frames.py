"""The frames of HTTP/2 (RFC 9113, 4 and 6): their layout, and the errors of a connection. No I/O."""

from collections.abc import Mapping
from struct import Struct
from typing import Final

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD = Struct(">IBI")  # size and kind, flags, stream
LEAST_FRAME, MOST_FRAME = 16_384, 2**24 - 1  # the range of a peer's largest payload; at first it is the least
FIRST_WINDOW = 65_535  # bytes of each window at first (section 6.9.2)
MOST_WINDOW = 2**31 - 1


class Kind:
    """The types of frames."""

    DATA: Final = 0
    HEADERS: Final = 1
    RST_STREAM: Final = 3
    SETTINGS: Final = 4
    PUSH_PROMISE: Final = 5
    PING: Final = 6
    GOAWAY: Final = 7
    WINDOW_UPDATE: Final = 8
    CONTINUATION: Final = 9


class Flag:
    """The flags of frames."""

    ACK: Final = 0x1  # of SETTINGS and PING
    END_STREAM: Final = 0x1
    END_HEADERS: Final = 0x4
    PADDED: Final = 0x8
    PRIORITY: Final = 0x20


class Setting:
    """The parameters of SETTINGS."""

    ENABLE_PUSH: Final = 2
    MAX_CONCURRENT_STREAMS: Final = 3
    INITIAL_WINDOW_SIZE: Final = 4
    MAX_FRAME_SIZE: Final = 5
    MAX_HEADER_LIST_SIZE: Final = 6


class Code:
    """The reasons for which a stream or a connection ends (section 7)."""

    NO_ERROR: Final = 0x0
    PROTOCOL_ERROR: Final = 0x1
    FLOW_CONTROL_ERROR: Final = 0x3
    FRAME_SIZE_ERROR: Final = 0x6
    REFUSED_STREAM: Final = 0x7
    CANCEL: Final = 0x8
    COMPRESSION_ERROR: Final = 0x9
    ENHANCE_YOUR_CALM: Final = 0xB
    HTTP_1_1_REQUIRED: Final = 0xD


_CODES = (
    *("NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED"),
    *("FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM"),
    *("INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"),
)


class SessionFailed(Exception):
    """The connection cannot be used any longer. The text gives the reason; `code` is sent to the receiver."""

    def __init__(self, text: str, code: int = Code.PROTOCOL_ERROR) -> None:
        super().__init__(text)
        self.code = code


def frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    """A frame of the stream of this number, or of the connection: 0."""
    return FRAME_HEAD.pack(len(payload) << 8 | kind, flags, number) + payload


def settings(values: Mapping[int, int]) -> bytes:
    """A Kind.SETTINGS frame."""
    payload = b"".join(name.to_bytes(2) + value.to_bytes(4) for name, value in values.items())
    return frame(Kind.SETTINGS, 0, 0, payload)


def window_update(number: int, more: int) -> bytes:
    """A frame that opens a window by `more` bytes."""
    return frame(Kind.WINDOW_UPDATE, 0, number, more.to_bytes(4))


def sized(payload: bytes, size: int) -> int:
    """The payload as a number. Raises SessionFailed if it does not have this size."""
    if len(payload) != size:
        raise SessionFailed("it sent a frame of a wrong size", Code.FRAME_SIZE_ERROR)
    return int.from_bytes(payload)


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload without padding."""
    if not flags & Flag.PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise SessionFailed("it sent a frame with more padding than payload")
    return payload[1 : len(payload) - payload[0]]


def name_of(code: int) -> str:
    """The name of a Code."""
    return _CODES[code] if code < len(_CODES) else f"error {code}"
