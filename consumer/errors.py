"""The errors that this project raises on purpose.

WebhooksError
├── SettingsError            a setting is missing or wrong (exit 2)
├── Undecodable              a record cannot be decoded into an event; it is dead-lettered with this reason
├── Tombstone                a record without a value, which is to be ignored
├── Unavailable              a system that this process needs does not answer; tried again with back-off
│   ├── KafkaUnavailable
│   ├── DatabaseUnavailable
│   └── RegistryUnavailable
├── DatabaseRefused          the database refuses a statement
│   ├── RefusedTooLong       it has refused to store a delivery for as long as WEBHOOK_REFUSED_AFTER says
│   ├── PartitionTaken       another worker has taken a partition over since it was assigned to this one
│   └── RowsRefused          it does not let a subscription's stored deliveries be changed: one is locked, say
├── FatalKafkaError          the consumer cannot go on (exit 1; the orchestrator starts a new one)
├── InvalidSubscription      a subscription has a value that cannot work (exit 2)
│   └── Unstorable           the database's character set lacks a character of a value (also a DatabaseRefused)
├── InvalidReplay            an option of a replay has a value that cannot work (exit 2)
├── InvalidPosition          a position in a search is none that an earlier page gave
├── NotFound                 what a request names does not exist, or is not of the caller's tenant
├── Conflict                 the state of what a request names does not allow it
│   └── DeliveriesOwed       a subscription that is to be removed is owed events
├── KeyTaken                 another request with the same idempotency key was quicker
├── KeyReused                an idempotency key was used with another body before
├── EgressRefused            the egress policy forbids an address (also a requests ConnectionError)
├── NoDescriptor             this process may open no more files (also a requests ConnectionError)
└── NotAuthorized            a request has no token, or a plug-in fails (also a requests RequestException)
"""

from typing import Literal

from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import RequestException


class WebhooksError(Exception):
    """Base of every error that this project raises; its text is one line that a person can act on."""


class SettingsError(WebhooksError):
    """One line for each setting that is missing or wrong: its name, the mistake, and a valid value."""


class Undecodable(WebhooksError):
    """A record cannot be decoded into an event. `reason` is a short stable word for headers and metrics."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Tombstone(WebhooksError):
    """A record has no value, and tombstones of its topic are ignored: it is settled at once."""


class Unavailable(WebhooksError):
    """A system that this process needs does not answer."""


class KafkaUnavailable(Unavailable):
    """No broker, or no coordinator, answers."""


class DatabaseUnavailable(Unavailable):
    """The database refuses or has lost the connection."""


class RegistryUnavailable(Unavailable):
    """The schema registry does not answer, or refuses to; the text names the setting to look at."""


class DatabaseTooSlow(DatabaseUnavailable):
    """The call timed out; retry with a smaller batch."""


class SessionEnded(DatabaseUnavailable):
    """A statement's session has ended, and another one answers: if it is always so, the statement is the cause."""


class DatabaseRefused(WebhooksError):
    """The database refuses a statement because of a constraint, a value, or a bug in this project."""


class PartitionTaken(DatabaseRefused):
    """Another worker has taken a partition over since it was assigned to this one, which therefore begins no cursor."""

    def __init__(self, partition: tuple[str, int]) -> None:
        super().__init__(f"another worker has taken over partition {partition[1]} of topic {partition[0]}")


class RefusedTooLong(DatabaseRefused):
    """The database has refused to store a delivery for as long as WEBHOOK_REFUSED_AFTER says; the text says why."""


class RowsRefused(DatabaseRefused):
    """The database does not let stored deliveries of this subscription be changed; the text is its reason."""

    def __init__(self, subscription_id: int, reason: str) -> None:
        super().__init__(reason)
        self.subscription_id = subscription_id


class FatalKafkaError(WebhooksError):
    """librdkafka says that this consumer cannot go on."""


class InvalidSubscription(WebhooksError):
    """A subscription has a value that cannot work; the text describes a valid one.

    `option` is the column at fault, if a single one is; `why` is the mistake, and `example` a valid value.
    """

    def __init__(self, why: str, option: str | None = None, example: str | None = None) -> None:
        self.why, self.option, self.example = why, option, example
        name = f"{option}: " if option else ""
        super().__init__(f"{name}{why}{f'; for example {example}' if example else ''}")


class Unstorable(InvalidSubscription, DatabaseRefused):
    """The database's character set lacks a character of a value: it would store another one. `option` is the column."""


class InvalidReplay(WebhooksError):
    """An option of a replay has a value that cannot work; `index` is the place of the wrong one among several.

    `why` begins with a verb, and does not quote the value.
    """

    def __init__(
        self,
        option: Literal["since", "until", "event_type", "topics", "rate", "ordered"],
        why: str,
        index: int | None = None,
    ) -> None:
        self.option, self.why, self.index = option, why, index
        super().__init__(f"{option} {why}")


class InvalidPosition(WebhooksError):
    """A position in a search is none that an earlier page gave."""


class NotFound(WebhooksError):
    """There is no `what` of this number, or it is of another tenant than the caller: the text is the same for both."""

    def __init__(self, what: str, number: int, why: str = "") -> None:
        self.what, self.why = what, f": {why}" if why else ""
        super().__init__(f"there is no {what} {number}{self.why}")


class Conflict(WebhooksError):
    """The state of what a request names does not allow it; the text says which state would."""


class DeliveriesOwed(Conflict):
    """A subscription that is to be removed has `owed` stored deliveries to be sent, or cursors owe it events."""

    def __init__(self, owed: int) -> None:
        self.owed = owed
        super().__init__("deliveries are stored for it, or it is owed events from Kafka; if_owed=exhaust gives them up")


class KeyTaken(WebhooksError):
    """Another request with this idempotency key was quicker: roll back, and find the resource that it has created."""


class KeyReused(WebhooksError):
    """The idempotency key was used with another body before."""


class EgressRefused(WebhooksError, RequestsConnectionError):
    """The egress policy forbids the address: nothing was sent. The text names the setting that would allow it."""


class NoDescriptor(WebhooksError, RequestsConnectionError):
    """This process may open no more files: nothing was sent, and the receiver is not the cause."""


class NotAuthorized(WebhooksError, RequestException):
    """A request cannot be authorized: no access token comes, or a plug-in fails. Nothing was sent to the receiver."""
