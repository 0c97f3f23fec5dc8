"""Shows and redelivers stored deliveries for a caller of the API or the console, within its tenant."""

from collections.abc import Collection

from sqlalchemy import Engine

from consumer.ledger import admin
from consumer.ledger.admin import DeliveryQuery, StoredDetail
from consumer.subscriptions import repository


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


def redeliver(engine: Engine, ids: Collection[int], tenant: str | None, now: float) -> list[int]:
    """Redeliver these deliveries, as far as the tenant may see them. Returns the marked ids, sorted.

    Not marked: a delivery that is delivered, keeps its turn in an order, or whose subscription was removed.
    """
    return sorted(
        each for step in admin.redeliver(engine, DeliveryQuery(ids=ids, tenant=tenant), now) for each in step.ids
    )
