"""The look-up of subscriptions and its cache."""

import gc
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, event, insert, update
from structlog.testing import capture_logs

from consumer.crypto.vault import Owner, Vault
from consumer.errors import DatabaseTooSlow, DatabaseUnavailable
from consumer.matching.catalog import GAP, Catalog, EndpointCache, Key, Matches, SubscriptionProblems, find_endpoints
from consumer.subscriptions import event_types, repository
from consumer.subscriptions.endpoint import BrokenFilter, Endpoint
from consumer.subscriptions.patterns import matches
from models import Subscription, SubscriptionSecret
from tests.crypto.vaults import in_the_clear

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


def key(event_type: str) -> Key:
    """The key of an event without a tenant."""
    return event_type, None


def find(
    engine: Engine,
    *types: str,
    vault: Vault | None = None,
    broken: SubscriptionProblems | None = None,
    now: float = 1000.0,
) -> dict[str, tuple[Endpoint, ...]]:
    """The subscriptions of events without a tenant, by type."""
    keys = [key(each) for each in types]
    found = find_endpoints(engine, keys, DEFAULT, (vault or Vault()).decrypt, broken=broken, clock=lambda: now)
    return {event_type: found[event_type, None] for event_type in types}


def test_one_statement_finds_patterns_and_tenants(engine: Engine) -> None:
    """Each key has each of its subscriptions once, by id, whatever patterns and tenants these use.

    Case and prefixes count; disabled ones match no type, and an unwanted type has none.
    """
    exact, wide, every, other, items, acme, both = written = [
        ("order.created", "*"),
        ("order.*", "acme"),
        ("*", "*"),
        ("order.**", "other"),
        ("order.item.*", "*"),
        ("*", "acme"),
        ("order.created", "acme"),
    ]
    whose = {repository.add(engine, URL, each[0], tenant=each[1]): each for each in [*written, ("Order.created", "*")]}
    disabled = repository.add(engine, URL, "order.created")
    repository.set_enabled(engine, disabled, enabled=False)
    sent: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *arguments: sent.append(arguments[2]))
    expected: dict[Key, list[tuple[str, str]]] = {
        ("order.created", None): [exact, every],
        ("order.created", "acme"): [exact, wide, every, acme, both],
        ("order.item.added", "other"): [every, other, items],
        ("user.created", "acme"): [every, acme],
        ("user.created", "*"): [every],
    }
    found = find_endpoints(engine, [*expected], DEFAULT, Vault().decrypt)
    assert len([statement for statement in sent if statement.startswith("SELECT")]) == 1
    assert {key: [whose[each.subscription_id] for each in found[key]] for key in expected} == expected
    for number in whose:
        repository.remove(engine, number)
    assert find(engine, "order.created", "nobody") == {"order.created": (), "nobody": ()}


def test_an_edit_during_a_look_up_hides_no_subscription(engine: Engine) -> None:
    """A look-up of many keys takes several statements. A subscription that matches before and after the edit is found.

    Here it is edited before each statement, from the type itself to `*`, which is a pattern of all keys. Oracle shows
    each statement what was committed before it.
    """
    number = repository.add(engine, URL, "*")
    types = [f"{segment}.{'x.' * 60}y" for segment in range(40)]
    sent: list[str] = []

    def edit(*arguments: Any) -> None:
        if "matched" in arguments[2]:
            sent.append(arguments[2])
            repository.edit(engine, number, {"event_type": types[-1] if len(sent) == 1 else "*"})

    event.listen(engine, "before_cursor_execute", edit)
    found = find_endpoints(engine, [key(each) for each in types], DEFAULT, in_the_clear)
    assert len(sent) > 3
    assert [each.subscription_id for each in found[key(types[-1])]] == [number]


