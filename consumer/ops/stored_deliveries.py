"""Shows stored deliveries to a caller within its tenant, and redelivers them for people."""

from collections.abc import Collection, Iterator, Sequence

from sqlalchemy import Connection, Engine

from consumer.ledger import admin, outbox
from consumer.ledger.admin import DeliveryQuery, RedeliveryStep, StoredDetail
from consumer.ledger.columns import AnyRow
from consumer.ops.changes import Registry
from consumer.subscriptions import repository

REDELIVERED = "delivery.redelivered"


def find(engine: Engine, delivery_id: int, tenant: str | None) -> StoredDetail | None:
    """A stored delivery with its event; None if there is none, or its subscription or event is not the tenant's.

    `tenant` None: the caller sees deliveries of all tenants.
    """
    found = admin.detail(engine, delivery_id)
    if found is None or tenant is None:
        return found
    if found.event.tenant != tenant:  # the subscription may have been of all tenants when the event was stored
        return None
    subscription = repository.get(engine, found.delivery.subscription_id)
    return found if subscription is not None and subscription.tenant == tenant else None


def redeliver(registry: Registry, actor: str, chosen: DeliveryQuery, now: float) -> Iterator[RedeliveryStep]:
    """Redeliver as `admin.redeliver` does; each step that marks deliveries writes an operational event."""

    def note(connection: Connection, rows: Sequence[AnyRow]) -> None:
        subscriptions = sorted({row.subscription_id for row in rows})
        told = {"actor": actor, "delivery_ids": [row.id for row in rows], "subscription_ids": subscriptions}
        outbox.tell(connection, registry.group, REDELIVERED, told)

    return admin.redeliver(registry.engine, chosen, now, note)


def redeliver_these(registry: Registry, actor: str, ids: Collection[int], tenant: str | None, now: float) -> list[int]:
    """Redeliver these deliveries, as far as the tenant may see them. Returns the marked ids, sorted.

    Not marked: a delivery that is delivered, keeps its turn in an order, or whose subscription was removed.
    """
    chosen = DeliveryQuery(ids=ids, tenant=tenant)
    return sorted(each for step in redeliver(registry, actor, chosen, now) for each in step.ids)
