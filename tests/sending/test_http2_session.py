"""HTTP/2 sessions without a socket: frames that a receiver may send, and the limits."""

import tracemalloc
from random import Random

import pytest
from h2.errors import ErrorCodes as Code
from h2.settings import SettingCodes
from hpack import Decoder, Encoder
from requests import Request

from consumer.sending.answer import INTERIM, Answer
from consumer.sending.http2_session import BODY_FRAMES, CONTROL, FRAMES, STREAMS, Http2Session, SessionFailed
from consumer.sending.transfer import HTTP2_HEADS, Http2Exchange, Transfer
from tests.sending.http2_kit import goaway, raw

HEAD = b"POST /hook HTTP/1.1\r\nHost: example.com\r\nx-a: b\r\nKeep-Alive: 5\r\nContent-Length: %d\r\n\r\n"
OTHER = "it answered with something other than HTTP/2"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION, UNKNOWN = *range(10), 0x42
END, LAST_HEAD, PADDED, PRIORITIZED = 0x1, 0x4, 0x8, 0x20
LAST = LAST_HEAD | END
TRANSFER = Transfer(Request("POST", "https://example.com/").prepare(), lambda _: None, 0, 1)


def exchange() -> Http2Exchange:
    return Http2Exchange(TRANSFER, lambda _: None)


def settings(values: dict[SettingCodes, int] | None = None, flags: int = 0) -> bytes:
    return raw(
        SETTINGS, flags, 0, b"".join(code.to_bytes(2) + value.to_bytes(4) for code, value in (values or {}).items())
    )


def window(number: int, more: int) -> bytes:
    return raw(WINDOW, 0, number, more.to_bytes(4))


def status_block(status: bytes) -> bytes:
    return Encoder().encode([(b":status", status)] if status else [(b"x", b"y")])


def data(of: Http2Exchange, body: bytes, flags: int = 0) -> bytes:
    return raw(DATA, flags, of.number, body)


class Talk:
    """A session whose receiver has sent its settings, and the receiver's header encoder."""

    def __init__(self, wanted: dict[SettingCodes, int] | None = None) -> None:
        self.session = Http2Session()
        self._encoder = Encoder()
        self.session.receive(settings(wanted))
        self.session.take(2**20)

    def send(self, body: bytes = b"") -> Http2Exchange:
        sent = exchange()
        self.session.open(sent, HEAD % len(body), body)
        return sent

    def receive(self, *sent: bytes) -> list[Http2Exchange]:
        """The exchanges that these frames end, parsed in as many turns as it takes."""
        self.session.budget = 1_000_000
        return self.session.receive(b"".join(sent))

    def block(self, status: int, *fields: tuple[bytes, bytes]) -> bytes:
        return self._encoder.encode([(b":status", b"%d" % status), *fields])

    def head(self, of: Http2Exchange, status: int, *fields: tuple[bytes, bytes], flags: int = LAST_HEAD) -> bytes:
        return raw(HEADERS, flags, of.number, self.block(status, *fields))

    def one(self, *sent: bytes) -> Http2Exchange:
        (ended,) = self.receive(*sent)
        return ended

    def frames(self, least: int = 2**20) -> list[tuple[int, int, int, bytes]]:
        """The frames that the session sends: kind, flags, stream and payload."""
        sent, found = self.session.take(least), []
        while sent:
            size = int.from_bytes(sent[:3])
            found.append((sent[3], sent[4], int.from_bytes(sent[5:9]), sent[9 : 9 + size]))
            sent = sent[9 + size :]
        return found

    def failure(self, *sent: bytes) -> str:
        with pytest.raises(SessionFailed) as failed:
            self.receive(*sent)
        return str(failed.value)


@pytest.fixture
def talk() -> Talk:
    return Talk()


