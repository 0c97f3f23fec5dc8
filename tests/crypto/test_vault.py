"""Encryption of secrets at rest, and the credentials of a subscription that are valid now."""

from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st
from requests import Request
from requests.auth import HTTPBasicAuth

from consumer.crypto.credentials import (
    BearerAuth,
    Credentials,
    StoredSecret,
    check_secret,
    credentials_of,
    parse_header,
)
from consumer.crypto.keys import Ed25519Key
from consumer.crypto.vault import ENCRYPTED, Owner, Vault
from consumer.subscriptions.endpoint import Endpoint

OLD_KEY, KEY, OTHER_KEY = (Fernet.generate_key().decode() for _ in range(3))
SEED = bytes(range(32))
PRIVATE = "whsk_" + b64encode(SEED).decode()
NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
HIDDEN = "3nc0d3d"
TEXTS = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: not text.startswith(ENCRYPTED))


def stored(kind: str, text: str, expires_in: float | None = None) -> StoredSecret:
    """A row in the clear, valid for so many seconds from NOW."""
    return StoredSecret(kind, text, None if expires_in is None else NOW + timedelta(seconds=expires_in))


OWNER = Owner(7, "signing")


def good(*rows: StoredSecret, default: tuple[bytes, ...] = (b"default",)) -> Credentials:
    """The credentials of `rows` that are valid at NOW."""
    return credentials_of(7, rows, default, Vault().decrypt, NOW)


@given(TEXTS)
def test_encrypted_text_is_decrypted(text: str) -> None:
    """With a key the text is stored encrypted, without one in the clear. Either is read back."""
    encrypted = Vault(KEY).encrypt(text, OWNER)
    assert encrypted.startswith(ENCRYPTED)
    assert Fernet(KEY).decrypt(encrypted.removeprefix(ENCRYPTED)).decode() == f"7:signing:{text}"
    assert Vault(KEY).decrypt(encrypted, OWNER) == text
    assert Vault().encrypt(text, OWNER) == text == Vault().decrypt(text, OWNER) == Vault(KEY).decrypt(text, OWNER)


def test_the_newest_key_encrypts_and_any_decrypts() -> None:
    """While keys are changed both are set, newest first."""
    both = Vault(f"{KEY} {OLD_KEY}")
    assert Vault(KEY).decrypt(both.encrypt("a", OWNER), OWNER) == "a"
    assert both.decrypt(Vault(OLD_KEY).encrypt("a", OWNER), OWNER) == "a"
    assert Vault(f"{KEY}\n{OLD_KEY}").decrypt(Vault(OLD_KEY).encrypt("a", OWNER), OWNER) == "a"


@pytest.mark.parametrize(
    ("keys", "text", "current"),
    [
        ("", "plain", True),
        ("", Vault(KEY).encrypt("a", OWNER), False),
        (KEY, "plain", False),
        (KEY, Vault(KEY).encrypt("a", OWNER), True),
        (f"{KEY} {OLD_KEY}", Vault(KEY).encrypt("a", OWNER), True),
        (f"{KEY} {OLD_KEY}", Vault(OLD_KEY).encrypt("a", OWNER), False),
        (KEY, Vault(OTHER_KEY).encrypt("a", OWNER), False),
        (KEY, ENCRYPTED, False),
        (KEY, ENCRYPTED + "é", False),
        (KEY, ENCRYPTED + "a" * 500, False),
    ],
    ids=map(str, range(10)),
)
def test_current_text_is_recognised(keys: str, text: str, current: bool) -> None:  # noqa: FBT001 (a column of the table)
    """Text is current if encrypted with the newest key, or in the clear if no key is set; undecryptable text is not."""
    assert Vault(keys).is_current(text, OWNER) is current


