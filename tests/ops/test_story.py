"""Who got an event: the states of its receivers, and what is sent again."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, text

from consumer.config.settings import KafkaSettings
from consumer.crypto.vault import Vault
from consumer.errors import Conflict, KafkaUnavailable, NotFound
from consumer.events.attempt import Attempt
from consumer.events.event import Event
from consumer.ledger import cursors, replays
from consumer.ledger.cursors import NewCursor
from consumer.ops import story as module
from consumer.ops.changes import Changes, Deployment
from consumer.ops.resend import resend
from consumer.ops.story import NO_HISTORY, Receiver, ReceiverState, Story, tell
from consumer.subscriptions import repository
from models import CursorReason
from tests.ledger.rows_kit import BOOM, GROUP, make_event, park, parked

URL = "https://example.com/hooks"
KAFKA = KafkaSettings(bootstrap_servers="127.0.0.1:1", group_id=GROUP)
REGISTERED = datetime(2020, 1, 1, tzinfo=UTC)  # before the event
NOW = 1_700_000_100.0

Told = Callable[..., Story]


class History:
    """Attempts that are on record."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []

    def of_event(self, webhook_id: str, since: float) -> tuple[list[Attempt], str | None]:
        """The attempts of this event."""
        assert since == event().record.timestamp / 1000
        return [each for each in reversed(self.attempts) if each.webhook_id == webhook_id], None


def event(**more: Any) -> Event:
    return make_event(7, topic="orders", partition=2, body=b'{"n": 1}', type="orders.created", **more)


def attempt(subscription: int, number: int, outcome: str, **more: Any) -> Attempt:
    status, error = (204, None) if outcome == "delivered" else (503, "status 503")
    found = Attempt(
        NOW, subscription, "msg_7", "orders.created", None, "orders", 2, 7, number, outcome, status, error, 0.1, None
    )
    return found._replace(**more)


@pytest.fixture
def where(engine: Engine) -> Deployment:
    """A deployment."""
    return Deployment(engine, GROUP, Vault(), clock=lambda: NOW)


@pytest.fixture
def history() -> History:
    """No attempts yet."""
    return History()


@pytest.fixture
def told(where: Deployment, history: History, monkeypatch: pytest.MonkeyPatch) -> Told:
    """Tells the story of the event; the group has committed its record."""
    monkeypatch.setattr(module, "committed_offsets", lambda _, partitions: dict.fromkeys(partitions, 8))

    def story(**more: Any) -> Story:
        return tell(where, event(), KAFKA, history, **more)  # type: ignore[arg-type]  # it answers as the real one

    return story


def add(engine: Engine, event_type: str = "orders.*", **options: Any) -> int:
    """A subscription that was registered before the event."""
    number = repository.add(engine, URL, event_type, **options)
    with engine.begin() as connection:
        at = text("UPDATE webhook_subscriptions SET created_at = :at WHERE id = :id")
        connection.execute(at.bindparams(at=REGISTERED, id=number))
    return number


def put(engine: Engine, subscription: int, status: str) -> None:
    """Put the subscription's stored deliveries into a state."""
    with engine.begin() as connection:
        change = text("UPDATE webhook_deliveries SET status = :status WHERE subscription_id = :id")
        connection.execute(change, {"status": status, "id": subscription})


def only(found: Story) -> Receiver:
    (receiver,) = found.receivers
    return receiver


def test_each_subscription_that_does_not_match_says_why(engine: Engine, told: Told) -> None:
    """Candidates by type and pattern are told of, with the option that leaves the event out; others are not."""
    fits = [add(engine, pattern) for pattern in ("orders.created", "*")]
    add(engine, "orders.deleted")
    not_topic = add(engine, topics="users,billing")
    untrue = add(engine, event_filter="data.n > 1")
    fits.append(add(engine, event_filter="data.n == 1"))
    failing = add(engine, event_filter="data.absent > 1")
    odd = add(engine, event_filter="data.n")
    disabled = add(engine)
    repository.set_enabled(engine, disabled, False, "moved")
    found = {each.subscription_id: each for each in told().receivers}
    assert [number for number, each in found.items() if each.matches] == fits
    assert {found[number].state for number in fits} == {ReceiverState.UNKNOWN}
    unmatched = {number: each.why or "" for number, each in found.items() if each.state is ReceiverState.UNMATCHED}
    assert unmatched.pop(failing).startswith("filter: it fails on this event: ")
    assert unmatched == {
        not_topic: "topics: it gets events of billing, users",
        untrue: "filter: false for this event",
        odd: "filter: its value is neither true nor false",
        disabled: "disabled: moved",
    }