def test_an_answer() -> None:
    """It has a status, lines as in HTTP/1.1, and a body, and may come in any pieces. Trailers are dropped."""
    for size in (1, 7, 1000):
        talk = Talk()
        stream = talk.send(b"{}")
        trailers = raw(HEADERS, LAST, stream.number, Encoder().encode([(b"grpc-status", b"0")]))
        head = talk.head(stream, 200, (b"retry-after", b"7"), (b"x", b""))
        sent = head + data(stream, b"ab") + data(stream, b"c") + trailers
        ended = [each for at in range(0, len(sent), size) for each in talk.receive(sent[at : at + size])]
        assert ended == [stream]
        assert stream.cut() == Answer(200, b"HTTP/2 200\r\nretry-after: 7\r\nx: ", b"abc", keep=False)
        assert talk.session.exchanges == {}


def test_requests() -> None:
    """Each is a HEADERS frame and a DATA frame on a stream of its own; no proxy may index a field of it."""
    talk, decoder = Talk(), Decoder()
    for number in (1, 3):
        talk.send(b"{}")
        head, body = talk.frames()
        assert head[:3] == (HEADERS, LAST_HEAD, number)
        assert body == (DATA, END, number, b"{}")
        fields = list(decoder.decode(head[3], raw=True))
        assert [tuple(field) for field in fields] == [
            *((b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/hook"), (b":authority", b"example.com")),
            *((b"x-a", b"b"), (b"content-length", b"2")),
        ]
        assert [field[0] for field in fields if field.indexable] == [b":method", b":scheme"]
    talk.send()
    assert [each[:3] for each in talk.frames()] == [(HEADERS, LAST, 5)]


def test_one_request_goes_out_before_the_receivers_limit_is_known() -> None:
    """Afterwards as many as it allows, but no more than our own limit."""
    session = Http2Session()
    assert session.room == 1
    session.receive(settings())
    assert session.room == STREAMS
    for wanted, room in ((3, 3), (0, 0), (10_000, STREAMS)):
        assert Talk({SettingCodes.MAX_CONCURRENT_STREAMS: wanted}).session.room == room
    talk = Talk({SettingCodes.MAX_CONCURRENT_STREAMS: 2})
    stream = talk.send()
    assert talk.session.room == 1
    talk.one(talk.head(stream, 204, flags=LAST))
    assert talk.session.room == 2


# Flow control.


def test_a_body_goes_out_as_far_as_the_windows_allow(talk: Talk) -> None:
    """64 KiB at first, then as the receiver opens the windows of the stream and of the connection."""
    stream = talk.send(b"x" * 100_000)
    assert sum(len(payload) for kind, *_, payload in talk.frames() if kind == DATA) == 65_535
    talk.receive(window(stream.number, 100_000))
    assert talk.frames() == []
    talk.receive(window(0, 10))
    assert [payload for *_, payload in talk.frames()] == [b"x" * 10]
    talk.receive(window(0, 100_000))
    rest = talk.frames()
    assert (sum(len(payload) for *_, payload in rest), rest[-1][1]) == (34_455, END)


def test_a_stalled_stream_does_not_hold_others_up() -> None:
    """Its window is closed. The others' bodies overtake it, and a large one goes in turn with small ones."""
    talk = Talk({SettingCodes.INITIAL_WINDOW_SIZE: 10})
    stalled, small = talk.send(b"x" * 100), talk.send(b"y" * 10)
    sent = [(number, payload) for kind, _, number, payload in talk.frames() if kind == DATA]
    assert sent == [(stalled.number, b"x" * 10), (small.number, b"y" * 10)]
    talk = Talk()
    talk.receive(window(0, 2**20))
    talk.send(b"x" * 60_000)
    talk.send(b"y" * 10_000)
    order = [number for kind, _, number, _ in talk.frames() if kind == DATA]
    assert order == [1, 3, 1, 1, 1]


def test_the_bytes_taken_at_once_are_bounded() -> None:
    """At most one frame of a large body more than requested."""
    talk = Talk({SettingCodes.INITIAL_WINDOW_SIZE: 2**30})
    talk.receive(window(0, 2**30))
    talk.send(b"x" * 2**20)
    assert 65_536 <= len(talk.session.take(65_536)) < 65_536 + 17_000


def test_what_waits_to_be_sent_is_bounded(talk: Talk) -> None:
    """A receiver that answers and asks, and reads nothing, gets no more requests until it reads."""
    for _ in range(100):
        if talk.session.room:
            stream = exchange()
            talk.session.open(stream, HEAD % 0 + b"A: " + b"y" * 8_000 + b"\r\n", b"")
            talk.receive(talk.head(stream, 200, flags=LAST))
        talk.receive(raw(PING, 0, 0, bytes(8)) * 5)
    assert 2**18 < len(talk.session._out) < 2**19
    assert talk.session.room == 0
    talk.session.take(2**20)
    assert talk.session.room == STREAMS


def test_the_connections_window_is_opened_again_and_a_streams_window_is_not(talk: Talk) -> None:
    """So a receiver can answer for ever, but no stream exceeds 64 KiB by more than a byte."""
    opened = 0
    for _ in range(200):
        stream = talk.send()
        sent = [data(stream, b"x" * 16_384) for _ in range(3)]
        assert talk.one(talk.head(stream, 200), *sent, data(stream, b"x" * 16_384, END)).status
        opened += sum(int.from_bytes(load) for kind, _, number, load in talk.frames() if (kind, number) == (WINDOW, 0))
    assert 200 * 65_536 - opened < 8 * 2**20


@pytest.mark.parametrize("more", [0, 1])
def test_an_endless_body_is_cut(talk: Talk, more: int) -> None:
    """64 KiB are kept whole. With one byte more the stream is reset, and the connection goes on."""
    stream = talk.send()
    talk.frames()
    pieces = [data(stream, b"x" * 16_384) for _ in range(4)]
    talk.one(talk.head(stream, 200), *pieces, data(stream, b"x" * more, 1 - more))
    assert (stream.status, len(stream.content)) == (200, 65_536)
    resets = [payload for kind, *_, payload in talk.frames() if kind == RESET]
    assert resets == [Code.CANCEL.to_bytes(4)] * more
    assert talk.session.room == STREAMS


def test_a_body_in_too_many_pieces_is_cut(talk: Talk) -> None:
    """Pieces cost more than bytes, empty ones too."""
    stream = talk.send()
    tracemalloc.start()
    assert talk.receive(talk.head(stream, 200), data(stream, b"") * 56, data(stream, b"x" * 16) * 200) == []
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 100_000, "in one buffer"
    assert stream.pieces == BODY_FRAMES
    assert talk.one(data(stream, b"")).status == 200


# Heads.


def test_interim_answers(talk: Talk) -> None:
    """They are skipped."""
    stream = talk.send()
    assert talk.receive(*[talk.head(stream, 103, (b"link", b"</a>"))] * INTERIM) == []
    assert talk.one(talk.head(stream, 204, flags=LAST)).cut() == Answer(204, b"HTTP/2 204", b"", keep=False)


NO_STATUS = "the head of its answer has no valid status"
STATUSES = (b"", b"20", b"2000", b"abc", b"101", b"099", b"\xb2\xb0\xb0")


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        *((raw(HEADERS, LAST_HEAD, 1, status_block(each)), NO_STATUS) for each in STATUSES),
        (raw(HEADERS, LAST_HEAD, 1, status_block(b"103")) * 21, "it sent more than 20 interim answers"),
        (raw(RESET, 0, 1, Code.CANCEL.to_bytes(4)), "it reset the request: CANCEL"),
        (raw(RESET, 0, 1, bytes(3) + b"\x77"), "it reset the request: error 119"),
        (raw(RESET, 0, 1, Code.HTTP_1_1_REQUIRED.to_bytes(4)), "it wants HTTP/1.1: set http_version to 1.1"),
    ],
)
def test_an_answer_without_a_status_fails_its_request_alone(talk: Talk, sent: bytes, error: str) -> None:
    """The error gives the reason. Other requests go on. A status that is known counts, as with HTTP/1.1."""
    _, other = talk.send(), talk.send()
    ended = talk.one(sent)
    assert (ended.cut(), ended.error) == (None, error)
    assert list(talk.session.exchanges.values()) == [other]
    if sent[3] == RESET:
        assert talk.receive(sent) == []
        talk = Talk()
        assert talk.one(talk.head(talk.send(), 200), sent).status == 200


