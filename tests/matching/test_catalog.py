"""The look-up of subscriptions, and the cache in front of it."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, event, insert, update
from structlog.testing import capture_logs

from consumer.endpoint import Endpoint
from consumer.errors import DatabaseUnavailable
from consumer.matching import subscriptions
from consumer.matching.catalog import GAP, Answer, Broken, Catalog, find_endpoints
from consumer.vault import Vault
from models import Subscription, SubscriptionSecret

URL = "https://example.com/hook"
DEFAULT = (b"default",)


def add_secret(
    engine: Engine, subscription: int, secret: str, created: float = 0, expires: float | None = None
) -> None:
    with engine.begin() as connection:
        connection.execute(
            insert(SubscriptionSecret).values(
                subscription_id=subscription,
                secret=secret,
                created_at=datetime.fromtimestamp(created, UTC),
                expires_at=None if expires is None else datetime.fromtimestamp(expires, UTC),
            )
        )


def find(
    engine: Engine, *types: str, vault: Vault | None = None, broken: Broken | None = None, now: float = 1000.0
) -> Answer:
    return find_endpoints(engine, types, DEFAULT, (vault or Vault()).decrypt, broken=broken, clock=lambda: now)


def test_plain_sql_makes_a_subscription_that_is_found(engine: Engine) -> None:
    """A url and an event type alone are enough; it is signed with the default secrets."""
    with engine.begin() as connection:
        connection.exec_driver_sql(f"INSERT INTO webhook_subscriptions (url, event_type) VALUES ('{URL}', 't')")  # noqa: S608 (a constant)
    assert find(engine, "t") == {"t": (Endpoint(1, URL, DEFAULT),)}


def test_every_type_asked_for_is_answered_exactly(engine: Engine) -> None:
    """By id within a type; a type nobody wants has none; case and prefixes count; disabled ones match nothing."""
    ids = [subscriptions.add(engine, URL, event_type) for event_type in ("a", "b", "a", "A", "ab")]
    disabled = subscriptions.add(engine, URL, "a")
    with engine.begin() as connection:
        connection.execute(update(Subscription).where(Subscription.id == disabled).values(enabled=0))
    found = find(engine, "a", "b", "nobody")
    assert {key: [endpoint.subscription_id for endpoint in value] for key, value in found.items()} == {
        "a": [ids[0], ids[2]],
        "b": [ids[1]],
        "nobody": [],
    }


def test_a_thousand_types_are_one_statement(engine: Engine) -> None:
    """A batch of records costs one round trip, however many types are in it."""
    wanted = subscriptions.add(engine, URL, "type.999")
    sent: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *arguments: sent.append(arguments[2]))
    found = find(engine, *(f"type.{number}" for number in range(1000)))
    assert len(found) == 1000
    assert [endpoint.subscription_id for endpoint in found["type.999"]] == [wanted]
    assert len([statement for statement in sent if statement.startswith("SELECT")]) == 1


def test_own_secrets_sign_newest_first_until_they_expire(engine: Engine) -> None:
    """During a rotation both sign, the newest first; the default does not."""
    subscription = subscriptions.add(engine, URL, "t")
    add_secret(engine, subscription, "old", created=1, expires=1001)
    add_secret(engine, subscription, "new", created=2)
    assert find(engine, "t", now=1000.0)["t"][0].secrets == (b"new", b"old")
    assert find(engine, "t", now=1001.0)["t"][0].secrets == (b"new",)


@pytest.mark.parametrize(
    ("secret", "expires", "reason"),
    [
        ("fernet:AAAA", None, "no key in WEBHOOK_ENCRYPTION_KEY decrypts its secret"),
        ("whsec_%%%", None, "not base64"),
        ("spent", 999.0, "all of its secrets have expired"),
    ],
)
def test_a_broken_secret_leaves_its_subscription_unsigned(
    engine: Engine, secret: str, expires: float | None, reason: str
) -> None:
    """It is never signed with another secret, others of its type are found, and it is logged once, not each second."""
    good, bad = subscriptions.add(engine, URL, "t"), subscriptions.add(engine, URL, "t")
    add_secret(engine, bad, secret, expires=expires)
    broken, vault = Broken(), Vault(Fernet.generate_key().decode())
    with capture_logs() as logs:
        for _ in range(3):
            found = find(engine, "t", vault=vault, broken=broken)["t"]
            assert [(endpoint.subscription_id, endpoint.secrets) for endpoint in found] == [
                (good, (b"default",)),
                (bad, ()),
            ]
        find(engine, "other", vault=vault, broken=broken)
    assert [(entry["subscription"], reason in entry["reason"]) for entry in logs] == [(bad, True)]
    assert secret not in str(logs)
    assert len(broken) == 1
    subscriptions.remove(engine, bad)
    find(engine, "t", vault=vault, broken=broken)
    assert len(broken) == 0


def test_an_encrypted_secret_without_a_key(engine: Engine) -> None:
    """The reason names the setting."""
    subscription = subscriptions.add(engine, URL, "t", "own", vault=Vault(Fernet.generate_key().decode()))
    with capture_logs() as logs:
        assert [endpoint.secrets for endpoint in find(engine, "t", broken=Broken())["t"]] == [()]
    assert (logs[0]["subscription"], "WEBHOOK_ENCRYPTION_KEY is not set" in logs[0]["reason"]) == (subscription, True)


def test_settings_that_cannot_be_read_are_as_if_not_there(engine: Engine) -> None:
    """Plain SQL may write anything: the deployment's are used, the rest is heeded, and it is logged once."""
    added = subscriptions.add(engine, URL, "t", ordering="key", max_in_flight=2, retry_schedule="1s")
    broken = Broken()
    with engine.begin() as connection:
        connection.execute(update(Subscription).values(retry_schedule="soon", final_statuses="4xx,bad"))
    with capture_logs() as logs:
        for _ in range(2):
            assert find(engine, "t", broken=broken)["t"] == (
                Endpoint(added, URL, DEFAULT, ordered=True, max_in_flight=2),
            )
    (entry,) = logs
    assert entry["event"] == "a subscription's settings cannot be read; the deployment's are used"
    assert entry["subscription"] == added
    assert "retry_schedule: expected a duration" in entry["reason"]
    assert "final_statuses: 'bad' is no status" in entry["reason"]