NAMES = st.sampled_from(["a", "b", "a.b", "a.b.c", "a.*", "a.**", "a.b.*", "*", "b.a", "a..b", ".a"])
TENANTS = st.sampled_from(["*", "t", "T", "u", "té", "t t"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=3), TENANTS), max_size=30),
    keys=st.sets(st.tuples(NAMES, TENANTS | st.none())),
)
def test_a_row_matches_exactly_its_keys(
    sqlite_engine: Engine, rows: list[tuple[list[str], str]], keys: set[Key]
) -> None:
    """It matches by any of its patterns and by exact tenant, and no other key. The result is by id, each once."""
    with sqlite_engine.begin() as connection:
        connection.execute(delete(Subscription))
        ids = [
            connection.execute(
                insert(Subscription).values(url=URL, event_type=texts[0], tenant=tenant).returning(Subscription.id)
            ).scalar_one()
            for texts, tenant in rows
        ]
        for number, (texts, whose) in zip(ids, rows, strict=True):
            event_types.write(connection, number, whose, list(dict.fromkeys(texts[1:])))
    found = find_endpoints(sqlite_engine, sorted(keys, key=str) or [key("a")], DEFAULT, in_the_clear)
    for event_type, tenant in keys:
        assert [endpoint.subscription_id for endpoint in found[event_type, tenant]] == [
            number
            for number, (texts, whose) in zip(ids, rows, strict=True)
            if any(matches(text, event_type) for text in texts) and whose in {"*", tenant}
        ]


def test_endpoints_shared_by_several_keys_are_kept_once(engine: Engine) -> None:
    """A pattern's endpoint is one object for all types, later ones too, until it changes. The cache holds it weakly.

    Unchanged rows are not read again.
    """
    repository.add(engine, URL, "*", "own")
    repository.add(engine, URL, "a")
    known, decrypted = EndpointCache(), list[str]()

    def decrypt(stored: str, owner: Owner) -> str:
        decrypted.append(stored)
        return in_the_clear(stored, owner)

    def look(*types: str) -> dict[Key, tuple[Endpoint, ...]]:
        return find_endpoints(engine, [key(each) for each in types], DEFAULT, decrypt, known=known)

    first = look("a", "b", "c")
    assert first[key("a")][0] is first[key("b")][0]
    assert first[key("b")] is first[key("c")]
    assert look("d")[key("d")][0] is first[key("a")][0]
    assert decrypted == ["own"]
    with engine.begin() as connection:
        connection.execute(update(Subscription).values(ordering="key"))
    changed = look("a")[key("a")]
    assert [each.ordered for each in changed] == [True, True]
    assert look("b")[key("b")][0] is changed[0]
    del first, changed
    gc.collect()
    assert len(known) == 0


def test_a_rotation_is_read_again_only_when_a_secret_expires(engine: Engine) -> None:
    """A fleet whose secrets rotate would be parsed at each look-up, once a second, until the last of them had ended."""
    rotating = repository.add(engine, URL, "t")
    add_secret(engine, rotating, "old", created=1, expires=1001)
    add_secret(engine, rotating, "older", created=0, expires=500)
    add_secret(engine, rotating, "new", created=2)
    known, decrypted = EndpointCache(), list[str]()
    kept = []

    def decrypt(stored: str, owner: Owner) -> str:
        decrypted.append(stored)
        return in_the_clear(stored, owner)

    for now in (1000.0, 1000.5, 1000.999, 1001.0, 1002.0, 5000.0):
        found = find_endpoints(engine, [key("t")], DEFAULT, decrypt, known=known, clock=partial(float, now))[key("t")]
        kept.append(found[0])
    assert [each.secrets for each in kept] == [(b"new", b"old")] * 3 + [(b"new",)] * 3
    assert decrypted == ["new", "old", "new"]


def test_a_cached_endpoint_equals_one_that_is_read(engine: Engine) -> None:
    """A changed row, a new secret, an expired secret and a fault are all seen. Faults stay reported."""
    plain, rotating = repository.add(engine, URL, "t"), repository.add(engine, URL, "t")
    add_secret(engine, rotating, "old", created=1, expires=1001)
    add_secret(engine, rotating, "new", created=2)
    known, broken = EndpointCache(), SubscriptionProblems()
    kept = []

    def look(now: float) -> list[Endpoint]:
        arguments: tuple[Any, ...] = engine, [key("t")], DEFAULT, in_the_clear
        found = find_endpoints(*arguments, known=known, broken=broken, clock=lambda: now)[key("t")]
        assert found == find_endpoints(*arguments, clock=lambda: now)[key("t")]
        kept.append(found)
        return list(found)

    assert look(1000.0)[1].secrets == (b"new", b"old")
    assert look(1001.0)[1].secrets == (b"new",)
    add_secret(engine, plain, "own", created=3)
    assert look(1001.0)[0].secrets == (b"own",)
    with engine.begin() as connection:
        connection.execute(update(Subscription).values(final_statuses="never"))
    for _ in range(2):
        look(1002.0)
        assert len(broken) == 2
    with engine.begin() as connection:
        connection.execute(update(Subscription).values(final_statuses="4xx"))
    assert 422 in look(1003.0)[0].final_statuses
    assert len(broken) == 0


