"""The bodies of /v1/subscriptions.

Names, comments and lengths of options are those of the columns. `options.completed` checks the values.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any, Literal

import orjson
from pydantic import AliasPath, BeforeValidator, ConfigDict, Field, SkipValidation, create_model
from sqlalchemy import String
from typing_extensions import TypeAliasType

from consumer.api.context import Answer, Body, Page, Time, TimeText
from consumer.api.problems import invalid
from consumer.api.tokens import Caller
from consumer.crypto.keys import Algorithm
from consumer.ops.ping import EVENT_TYPE
from consumer.sending.validation_request import MOST_RATE
from consumer.subscriptions.event_types import MOST
from consumer.subscriptions.options import BOOLEAN, OPTIONS
from consumer.subscriptions.secrets import Credential
from consumer.subscriptions.subscribed import Mode, Subscribed
from models import CursorReason
from models import Subscription as Table
from models.subscription import EVENT_TYPE_LENGTH, REASON_LENGTH, SECRET_LENGTH

_COLUMNS = Table.__table__.columns
_SECRETS_AT_ONCE = 20
_MODES = (
    "enabled: gets its events. paused: they wait in Kafka, and come once it is enabled. disabled: gets none, and its "
    "stored deliveries are held."
)
SubscriptionState = TypeAliasType("SubscriptionState", Mode)
ProblemEffect = TypeAliasType("ProblemEffect", Literal["unmatched", "unnamed", "stored", "default", "unused", "sent"])
CredentialKind = TypeAliasType("CredentialKind", Credential)
SecretAlgorithm = TypeAliasType("SecretAlgorithm", Algorithm)
SecretKind = TypeAliasType("SecretKind", Literal["signing", Credential])
Texts = dict[str, str]
_OBJECTS = ("custom_headers", "metadata")  # options that are JSON objects of texts
_TYPES = f"All of its types and patterns, at most {MOST}: event_type is the first one, and the others are sorted."
EventTypes = Annotated[
    list[Annotated[str, Field(max_length=EVENT_TYPE_LENGTH)]] | None,
    Field(
        max_length=MOST,
        description=f"{_TYPES} Instead of event_type, which alone names the first one.",
        examples=[["order.created", "invoice.*"]],
    ),
]
_KINDS = (
    "basic: user:password. bearer: a token. header: name: value. oauth2, plugin: a JSON object, "
    "described in docs/credentials.md."
)


def _option(name: str, **more: Any) -> Any:
    """The field of an option."""
    column, option = _COLUMNS[name], OPTIONS[name]
    is_json = name in _OBJECTS or option.choices == BOOLEAN
    example = orjson.loads(option.example) if is_json else column.type.python_type(option.example)
    limit = {}
    if isinstance(column.type, String) and name not in _OBJECTS and not option.choices:
        limit = {"max_length": column.type.length}
    return Field(**{"default": None, "description": column.comment, "examples": [example], **limit, **more})


@cache
def _kind(name: str) -> Any:
    """The type of an option, or null. A closed set of values is a schema of its own."""
    if name in _OBJECTS:
        return Texts | None
    choices = OPTIONS[name].choices
    if choices == BOOLEAN:
        return bool | None
    if choices:
        return TypeAliasType(name.title().replace("_", ""), Literal[choices]) | None
    return _COLUMNS[name].type.python_type | None


def option_fields(names: Iterable[str]) -> dict[str, Any]:
    """The fields of a request's body for these options."""
    return {name: (_kind(name), _option(name)) for name in names}


_GIVEN = option_fields(name for name, option in OPTIONS.items() if not option.required)
_GivenOptions: Any = create_model("_GivenOptions", __base__=Body, **_GIVEN)


class NewCredential(Body):
    """A secret that the receiver asks for. It is never shown again."""

    kind: Annotated[CredentialKind, Field(description=_KINDS, examples=["bearer"])]
    secret: Annotated[
        str, Field(repr=False, min_length=1, max_length=SECRET_LENGTH, examples=["a-token-of-the-receiver"])
    ]


