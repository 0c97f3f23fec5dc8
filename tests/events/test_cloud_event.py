"""Events as CloudEvents, in each content mode, and the variables of expressions."""

import base64
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.events.cloud_event import cloud_event_of, texts, variables_of
from consumer.events.event import Event, RecordId
from consumer.expressions.expression import NAMES, Expression, ExpressionFailed

STAMPED = 1_700_000_000_123
STAMPED_TEXT = "2023-11-14T22:13:20.123Z"


def event(
    body: object, headers: dict[str, bytes | None] | None = None, key: bytes | None = None, at: int = STAMPED
) -> Event:
    """A record: bytes unchanged, other bodies as JSON."""
    value = body if isinstance(body, bytes) else orjson.dumps(body)
    return Event(RecordId("orders", 3, 7, at), "matched.type", "msg_1", value, "application/json", key, None, headers)


def seen(name: str, of: Event) -> Any:
    """The variables of an expression."""
    return Expression(name).value(variables_of(of))


def test_a_plain_event_gets_attributes_from_its_record() -> None:
    """Topic, timestamp and id of the record are used. The body is the data."""
    cloud = cloud_event_of(event({"id": "entity", "type": "t", "time": "never", "source": "here"}))
    assert (cloud.id, cloud.source, cloud.type, cloud.time) == ("msg_1", "orders", "matched.type", STAMPED_TEXT)
    assert cloud.data == {"id": "entity", "type": "t", "time": "never", "source": "here"}
    assert (cloud.subject, cloud.datacontenttype, cloud.extensions) == (None, "application/json", {})
    assert cloud.structured is None


def test_binary_mode() -> None:
    """Attributes are the `ce_` headers, further ones are extensions, and other headers are neither."""
    headers: dict[str, bytes | None] = {
        "ce_type": b"a",
        "ce_id": b"A1",
        "ce_source": b"/shop",
        "ce_time": b"2026-07-28T14:00:00.5+02:00",
        "ce_subject": b"s",
        "ce_tenant": b"acme",
        "ce_bad": b"\xff",
        "ce_null": None,
        "x": b"y",
    }
    cloud = cloud_event_of(event({"specversion": "no attribute here"}, headers))
    assert (cloud.id, cloud.source, cloud.subject, cloud.time) == ("A1", "/shop", "s", "2026-07-28T14:00:00.5+02:00")
    assert (cloud.extensions, cloud.data) == ({"tenant": "acme"}, {"specversion": "no attribute here"})
    assert texts(headers).keys() == headers.keys() - {"ce_bad", "ce_null"}


def test_structured_mode() -> None:
    """Attributes and data, of any kind, are the body's; base64 is decoded."""
    attributes = {"specversion": "1.0", "type": "t", "id": "A1", "source": "/shop", "time": "2026-07-28T14:00:00Z"}
    body = attributes | {"data": [1], "tenant": "acme", "n": 5}
    cloud = cloud_event_of(event(body))
    assert (cloud.id, cloud.source, cloud.time, cloud.data) == ("A1", "/shop", "2026-07-28T14:00:00Z", [1])
    assert (cloud.type, cloud.extensions, cloud.structured) == ("matched.type", {"tenant": "acme", "n": 5}, body)
    encoded = base64.b64encode(b"\xff\x01").decode()
    assert cloud_event_of(event({"specversion": "1.0", "data_base64": encoded})).data == b"\xff\x01"
    assert cloud_event_of(event({"specversion": "1.0", "data_base64": "no base64!"})).data == "no base64!"
    assert cloud_event_of(event({"specversion": "1.0"})).data is None


@pytest.mark.parametrize(
    ("body", "data", "content_type"),
    [(b"text \xc3\xbc", "text ü", ""), (b"\xff\x01", b"\xff\x01", ""), (b'"text"', "text", "application/json")],
)
def test_data_other_than_json(body: bytes, data: object, content_type: str) -> None:
    """Text is a string, all else is bytes."""
    cloud = cloud_event_of(event(body)._replace(content_type=""))
    assert (cloud.data, cloud.datacontenttype or "") == (data, content_type)


@pytest.mark.parametrize(
    "given_time",
    [
        "2026-07-28T14:00:00",
        "2026-07-28",
        "yesterday",
        "2026-02-30T00:00:00Z",
        "2026-07-28T25:00:00Z",
        "٢٠٢٦-07-28T14:00:00Z",
        "",
        5,
        None,
        [],
    ],
)
def test_an_invalid_time_is_ignored(given_time: object) -> None:
    """The record's timestamp replaces it, so that there is always a time of RFC 3339."""
    of = event({"specversion": "1.0", "time": given_time})
    assert cloud_event_of(of).time == STAMPED_TEXT
    assert seen("time", of) == datetime(2023, 11, 14, 22, 13, 20, 123000, UTC)


