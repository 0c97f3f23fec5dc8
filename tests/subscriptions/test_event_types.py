"""Several event types of a subscription, and its name, external id and metadata."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import IntegrityError

from consumer.errors import Conflict, InvalidSubscription
from consumer.matching.catalog import SubscriptionProblems, find_endpoints
from consumer.subscriptions import health, repository
from consumer.subscriptions.options import Effect
from consumer.subscriptions.subscribed import Subscribed
from models import SubscriptionType
from tests.crypto.vaults import in_the_clear
from tests.databases import each_new_engine as new_engine  # noqa: F401 (a fixture: what speaks SQL)
from tests.ledger.rows_kit import run, statements

URL = "https://example.com/hooks"
ADDED = "INSERT INTO webhook_event_types (subscription_id, event_type) VALUES (:id, :type)"


def types_of(engine: Engine, subscription_id: int) -> tuple[str, ...]:
    return get(engine, subscription_id).event_types


def stored(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(SubscriptionType)).scalar_one()


def get(engine: Engine, subscription_id: int) -> Subscribed:
    found = repository.get(engine, subscription_id)
    assert found is not None
    return found


def getting(engine: Engine, event_type: str, tenant: str | None = None) -> list[int]:
    """The subscriptions that get an event."""
    key = event_type, tenant
    return [each.subscription_id for each in find_endpoints(engine, [key], (b"k",), in_the_clear)[key]]


def test_an_event_of_any_type_reaches_the_subscription_once(engine: Engine) -> None:
    """The first type is the column, and the others are sorted; a type that is named twice is kept once."""
    several = repository.add(engine, URL, "b", "its-own-secret", further_types=["c.**", "a", "b", "c.*", "c.d"])
    one = repository.add(engine, URL, "c.d")
    assert types_of(engine, several) == ("b", "a", "c.*", "c.**", "c.d")
    assert types_of(engine, one) == ("c.d",)
    assert [getting(engine, each) for each in ("a", "b", "c.d", "c.d.e", "x")] == [
        [several],
        [several],
        [several, one],
        [several],
        [],
    ]


def test_further_types_follow_a_subscriptions_tenant(engine: Engine) -> None:
    """They match events of the present tenant, and a disabled subscription matches none."""
    number = repository.add(engine, URL, "a", further_types=["b"], tenant="acme")
    assert (getting(engine, "b", "acme"), getting(engine, "b"), getting(engine, "b", "other")) == ([number], [], [])
    assert repository.edit(engine, number, {"tenant": "other"})
    assert (getting(engine, "b", "acme"), getting(engine, "b", "other")) == ([], [number])
    assert repository.edit(engine, number, {"tenant": None})
    assert getting(engine, "b") == [number]
    repository.set_enabled(engine, number, enabled=False)
    assert getting(engine, "b") == []


def test_plain_sql_cannot_part_a_type_from_its_tenant(engine: Engine) -> None:
    """The database refuses another tenant in either row, so that no type is silently left out."""
    number = repository.add(engine, URL, "a", further_types=["b"], tenant="acme")
    for change in ("UPDATE webhook_subscriptions SET tenant = 'x'", "UPDATE webhook_event_types SET tenant = 'x'"):
        with pytest.raises(IntegrityError):
            run(engine, change)
    with pytest.raises(IntegrityError):
        run(engine, ADDED, id=number, type="c")
    assert getting(engine, "b", "acme") == [number]


def test_an_edit_replaces_all_types_or_the_first_one(engine: Engine) -> None:
    """`event_types` has all, and `event_type` the first; other changes leave them as they are."""
    number = repository.add(engine, URL, "a", further_types=["b", "c"])
    for changes, expected in (
        ({"rate_limit": 5}, ("a", "b", "c")),
        ({"event_type": "x"}, ("x", "b", "c")),
        ({"event_type": "c"}, ("c", "b")),
        ({"event_types": ["d", "a", "d"]}, ("d", "a")),
        ({"event_types": ["a"], "tenant": "acme"}, ("a",)),
    ):
        assert repository.edit(engine, number, changes)
        assert types_of(engine, number) == expected
    assert stored(engine) == 0


@pytest.mark.parametrize(
    ("further", "why"),
    [
        (["b", "c,d"], "event_types: 'c,d' holds a comma"),
        ([""], "event_types: '' is empty"),
        ([f"t{number}" for number in range(20)], "event_types: has 21 types; 1 to 20 are kept"),
    ],
)
def test_types_that_cannot_work_are_refused(engine: Engine, further: list[str], why: str) -> None:
    """Adding and editing name the one at fault, and change nothing."""
    number = repository.add(engine, URL, "a", further_types=["b"])
    with pytest.raises(InvalidSubscription, match=why):
        repository.add(engine, URL, "a", further_types=further)
    with pytest.raises(InvalidSubscription, match=why):
        repository.edit(engine, number, {"event_types": ["a", *further]})
    with pytest.raises(InvalidSubscription, match="has 0 types"):
        repository.edit(engine, number, {"event_types": []})
    assert [each.event_types for each in repository.walk(engine)] == [("a", "b")]


def test_a_wrong_type_by_plain_sql_stays_alone(engine: Engine) -> None:
    """Events of the other types go on; the subscription is shown as broken, and the look-up reports it once."""
    number = repository.add(engine, URL, "a", "its-own-secret", further_types=["b"])
    run(engine, "INSERT INTO webhook_subscriptions (url, event_type) VALUES ('https://example.com', 'a,b')")
    for wrong in ("a,b", "x.*.y", "a"):  # the last one names what the row names already
        run(engine, ADDED, id=number, type=wrong)
    assert (getting(engine, "a"), getting(engine, "b"), getting(engine, "a,b")) == ([number], [number], [])
    (endpoint,) = find_endpoints(engine, [("a", None)], (b"k",), in_the_clear)["a", None]
    assert len(endpoint.secrets) == 1
    item = get(engine, number)
    assert item.broken
    assert [(each.option, each.effect) for each in item.problems] == [("event_types", Effect.UNNAMED)] * 2
    assert item.event_types == ("a", "a,b", "b", "x.*.y")
    broken = SubscriptionProblems()
    find_endpoints(engine, [("a", None), ("a,b", None)], (b"k",), in_the_clear, broken=broken)
    assert len(broken) == 2  # this one by a further type, and the other by its first


def test_a_removal_removes_the_types(engine: Engine) -> None:
    """No row stays behind."""
    number = repository.add(engine, URL, "a", further_types=["b"])
    assert repository.remove(engine, number)
    assert stored(engine) == 0


def test_a_search_finds_any_type(engine: Engine) -> None:
    """Lists, the types that subscriptions name, and a look for the same subscription consider all types."""
    first, second = repository.add(engine, URL, "a", further_types=["b"]), repository.add(engine, URL, "b")
    assert [each.id for each in repository.walk(engine, event_type="b")] == [first, second]
    assert health.named_types(engine, 10) == [("a", 1), ("b", 2)]
    assert health.named_types(engine, 1) == [("a", 1)]
    assert health.named_types(engine, 10, "a") == [("b", 2)]
    assert repository.find(engine, URL, ["b"]) == second
    assert repository.find(engine, URL, ["a", "b"]) == first
    assert repository.find(engine, URL, ["a"]) is None


def test_only_subscriptions_with_further_types_cost_a_statement(engine: Engine) -> None:
    """A page of others is read with as many statements as before."""

    def page() -> int:
        sent = statements(engine, lambda: repository.page(engine, after=None, limit=10))
        return len([sql for sql in sent if "SELECT" in sql])

    repository.add(engine, URL, "a")
    assert page() == 2
    repository.add(engine, URL, "a", further_types=["b"])
    assert page() == 3


def test_name_external_id_and_metadata_are_stored_and_found(engine: Engine) -> None:
    """A part of the name finds it in any case, and the external id as it is written."""
    given: dict[str, Any] = {"name": "To the Warehouse", "external_id": "crm-4711", "metadata": '{"team": "shop"}'}
    number = repository.add(engine, URL, "a", **given)
    repository.add(engine, URL, "a")
    assert given.items() <= get(engine, number).options.items()
    assert [each.id for each in repository.page(engine, after=None, limit=9, name="warehouse")] == [number]
    assert [each.id for each in repository.page(engine, after=None, limit=9, external_id="crm-4711")] == [number]
    assert repository.page(engine, after=None, limit=9, external_id="CRM-4711") == ()
    assert repository.edit(engine, number, dict.fromkeys(given))
    assert get(engine, number).options["metadata"] is None


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("name", " x", "spaces at either end"),
        ("external_id", "x" * 256, "has 256 characters; at most 255"),
        ("metadata", "[]", "is not a JSON object of texts"),
        ("metadata", '{"a": 1}', "is not a JSON object of texts"),
        ("metadata", json.dumps(dict.fromkeys(map(str, range(33)), "")), "has 33 members; at most 32"),
    ],
)
def test_descriptions_that_cannot_be_are_refused(engine: Engine, option: str, value: str, why: str) -> None:
    """Nothing is added; a value that plain SQL has stored is a warning, and the subscription gets its events."""
    given: dict[str, Any] = {option: value}
    with pytest.raises(InvalidSubscription, match=why):
        repository.add(engine, URL, "a", **given)
    if len(value) < 250:
        number = repository.add(engine, URL, "a")
        run(engine, f"UPDATE webhook_subscriptions SET {option} = :value", value=value)  # noqa: S608 (from above)
        item = get(engine, number)
        assert [(each.option, each.effect) for each in item.problems] == [(option, Effect.SENT)]
        assert not item.broken
        assert getting(engine, "a") == [number]


def test_an_external_id_is_unique_for_a_tenant(engine: Engine) -> None:
    """Another subscription of the tenant cannot have it, be it added, edited or moved; those without one are many."""
    for tenant in ("*", "acme"):
        repository.add(engine, URL, "a", tenant=tenant, external_id="x")
        other = repository.add(engine, URL, "a", tenant=tenant)
        repository.add(engine, URL, "a", tenant=tenant)
        with pytest.raises(Conflict, match="another subscription of this tenant has the external_id 'x'"):
            repository.add(engine, URL, "a", tenant=tenant, external_id="x")
        with pytest.raises(Conflict, match="give this one another"):
            repository.edit(engine, other, {"external_id": "x"})
    moved = repository.add(engine, URL, "a", tenant="third", external_id="x", further_types=["b"])
    with pytest.raises(Conflict):
        repository.edit(engine, moved, {"tenant": "acme"})
    assert types_of(engine, moved) == ("a", "b")


def test_one_of_many_rivals_gets_an_external_id(sqlite_engine: Engine) -> None:
    """The database decides, not a look before."""

    def add(_: int) -> bool:
        try:
            repository.add(sqlite_engine, URL, "a", external_id="x")
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(add, range(8))) == 1
