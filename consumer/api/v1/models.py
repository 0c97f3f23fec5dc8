"""The bodies of /v1/subscriptions.

Names, comments and lengths of options are those of the columns. `options.completed` checks the values.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import String

from consumer.api.tokens import Caller
from consumer.crypto.keys import Algorithm
from consumer.subscriptions.endpoint import PayloadFormat
from consumer.subscriptions.options import OPTIONS
from consumer.subscriptions.repository import Subscribed
from consumer.subscriptions.tls import described
from models import Subscription
from models.subscription import REASON_LENGTH, SECRET_LENGTH

_COLUMNS = Subscription.__table__.columns
_SECRETS_AT_ONCE = 20
Headers = dict[str, str]
Kind = Literal["signing", "basic", "bearer", "header", "oauth2", "plugin"]
CREDENTIAL_KINDS = (
    "basic: user:password. bearer: a token. header: name: value. oauth2, plugin: a JSON object, "
    "described in docs/credentials.md."
)


def _option(name: str, **more: Any) -> Any:
    """The field of an option."""
    column, option = _COLUMNS[name], OPTIONS[name]
    example = orjson.loads(option.example) if name == "custom_headers" else column.type.python_type(option.example)
    limit = {"max_length": column.type.length} if isinstance(column.type, String) and "headers" not in name else {}
    return Field(**{"default": None, "description": column.comment, "examples": [example], **limit, **more})


class Options(BaseModel):
    """The options of a subscription besides url and event type. Null: the default."""

    model_config = ConfigDict(strict=True, extra="forbid")

    tenant: str | None = _option("tenant")
    topics: str | None = _option("topics")
    event_filter: str | None = _option("event_filter")
    payload_format: PayloadFormat | None = _option("payload_format", max_length=None)
    projection: str | None = _option("projection")
    batch_size: int | None = _option("batch_size")
    batch_wait_ms: int | None = _option("batch_wait_ms")
    custom_headers: Headers | None = _option("custom_headers")
    signature_header: str | None = _option("signature_header")
    signature_prefix: str | None = _option("signature_prefix")
    gzip_above: int | None = _option("gzip_above")
    http_version: Literal["1.1", "2"] | None = _option("http_version", max_length=None)
    timeout_seconds: float | None = _option("timeout_seconds")
    ordering: Literal["none", "key"] | None = _option("ordering", max_length=None)
    max_in_flight: int | None = _option("max_in_flight")
    rate_limit: float | None = _option("rate_limit")
    retry_schedule: str | None = _option("retry_schedule")
    final_statuses: str | None = _option("final_statuses")


class Secret(BaseModel):
    """A secret to store. It is never shown again."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    kind: Annotated[
        Kind,
        Field(
            description=f"signing: a key. {CREDENTIAL_KINDS}",
            examples=["bearer"],
        ),
    ]
    secret: Annotated[
        str, Field(repr=False, min_length=1, max_length=SECRET_LENGTH, examples=["a-token-of-the-receiver"])
    ]


class NewSubscription(Options):
    """A subscription to create."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"url": "https://example.com/hooks", "event_type": "order.*", "generate_secret": "hmac"}]
        }
    )

    url: str = _option("url", default=...)
    event_type: str = _option("event_type", default=...)
    secrets: Annotated[
        list[Secret], Field(max_length=_SECRETS_AT_ONCE, description="Its own secrets, write-only.", examples=[[]])
    ] = []
    generate_secret: Annotated[
        Algorithm | None,
        Field(description="Sign with a random secret; the answer shows its key once.", examples=["hmac"]),
    ] = None
    verify: Annotated[
        bool,
        Field(description="Begin disabled; enabled if its receiver answers a validation request.", examples=[True]),
    ] = False


class Patch(Options):
    """A JSON merge patch (RFC 7396) of a subscription's url, event type and options. Null: the default."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"rate_limit": None, "event_filter": "data.amount > 100"}]}
    )

    url: str | None = _option("url")
    event_type: str | None = _option("event_type")
    custom_headers: dict[str, str | None] | None = _option("custom_headers")  # type: ignore[assignment]  # null removes


class Reason(BaseModel):
    """Why a subscription is disabled."""

    model_config = ConfigDict(strict=True, extra="forbid")

    reason: Annotated[
        str | None,
        Field(
            max_length=REASON_LENGTH, description="Null: the present reason stays.", examples=["moves to another host"]
        ),
    ] = None


class Nothing(BaseModel):
    """An empty object."""

    model_config = ConfigDict(extra="forbid")


class Fault(BaseModel):
    """An option with an unusable or inadvisable value."""

    option: Annotated[str, Field(examples=["url"])]
    why: Annotated[str, Field(examples=["the URL has no host"])]
    effect: Annotated[str, Field(examples=["its events are stored, not sent"])]


class ShownCertificate(BaseModel):
    """A certificate; names as RFC 4514 writes them, the fingerprint as SHA-256 in hex."""

    subject: Annotated[str, Field(examples=["CN=hooks.example.com"])]
    issuer: Annotated[str, Field(examples=["CN=Example CA,O=Example"])]
    expires: Annotated[datetime, Field(examples=["2027-07-28T14:00:00+00:00"])]
    fingerprint: Annotated[str, Field(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])]


