"""Rows of secrets: rotation with an overlap, credentials, and encrypting all secrets anew."""

from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from requests.auth import HTTPBasicAuth
from sqlalchemy import Engine, delete, insert, select, update

from consumer.crypto.credentials import MOST_HEADERS, BearerAuth
from consumer.crypto.keys import Ed25519Key, parse_signing_key
from consumer.crypto.vault import ENCRYPTED, Owner, Vault
from consumer.errors import InvalidSubscription, SettingsError
from consumer.matching.catalog import find_endpoints
from consumer.subscriptions import repository, secrets
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.secrets import Rotation, entries, rotate, set_credential
from models import SubscriptionSecret
from tests.databases import each_new_engine as new_engine  # noqa: F401 (a fixture)

URL = "https://example.com/hook"
OLD_KEY, KEY, OTHER_KEY = (Fernet.generate_key().decode() for _ in range(3))
VAULT = Vault(KEY)
FIRST = Owner(1, "signing")  # a test's only subscription
NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
PRIVATE = "whsk_" + b64encode(bytes(range(32))).decode()


def add(engine: Engine, secret: str | None = None, at: datetime = NOW - DAY) -> int:
    """A subscription with a secret of its own, as plain SQL writes it, created at that time."""
    subscription = repository.add(engine, URL, "t")
    if secret is not None:
        row = {"subscription_id": subscription, "secret": secret, "created_at": at}
        with engine.begin() as connection:
            connection.execute(insert(SubscriptionSecret), [row])
    return subscription


def turn(
    engine: Engine,
    subscription: int,
    secret: str | None = None,
    overlap: timedelta = DAY,
    now: datetime = NOW,
    default: tuple[str, ...] = (),
) -> Rotation:
    """Rotates the secret of an existing subscription."""
    return rotate(engine, subscription, vault=VAULT, default=default, overlap=overlap, now=now, secret=secret)


def endpoint(engine: Engine, at: datetime, default: bytes = b"default") -> Endpoint:
    """The only endpoint, as workers read it at that time."""
    (found,) = find_endpoints(engine, [("t", None)], (default,), VAULT.decrypt, clock=at.timestamp)["t", None]
    return found


def texts(engine: Engine) -> dict[int, str]:
    """The stored texts by id."""
    with engine.connect() as connection:
        return {
            row.id: row.secret for row in connection.execute(select(SubscriptionSecret.id, SubscriptionSecret.secret))
        }


def test_both_sign_until_the_overlap_ends(engine: Engine) -> None:
    """The new secret signs first and the previous one for the overlap; the new one is stored encrypted."""
    subscription = add(engine, "old")
    done = turn(engine, subscription)
    assert done.previous_until == NOW + DAY
    new = parse_signing_key(done.secret)
    assert isinstance(new, bytes)
    assert len(new) == 32
    assert endpoint(engine, NOW).secrets == (new, b"old")
    assert endpoint(engine, NOW + DAY - timedelta(seconds=1)).secrets == (new, b"old")
    assert endpoint(engine, NOW + DAY).secrets == (new,)
    assert endpoint(engine, NOW + 1000 * DAY).secrets == (new,)
    assert done.secret not in "".join(texts(engine).values())
    assert done.secret not in repr(done)


def test_without_an_overlap_the_new_one_signs_alone(engine: Engine) -> None:
    """The new secret replaces the old one at once, and the deployment's secret is not needed."""
    own, without = add(engine, "old"), add(engine)
    for subscription in (own, without):
        done = turn(engine, subscription, "new", timedelta(0))
        assert done == Rotation("new", None)
    found = find_endpoints(engine, [("t", None)], (b"default",), VAULT.decrypt, clock=NOW.timestamp)["t", None]
    assert [each.secrets for each in found] == [(b"new",), (b"new",)]


def test_an_end_is_never_postponed(engine: Engine) -> None:
    """A second rotation leaves the end of the first secret as it is, unless the new end is earlier."""
    subscription = add(engine, "a")
    turn(engine, subscription, "b")
    second = turn(engine, subscription, "c", 2 * DAY, NOW + DAY / 2)
    assert second.previous_until == NOW + 2.5 * DAY
    assert endpoint(engine, NOW + DAY / 2).secrets == (b"c", b"b", b"a")
    assert endpoint(engine, NOW + DAY).secrets == (b"c", b"b")
    turn(engine, subscription, "d", timedelta(hours=1), NOW + DAY)
    assert endpoint(engine, NOW + DAY + timedelta(hours=1)).secrets == (b"d",)


