"""The fuzz targets: each takes an input in bytes, and raises if a guarantee of the code is broken.

Inputs are text wherever possible, so that files of the corpus can be read and written by hand.
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import orjson
from requests.exceptions import InvalidHeader, InvalidURL

from consumer.delivery.outcome import retry_after
from consumer.errors import SettingsError
from consumer.events.cloud_event import variables_of
from consumer.events.event import Event
from consumer.expressions.expression import Expression, ExpressionFailed, compile_filter, compile_projection
from consumer.http import header_rules
from consumer.http.urls import check_target, parse_target, redact_url
from consumer.intake.decode import MAX_VALUE_BYTES, decode
from consumer.intake.mapping import TopicMapping
from consumer.intake.mapping_file import parse
from consumer.intake.record import Record
from consumer.ops.explain import explain
from consumer.schemas.avro import avro_decoder
from consumer.schemas.protobuf import protobuf_decoder
from consumer.schemas.wire_format import Decode, Framed, framed, in_json
from consumer.sending.answer import BODY_LIMIT, Answer, AnswerReader, BadAnswer
from consumer.sending.payloads import PROJECTION_BYTES, Unrenderable, render
from consumer.sending.signing import prepare
from consumer.subscriptions.endpoint import Endpoint
from tests.fuzz.records import KEYS, PLACE, check_event, made_or_refused, record_of
from tests.records import record as new_record
from tests.schemas.descriptors import everything, field, file_of, text_of
from tests.schemas.orders import AVRO

MARK = "Zoë-4711-geheim"  # content of an event that no error may quote
_HOST = re.compile(r"[a-z0-9._-]+")
_WORD = re.compile(r"[A-Za-z0-9]{4,}")


def decoding(data: bytes) -> None:
    """A record without a mapping: an explanation gives the same event, and names the source of each field."""
    record = record_of(data)
    made = made_or_refused(decode, record)
    assert made == made_or_refused(decode, record)
    explained = explain(record, "tenant", None)
    if isinstance(made, Event):
        assert explained.event == made
        assert [step.field for step in explained.steps] == ["type", "body", "source", "id", "tenant", "content_type"]
        if made.body is not record.value:
            raise AssertionError("the body is another")
        check_event(made, record)


def _mapped(mapping: TopicMapping, record: Record) -> None:
    made = made_or_refused(mapping.decode, record)
    assert made == made_or_refused(mapping.decode, record)
    steps = made_or_refused(lambda each: list(mapping.explain(each)), record)
    if isinstance(made, Event):
        check_event(made, record)
        assert isinstance(steps, list)
        assert steps[0].value == made.type
    else:
        assert steps == made, (steps, made)


def mapping_files(data: bytes) -> None:
    """The text of a mapping file: a mistake is reported in a line of bounded length. A mapping decodes any record."""
    text, _, given = data.partition(b"\n---\n")
    try:
        mappings = parse(text.decode(), "m.toml")
    except UnicodeDecodeError:
        return
    except SettingsError as error:
        assert str(error)
        assert len(str(error)) < 40_000, len(str(error))
        return
    for record in (record_of(given), *_RECORDS):
        mappings.of(record.partition.topic)
        for mapping in {mappings.of(topic) for topic in mappings.patterns}:
            if mapping is not None:
                _mapped(mapping, record)


def avro(data: bytes) -> None:
    """Any payload, with a schema that the first byte selects."""
    _schema(_AVRO[data[0] % len(_AVRO)] if data else _AVRO[0], Framed(1, data[1:]))


def avro_schemas(data: bytes) -> None:
    """A schema and, behind an empty line, a payload of it."""
    text, _, payload = data.partition(b"\n\n")
    try:
        made = avro_decoder(orjson.loads(text))
    except Exception:  # noqa: BLE001 (the registry's client takes any error for a schema that cannot be used)
        return
    _schema(made, Framed(1, payload))


def protobuf(data: bytes) -> None:
    """Any payload with message indexes or a name in front, with a schema that the first byte selects."""
    first = data[0] if data else 0
    _schema(_PROTOBUF[first % len(_PROTOBUF)], Framed(1, data[1:], name_in_front=first >= 128))


def _schema(made: Decode, given: Framed) -> None:
    record = new_record(given.payload, [("content-type", b"avro/binary")])
    found = made_or_refused(lambda each: in_json(each, given, made), record)
    assert found == made_or_refused(lambda each: in_json(each, given, made), record)
    if isinstance(found, Record):
        assert found.value is not None
        orjson.loads(found.value)
        assert len(found.value) < 6 * MAX_VALUE_BYTES, len(found.value)  # escapes are not counted
        event = made_or_refused(decode, found)
        if isinstance(event, Event):
            check_event(event, found)


def framing(data: bytes) -> None:
    """A record that may name a schema: the position of its id, and the rest."""
    record = record_of(data)
    found = made_or_refused(framed, record)
    if isinstance(found, Framed):
        assert record.value is not None
        assert record.value.endswith(found.payload)
        most = 2**64 if found.name_in_front else 2**31
        assert not isinstance(found.schema, int) or 0 <= found.schema < most
        made_or_refused(lambda each: in_json(each, found, _AVRO[0]), record)


def expressions(data: bytes) -> None:
    """A filter or projection and, behind an empty line, the record to evaluate it on; no error quotes the record."""
    source, _, given = data.partition(b"\n\n")
    for compiled in (compile_filter, compile_projection):
        try:
            expression = compiled(source.decode())
        except UnicodeDecodeError:
            continue
        except ValueError as error:
            assert str(error).isprintable() or "\n" not in str(error)
            assert 0 < len(str(error)) < 1000, error
            continue
        for record in (record_of(given), *_RECORDS):
            event = made_or_refused(decode, record)
            if isinstance(event, Event):
                _value(expression, event)


def _value(expression: Expression, event: Event) -> None:
    variables = variables_of(event)
    try:
        value = expression.value(variables)
    except ExpressionFailed as error:
        if MARK not in expression.source:
            assert MARK not in str(error), error
        return
    assert not isinstance(value, BaseException)
    endpoint = Endpoint(1, PLACE, KEYS, projection=expression)
    try:
        payload = render(endpoint, event)
    except Unrenderable as error:
        assert MARK in expression.source or MARK not in str(error), error
        return
    orjson.loads(payload.body)
    assert len(payload.body) <= PROJECTION_BYTES
    assert payload.body == render(endpoint, event._replace()).body


def answers(data: bytes) -> None:
    """Possible answers of a receiver: whole or in pieces they give the same result, within the limits."""
    whole = _read([data])
    cuts = random.Random(data)
    places = sorted({0, len(data), *(cuts.randrange(len(data) + 1) for _ in range(3))})
    pieces = _read([data[start:end] for start, end in pairwise(places)])
    if isinstance(whole, Answer) and isinstance(pieces, Answer):
        assert whole.status == pieces.status
    else:
        assert isinstance(whole, str)
        assert isinstance(pieces, str)
    if isinstance(whole, Answer):
        assert 200 <= whole.status <= 999, whole.status
        assert len(whole.body) <= BODY_LIMIT
        for line in whole.head.split(b"\r\n"):
            name, _, value = line.decode("latin-1").partition(":")
            if name.lower() == "retry-after":
                wait = retry_after(value.strip(), 1_700_000_000.0)
                assert wait is None or wait >= 0, wait


def _read(pieces: list[bytes]) -> Answer | str:
    reader = AnswerReader()
    try:
        for piece in pieces:
            if piece and (answer := reader.feed(piece)) is not None:
                return answer
        return reader.end()
    except BadAnswer as error:
        assert 0 < len(str(error)) < 500, error
        return "bad"


def urls(data: bytes) -> None:
    """A URL of a subscription: refused without being quoted, or usable for a request."""
    text = data.decode("utf-8", "surrogateescape")
    shown = redact_url(text)
    try:
        check_target(text)
    except ValueError as error:
        assert len(text) < 8 or text not in str(error), error
        _check_shown(text, shown)
        return
    target = parse_target(text)
    assert target.scheme in {"http", "https"}
    assert target.host
    assert 0 < target.port < 65536
    head, query, _ = text.partition("?")
    assert shown == (f"{head}?…" if query else text)
    assert urlsplit(text).password is None
    try:
        request = prepare(Endpoint(1, text, KEYS)).request
    except (InvalidURL, InvalidHeader) as error:
        assert len(text) < 8 or text not in str(error), error
        return
    assert request.url
    sent = parse_target(request.url)
    assert (sent.scheme, sent.port, sent.address) == (target.scheme, target.port, target.address), text
    # Other characters are percent-encoded later; no name with one resolves.
    assert sent.host == target.host or not (_HOST.fullmatch(sent.host) or _HOST.fullmatch(target.host)), text


def _check_shown(text: str, shown: str) -> None:
    """Raises if the shown form of a refused URL contains a word of its user name or password."""
    user, at, rest = text.replace("%40", "@").rpartition("@")
    for word in _WORD.findall(user) if at else ():
        assert word in rest or word not in shown, shown


def headers(data: bytes) -> None:
    """A header set by a subscription: refused without its value, or sent as one line."""
    name, _, value = data.decode("utf-8", "surrogateescape").partition("\n")
    try:
        header_rules.check(name, value)
    except ValueError as error:
        assert len(value) < 8 or value in name or value not in str(error), error
        return
    lines = prepare(Endpoint(1, PLACE, KEYS, hex_header=None, headers=((name, value),))).lines.split(b"\r\n")
    mine = [line for line in lines if line.lower().startswith(f"{name.lower()}:".encode())]
    assert mine == [f"{name}: {value}".encode() if value else f"{name}:".encode()]


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    each.__name__: each
    for each in (
        *(decoding, mapping_files, framing, avro, avro_schemas, protobuf),
        *(expressions, answers, urls, headers),
    )
}


def _tree() -> Iterator[Any]:
    """Descriptors of messages that contain themselves."""
    file = file_of("tree.proto", "shop", "google/protobuf/any.proto", "google/protobuf/struct.proto")
    message = file.message_type.add(name="Tree")
    field(message, "kids", ".shop.Tree", repeated=True)
    field(message, "n", "int32", repeated=True)
    field(message, "any", ".google.protobuf.Any")
    field(message, "struct", ".google.protobuf.Struct")
    yield file


_BODY = {
    "type": "order.paid", "a": {"b": [1, "x", {"c": True}]}, "items": [{"sku": "a", "qty": 1}, {"sku": "b", "qty": 2}],
    "amount": 150, "price": 12.5, "big": 2**64 - 1, "none": None, "name": MARK, "at": "2026-01-02T03:04:05Z",
    "payload": '{"id": 1}', "before": None, "after": {"id": 7}, "op": "c",
}  # fmt: skip
_RECORDS = (
    new_record(_BODY, [("ce_id", MARK.encode()), ("h", None)], key=b'{"id": 7}'),
    new_record(b"\xff\0" + MARK.encode(), [("event-type", b"a"), ("x", MARK.encode())])._replace(timestamp=-1),
    new_record(None),
)
_NODE = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
_KINDS = {
    "type": "record",
    "name": "Kinds",
    "fields": [
        {"name": f"f{number}", "type": kind}
        for number, kind in enumerate(
            (
                *("null", "boolean", "int", "long", "float", "double", "bytes", "string"),
                {"type": "enum", "name": "E", "symbols": ["A", "B"]},
                {"type": "fixed", "name": "F", "size": 3},
                {"type": "array", "items": ["null", "string", "Kinds"]},
                {"type": "map", "values": ["null", "long", "Kinds"]},
                *({"type": "int", "logicalType": each} for each in ("date", "time-millis")),
                *({"type": "long", "logicalType": f"timestamp-{each}"} for each in ("millis", "micros", "nanos")),
                {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
                {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"},
                {"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"},
            )
        )
    ],
}
_AVRO = [
    avro_decoder(each)
    for each in (
        AVRO, _NODE, _KINDS, {"type": "map", "values": "bytes"},
        ["null", "string", "double", {"type": "bytes", "logicalType": "decimal", "precision": 400, "scale": 300}],
    )
]  # fmt: skip
_PROTOBUF = [protobuf_decoder(text_of(each)) for each in (everything(), *_tree())]
