"""Where deliveries go: what the sending side needs to know of a subscription."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A subscription, ready to be sent to. `secrets` are key bytes, newest first; empty: nothing can be signed now."""

    subscription_id: int
    url: str
    secrets: tuple[bytes, ...] = field(repr=False)
