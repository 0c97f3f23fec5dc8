"""HTTP/2 (RFC 9113) as a client speaks it: streams, flow control, and limits on what a receiver may send. No I/O.

The limits of an answer are those of HTTP/1.1 (`answer.py`). Further ones bound what a receiver may send beside answers.
"""

from collections import deque

from consumer.sending.answer import BODY_LIMIT, HEAD_LIMIT, PIECES
from consumer.sending.hpack import BadFields, Field, FieldDecoder, request_block
from consumer.sending.http2_frames import (
    FIRST_WINDOW,
    FRAME_HEAD,
    LEAST_FRAME,
    MOST_FRAME,
    MOST_WINDOW,
    PREFACE,
    Code,
    Flag,
    Kind,
    SessionFailed,
    Setting,
    frame,
    name_of,
    settings,
    sized,
    unpadded,
    window_update,
)
from consumer.sending.http2_stream import Ended, Stream

STREAMS = 100  # open on a connection at most: what the RFC recommends to allow (6.5.2), and most servers do
BLOCK_LIMIT = 16_384  # bytes of an answer's heads, encoded; decoding them takes 3 ms at most
CONTROL = 1_000  # frames outside answers that a receiver may send at first
_EARNED = 4  # more of them for each DATA frame and each answer: a receiver answers DATA with two WINDOW_UPDATEs
_MOST_EARNED = 20_000
_BLOCK = 256  # bytes of an encoded head that belongs to no answer, decoded in 50 µs: they count as one more frame
_SMALL = 4_096  # bytes; a body up to this size goes out with its head if no other body waits

_MOST_WAITING = 2**18  # bytes of frames, beyond which no request is opened: a receiver that sends may yet read nothing
_RECEIVE = 8 * 2**20  # bytes: the connection's window, which the streams together do not fill
# One byte more than is kept of a body, so that a longer body is noticed. A stream's window is never opened further.
_STREAM_WINDOW = BODY_LIMIT + 1
_WANTED = {
    Setting.ENABLE_PUSH: 0,
    Setting.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
    Setting.MAX_HEADER_LIST_SIZE: HEAD_LIMIT,
}
_OTHER = "it answered with something other than HTTP/2"


