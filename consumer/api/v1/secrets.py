"""/v1/subscriptions/{id}/secrets: write-only, except for a generated key, which the answer shows once."""

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from consumer.api.problems import Mistake, Refused, invalid
from consumer.api.v1.context import (
    Backed,
    IfMatch,
    Keeper,
    Reader,
    SubscriptionId,
    absent,
    condition,
    described,
    may_see,
)
from consumer.api.v1.models import CREDENTIAL_KINDS, Kind
from consumer.config.types import seconds
from consumer.crypto.keys import Algorithm, algorithm_of, receiver_key
from consumer.ops import changes
from consumer.subscriptions import repository, secrets
from consumer.subscriptions.secrets import SecretEntry
from models.subscription import SECRET_LENGTH

router = APIRouter(prefix="/subscriptions/{subscription_id}/secrets", tags=["secrets"])

_LONGEST_OVERLAP = 366 * 86400.0  # seconds


class Credential(BaseModel):
    """A secret that the receiver asks for."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    kind: Annotated[
        secrets.Credential,
        Field(description=CREDENTIAL_KINDS, examples=["bearer"]),
    ]
    secret: Annotated[
        str, Field(repr=False, min_length=1, max_length=SECRET_LENGTH, examples=["a-token-of-the-receiver"])
    ]


class NewSigningSecret(BaseModel):
    """A rotation."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    overlap: Annotated[
        str | float,
        Field(description="How long the previous secrets sign too: seconds, or a duration.", examples=["24h"]),
    ] = "24h"
    secret: Annotated[
        str | None,
        Field(repr=False, min_length=1, max_length=SECRET_LENGTH, description="Null: a random one.", examples=[None]),
    ] = None
    algorithm: Annotated[
        Algorithm | None, Field(description="Of a random secret. Null: that of the newest.", examples=["hmac"])
    ] = None


class Entry(BaseModel):
    """A stored secret, without its text."""

    id: Annotated[int, Field(examples=[3])]
    kind: Annotated[Kind, Field(examples=["signing"])]
    created_at: Annotated[datetime, Field(examples=["2026-07-28T14:00:00Z"])]
    expires_at: Annotated[datetime | None, Field(description="Null: it has no end.", examples=[None])]
    signs: Annotated[bool, Field(description="It signs requests now.", examples=[True])]


class Entries(BaseModel):
    """The secrets of a subscription."""

    items: list[Entry]


class Rotated(BaseModel):
    """The result of a rotation."""

    algorithm: Annotated[Algorithm, Field(examples=["hmac"])]
    receiver_key: Annotated[
        str | None,
        Field(
            description="The key that the receiver verifies with, shown once. Null: the secret was given.",
            examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        ),
    ]
    previous_until: Annotated[
        datetime | None,
        Field(description="Until then the previous secrets sign too.", examples=["2026-07-29T14:00:00Z"]),
    ]


@router.get("", response_model=Entries, responses=described(404))
def list_secrets(caller: Reader, backing: Backed, subscription_id: SubscriptionId) -> Response:
    """List the secrets of a subscription, newest first, without their texts."""
    registry = backing.registry
    found = repository.get(registry.engine, subscription_id)
    if found is None or not may_see(caller, found):
        raise absent()
    entries = secrets.entries(registry.engine, subscription_id, _now())
    return _json(Entries(items=[Entry.model_validate(entry, from_attributes=True) for entry in entries]))


@router.post("", status_code=HTTPStatus.NO_CONTENT, responses=described(404, 412))
def set_credential(
    caller: Keeper, backing: Backed, subscription_id: SubscriptionId, new: Credential, if_match: IfMatch = None
) -> Response:
    """Set a credential. A header replaces one of its name; the other kinds replace each other."""
    done = changes.set_credential(
        backing.registry, caller.actor, subscription_id, new.kind, new.secret, _now(), condition(caller, if_match)
    )
    if not done:
        raise absent()
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post("/rotate", response_model=Rotated, responses=described(404, 409, 412))
def rotate_secret(
    caller: Keeper, backing: Backed, subscription_id: SubscriptionId, new: NewSigningSecret, if_match: IfMatch = None
) -> Response:
    """Sign with a new secret from now on; the previous ones sign too until the overlap ends."""
    if new.secret is not None and new.algorithm is not None:
        raise invalid(Mistake(pointer="/algorithm", detail="a given secret determines its algorithm; leave it out"))
    rotation = changes.rotate(
        backing.registry,
        caller.actor,
        subscription_id,
        overlap=_overlap(new.overlap),
        now=_now(),
        secret=new.secret,
        algorithm=new.algorithm,
        condition=condition(caller, if_match),
    )
    if rotation is None:
        raise absent()
    return _json(
        Rotated(
            algorithm=algorithm_of(rotation.secret),
            receiver_key=receiver_key(rotation.secret) if new.secret is None else None,
            previous_until=rotation.previous_until,
        )
    )


@router.delete("/{secret_id}", status_code=HTTPStatus.NO_CONTENT, responses=described(404, 409, 412))
def remove_secret(
    caller: Keeper,
    backing: Backed,
    subscription_id: SubscriptionId,
    secret_id: Annotated[int, Path(ge=-(2**63), lt=2**63, description="Id of a secret.", examples=[3])],
    if_match: IfMatch = None,
) -> Response:
    """Remove a credential, or end the overlap of a previous signing secret. The newest signing secret stays."""
    removed = changes.remove_secret(
        backing.registry, caller.actor, subscription_id, secret_id, _check_removable, condition(caller, if_match)
    )
    if removed is None:
        raise absent()
    if not removed:
        raise Refused(HTTPStatus.NOT_FOUND, "not-found", "the subscription has no such secret")
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _check_removable(entry: SecretEntry) -> None:
    if entry.kind == "signing" and entry.expires_at is None:
        why = "this secret signs without an end; rotate it with overlap 0"
        raise Refused(HTTPStatus.CONFLICT, "conflict", why)


def _overlap(given: str | float) -> timedelta:
    try:
        duration = seconds(given)
    except ValueError:
        raise invalid(Mistake(pointer="/overlap", detail="is not a duration such as 24h or 0")) from None
    if duration > _LONGEST_OVERLAP:
        raise invalid(Mistake(pointer="/overlap", detail="is too long; at most 366d"))
    return timedelta(seconds=duration)


def _now() -> datetime:
    return datetime.now(UTC)


def _json(content: BaseModel) -> JSONResponse:
    body: dict[str, Any] = content.model_dump(mode="json")
    return JSONResponse(body)