def test_invalid_header_lines_are_left_out(talk: Talk) -> None:
    """The answer counts. Its valid fields are listed and can be looked up by name; 200 lines are, as with HTTP/1.1."""
    fields = ((b"a", b"b\r\nx: y"), (b":x", b"y"), (b"", b"y"), (b"c\0", b"d"), (b"E", b"f"))
    ended = talk.one(talk.head(talk.send(), 503, *fields, flags=LAST))
    assert ended.cut() == Answer(503, b"HTTP/2 503\r\nE: f", b"", keep=False)
    assert len(talk.one(talk.head(talk.send(), 200, *[(b"a", b"b")] * 300, flags=LAST)).lines) == 199


ENTRY = b"\x40\x01a\x7f\x81\x0e" + b"x" * 1_920  # of the dynamic table, which a byte names: \xbe


@pytest.mark.parametrize("field", [b"\x00\x00\x00", b"\x82", b"\x40\x00\x00", ENTRY + b"\xbe" * 9])
def test_the_limit_of_a_head(talk: Talk, field: bytes) -> None:
    """16 KiB encoded, in any number of frames, and as many decoded, with 32 bytes more for each field."""
    stream = talk.send()
    start, more = (raw(kind, 0, stream.number, b"x" * 10_000) for kind in (HEADERS, CONTINUATION))
    assert talk.failure(start, more) == "the head of its answer has more than 16 KiB"
    talk = Talk()
    assert "Oversized header block" in talk.failure(
        raw(HEADERS, LAST, talk.send().number, (field * 2_000)[:HTTP2_HEADS])
    )