class Session:
    """The state of a connection. `settled`: the receiver's settings have come. `leaving`: it takes no more requests.

    `took_none`: the receiver has ended it, and says that it has processed no request (RFC 9113, 6.8).
    """

    def __init__(self) -> None:
        self.settled = False
        self.leaving = self.took_none = False
        self.streams: dict[int, Stream] = {}
        self.heard = 0
        self._limit = 1  # streams; the receiver's own limit comes with its settings
        self._next = 1
        self._fields = FieldDecoder()
        self._in = b""
        self._out: list[bytes] = []
        self._waiting = 0  # bytes in it
        self._queue(PREFACE + settings(_WANTED) + window_update(0, _RECEIVE - FIRST_WINDOW))
        self._sending: deque[Stream] = deque()  # streams with an unsent body
        self._window = FIRST_WINDOW  # bytes that may be sent on all streams together
        self._stream_window = FIRST_WINDOW
        self._received = 0  # bytes since the connection's window was last opened
        self._calm = CONTROL
        self._block: list[bytes] | None = None  # of a head that is not complete yet
        self._block_size = 0
        self._block_stream = 0
        self._block_ends = False
        self._ended: list[Ended] = []

    @property
    def room(self) -> int:
        """How many requests may be opened now."""
        return 0 if self.leaving or self._waiting > _MOST_WAITING else max(0, self._limit - len(self.streams))

    # Sending.

    def open(self, stream: Stream, head: bytes, body: bytes) -> None:
        """Send a request, with its head as rendered for HTTP/1.1."""
        number = stream.number = self._next
        self._next += 2
        stream.heard = self.heard
        stream.window = self._stream_window
        self.streams[number] = stream
        block = request_block(head, first=number == 1)
        flags = Flag.END_HEADERS if body else Flag.END_HEADERS | Flag.END_STREAM
        if len(block) <= LEAST_FRAME:
            self._queue(frame(Kind.HEADERS, flags, number, block))
        else:
            pieces = [block[at : at + LEAST_FRAME] for at in range(0, len(block), LEAST_FRAME)]
            self._queue(frame(Kind.HEADERS, flags & ~Flag.END_HEADERS, number, pieces[0]))
            for piece in pieces[1:-1]:
                self._queue(frame(Kind.CONTINUATION, 0, number, piece))
            self._queue(frame(Kind.CONTINUATION, Flag.END_HEADERS, number, pieces[-1]))
        self._earn(1)
        if body:
            stream.body, stream.unsent = body, len(body)
            self._sending.append(stream)
            if len(self._sending) == 1 and len(body) <= _SMALL:
                self._sending.clear()
                self._take_from(stream)

    def cancel(self, stream: Stream) -> None:
        """Abandon the request; does nothing if the stream has ended."""
        if self._forget(stream):
            self._reset(stream.number)

    def take(self, least: int) -> bytes:
        """Bytes to send: queued frames, then DATA of each stream in turn, until they are `least` or more."""
        size = self._waiting
        stuck = 0
        while size < least and self._window > 0 and stuck < len(self._sending):
            taken = self._take_from(self._sending.popleft())
            stuck = 0 if taken else stuck + 1
            size += taken
        taken_frames = b"".join(self._out)
        self._out.clear()
        self._waiting = 0
        return taken_frames

    def _queue(self, frames: bytes) -> None:
        self._out.append(frames)
        self._waiting += len(frames)

    def _take_from(self, stream: Stream) -> int:
        """Take one DATA frame of this stream, if its window allows; it stays in turn until its body is sent."""
        size = min(stream.unsent, stream.window, self._window, LEAST_FRAME)
        if size > 0:
            start = len(stream.body) - stream.unsent
            stream.unsent -= size
            stream.window -= size
            self._window -= size
            self._earn(1)
            flags = 0 if stream.unsent else Flag.END_STREAM
            self._queue(frame(Kind.DATA, flags, stream.number, stream.body[start : start + size]))
        if stream.unsent:
            self._sending.append(stream)
        else:
            stream.body = b""
        return max(size, 0)

    def goaway(self, code: int = Code.NO_ERROR) -> bytes:
        """The frame that says that this side ends the connection; it has accepted no stream of the receiver."""
        return frame(Kind.GOAWAY, 0, 0, bytes(4) + code.to_bytes(4))

    # Receiving.

    def receive(self, data: bytes) -> list[Ended]:
        """Parse `data`. Returns the streams that it ends. Raises SessionFailed."""
        self.heard += 1
        data = self._in + data if self._in else data
        at, end = 0, len(data)
        while end - at >= FRAME_HEAD.size:
            size, flags, number = FRAME_HEAD.unpack_from(data, at)
            kind, size = size & 0xFF, size >> 8
            if size > LEAST_FRAME:
                text = f"it sent a frame of {size} bytes" if self.settled else _OTHER
                raise SessionFailed(text, Code.FRAME_SIZE_ERROR)
            start = at + FRAME_HEAD.size
            if start + size > end:
                break
            at = start + size
            self._on_frame(kind, flags, number & MOST_WINDOW, data[start:at])
        self._in = data[at:]
        ended, self._ended = self._ended, []
        return ended

    def end(self, why: str, *, orderly: bool) -> list[Ended]:
        """The connection has ended. Returns its open streams as ended ones.

        A request is unprocessed if nothing arrived after it, on a connection that had worked before and whose end is
        `orderly`: servers close idle connections at any moment, as with HTTP/1.1 (RFC 9112, 9.3.1).
        """
        found, self._ended = self._ended, []
        for stream in self.streams.values():
            is_unused = orderly and self.settled and stream.heard == self.heard
            found.append(Ended(stream, stream.answer(), "" if is_unused else why))
        self.streams.clear()
        self._sending.clear()
        self._out.clear()
        self.leaving = True
        return found

    def _on_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None:
            if kind != Kind.CONTINUATION or number != self._block_stream:
                raise SessionFailed("it interrupted a head by another frame")
            self._spend(1)
            self._gather(payload, flags)
            return
        if not self.settled and (kind != Kind.SETTINGS or flags & Flag.ACK):
            raise SessionFailed(_OTHER)
        if kind == Kind.DATA:
            self._on_data(flags, number, payload)
        elif kind == Kind.HEADERS:
            self._on_headers(flags, number, payload)
        else:
            self._spend(1)
            self._on_control(kind, flags, number, payload)

    def _on_control(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == Kind.WINDOW_UPDATE:
            self._on_window(number, sized(payload, 4))
        elif kind == Kind.SETTINGS:
            self._on_settings(flags, payload)
        elif kind == Kind.PING:
            if not flags & Flag.ACK:
                self._queue(frame(Kind.PING, Flag.ACK, 0, sized(payload, 8).to_bytes(8)))
        elif kind == Kind.RST_STREAM:
            self._on_reset(number, sized(payload, 4))
        elif kind == Kind.GOAWAY:
            self._on_goaway(payload)
        elif kind in (Kind.PUSH_PROMISE, Kind.CONTINUATION):
            raise SessionFailed("it sent a frame that it must not send")
        # Priorities and unknown frames are ignored (section 4.1).

    def _on_settings(self, flags: int, payload: bytes) -> None:
        if flags & Flag.ACK:
            return
        if len(payload) % 6:
            raise SessionFailed("it sent settings of a wrong size", Code.FRAME_SIZE_ERROR)
        wanted: dict[int, int] = {}  # the last value counts, so that no frame costs more than one change
        for at in range(0, len(payload), 6):
            wanted[int.from_bytes(payload[at : at + 2])] = int.from_bytes(payload[at + 2 : at + 6])
        if not self.settled:
            self.settled = True
            self._limit = STREAMS
        self._limit = min(STREAMS, wanted.get(Setting.MAX_CONCURRENT_STREAMS, self._limit))
        window = wanted.get(Setting.INITIAL_WINDOW_SIZE, self._stream_window)
        if window > MOST_WINDOW or not LEAST_FRAME <= wanted.get(Setting.MAX_FRAME_SIZE, LEAST_FRAME) <= MOST_FRAME:
            raise SessionFailed("it sent settings that are not allowed", Code.FLOW_CONTROL_ERROR)
        for stream in self.streams.values():
            stream.window += window - self._stream_window
        self._stream_window = window
        self._queue(frame(Kind.SETTINGS, Flag.ACK, 0, b""))

    def _on_window(self, number: int, more: int) -> None:
        more &= MOST_WINDOW
        stream = self.streams.get(number)
        if not number:
            self._window += more
        elif stream is not None:
            stream.window += more
        largest = self._window if stream is None else stream.window
        if largest > MOST_WINDOW or not more:
            raise SessionFailed("it opened a window by nothing, or beyond the largest size", Code.FLOW_CONTROL_ERROR)

    def _on_reset(self, number: int, code: int) -> None:
        stream = self._known(number)
        if stream is None or not self._forget(stream):
            return
        if code == Code.REFUSED_STREAM:
            self._limit = max(1, min(self._limit, len(self.streams)))  # as many as it seems to accept now
            self._ended.append(Ended(stream))
        elif code == Code.HTTP_1_1_REQUIRED:
            self._ended.append(Ended(stream, stream.answer(), "it wants HTTP/1.1: set http_version to 1.1"))
        else:
            self._ended.append(Ended(stream, stream.answer(), f"it reset the request: {name_of(code)}"))

    def _on_goaway(self, payload: bytes) -> None:
        last, code = sized(payload[:4], 4) & MOST_WINDOW, sized(payload[4:8], 4)
        self.leaving, self.took_none = True, not last
        for stream in [stream for stream in self.streams.values() if stream.number > last]:
            self._forget(stream)
            self._ended.append(Ended(stream))
        if code and self.streams:
            raise SessionFailed(f"it ended the connection: {name_of(code)}", Code.NO_ERROR)

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        self._received += len(payload)
        if self._received > _RECEIVE:
            raise SessionFailed("it sent more than the connection's window", Code.FLOW_CONTROL_ERROR)
        if self._received > _RECEIVE // 2:
            self._queue(window_update(0, self._received))
            self._received = 0
        stream = self._known(number)
        if stream is None:
            self._spend(1)
            return
        piece = unpadded(flags, payload)
        if not stream.status:
            self._drop(stream, "it sent a body before the head of its answer")
            return
        stream.pieces += 1
        if len(piece) > stream.room or stream.pieces > PIECES:
            stream.content += piece[: stream.room]
            self._drop(stream, "")
            return
        stream.room -= len(piece)
        stream.content += piece
        if flags & Flag.END_STREAM:
            self._complete(stream)

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        payload = unpadded(flags, payload)
        if flags & Flag.PRIORITY:
            payload = payload[5:]
        stream = self._known(number)
        self._block, self._block_stream = [], number
        self._block_size = 0 if stream is None else stream.encoded
        self._block_ends = bool(flags & Flag.END_STREAM)
        self._gather(payload, flags)

    def _gather(self, piece: bytes, flags: int) -> None:
        """Add a part of a head, and decode it if that was the last."""
        block = self._block
        if block is None:
            return
        self._block_size += len(piece)
        if self._block_size > BLOCK_LIMIT:
            raise SessionFailed(
                f"the head of its answer has more than {BLOCK_LIMIT // 1024} KiB", Code.ENHANCE_YOUR_CALM
            )
        block.append(piece)
        if not flags & Flag.END_HEADERS:
            return
        self._block = None
        stream = self.streams.get(self._block_stream)
        if stream is None:
            self._spend(1 + self._block_size // _BLOCK)
        room = HEAD_LIMIT if stream is None else stream.head_room
        try:
            fields, room = self._fields.decode(b"".join(block), room)
        except BadFields as bad:
            raise SessionFailed(str(bad), Code.COMPRESSION_ERROR) from None
        if stream is not None:
            stream.encoded, stream.head_room = self._block_size, room
            self._on_head(stream, fields)

    def _on_head(self, stream: Stream, fields: list[Field]) -> None:
        if stream.status:  # trailers
            if self._block_ends:
                self._complete(stream)
            else:
                self._drop(stream, "")
            return
        error = stream.take_head(fields)
        if error:
            self._drop(stream, error)
        elif self._block_ends:
            if stream.status:
                self._complete(stream)
            else:
                self._drop(stream, "its answer ended with an interim one")

    # The end of a stream.

    def _complete(self, stream: Stream) -> None:
        unsent = stream.unsent
        self._forget(stream)
        if unsent:  # it has answered before it got all of the request
            self._reset(stream.number)
        self._earn(1)
        self._ended.append(Ended(stream, stream.answer()))

    def _drop(self, stream: Stream, error: str) -> None:
        """End a stream with the answer received so far, or with the error."""
        self._forget(stream)
        self._reset(stream.number)
        self._ended.append(Ended(stream, stream.answer(), error))

    def _reset(self, number: int) -> None:
        self._queue(frame(Kind.RST_STREAM, 0, number, Code.CANCEL.to_bytes(4)))

    def _forget(self, stream: Stream) -> bool:
        """Remove the stream. True if it was open."""
        if self.streams.pop(stream.number, None) is None:
            return False
        if stream.unsent:
            self._sending.remove(stream)
            stream.unsent = 0
        stream.body = b""
        return True

    def _known(self, number: int) -> Stream | None:
        """The open stream of this number; None if it has ended. Raises SessionFailed if it was never opened."""
        if not number & 1 or number >= self._next:
            raise SessionFailed("it answered a request that it did not get")
        return self.streams.get(number)

    # Frames outside answers.

    def _earn(self, frames: int) -> None:
        self._calm = min(_MOST_EARNED, self._calm + _EARNED * frames)

    def _spend(self, frames: int) -> None:
        self._calm -= frames
        if self._calm < 0:
            raise SessionFailed(f"it sent more than {CONTROL} frames that belong to no answer", Code.ENHANCE_YOUR_CALM)
