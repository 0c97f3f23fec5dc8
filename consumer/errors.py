"""The errors that this project raises on purpose.

WebhooksError
├── SettingsError            a setting is missing or wrong (exit 2)
├── Undecodable              a record cannot be decoded into an event; it is dead-lettered with this reason
├── Unavailable              a system that this process needs does not answer; tried again with back-off
│   ├── KafkaUnavailable
│   ├── DatabaseUnavailable
│   └── RegistryUnavailable
├── DatabaseRefused          the database refuses a statement
├── FatalKafkaError          the consumer cannot go on (exit 1; the orchestrator starts a new one)
├── InvalidSubscription      a subscription has a value that cannot work (exit 2)
├── InvalidPosition          a position in a search is none that an earlier page gave
└── EgressRefused            the egress policy forbids an address (also a requests ConnectionError)
"""

from requests.exceptions import ConnectionError as RequestsConnectionError


class WebhooksError(Exception):
    """Base of every error that this project raises; its text is one line that a person can act on."""


class SettingsError(WebhooksError):
    """One line for each setting that is missing or wrong: its name, the mistake, and a valid value."""


class Undecodable(WebhooksError):
    """A record cannot be decoded into an event. `reason` is a short stable word for headers and metrics."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


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


class DatabaseRefused(WebhooksError):
    """The database refuses a statement because of a constraint, a value, or a bug in this project."""


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


class InvalidPosition(WebhooksError):
    """A position in a search is none that an earlier page gave."""


class EgressRefused(WebhooksError, RequestsConnectionError):
    """The egress policy forbids the address: nothing was sent. The text names the setting that would allow it."""