@pytest.mark.parametrize("field", [b"\x00\x01a\x7f\xd1\x0e" + b"x" * 2_000, b"\xbe"])
def test_interim_answers_and_trailers_count_as_parts_of_the_head(talk: Talk, field: bytes) -> None:
    """Encoded and decoded, as with HTTP/1.1: each may take milliseconds of CPU. Other answers do not count."""
    talk.one(raw(HEADERS, LAST, talk.send().number, b"\x89" + ENTRY))
    stream, other = talk.send(), talk.send()
    interim = raw(HEADERS, LAST_HEAD, stream.number, b"\x08\x03103" + field)
    assert talk.receive(interim * 6) == []
    talk.one(raw(HEADERS, LAST, other.number, b"\x89" + field))
    final = raw(HEADERS, LAST_HEAD, stream.number, b"\x88")
    assert (
        talk.failure(final, raw(HEADERS, LAST, stream.number, field * 3))
        == "the head of its answer has more than 16 KiB"
    )


@pytest.mark.parametrize("lengths", [[b"abc"], [b"2", b"3"], [b"1"], [b"3"], [b"-2"], [b""]])
def test_a_wrong_length_does_not_matter(talk: Talk, lengths: list[bytes]) -> None:
    """The answer counts, with the body that came, and the connection goes on."""
    stream, other = talk.send(), talk.send()
    fields = [(b"content-length", length) for length in lengths]
    ended = talk.one(talk.head(stream, 200, *fields), data(stream, b"ok", END))
    assert (ended.status, bytes(ended.content)) == (200, b"ok")
    assert talk.one(talk.head(other, 204, *fields, flags=LAST)).status == 204


