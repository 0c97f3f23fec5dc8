"""Idempotency-Key: a repeated creation answers with the resource that the first one created."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.responses import Response
from sqlalchemy import Engine

from consumer.api.problems import RETRY_AFTER, Code, Mistake, RequestRefused
from consumer.api.tokens import Caller
from consumer.api.v1.context import Backed
from consumer.errors import Conflict, KeyReused, KeyTaken
from consumer.ledger import request_keys
from consumer.ledger.request_keys import Creation, RequestDigests

REPLAYED = "idempotency-replayed"
_NAME = "idempotency-key"

# The headers of a creation, for OpenAPI.
CREATED_HEADERS: dict[str, Any] = {
    "Location": {"description": "Its path.", "schema": {"type": "string"}},
    "Idempotency-Replayed": {
        "description": "An earlier request with this Idempotency-Key has created it; this one has created nothing.",
        "schema": {"type": "string", "enum": ["true"]},
    },
}


async def _key_of(
    request: Request,
    backing: Backed,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="Any text, such as a UUID, that is the same if the request is sent again: within 24 hours the "
            "same token, path, key and body create nothing twice.",
            examples=["8e03978e-40d5-43dd-bc93-6894a57f9324"],
            min_length=1,
            max_length=255,
            pattern="^[!-~]+$",
        ),
    ] = None,
) -> RequestDigests | None:
    if idempotency_key is None:
        return None
    if len(request.headers.getlist(_NAME)) > 1:
        raise RequestRefused(Code.INVALID, errors=[Mistake(header=_NAME, detail="is there more than once")])
    caller: Caller = request.state.caller
    # The tenant too: a token's name may be given to another tenant meanwhile.
    whose = (caller.name, caller.tenant, request.scope["path"])
    return request_keys.request_key(idempotency_key, whose, await request.body(), backing.deployment.clock())


IdempotencyKey = Annotated[RequestDigests | None, Depends(_key_of)]


def once(
    engine: Engine,
    key: RequestDigests | None,
    create: Callable[[], Response],
    again: Callable[[Creation], Response],
) -> Response:
    """The answer of `create`, or of `again` if the key has created something before.

    `create` notes the key in its transaction (`request_keys.note`), and lets KeyTaken pass.
    """
    if key is None:
        return create()
    found = _find(engine, key)
    if found is None:
        try:
            return create()
        except KeyTaken:
            found = _find(engine, key)
    if found is None:  # removed meanwhile, by a process whose clock is ahead
        raise RequestRefused(Code.UNAVAILABLE, headers=RETRY_AFTER)
    response = again(found)
    response.headers[REPLAYED] = "true"
    return response


def gone(what: str) -> Conflict:
    """The error of a key whose resource was removed."""
    return Conflict(f"the {what} that this key created was removed; use another key")


def _find(engine: Engine, key: RequestDigests) -> Creation | None:
    try:
        return request_keys.find(engine, key)
    except KeyReused:
        why = "within a day, a key may be repeated with the same body only; use another key"
        mistake = Mistake(header=_NAME, detail="was used with another body before")
        raise RequestRefused(Code.KEY_REUSED, why, errors=[mistake]) from None
