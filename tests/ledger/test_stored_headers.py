"""Headers and tenant of a stored event come back as they went in, so that what is sent later is what is sent now."""

import pytest
from sqlalchemy import Engine

from consumer.events.event import Event
from consumer.ledger import store
from consumer.subscriptions import repository
from tests.ledger.rows_kit import GROUP, URL, find, make_event, parked, run


def stored(engine: Engine, *events: Event) -> list[Event]:
    """These, stored in one batch and taken up again."""
    number = repository.add(engine, URL, "user.created")
    store.park(engine, GROUP, [parked(each, number) for each in events], 1.0)
    return [row.event for row in find(engine)]


@pytest.mark.parametrize("body", [b"{}", b"x" * 33_000], ids=["small", "large"])
def test_headers_and_tenant_come_back(engine: Engine, body: bytes) -> None:
    """Text of any script, empty values, and more than fits a column of text, beside a body of either kind."""
    headers = {"ce_type": b"a", "empty": b"", "text": 'Zoë 漢字 \U0001f600 \0 "quoted"'.encode(), "long": b"x" * 20_000}
    events = [
        make_event(0, body=body, headers=headers, tenant="Zoë & Söhne"),
        make_event(1, body=body, headers={"short": b"1"}, tenant="t" * 255, key=b"k"),
        make_event(2, body=body, headers={f"header-{number}": b"v" * 100 for number in range(50)}),
        make_event(3, body=body),
    ]
    assert stored(engine, *events) == events


def test_what_is_no_text_is_left_out(engine: Engine) -> None:
    """Bytes that are not UTF-8, and null: expressions do not see them either."""
    (back,) = stored(engine, make_event(0, headers={"a": b"1", "binary": b"\xff", "null": None}, tenant="acme"))
    assert (back.headers, back.tenant) == ({"a": b"1"}, "acme")


def test_where_nothing_is_text_there_is_nothing(engine: Engine) -> None:
    """An event without headers, and one whose headers are all left out, are read alike."""
    bare, binary = stored(engine, make_event(0, headers={}), make_event(1, headers={"binary": b"\xff"}))
    assert not bare.headers
    assert not binary.headers


@pytest.mark.parametrize("edited", ['{"h": 1}', "[1]", '"text"'])
def test_what_somebody_has_edited_is_left_out(engine: Engine, edited: str) -> None:
    """It must not keep the other rows of a look from being read."""
    number = repository.add(engine, URL, "user.created")
    store.park(engine, GROUP, [parked(make_event(0, headers={"h": b"1"}), number)], 1.0)
    run(engine, "UPDATE webhook_payloads SET record_headers = :edited", edited=edited)
    (row,) = find(engine)
    assert not row.event.headers
