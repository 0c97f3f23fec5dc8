"""What shows the schema registry who asks: a user, a token or a certificate, as confluent-kafka's configuration."""

import ssl
from collections.abc import Callable
from contextlib import closing
from ipaddress import ip_network
from pathlib import Path
from threading import Lock

from requests.utils import get_environ_proxies, select_proxy

from consumer.config.settings import SchemaSettings
from consumer.crypto.certificates import TlsIdentity, ca_file
from consumer.crypto.credentials import OAuth2
from consumer.errors import NotAuthorized, SettingsError
from consumer.loop.poller import Poller
from consumer.sending.adapter import LoopAdapter
from consumer.sending.egress import EgressPolicy
from consumer.sending.oauth2 import FRESH, Key, Token, token_of, token_request
from consumer.sending.tls import reason_of
from consumer.sending.transfer import Result

_PAUSE = 1.0  # seconds after a failed fetch without another: each schema that records wait for would begin one
_ANYWHERE = EgressPolicy((ip_network("0.0.0.0/0"), ip_network("::/0")))  # operators choose this server, not tenants


class AccessTokens:
    """Keeps an access token, and renews it early. Any thread may ask; one of them waits for the token server.

    confluent-kafka's own fetch has a limit neither of time nor of bytes, and never replaces a token that is refused.
    """

    def __init__(self, key: Key, timeout: float, clock: Callable[[], float]) -> None:
        """`timeout`: seconds for a whole answer."""
        self._key, self._timeout, self._clock = key, timeout, clock
        self._lock = Lock()
        self._token: Token | None = None
        self._pause_until, self._why = 0.0, ""

    def text(self) -> str:
        """The token. Raises NotAuthorized if none is valid, and the server gives none."""
        with self._lock:
            now = self._clock()
            if (self._token is None or now >= self._token.renew_at) and now >= self._pause_until:
                try:
                    self._token = token_of(self._key, self._fetched(), now)
                except NotAuthorized as error:
                    self._pause_until, self._why = self._clock() + _PAUSE, str(error)
            if self._token is None or now >= self._token.expires_at:
                raise NotAuthorized(self._why)
            return self._token.text

    def refused(self) -> None:
        """The registry has answered 401: forget the token, unless it is too young to be the cause."""
        with self._lock:
            if self._token is not None and self._clock() - self._token.fetched_at >= FRESH:
                self._token = None

    def _fetched(self) -> Result:
        url, limit, results = self._key.credentials.token_url, self._timeout, list[Result]()
        proxy = select_proxy(url, get_environ_proxies(url, None)) or ""  # as the registry's client does
        if proxy and "://" not in proxy:
            proxy = f"http://{proxy}"
        with closing(Poller()) as poller, closing(LoopAdapter(
            poller, egress=_ANYWHERE, timeout=limit, connect_timeout=limit, max_connections=1, proxy=proxy
        )) as adapter:  # fmt: skip
            adapter.fetch(token_request(self._key.credentials), self._key.identity, results.append)
            while not results:
                poller.turn(1.0)
        return results[0]


def token_key(settings: SchemaSettings) -> Key | None:
    """The client at a token server, if there is one. Raises OSError: certificates cannot be read."""
    if settings.token_url is None or settings.client_id is None or settings.client_secret is None:
        return None
    identity, secret = None, settings.client_secret.get_secret_value()
    if settings.ca_file is not None:  # the token server may be the company's own or a public one
        files = (Path(each) for each in (settings.ca_file, ca_file()))
        identity = TlsIdentity(authorities="\n".join(each.read_text("ascii", "ignore") for each in files))
    return Key(OAuth2(settings.token_url, settings.client_id, secret, settings.scope), identity)


def authorization(settings: SchemaSettings, tokens: AccessTokens | None) -> dict[str, object]:
    """What fills the header Authorization; empty if nothing does."""
    if settings.user is not None and settings.password is not None:
        return {"basic.auth.user.info": f"{settings.user}:{settings.password.get_secret_value()}"}
    fields = {"bearer.auth.logical.cluster": settings.logical_cluster or ""}  # the client insists on it
    if settings.identity_pool_id is not None:
        fields["bearer.auth.identity.pool.id"] = settings.identity_pool_id
    if settings.bearer_token is not None:
        token = settings.bearer_token.get_secret_value()
        return {"bearer.auth.credentials.source": "STATIC_TOKEN", "bearer.auth.token": token, **fields}
    return {} if tokens is None else {
        "bearer.auth.credentials.source": "CUSTOM",
        "bearer.auth.custom.provider.function": lambda _: {"bearer.auth.token": tokens.text(), **fields},
        "bearer.auth.custom.provider.config": {},
    }  # fmt: skip


def client_certificate(settings: SchemaSettings) -> dict[str, object]:
    """The certificate to show, and its key; empty if there is none. SettingsError: it cannot be used."""
    if (certificate := settings.certificate_file) is None:
        return {}
    key = settings.key_file or certificate
    password = settings.key_password.get_secret_value() if settings.key_password else ""  # else OpenSSL asks a terminal
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password)
    except (OSError, ValueError) as error:  # ValueError: the password is too long
        raise SettingsError(
            f"SCHEMA_REGISTRY_CERTIFICATE_FILE: {certificate} cannot be used with the key in {key}: "
            f"{reason_of(error)}; check SCHEMA_REGISTRY_KEY_FILE and SCHEMA_REGISTRY_KEY_PASSWORD"
        ) from None
    return {"ssl.certificate.location": certificate, "ssl.key.location": key, "ssl.key.password": password}