@pytest.mark.parametrize(
    "text",
    [
        Vault(OTHER_KEY).encrypt(HIDDEN, OWNER),
        ENCRYPTED + Fernet(KEY).encrypt(b"\xff").decode(),
        ENCRYPTED,
        ENCRYPTED + HIDDEN,
        ENCRYPTED + "é",
    ],
    ids=["another's", "no UTF-8", "nothing", "no token", "no ASCII"],
)
def test_the_error_for_undecryptable_text_does_not_contain_it(text: str) -> None:
    """The error names the setting and contains no part of the token, the text or a key."""
    for keys, problem in (
        (KEY, "no key in WEBHOOK_ENCRYPTION_KEY decrypts"),
        ("", "WEBHOOK_ENCRYPTION_KEY is not set"),
    ):
        with pytest.raises(ValueError, match=problem) as caught:
            Vault(keys).decrypt(text, OWNER)
        shown = f"{caught.value}{caught.value.__context__}"
        assert HIDDEN not in shown
        assert KEY not in shown
        assert text == ENCRYPTED or text.removeprefix(ENCRYPTED) not in shown


@pytest.mark.parametrize("owner", [Owner(8, "signing"), Owner(7, "bearer"), Owner(77, "signing")])
def test_text_encrypted_for_another_subscription_is_not_used(owner: Owner) -> None:
    """Otherwise someone who copies a token into a row of their own would see its text."""
    for key in (KEY, OLD_KEY):
        vault = Vault(f"{KEY} {OLD_KEY}")
        token = Vault(key).encrypt(HIDDEN, owner)
        with pytest.raises(ValueError, match="encrypted for another subscription, or for another purpose") as caught:
            vault.decrypt(token, OWNER)
        assert HIDDEN not in str(caught.value)
        assert vault.decrypt(token, owner) == HIDDEN
        assert not vault.is_current(token, OWNER)


@pytest.mark.parametrize(
    "keys",
    ["hidden", f"{KEY} hidden", "hiddené", b64encode(b"hidden").decode()],
    ids=["no base64", "the second", "no ASCII", "too short"],
)
def test_an_invalid_key_is_refused_without_quoting_it(keys: str) -> None:
    """A vault needs Fernet keys; the error repeats no key."""
    with pytest.raises(ValueError, match="Fernet keys") as caught:
        Vault(keys)
    assert "hidden" not in str(caught.value)
    assert KEY not in str(caught.value)


def test_all_valid_secrets_sign_newest_first() -> None:
    """Symmetric and private keys sign in the order of the rows; expired ones, from their end on, do not."""
    rows = (
        stored("signing", "new"),
        stored("signing", PRIVATE, 1),
        stored("signing", "old", 0),
        stored("signing", "b", 9),
    )
    assert good(*rows).keys == (b"new", Ed25519Key(SEED), b"b")
    assert credentials_of(7, rows, (), Vault().decrypt, NOW + timedelta(seconds=1)).keys == (b"new", b"b")


def test_the_default_signs_only_for_subscriptions_without_a_secret() -> None:
    """Credentials do not count as signing secrets."""
    assert good().keys == (b"default",)
    assert good(stored("bearer", "token")).keys == (b"default",)
    assert good(stored("signing", "own")).keys == (b"own",)


@pytest.mark.parametrize(
    ("kind", "text"), [("signing", "a"), ("basic", "user:a"), ("bearer", "a"), ("header", "x-key: a")]
)
def test_a_kind_whose_secrets_have_all_expired_is_an_error(kind: str, text: str) -> None:
    """Nothing is sent without a credential that the receiver expects, and the error names the kind."""
    with pytest.raises(ValueError, match=rf"have expired \({kind}\)"):
        good(
            stored(kind, text, -1),
            *(row for row in (stored("signing", "b"), stored("bearer", "b")) if kind == "header"),
        )


def test_the_newest_of_basic_and_bearer_counts() -> None:
    """There is one Authorization header, and an expired credential gives way to an older valid one."""
    basic, bearer = stored("basic", "user:password"), stored("bearer", "token")
    assert good(basic, bearer).auth == HTTPBasicAuth(b"user", b"password")
    assert good(bearer, basic).auth == BearerAuth("token")
    assert good(stored("bearer", "new", -1), basic).auth == HTTPBasicAuth(b"user", b"password")


def test_the_newest_header_of_each_name_counts() -> None:
    """Header names are compared without regard to case."""
    rows = (stored("header", "X-Key: new"), stored("header", "x-key: old"), stored("header", "x-other:b"))
    assert good(*rows).headers == (("X-Key", "new"), ("x-other", "b"))