class NewSecret(NewCredential):
    """A secret to store. It is never shown again."""

    kind: Annotated[SecretKind, Field(description=f"signing: a key. {_KINDS}", examples=["bearer"])]  # type: ignore[assignment]  # one more


class NewSubscription(_GivenOptions):  # type: ignore[misc]  # made from the columns
    """A subscription to create."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"url": "https://example.com/hooks", "event_type": "order.*", "generate_secret": "hmac"}]
        }
    )

    url: str = _option("url", default=...)
    event_type: str | None = _option("event_type")
    event_types: EventTypes = None
    secrets: Annotated[
        list[NewSecret],
        Field(
            default_factory=list,
            max_length=_SECRETS_AT_ONCE,
            description="Its own secrets, write-only.",
            examples=[[]],
        ),
    ]
    generate_secret: Annotated[
        SecretAlgorithm | None,
        Field(description="Sign with a random secret; the answer shows its key once.", examples=["hmac"]),
    ] = None
    start: Annotated[
        str | None,
        Field(
            max_length=40,
            description="It gets the events since then: RFC 3339 with an offset, an age such as 2h, or `earliest`.",
            examples=[None],
        ),
    ] = None
    verify: Annotated[
        bool,
        Field(description="Begin disabled; enabled if its receiver answers a validation request.", examples=[True]),
    ] = False


class SubscriptionPatch(_GivenOptions):  # type: ignore[misc]  # made from the columns
    """A JSON merge patch (RFC 7396) of a subscription's url, event type, options and state. Null: the default."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"rate_limit": None, "event_filter": "data.amount > 100"},
                {"state": "paused", "reason": "its database moves tonight"},
            ]
        }
    )

    url: str | None = _option("url")
    event_type: str | None = _option("event_type")
    event_types: EventTypes = None
    custom_headers: dict[str, str | None] | None = _option("custom_headers")  # null removes
    metadata: dict[str, str | None] | None = _option("metadata")  # the same
    state: Annotated[SubscriptionState | None, Field(description=f"Not null. {_MODES}", examples=["paused"])] = None
    reason: Annotated[
        str | None,
        Field(
            max_length=REASON_LENGTH,
            description="Why, with the state paused or disabled. Null: the present reason stays.",
            examples=["moves to another host"],
        ),
    ] = None


class VerificationRequest(Body):
    """The rate to ask for."""

    rate: Annotated[
        Annotated[int, Field(ge=1, le=MOST_RATE)] | None,
        Field(description="Requests a minute. Null: its rate_limit, or any.", examples=[600]),
    ] = None


class TestEvent(Body):
    """A test event."""

    __test__ = False  # it is not a test of pytest's

    event_type: Annotated[str, Field(max_length=255, examples=["order.paid"])] = EVENT_TYPE
    data: Annotated[Any, Field(description="Its body, any JSON. Null: a default one.", examples=[{"amount": 5}])] = None


class TestExchange(Answer):
    """The exchange of a test event. Secrets are masked, and bodies cut to their start."""

    subscription_id: int
    event_type: Annotated[str, Field(examples=[EVENT_TYPE])]
    addresses: Annotated[
        list[str], Field(description="Of the name in the URL; not for tenants.", examples=[["93.184.215.14"]])
    ]
    connected: Annotated[
        str | None, Field(description="The address that was connected to; not for tenants.", examples=["93.184.215.14"])
    ]
    tls: Annotated[str | None, Field(description="Version of the protocol.", examples=["TLSv1.3"])]
    certificate: dict[str, Any] | None
    headers: Annotated[
        dict[str, str],
        Field(description="Of the request.", examples=[{"webhook-id": "msg_143dab3b0a3b75b910a8f2797991ac8e"}]),
    ]
    body: Annotated[str | None, Field(description="Of the request.", examples=['{"amount": 5}'])]
    status: int | None
    response: Annotated[str | None, Field(description="Start of the answer's body; it is untrusted.")]
    seconds: Annotated[dict[str, float], Field(description="Seconds of each step.", examples=[{"connect": 0.012}])]
    ok: Annotated[bool, Field(description="The receiver took it.")]
    verdict: Annotated[str, Field(examples=["delivered: the receiver took it with status 204"])]
    advice: Annotated[str | None, Field(description="What to do, if it failed.")]


