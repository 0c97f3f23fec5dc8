"""Reads a subscription's rows into an Endpoint, in the same way for new events, stored deliveries and listings."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, NamedTuple

from sqlalchemy import Row, Select, SQLColumnExpression, select

from consumer.crypto.certificates import TlsIdentity, validity
from consumer.crypto.credentials import Credentials, OAuth2, Plugins, StoredSecret, credentials_of
from consumer.crypto.keys import Ed25519Key, SigningKey
from consumer.crypto.vault import Decrypt
from consumer.subscriptions.endpoint import Batch, BrokenFilter, Endpoint, Selection
from consumer.subscriptions.follows import follows_of
from consumer.subscriptions.options import BATCH_WAIT, DESCRIPTIVE, OPTIONS, Effect, OptionProblem, read, reason_of
from consumer.subscriptions.tls import StoredTls, identity_of
from models import Subscription, SubscriptionSecret, SubscriptionTls
from models.base import UNREADABLE

_WRITTEN = tuple(name for name in OPTIONS if name not in DESCRIPTIVE)
ENDPOINT_COLUMNS = (
    Subscription.id.label("subscription_id"),
    Subscription.failing_since,
    Subscription.verified_url,
    Subscription.paused_at,
    Subscription.starts,
    *(getattr(Subscription, column) for column in _WRITTEN),
    SubscriptionSecret.kind,
    SubscriptionSecret.secret,
    SubscriptionSecret.expires_at,
    SubscriptionTls.subscription_id.label("tls_of"),
)
_OPTIONS_START = 5
_OPTIONS_END = _OPTIONS_START + len(_WRITTEN)
_CONTENT_TYPE = re.compile("content-type$")
_BROKEN = BrokenFilter()  # a single instance, so that an endpoint that is read again is equal
HAS_HTTP2 = find_spec("h2") is not None
_NEEDS_EXTRA = 'HTTP/2 needs packages that are not installed here (in the checkout: pip install ".[http2]")'
NEEDS_ITS_OWN = "it has no secret of its own, and WEBHOOK_REQUIRE_OWN_SECRET requires one"


class Rules(NamedTuple):
    """The deployment's requirements for each subscription.

    `refusal` returns the reason why nothing may be sent to a URL, judged by the URL alone; None if it may be used. With
    `own_secret`, each subscription needs its own signing secret; with `verification`, its receiver's permission.
    `origin` is the deployment's DNS name (WEBHOOK_ORIGIN), which validation requests state. Credentials may name one of
    the `plugins`.
    """

    refusal: Callable[[str], str | None] = lambda _: None
    own_secret: bool = False
    plugins: Plugins = ()
    verification: bool = False
    origin: str | None = None


def unverified(subscription_id: int) -> str:
    """The reason why nothing is sent to an unverified subscription, and what to do."""
    return f"it has not been verified; run: kafka-webhooks subscriptions verify {subscription_id}"


def endpoint_rows(*more: SQLColumnExpression[Any]) -> Select[*tuple[Any, ...]]:
    """Select the columns that `endpoint_of` reads, and `more`: one row for each secret of each subscription.

    `tls_of` is null unless the subscription has a row of `webhook_tls`, which `tls.stored` reads: a LOB in each row
    would cost a round trip for all subscriptions.

    Rows are ordered by subscription, then newest secret first, which is the order of the signing keys.
    """
    secret = SubscriptionSecret
    return (
        select(*ENDPOINT_COLUMNS, *more)
        .outerjoin(secret, secret.subscription_id == Subscription.id)
        .outerjoin(SubscriptionTls, SubscriptionTls.subscription_id == Subscription.id)
        .order_by(Subscription.id, secret.created_at.desc(), secret.id.desc())
    )


def written(row: Row[*tuple[Any, ...]]) -> dict[str, Any]:
    """The values of the columns of OPTIONS in a row of `endpoint_rows`, which has none of the DESCRIPTIVE ones."""
    return dict(zip(_WRITTEN, row[_OPTIONS_START:_OPTIONS_END], strict=True))  # access by name takes four times as long


def endpoint_of(
    rows: Sequence[Row[*tuple[Any, ...]]],
    default: tuple[SigningKey, ...],
    decrypt: Decrypt,
    now: datetime,
    rules: Rules = Rules(),  # noqa: B008 (immutable)
    tls: StoredTls | None = None,
) -> tuple[Endpoint, tuple[OptionProblem, ...]]:
    """The Endpoint of a subscription at `now`, and the problems that it has under the `rules`.

    `rows` come from `endpoint_rows`: one for each of the subscription's secrets, or one without a secret. `default`
    signs for a subscription without signing secrets. `tls`: its row of `webhook_tls`, if any. Problems with the effect
    STORED become the endpoint's fault; for UNMATCHED ones the caller must leave the endpoint out of matching.
    """
    subscription_id, failing_since, verified_url, paused_at, starts = rows[0][:_OPTIONS_START]
    stored = written(rows[0])
    meant, problems = read(stored)
    is_url = not problems or all(problem.option != "url" for problem in problems)
    if is_url and (refusal := rules.refusal(stored["url"])) is not None:
        problems.append(OptionProblem("url", refusal, Effect.STORED))
    verified = verified_url == stored["url"]
    if rules.verification and not verified:
        problems.append(OptionProblem("url", unverified(subscription_id), Effect.STORED))
    credentials, why = _credentials(rows, default, decrypt, now, rules)
    problems += why
    secrets, private_keys = _by_kind(credentials.keys)
    problems += _unsigned(meant, secrets, private_keys)
    identity = None
    if tls is not None:
        identity, why = _identity(tls, decrypt, now)
        problems += why
    if rules.own_secret and all(row[_OPTIONS_END] != "signing" for row in rows):
        problems.append(OptionProblem("secret", NEEDS_ITS_OWN, Effect.STORED))
    if (http2 := meant["http_version"] == "2") and not HAS_HTTP2:
        http2 = False
        problems.append(OptionProblem("http_version", _NEEDS_EXTRA, Effect.DEFAULT))
    hex_header, headers = meant["signature_header"], meant["custom_headers"] or ()
    if credentials.headers:
        own = {name.lower() for name, _ in credentials.headers}
        headers = (*(pair for pair in headers if pair[0].lower() not in own), *credentials.headers)
        given = meant["header_expressions"] or ()
        meant["header_expressions"] = tuple(pair for pair in given if pair[0].lower() not in own)
        if hex_header and hex_header.lower() in own:
            problems.append(OptionProblem("secret", f"{hex_header} is the signature's header", Effect.STORED))
    selection = None
    event_filter = meant["event_filter"]
    if any(problem.option == "event_filter" for problem in problems):
        event_filter = _BROKEN
    if meant["topics"] is not None or event_filter is not None:
        selection = Selection(meant["topics"], event_filter)
    wait = BATCH_WAIT if meant["batch_wait_ms"] is None else meant["batch_wait_ms"] / 1000
    endpoint = Endpoint(
        subscription_id,
        str(stored["url"]),  # SQLite keeps bytes in any column; as text they are not a valid URL
        secrets,
        ordered=meant["ordering"] == "key",
        max_in_flight=meant["max_in_flight"],
        rate_limit=meant["rate_limit"],
        retry_schedule=meant["retry_schedule"],
        final_statuses=meant["final_statuses"] or frozenset(),
        failing_since=failing_since.timestamp() if failing_since not in (None, UNREADABLE) else None,
        fault=_fault(problems) if problems else None,
        selection=selection,
        payload_format=meant["payload_format"],
        projection=meant["projection"],
        batch=None if meant["batch_size"] is None else Batch(meant["batch_size"], wait),
        private_keys=private_keys,
        hex_header=hex_header,
        hex_prefix=meant["signature_prefix"] or "",
        headers=headers,
        auth=credentials.auth,
        timeout=meant["timeout_seconds"],
        gzip_above=meant["gzip_above"],
        http2=http2,
        tls=identity,
        origin=rules.origin if verified else None,
        paused=paused_at is not None,
        starts=starts == 1,
        method=meant["method"],
        follows=follows_of(meant),
        signature_template=meant["signature_template"],
        answer_headers=_answer_headers(meant),
        confidential=tuple(value for _, value in credentials.headers),
    )
    return endpoint, tuple(problems)


def _credentials(
    rows: Sequence[Row[*tuple[Any, ...]]],
    default: tuple[SigningKey, ...],
    decrypt: Decrypt,
    now: datetime,
    rules: Rules,
) -> tuple[Credentials, list[OptionProblem]]:
    subscription_id = rows[0][0]
    try:
        if not (kept := list(_stored(rows))):
            return Credentials(default), []
        found = credentials_of(subscription_id, kept, default, decrypt, now, rules.plugins)
    except Exception as error:  # noqa: BLE001 (one row must not end a look-up of many)
        return Credentials(()), [OptionProblem("secret", reason_of(error), Effect.STORED)]
    if isinstance(found.auth, OAuth2) and (refusal := rules.refusal(found.auth.token_url)) is not None:
        return found, [OptionProblem("secret", f"its token_url: {refusal}", Effect.STORED)]
    return found, []


def _identity(tls: StoredTls, decrypt: Decrypt, now: datetime) -> tuple[TlsIdentity | None, list[OptionProblem]]:
    """An identity that is not valid at `now` is used: the receiver decides whether it accepts the certificate."""
    try:
        identity = identity_of(tls, decrypt)
        why = validity(identity, now)
    except Exception as error:  # noqa: BLE001 (one row must not end a look-up of many)
        return None, [OptionProblem("tls", reason_of(error), Effect.STORED)]
    return identity, [] if why is None else [OptionProblem("tls", why, Effect.SENT)]


def _answer_headers(meant: Mapping[str, Any]) -> re.Pattern[str] | None:
    if meant["report_answer"] != "true" or meant["batch_size"] is not None:
        return None
    return meant["answer_headers"] or _CONTENT_TYPE


def _fault(problems: Sequence[OptionProblem]) -> str | None:
    return "; ".join(str(problem) for problem in problems if problem.effect is Effect.STORED) or None


def _unsigned(
    meant: Mapping[str, Any], secrets: Sequence[bytes], private_keys: Sequence[Ed25519Key]
) -> list[OptionProblem]:
    """That the template of a signature has no key. A subscription without any key has a problem already."""
    if meant["signature_template"] is None or secrets or not private_keys:
        return []
    return [OptionProblem("signature_template", "needs a secret for HMAC; there are ed25519 keys alone", Effect.STORED)]


@lru_cache(1000)
def _by_kind(keys: tuple[SigningKey, ...]) -> tuple[tuple[bytes, ...], tuple[Ed25519Key, ...]]:
    """Split keys into those for HMAC and those for ed25519."""
    return (
        tuple(key for key in keys if isinstance(key, bytes)),
        tuple(key for key in keys if isinstance(key, Ed25519Key)),
    )


def _stored(rows: Sequence[Row[*tuple[Any, ...]]]) -> Iterator[StoredSecret]:
    """The secrets in rows of the left join. ValueError for bytes, which SQLite keeps in any column."""
    for row in rows:
        kind, secret, expires_at = row[_OPTIONS_END : _OPTIONS_END + 3]
        if secret is not None:
            if not isinstance(secret, str):
                raise ValueError("its secret is not text")
            yield StoredSecret(kind, secret, expires_at)