def test_two_faults_are_told_apart(engine: Engine) -> None:
    """A secret that cannot be used and a schedule that cannot be read are two reports, each with its consequence."""
    subscription = subscriptions.add(engine, URL, "t", retry_schedule="1s")
    add_secret(engine, subscription, "spent", expires=1.0)
    with engine.begin() as connection:
        connection.execute(update(Subscription).values(retry_schedule="soon"))
    with capture_logs() as logs:
        find(engine, "t", broken=Broken())
    assert [entry["event"].split(";")[0] for entry in logs] == [
        "nothing can be signed for a subscription",
        "a subscription's settings cannot be read",
    ]


def test_since_when_it_fails_is_known(engine: Engine) -> None:
    """As unix seconds."""
    subscriptions.add(engine, URL, "t")
    with engine.begin() as connection:
        connection.execute(update(Subscription).values(failing_since=datetime.fromtimestamp(123.25, UTC)))
    assert [endpoint.failing_since for endpoint in find(engine, "t")["t"]] == [123.25]


def test_keys_can_be_rotated(engine: Engine) -> None:
    """A secret stored under the old encryption key is read while both keys are given."""
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    subscriptions.add(engine, URL, "t", "own", vault=Vault(old))
    assert find(engine, "t", vault=Vault(f"{new} {old}"))["t"][0].secrets == (b"own",)