def test_attempts_decide_first(engine: Engine, told: Told, history: History) -> None:
    """One that succeeded means delivered, whatever the subscription matches now; else the last one speaks."""
    got, failed, gave_up = add(engine, event_filter="data.n > 1"), add(engine), add(engine)
    history.attempts = [
        attempt(got, 1, "retried", at=NOW - 5),
        attempt(got, 2, "delivered"),
        attempt(failed, 1, "retried"),
        attempt(gave_up, 9, "exhausted"),
        attempt(got, 1, "delivered", offset=8, webhook_id="msg_7"),  # the same event, published twice
        attempt(999, 1, "delivered"),
    ]
    found = {each.subscription_id: each for each in told().receivers}
    assert {number: each.state for number, each in found.items()} == {
        got: ReceiverState.DELIVERED,
        failed: ReceiverState.UNKNOWN,
        gave_up: ReceiverState.GIVEN_UP,
        999: ReceiverState.DELIVERED,
    }
    assert found[got].why == "2023-11-14T22:15:00.000Z, attempt 2, status 204"
    assert [each.attempt for each in found[got].attempts] == [2, 1]
    assert found[failed].why == "attempt 1 failed: status 503"
    assert (found[999].url, found[999].event_type, found[999].matches) == (None, None, False)


def test_stored_deliveries_say_what_they_wait_for(engine: Engine, told: Told) -> None:
    """The schedule, an earlier event of the key, or the subscription; one that was given up says why."""
    waiting, blocked, held, given_up = (add(engine) for _ in range(4))
    repository.pause(engine, held, "no space")
    row = parked(event(), waiting, NOW + 60)
    untried = row._replace(attempt=0, first=None, last=None)
    park(
        engine,
        row,
        untried._replace(subscription_id=blocked),
        untried._replace(subscription_id=held),
        row._replace(subscription_id=given_up, status="exhausted", attempt=9),
    )
    put(engine, blocked, "blocked")
    put(engine, held, "held")
    found = {each.subscription_id: each for each in told().receivers}
    assert {each.state for number, each in found.items() if number != given_up} == {ReceiverState.WAITING}
    assert (
        found[waiting].why
        == "attempt 1 failed: boom; attempt 2 follows by its retry schedule; it is due 2023-11-14T22:16:00.000Z"
    )
    assert found[blocked].why == "an earlier event of its key goes first"
    assert re.fullmatch(r"its subscription is paused since \S+Z: no space\. It is sent once.*", found[held].why or "")
    assert (found[given_up].state, found[given_up].why) == (ReceiverState.GIVEN_UP, "attempt 9 failed: boom")
    assert all(each.delivery_id is not None for each in found.values())


def test_an_event_that_waits_in_kafka_says_why(engine: Engine, told: Told) -> None:
    """A cursor covers it, of a paused subscription or of one that is behind. One that the cursor has sent is not."""
    paused, behind, past = add(engine), add(engine), add(engine)
    repository.pause(engine, paused, "no space")
    place = event().record
    owed = [
        NewCursor((*place.topic_partition, whose), first, CursorReason.BEHIND)
        for whose, first in ((paused, 0), (behind, place.offset), (past, place.offset + 1))
    ]
    cursors.begin(engine, GROUP, owed, 0.0)
    found = {each.subscription_id: each for each in told().receivers}
    covered = "it waits in Kafka, behind earlier ones, and is sent in its turn"
    assert (found[paused].why or "").endswith(f"Z: no space; {covered}")
    assert (found[behind].state, found[behind].why) == (ReceiverState.WAITING, covered)
    assert found[past].state is ReceiverState.UNKNOWN


