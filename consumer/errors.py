"""Everything this project raises on purpose.

WebhooksError
├── SettingsError            a setting is missing or wrong (exit 2)
├── Undecodable              a record that is no event: dead-lettered with this reason
├── Unavailable              a part this process needs does not answer; tried again with back-off
│   ├── KafkaUnavailable
│   └── DatabaseUnavailable
├── DatabaseRefused          a statement that the database does not take as it is
├── FatalKafkaError          the consumer cannot go on (exit 1; the orchestrator starts a new one)
├── InvalidSubscription      what a subscription asks for cannot work (exit 2)
└── EgressRefused            an address the egress policy forbids (also a requests ConnectionError)
"""

from requests.exceptions import ConnectionError as RequestsConnectionError


class WebhooksError(Exception):
    """Base of every error raised here; its text is one line a person can act on."""


class SettingsError(WebhooksError):
    """One line for each setting that is missing or wrong: its name, what is wrong, a right value."""


class Undecodable(WebhooksError):
    """A record that is no event. `reason` is a short stable word for headers and metrics; the text says more."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Unavailable(WebhooksError):
    """A part this process needs does not answer."""


class KafkaUnavailable(Unavailable):
    """No broker, or no coordinator, answers."""


class DatabaseUnavailable(Unavailable):
    """The database refuses or has lost the connection."""


class DatabaseTooSlow(DatabaseUnavailable):
    """A call took longer than it may: less of it may pass."""


class DatabaseRefused(WebhooksError):
    """The database does not take a statement as it is: a constraint, a value, or a mistake of ours."""


class FatalKafkaError(WebhooksError):
    """librdkafka says that this consumer cannot go on."""


class InvalidSubscription(WebhooksError):
    """A subscription asks for something that cannot work; the text says what would.

    `option` is the column that it is about, if it is one, `why` what is wrong, and `example` a value that is right.
    """

    def __init__(self, why: str, option: str | None = None, example: str | None = None) -> None:
        self.why, self.option, self.example = why, option, example
        name = f"{option}: " if option else ""
        super().__init__(f"{name}{why}{f'; for example {example}' if example else ''}")


class EgressRefused(WebhooksError, RequestsConnectionError):
    """The egress policy forbids the address: nothing was sent. The text names the setting that would allow it."""
