"""Selects the valid secrets of a subscription, and parses the credentials that requests carry. Pure."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal, get_args

import orjson
from requests import PreparedRequest
from requests.auth import AuthBase, HTTPBasicAuth

from consumer.crypto.keys import MOST_SIGNING, SigningKey, parse_signing_key
from consumer.crypto.vault import CACHED, ENCRYPTED, Decrypt, Owner
from consumer.http import header_rules
from consumer.http.urls import check_target

PluginFactory = Callable[..., AuthBase]
Plugins = tuple[tuple[str, PluginFactory], ...]  # by name
# How a client sends its secret to the token endpoint; the names are from RFC 7591, section 2.
ClientAuthentication = Literal["client_secret_basic", "client_secret_post"]
MOST_HEADERS = 50  # confidential ones of a subscription: each answer of a failed request is searched for all of them
TOO_MANY_HEADERS = f"a subscription has at most {MOST_HEADERS} confidential headers"
_PLUGINS_KEPT = 1000  # an instance may hold state, such as a signing key of the day
_OAUTH2 = frozenset(
    ("token_url", "client_id", "client_secret", "scope", "parameters", "token_endpoint_auth_method"),
)
_OAUTH2_SHAPE = '{"token_url": "https://…", "client_id": "…", "client_secret": "…", "scope": "…"}'
_PLUGIN_SHAPE = '{"name": "…", "args": […], "kwargs": {…}}'


class BearerAuth(AuthBase):
    """`Authorization: Bearer …` (RFC 6750, section 2.1)."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Add the header."""
        r.headers["Authorization"] = f"Bearer {self._token}"
        return r

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BearerAuth) and other._token == self._token

    def __hash__(self) -> int:
        return hash(self._token)


@dataclass(frozen=True, slots=True)
class OAuth2:
    """OAuth 2.0 client credentials (RFC 6749, section 4.4): requests bear a token that the `token_url` gives out.

    `parameters` are further ones of the token request, such as `audience`.
    """

    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str | None = None
    parameters: tuple[tuple[str, str], ...] = ()
    method: ClientAuthentication = "client_secret_basic"


@dataclass(frozen=True, slots=True)
class PluginAuth:
    """An `AuthBase` that the operator allows by its `name`. It is called with each request, after it was signed.

    Two with the same name and `arguments` (JSON) are equal.
    """

    name: str
    arguments: str = field(repr=False)
    auth: AuthBase = field(repr=False, compare=False)


