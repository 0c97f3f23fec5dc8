"""HTTP/2 as a client speaks it, on the library h2 (an extra), with limits on what a receiver may send. No I/O.

h2 gets one frame at a time, which has been counted before: no flood makes it work. The limits of an answer are those of
HTTP/1.1 (`answer.py`). It never sees GOAWAY: it would end the connection, though servers still answer open requests.
"""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from h2 import events
from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import NoSuchStreamError, ProtocolError
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream
from hpack import Encoder, NeverIndexedHeaderTuple
from hyperframe import frame as frames
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import Frame

from consumer.sending.answer import BODY_LIMIT
from consumer.sending.request import http2_fields
from consumer.sending.transfer import HTTP2_HEADS, Field, Http2Exchange

STREAMS = 100  # open on a connection at most: what the RFC recommends to allow (6.5.2), and most servers do
BODY_FRAMES = 256  # of an answer, which take 4 ms
CONTROL = 1_000  # frames outside answers that a receiver may send at first
FRAMES = 100  # parsed at once, in 2 ms; in 5 ms if they are heads
_FIELDS = 8  # of a head, each at least a byte, which count as one more frame of a turn
_FRAME_HEAD = 9  # bytes
_LARGEST_FRAME = 16_384  # bytes of the payload, in both directions: no receiver may ask for less
_EARNED = 4  # more frames for each DATA frame and each answer: a receiver answers DATA with two WINDOW_UPDATEs
_MOST_EARNED = 20_000
_BLOCK = 256  # bytes of an encoded head that belongs to no answer: they count as one more frame
_SMALL = 4_096  # bytes; a body up to this size goes out with its head if no other body waits
_MOST_WAITING = 2**18  # bytes to send, beyond which no request is opened: a receiver that sends may yet read nothing
_FIRST_WINDOW = 65_535  # bytes of a connection (RFC 9113, 6.9.2)
_RECEIVE = 8 * 2**20  # bytes: the connection's window, which the streams together do not fill
_FIELD = 32  # bytes that each field of a head counts beyond its name and value (RFC 7541, 4.1)
# One byte more than is kept of a body, so that a longer body is noticed. A stream's window is never opened further.
_WANTED = {
    SettingCodes.ENABLE_PUSH: 0,
    SettingCodes.INITIAL_WINDOW_SIZE: BODY_LIMIT + 1,
    SettingCodes.MAX_HEADER_LIST_SIZE: HTTP2_HEADS,
}
_KNOWN = frozenset(SettingCodes)
# Answers with fields that HTTP/2 forbids count as with HTTP/1.1. Our own fields have been checked.
_CONFIGURATION = H2Configuration(
    header_encoding=None,
    validate_inbound_headers=False,
    normalize_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)
_OTHER = "it answered with something other than HTTP/2"


class SessionFailed(Exception):
    """The connection cannot be used any longer. The text gives the reason; `code` is sent to the receiver."""

    def __init__(self, text: str, code: int = ErrorCodes.PROTOCOL_ERROR) -> None:
        super().__init__(text)
        self.code = code


class _PlainEncoder(Encoder):
    """Encodes fields without Huffman's code, which would take four times as long for a tenth of the bytes."""

    def encode(self, headers: Any, huffman: bool = False) -> bytes:  # noqa: FBT001, FBT002 (hpack's signature)
        """The header block."""
        return super().encode(headers, huffman)


class _H2(H2Connection):
    """Ignores what h2 would end the connection for, though the answer is clear; h2 has no public settings for it.

    These are lengths that do not fit the body (its end is marked by a flag), and priorities (RFC 9113, 5.3.2).
    """

    MAX_CLOSED_STREAMS = 1_000  # remembered, 100 bytes each; a late frame for an older one is no fault either

    def _stream_is_closed_by_reset(self, stream_id: int) -> bool:
        is_forgotten = stream_id not in self.streams and stream_id not in self._closed_streams
        return is_forgotten or super()._stream_is_closed_by_reset(stream_id)

    def _begin_new_stream(self, stream_id: int, allowed_ids: AllowedStreamIDs) -> H2Stream:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream._initialize_content_length = lambda _: None  # type: ignore[assignment,method-assign]  # noqa: SLF001
        return stream

    def _receive_headers_frame(self, frame: frames.HeadersFrame) -> tuple[list[Frame], list[events.Event]]:
        frame.flags.discard("PRIORITY")
        return super()._receive_headers_frame(frame)


