"""TLS to Oracle: trusted authorities, the server's certificate, and the client's own certificate in a wallet."""

import ssl
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.oracle.conftest import Start
from tests.oracle.connection_kit import USER, await_log_ins, connects, make, refusal
from tests.oracle_emulator import PROFILES

WALLET_PASSWORD = "wallet-pa55word"


class Wallets(NamedTuple):
    """Directories with an ewallet.pem."""

    authority: trustme.CA
    trust: Path  # certificates to trust, no key
    client: Path  # and the client's own key
    locked: Path  # the same, encrypted


@pytest.fixture(scope="module")
def wallets(tmp_path_factory: pytest.TempPathFactory) -> Wallets:
    """Wallets with a private authority that no system trusts."""
    authority = trustme.CA()
    certificate = authority.issue_cert("kafka-webhooks.example.com")
    pem = certificate.private_key_pem.bytes()
    key = serialization.load_pem_private_key(pem, None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(WALLET_PASSWORD.encode()),
    )
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    directories = []
    for name, content in (("trust", b""), ("client", pem + chain), ("locked", locked + chain)):
        directory = tmp_path_factory.mktemp(name)
        (directory / "ewallet.pem").write_bytes(content + authority.cert_pem.bytes())
        directories.append(directory)
    return Wallets(authority, *directories)


def server(wallets: Wallets, *, wants_client: bool = False, host: str = "localhost") -> ssl.SSLContext:
    """The server's TLS context, with a certificate for a host."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    wallets.authority.issue_cert(host, common_name=host).configure_cert(context)
    if wants_client:
        wallets.authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def url(port: int, host: str = "localhost", **more: object) -> str:
    """A URL of the most usual form."""
    query = "".join(f"&{name}={value}" for name, value in more.items())
    return f"{USER}{host}:{port}/?service_name=FREEPDB1&protocol=tcps{query}"


@pytest.mark.parametrize("profile", PROFILES)
def test_a_server_of_a_private_authority(start_oracle: Start, wallets: Wallets, profile: str) -> None:
    """Its certificate in ewallet.pem suffices, without key and password."""
    port = start_oracle(PROFILES[profile], tls=server(wallets)).port
    connects(url(port, wallet_location=wallets.trust))


@pytest.mark.parametrize("form", ["easy connect", "descriptor", "alias", "zip"])
def test_the_other_forms_of_url(start_oracle: Start, wallets: Wallets, tmp_path: Path, form: str) -> None:
    """Each can set tcps and the wallet's directory. The zip file of an Autonomous Database leaves these to the URL."""
    port = start_oracle(tls=server(wallets)).port
    place = f"(ADDRESS=(PROTOCOL=TCPS)(HOST=localhost)(PORT={port}))(CONNECT_DATA=(SERVICE_NAME=FREEPDB1))"
    descriptor = f"(DESCRIPTION={place}(SECURITY=(SSL_SERVER_DN_MATCH=ON)(MY_WALLET_DIRECTORY={wallets.trust})))"
    without = f"(DESCRIPTION={place}(SECURITY=(SSL_SERVER_DN_MATCH=YES)))"
    (tmp_path / "tnsnames.ora").write_text(f"webhooks = {descriptor}\nwebhooks_high = {without}\n")
    places = {
        "easy connect": f"/?dsn=tcps://localhost:{port}/FREEPDB1?wallet_location={wallets.trust}",
        "descriptor": f"/?dsn={descriptor}",
        "alias": f"webhooks?config_dir={tmp_path}",
        "zip": f"webhooks_high?config_dir={tmp_path}&wallet_location={wallets.trust}",
    }
    connects(USER + places[form])