@pytest.mark.parametrize(
    ("column", "value", "matches"),
    [
        ("event_filter", "data.a >", True),
        ("event_filter", "'text'", True),
        ("topics", "^a", False),
        ("topics", "a b", False),
    ],
)
def test_an_unreadable_filter_matches_and_unreadable_topics_do_not(
    engine: Engine, column: str, value: str, *, matches: bool
) -> None:
    """An unreadable filter costs no event: its events are stored and filtered later. Others get their events."""
    good, bad = repository.add(engine, URL, "t"), repository.add(engine, URL, "*")
    with engine.begin() as connection:
        connection.execute(update(Subscription).where(Subscription.id == bad).values({column: value}))
    broken = SubscriptionProblems()
    with capture_logs() as logs:
        for event_type in ("t", "u"):
            found = find(engine, event_type, broken=broken)[event_type]
            expected = [good] if event_type == "t" else []
            assert [each.subscription_id for each in found] == expected + [bad] * matches
            for each in found[len(expected) :]:
                assert each.selection is not None
                assert isinstance(each.selection.filter, BrokenFilter)
                assert each.fault is not None
    ((logged, reason),) = [(entry["subscription"], entry["reason"]) for entry in logs]
    effect = "its events are stored, not sent" if matches else "it matches no event"
    assert (logged, reason.startswith(f"{column}: "), reason.endswith(effect)) == (bad, True, True)
    assert len(broken) == 1


def test_an_invalid_event_type_matches_nothing(engine: Engine) -> None:
    """Plain SQL may write any text. It is not used as a pattern, and an event type with this text does not match."""
    with engine.begin() as connection:
        connection.execute(insert(Subscription), [{"url": URL, "event_type": each} for each in ("a.*.b", "a*", "**")])
    assert find(engine, "a.x.b", "a.*.b", "a*", "ab", "**") == dict.fromkeys(["a.x.b", "a.*.b", "a*", "ab", "**"], ())


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
    """It is never signed with another secret. Others of its type are found. It is logged once, not each second."""
    good, bad = repository.add(engine, URL, "t"), repository.add(engine, URL, "t")
    add_secret(engine, bad, secret, expires=expires)
    broken, vault = SubscriptionProblems(), Vault(Fernet.generate_key().decode())
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
    repository.remove(engine, bad)
    find(engine, "t", vault=vault, broken=broken)
    assert len(broken) == 0


