"""HTTP/2 sessions without a socket: frames that a receiver may send, and the limits."""

import tracemalloc
from collections.abc import Iterable
from random import Random

import pytest
from hpack import Encoder

from consumer.sending.answer import Answer
from consumer.sending.http2_frames import Code, Flag, Kind, SessionFailed, Setting, frame, settings, window_update
from consumer.sending.http2_session import CONTROL, STREAMS, Session
from consumer.sending.http2_stream import Ended, Stream

HEAD = b"POST /hook HTTP/1.1\r\nHost: example.com\r\nx-a: b\r\nContent-Length: %d\r\n\r\n"
OTHER = "it answered with something other than HTTP/2"
LAST = Flag.END_HEADERS | Flag.END_STREAM


class Talk:
    """A session whose receiver has sent its settings, and the receiver's header encoder."""

    def __init__(self, wanted: dict[int, int] | None = None) -> None:
        self.session = Session()
        self._encoder = Encoder()
        self.session.receive(settings(wanted or {}))
        self.session.take(2**20)

    def send(self, body: bytes = b"") -> Stream:
        stream = Stream()
        self.session.open(stream, HEAD % len(body), body)
        return stream

    def block(self, status: int, *fields: tuple[bytes, bytes]) -> bytes:
        return self._encoder.encode([(b":status", b"%d" % status), *fields])

    def head(self, stream: Stream, status: int, *fields: tuple[bytes, bytes], flags: int = Flag.END_HEADERS) -> bytes:
        return frame(Kind.HEADERS, flags, stream.number, self.block(status, *fields))

    def one(self, *frames: bytes) -> Ended:
        """The stream that these frames end."""
        (ended,) = self.session.receive(b"".join(frames))
        return ended

    def frames(self, least: int = 2**20) -> list[tuple[int, int, int, bytes]]:
        """The frames that the session sends: kind, flags, stream and payload."""
        return list(split(self.session.take(least)))

    def failure(self, *frames: bytes) -> str:
        with pytest.raises(SessionFailed) as failed:
            self.session.receive(b"".join(frames))
        return str(failed.value)


def split(data: bytes) -> Iterable[tuple[int, int, int, bytes]]:
    while data:
        size = int.from_bytes(data[:3])
        yield data[3], data[4], int.from_bytes(data[5:9]), data[9 : 9 + size]
        data = data[9 + size :]


def data(stream: Stream, body: bytes, flags: int = 0) -> bytes:
    return frame(Kind.DATA, flags, stream.number, body)


def test_an_answer() -> None:
    """It has a status, lines as in HTTP/1.1, and a body, and may come in any pieces."""
    for size in (1, 7, 1000):
        talk = Talk()
        stream = talk.send(b"{}")
        sent = talk.head(stream, 200, (b"retry-after", b"7"), (b"x", b"")) + data(stream, b"ab") + data(stream, b"c", 1)
        ended = [each for at in range(0, len(sent), size) for each in talk.session.receive(sent[at : at + size])]
        assert ended == [Ended(stream, Answer(200, b"HTTP/2 200\r\nretry-after: 7\r\nx: ", b"abc", keep=False))]
        assert talk.session.streams == {}


def test_a_request() -> None:
    """It is a HEADERS frame and a DATA frame. The second request has another stream number."""
    talk = Talk()
    for number in (1, 3):
        talk.send(b"{}")
        head, body = talk.frames()
        assert head[:3] == (Kind.HEADERS, Flag.END_HEADERS, number)
        assert body == (Kind.DATA, Flag.END_STREAM, number, b"{}")
    talk.send()
    assert [each[:3] for each in talk.frames()] == [(Kind.HEADERS, LAST, 5)]


def test_a_large_head_goes_out_in_pieces() -> None:
    """A frame holds no more than 16 KiB."""
    talk, stream = Talk(), Stream()
    talk.session.open(stream, HEAD.replace(b"x-a: b", b"x-a: " + b"b" * 40_000) % 0, b"")
    sent = talk.frames()
    assert [each[:3] for each in sent] == [(1, Flag.END_STREAM, 1), (9, 0, 1), (9, Flag.END_HEADERS, 1)]
    assert all(len(payload) <= 16_384 for *_, payload in sent)


