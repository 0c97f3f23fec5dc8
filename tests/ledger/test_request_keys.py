"""Idempotency keys: one creation for each, kept for a day; the database holds no text of a key or body."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import Engine

from consumer.errors import KeyReused, KeyTaken
from consumer.ledger import request_keys
from consumer.ledger.request_keys import KEPT, RequestDigests, request_key
from tests.ledger.rows_kit import plans, query

T = 1_790_000_000.123456  # unix seconds
BODY = b'{"secret": "s3cret"}'
WHOSE = ("acme", None, "/v1/subscriptions")


def key(sent: str = "k1", body: bytes = BODY, at: float = T) -> RequestDigests:
    """The key of a request of tenant acme."""
    return request_key(sent, WHOSE, body, at)


def note(engine: Engine, noted: RequestDigests, resource_id: int) -> None:
    """Stores a key in a transaction of its own."""
    with engine.begin() as connection:
        request_keys.note(connection, noted, resource_id)


def count(engine: Engine) -> int:
    """The number of stored keys."""
    return int(query(engine, "SELECT count(*) FROM webhook_request_keys")[0][0])


def test_a_key_finds_its_creation(engine: Engine) -> None:
    """It has the time of the first request. Another key finds nothing, and another body is refused."""
    assert request_keys.find(engine, key()) is None
    note(engine, key(), 2**62)
    found = request_keys.find(engine, key(at=T + 5))
    assert found is not None
    assert (found.resource_id, round(found.at.timestamp(), 6)) == (2**62, T)
    assert request_keys.find(engine, key("k2")) is None
    with pytest.raises(KeyReused):
        request_keys.find(engine, key(body=BODY + b" "))


@pytest.mark.parametrize("body", [BODY, b"{}"])
def test_a_key_is_written_once(engine: Engine, body: bytes) -> None:
    """A second transaction with the key has to roll back, whatever its body; the first one's row stays."""
    note(engine, key(), 7)
    with pytest.raises(KeyTaken):
        note(engine, key(body=body, at=T + 1), 8)
    assert query(engine, "SELECT resource_id FROM webhook_request_keys") == [(7,)]


def test_after_a_day_a_key_is_new(engine: Engine) -> None:
    """A key is known for a day, to the microsecond; then it can be stored again with any body."""
    note(engine, key(), 7)
    assert request_keys.find(engine, key(at=T + KEPT - 0.001)) is not None
    with pytest.raises(KeyTaken):
        note(engine, key(at=T + KEPT - 0.001), 8)
    later = key(body=b"{}", at=T + KEPT)
    assert request_keys.find(engine, later) is None
    note(engine, later, 9)
    found = request_keys.find(engine, later)
    assert found is not None
    assert found.resource_id == 9
    assert count(engine) == 1


def test_a_new_key_removes_a_bounded_number_of_old_ones(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest first, and none of the last day. An old row of the same key is removed though many are older."""
    monkeypatch.setattr(request_keys, "_REMOVED", 2)
    for number in range(5):
        note(engine, key(f"old{number}", at=T + number), number)
    note(engine, key("young", at=T + 1000), 5)
    for sent, left in (("old4", [2, 3, 5, 6]), ("new", [5, 6, 7])):
        note(engine, key(sent, at=T + KEPT + 500), left[-1])
        rows = query(engine, "SELECT resource_id FROM webhook_request_keys ORDER BY resource_id")
        assert [row.resource_id for row in rows] == left


def test_keys_of_other_callers_differ(engine: Engine) -> None:
    """Token, tenant, path and key are told apart, wherever the text of one ends and the next begins."""
    whose: list[tuple[str | None, ...]] = [
        ("a", None, "/v1/x"),
        ("a", "None", "/v1/x"),
        ("a", "b", "/v1/x"),
        ("ab", None, "/v1/x"),
        ("a", None, "/v1/xk"),
        ("a", None, "/v1/x", "k"),
    ]
    keys = [request_key("k", each, BODY, T) for each in whose] + [request_key("", ("a", None, "/v1/xk"), BODY, T)]
    assert len({each.digest for each in keys}) == len(keys)
    for number, each in enumerate(keys):
        note(engine, each, number)


def test_neither_key_nor_body_is_stored(engine: Engine) -> None:
    """Only digests are stored. The body's depends on the key, so guessing a body needs the key to confirm it."""
    note(engine, key("k-of-a-request"), 7)
    note(engine, key("k2"), 7)
    rows = query(engine, "SELECT key_digest, request_digest FROM webhook_request_keys")
    assert len({text for row in rows for text in row}) == 4
    assert all(len(text) == 64 and set(text) <= set("0123456789abcdef") for row in rows for text in row)


def test_one_of_many_concurrent_requests_writes(engine: Engine) -> None:
    """When several find the key free or old, one writes, and the others get its answer."""
    rivals = 4
    for sent, old in (("free", False), ("old", True)):
        if old:
            note(engine, key(sent, at=T - KEPT), 99)
        begin = Barrier(rivals)

        def write(number: int, sent: str = sent, begin: Barrier = begin) -> int | None:
            assert request_keys.find(engine, key(sent)) is None
            begin.wait(60)
            try:
                note(engine, key(sent), number)
            except KeyTaken:
                found = request_keys.find(engine, key(sent))
                assert found is not None
                return found.resource_id
            return None

        with ThreadPoolExecutor(rivals) as pool:
            outcomes = list(pool.map(write, range(rivals)))
        winner = outcomes.index(None)
        assert sorted(outcomes, key=str) == sorted([None, *[winner] * (rivals - 1)], key=str)


def test_an_index_serves_each_statement(sqlite_engine: Engine) -> None:
    """Keys are found by digest and old ones by age. The plans are SQLite's: no emulator has Oracle's."""

    def work() -> None:
        request_keys.find(sqlite_engine, key())
        note(sqlite_engine, key(), 7)

    for sql, plan in plans(sqlite_engine, work):
        assert "SCAN webhook_request_keys" not in plan, (sql, plan)
        assert "FOR ORDER BY" not in plan, (sql, plan)