Auth = AuthBase | OAuth2 | PluginAuth  # an AuthBase by itself adds the same headers to each request


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """A row of `webhook_secrets`: `kind` is the purpose of `secret`, which may be encrypted."""

    kind: str
    secret: str = field(repr=False)
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Credentials:
    """The usable secrets of a subscription: signing `keys`, newest first, `auth`, and confidential `headers`."""

    keys: tuple[SigningKey, ...] = field(repr=False)
    auth: Auth | None = field(default=None, repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


_parse = lru_cache(CACHED)(parse_signing_key)


def credentials_of(
    subscription_id: int,
    stored: Sequence[StoredSecret],
    default: tuple[SigningKey, ...],
    decrypt: Decrypt,
    now: datetime,
    plugins: Plugins = (),
) -> Credentials:
    """The secrets of a subscription that are valid at `now`; `default` signs if it has no signing secrets.

    `stored` is newest first. Raises ValueError if a valid secret is unusable or all of a kind have expired: no other
    secret may replace it, because the receiver does not know that one; also for too many headers. The newest of all
    kinds but `signing` and `header` is used, the newest header of each name, and the newest MOST_SIGNING that sign.
    """
    keys = tuple(_parse(text) for _, text in _good(subscription_id, stored, {"signing"}, decrypt, now))[:MOST_SIGNING]
    auths = [
        _plugin(text, plugins) if kind == "plugin" else _AUTHS[kind](text)
        for kind, text in _good(subscription_id, stored, {*_AUTHS, "plugin"}, decrypt, now)[:1]
    ]
    headers: dict[str, tuple[str, str]] = {}
    for _, text in _good(subscription_id, stored, {"header"}, decrypt, now):
        name, value = parse_header(text)
        headers.setdefault(name.lower(), (name, value))
    if len(headers) > MOST_HEADERS:
        raise ValueError(TOO_MANY_HEADERS)
    return Credentials(keys or default, auths[0] if auths else None, tuple(headers.values()))


def parse_basic(text: str) -> HTTPBasicAuth:
    """Parse `user:password` (RFC 7617: no colon in the user). Raises ValueError; its text quotes no part of it."""
    user, colon, password = text.partition(":")
    if not colon or not text.isprintable():
        raise ValueError("basic authentication is written user:password, without control characters")
    return HTTPBasicAuth(user.encode(), password.encode())  # as UTF-8; requests would encode it as Latin-1


def parse_bearer(text: str) -> BearerAuth:
    """Parse a bearer token. Raises ValueError; its text quotes no part of it."""
    token = text.strip()
    if not is_token(token):
        raise ValueError("a bearer token must be visible ASCII without spaces")
    return BearerAuth(token)


def is_token(text: str) -> bool:
    """Whether a header can bear the token: visible ASCII without spaces, and not empty."""
    return bool(text) and " " not in text and header_rules.is_value(text)


def parse_header(text: str) -> tuple[str, str]:
    """Parse `name: value`. Raises ValueError; its text quotes no part of it, except for a reserved name."""
    name, _, value = map(str.strip, text.partition(":"))
    if not header_rules.is_name(name) or not value or not header_rules.is_value(value):
        raise ValueError("a header is written name: value, in visible ASCII")
    header_rules.check_name(name)
    return name, value


@lru_cache(1000)
def parse_oauth2(text: str) -> OAuth2:
    """Parse the JSON object of OAuth2 client credentials. Raises ValueError; its text quotes no secret."""
    given = _object(text, f"oauth2 credentials are JSON: {_OAUTH2_SHAPE}")
    if given.keys() - _OAUTH2:
        raise ValueError(f"oauth2 credentials have only {', '.join(sorted(_OAUTH2))}")
    parameters = given.pop("parameters", {})
    if not _is_texts(parameters):
        raise ValueError("the parameters of oauth2 credentials are a JSON object of texts")
    if taken := parameters.keys() & {"grant_type", "client_id", "client_secret", "scope"}:
        raise ValueError(f"the parameter {min(taken)} of oauth2 credentials is set by the sender")
    if not _is_texts(given):
        raise ValueError("the values of oauth2 credentials are texts")
    for name in ("token_url", "client_id", "client_secret"):
        if not given.get(name):
            raise ValueError(f"oauth2 credentials need {name}: {_OAUTH2_SHAPE}")
    try:
        check_target(given["token_url"])
    except ValueError as error:
        raise ValueError(f"the token_url of oauth2 credentials: {error}") from None
    method = given.get("token_endpoint_auth_method", "client_secret_basic")
    if method not in get_args(ClientAuthentication):
        raise ValueError(f"token_endpoint_auth_method must be {' or '.join(get_args(ClientAuthentication))}")
    return OAuth2(
        given["token_url"],
        given["client_id"],
        given["client_secret"],
        given.get("scope") or None,
        tuple(sorted(parameters.items())),
        method,
    )


def parse_plugin(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Parse the JSON object of a plug-in's credentials: name and arguments. ValueError, which quotes no argument."""
    given = _object(text, f"a plug-in's credentials are JSON: {_PLUGIN_SHAPE}")
    name, args, kwargs = given.pop("name", None), given.pop("args", []), given.pop("kwargs", {})
    if given or not isinstance(name, str) or not isinstance(args, list) or not isinstance(kwargs, dict):
        raise ValueError(f"a plug-in's credentials are written {_PLUGIN_SHAPE}")
    return name, args, kwargs


def _plugin(text: str, plugins: Plugins) -> PluginAuth:
    name, _, _ = parse_plugin(text)
    if (factory := dict(plugins).get(name)) is None:
        raise ValueError(f"the plug-in {name!r:.100} is not in WEBHOOK_AUTH_PLUGINS of this process")
    return _made(factory, text)


@lru_cache(_PLUGINS_KEPT)
def _made(factory: PluginFactory, text: str) -> PluginAuth:
    name, args, kwargs = parse_plugin(text)
    try:
        auth = factory(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 (a plug-in's own)
        raise ValueError(f"the plug-in {name} refuses its arguments ({type(error).__name__})") from None
    if not isinstance(auth, AuthBase):
        raise ValueError(f"the plug-in {name} makes a {type(auth).__name__}, which is no requests.auth.AuthBase")  # noqa: TRY004 (the caller's one error)
    return PluginAuth(name, text, auth)


def _object(text: str, otherwise: str) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ValueError(otherwise) from None
    if not isinstance(found, dict):
        raise ValueError(otherwise)  # noqa: TRY004 (the caller's one error)
    return found


def _is_texts(found: object) -> bool:
    return isinstance(found, dict) and all(isinstance(value, str) and value.isprintable() for value in found.values())


_AUTHS: dict[str, Callable[[str], AuthBase | OAuth2]] = {
    "basic": parse_basic,
    "bearer": parse_bearer,
    "oauth2": parse_oauth2,
}
_KINDS: dict[str, Callable[[str], object]] = {
    "signing": parse_signing_key,
    "header": parse_header,
    "plugin": parse_plugin,
    **_AUTHS,
}


def check_secret(kind: str, text: str) -> None:
    """Raise ValueError for a text that cannot be stored as a secret of its kind; the error quotes no part of it."""
    if text.startswith(ENCRYPTED):
        raise ValueError(f"a secret cannot begin with {ENCRYPTED}, which says that it is encrypted")
    _KINDS[kind](text)


def _good(
    subscription_id: int, stored: Sequence[StoredSecret], kinds: Collection[str], decrypt: Decrypt, now: datetime
) -> list[tuple[str, str]]:
    mine = [each for each in stored if each.kind in kinds]
    good = [
        (each.kind, decrypt(each.secret, Owner(subscription_id, each.kind)))
        for each in mine
        if each.expires_at is None or each.expires_at > now
    ]
    if mine and not good:
        raise ValueError(f"all of its secrets have expired ({', '.join(sorted({each.kind for each in mine}))})")
    return good