def test_at_most_five_sign_at_a_time(engine: Engine) -> None:
    """A sixth is refused, and changes nothing, until one of the others ends or an overlap of 0 ends them all."""
    subscription = add(engine, "a")
    for number, secret in enumerate("bcde"):
        turn(engine, subscription, secret, now=NOW + timedelta(hours=number))
    with pytest.raises(InvalidSubscription, match="at most 5 secrets sign at a time: wait until"):
        turn(engine, subscription, "f", now=NOW + timedelta(hours=5))
    assert endpoint(engine, NOW + timedelta(hours=5)).secrets == (b"e", b"d", b"c", b"b", b"a")
    turn(engine, subscription, "f", now=NOW + DAY)  # the first ends
    turn(engine, subscription, "g", timedelta(0), NOW + DAY)
    assert endpoint(engine, NOW + DAY).secrets == (b"g",)
    with pytest.raises(InvalidSubscription, match="at most 5"):
        turn(engine, add(engine), "new", default=tuple("abcde"))


def test_of_more_rows_the_newest_five_sign(engine: Engine) -> None:
    """Plain SQL may store more. The list says which sign, and the hex signature is the oldest one's of these."""
    subscription = add(engine, "0")
    rows = [
        {"subscription_id": subscription, "secret": str(number), "created_at": NOW + timedelta(hours=number)}
        for number in range(1, 8)
    ]
    with engine.begin() as connection:
        connection.execute(insert(SubscriptionSecret), rows)
    assert endpoint(engine, NOW).secrets == (b"7", b"6", b"5", b"4", b"3")
    assert [each.signs for each in entries(engine, subscription, NOW)] == [True] * 5 + [False] * 3


def test_secrets_that_ended_long_ago_are_deleted(engine: Engine) -> None:
    """They are deleted a day after their end; until then a worker whose clock is behind may still sign with them."""
    subscription = add(engine, "a")
    turn(engine, subscription, "b")
    turn(engine, subscription, "c", now=NOW + 1.5 * DAY)
    assert len(texts(engine)) == 3
    turn(engine, subscription, "d", now=NOW + 2 * DAY)
    assert len(texts(engine)) == 3
    assert endpoint(engine, NOW + 2 * DAY).secrets == (b"d", b"c", b"b")


def test_the_deployments_secrets_keep_signing(engine: Engine) -> None:
    """The deployment's secrets become the subscription's own, in order and with that end.

    Later changes of them do not matter.
    """
    subscription = add(engine)
    done = turn(engine, subscription, "new", default=("d2", "d1", PRIVATE))
    assert done.previous_until == NOW + DAY
    found = endpoint(engine, NOW, b"another deployment's")
    assert found.secrets == (b"new", b"d2", b"d1")
    assert found.private_keys == (Ed25519Key(bytes(range(32))),)
    assert endpoint(engine, NOW + DAY).secrets == (b"new",)
    assert all(text.startswith(ENCRYPTED) for text in texts(engine).values())


def test_an_overlap_needs_the_deployments_secret(engine: Engine) -> None:
    """Without it nothing changes, and the error names the setting."""
    subscription = add(engine)
    with pytest.raises(SettingsError, match=f"WEBHOOK_SECRET is not set, and signs for subscription {subscription}"):
        turn(engine, subscription)
    assert texts(engine) == {}
    set_credential(engine, subscription, "bearer", "token", VAULT, NOW)
    with pytest.raises(SettingsError):
        turn(engine, subscription)


def test_a_rotation_uses_the_algorithm_of_the_newest(engine: Engine) -> None:
    """A random secret has the algorithm of the newest one unless another is requested."""
    subscription = add(engine, PRIVATE)
    assert turn(engine, subscription).secret.startswith("whsk_")
    hmac = rotate(engine, subscription, vault=VAULT, default=(), overlap=DAY, now=NOW, algorithm="hmac")
    assert hmac.secret.startswith("whsec_")
    assert turn(engine, subscription).secret.startswith("whsec_")
    other = add(engine)
    assert turn(engine, other, default=(PRIVATE, "old")).secret.startswith("whsk_")


