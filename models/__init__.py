"""The tables, as SQLAlchemy models. Imports nothing of ours; model objects stay in the module that reads their rows."""

from models.base import Base
from models.cursor import CursorReason, StoredCursor
from models.delivery import ParkedDelivery, Payload, Status, StoredOperation
from models.job import RequestKey, StoredReplay
from models.mark import Mark, MarkKind
from models.subscription import Subscription, SubscriptionSecret, SubscriptionTls, SubscriptionType

__all__ = [
    "Base",
    "CursorReason",
    "Mark",
    "MarkKind",
    "ParkedDelivery",
    "Payload",
    "RequestKey",
    "Status",
    "StoredCursor",
    "StoredOperation",
    "StoredReplay",
    "Subscription",
    "SubscriptionSecret",
    "SubscriptionTls",
    "SubscriptionType",
]