@pytest.mark.parametrize("at", [-1, -(2**63), 2**63 - 1, 0])
def test_a_record_with_an_unusable_timestamp(at: int) -> None:
    """Its time is the epoch: a record may have any number."""
    assert cloud_event_of(event({}, at=at)).time == "1970-01-01T00:00:00.000Z"


ZONES = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@settings(deadline=None)
@given(st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=ZONES))  # noqa: DTZ001 (Hypothesis adds the zone)
def test_a_time_is_the_same_instant(moment: datetime) -> None:
    """In any zone, to the microsecond. Centuries away, the runtime's binding rounds it."""
    assert seen("time", event({}, {"ce_type": b"x", "ce_time": moment.isoformat().encode()})) == moment


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
NAMES_OF_HEADERS = st.sampled_from(["ce_type", "ce_id", "ce_time", "ce_tenant", "specversion"]) | st.text()


@settings(deadline=None)
@given(
    body=st.binary()
    | JSON
    | st.dictionaries(st.sampled_from(["specversion", "id", "source", "time", "data", "data_base64", "x"]), JSON),
    headers=st.none() | st.dictionaries(NAMES_OF_HEADERS, st.none() | st.binary(), max_size=5),
    key=st.none() | st.binary(),
    at=st.integers(-(2**63), 2**63 - 1),
)
def test_every_record_has_all_variables(
    body: object, headers: dict[str, bytes | None] | None, key: bytes | None, at: int
) -> None:
    """No record raises an exception. Each variable has a value, except for data that is not text."""
    bound = variables_of(event(body, headers, key, at))
    for name in NAMES:
        if name != "data":
            Expression(name).value(bound)
    try:
        Expression("data").value(bound)
    except ExpressionFailed as error:
        assert "holds a zero byte" in str(error)  # noqa: PT017 (either outcome is right)


def without_nul(data: Any) -> Any:
    """The value as expressions see it."""
    if isinstance(data, str):
        return data.replace("\0", "\ufffd")
    if isinstance(data, list):
        return [without_nul(each) for each in data]
    return {without_nul(name): without_nul(each) for name, each in data.items()} if isinstance(data, dict) else data


@settings(deadline=None)
@given(JSON)
def test_data_is_seen_unchanged(data: Any) -> None:
    """To the last digit, except that NUL, which would end a text, becomes U+FFFD."""
    assert seen("data", event(data)) == without_nul(data)


def test_a_nul_does_not_end_a_text() -> None:
    """Neither in data nor in a header, a key or a tenant. An escaped backslash before `u0000` is no NUL."""
    of = event(b'{"a\\u0000b": "c\\u0000d", "e": "\\\\u0000"}', {"h": b"i\0j"}, b"k\0l")._replace(tenant="m\0n")
    assert seen("data", of) == {"a\ufffdb": "c\ufffdd", "e": "\\u0000"}
    assert (seen("headers.h", of), seen("key", of), seen("tenant", of)) == ("i\ufffdj", "k\ufffdl", "m\ufffdn")
    assert seen("data", event(b"text\0text")) == "text\ufffdtext"
    with pytest.raises(ExpressionFailed, match="is not text, and holds a zero byte"):
        seen("data", event(b"\xff\0\xff"))
    assert seen("type", event(b"\xff\0\xff")) == "matched.type"


@pytest.mark.parametrize("wrap", [b'{"a":%b}', b"[%b]"])
@pytest.mark.parametrize(("depth", "readable"), [(200, True), (260, False), (990, False)])
def test_deeply_nested_data_is_not_read(wrap: bytes, depth: int, *, readable: bool) -> None:
    """The runtime would recurse until the stack overflows and the process ends."""
    body = b"1"
    for _ in range(depth):
        body = wrap % body
    for source in ("data.v == data", "data == data", "[data].map(x, x)"):
        expression = Expression(source)
        if readable:
            assert expression.value(variables_of(event(b'{"v": %b}' % body))) is not None
        else:
            with pytest.raises(ExpressionFailed, match="nested too deeply"):
                expression.value(variables_of(event(b'{"v": %b}' % body)))
    assert Expression("type").value(variables_of(event(b'{"v": %b}' % body))) == "matched.type"