def test_many_subscriptions_are_found_quickly(sqlite_engine: Engine) -> None:
    """100,000 subscriptions over 1,000 types: a look-up of ten types uses the index (2 ms; a scan takes 40).

    On SQLite alone: an emulator's speed says nothing.
    """
    engine = sqlite_engine
    with engine.begin() as connection:
        connection.execute(
            insert(Subscription), [{"url": URL, "event_type": f"type.{number % 1000}"} for number in range(100_000)]
        )
    types = [f"type.{number}" for number in range(10)]
    find(engine, *types)
    best = min(_timed(lambda: find(engine, *types)) for _ in range(5))
    assert best < 0.1, best


def _timed(job: Callable[[], object]) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


class Database:
    """A look-up that answers when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.asked: list[tuple[str, ...]] = []
        self.content: dict[str, tuple[Endpoint, ...]] = {}
        self._pending: list[tuple[dict[str, tuple[Endpoint, ...]], Callable[[Answer | Exception], None]]] = []

    def ask(self, types: tuple[str, ...], done: Callable[[Answer | Exception], None]) -> None:
        self.asked.append(types)
        self._pending.append(({event_type: self.content.get(event_type, ()) for event_type in types}, done))

    def answer(self, error: Exception | None = None) -> None:
        found, done = self._pending.pop(0)
        done(error or found)

    def catalog(self, ttl: float) -> Catalog:
        return Catalog(self.ask, ttl, lambda: self.now)

    @property
    def pending(self) -> int:
        return len(self._pending)


@pytest.fixture
def database() -> Database:
    return Database()


def endpoints(*ids: int) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(number, URL, DEFAULT) for number in ids)


def test_a_type_is_looked_up_once_and_kept(database: Database) -> None:
    """Unknown at first; wanted twice, asked once; answered from memory while it is young."""
    database.content["t"] = endpoints(1)
    catalog = database.catalog(1.0)
    assert catalog.match("t") is None
    catalog.want(["t"])
    catalog.want(["t"])
    database.answer()
    assert catalog.match("t") == endpoints(1)
    database.now += 0.4
    assert catalog.match("t") == endpoints(1)
    assert database.asked[0] == ("t",)


def test_types_wanted_meanwhile_are_asked_together(database: Database) -> None:
    """One statement is under way at a time; the next one, a moment after its begin, takes all that gathered."""
    catalog = database.catalog(1.0)
    catalog.want(["a"])
    catalog.want(["b"])
    catalog.want(["c", "b"])
    database.now += 2 * GAP
    assert database.asked == [("a",)]
    database.answer()
    assert database.asked == [("a",), ("b", "c")]


def test_an_answer_outlives_its_time_by_nothing(database: Database) -> None:
    """A record that arrived later than `ttl` after the question is not answered from it."""
    catalog = database.catalog(1.0)
    catalog.want(["t"])
    database.answer()
    assert catalog.match("t", arrived=101.0) == ()
    assert catalog.match("t", arrived=101.001) is None


@pytest.mark.parametrize("ttl", [0.0, 1.0])
def test_those_who_waited_are_answered_however_long_it_took(database: Database, ttl: float) -> None:
    """A slow database (10 s) answers the records that came before the question, also without a cache."""
    catalog = database.catalog(ttl)
    catalog.want(["t"])
    database.now += 10
    database.answer()
    assert catalog.match("t", arrived=100.0) == ()
    assert catalog.match("t", arrived=100.001 + ttl) is None


def test_a_steady_flow_never_waits(database: Database) -> None:
    """Past half of its time an answer is asked for again while the old one serves."""
    catalog = database.catalog(1.0)
    catalog.want(["t"])
    database.answer()
    for _ in range(100):
        database.now += 0.1
        assert catalog.match("t") is not None
        if database.pending:
            database.answer()
    assert 15 <= len(database.asked) <= 21


def test_the_same_answer_is_the_same_objects(database: Database) -> None:
    """What was prepared for an endpoint is found by identity after a refresh that changed nothing."""
    catalog = database.catalog(1.0)
    database.content["t"] = endpoints(1, 2)
    catalog.want(["t"])
    database.answer()
    first = catalog.match("t")
    database.content["t"] = endpoints(1, 2)
    database.now += 0.6
    catalog.want(["t"])
    database.answer()
    assert catalog.match("t") is first
    database.content["t"] = endpoints(2)
    database.now += 0.6
    catalog.want(["t"])
    database.answer()
    assert catalog.match("t") == endpoints(2)


def test_a_failure_is_named_and_asked_again_with_back_off(database: Database) -> None:
    """The fault is for /readyz and logged once; nobody is asked before the back-off is over; a success ends both."""
    catalog = database.catalog(1.0)
    waits = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    with capture_logs() as logs:
        for wait in waits:
            catalog.want(["t"])
            database.answer(DatabaseUnavailable("ORA-03113: gone"))
            assert catalog.fault == "database: ORA-03113: gone"
            asked = len(database.asked)
            database.now += wait * 0.99
            catalog.want(["t"])
            assert len(database.asked) == asked
            database.now += wait * 0.011
        assert len(logs) == 1
        catalog.want(["t"])
        database.answer()
    assert catalog.fault is None
    assert catalog.match("t", arrived=database.now) == ()


def test_after_a_failure_one_statement_asks_for_all(database: Database) -> None:
    """A thousand types that waited out an outage are not a thousand statements one after the other."""
    catalog = database.catalog(1.0)
    catalog.want(["a"])
    catalog.want(["b"])
    database.answer(DatabaseUnavailable("gone"))
    database.now += 1
    catalog.want(["c"])
    assert len(database.asked) == 2
    assert set(database.asked[1]) == {"a", "b", "c"}


def test_memory_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """In endpoints, not in types: what was asked for longest ago leaves; what was just asked for is there, if large."""
    monkeypatch.setattr("consumer.matching.catalog.MOST_KEPT", 12)
    catalog = database.catalog(1000.0)
    for number in range(10):
        database.now += 1
        database.content[str(number)] = endpoints(1, 2, 3)
        catalog.want([str(number)])
        database.answer()
    assert list(catalog._entries) == ["7", "8", "9"]
    database.now += 600
    catalog.want(["7"])
    database.answer()
    database.now += 1
    database.content["large"] = endpoints(*range(20))
    catalog.want(["large"])
    database.answer()
    assert catalog.match("large") == database.content["large"]
    assert list(catalog._entries) == ["large"]
    database.now += 1
    catalog.want(["0"])
    database.answer()
    assert (list(catalog._entries), catalog._kept) == (["0"], 4)


@given(
    st.floats(0, 5),
    st.lists(st.tuples(st.sampled_from(["wait", "change", "arrive", "answer", "fail"]), st.floats(0, 3)), max_size=40),
)
def test_what_was_committed_before_counts(ttl: float, steps: Sequence[tuple[str, float]]) -> None:
    """However changes, records and slow answers interleave: a record sees what was committed `ttl` before it came."""
    database = Database()
    catalog = database.catalog(ttl)
    history: list[tuple[float, tuple[Endpoint, ...]]] = [(0.0, ())]
    waiting: list[float] = []
    for step, amount in [*steps, *[("wait", 6.0), ("settle", 0.0), ("answer", 0.0)] * 3]:
        if step == "wait":
            database.now += amount
        elif step == "change":
            history.append((database.now, endpoints(len(history))))
            database.content["t"] = history[-1][1]
        elif step == "arrive":
            waiting.append(database.now)
        elif step in ("answer", "fail") and database.pending:
            database.answer(DatabaseUnavailable("gone") if step == "fail" else None)
        for arrived in list(waiting):
            found = catalog.match("t", arrived)
            if found is None:
                catalog.want(["t"])
                continue
            waiting.remove(arrived)
            newest = max(index for index, (at, _) in enumerate(history) if at < arrived - ttl or index == 0)
            assert found in [content for _, content in history[newest:]]
    assert not waiting
