"""Reading rows of plain SQL as Endpoints: every default and every broken value; no row affects another."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from consumer.crypto.keys import generate
from consumer.crypto.vault import Vault
from consumer.database import migrations
from consumer.errors import InvalidSubscription
from consumer.expressions.expression import compile_filter, compile_projection
from consumer.matching.catalog import find_endpoints
from consumer.matching.subscribers import find_subscribers
from consumer.subscriptions import endpoint_row, repository
from consumer.subscriptions.endpoint import Batch, Endpoint, Selection
from consumer.subscriptions.endpoint_row import endpoint_of, endpoint_rows
from consumer.subscriptions.follows import Follows, compile_text, parse_passed, url_template
from consumer.subscriptions.options import DESCRIPTIVE, OPTIONS, Effect, OptionProblem, parse_answer_headers
from consumer.subscriptions.signature_template import PRESETS
from models import Subscription, SubscriptionSecret
from tests.crypto.vaults import in_the_clear
from tests.databases import database
from tests.databases import each_new_engine as new_engine  # noqa: F401 (a fixture: what speaks SQL)
from tests.subscriptions.test_options import TEXTS

URL = "https://example.com/hooks"
PLAIN = "INSERT INTO webhook_subscriptions (url, event_type) VALUES ('https://example.com/hooks', 'user.created')"
KEY = ("user.created", None)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
BROKEN = {
    "url": "example.com",
    "event_type": "user.*.x",
    "tenant": " acme",
    "topics": "^orders",
    "event_filter": "data.amount >",
    "projection": "{",
    "custom_headers": '{"Host": "a"}',
    "header_expressions": '{"X-A": "data."}',
    "pass_headers": "x-*,host",
    "answer_headers": "x-*,set-cookie",
    "signature_header": "no header",
    "signature_template": "stripes",
    "signature_prefix": " x",
    "timeout_seconds": 301,
    "rate_limit": 0.0004,
    "max_in_flight": 1_000_001,
    "retry_schedule": "soon",
    "final_statuses": "200",
}
CHECKED = {  # refused by the database
    "payload_format": "xml",
    "gzip_above": -1,
    "http_version": "3",
    "method": "GET",
    "report_answer": "yes",
    "batch_size": 0,
    "batch_wait_ms": 60_001,
    "ordering": "topic",
}


def read(engine: Engine) -> dict[int, tuple[Endpoint, tuple[OptionProblem, ...]]]:
    """All subscriptions as workers read them."""
    found: dict[int, list[Any]] = {}
    with engine.connect() as connection:
        for row in connection.execute(endpoint_rows()):
            found.setdefault(row.subscription_id, []).append(row)
    return {each: endpoint_of(rows, (b"default",), Vault().decrypt, NOW) for each, rows in found.items()}


def test_url_and_event_type_are_enough(engine: Engine) -> None:
    """A row with only these two columns is an Endpoint with every option at its default, as `add` makes it."""
    with engine.begin() as connection:
        connection.execute(text(PLAIN))
    repository.add(engine, URL, "user.created")
    assert read(engine) == {
        1: (Endpoint(1, URL, (b"default",)), ()),
        2: (Endpoint(2, URL, (b"default",)), ()),
    }
    by_sql, added = (dict(row.options) for row in repository.walk(engine))
    assert by_sql == added


def test_options_reach_the_endpoint(engine: Engine) -> None:
    """Each option that workers read from a subscription arrives, with a value other than its default."""
    asked: dict[str, Any] = {
        "tenant": "acme",
        "topics": "orders, users",
        "event_filter": "data.amount > 100",
        "payload_format": "standard",
        "projection": "data.id",
        "batch_size": 7,
        "batch_wait_ms": 250,
        "method": "PUT",
        "custom_headers": '{"X-Origin": "shop"}',
        "signature_header": "X-Hub-Signature-256",
        "signature_prefix": "sha256=",
        "signature_template": "stripe",
        "gzip_above": 0,
        "http_version": "2",
        "timeout_seconds": 2.5,
        "ordering": "key",
        "max_in_flight": 3,
        "rate_limit": 0.125,
        "retry_schedule": "1s,1m",
        "final_statuses": "400",
    }
    alone: dict[str, Any] = {  # not with batches
        "header_expressions": '{"X-Id": "data.id"}',
        "pass_headers": "x-*",
        "report_answer": "true",
        "answer_headers": "etag",
    }
    assert asked.keys() | alone.keys() == OPTIONS.keys() - {"url", "event_type", *DESCRIPTIVE}
    repository.add(engine, URL, "order.*", **asked)
    assert read(engine)[1] == (
        Endpoint(
            1,
            URL,
            (b"default",),
            ordered=True,
            max_in_flight=3,
            rate_limit=0.125,
            retry_schedule=(1.0, 60.0),
            final_statuses=frozenset((400,)),
            selection=Selection(frozenset(("orders", "users")), compile_filter("data.amount > 100")),
            payload_format="standard",
            projection=compile_projection("data.id"),
            batch=Batch(7, 0.25),
            hex_header="X-Hub-Signature-256",
            hex_prefix="sha256=",
            headers=(("X-Origin", "shop"),),
            timeout=2.5,
            gzip_above=0,
            http2=True,
            method="PUT",
            signature_template=PRESETS["stripe"],
        ),
        (),
    )
    repository.add(engine, f"{URL}/{{data.id}}", "order.*", **alone)
    follows = Follows(url_template(f"{URL}/{{data.id}}"), (("X-Id", compile_text("data.id")),), parse_passed("x-*"))
    assert read(engine)[2] == (
        Endpoint(2, f"{URL}/{{data.id}}", (b"default",), follows=follows, answer_headers=parse_answer_headers("etag")),
        (),
    )


def test_http2_needs_an_extra(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it a subscription's requests go by HTTP/1.1, and its problem names the extra."""
    monkeypatch.setattr(endpoint_row, "HAS_HTTP2", False)
    repository.add(engine, URL, "order.*", http_version="2")
    endpoint, (problem,) = read(engine)[1]
    assert (endpoint, problem.effect) == (Endpoint(1, URL, (b"default",)), Effect.DEFAULT)
    assert 'pip install ".[http2]"' in str(problem)