class Http2Session:
    """The state of a connection. `settled`: the receiver's settings have come. `leaving`: it takes no more requests.

    `took_none`: the receiver has ended it, and says that it has processed no request (RFC 9113, 6.8). `budget`: how
    many frames it may parse until the caller sets it again. `is_behind`: some may be left because it was spent.
    """

    def __init__(self) -> None:
        self.settled = self.leaving = self.took_none = False
        self.exchanges: dict[int, Http2Exchange] = {}
        self.heard = 0
        self.budget, self.is_behind = FRAMES, False
        self._h2 = _H2(_CONFIGURATION)
        self._h2.encoder = _PlainEncoder()
        self._h2.local_settings = Settings(client=True, initial_values=_WANTED)
        self._h2.decoder.max_header_list_size = HTTP2_HEADS
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_RECEIVE - _FIRST_WINDOW)
        self._in = bytearray()
        self._out = bytearray(self._h2.data_to_send())
        self._sending: deque[Http2Exchange] = deque()  # those with an unsent body
        self._allowed = 1  # open requests; the receiver's own limit comes with its settings, and may be 0
        self._learnt = STREAMS  # open requests that it seems to accept, by what it has refused
        self._next = 1
        self._received = 0  # bytes since the connection's window was last opened
        self._calm = CONTROL
        self._block_size = 0  # of the head that is being received
        self._ended: list[Http2Exchange] = []
        self._culprit = 0  # the stream whose frame is being parsed, or has made the session fail

    @property
    def room(self) -> int:
        """How many requests may be opened now."""
        if self.leaving or len(self._out) > _MOST_WAITING:
            return 0
        return max(0, min(self._allowed, self._learnt) - len(self.exchanges))

    # Sending.

    def open(self, exchange: Http2Exchange, head: bytes, body: bytes) -> None:
        """Send a request, with its head as rendered for HTTP/1.1."""
        number = exchange.number = self._next
        self._next += 2
        exchange.heard = self.heard
        self.exchanges[number] = exchange
        # No proxy may put a field into a table: it may be a credential (RFC 7541, 7.1.3).
        fields = [NeverIndexedHeaderTuple(*field) for field in http2_fields(head)]
        self._h2.send_headers(number, fields, end_stream=not body)
        self._earn()
        if body:
            exchange.body, exchange.unsent = body, len(body)
            self._sending.append(exchange)
            if len(self._sending) == 1 and len(body) <= _SMALL:
                self._send_from(self._sending.popleft())
        self._collect()

    def cancel(self, exchange: Http2Exchange) -> None:
        """Abandon the request; does nothing if the exchange has ended."""
        if self._forget(exchange):
            self._reset(exchange)

    def take(self, least: int) -> bytes:
        """Bytes to send: queued frames, then DATA of each exchange in turn, until they are `least` or more."""
        stuck = 0
        while len(self._out) < least and stuck < len(self._sending):
            stuck = 0 if self._send_from(self._sending.popleft()) else stuck + 1
            self._collect()
        taken = bytes(self._out)
        self._out.clear()
        return taken

    def _collect(self) -> None:
        self._out += self._h2.data_to_send()

    def _send_from(self, exchange: Http2Exchange) -> bool:
        """Send one DATA frame if the windows allow; the exchange stays in turn until its body is sent."""
        size = min(exchange.unsent, self._h2.local_flow_control_window(exchange.number), _LARGEST_FRAME)
        if size > 0:
            start = len(exchange.body) - exchange.unsent
            exchange.unsent -= size
            self._earn()
            piece = exchange.body[start : start + size]
            self._h2.send_data(exchange.number, piece, end_stream=not exchange.unsent)
        if exchange.unsent:
            self._sending.append(exchange)
        else:
            exchange.body = b""
        return size > 0

    def goaway(self, code: int = ErrorCodes.NO_ERROR) -> bytes:
        """The frame that says that this side ends the connection; it has accepted no stream of the receiver."""
        return frames.GoAwayFrame(0, error_code=code).serialize()

    # Receiving.

    def receive(self, data: bytes) -> list[Http2Exchange]:
        """Parse `data` and what was left, within the budget. Returns the exchanges that end. Raises SessionFailed."""
        if data:
            self.heard += 1
            self._in += data
        try:
            self._parse()
        except (ProtocolError, HyperframeError) as error:
            code = getattr(error, "error_code", ErrorCodes.PROTOCOL_ERROR)
            raise SessionFailed(f"it broke the protocol: {str(error) or type(error).__name__:.200}", code) from None
        finally:
            self._collect()
        ended, self._ended = self._ended, []
        return ended

    def end(self, why: str, *, orderly: bool) -> list[Http2Exchange]:
        """The connection has ended. Returns its open exchanges as ended ones.

        A request is unprocessed if nothing arrived after it, on a connection that had worked before and whose end is
        `orderly`: servers close idle connections at any moment, as with HTTP/1.1 (RFC 9112, 9.3.1). It also counts as
        unprocessed if a frame for another request has made the session fail: one endpoint costs others no attempt.
        """
        for exchange in tuple(self.exchanges.values()):
            self._forget(exchange)
            is_unused = orderly and self.settled and exchange.heard == self.heard
            is_bystander = self._culprit not in (0, exchange.number)
            self._end(exchange, "" if is_unused or is_bystander else why)
        self._out.clear()
        self.leaving = True
        ended, self._ended = self._ended, []
        return ended

    def _parse(self) -> None:
        at = 0
        try:
            while self.budget > 0 and len(self._in) - at >= _FRAME_HEAD:
                frame, size = Frame.parse_frame_header(memoryview(bytes(self._in[at : at + _FRAME_HEAD])))
                if size > _LARGEST_FRAME:
                    raise SessionFailed(
                        f"it sent a frame of {size} bytes" if self.settled else _OTHER, ErrorCodes.FRAME_SIZE_ERROR
                    )
                end = at + _FRAME_HEAD + size
                if end > len(self._in):
                    break
                data, at = bytes(self._in[at:end]), end
                self.budget -= 1
                self._on_frame(frame, data)
                self._culprit = 0
        finally:
            del self._in[:at]
            self.is_behind = self.budget <= 0 and len(self._in) >= _FRAME_HEAD

    def _on_frame(self, frame: Frame, data: bytes) -> None:
        if not self.settled and (not isinstance(frame, frames.SettingsFrame) or "ACK" in frame.flags):
            raise SessionFailed(_OTHER)
        number = frame.stream_id
        exchange = self.exchanges.get(number)
        if number and (not number & 1 or number >= self._next) and not isinstance(frame, frames.PriorityFrame):
            raise SessionFailed("it answered a request that it did not get")
        self._culprit = number
        if isinstance(frame, frames.DataFrame | frames.HeadersFrame):
            if exchange is None:
                self._spend(1)
        else:
            self._spend(1)
        if isinstance(frame, frames.PriorityFrame):
            return
        if isinstance(frame, frames.HeadersFrame | frames.ContinuationFrame):
            self._measure(frame, exchange, len(data) - _FRAME_HEAD)
        elif isinstance(frame, frames.GoAwayFrame):
            frame.parse_body(memoryview(data)[_FRAME_HEAD:])
            self._on_goaway(frame.last_stream_id & (2**31 - 1), frame.error_code)
            return
        elif isinstance(frame, frames.SettingsFrame):
            # h2 would keep each unknown setting that it is sent, up to 40 MB of them.
            frame.parse_body(memoryview(data)[_FRAME_HEAD:])
            frame.settings = {code: value for code, value in frame.settings.items() if code in _KNOWN}
            data = frame.serialize()
        for event in self._h2.receive_data(data):
            self._on_event(event)

    def _measure(self, frame: Frame, exchange: Http2Exchange | None, size: int) -> None:
        """Bound what the library has to decode: the heads of one answer together, and each head of a past one."""
        if isinstance(frame, frames.HeadersFrame):
            self._block_size = 0 if exchange is None else exchange.encoded
        self._block_size += size
        if self._block_size > HTTP2_HEADS:
            text = f"the head of its answer has more than {HTTP2_HEADS // 1024} KiB"
            raise SessionFailed(text, ErrorCodes.ENHANCE_YOUR_CALM)
        if exchange is None:
            self._spend(size // _BLOCK)
            self.budget -= size // _FIELDS
        else:
            exchange.encoded = self._block_size

    def _on_goaway(self, last: int, code: int) -> None:
        self.leaving, self.took_none = True, not last
        for exchange in [each for number, each in self.exchanges.items() if number > last]:
            self._forget(exchange)
            self._end(exchange, "")
        if code and self.exchanges:
            raise SessionFailed(f"it ended the connection: {_name_of(code)}", ErrorCodes.NO_ERROR)

    def _on_event(self, event: events.Event) -> None:
        if isinstance(event, events.RemoteSettingsChanged):
            if not self.settled:
                self.settled, self._allowed = True, STREAMS
            if (wanted := event.changed_settings.get(SettingCodes.MAX_CONCURRENT_STREAMS)) is not None:
                self._allowed, self._learnt = min(STREAMS, wanted.new_value), STREAMS
        elif isinstance(event, events.DataReceived):
            self._received += event.flow_controlled_length or 0
            if self._received > _RECEIVE // 2:
                self._h2.increment_flow_control_window(self._received)
                self._received = 0
        exchange = self.exchanges.get(getattr(event, "stream_id", None) or 0)
        if exchange is not None:
            self._on_part(exchange, event)

    def _on_part(self, exchange: Http2Exchange, event: events.Event) -> None:
        if isinstance(event, events.DataReceived):
            self._on_data(exchange, event.data or b"")
        elif isinstance(
            event, events.InformationalResponseReceived | events.ResponseReceived | events.TrailersReceived
        ):
            self._on_head(exchange, event.headers or ())
        elif isinstance(event, events.StreamEnded):
            self._complete(exchange)
        elif isinstance(event, events.StreamReset):
            self._on_reset(exchange, event.error_code or 0, by_receiver=event.remote_reset)

    def _on_reset(self, exchange: Http2Exchange, code: int, *, by_receiver: bool) -> None:
        self._forget(exchange)
        if not by_receiver:
            self._end(exchange, "it opened a window beyond the largest size")
        elif code == ErrorCodes.REFUSED_STREAM:
            self._learnt = max(1, min(self._learnt, len(self.exchanges)))
            self._end(exchange, "")
        elif code == ErrorCodes.HTTP_1_1_REQUIRED:
            self._end(exchange, "it wants HTTP/1.1: set http_version to 1.1")
        else:
            self._end(exchange, f"it reset the request: {_name_of(code)}")

    def _on_data(self, exchange: Http2Exchange, piece: bytes) -> None:
        exchange.pieces += 1
        exchange.content += piece[: exchange.room]
        if len(piece) > exchange.room or exchange.pieces > BODY_FRAMES:
            self._drop(exchange, "its body is too long")
        else:
            exchange.room -= len(piece)

    def _on_head(self, exchange: Http2Exchange, fields: Sequence[Field]) -> None:
        self.budget -= len(fields) // _FIELDS
        exchange.head_room -= sum(len(name) + len(value) + _FIELD for name, value in fields)
        if exchange.head_room < 0:
            text = f"the head of its answer has more than {HTTP2_HEADS // 1024} KiB"
            raise SessionFailed(text, ErrorCodes.ENHANCE_YOUR_CALM)
        if not exchange.status and (error := exchange.take_head(fields)):  # else they are trailers
            self._drop(exchange, error)

    # The end of an exchange.

    def _complete(self, exchange: Http2Exchange) -> None:
        if exchange.unsent:  # the receiver has answered before it got all of the request
            self._reset(exchange)
        self._forget(exchange)
        self._earn()
        self._end(exchange, "its answer ended with an interim one")

    def _drop(self, exchange: Http2Exchange, error: str) -> None:
        self._forget(exchange)
        self._reset(exchange)
        self._end(exchange, error)

    def _end(self, exchange: Http2Exchange, error: str) -> None:
        """End it with the answer received so far, if its status is known, or with the error."""
        exchange.error = error
        self._ended.append(exchange)

    def _reset(self, exchange: Http2Exchange) -> None:
        with suppress(NoSuchStreamError):  # it has ended already
            self._h2.reset_stream(exchange.number, ErrorCodes.CANCEL)
        self._collect()

    def _forget(self, exchange: Http2Exchange) -> bool:
        """Remove the exchange. True if it was open."""
        if self.exchanges.pop(exchange.number, None) is None:
            return False
        if exchange.unsent:
            self._sending.remove(exchange)
            exchange.unsent = 0
        exchange.body = b""
        return True

    # Frames outside answers.

    def _earn(self) -> None:
        self._calm = min(_MOST_EARNED, self._calm + _EARNED)

    def _spend(self, number: int) -> None:
        self._calm -= number
        if self._calm < 0:
            text = f"it sent more than {CONTROL} frames that belong to no answer"
            raise SessionFailed(text, ErrorCodes.ENHANCE_YOUR_CALM)


def _name_of(code: int) -> str:
    return next((each.name for each in ErrorCodes if each == code), f"error {code}")