def test_a_priority_of_a_stream_over_itself_is_skipped(talk: Talk) -> None:
    """It does no harm, in a frame of its own or in a head."""
    stream = talk.send()
    itself = stream.number.to_bytes(4) + b"\0"
    head = raw(HEADERS, LAST | PRIORITIZED, stream.number, itself + talk.block(200))
    assert talk.one(raw(PRIORITY, 0, stream.number, itself), raw(PRIORITY, 0, 9, b"x"), head).status == 200


@pytest.mark.parametrize("sent", [raw(PING, 0, 0, b"x"), raw(DATA, 0, 7), raw(DATA, 0, 2)])
def test_a_fault_of_the_connection_fails_all_its_requests(talk: Talk, sent: bytes) -> None:
    """No single request has caused it, so each gets the reason."""
    streams = [talk.send(), talk.send()]
    talk.failure(raw(PRIORITY, 0, 1, bytes(5)), sent)
    assert [each.error for each in talk.session.end("why", orderly=False)] == ["why"] * len(streams)


# The end of requests.


def test_a_refused_request_may_be_sent_again(talk: Talk) -> None:
    """REFUSED_STREAM promises that it was not processed. The number of open requests becomes the receiver's limit."""
    first, second, third = talk.send(), talk.send(), talk.send()
    assert talk.one(raw(RESET, 0, 5, Code.REFUSED_STREAM.to_bytes(4))) is third
    assert (third.status, third.error, talk.session.room) == (0, "", 0)
    talk.session.cancel(first)
    assert talk.session.room == 1
    assert list(talk.session.exchanges.values()) == [second]


def test_a_receiver_that_allows_no_more_requests_gets_none(talk: Talk) -> None:
    """What it refuses afterwards does not raise its own limit of 0; a later limit of its own counts again."""
    streams = [talk.send() for _ in range(3)]
    talk.receive(settings({SettingCodes.MAX_CONCURRENT_STREAMS: 0}))
    refused = [raw(RESET, 0, each.number, Code.REFUSED_STREAM.to_bytes(4)) for each in streams]
    assert talk.receive(*refused) == streams
    assert talk.session.room == 0
    talk.receive(settings({SettingCodes.MAX_CONCURRENT_STREAMS: 5}))
    assert talk.session.room == 5


def test_goaway(talk: Talk) -> None:
    """Requests that it did not process may be sent again. The others go on, and no further ones are opened."""
    first, second = talk.send(), talk.send(b"x" * 100_000)
    assert talk.receive(goaway(2**31 - 1)) == [], "it announces the end (RFC 9113, 6.8)"
    assert talk.session.leaving
    assert talk.one(goaway(1)) is second
    assert (second.status, second.error, talk.session.room) == (0, "", 0)
    assert talk.one(talk.head(first, 204, flags=LAST)).status == 204
    assert [each for each in talk.frames() if each[2] == second.number and each[0] == DATA] == []


def test_goaway_with_an_error(talk: Talk) -> None:
    """The error names its code. Unprocessed requests may still be sent again."""
    first, second = talk.send(), talk.send()
    assert talk.failure(goaway(1, Code.ENHANCE_YOUR_CALM)) == "it ended the connection: ENHANCE_YOUR_CALM"
    assert talk.session.end("why", orderly=False) == [second, first]
    assert (second.error, first.error) == ("", "why")


def test_an_early_answer_ends_the_request(talk: Talk) -> None:
    """The rest of the body is not sent."""
    stream = talk.send(b"x" * 100_000)
    talk.frames()
    assert talk.one(talk.head(stream, 413, flags=LAST)).status == 413
    assert [each[:3] for each in talk.frames()] == [(RESET, 0, 1)]
    talk.receive(window(0, 100_000))
    assert talk.frames() == []