def test_one_request_goes_out_before_the_receivers_limit_is_known() -> None:
    """Afterwards as many as it allows, but no more than our own limit."""
    session = Session()
    assert session.room == 1
    session.receive(settings({}))
    assert session.room == STREAMS
    for wanted, room in ((3, 3), (0, 0), (10_000, STREAMS)):
        assert Talk({Setting.MAX_CONCURRENT_STREAMS: wanted}).session.room == room
    talk = Talk({Setting.MAX_CONCURRENT_STREAMS: 2})
    stream = talk.send()
    assert talk.session.room == 1
    talk.one(talk.head(stream, 204, flags=LAST))
    assert talk.session.room == 2


# Flow control.


def test_a_body_goes_out_as_far_as_the_windows_allow() -> None:
    """64 KiB at first, then as the receiver opens the windows of the stream and of the connection."""
    talk = Talk()
    stream = talk.send(b"x" * 100_000)
    assert sum(len(payload) for kind, *_, payload in talk.frames() if kind == Kind.DATA) == 65_535
    talk.session.receive(window_update(stream.number, 100_000))
    assert talk.frames() == []
    talk.session.receive(window_update(0, 10))
    assert [payload for *_, payload in talk.frames()] == [b"x" * 10]
    talk.session.receive(window_update(0, 100_000))
    rest = talk.frames()
    assert (sum(len(payload) for *_, payload in rest), rest[-1][1]) == (34_455, Flag.END_STREAM)


def test_a_stalled_stream_does_not_hold_others_up() -> None:
    """Its window is closed. The others' bodies overtake it, and a large one goes in turn with small ones."""
    talk = Talk({Setting.INITIAL_WINDOW_SIZE: 10})
    stalled, small = talk.send(b"x" * 100), talk.send(b"y" * 10)
    sent = [(number, payload) for kind, _, number, payload in talk.frames() if kind == Kind.DATA]
    assert sent == [(stalled.number, b"x" * 10), (small.number, b"y" * 10)]
    talk = Talk()
    talk.session.receive(window_update(0, 2**20))
    talk.send(b"x" * 60_000)
    talk.send(b"y" * 10_000)
    order = [number for kind, _, number, _ in talk.frames() if kind == Kind.DATA]
    assert order == [1, 3, 1, 1, 1]


def test_the_bytes_taken_at_once_are_bounded() -> None:
    """At most one frame of a large body more than requested."""
    talk = Talk({Setting.INITIAL_WINDOW_SIZE: 2**30})
    talk.session.receive(window_update(0, 2**30))
    talk.send(b"x" * 2**20)
    assert 65_536 <= len(talk.session.take(65_536)) < 65_536 + 17_000


def test_what_waits_to_be_sent_is_bounded() -> None:
    """A receiver that answers and asks, and reads nothing, gets no more requests until it reads."""
    talk = Talk()
    for _ in range(100):
        if talk.session.room:
            stream = Stream()
            talk.session.open(stream, HEAD % 0 + b"A: " + b"y" * 8_000 + b"\r\n", b"")
            talk.session.receive(talk.head(stream, 200, flags=LAST))
        talk.session.receive(frame(Kind.PING, 0, 0, bytes(8)) * 5)
    assert 2**18 < sum(map(len, talk.session._out)) < 2**19
    assert talk.session.room == 0
    talk.session.take(2**20)
    assert talk.session.room == STREAMS


def test_settings_change_the_windows_of_open_streams() -> None:
    """A window may become negative. The receiver must then open it by more."""
    talk = Talk()
    stream = talk.send(b"x" * 30_000)
    talk.session.receive(settings({Setting.INITIAL_WINDOW_SIZE: 100}))
    assert stream.window == 100
    talk.frames()
    talk.session.receive(settings({Setting.INITIAL_WINDOW_SIZE: 0}))
    assert stream.window == -100
    talk.session.receive(window_update(stream.number, 101))
    assert [payload for kind, *_, payload in talk.frames() if kind == Kind.DATA] == [b"x"]


def test_the_connections_window_is_opened_again_and_a_streams_window_is_not() -> None:
    """So a receiver can answer for ever, but no stream exceeds 64 KiB by more than a byte."""
    talk = Talk()
    opened = 0
    for _ in range(200):
        stream = talk.send()
        sent = [data(stream, b"x" * 16_384) for _ in range(3)]
        assert talk.one(talk.head(stream, 200), *sent, data(stream, b"x" * 16_384, 1)).answer
        opened += sum(int.from_bytes(load) for kind, _, number, load in talk.frames() if (kind, number) == (8, 0))
    assert 200 * 65_536 - opened < 8 * 2**20


