"""Where deliveries go: what matching and sending need to know of a subscription."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from requests.auth import AuthBase

from consumer.crypto.keys import Ed25519Key
from consumer.expressions import Expression

HEX_HEADER = "x-webhook-signature"
PayloadFormat = Literal["record", "standard", "cloudevents"]


class BrokenFilter:
    """In place of a filter that cannot be used as it is written: nobody knows which events it wants."""


class Selection(NamedTuple):
    """Which events of its type and tenant a subscription wants; None: whatever the topic, or the event."""

    topics: frozenset[str] | None = None
    filter: Expression | BrokenFilter | None = None


class Batch(NamedTuple):
    """A request carries up to `size` events, and goes `wait` seconds after the first of them at the latest."""

    size: int
    wait: float


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Endpoint:
    """A subscription, ready to be sent to. `secrets` are HMAC keys, newest first; beside them `private_keys` sign.

    `ordered`: the events of one key go one at a time. `max_in_flight` requests open at once and `rate_limit` requests a
    second are those of all workers together; None: no limit. `retry_schedule` (seconds) replaces the deployment's.
    A status in `final_statuses` ends a delivery. `failing_since` (unix seconds): every attempt since has failed.
    `fault`: why nothing can be sent now; what matches is stored. `selection` None: all that its type and tenant give.
    `projection` gives what stands in place of the data. `hex_header` None: the hex signature is not sent.
    `timeout` (seconds) replaces the deployment's.
    """

    subscription_id: int
    url: str
    secrets: tuple[bytes, ...] = field(repr=False)
    ordered: bool = False
    max_in_flight: int | None = None
    rate_limit: float | None = None
    retry_schedule: tuple[float, ...] | None = None
    final_statuses: frozenset[int] = frozenset()
    failing_since: float | None = None
    fault: str | None = None
    selection: Selection | None = None
    payload_format: PayloadFormat = "record"
    projection: Expression | None = None
    batch: Batch | None = None
    private_keys: tuple[Ed25519Key, ...] = field(default=(), repr=False)
    hex_header: str | None = HEX_HEADER
    hex_prefix: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    auth: AuthBase | None = field(default=None, repr=False)
    timeout: float | None = None