@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in DESCRIPTIVE])
def test_an_unusable_value_has_its_own_effect_only(engine: Engine, name: str) -> None:
    """It leaves the subscription unmatched, its events stored, or a default in place. Others are unaffected."""
    good = repository.add(engine, URL, "user.created")
    bad = repository.add(engine, URL, "user.created")
    changed = update(Subscription).where(Subscription.id == bad)
    if name in CHECKED:
        with pytest.raises(IntegrityError), engine.begin() as connection:
            connection.execute(changed.values({name: CHECKED[name]}))
        return
    if name == "rate_limit" and engine.dialect.name == "oracle":
        pytest.skip("NUMBER(9, 3) keeps 0.0004 as 0, which is refused")
    with engine.begin() as connection:
        connection.execute(changed.values({name: BROKEN[name]}))
    endpoint, problems = read(engine)[bad]
    effect = OPTIONS[name].effect
    assert [(problem.option, problem.effect) for problem in problems] == [(name, effect)]
    assert (endpoint.fault is None) == (effect is not Effect.STORED)
    if effect is Effect.DEFAULT:
        assert endpoint == Endpoint(bad, URL, (b"default",))
    found = [each.subscription_id for each in find_endpoints(engine, [KEY], (b"k",), in_the_clear)[KEY]]
    unmatched = effect is Effect.UNMATCHED
    assert found == ([good] if unmatched else [good, bad])
    by_id = find_subscribers(engine, (b"k",), in_the_clear, [bad])[bad]
    assert (by_id.enabled, by_id.endpoint is None) == (True, unmatched)
    row = repository.get(engine, bad)
    assert row is not None
    assert row.state == f"broken: {problems[0]}"


def test_what_follows_an_event_has_one_event_a_request(engine: Engine) -> None:
    """So not with batches. A computed header has a name of its own."""
    given: dict[str, Any] = {"header_expressions": '{"x-a": "data.id"}', "pass_headers": "x-*", "report_answer": "true"}
    with engine.begin() as connection:
        connection.execute(text(PLAIN))
        connection.execute(update(Subscription).values(url=f"{URL}/{{data.id}}", batch_size=5, **given))
    endpoint, problems = read(engine)[1]
    assert [(problem.option, problem.effect) for problem in problems] == [
        ("url", Effect.STORED),
        ("header_expressions", Effect.STORED),
        ("pass_headers", Effect.STORED),
        ("report_answer", Effect.UNUSED),
    ]
    assert endpoint.answer_headers is None
    assert "its expressions need one event for each request; unset batch_size" in str(endpoint.fault)
    with pytest.raises(InvalidSubscription, match="needs report_answer, which is not true"):
        repository.add(engine, URL, "a", answer_headers="etag")
    with pytest.raises(InvalidSubscription, match="custom_headers has x-a too"):
        repository.add(engine, URL, "a", custom_headers='{"X-A": "1"}', **given)


def test_expressions_that_take_too_long_together_are_refused_when_they_are_set(engine: Engine) -> None:
    """Each alone would do. Set by SQL, they have the events stored, not given up one by one."""
    costly = "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1].exists(x,'a'.matches('.{39}'))"
    given = json.dumps({"x-a": costly, "x-b": costly})
    with pytest.raises(InvalidSubscription, match="its expressions may take 5 ms together, and could take longer"):
        repository.add(engine, URL, "a", header_expressions=given)
    with engine.begin() as connection:
        connection.execute(text(PLAIN))
        connection.execute(update(Subscription).values(header_expressions=given))
    assert "could take longer, whatever the event" in str(read(engine)[1][0].fault)
    with pytest.raises(InvalidSubscription, match="has 21 headers; at most 20 are computed"):
        repository.add(engine, URL, "a", header_expressions=json.dumps({f"x-{each}": "data.a" for each in range(21)}))