def test_an_endless_body_is_cut() -> None:
    """64 KiB are kept whole. With one byte more the stream is reset, and the connection goes on."""
    for more in (0, 1):
        talk = Talk()
        stream = talk.send()
        talk.frames()
        pieces = [data(stream, b"x" * 16_384) for _ in range(4)]
        sent = b"".join([talk.head(stream, 200), *pieces, data(stream, b"x" * more, 1 - more)])
        ended = talk.one(sent)
        assert ended.answer is not None
        assert (ended.answer.status, len(ended.answer.body)) == (200, 65_536)
        resets = [payload for kind, *_, payload in talk.frames() if kind == Kind.RST_STREAM]
        assert resets == [Code.CANCEL.to_bytes(4)] * more
        assert talk.session.room == STREAMS


def test_a_body_in_too_many_pieces_is_cut() -> None:
    """Pieces cost more than bytes: a body may have 4,096, including empty ones."""
    talk = Talk()
    stream = talk.send()
    tracemalloc.start()
    assert talk.session.receive(talk.head(stream, 200) + data(stream, b"") * 96 + data(stream, b"x" * 16) * 4_000) == []
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 100_000, "in one buffer"
    ended = talk.one(data(stream, b""))
    assert ended.answer is not None
    assert ended.answer.status == 200


# Heads.


def test_interim_answers() -> None:
    """20 are skipped. With one more there is no answer."""
    talk = Talk()
    stream = talk.send()
    interim = [talk.head(stream, 103, (b"link", b"</a>")) for _ in range(21)]
    assert talk.session.receive(b"".join(interim[:20])) == []
    assert talk.one(interim[20]).error == "it sent more than 20 interim answers"
    stream = talk.send()
    final = talk.one(talk.head(stream, 100), talk.head(stream, 204, flags=LAST))
    assert final.answer == Answer(204, b"HTTP/2 204", b"", keep=False)


@pytest.mark.parametrize("status", [b"", b"20", b"2000", b"abc", b"101", b"099", b"\xb2\xb0\xb0"])
def test_an_invalid_status(status: bytes) -> None:
    """It ends the request, but not the connection."""
    talk = Talk()
    stream, other = talk.send(), talk.send()
    block = Encoder().encode([(b":status", status)] if status else [(b"x", b"y")])
    ended = talk.one(frame(Kind.HEADERS, LAST, stream.number, block))
    assert (ended.answer, ended.error) == (None, "the head of its answer has no valid status")
    assert list(talk.session.streams.values()) == [other]


def test_an_interim_answer_without_a_final_one() -> None:
    """The request fails."""
    talk = Talk()
    stream = talk.send()
    assert talk.one(talk.head(stream, 103, flags=LAST)).error == "its answer ended with an interim one"


def test_a_body_before_the_head() -> None:
    """Without a status the request fails."""
    talk = Talk()
    assert talk.one(data(talk.send(), b"x")).error == "it sent a body before the head of its answer"


def test_invalid_header_lines_are_left_out() -> None:
    """The answer counts. Its valid fields are listed and can be looked up by name."""
    talk = Talk()
    stream = talk.send()
    fields = ((b"a", b"b\r\nx: y"), (b":x", b"y"), (b"", b"y"), (b"c\0", b"d"), (b"e", b"f"))
    ended = talk.one(talk.head(stream, 503, *fields, flags=LAST))
    assert ended.answer == Answer(503, b"HTTP/2 503\r\ne: f", b"", keep=False)


def test_the_limit_of_lines() -> None:
    """200 including the status, as with HTTP/1.1."""
    talk = Talk()
    stream = talk.send()
    ended = talk.one(talk.head(stream, 200, *[(b"a", b"b")] * 300, flags=LAST))
    assert ended.answer is not None
    assert len(ended.answer.head.split(b"\r\n")) == 200


def test_the_limit_of_a_head() -> None:
    """16 KiB encoded, in any number of frames, and 64 KiB decoded."""
    talk = Talk()
    stream = talk.send()
    start = frame(Kind.HEADERS, 0, stream.number, b"x" * 10_000)
    more = frame(Kind.CONTINUATION, 0, stream.number, b"x" * 10_000)
    assert talk.failure(start, more) == "the head of its answer has more than 16 KiB"
    talk = Talk()
    bomb = b"\x40\x01a\x7f\x81\x0e" + b"x" * 1_920 + b"\xbe" * 50
    assert talk.failure(frame(1, LAST, talk.send().number, bomb)) == "the head of its answer has more than 64 KiB"


