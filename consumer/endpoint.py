"""Where deliveries go: what the sending side needs to know of a subscription."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A subscription, ready to be sent to. `secrets` are key bytes, newest first; empty: nothing can be signed now.

    `ordered`: the events of one key go one at a time. `max_in_flight` requests open at once and `rate_limit` requests a
    second are those of all workers together; None: no limit. `retry_schedule` (seconds) replaces the deployment's.
    A status in `final_statuses` ends a delivery. `failing_since` (unix seconds): every attempt since has failed.
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