def test_a_record_that_is_not_committed_waits(
    engine: Engine, told: Told, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless Kafka does not say: then nothing is known. A group that has committed nothing has it before it."""
    number = add(engine)
    history.attempts = [attempt(number, 1, "retried")]
    for committed in ({("orders", 2): 7}, {}):
        monkeypatch.setattr(module, "committed_offsets", lambda *_, committed=committed: committed)
        found = only(told())
        waits = "attempt 1 failed: status 503; the group has not committed its record yet"
        assert (found.state, found.why) == (ReceiverState.WAITING, waits)

    def down(*_: object) -> int:
        raise KafkaUnavailable("no answer")

    monkeypatch.setattr(module, "committed_offsets", down)
    assert only(told()).state is ReceiverState.UNKNOWN


def test_a_subscription_that_was_registered_later_says_when(engine: Engine, told: Told) -> None:
    """It matches now: the event can be sent to it."""
    repository.add(engine, URL, "orders.*")
    found = only(told())
    assert (found.state, found.matches) == (ReceiverState.REGISTERED_LATER, True)
    assert re.fullmatch(r"registered \S+Z", found.why or "")


def test_a_tenant_is_told_of_its_own_subscriptions(engine: Engine, told: Told, history: History) -> None:
    """Neither others with a stored delivery or an attempt, nor those that were removed."""
    mine, other = add(engine, tenant="acme"), add(engine, tenant="other")
    park(engine, parked(event(), other), parked(event(), 999))
    history.attempts = [attempt(998, 1, "delivered")]
    assert [each.subscription_id for each in told(tenant="acme").receivers] == [mine]
    assert told(tenant="acme", subscription_id=other).receivers == ()
    assert {each.subscription_id for each in told().receivers} == {other, 998, 999}


def test_the_list_is_bounded(engine: Engine, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut list says so, and has the subscriptions with a delivery; a URL does not show its password."""
    monkeypatch.setattr(module, "MOST", 2)
    numbers = [add(engine, pattern) for pattern in ("orders.created", "*", "orders.**")]
    with engine.begin() as connection:
        connection.execute(text("UPDATE webhook_subscriptions SET url = 'https://u:secret@example.com/'"))
    park(engine, parked(event(), numbers[2]))
    found = told()
    assert ([each.subscription_id for each in found.receivers], found.next) == (numbers[::2], (True, numbers[0]))
    assert {each.url for each in found.receivers} == {"…@example.com/"}


def test_subscriptions_of_other_tenants_hide_none_of_the_events_own(
    engine: Engine, where: Deployment, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Candidates are those of the event's tenant and of all tenants; the others are counted. Pages show each once."""
    monkeypatch.setattr(module, "committed_offsets", lambda _, partitions: dict.fromkeys(partitions, 8))
    monkeypatch.setattr(module, "MOST", 2)
    others = [add(engine, tenant=f"t{number}") for number in range(4)]
    own = [add(engine, tenant=tenant) for tenant in ("zed", "*", "zed", "zed")]
    history.attempts = [attempt(each, 1, "delivered") for each in (others[3], own[2], own[3])]
    pages: list[list[int]] = []
    after = None
    while not pages or after is not None:
        page = tell(where, event(tenant="zed"), KAFKA, history, after=after)  # type: ignore[arg-type]  # as the real one
        pages.append([each.subscription_id for each in page.receivers])
        after = page.next
        assert page.others == len(others)
    assert pages == [[others[3], own[2]], [own[0], own[3]], [own[1]]]
    assert tell(where, event(tenant="zed"), KAFKA, None, "zed").others is None
    assert tell(where, event(), KAFKA, None).others == len(others) + 3


def test_without_attempts_on_record_the_story_says_so(where: Deployment, told: Told) -> None:
    """The rest is told."""
    assert tell(where, event(), KAFKA, None) == Story((), None, 0, NO_HISTORY)
    assert told().missing is None


def test_a_delivered_event_is_sent_again_by_a_replay_of_its_record(
    engine: Engine, where: Deployment, told: Told
) -> None:
    """Its cursor has that record alone, and the event names the actor."""
    number = add(engine, rate_limit=50)
    sent = resend(Changes(where, "api:me"), event(), KAFKA, number)
    assert (sent.subscription_id, sent.delivery_id) == (number, None)
    found = where.replay(sent.replay_id or 0)
    assert (found.records, found.rate, found.created_by) == (1, 5.0, "api:me")
    request = replays.requests(engine, [found.id])[found.id]
    assert request.since * 1000 <= event().record.timestamp
    with engine.connect() as connection:
        spans = connection.execute(text("SELECT topic, partition_no, next_offset, end_offset FROM webhook_cursors"))
        assert spans.all() == [("orders", 2, 7, 8)]
    assert told().receivers[0].state is ReceiverState.UNKNOWN  # a replay covers nothing


def test_a_stored_delivery_is_sent_again_as_it_is(engine: Engine, where: Deployment, told: Told) -> None:
    """It keeps its row, and is due now."""
    number = add(engine)
    park(engine, parked(event(), number, NOW, status="exhausted", attempt=9, first=BOOM, last=BOOM))
    before = only(told())
    sent = resend(Changes(where, "api:me"), event(), KAFKA, number)
    assert sent == (number, before.delivery_id, None)
    assert only(told()).state is ReceiverState.WAITING


@pytest.mark.usefixtures("told")
def test_what_cannot_be_sent_again_says_why(engine: Engine, where: Deployment) -> None:
    """The subscription is not there or not the tenant's, would not get it, or gets it anyway."""
    filtered, coming, blocked = add(engine, event_filter="data.n > 1"), add(engine), add(engine)
    place = event().record
    cursors.begin(engine, GROUP, [NewCursor((*place.topic_partition, coming), 7, CursorReason.BEHIND)], 0.0)
    park(engine, parked(event(), blocked, attempt=0, first=None, last=None))
    put(engine, blocked, "blocked")
    by = Changes(where, "api:me")
    for number, why in (
        (filtered, "would not get it: filter: false"),
        (coming, "gets it anyway: it waits in Kafka"),
        (blocked, "gets it anyway: an earlier event of its key"),
    ):
        with pytest.raises(Conflict, match=why):
            resend(by, event(), KAFKA, number)
    for changes, number in ((by, 999), (Changes(where, "api:me", "acme"), coming)):
        with pytest.raises(NotFound):
            resend(changes, event(), KAFKA, number)


def test_a_subscription_of_several_types_is_in_a_story_once(engine: Engine, told: Told) -> None:
    """It matches by any usable type; a type that cannot be used, or another one by now, does not match."""
    several = repository.add(engine, URL, "other", further_types=["orders.*", "*"])
    changed = repository.add(engine, URL, "other", further_types=["b"])
    park(engine, parked(event(), changed))
    found = {each.subscription_id: each for each in told().receivers}
    assert [(number, each.matches) for number, each in found.items()] == [(several, True), (changed, False)]
