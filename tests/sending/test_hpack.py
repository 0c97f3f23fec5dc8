"""Header compression, compared with the library hpack."""

from random import Random

import hpack
import pytest
from hpack.table import HeaderTable
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.sending.answer import HEAD_LIMIT
from consumer.sending.hpack import _STATIC, BadFields, FieldDecoder, request_block

NAMES = st.sampled_from([b":status", b"date", b"server", b"x-request-id", b"set-cookie", b"x-" + b"n" * 300])
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=300)), max_size=12)
HEAD = (
    b"POST /hook?a=b HTTP/1.1\r\nHost: example.com:8443\r\nUser-Agent: x\r\nConnection: keep-alive\r\nx-empty:\r\n"
    b"%bwebhook-id: msg_1\r\nContent-Length: 2\r\n\r\n"
)
SENT = [
    *((b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/hook?a=b"), (b":authority", b"example.com:8443")),
    *((b"user-agent", b"x"), (b"x-empty", b"")),
]
ENDED = "a header block ends within a field"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(FIELDS, st.sampled_from([None, 0, 60, 4096]), st.booleans()), max_size=6))
def test_answers_are_decoded_as_their_receiver_encoded_them(blocks: list) -> None:  # type: ignore[type-arg]
    """Block after block, while the dynamic table fills and changes its size, with and without Huffman coding."""
    encoder, decoder = hpack.Encoder(), FieldDecoder()
    for fields, size, is_huffman in blocks:
        if size is not None:
            encoder.header_table_size = size
        assert decoder.decode(encoder.encode(fields, huffman=is_huffman), HEAD_LIMIT)[0] == fields


def test_the_static_table() -> None:
    """It equals RFC 7541, appendix A."""
    assert tuple(HeaderTable.STATIC_TABLE) == _STATIC


@pytest.mark.parametrize("content_type", [b"", b"content-type: application/json\r\n"])
def test_a_request_is_encoded_from_its_head(content_type: bytes) -> None:
    """Names are in lower case, headers of an HTTP/1.1 connection are left out, and no block depends on another."""
    head = HEAD % content_type
    given_type = [(b"content-type", b"application/json")] if content_type else []
    expected = [*SENT, *given_type, (b"webhook-id", b"msg_1"), (b"content-length", b"2")]
    decoder = hpack.Decoder()
    for first in (True, False, False):
        fields = decoder.decode(request_block(head, first=first), raw=True)
        assert [tuple(field) for field in fields] == expected
    assert not decoder.header_table.dynamic_entries
    for method in (b"GET", b"PUT"):
        fields = hpack.Decoder().decode(request_block(head.replace(b"POST", method), first=True), raw=True)
        assert tuple(next(iter(fields))) == (b":method", method)


@pytest.mark.parametrize("length", [126, 127, 128, 254, 255, 5000, 20_000])
def test_a_long_value_is_encoded_whole(length: int) -> None:
    """Its length is encoded in one byte or more."""
    head = HEAD % (b"content-type: a\r\nauthorization: Bearer %b\r\n" % (b"x" * (length - 7)))
    fields = hpack.Decoder(100_000).decode(request_block(head, first=True), raw=True)
    assert (b"authorization", b"Bearer " + b"x" * (length - 7)) in [tuple(field) for field in fields]


def test_no_field_of_a_request_may_be_indexed() -> None:
    """If a proxy indexed credentials, others could guess them (RFC 7541, 7.1)."""
    fields = list(hpack.Decoder().decode(request_block(HEAD % b"authorization: Bearer x\r\n", first=True), raw=True))
    assert [field[0] for field in fields if field.indexable] == [b":method", b":scheme"]


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (b"\x80", "names an entry that its table does not have"),
        (b"\xbe", "names an entry that its table does not have"),
        (b"\xff" + b"\xff" * 4 + b"\x0f", "holds a number that is too large"),
        (b"\x3f\xe2\x1f", "changes the table's size where it must not"),
        (b"\x88\x20", "changes the table's size where it must not"),
        (b"\x20\x20\x20\x88", "changes the table's size where it must not"),
        (b"\x00\x05ab", ENDED),
        (b"\x00", ENDED),
        (b"\x00\x01a", ENDED),
        (b"\x00\x01a\x7f\x80", ENDED),
        (b"\xff", ENDED),
        (b"\x00\x01a\x84\xff\xff\xff\xff", "is not Huffman-coded correctly"),  # end-of-string symbol inside a string
        (b"\x00\x01a\x82\x1f\xff", "is not Huffman-coded correctly"),  # more padding than seven bits
        (b"\x00\x01a\x81\x18", "is not Huffman-coded correctly"),  # padding with bits other than ones
    ],
)
def test_invalid_header_blocks(block: bytes, why: str) -> None:
    """They are refused. The library refuses them too, except for a third change of the table's size."""
    with pytest.raises(BadFields, match=why):
        FieldDecoder().decode(block, HEAD_LIMIT)
    if block != b"\x20\x20\x20\x88":
        with pytest.raises(hpack.HPACKError):
            hpack.Decoder().decode(block, raw=True)


@pytest.mark.parametrize(
    "field", [b"\x00\x00\x00", b"\x82", b"\x40\x00\x00", b"\x40\x01a\x7f\x81\x0e" + b"x" * 1920 + b"\xbe" * 50]
)
def test_a_small_block_cannot_become_a_large_head(field: bytes) -> None:
    """The limit is 64 KiB, counting 32 bytes more for each field as HTTP/2 does."""
    with pytest.raises(BadFields, match="the head of its answer has more than 64 KiB"):
        FieldDecoder().decode(field * 2_100, HEAD_LIMIT)


def test_random_blocks() -> None:
    """Any block is decoded or refused."""
    random = Random(1)
    decoder = FieldDecoder()
    for _ in range(5_000):
        try:
            decoder.decode(random.randbytes(random.randrange(1, 30)), HEAD_LIMIT)
        except BadFields:
            decoder = FieldDecoder()