def test_rotating_an_unreadable_secret(engine: Engine) -> None:
    """The algorithm of an unreadable secret is unknown and must be named; a rotation then repairs the subscription."""
    subscription = add(engine, Vault(OTHER_KEY).encrypt("lost", FIRST))
    with pytest.raises(InvalidSubscription, match="WEBHOOK_ENCRYPTION_KEY decrypts its secret: choose the"):
        turn(engine, subscription)
    assert endpoint(engine, NOW).fault is not None
    turn(engine, subscription, "new", timedelta(0))
    assert endpoint(engine, NOW).fault is None


@pytest.mark.parametrize("at", [NOW + DAY / 24, datetime.max.replace(tzinfo=UTC)])
def test_a_secret_from_a_clock_that_is_ahead(engine: Engine, at: datetime) -> None:
    """The new secret is the newest even if the previous one has a later time, or the calendar's last."""
    subscription = add(engine, "old", at=at)
    turn(engine, subscription, "new")
    turn(engine, subscription, "newer")
    assert endpoint(engine, NOW).secrets == (b"newer", b"new", b"old")


def test_secrets_of_other_subscriptions_are_untouched(engine: Engine) -> None:
    """Another subscription's secrets and credentials stay as they are."""
    mine, another = add(engine, "old"), add(engine, "another's")
    set_credential(engine, mine, "bearer", "token", VAULT, NOW)
    set_credential(engine, another, "bearer", "token", VAULT, NOW)
    turn(engine, mine, "new", timedelta(0))
    set_credential(engine, mine, "bearer", "other", VAULT, NOW)
    first, second = find_endpoints(engine, [("t", None)], (), VAULT.decrypt, clock=(NOW + DAY).timestamp)["t", None]
    assert (first.secrets, first.auth) == ((b"new",), BearerAuth("other"))
    assert (second.secrets, second.auth) == ((b"another's",), BearerAuth("token"))


def test_a_credential_replaces_the_previous_one(engine: Engine) -> None:
    """Basic and bearer replace each other, and a header replaces one of its name. Others stay. Removing takes all."""
    subscription = add(engine)
    set_credential(engine, subscription, "basic", "user:password", VAULT, NOW)
    set_credential(engine, subscription, "header", "X-Key: old", VAULT, NOW)
    set_credential(engine, subscription, "header", "x-other: b", VAULT, NOW)
    assert endpoint(engine, NOW).auth == HTTPBasicAuth(b"user", b"password")
    set_credential(engine, subscription, "bearer", "token", VAULT, NOW)
    set_credential(engine, subscription, "header", "x-key: new", VAULT, NOW)
    found = endpoint(engine, NOW)
    assert found.auth == BearerAuth("token")
    assert sorted(found.headers) == [("x-key", "new"), ("x-other", "b")]
    assert found.secrets == (b"default",)
    assert len(texts(engine)) == 3
    assert secrets.remove_credentials(engine, subscription) == 3
    assert secrets.remove_credentials(engine, subscription) == 0
    assert texts(engine) == {}


def test_a_credential_beside_an_unreadable_one(engine: Engine) -> None:
    """A header whose name cannot be decrypted stays and is reported; removing deletes it."""
    subscription = add(engine)
    set_credential(engine, subscription, "header", "x-key: old", Vault(OTHER_KEY), NOW)
    set_credential(engine, subscription, "header", "x-key: new", VAULT, NOW)
    assert endpoint(engine, NOW).fault is not None
    assert secrets.remove_credentials(engine, subscription) == 2
    assert endpoint(engine, NOW).fault is None