@pytest.mark.parametrize("since", [0, 1_100])
def test_a_cancelled_request(talk: Talk, since: int) -> None:
    """The receiver gets a RST_STREAM. Its later frames have no effect, but that a head fills the table of fields.

    That holds however many requests have ended since.
    """
    stream, other = talk.send(b"x" * 100_000), talk.send()
    talk.session.cancel(stream)
    assert (RESET, 0, 1, Code.CANCEL.to_bytes(4)) in talk.frames()
    talk.session.cancel(stream)
    assert talk.frames() == []
    for _ in range(since):
        talk.one(talk.head(talk.send(), 204, flags=LAST))
        talk.frames()
    late = (data(stream, b"late", END), window(1, 5), raw(RESET, 0, 1, bytes(4)))
    assert talk.receive(talk.head(stream, 200, (b"x", b"indexed")), *late) == []
    ended = talk.one(talk.head(other, 200, (b"x", b"indexed"), flags=LAST))
    assert ended.cut() == Answer(200, b"HTTP/2 200\r\nx: indexed", b"", keep=False)


def test_the_end_of_the_connection(talk: Talk) -> None:
    """On a connection that had worked, a request is unprocessed if no byte came after it. A known status counts."""
    answered, heard = talk.send(), talk.send()
    talk.receive(talk.head(answered, 200))
    unheard = talk.send()
    assert talk.session.end("closed", orderly=True) == [answered, heard, unheard]
    assert (answered.status, heard.error, unheard.error) == (200, "closed", "")
    session, stream = Http2Session(), exchange()
    session.open(stream, HEAD % 0, b"")
    assert session.end("closed", orderly=True) == [stream]
    assert stream.error == "closed"


# Violations of the protocol.