class ShownTls(BaseModel):
    """The TLS of a subscription: its client certificate, and the only authorities that its receiver may use."""

    certificate: Annotated[ShownCertificate | None, Field(examples=[None])]
    authorities: Annotated[list[ShownCertificate], Field(examples=[[]])]


class Shown(BaseModel):
    """A subscription. Its options are as they are stored; one that plain SQL has written may be of another type."""

    id: Annotated[int, Field(examples=[7])]
    url: Annotated[str, Field(description="Without a password.", examples=["https://example.com/hooks"])]
    event_type: Annotated[str, Field(examples=["order.created"])]
    tenant: Annotated[str, Field(examples=["acme"])]
    topics: str | None = _option("topics")
    event_filter: str | None = _option("event_filter")
    payload_format: str | None = _option("payload_format")
    projection: str | None = _option("projection")
    batch_size: int | None = _option("batch_size")
    batch_wait_ms: int | None = _option("batch_wait_ms")
    custom_headers: Headers | str | None = _option("custom_headers")
    signature_header: str | None = _option("signature_header")
    signature_prefix: str | None = _option("signature_prefix")
    gzip_above: int | None = _option("gzip_above")
    http_version: str | None = _option("http_version")
    timeout_seconds: float | None = _option("timeout_seconds")
    ordering: str | None = _option("ordering")
    max_in_flight: int | None = _option("max_in_flight")
    rate_limit: float | None = _option("rate_limit")
    retry_schedule: str | None = _option("retry_schedule")
    final_statuses: str | None = _option("final_statuses")
    enabled: Annotated[bool, Field(examples=[True])]
    disabled_reason: Annotated[str | None, Field(examples=[None])]
    failing_since: Annotated[
        datetime | None, Field(description="Every attempt since has failed.", examples=["2026-07-28T14:00:00+00:00"])
    ]
    created_at: Annotated[datetime | None, Field(examples=["2026-07-28T14:00:00+00:00"])]
    signing_secrets: Annotated[int, Field(description="Number of its own signing secrets.", examples=[1])]
    credentials: Annotated[list[str], Field(description="Kinds of its other secrets.", examples=[["bearer"]])]
    tls: Annotated[ShownTls | None, Field(description="Its own certificates, if it has any.", examples=[None])]
    verified: Annotated[
        bool, Field(description="The receiver at its present URL has given permission.", examples=[True])
    ]
    problems: Annotated[list[Fault], Field(examples=[[]])]


class Verification(BaseModel):
    """A receiver's answer to a validation request."""

    granted: Annotated[bool, Field(description="It agrees.", examples=[True])]
    allowed_rate: Annotated[
        int | None, Field(description="Requests a minute that it permits. Null: any.", examples=[600])
    ]
    reason: Annotated[str | None, Field(description="Why it does not agree.", examples=[None])]
    advice: Annotated[str | None, Field(description="What to do about it.", examples=[None])]


class Created(Shown):
    """A new subscription."""

    receiver_key: Annotated[
        str | None,
        Field(
            description="The key that its receiver verifies with, if one was generated. No other answer has it.",
            examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        ),
    ] = None
    verification: Annotated[
        Verification | None, Field(description="The answer of its receiver. Null: it was not asked.")
    ] = None


class Page(BaseModel):
    """A page of subscriptions."""

    items: list[Shown]
    next: Annotated[
        str | None, Field(description="The `cursor` of the next page. Null: this is the last.", examples=["YWZ0ZXI6Nw"])
    ]


def shown(item: Subscribed) -> dict[str, Any]:
    """A subscription as JSON: the members of `Shown`."""
    return {
        "id": item.id,
        **item.options,
        "url": item.url,
        "event_type": item.event_type,
        "tenant": item.tenant,
        "custom_headers": _headers_or_text(item.options["custom_headers"]),
        "enabled": item.enabled,
        "disabled_reason": item.disabled_reason,
        "failing_since": item.failing_since and item.failing_since.isoformat(),
        "created_at": item.created_at and item.created_at.isoformat(),
        "signing_secrets": item.secrets,
        "credentials": list(item.credentials),
        "tls": None if item.tls is None else described(item.tls),
        "verified": item.verified,
        "problems": [problem.as_json() for problem in item.problems],
    }


def shown_to(caller: Caller, item: Subscribed) -> dict[str, Any]:
    """The subscription that the caller has changed: only its id without the scope `read`, which guards the rest."""
    return shown(item) if "read" in caller.scopes else {"id": item.id}


def stored_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a body in the form of their columns."""
    values = dict(given)
    headers = values.get("custom_headers")
    if headers is not None:
        values["custom_headers"] = orjson.dumps(headers).decode() if headers else None
    return values


def merged(patch: Mapping[str, Any], item: Subscribed) -> dict[str, Any]:
    """The changes of a merge patch in the form of the columns: its headers are merged with the subscription's."""
    values = dict(patch)
    headers = values.get("custom_headers")
    if headers is not None:
        before = _headers_or_text(item.options["custom_headers"])
        together = {**(before if isinstance(before, dict) else {}), **headers}
        values["custom_headers"] = {name: value for name, value in together.items() if value is not None}
    return stored_options(values)


def _headers_or_text(text: Any) -> Headers | str | None:
    try:
        found = orjson.loads(text) if text else None
    except (orjson.JSONDecodeError, TypeError):
        return str(text)
    return found if found is None or isinstance(found, dict) else str(text)