class OptionProblem(Answer):
    """An option with an unusable or inadvisable value, and what becomes of its events (stored, …) or of the value."""

    option: Annotated[str, Field(examples=["url"])]
    why: Annotated[str, Field(examples=["the URL has no host"])]
    effect: Annotated[ProblemEffect, BeforeValidator(lambda effect: effect.name.lower()), Field(examples=["stored"])]


class Certificate(Answer):
    """A certificate; names as RFC 4514 writes them, the fingerprint as SHA-256 in hex."""

    subject: Annotated[str, Field(examples=["CN=hooks.example.com"])]
    issuer: Annotated[str, Field(examples=["CN=Example CA,O=Example"])]
    expires_at: Annotated[Time, Field(validation_alias="not_after", examples=["2027-07-28T14:00:00Z"])]
    fingerprint: Annotated[str, Field(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])]


class Tls(Answer):
    """The TLS of a subscription: its client certificate, and the only authorities that its receiver may use."""

    certificate: Certificate | None
    authorities: list[Certificate]


def _texts_or_text(text: Any) -> Texts | str | None:
    try:
        found = orjson.loads(text) if text else None
    except (orjson.JSONDecodeError, TypeError):
        return str(text)
    return found if found is None or isinstance(found, dict) else str(text)


def _boolean_or_text(text: Any) -> Any:
    return text == "true" if text in BOOLEAN else text


def _stored_option(name: str) -> tuple[Any, Any]:
    """The type and the field of an option as it is stored; one that plain SQL has written may be of another type."""
    kind: Any = Annotated[_COLUMNS[name].type.python_type | None, SkipValidation]
    if OPTIONS[name].choices == BOOLEAN:
        kind = Annotated[bool | str | None, BeforeValidator(_boolean_or_text)]
    if name in _OBJECTS:
        kind = Annotated[Texts | str | None, BeforeValidator(_texts_or_text)]
    return kind, _option(name, validation_alias=AliasPath("options", name))


_STORED: Any = {"id": (int, Field(examples=[7]))} | {name: _stored_option(name) for name in OPTIONS}
_StoredOptions: Any = create_model("_StoredOptions", __base__=Answer, **_STORED)


class Subscription(_StoredOptions):  # type: ignore[misc]  # made from the columns
    """A subscription. Its options are as they are stored; one that plain SQL has written may be of another type."""

    url: Annotated[str, Field(description="The scope write shows its query.", examples=["https://example.com/hooks"])]
    event_type: Annotated[str, Field(examples=["order.created"])]
    event_types: Annotated[list[str], Field(description=_TYPES, examples=[["order.created", "invoice.*"]])]
    tenant: Annotated[str, Field(examples=["acme"])]
    state: Annotated[SubscriptionState, Field(validation_alias="mode", description=_MODES, examples=["paused"])]
    enabled: Annotated[bool, Field(description="Not disabled; it may be paused.")]
    disabled_reason: str | None
    paused_at: Annotated[Time | None, Field(description="Since when it is paused.", examples=["2026-07-28T14:00:00Z"])]
    paused_reason: str | None
    probed: Annotated[bool, Field(description="Failures have paused it; a probe that succeeds resumes it.")]
    failing_since: Annotated[
        Time | None, Field(description="Every attempt since has failed.", examples=["2026-07-28T14:00:00Z"])
    ]
    created_at: Annotated[Time | None, Field(examples=["2026-07-28T14:00:00Z"])]
    signing_secrets: Annotated[int, Field(validation_alias="secrets", description="Number of its own signing secrets.")]
    credentials: Annotated[
        list[CredentialKind], Field(description="Kinds of its other secrets.", examples=[["bearer"]])
    ]
    tls: Annotated[Tls | None, Field(description="Its own certificates, if it has any.")]
    verified: Annotated[bool, Field(description="The receiver at its present URL has given permission.")]
    problems: list[OptionProblem]