@pytest.mark.parametrize(
    ("field", "why"), [(b"\x00\x01a\x7f\xd1\x0e" + b"x" * 2_000, "16 KiB"), (b"\xbe" * 5, "64 KiB")]
)
def test_interim_answers_and_trailers_count_as_parts_of_the_head(field: bytes, why: str) -> None:
    """Encoded and decoded, as with HTTP/1.1: each may take milliseconds of CPU. Other answers do not count."""
    talk = Talk()
    large = b"\x40\x01a\x7f\x81\x0e" + b"x" * 1_920  # an entry of the dynamic table
    talk.one(frame(Kind.HEADERS, LAST, talk.send().number, b"\x89" + large))
    stream, other = talk.send(), talk.send()
    interim = frame(Kind.HEADERS, Flag.END_HEADERS, stream.number, b"\x08\x03103" + field)
    assert talk.session.receive(interim * 6) == []
    talk.one(frame(Kind.HEADERS, LAST, other.number, b"\x89" + field))
    final = frame(Kind.HEADERS, Flag.END_HEADERS, stream.number, b"\x88")
    trailers = frame(Kind.HEADERS, LAST, stream.number, field * 3)
    assert talk.failure(final + trailers) == f"the head of its answer has more than {why}"


def test_trailers_are_read_and_dropped() -> None:
    """Trailers end the answer. If they do not, the stream is reset."""
    for flags in (LAST, Flag.END_HEADERS):
        talk = Talk()
        stream = talk.send()
        trailers = frame(Kind.HEADERS, flags, stream.number, Encoder().encode([(b"grpc-status", b"0")]))
        ended = talk.one(talk.head(stream, 200), data(stream, b"ok"), trailers)
        assert ended.answer == Answer(200, b"HTTP/2 200", b"ok", keep=False)


def test_padding_and_priorities_are_skipped() -> None:
    """They carry no data."""
    talk = Talk()
    stream = talk.send()
    flags = Flag.END_HEADERS | Flag.PADDED | Flag.PRIORITY
    head = frame(Kind.HEADERS, flags, 1, b"\x03" + b"\0" * 5 + talk.block(200) + b"\0" * 3)
    body = frame(Kind.DATA, Flag.PADDED | Flag.END_STREAM, stream.number, b"\x02ok\0\0")
    assert talk.one(head, body).answer == Answer(200, b"HTTP/2 200", b"ok", keep=False)


# The end of requests.


def test_a_refused_request_may_be_sent_again() -> None:
    """REFUSED_STREAM promises that it was not processed. The number of open requests becomes the receiver's limit."""
    talk = Talk()
    first, second, third = talk.send(), talk.send(), talk.send()
    assert talk.one(frame(Kind.RST_STREAM, 0, 5, Code.REFUSED_STREAM.to_bytes(4))) == Ended(third)
    assert talk.session.room == 0
    talk.session.cancel(first)
    assert talk.session.room == 1
    assert list(talk.session.streams.values()) == [second]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (Code.CANCEL, "it reset the request: CANCEL"),
        (0x2, "it reset the request: INTERNAL_ERROR"),
        (0x77, "it reset the request: error 119"),
        (Code.HTTP_1_1_REQUIRED, "it wants HTTP/1.1: set http_version to 1.1"),
    ],
)
def test_a_reset_request_has_failed_unless_its_status_is_known(code: int, error: str) -> None:
    """The error gives the reason. A known status counts, as with HTTP/1.1."""
    talk = Talk()
    reset = frame(Kind.RST_STREAM, 0, talk.send().number, code.to_bytes(4))
    ended = talk.one(reset)
    assert (ended.answer, ended.error) == (None, error)
    assert talk.session.receive(reset) == []
    talk = Talk()
    ended = talk.one(talk.head(talk.send(), 200), reset)
    assert ended.answer is not None
    assert ended.answer.status == 200


def goaway(last: int, code: int = 0) -> bytes:
    return frame(Kind.GOAWAY, 0, 0, last.to_bytes(4) + code.to_bytes(4) + b"debug")


