"""/v1/subscriptions/{id}/secrets and /tls: write-only, except for a generated key, which the answer shows once."""

from base64 import b64decode, urlsafe_b64encode
from contextlib import nullcontext
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from pydantic import Field

from consumer.api.backing import reading_keys
from consumer.api.context import (
    Answer,
    Backed,
    Body,
    Changing,
    Cursor,
    Keeper,
    Limit,
    OfSubscription,
    Reader,
    Receiver,
    SubscriptionId,
    Time,
    answer,
)
from consumer.api.guard import unauthorized
from consumer.api.models import NewCredential, SecretAlgorithm, SecretKind, Tls
from consumer.api.problems import invalid
from consumer.api.tokens import STRANGER
from consumer.config.types import seconds
from consumer.crypto.certificates import LARGEST_PEM, TlsIdentity
from consumer.crypto.keys import PUBLIC_PREFIX, algorithm_of, receiver_key
from consumer.errors import InvalidSubscription, NotFound
from consumer.subscriptions import secrets
from models.subscription import SECRET_LENGTH

router = APIRouter(prefix="/subscriptions/{subscription_id}", tags=["secrets"])
public = APIRouter(tags=["secrets"])

_DONE: dict[int | str, dict[str, Any]] = {204: {"description": "Done; the token lacks the scope `read`."}}
_PUBLIC = {"cache-control": "public, max-age=300"}
_CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB…\n-----END CERTIFICATE-----\n"
_KEY = "-----BEGIN PRIVATE KEY-----\nMIGH…\n-----END PRIVATE KEY-----\n"


class SecretRotation(Body):
    """A rotation."""

    overlap: Annotated[
        str | float,
        Field(description="How long the previous secrets sign too: seconds, or a duration.", examples=["24h"]),
    ] = "24h"
    secret: Annotated[
        str | None,
        Field(repr=False, min_length=1, max_length=SECRET_LENGTH, description="Null: a random one.", examples=[None]),
    ] = None
    algorithm: Annotated[
        SecretAlgorithm | None, Field(description="Of a random secret. Null: that of the newest.", examples=["hmac"])
    ] = None


class Secret(Answer):
    """A stored secret, without its text."""

    id: int
    kind: Annotated[SecretKind, Field(examples=["signing"])]
    created_at: Annotated[Time, Field(examples=["2026-07-28T14:00:00Z"])]
    expires_at: Annotated[Time | None, Field(description="Null: it has no end.")]
    signs: Annotated[bool, Field(description="It signs requests now.")]


class SecretList(Answer):
    """The secrets of a subscription."""

    items: list[Secret]