class Database:
    """A look-up that answers when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.asked: list[tuple[Key, ...]] = []
        self.content: dict[str, tuple[Endpoint, ...]] = {}
        self._pending: list[tuple[dict[Key, tuple[Endpoint, ...]], Callable[[Matches | Exception], None]]] = []

    def ask(self, keys: tuple[Key, ...], done: Callable[[Matches | Exception], None]) -> None:
        self.asked.append(keys)
        self._pending.append(({each: self.content.get(each[0], ()) for each in keys}, done))

    def answer(self, error: Exception | None = None) -> None:
        found, done = self._pending.pop(0)
        done(error or found)

    def catalog(self, ttl: float = 1.0) -> Catalog:
        return Catalog(self.ask, ttl, lambda: self.now)

    @property
    def pending(self) -> int:
        return len(self._pending)


@pytest.fixture
def database() -> Database:
    return Database()


def endpoints(*ids: int) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(number, URL, DEFAULT) for number in ids)


@pytest.mark.parametrize("error", [None, DatabaseUnavailable("gone")])
def test_types_wanted_during_a_look_up_are_requested_together(database: Database, error: Exception | None) -> None:
    """One statement is under way at a time. The next one has all types wanted meanwhile, also after an outage."""
    catalog = database.catalog()
    catalog.want([key("a")])
    catalog.want([key("b")])
    catalog.want([key("c"), key("b")])
    database.now += 2 * GAP
    assert database.asked == [(key("a"),)]
    database.answer(error)
    database.now += 1
    catalog.want([])
    assert len(database.asked) == 2
    assert set(database.asked[1]) == {key("b"), key("c"), *([key("a")] if error else [])}


@pytest.mark.parametrize("ttl", [0.0, 1.0])
def test_waiting_records_are_answered_however_long_it_takes(database: Database, ttl: float) -> None:
    """A slow database (10 s) answers the records that came before the request, even without a cache."""
    catalog = database.catalog(ttl)
    catalog.want([key("t")])
    database.now += 10
    database.answer()
    assert catalog.match(key("t"), arrived=100.0) == ()
    assert catalog.match(key("t"), arrived=100.001 + ttl) is None


def test_a_steady_flow_never_waits(database: Database) -> None:
    """An unknown type is requested once. Half-way to its end the answer is requested again, while it is still used."""
    database.content["t"] = endpoints(1)
    catalog = database.catalog()
    assert catalog.match(key("t")) is None
    catalog.want([key("t")])
    catalog.want([key("t")])
    database.answer()
    for _ in range(100):
        assert catalog.match(key("t")) == endpoints(1)
        if database.pending:
            database.answer()
        database.now += 0.1
    assert database.asked[0] == (key("t"),)
    assert 15 <= len(database.asked) <= 21


def test_an_unchanged_answer_has_the_same_objects(database: Database) -> None:
    """The request prepared for an endpoint is found by identity after a refresh without changes."""
    catalog, found = database.catalog(), []
    for ids in ((1, 2), (1, 2), (2,)):
        database.content["t"] = endpoints(*ids)
        catalog.want([key("t")])
        database.answer()
        found.append(catalog.match(key("t")))
        database.now += 0.6
    assert found[0] is found[1]
    assert found[2] == endpoints(2)


def test_a_failure_is_reported_and_retried_with_back_off(database: Database) -> None:
    """The fault is for /readyz. No statement is sent during the back-off. A success ends both."""
    catalog = database.catalog()
    catalog.want([key("t")])
    database.answer(DatabaseUnavailable("ORA-03113: gone"))
    assert (catalog.fault, catalog.backoff > 0) == ("database: ORA-03113: gone", True)
    catalog.want([key("t")])
    assert not database.pending
    database.now += catalog.backoff * 1.01
    catalog.want([key("t")])
    database.answer()
    assert (catalog.fault, catalog.match(key("t"), arrived=database.now)) == (None, ())


def test_a_look_up_that_is_too_slow_is_halved(database: Database) -> None:
    """The same statement would be too slow again. Each failure halves the keys, and each success doubles them."""
    catalog = database.catalog()
    catalog.want([key(f"t{number}") for number in range(512)])
    for _ in range(3):
        database.answer(DatabaseTooSlow("DPY-4024: call timeout"))
        database.now += catalog.backoff * 1.01
        catalog.want([])
    while database.pending:
        database.answer()
        database.now += 2 * GAP
        catalog.want([])
    assert [len(each) for each in database.asked] == [512, 256, 128, 64, 128, 256, 64]
    assert catalog.fault is None
    assert all(catalog.match(key(f"t{number}"), arrived=100.0) == () for number in range(512))


def test_memory_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted in endpoints, not types. The least recently requested type leaves. A large new one is kept."""
    monkeypatch.setattr("consumer.matching.catalog.MOST_KEPT", 12)
    catalog = database.catalog(1000.0)

    def look(name: str, number: int = 3, seconds: float = 1) -> list[str]:
        database.now += seconds
        database.content[name] = endpoints(*range(number))
        catalog.want([key(name)])
        database.answer()
        return [each for each, _ in catalog._entries]

    for number in range(10):
        kept = look(str(number))
    assert kept == ["7", "8", "9"]
    look("7", seconds=600)
    assert look("large", 20) == ["large"]
    assert catalog.match(key("large")) == database.content["large"]
    assert (look("0"), catalog._kept) == (["0"], 4)


@given(
    st.floats(0, 5),
    st.lists(st.tuples(st.sampled_from(["wait", "change", "arrive", "answer", "fail"]), st.floats(0, 3)), max_size=40),
)
def test_earlier_commits_are_seen(ttl: float, steps: Sequence[tuple[str, float]]) -> None:
    """However changes, records and slow answers interleave, a record sees all commits up to `ttl` before it came."""
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
            found = catalog.match(key("t"), arrived)
            if found is None:
                catalog.want([key("t")])
                continue
            waiting.remove(arrived)
            newest = max(index for index, (at, _) in enumerate(history) if at < arrived - ttl or index == 0)
            assert found in [content for _, content in history[newest:]]
    assert not waiting