def test_goaway() -> None:
    """Requests that it did not process may be sent again. The others go on, and no further ones are opened."""
    talk = Talk()
    first, second = talk.send(), talk.send(b"x" * 100_000)
    assert talk.one(goaway(1)) == Ended(second)
    assert talk.session.room == 0
    assert talk.one(talk.head(first, 204, flags=LAST)).answer is not None
    assert [each for each in talk.frames() if each[2] == second.number and each[0] == Kind.DATA] == []


def test_a_graceful_goaway_ends_nothing() -> None:
    """It announces the end. A second GOAWAY says which requests were processed (RFC 9113, 6.8)."""
    talk = Talk()
    first, second = talk.send(), talk.send()
    assert talk.session.receive(goaway(2**31 - 1)) == []
    assert talk.session.leaving
    assert talk.one(goaway(1)) == Ended(second)
    assert talk.one(talk.head(first, 204, flags=LAST)).answer is not None


def test_goaway_with_an_error() -> None:
    """The error names its code. Unprocessed requests may still be sent again."""
    talk = Talk()
    first, second = talk.send(), talk.send()
    assert talk.failure(goaway(1, Code.ENHANCE_YOUR_CALM)) == "it ended the connection: ENHANCE_YOUR_CALM"
    assert talk.session.end("why", orderly=False) == [Ended(second), Ended(first, None, "why")]


def test_an_early_answer_ends_the_request() -> None:
    """The rest of the body is not sent."""
    talk = Talk()
    stream = talk.send(b"x" * 100_000)
    talk.frames()
    ended = talk.one(talk.head(stream, 413, flags=LAST))
    assert ended.answer is not None
    assert ended.answer.status == 413
    assert [each[:3] for each in talk.frames()] == [(Kind.RST_STREAM, 0, 1)]
    talk.session.receive(window_update(0, 100_000))
    assert talk.frames() == []


def test_a_cancelled_request() -> None:
    """The receiver gets a RST_STREAM. Its later frames for the request have no effect."""
    talk = Talk()
    stream, other = talk.send(b"x" * 100_000), talk.send()
    talk.session.cancel(stream)
    assert (Kind.RST_STREAM, 0, 1, Code.CANCEL.to_bytes(4)) in talk.frames()
    talk.session.cancel(stream)
    assert talk.frames() == []
    late = (talk.head(stream, 200, (b"x", b"indexed")), data(stream, b"late", 1), window_update(1, 5))
    assert talk.session.receive(b"".join(late)) == []
    ended = talk.one(talk.head(other, 200, (b"x", b"indexed"), flags=LAST))
    assert ended.answer == Answer(200, b"HTTP/2 200\r\nx: indexed", b"", keep=False)


def test_the_end_of_the_connection() -> None:
    """On a connection that had worked, a request is unprocessed if no byte came after it. A known status counts."""
    talk = Talk()
    answered, heard = talk.send(), talk.send()
    talk.session.receive(talk.head(answered, 200))
    unheard = talk.send()
    first, second, third = talk.session.end("closed", orderly=True)
    assert first.answer is not None
    assert (second, third) == (Ended(heard, None, "closed"), Ended(unheard))
    session, stream = Session(), Stream()
    session.open(stream, HEAD % 0, b"")
    assert session.end("closed", orderly=True) == [Ended(stream, None, "closed")]


# Violations of the protocol.