class JsonWebKey(Answer):
    """An ed25519 public key (RFC 8037). `kid` has the ids of its subscription and of its secret."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    alg: Literal["EdDSA"]
    use: Literal["sig"]
    kid: Annotated[str, Field(examples=["7-12"])]
    x: Annotated[str, Field(examples=["11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"])]


class JsonWebKeySet(Answer):
    """Public keys that signatures `v1a,` verify with."""

    keys: list[JsonWebKey]
    next: Annotated[str | None, Field(description="`cursor` of the next page. Null: the end.")]


class RotatedSecret(Answer):
    """The result of a rotation."""

    algorithm: Annotated[SecretAlgorithm, Field(examples=["hmac"])]
    receiver_key: Annotated[
        str | None,
        Field(
            description="The key that the receiver verifies with, shown once. Null: the secret was given.",
            examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        ),
    ]
    previous_until: Annotated[
        Time | None,
        Field(description="Until then the previous secrets sign too.", examples=["2026-07-29T14:00:00Z"]),
    ]


class NewTls(Body):
    """Certificates to use. A part that is null stays as it is."""

    certificate: Annotated[
        str | None,
        Field(
            max_length=LARGEST_PEM,
            description="Client certificate, then its intermediates, in PEM; with its key.",
            examples=[_CERTIFICATE],
        ),
    ] = None
    private_key: Annotated[
        str | None,
        Field(
            repr=False,
            max_length=LARGEST_PEM,
            description="Key of the certificate, in PEM, without a pass phrase. It is never shown again.",
            examples=[_KEY],
        ),
    ] = None
    authorities: Annotated[
        str | None,
        Field(
            max_length=LARGEST_PEM,
            description="The only authorities that the receiver's certificate may come from, in PEM.",
            examples=[_CERTIFICATE],
        ),
    ] = None


@public.get("/jwks", response_model=JsonWebKeySet, openapi_extra={"security": [{}]})
def list_public_keys(
    caller: Receiver,
    backing: Backed,
    tenant: Annotated[str | None, Query(description="Only of this tenant.", examples=["acme"], max_length=255)] = None,
    subscription_id: OfSubscription = None,
    cursor: Cursor = None,
    limit: Limit = 200,
) -> Response:
    """List the public keys of the caller's subscriptions that sign with ed25519, as a JSON Web Key Set (RFC 7517).

    With `tenant` or `subscription_id` they are those of any such one, no token is needed, and caches may keep them.
    A page may have fewer keys than `limit`, even none, and still a `next`.
    """
    named = tenant is not None or subscription_id is not None
    if caller is STRANGER and not named:
        raise unauthorized()
    where, after = backing.deployment, backing.position("jwks", cursor, int)
    whose = tenant if named else caller.tenant
    with reading_keys(caller) if caller is STRANGER else nullcontext():
        found, last = secrets.public_keys(where.engine, where.vault, where.now, after, limit, whose, subscription_id)
    keys = [
        JsonWebKey(
            kty="OKP",
            crv="Ed25519",
            alg="EdDSA",
            use="sig",
            kid=f"{each.subscription_id}-{each.secret_id}",
            x=urlsafe_b64encode(b64decode(each.text.removeprefix(PUBLIC_PREFIX))).decode().rstrip("="),
        )
        for each in found
    ]
    following = None if last is None else backing.cursor("jwks", last)
    return answer(JsonWebKeySet(keys=keys, next=following), headers=_PUBLIC if named else None)


@router.get("/secrets", response_model=SecretList)
def list_secrets(caller: Reader, backing: Backed, subscription_id: SubscriptionId) -> Response:
    """List the secrets of a subscription, newest first, without their texts."""
    where = backing.deployment
    where.subscription(subscription_id, caller.tenant)
    return answer(SecretList.model_validate({"items": secrets.entries(where.engine, subscription_id, where.now)}))


@router.post("/secrets", status_code=HTTPStatus.NO_CONTENT)
def set_credential(_: Keeper, changes: Changing, subscription_id: SubscriptionId, new: NewCredential) -> Response:
    """Set a credential. A header replaces one of its name; the other kinds replace each other."""
    changes.set_credential(subscription_id, new.kind, new.secret)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post("/secrets/rotate", response_model=RotatedSecret)
def rotate_secret(_: Keeper, changes: Changing, subscription_id: SubscriptionId, new: SecretRotation) -> Response:
    """Sign with a new secret from now on; the previous ones sign too until the overlap ends."""
    try:
        overlap = seconds(new.overlap)
    except ValueError:
        raise invalid("is not a duration such as 24h or 0", "overlap") from None
    rotation = changes.rotate(subscription_id, overlap=overlap, secret=new.secret, algorithm=new.algorithm)
    return answer(
        RotatedSecret(
            algorithm=algorithm_of(rotation.secret),
            receiver_key=receiver_key(rotation.secret) if new.secret is None else None,
            previous_until=rotation.previous_until,
        )
    )


@router.delete("/secrets/{secret_id}", status_code=HTTPStatus.NO_CONTENT)
def remove_secret(
    _: Keeper,
    changes: Changing,
    subscription_id: SubscriptionId,
    secret_id: Annotated[int, Path(ge=-(2**63), lt=2**63, description="Id of a secret.", examples=[3])],
) -> Response:
    """Remove a credential, or end the overlap of a previous signing secret. The newest signing secret stays."""
    changes.remove_secret(subscription_id, secret_id)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.put("/tls", response_model=Tls, responses=_DONE)
def set_tls(caller: Keeper, changes: Changing, subscription_id: SubscriptionId, new: NewTls) -> Response:
    """Set the client certificate with its key, the authorities, or both."""
    given = TlsIdentity(new.certificate or None, new.private_key or None, new.authorities or None)
    if given == TlsIdentity():
        raise invalid("give certificate and private_key, or authorities")
    try:
        found = changes.set_tls(subscription_id, given)
    except InvalidSubscription as error:
        raise invalid(error.why) from None
    if "read" not in caller.scopes:
        return Response(status_code=HTTPStatus.NO_CONTENT)
    return answer(Tls.model_validate(found.tls))


@router.delete("/tls", status_code=HTTPStatus.NO_CONTENT)
def remove_tls(_: Keeper, changes: Changing, subscription_id: SubscriptionId) -> Response:
    """Remove the client certificate and the authorities."""
    if not changes.remove_tls(subscription_id):
        raise NotFound("certificate", subscription_id, "the subscription has none of its own")
    return Response(status_code=HTTPStatus.NO_CONTENT)
