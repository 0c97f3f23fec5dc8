"""Idempotency keys: each is written in the transaction that creates a resource, so that a repetition finds it.

Only digests are stored. A body may hold secrets that can be guessed, and a plain digest would confirm a guess. The
body's digest is therefore an HMAC whose key is the idempotency key, which the database does not have.
"""

import hmac
import json
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple

from sqlalchemy import Connection, Engine, delete, insert, select
from sqlalchemy.exc import IntegrityError

from consumer.database.engine import reading
from consumer.errors import KeyReused, KeyTaken
from consumer.ledger.rows import is_bound, time_of
from models import RequestKey as StoredKey

KEPT = 86400.0  # seconds that a key is kept
_REMOVED = 100  # expired keys removed with each new one, at most: more than one, so that their number falls


class RequestDigests(NamedTuple):
    """A request's key: the digests of the key with its owner and of the body, and the request's time (unix seconds)."""

    digest: str
    request_digest: str
    at: float


class Creation(NamedTuple):
    """A creation by a request with a key: the resource's id, and when that request came."""

    resource_id: int
    at: datetime


def request_key(sent: str, whose: tuple[str | None, ...], body: bytes, at: float) -> RequestDigests:
    """The key that was `sent` with a body. `whose` (caller, path, …) separates equal keys of different owners."""
    told_apart = json.dumps([*whose, sent]).encode()
    return RequestDigests(sha256(told_apart).hexdigest(), hmac.digest(sent.encode(), body, "sha256").hex(), at)


def note(connection: Connection, key: RequestDigests, resource_id: int) -> None:
    """Store the id that a request has created, as the last statement of its transaction. Removes some expired keys.

    KeyTaken: the key is stored already, and the transaction must be rolled back.
    """
    made, before = StoredKey.created_at, time_of(key.at - KEPT)
    old = select(StoredKey.key_digest).where(made <= before).order_by(made).limit(_REMOVED)
    # In one order, so that two transactions that remove the same keys do not wait for each other in a circle.
    removed = sorted({key.digest, *connection.execute(old).scalars()})
    connection.execute(
        delete(StoredKey).where(is_bound(StoredKey.key_digest), made <= before),
        [{"b_key_digest": digest} for digest in removed],
    )
    row = {
        "key_digest": key.digest,
        "request_digest": key.request_digest,
        "resource_id": resource_id,
        "created_at": time_of(key.at),
    }
    try:
        connection.execute(insert(StoredKey), [row])
    except IntegrityError:  # on Oracle after the other transaction's end: until then the insert waits for it
        raise KeyTaken("another request with this idempotency key was quicker") from None


def find(engine: Engine, key: RequestDigests) -> Creation | None:
    """The creation by a request with this key in the last KEPT seconds, or None. KeyReused if its body differs."""
    statement = select(StoredKey.resource_id, StoredKey.request_digest, StoredKey.created_at)
    with reading(engine) as connection:
        row = connection.execute(statement.where(StoredKey.key_digest == key.digest)).first()
    if row is None or row.created_at <= time_of(key.at - KEPT):
        return None
    if row.request_digest != key.request_digest:
        raise KeyReused("the idempotency key was used with another body before")
    return Creation(row.resource_id, row.created_at)
