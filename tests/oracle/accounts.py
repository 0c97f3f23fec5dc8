"""The work of each database account of the documentation, and its documented grants."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import trustme
from cryptography.fernet import Fernet
from sqlalchemy import Engine

from consumer.crypto.certificates import TlsIdentity
from consumer.crypto.vault import Vault
from consumer.database import migrations
from consumer.events.event import Event, RecordId
from consumer.ledger import (
    admin,
    assigned,
    due,
    marks,
    ordering,
    outbox,
    replays,
    request_keys,
    search,
    store,
    upkeep,
)
from consumer.ledger.admin import DeliveryQuery
from consumer.ledger.due import FetchRequest
from consumer.ledger.replays import Span
from consumer.ledger.rows import AttemptResult, NewDelivery, OperationalEvent, OrderingKey, order_key
from consumer.matching.catalog import find_endpoints
from consumer.ops import changes, replay_request
from consumer.subscriptions import health, repository, secrets, tls
from consumer.subscriptions.endpoint_row import Rules
from models import Status
from tests.crypto.vaults import in_the_clear
from tests.docs.documentation import BLOCKS

URL = "https://a.example"
Begin = Callable[[], object]  # called when the rows that another account prepares exist


def granted(account: str) -> set[tuple[str, str]]:
    """The account's privileges on tables, as the documentation grants them."""
    blocks = "".join(block.text for block in BLOCKS if block.info == "sql oracle")
    return {
        (action, table)
        for actions, table in re.findall(rf"GRANT ([A-Z, ]+) ON (\w+) TO {account};", blocks)
        for action in actions.split(", ")
    }


def as_worker(engine: Engine, begin: Begin) -> None:
    """Makes all requests that a worker makes of the database."""
    repository.add(engine, URL, "t")
    begin()
    migrations.state(engine)
    find_endpoints(engine, [("t", None)], (b"key",), in_the_clear)
    stored, now = _event(None), float(int(time.time()))
    ordering_key = OrderingKey(1, "t", 0, order_key(b"k"))
    store.park(engine, "g", [NewDelivery(stored, 1, URL, 0, "parked", now, ordering_key=ordering_key)], now)
    assert assigned.scan(engine, "g", [("t", 0)], None).due_keys
    wants = [FetchRequest(("t", 0, 1), 1, frozenset())]
    (row,) = due.fetch(engine, "g", wants, now, default_secrets=(b"key",), decrypt=in_the_clear).rows
    due.postpone(engine, [row.id], now)
    assigned.settled_keys(engine, "g", "t", 0, 0)
    assigned.open_keys(engine, "g", "t", 0, 1)
    assigned.open_topics(engine, "g")
    assigned.next_partition(engine, "g", "t", 0)
    assigned.with_rows(engine, "g", [("t", 0)])
    upkeep.failing(engine, 1, now)
    upkeep.recovered(engine, "g", 1, OperationalEvent("a", "1", {}))
    upkeep.disable(engine, "g", 1, "gone", OperationalEvent("a", "2", {}))
    upkeep.reconcile(engine, now)
    ordering.repair(engine, "g", "t", 0, now)
    store.record(engine, "g", [AttemptResult(row.id, 0, "delivered", None, 200, None, now, row.ordering_key)])
    assert upkeep.prune(engine, "g", "t", 0, 2) == 1
    upkeep.waiting(engine, "g", "t", 0)
    outbox.expire(engine, "g", now - 1000)
    assert marks.refused_since(engine, "g", RecordId("t", 0, 1, 0), 1, now) == now
    with engine.begin() as connection:
        marks.look(connection, "g", [("t", 0, 1)])
    marks.recent(engine, "g", None)
    assert marks.prune(engine, "g", "t", 0, 2) == 1
    marks.expire(engine, "g", now)
    outbox.forget(engine, [number for number, _, _ in outbox.pending(engine, "g", 2)])