def test_a_signature_template_needs_a_header_and_a_key_of_its_own(engine: Engine) -> None:
    """Not the header of the hex signature, or of a custom header; not an ed25519 key alone."""
    given: dict[str, Any] = {"signature_template": "github", "signature_header": "x-hub-signature-256"}
    with pytest.raises(InvalidSubscription, match="x-hub-signature-256 is signature_header; set that to none"):
        repository.add(engine, URL, "a", **given)
    given = {"signature_template": "slack", "custom_headers": '{"X-Slack-Request-Timestamp": "1"}'}
    with pytest.raises(InvalidSubscription, match="x-slack-request-timestamp is the signature's header"):
        repository.add(engine, URL, "a", **given)
    added = repository.add(engine, URL, "a", signature_template="stripe")
    with engine.begin() as connection:
        key = generate("ed25519")
        connection.execute(insert(SubscriptionSecret).values(subscription_id=added, secret=key, kind="signing"))
    endpoint, _ = read(engine)[added]
    assert "signature_template: needs a secret for HMAC" in str(endpoint.fault)


def test_conflicting_options_are_reported(engine: Engine) -> None:
    """A batch wait without batches has no effect; a custom header cannot be the signature's header."""
    with engine.begin() as connection:
        connection.execute(text(PLAIN))
        connection.execute(update(Subscription).values(batch_wait_ms=5, signature_header="X-A"))
        connection.execute(insert(SubscriptionSecret).values(subscription_id=1, secret="x-a: b", kind="header"))
    endpoint, problems = read(engine)[1]
    assert endpoint.batch is None
    assert [str(problem) for problem in problems] == [
        "batch_wait_ms: needs batch_size, which is not set; it has no effect",
        "secret: X-A is the signature's header; its events are stored, not sent",
    ]
    assert endpoint.fault == str(problems[1])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = database(tmp_path_factory.mktemp("rows") / "rows.db")
    migrations.upgrade(engine)
    yield engine
    engine.dispose()


VALUES = TEXTS.filter(lambda text: text.isascii()) | st.integers(-(2**62), 2**62) | st.floats() | st.binary(max_size=9)
ROWS = st.dictionaries(st.sampled_from(sorted(OPTIONS)), VALUES, max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(ROWS, st.none() | VALUES)
def test_no_row_keeps_another_from_being_read(table: Engine, values: Mapping[str, Any], expires: Any) -> None:
    """SQLite stores any value in any column: every row that it accepts is read, and its neighbour is unchanged."""
    with table.connect() as connection:
        connection.exec_driver_sql("DELETE FROM webhook_subscriptions")
        connection.exec_driver_sql(PLAIN)
        connection.exec_driver_sql(PLAIN)
        ids = [row.id for row in connection.execute(select(Subscription.id).order_by(Subscription.id))]
        assignments = ", ".join([*(f"{name} = :{name}" for name in values), "failing_since = :since"])
        try:
            connection.execute(
                text(f"UPDATE webhook_subscriptions SET {assignments} WHERE id = {ids[0]}"),  # noqa: S608 (names of columns)
                {**values, "since": expires},
            )
            connection.execute(
                text(f"INSERT INTO webhook_secrets (subscription_id, secret, expires_at) VALUES ({ids[0]}, :s, :at)"),  # noqa: S608 (a number)
                {"s": next(iter(values.values()), "x"), "at": expires},
            )
        except DBAPIError:
            connection.rollback()
            return
        connection.commit()
    found = read(table)
    assert found[ids[1]] == (Endpoint(ids[1], URL, (b"default",)), ())
    assert [row.id for row in repository.walk(table)] == ids


@pytest.mark.parametrize(("content", "url"), [("x'68747470'", "b'http'"), ("CAST(x'e9' AS TEXT)", "\ufffd")])
def test_a_url_of_bytes_is_a_problem(sqlite_engine: Engine, content: str, url: str) -> None:
    """SQLite stores bytes, and text that is not UTF-8, in a text column: other rows are read."""
    with sqlite_engine.begin() as connection:
        connection.execute(text(PLAIN))
        connection.execute(text(PLAIN))
        connection.exec_driver_sql(f"UPDATE webhook_subscriptions SET url = {content} WHERE id = 1")  # noqa: S608 (a test's own words)
    found = read(sqlite_engine)
    assert [endpoint.url for endpoint, _ in found.values()] == [url, URL]
    assert [bool(problems) for _, problems in found.values()] == [True, False]