class LogCursor(Answer):
    """A part of a partition that a subscription is owed: the events from `position` to before `end`."""

    group: Annotated[
        str | None,
        Field(description="The consumer group that sends them. Null for a tenant's token.", examples=["webhooks"]),
    ]
    topic: Annotated[str, Field(examples=["orders"])]
    partition: int
    reason: Annotated[CursorReason, Field(examples=["paused"])]
    replay_id: Annotated[int | None, Field(description="The replay that it belongs to.")]
    position: Annotated[int | None, Field(description="The first offset that is owed. Null for a tenant's token.")]
    end: Annotated[int | None, Field(description="Null: where it meets new events, or for a tenant's token.")]
    record_at: Annotated[
        TimeText | None, Field(description="Time of the next record, if known.", examples=["2026-07-28T14:00:00.120Z"])
    ]
    seconds_behind: Annotated[int | None, Field(description="Age of that record.", examples=[3600])]
    expires_at: Annotated[
        TimeText | None,
        Field(description="When Kafka removes that record, if known and ever.", examples=["2026-07-30T14:00:00.120Z"]),
    ]
    seconds_left: Annotated[int | None, Field(description="Time until then. 0: it may be gone.", examples=[169200])]


class SubscriptionDetail(Subscription):
    """A subscription, and what it is owed from the log."""

    cursors: Annotated[list[LogCursor], Field(description="By topic and partition; 1,000 at most.")]


class Permission(Answer):
    """A receiver's answer to a validation request."""

    granted: Annotated[bool, Field(description="It agrees.")]
    allowed_rate: Annotated[int | None, Field(description="Requests a minute that it permits. Null: any.")]
    reason: Annotated[str | None, Field(description="Why it does not agree.")]
    advice: Annotated[str | None, Field(description="What to do about it.")]


class Verification(Answer):
    """The receiver's answer, and the subscription after it."""

    verification: Permission
    subscription: Subscription


class CreatedSubscription(Subscription):
    """A new subscription."""

    receiver_key: Annotated[
        str | None,
        Field(
            description="The key that its receiver verifies with, if one was generated. No other answer has it.",
            examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        ),
    ] = None
    verification: Annotated[
        Permission | None, Field(description="The answer of its receiver. Null: it was not asked.")
    ] = None


class SubscriptionPage(Page):
    """A page of subscriptions."""

    items: list[Subscription]


def shown(caller: Caller, item: Subscribed) -> dict[str, Any]:
    """A subscription as JSON, as the caller may see it: the members of `Subscription`."""
    members: dict[str, Any] = Subscription.model_validate(item).model_dump(mode="json", warnings=False)
    return members | {"url": item.whole_url} if "write" in caller.scopes else members


def shown_to(caller: Caller, item: Subscribed) -> dict[str, Any]:
    """The subscription that the caller has changed: only its id without the scope `read`, which guards the rest."""
    return shown(caller, item) if "read" in caller.scopes else {"id": item.id}


def check_spelling(given: Mapping[str, Any]) -> None:
    """Raise RequestRefused if a body names the event types in both ways."""
    if given.get("event_type") is not None and given.get("event_types") is not None:
        raise invalid("is given beside event_type; leave one of them out", "event_types")


def stored_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a body in the form of their columns."""
    values = {name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items()}
    for name in _OBJECTS:
        if (texts := values.get(name)) is not None:
            values[name] = orjson.dumps(texts).decode() if texts else None
    return values


def merged(patch: Mapping[str, Any], item: Subscribed) -> dict[str, Any]:
    """The changes of a merge patch in the form of the columns: its objects are merged with the subscription's."""
    values = dict(patch)
    for name in _OBJECTS:
        if (texts := values.get(name)) is not None:
            before = _texts_or_text(item.options[name])
            together = {**(before if isinstance(before, dict) else {}), **texts}
            values[name] = {key: value for key, value in together.items() if value is not None}
    return stored_options(values)