def test_the_number_of_headers_is_limited(engine: Engine) -> None:
    """Each answer of a failed request is searched for all of them. More, written by SQL, break the subscription."""
    subscription = add(engine)
    headers = [("header", f"x-{number}: secret") for number in range(MOST_HEADERS + 1)]
    with pytest.raises(InvalidSubscription, match="at most 50 confidential headers"):
        repository.add(engine, URL, "t", secrets=headers)
    now = {"subscription_id": subscription, "created_at": NOW}
    rows = [now | {"kind": kind, "secret": text} for kind, text in headers]
    with engine.begin() as connection:
        connection.execute(insert(SubscriptionSecret), rows[:-1])
    set_credential(engine, subscription, "header", "X-0: another", VAULT, NOW)
    set_credential(engine, subscription, "bearer", "token", VAULT, NOW)
    with pytest.raises(InvalidSubscription, match="at most 50 confidential headers"):
        set_credential(engine, subscription, "header", headers[-1][1], VAULT, NOW)
    found = endpoint(engine, NOW)
    assert (found.fault, len(found.headers)) == (None, MOST_HEADERS)
    with engine.begin() as connection:
        connection.execute(insert(SubscriptionSecret), rows[-1:])
    assert "at most 50 confidential headers" in str(endpoint(engine, NOW).fault)


def store(engine: Engine, stored: list[str]) -> list[int]:
    """Stores rows of secrets of one subscription unchanged, and returns their ids."""
    subscription = add(engine)
    with engine.begin() as connection:
        connection.execute(
            insert(SubscriptionSecret), [{"subscription_id": subscription, "secret": text} for text in stored]
        )
    return sorted(texts(engine))


def test_all_are_encrypted_with_the_newest_key(engine: Engine) -> None:
    """Secrets in the clear or under an older key are encrypted once. Current ones, and those no key decrypts, stay."""
    vault = Vault(f"{KEY} {OLD_KEY}")
    kept = [VAULT.encrypt("current", FIRST), Vault(OTHER_KEY).encrypt("lost", FIRST)]
    ids = store(engine, ["plain", Vault(OLD_KEY).encrypt("older", FIRST), *kept, "x" * 3900])
    with engine.begin() as connection:  # an id set by plain SQL
        connection.execute(update(SubscriptionSecret).where(SubscriptionSecret.id == ids[0]).values(id=-7))
    ids[0] = -7
    (batch,) = secrets.reencrypt(engine, vault)
    assert (batch.looked_at, batch.encrypted) == (5, 2)
    assert [(each.what, each.subscription_id) for each in batch.unopened] == [
        (f"secret {ids[3]}", 1),
        (f"secret {ids[4]}", 1),
    ]
    assert [each.why.partition(" ")[0] for each in batch.unopened] == ["no", "the"]
    after = texts(engine)
    assert [VAULT.decrypt(after[each], FIRST) for each in ids[:3]] == ["plain", "older", "current"]
    assert [after[ids[2]], after[ids[3]]] == kept
    (again,) = secrets.reencrypt(engine, vault)
    assert again.encrypted == 0
    assert texts(engine) == after


def test_secrets_changed_meanwhile_stay(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that is changed or deleted between its read and its write is left as it is."""
    first, second, third = store(engine, ["one", "two", "three"])
    read = secrets.pages

    def before_others(*of: Any) -> Iterator[Any]:
        for page in read(*of):
            with engine.begin() as connection:
                connection.execute(
                    update(SubscriptionSecret).where(SubscriptionSecret.id == second).values(secret="changed")
                )
                connection.execute(delete(SubscriptionSecret).where(SubscriptionSecret.id == third))
            yield page

    monkeypatch.setattr(secrets, "pages", before_others)
    (batch,) = secrets.reencrypt(engine, VAULT)
    assert batch.encrypted == 1
    after = texts(engine)
    assert after.keys() == {first, second}
    assert (VAULT.decrypt(after[first], FIRST), after[second]) == ("one", "changed")


def test_a_survey_of_stored_secrets(engine: Engine) -> None:
    """It lists subscriptions whose valid secrets are in the clear, undecryptable or too short to sign."""
    plain, lost, fine, over = (add(engine, text) for text in ("plain", Vault(OTHER_KEY).encrypt("x", FIRST), "y", "z"))
    turn(engine, fine, "n" * 24, timedelta(0))
    with engine.begin() as connection:
        connection.execute(
            update(SubscriptionSecret).where(SubscriptionSecret.subscription_id == over).values(expires_at=NOW)
        )
    found = secrets.survey(engine, VAULT, NOW, 1000)
    assert found == (3, (plain,), (lost,), (plain,))
    assert secrets.survey(engine, Vault(), NOW, 1000).unopened == (lost, fine)
