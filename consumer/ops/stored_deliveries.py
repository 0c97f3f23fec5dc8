"""Stored deliveries as the API and the console show them to a caller, and have them sent again."""

from collections.abc import Collection

from sqlalchemy import Engine

from consumer.ledger import admin
from consumer.ledger.admin import DeliveryQuery, StoredDetail
from consumer.subscriptions import repository


def find(engine: Engine, delivery_id: int, tenant: str | None) -> StoredDetail | None:
    """A stored delivery with its event; None if there is none, or its subscription is not the tenant's.

    `tenant` None: the caller sees those of all tenants.
    """
    found = admin.detail(engine, delivery_id)
    if found is None or tenant is None:
        return found
    subscription = repository.get(engine, found.delivery.subscription_id)
    return found if subscription is not None and subscription.tenant == tenant else None


def redeliver(engine: Engine, ids: Collection[int], tenant: str | None, now: float) -> list[int]:
    """Have those of these deliveries that the tenant may see sent again. Returns the ids that are marked, sorted.

    Not marked: a delivery that is delivered, keeps its turn in an order, or has no subscription any more.
    """
    return sorted(
        each for step in admin.redeliver(engine, DeliveryQuery(ids=ids, tenant=tenant), now) for each in step.ids
    )