def test_credentials_in_a_request() -> None:
    """Basic authentication is UTF-8 in base64; a bearer token follows `Bearer`."""
    basic = good(stored("basic", "jané:a:b")).auth
    bearer = good(stored("bearer", " token ")).auth
    for auth, value in ((basic, "Basic " + b64encode("jané:a:b".encode()).decode()), (bearer, "Bearer token")):
        assert Request("POST", "https://example.com/", auth=auth).prepare().headers["Authorization"] == value


def test_expired_secrets_are_not_decrypted() -> None:
    """An undecryptable secret is an error only while it has not expired."""
    gone = Vault(OTHER_KEY).encrypt("gone", OWNER)
    rows = (stored("signing", "new"), stored("signing", gone, -1))
    assert credentials_of(7, rows, (), Vault(KEY).decrypt, NOW).keys == (b"new",)
    with pytest.raises(ValueError, match="WEBHOOK_ENCRYPTION_KEY"):
        credentials_of(7, (stored("signing", "new"), stored("signing", gone)), (), Vault(KEY).decrypt, NOW)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("signing", ""),
        ("signing", f"whsec_{HIDDEN}*"),
        ("signing", f"whsk_{HIDDEN}="),
        ("signing", f"whpk_{HIDDEN}"),
        ("signing", f"{ENCRYPTED}{HIDDEN}"),
        ("basic", HIDDEN),
        ("basic", f"user:{HIDDEN}\n"),
        ("basic", f"{HIDDEN}:\udcff"),
        ("bearer", " "),
        ("bearer", f"{HIDDEN} {HIDDEN}"),
        ("bearer", f"{HIDDEN}\r\nx-evil: 1"),
        ("bearer", f"{HIDDEN}é"),
        ("bearer", f"{ENCRYPTED}{HIDDEN}"),
        ("header", HIDDEN),
        ("header", f"{HIDDEN} {HIDDEN}: a"),
        ("header", f"{HIDDEN}:é"),
        ("header", "x-key:"),
        ("header", f"x-key: {HIDDEN}\r\nx-evil: 1"),
        ("header", f"host: {HIDDEN}"),
        ("header", f"Webhook-Signature: {HIDDEN}"),
        ("oauth2", f'{{"token_url": "https://*.test/{HIDDEN}", "client_id": "a", "client_secret": "{HIDDEN}"}}'),
    ],
)
def test_unusable_secrets_are_refused_without_quoting_them(kind: str, text: str) -> None:
    """Text that is invalid for its kind, would break the request or looks like a token is refused."""
    with pytest.raises(ValueError, match=r".") as caught:
        check_secret(kind, text)
    assert HIDDEN not in f"{caught.value}{caught.value.__context__}"
    assert "\udcff" not in str(caught.value)


@given(st.sampled_from(["signing", "basic", "bearer", "header"]), st.text())
def test_accepted_secrets_can_be_used(kind: str, text: str) -> None:
    """Text that `check_secret` accepts is encrypted, decrypted and used; any other raises ValueError."""
    try:
        check_secret(kind, text)
    except ValueError:
        return
    vault = Vault(KEY)
    found = credentials_of(
        7, [StoredSecret(kind, vault.encrypt(text, Owner(7, kind)), None)], (b"default",), vault.decrypt, NOW
    )
    shown: dict[str, Callable[[], object]] = {
        "signing": lambda: found.keys != (b"default",) or text == "default",
        "basic": lambda: found.auth,
        "bearer": lambda: found.auth,
        "header": lambda: found.headers == (parse_header(text),),
    }
    assert shown[kind]()


def test_representations_show_no_secret() -> None:
    """The repr of rows, credentials, auth objects, keys and vaults contains no secret."""
    rows = (stored("signing", HIDDEN), stored("bearer", HIDDEN), stored("header", f"x-key: {HIDDEN}"))
    found = good(*rows)
    endpoint = Endpoint(
        1, "", (HIDDEN.encode(),), private_keys=(Ed25519Key(SEED),), headers=(("x-key", HIDDEN),), auth=found.auth
    )
    shown = repr([*rows, found, found.auth, endpoint, HTTPBasicAuth(HIDDEN, HIDDEN), Vault(KEY), Ed25519Key(SEED)])
    assert HIDDEN not in shown
    assert KEY not in shown
    assert repr(SEED)[2:20] not in shown
