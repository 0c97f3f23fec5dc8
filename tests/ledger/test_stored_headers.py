"""Headers and tenant of a stored event are read back unchanged, so a later delivery equals an immediate one."""

import pytest
from sqlalchemy import Engine

from consumer.events.event import Event
from consumer.ledger import store
from consumer.subscriptions import repository
from tests.ledger.rows_kit import GROUP, URL, find, make_event, parked, run


def stored(engine: Engine, *events: Event) -> list[Event]:
    """The events as read back after one batch has stored them."""
    number = repository.add(engine, URL, "user.created")
    store.park(engine, GROUP, [parked(each, number) for each in events], 1.0)
    return [row.event for row in find(engine)]


@pytest.mark.parametrize("body", [b"{}", b"x" * 33_000], ids=["small", "large"])
def test_headers_and_tenant_come_back(engine: Engine, body: bytes) -> None:
    """Text of any script, empty values and headers too long for a text column survive, beside a body of either kind."""
    headers = {"ce_type": b"a", "empty": b"", "text": 'Zoë 漢字 \U0001f600 \0 "quoted"'.encode(), "long": b"x" * 20_000}
    events = [
        make_event(0, body=body, headers=headers, tenant="Zoë & Söhne"),
        make_event(1, body=body, headers={"short": b"1"}, tenant="t" * 255, key=b"k"),
        make_event(2, body=body, headers={f"header-{number}": b"v" * 100 for number in range(50)}),
        make_event(3, body=body),
    ]
    assert stored(engine, *events) == events


def test_headers_that_are_not_text_are_left_out(engine: Engine) -> None:
    """Values that are null or not UTF-8 are not stored; expressions do not see them either."""
    (back,) = stored(engine, make_event(0, headers={"a": b"1", "binary": b"\xff", "null": None}, tenant="acme"))
    assert (back.headers, back.tenant) == ({"a": b"1"}, "acme")


def test_an_event_whose_headers_are_all_left_out_has_none(engine: Engine) -> None:
    """It is read back like an event without headers."""
    bare, binary = stored(engine, make_event(0, headers={}), make_event(1, headers={"binary": b"\xff"}))
    assert not bare.headers
    assert not binary.headers


@pytest.mark.parametrize("edited", ['{"h": 1}', "[1]", '"text"'])
def test_invalid_stored_headers_are_left_out(engine: Engine, edited: str) -> None:
    """Headers broken by plain SQL do not keep the other rows of a fetch from being read."""
    number = repository.add(engine, URL, "user.created")
    store.park(engine, GROUP, [parked(make_event(0, headers={"h": b"1"}), number)], 1.0)
    run(engine, "UPDATE webhook_payloads SET record_headers = :edited", edited=edited)
    (row,) = find(engine)
    assert not row.event.headers