def as_administrator(engine: Engine, begin: Begin) -> None:
    """Makes all requests of the API and of `subscriptions`."""
    begin()
    now, vault = datetime.fromtimestamp(int(time.time()), UTC), Vault(Fernet.generate_key().decode())
    repository.add(engine, URL, "t", "secret")
    assert repository.find(engine, URL, "t") == 1
    repository.edit(engine, 1, {"topics": "t"}, Rules(own_secret=True))
    list(repository.walk(engine))
    repository.count_enabled(engine)
    repository.get(engine, 1)
    assert repository.get_endpoint(engine, 1, (b"key",), Vault())
    secrets.rotate(engine, 1, vault=Vault(), default=(), overlap=timedelta(hours=1), now=now)
    secrets.set_credential(engine, 1, "bearer", "token", Vault(), now)
    assert secrets.survey(engine, Vault(), now, 9).looked_at == secrets.count(engine) == 3
    assert sum(batch.encrypted for batch in secrets.reencrypt(engine, vault)) == 3
    assert secrets.remove_credentials(engine, 1) == 1
    authority = trustme.CA()
    issued = authority.issue_cert("a.test")
    mine = TlsIdentity(issued.cert_chain_pems[0].bytes().decode(), issued.private_key_pem.bytes().decode())
    for given in (mine, TlsIdentity(authorities=authority.cert_pem.bytes().decode())):
        tls.set_tls(engine, 1, given, Vault(), now)
    assert repository.get(engine, 1)
    assert (tls.count(engine), len(tls.expiries(engine)), tls.in_the_clear(engine)) == (1, 2, [1])
    assert sum(batch.encrypted for batch in tls.reencrypt(engine, vault)) == 1
    assert tls.remove_tls(engine, 1)
    search.of_subscription(engine, 1)
    assert search.loads(engine, [1], 2) == {1: 0}
    health.failing(engine, 2)
    health.named(engine, [1])
    health.disabled(engine, 2)
    health.named_types(engine, 2)
    repository.page(engine, after=None, limit=2, tenant="*")
    by = changes.Changes(changes.Deployment(engine, "g", Vault()), "api:acme")
    key = request_keys.request_key("8e03978e", ("acme", "/v1/subscriptions"), b"{}", now.timestamp())
    added = by.add(URL, "t", new_secrets=[("signing", "secret")], key=key).id
    creation = request_keys.find(engine, key)
    assert creation == (added, now)
    assert secrets.made_at(engine, added, creation.at, Vault()) == ("secret",)
    by.set_enabled(1, False)
    by.set_verified(1, repository.get(engine, 1).options["url"], 90)  # type: ignore[union-attr]  # it is there
    by.remove(1, give_up=True)


def as_operator(engine: Engine, begin: Begin) -> None:
    """Makes all requests of `deliveries`, `replay` and `top`."""
    repository.add(engine, URL, "t")
    begin()
    repository.get(engine, 1)
    now = float(int(time.time()))
    receiver = repository.get(engine, 1)
    assert receiver is not None
    planned = replay_request.plan(receiver, replay_request.Wanted("1h"), now)
    with engine.begin() as connection:
        spans = [Span("t", 0, 1, 2)]
        number = replay_request.create(connection, "g", "api:somebody", planned, spans, background=True)
    claimed = replays.claim(engine, "g", now, now + 30)
    assert claimed is not None
    replays.release(engine, number, now + 30, None, None)
    assert replays.load(engine, number)
    row = NewDelivery(_event(b"k"), 1, URL, 0, "parked", now, replay=number)
    replays.advance(engine, number, "g", [row], {("t", 0): 2}, now)
    replays.finish(engine, number, now)
    assert search.of_replay(engine, number, 1)
    assert search.next_of_replay(engine, number)
    assert search.last_of_replay(engine, number)
    assert [each.id for each in replays.find(engine, limit=2)] == [number]
    assert not replay_request.cancel(engine, "api:somebody", number, now)
    (found,) = admin.find(engine, DeliveryQuery(), limit=2)
    assert len(search.search(engine, DeliveryQuery(tenant="*", since=now - 1000), 2).deliveries) == 1
    assert search.by_state(engine, 2)["parked"] == 1
    assert search.loads(engine, search.most_loaded(engine, 2), 2)
    search.last_failures(engine, [1])
    assert admin.count(engine, DeliveryQuery(event_type="t"), 2) == 1
    assert admin.detail(engine, found.id)
    admin.of_record(engine, "g", "t", 0, 1)
    with engine.begin() as connection:
        marks.note_published(connection, "g", "dead", [(0, 7)])
    assert marks.published(engine, "g", "dead", 7).keys() == {(0, 7)}
    assert [each.ids for each in admin.redeliver(engine, DeliveryQuery(ids=[found.id]), now)]
    assert search.progress(engine, [found.id])
    search.next_of(engine, [found.id])
    assert [each.moved for each in admin.adopt(engine, "g", "h", now)] == [1]


def as_keeper(engine: Engine, begin: Begin) -> None:
    """Makes all requests of `deliveries purge`."""
    repository.add(engine, URL, "t")
    store.park(engine, "g", [NewDelivery(_event(None), 1, URL, 1, "exhausted", None)], 1000.0)
    begin()
    assert [len(rows) for rows in upkeep.ended_before(engine, [Status.EXHAUSTED], 2000.0)] == [1]
    assert list(upkeep.purge(engine, [Status.EXHAUSTED], 2000.0)) == [(1, 1)]
    upkeep.replays_ended_before(engine, 2000.0)
    upkeep.purge_replays(engine, 2000.0)


ACCOUNTS: dict[str, Callable[[Engine, Begin], None]] = {
    "webhooks_service": as_worker,
    "webhooks_admin": as_administrator,
    "webhooks_operator": as_operator,
    "webhooks_keeper": as_keeper,
}


def _event(key: bytes | None) -> Event:
    return Event(RecordId("t", 0, 1, 1), "t", "msg_1", b"{}", "application/json", key, None)
