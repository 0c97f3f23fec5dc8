"""Records of the attempts topic: written, read back, and refused."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.events.attempt import ATTEMPTED, LARGEST, Attempt, parse, render

SOURCE = "kafka-webhooks/webhooks"
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
NUMBERS = st.integers(0, 2**31)


def rendered(attempt: Attempt) -> bytes:
    """The record of an attempt."""
    return render(attempt, SOURCE, "id-1")


SUCCESS = Attempt(1_700_000_000.25, 7, "msg_1", "a.b", None, "t", 3, 42, 2, "delivered", 204, None, 0.1234, None)
FAILURE = SUCCESS._replace(tenant="t1", outcome="parked", status=None, error="reset", response="no")


def test_it_is_a_structured_cloudevent() -> None:
    """A success has no `error` and no `response`. `tenant` is absent if the event has none."""
    found = orjson.loads(rendered(SUCCESS))
    assert found == {
        "specversion": "1.0",
        "id": "id-1",
        "source": SOURCE,
        "type": "delivery.attempted",
        "time": "2023-11-14T22:13:20.250000Z",
        "subject": "subscriptions/7",
        "datacontenttype": "application/json",
        "data": {
            "subscription_id": 7,
            "webhook_id": "msg_1",
            "event_type": "a.b",
            "topic": "t",
            "partition": 3,
            "offset": 42,
            "attempt": 2,
            "outcome": "delivered",
            "status": 204,
            "seconds": 0.1234,
        },
    }
    assert {"tenant": "t1", "error": "reset", "response": "no", "status": None}.items() <= orjson.loads(
        rendered(FAILURE)
    )["data"].items()


def test_its_time_is_rounded_to_microseconds() -> None:
    """A second may end with that."""
    for at, time in ((1_700_000_000.123456, "20.123456Z"), (1_699_999_999.9999998, "20.000000Z")):
        assert orjson.loads(rendered(SUCCESS._replace(at=at)))["time"] == "2023-11-14T22:13:" + time


@given(
    st.builds(
        Attempt,
        at=st.integers(0, 2**32).map(lambda ms: ms / 64),
        subscription_id=st.integers(-(2**31), 2**53),
        webhook_id=TEXTS,
        event_type=TEXTS,
        tenant=st.none() | TEXTS,
        topic=TEXTS,
        partition=NUMBERS,
        offset=NUMBERS,
        attempt=NUMBERS,
        outcome=TEXTS,
        status=st.none() | st.integers(100, 599),
        error=st.none() | TEXTS,
        seconds=st.integers(0, 10_000_000).map(lambda part: part / 10_000),
        response=st.none() | TEXTS,
    )
)
def test_a_written_record_is_read_back(attempt: Attempt) -> None:
    """Every field, with any texts from an event or a receiver."""
    assert parse(rendered(attempt), SOURCE) == attempt


def changed(**data: object) -> bytes:
    """A record with some fields of `data` changed."""
    found = orjson.loads(rendered(FAILURE))
    found["data"] |= data
    return orjson.dumps(found)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff",
        b"{",
        b"[]",
        b"{}",
        rendered(SUCCESS).replace(SOURCE.encode(), b"kafka-webhooks/other"),
        rendered(SUCCESS).replace(ATTEMPTED.encode(), b"delivery.exhausted"),
        rendered(SUCCESS).replace(b"2023-11-14T", b"2023-99-14T"),
        rendered(SUCCESS)[:-1],
        changed(subscription_id="7"),
        changed(status="204"),
        changed(seconds=None),
        changed(tenant=5),
        changed(error=["a"]),
        changed(response={}),
        rendered(SUCCESS._replace(webhook_id="x" * LARGEST)),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_record_that_is_no_attempt_of_this_deployment_is_none(value: bytes | None) -> None:
    """Broken, foreign, of another type, or too large: no exception is raised."""
    assert parse(value, SOURCE) is None


def test_the_longest_attempt_is_accepted() -> None:
    """The longest type, tenant, error and answer, each escaped to six bytes per character."""
    longest = FAILURE._replace(
        event_type="x" * 1000, tenant="\x01" * 255, error="\x01" * 500, response="\x01" * 256, topic="t" * 249
    )
    assert parse(rendered(longest), SOURCE) == longest