@pytest.mark.parametrize(
    ("frame", "weight"),
    [
        (settings(), 1),
        (raw(PING, 0, 0, b"x" * 8), 1),
        (raw(UNKNOWN, 0, 0), 1),
        (raw(PRIORITY, 0, 1, b"x" * 5), 1),
        (window(3, 1), 1),
        (raw(RESET, 0, 1, bytes(4)), 1),
        (raw(DATA, 0, 1), 1),
        (raw(HEADERS, LAST, 1, b"\x88"), 1),
        (raw(HEADERS, LAST, 1, b"\x00\x01a\x7f\x81\x13" + b"x" * 2_560), 11),
    ],
    ids=["settings", "ping", "unknown", "priority", "window", "reset", "data", "heads", "large heads"],
)
def test_a_flood_of_frames_ends_the_connection(talk: Talk, frame: bytes, weight: int) -> None:
    """A thousand frames that belong to no answer are allowed. A large head counts as several: decoding costs more."""
    closed, _ = talk.send(), talk.send()
    talk.session.cancel(closed)
    talk.receive(frame * ((CONTROL - 10) // weight))
    assert talk.failure(frame * 30) == "it sent more than 1000 frames that belong to no answer"


def test_a_ping_at_each_request_is_allowed(talk: Talk) -> None:
    """Each frame that was sent earns some."""
    for _ in range(CONTROL):
        stream = talk.send()
        talk.one(raw(PING, 0, 0, b"x" * 8), settings(), talk.head(stream, 204, flags=LAST))


def test_a_turn_parses_a_bounded_part(talk: Talk) -> None:
    """The rest stays until the caller allows more: frames by their number, heads by their fields too."""
    streams = [talk.send() for _ in range(20)]
    sent = [raw(HEADERS, LAST, stream.number, b"\x88" + b"\x90" * 250) for stream in streams]
    talk.session.budget = FRAMES
    assert len(talk.session.receive(b"".join(sent))) == 4
    assert talk.session.is_behind
    assert len(talk.receive()) == 16
    assert not talk.session.is_behind
    talk.frames()
    talk.session.budget = FRAMES
    talk.session.receive(raw(PING, 0, 0, bytes(8)) * 150)
    assert len(talk.frames()) == FRAMES


def test_unknown_settings_are_not_kept(talk: Talk) -> None:
    """There are 65,536 of them, which would take 40 MB and 10 ms for each further SETTINGS."""
    talk.receive(raw(SETTINGS, 0, 0, b"".join((code).to_bytes(2) + bytes(4) for code in range(100, 2_000))))
    assert len(talk.session._h2.remote_settings) < 10


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (raw(DATA, 0, 0, b"x"), "it broke the protocol: Stream ID must be non-zero for DataFrame"),
        (raw(DATA, 0, 3, b"x"), "it answered a request that it did not get"),
        (raw(HEADERS, LAST, 2, b"\x88"), "it answered a request that it did not get"),
        (raw(RESET, 0, 7, bytes(4)), "it answered a request that it did not get"),
        (raw(PUSH, LAST_HEAD, 1, b"\0\0\0\2"), "it broke the protocol: Received pushed stream"),
        (raw(CONTINUATION, 0, 1), "it broke the protocol: "),
        (raw(HEADERS, 0, 1) + raw(CONTINUATION, 0, 1) * 70, "it broke the protocol: Too many continuation frames"),
        (raw(HEADERS, 0, 1) + settings(), "it broke the protocol: Invalid frame during header block"),
        (raw(HEADERS, LAST, 1, b"\x80"), "it broke the protocol: Error decoding header block"),
        (raw(HEADERS, LAST, 1, b"\x08\x03103"), "it broke the protocol: "),
        (raw(DATA, 0, 1, b"x"), "it broke the protocol: cannot receive data before headers"),
        (raw(SETTINGS, 0, 0, b"x"), "it broke the protocol: "),
        (settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**31}), "it broke the protocol: "),
        (settings({SettingCodes.MAX_FRAME_SIZE: 100}), "it broke the protocol: "),
        (window(0, 2**31 - 1), "it broke the protocol: "),
        (window(1, 0), "it broke the protocol: "),
        (raw(PING, 0, 0, b"x"), "it broke the protocol: "),
        (raw(GOAWAY, 0, 0, b"x"), "it broke the protocol: Invalid GOAWAY body"),
        (raw(DATA, 0, 1, b"x" * 16_385), "it sent a frame of 16385 bytes"),
        (raw(DATA, PADDED, 1, b"\x05abc"), "it broke the protocol: "),
    ],
)
def test_a_violation_of_the_protocol_ends_the_connection(talk: Talk, sent: bytes, why: str) -> None:
    """The error says what was wrong."""
    talk.send()
    assert talk.failure(sent).startswith(why)


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        raw(UNKNOWN, 0, 0, b"\0" * 100),
        raw(PING, 0, 0, bytes(8)),
        settings(flags=1),
    ],
)
def test_a_connection_that_does_not_begin_with_settings_is_not_http2(sent: bytes) -> None:
    """Even if TLS has agreed on h2."""
    session = Http2Session()
    session.open(exchange(), HEAD % 0, b"")
    with pytest.raises(SessionFailed, match=OTHER):
        session.receive(sent)


def test_random_bytes_and_random_frames() -> None:
    """On any input the session goes on or fails with a reason. Each request ends once."""
    random = Random(1)
    for _ in range(500):
        talk = Talk()
        streams = [talk.send(b"x" * random.choice([0, 10, 70_000])) for _ in range(3)]
        ended: list[Http2Exchange] = []
        try:
            for _ in range(30):
                payload = random.choice([random.randbytes(random.randrange(12)), talk.block(random.choice([100, 200]))])
                number = random.choice([0, 1, 3, 5, 5, 3, 1, 2, 7])
                ended += talk.receive(raw(random.randrange(11), random.randrange(64), number, payload))
                talk.session.take(1_000)
        except SessionFailed as failed:
            assert str(failed)  # noqa: PT017 (most of the runs)
        ended += talk.session.end("closed", orderly=False)
        assert sorted(each.number for each in ended) == [stream.number for stream in streams]
