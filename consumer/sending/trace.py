"""The trace of an exchange, and the mask over secrets in what is shown of it: a receiver may echo the request."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from html import escape
from itertools import chain
from ssl import SSLObject
from typing import NamedTuple
from urllib.parse import quote, quote_plus

from cryptography import x509
from requests import PreparedRequest
from requests.auth import HTTPBasicAuth

from consumer.crypto.credentials import OAuth2, PluginAuth
from consumer.http.urls import place_of
from consumer.sending.exchange import SignedRequest
from consumer.subscriptions.endpoint import Endpoint

MASK = "(not shown)"
SHORTEST = 6  # characters; a shorter value is not a secret and occurs in many texts by chance
_HIDDEN = "\ud800"  # stands for a character of a secret: decoded text has no lone surrogate
_RUNS = re.compile(f"{_HIDDEN}+")


def secrets_in(endpoint: Endpoint, request: PreparedRequest, more: Iterable[str] = ()) -> list[str]:
    """The request's credentials and `more`, plain and as JSON, HTML and URLs write them, longest first.

    Each also as UTF-8 bytes read as Latin-1, and as Latin-1 bytes read as UTF-8.
    """
    values = [*endpoint.confidential, *more]
    if endpoint.auth is not None:
        authorization = request.headers.get("authorization", "")
        values.append((authorization.decode() if isinstance(authorization, bytes) else authorization).split(" ")[-1])
    match endpoint.auth:
        case HTTPBasicAuth(username=user, password=password):
            values += [part if isinstance(part, str) else part.decode() for part in (user, password)]
        case OAuth2(client_secret=secret):
            values.append(secret)
        case PluginAuth(arguments=arguments):
            values += _texts(json.loads(arguments))
            values += plugin_headers(request).values()
    found = frozenset[str]().union(*map(_forms, values))
    return sorted((text for text in found if len(text) >= SHORTEST), key=len, reverse=True)


def plugin_headers(request: PreparedRequest) -> dict[str, str]:
    """The headers that a plug-in has added to the request: each may be a secret, or made of one."""
    found = request.added if isinstance(request, SignedRequest) else {}
    return {name: value if isinstance(value, str) else value.decode("latin-1") for name, value in found.items()}


@lru_cache(100)  # up to a millisecond, and 0.1 MB of memory, for the longest token
def _forms(value: str) -> frozenset[str]:
    plain = {value, _mistaken(value), _latin(value)}
    written = [form(text) for text in plain for form in (_json, _json_ascii, escape, quote, quote_plus)]
    return frozenset((*plain, *written))


def _texts(found: object) -> Iterator[str]:
    """All texts in a JSON value but the names of members."""
    match found:
        case str():
            yield found
        case list():
            yield from chain.from_iterable(map(_texts, found))
        case dict():
            yield from chain.from_iterable(map(_texts, found.values()))


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _json_ascii(text: str) -> str:
    return json.dumps(text)[1:-1]


def _mistaken(text: str) -> str:
    return text.encode("utf-8", "replace").decode("latin-1")


def _latin(text: str) -> str:
    return text.encode("latin-1", "replace").decode("utf-8", "replace")


def masked(text: str, secrets: Sequence[str]) -> str:
    """The text with each secret replaced by MASK."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


def masked_start(text: str, secrets: Sequence[str], most: int) -> str:
    """The first `most` characters of the text, with each secret in it replaced by MASK; cut to `most` once more.

    No more is searched than these, and what a secret that begins in them may take beyond.
    """
    text = text[: most + max(map(len, secrets), default=0)]
    for secret in secrets:
        text = text.replace(secret, _HIDDEN * len(secret))  # as long, so that the end of the start stays in place
    text = text[:most]
    return _RUNS.sub(MASK, text)[:most] if _HIDDEN in text else text


class Certificate(NamedTuple):
    """The receiver's certificate, also if verification refused it; names as RFC 4514 writes them."""

    subject: str
    issuer: str
    expires_at: str


@dataclass(slots=True)
class ExchangeTrace:
    """The record of an exchange. `seconds` holds the steps that were reached, and the total as its last entry.

    `started`: there was an address to connect to, or a proxy to ask.
    `addresses`: the host's resolved addresses, or the host itself if it is an address. `connected`: address and port of
    the peer, which is the proxy if there is one. `tls`: version and cipher, and HTTP/2 if the receiver has chosen it.
    """

    started: bool = False
    addresses: tuple[str, ...] = ()
    connected: str | None = None
    tls: str | None = None
    certificate: Certificate | None = None
    seconds: dict[str, float] = field(default_factory=dict)


class Recorder:
    """Writes the `trace` of an exchange, which is complete once that has `ended`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.trace = ExchangeTrace()
        self._clock = clock
        self._began = self._reached = clock()

    def step(self, name: str) -> None:
        """A step has been reached."""
        now = self._clock()
        self.trace.seconds[name] = now - self._reached
        self._reached = now

    def ended(self) -> None:
        """The exchange is over."""
        self.trace.seconds["total"] = self._clock() - self._began

    def resolved(self, name: str, addresses: Sequence[str]) -> None:
        """There is an address to connect to."""
        self.trace.started = True
        self.trace.addresses = tuple(addresses)
        if self.trace.addresses != (name,):
            self.step("name")

    def connected(self, peer: str, port: int) -> None:
        """TCP is connected."""
        self.trace.connected = place_of(peer, port)
        self.step("connect")

    def shown(self, certificate: bytes, tls: SSLObject) -> None:
        """The receiver shows its certificate, which may yet be refused."""
        cipher, version, _ = tls.cipher() or ("?", "?", 0)
        self.trace.tls = f"{version} / {cipher}{' / HTTP/2' if tls.selected_alpn_protocol() == 'h2' else ''}"
        try:
            found = x509.load_der_x509_certificate(certificate)
        except ValueError:
            return
        expires = found.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
        self.trace.certificate = Certificate(found.subject.rfc4514_string(), found.issuer.rfc4514_string(), expires)
