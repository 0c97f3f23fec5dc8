"""The endpoint of a subscription: the values that matching and sending need."""

import re
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from consumer.crypto.certificates import TlsIdentity
from consumer.crypto.credentials import Auth
from consumer.crypto.keys import Ed25519Key
from consumer.expressions.expression import Expression
from consumer.subscriptions.follows import Follows
from consumer.subscriptions.signature_template import SignatureTemplate

HEX_HEADER = "x-webhook-signature"
Method = Literal["POST", "PUT", "PATCH", "DELETE"]
PayloadFormat = Literal["record", "standard", "cloudevents", "cloudevents-binary"]


class BrokenFilter:
    """Stands in for a filter that cannot be used, so that it is unknown which events the subscription wants."""


class Selection(NamedTuple):
    """Narrows the events of its type and tenant that a subscription gets. None: all topics, or no filter."""

    topics: frozenset[str] | None = None
    filter: Expression | BrokenFilter | None = None


class Batch(NamedTuple):
    """A request carries up to `size` events and is sent at most `wait` seconds after the first one."""

    size: int
    wait: float


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Endpoint:
    """A subscription in the form that sending uses. `secrets` are HMAC keys, newest first; `private_keys` sign too.

    `ordered`: the events of one key are sent one at a time. `max_in_flight` (open requests) and `rate_limit` (requests
    a second) apply to all workers together; None: no limit. `retry_schedule` (seconds) replaces the deployment's. A
    status in `final_statuses` ends a delivery. `failing_since` (unix seconds): every attempt since has failed. `fault`:
    why nothing can be sent now; matching events are stored. `selection` None: all events of its type and tenant.
    `projection`: its value replaces the data. `hex_header` None: the hex signature is not sent. `timeout` (seconds)
    replaces the deployment's. A body of more than `gzip_above` bytes is compressed; None: none is. `http2`: HTTP/2 if
    the receiver offers it. `tls`: its client certificate and authorities; None: the deployment's. `origin`: the name to
    which the receiver has given permission, sent with each request; None: it was not asked. `paused`: nothing is sent,
    and its events are owed. `starts`: it began in the past, and cursors cover its first events. `follows`: the parts of
    the request that follow the event; None: there are none. `signature_template`: another signature; None: none.
    `answer_headers` matches the names of headers in reports of answers, in lower case; None: answers are not reported.
    `confidential`: the values of those `headers` that are credentials.
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
    auth: Auth | None = field(default=None, repr=False)
    timeout: float | None = None
    gzip_above: int | None = None
    http2: bool = False
    tls: TlsIdentity | None = None
    origin: str | None = None
    paused: bool = False
    starts: bool = False
    method: Method = "POST"
    follows: Follows | None = None
    signature_template: SignatureTemplate | None = None
    answer_headers: re.Pattern[str] | None = None
    confidential: tuple[str, ...] = field(default=(), repr=False)

    @property
    def renders(self) -> bool:
        """To build a request may take a while: an expression is evaluated, or record headers go on."""
        return self.projection is not None or self.follows is not None

    @property
    def evaluates(self) -> bool:
        """An expression is evaluated to build a request."""
        return self.projection is not None or (self.follows is not None and self.follows.evaluates)