@pytest.mark.parametrize(
    ("kind", "weight"),
    [(kind, 1) for kind in ("settings", "ping", "unknown", "priority", "window", "reset", "data", "heads")]
    + [("large heads", 11)],
)
def test_a_flood_of_frames_ends_the_connection(kind: str, weight: int) -> None:
    """A thousand frames that belong to no answer are allowed, and some more for each frame that was sent.

    A large head counts as several frames, since decoding it costs more.
    """
    talk = Talk()
    closed, _ = talk.send(), talk.send()
    talk.session.cancel(closed)
    frames = {
        "settings": settings({}),
        "ping": frame(Kind.PING, 0, 0, b"x" * 8),
        "unknown": frame(0x42, 0, 0, b""),
        "priority": frame(0x2, 0, 1, b"x" * 5),
        "window": window_update(3, 1),
        "reset": frame(Kind.RST_STREAM, 0, 1, bytes(4)),
        "data": data(closed, b""),
        "heads": frame(Kind.HEADERS, LAST, 1, b"\x88"),
        "large heads": frame(Kind.HEADERS, LAST, 1, b"\x00\x01a\x7f\x81\x13" + b"x" * 2_560),
    }
    talk.session.receive(frames[kind] * ((CONTROL - 10) // weight))
    assert talk.failure(frames[kind] * 30) == "it sent more than 1000 frames that belong to no answer"
    talk = Talk()
    for _ in range(CONTROL):  # a ping at each request is allowed
        stream = talk.send()
        talk.one(frame(Kind.PING, 0, 0, b"x" * 8), settings({}), talk.head(stream, 204, flags=LAST))


def test_a_flood_of_continuations() -> None:
    """Empty frames count too: a head is not awaited for ever."""
    talk = Talk()
    stream = talk.send()
    start, more = frame(Kind.HEADERS, 0, stream.number, b""), frame(Kind.CONTINUATION, 0, stream.number, b"")
    talk.session.receive(start)
    assert talk.failure(more * (CONTROL + 10)) == "it sent more than 1000 frames that belong to no answer"


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (frame(Kind.DATA, 0, 0, b"x"), "it answered a request that it did not get"),
        (frame(Kind.DATA, 0, 3, b"x"), "it answered a request that it did not get"),
        (frame(Kind.HEADERS, LAST, 2, b"\x88"), "it answered a request that it did not get"),
        (frame(Kind.RST_STREAM, 0, 7, bytes(4)), "it answered a request that it did not get"),
        (frame(Kind.PUSH_PROMISE, 0, 1, bytes(4)), "it sent a frame that it must not send"),
        (frame(Kind.CONTINUATION, 0, 1, b""), "it sent a frame that it must not send"),
        (frame(Kind.HEADERS, 0, 1, b"") + settings({}), "it interrupted a head by another frame"),
        (frame(Kind.HEADERS, LAST, 1, b"\x80"), "a header block names an entry that its table does not have"),
        (frame(Kind.SETTINGS, 0, 0, b"x"), "it sent settings of a wrong size"),
        (settings({Setting.INITIAL_WINDOW_SIZE: 2**31}), "it sent settings that are not allowed"),
        (settings({Setting.MAX_FRAME_SIZE: 100}), "it sent settings that are not allowed"),
        (window_update(0, 2**31 - 1), "it opened a window by nothing, or beyond the largest size"),
        (window_update(1, 0), "it opened a window by nothing, or beyond the largest size"),
        (frame(Kind.PING, 0, 0, b"x"), "it sent a frame of a wrong size"),
        (frame(Kind.GOAWAY, 0, 0, b"x"), "it sent a frame of a wrong size"),
        (frame(Kind.DATA, 0, 1, b"x" * 16_385), "it sent a frame of 16385 bytes"),
        (frame(Kind.DATA, Flag.PADDED, 1, b"\x05abc"), "it sent a frame with more padding than payload"),
    ],
)
def test_a_violation_of_the_protocol_ends_the_connection(sent: bytes, why: str) -> None:
    """The error says what was wrong."""
    talk = Talk()
    talk.send()
    assert talk.failure(sent) == why


@pytest.mark.parametrize(
    "sent",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 100, frame(Kind.PING, 0, 0, b"x" * 8), frame(4, Flag.ACK, 0, b"")],
)
def test_a_connection_that_does_not_begin_with_settings_is_not_http2(sent: bytes) -> None:
    """Even if TLS has agreed on h2."""
    session = Session()
    session.open(Stream(), HEAD % 0, b"")
    with pytest.raises(SessionFailed, match=OTHER):
        session.receive(sent)


def test_random_bytes_and_random_frames() -> None:
    """On any input the session goes on or fails with a reason. Each request ends once."""
    random = Random(1)
    for _ in range(1_500):
        talk = Talk()
        streams = [talk.send(b"x" * random.choice([0, 10, 70_000])) for _ in range(3)]
        ended: list[Ended] = []
        try:
            for _ in range(30):
                payload = random.choice([random.randbytes(random.randrange(12)), talk.block(random.choice([100, 200]))])
                number = random.choice([0, 1, 3, 5, 5, 3, 1, 2, 7])
                ended += talk.session.receive(frame(random.randrange(11), random.randrange(64), number, payload))
                talk.session.take(1_000)
        except SessionFailed as failed:
            assert str(failed)  # noqa: PT017 (most of the runs)
        ended += talk.session.end("closed", orderly=False)
        assert sorted(each.stream.number for each in ended) == [stream.number for stream in streams]
