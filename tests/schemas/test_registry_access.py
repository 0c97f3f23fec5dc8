"""Credentials for the registry: tokens from a real token server, and certificates of real TLS connections."""

import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from consumer.errors import RegistryUnavailable, SettingsError
from consumer.schemas.registry import Registry
from tests.schemas.registry_server import SchemaRegistry, schema_registry
from tests.secure_broker import Certificates
from tests.token_server import Tokens, token_server

ClientOf = Callable[..., Registry]
TOKEN_ERROR = "cannot be asked: no access token from .*{}.*; check SCHEMA_REGISTRY_TOKEN_URL"


@pytest.fixture
def pki(tmp_path: Path) -> Certificates:
    """A private authority and its certificates."""
    return Certificates(tmp_path)


@pytest.fixture
def tokens(pki: Certificates) -> Iterator[Tokens]:
    """A token server that knows one client."""
    with token_server({"webhooks": "the-secret"}, pki.server_tls()) as running:
        yield running


def client_settings(tokens: Tokens, pki: Certificates) -> dict[str, Any]:
    """The settings of the client that the token server knows."""
    url = f"https://127.0.0.1:{tokens.port}/token"
    return {"token_url": url, "client_id": "webhooks", "client_secret": "the-secret", "ca_file": str(pki.authority)}


def test_a_bearer_token(registry: SchemaRegistry, client_of: ClientOf) -> None:
    """It is sent with the ids of Confluent Cloud, and no redirect is followed with it. The error of a 401 hides it."""
    registry.authorization = "Bearer right"
    client = client_of(registry, bearer_token="right", logical_cluster="lsrc-1", identity_pool_id="pool-1")
    assert client.ping()
    names = ("target-sr-cluster", "confluent-identity-pool-id")
    assert [registry.headers[name] for name in names] == ["lsrc-1", "pool-1"]
    with pytest.raises(RegistryUnavailable, match="answers 401: check SCHEMA_REGISTRY_BEARER_TOKEN,") as refused:
        client_of(registry, bearer_token="wrong-one").ping()
    assert "wrong-one" not in str(refused.value)
    with schema_registry() as other:
        registry.status, registry.answer_headers = 307, {"location": f"{other.url}/schemas/ids/1"}
        with pytest.raises(RegistryUnavailable, match="answers 307"):
            client.ping()
        assert other.asked == []


def test_an_access_token_is_shared_and_renewed(
    registry: SchemaRegistry, tokens: Tokens, pki: Certificates, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One token serves until most of its life is over; while the token server is down, to its end.

    The first refusal of a token replaces it, and the request is repeated; a refusal of the new one does not.
    """
    now, tokens.seconds = 0.0, 1000.0
    monkeypatch.setenv("SSL_CERT_FILE", str(pki.authority))  # the token server's; the registry has another one
    client = client_of(registry, lambda: now, **client_settings(tokens, pki) | {"ca_file": str(pki.stranger())})
    for now, issued in ((0.0, 1), (799.0, 1), (801.0, 2)):  # noqa: B007 (the clock's)
        assert client.ping()
        assert (registry.headers["authorization"], tokens.issued) == (f"Bearer {tokens.newest}", issued)
    now, tokens.down = 1700.0, True
    assert client.ping()
    now = 1801.0
    with pytest.raises(RegistryUnavailable, match=TOKEN_ERROR.format("status 503")):
        client.ping()
    now, tokens.down = 1803.0, False
    assert client.ping()
    now, answer, revoked = 1813.0, registry.answer, f"Bearer {tokens.newest}"
    monkeypatch.setattr(registry, "answer", lambda *given: (401, {}) if given[2] == revoked else answer(*given))
    assert client.ping()
    assert (registry.headers["authorization"], tokens.issued) == (f"Bearer {tokens.newest}", 4)
    now, registry.authorization = 1823.0, "Bearer another"
    for _ in range(3):
        with pytest.raises(RegistryUnavailable, match="answers 401: check SCHEMA_REGISTRY_CLIENT_ID, SCHEMA_REGISTRY_"):
            client.ping()
    assert tokens.issued == 5


def test_a_token_server_that_gives_no_token(
    registry: SchemaRegistry, tokens: Tokens, pki: Certificates, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses, hangs, or is not trusted: the registry is not asked. The server is not asked again for a second."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for change, text in (
            ({"client_secret": "wrong-one"}, r"status 401 \(invalid_client\)"),
            ({"token_url": f"http://127.0.0.1:{silent.getsockname()[1]}/"}, "within 0.5 s"),
            ({"ca_file": str(pki.stranger())}, "certificate"),
        ):
            monkeypatch.setattr("consumer.schemas.registry.TIMEOUT", 0.5 if "token_url" in change else 30.0)
            client = client_of(registry, lambda: 0.0, **client_settings(tokens, pki) | change)
            tokens.clients["webhooks"] = "the-secret"
            for _ in range(2):
                with pytest.raises(RegistryUnavailable, match=TOKEN_ERROR.format(text)) as error:
                    client.ping()
                tokens.clients["webhooks"] = "wrong-one"  # a second fetch would succeed
            assert "wrong-one" not in str(error.value)
    assert (registry.asked, tokens.issued) == ([], 0)


def test_a_client_certificate(pki: Certificates, client_of: ClientOf) -> None:
    """Its key may be encrypted, or in the same file. Each error names the setting, and hides the password."""
    tls = pki.server_tls()
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(pki.authority)
    key, certificate = pki.client("webhooks")
    both, locked = key.with_name("both.pem"), key.with_name("locked.pem")
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"pw"))
    locked.write_bytes(serialization.load_pem_private_key(key.read_bytes(), None).private_bytes(*form))
    trusted = {"ca_file": str(pki.authority)}
    shown = {**trusted, "certificate_file": str(certificate), "key_file": str(key)}
    opened = {**shown, "key_file": str(locked), "key_password": "pw"}
    strange = {**shown, "ca_file": str(pki.stranger())}
    with schema_registry(tls=tls) as registry:
        for good in (shown, opened, {**trusted, "certificate_file": str(both)}):
            assert client_of(registry, **good).ping()
        for name, bad in (("CERTIFICATE", trusted), ("CA", strange)):
            with pytest.raises(RegistryUnavailable, match=f"check SCHEMA_REGISTRY_{name}_FILE"):
                client_of(registry, **bad).ping()
    for wrong in ({"key_password": ""}, {"key_password": "wrong-one"}, {"key_file": "/no"}):
        with pytest.raises(SettingsError, match=r"^SCHEMA_REGISTRY_CERTIFICATE_FILE: .* cannot be used") as unusable:
            Registry(registry.settings(**opened | wrong))
        assert "wrong-one" not in str(unusable.value)