def test_the_systems_authorities(start_oracle: Start, wallets: Wallets, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a wallet the system's authorities are trusted, and SSL_CERT_FILE replaces them."""
    port = start_oracle(tls=server(wallets)).port
    monkeypatch.setenv("SSL_CERT_FILE", str(wallets.trust / "ewallet.pem"))
    connects(url(port))


def test_a_certificate_of_an_unknown_authority_is_refused(start_oracle: Start, wallets: Wallets) -> None:
    """The error says how to trust the authority."""
    text = refusal(make(url(start_oracle(tls=server(wallets)).port)))
    assert "CERTIFICATE_VERIFY_FAILED" in text
    assert "belongs in ewallet.pem, in wallet_location" in text


@pytest.mark.parametrize("more", [{}, {"ssl_server_dn_match": "true"}])
def test_a_certificate_of_another_host_is_refused(start_oracle: Start, wallets: Wallets, more: dict[str, str]) -> None:
    """A trusted authority does not suffice, unless the check is turned off, in words that the driver knows too."""
    port = start_oracle(tls=server(wallets, host="other.example.com")).port
    text = refusal(make(url(port, wallet_location=wallets.trust, **more)))
    assert "DPY-6006" in text
    assert "ssl_server_cert_dn" in text
    for word in ("false", "off"):
        connects(url(port, wallet_location=wallets.trust, ssl_server_dn_match=word))


def test_a_certificate_may_be_named(start_oracle: Start, wallets: Wallets) -> None:
    """A certificate for another host is accepted by its whole distinguished name."""
    certificate = wallets.authority.issue_cert("other.example.com", common_name="other.example.com")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    name = x509.load_pem_x509_certificate(certificate.cert_chain_pems[0].bytes()).subject.rfc4514_string()
    port = start_oracle(tls=context).port
    connects(url(port, wallet_location=wallets.trust, ssl_server_cert_dn=quote(name)))
    assert "DPY-6002" in refusal(make(url(port, wallet_location=wallets.trust, ssl_server_cert_dn="CN=x.example.com")))


def test_a_server_that_requires_a_client_certificate(start_oracle: Start, wallets: Wallets) -> None:
    """A wallet with a key, encrypted or not, is presented; without one the error names the client certificate."""
    port = start_oracle(tls=server(wallets, wants_client=True)).port
    connects(url(port, wallet_location=wallets.client))
    connects(url(port, wallet_location=wallets.locked), DATABASE_WALLET_PASSWORD=WALLET_PASSWORD)
    text = refusal(make(url(port, wallet_location=wallets.trust)))
    assert "client certificate" in text, "the server's alert or its hang-up, whichever is seen first"


@pytest.mark.parametrize(
    ("more", "text"),
    [({}, "is not set"), ({"DATABASE_WALLET_PASSWORD": "wrong"}, "does not open its key")],
)
def test_a_wallet_that_does_not_open(wallets: Wallets, more: dict[str, str], text: str) -> None:
    """The driver would continue without the key, or ask for the password on the terminal."""
    line = refusal(make(url(1, wallet_location=wallets.locked), **more))
    assert line.startswith(f"{wallets.locked}/ewallet.pem")
    assert text in line


def test_a_missing_wallet(tmp_path: Path) -> None:
    """The error names the file."""
    text = refusal(make(url(1, wallet_location=tmp_path)))
    assert text == f"{tmp_path}/ewallet.pem cannot be read: No such file or directory: correct wallet_location"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the driver closes no socket on a reset
def test_only_one_side_speaks_tls(start_oracle: Start, wallets: Wallets, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain listener takes a TLS greeting for the start of a long packet and waits for the rest; we give up."""
    monkeypatch.setattr("consumer.database.oracle.CONNECT_LIMIT", 0.5)
    plain, encrypted = start_oracle(), start_oracle(tls=server(wallets)).port
    assert "only one side speaks TLS" in refusal(make(url(plain.port, wallet_location=wallets.trust)))
    plain.kill_sessions()
    await_log_ins()
    assert "does it need TLS" in refusal(make(f"{USER}localhost:{encrypted}/?service_name=FREEPDB1"))
