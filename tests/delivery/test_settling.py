"""The steps after an attempt, for every outcome and both origins: when a record is settled, and the row's contents."""

import json
import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace

import pytest
from requests import RequestException, Response
from requests.auth import HTTPBasicAuth
from requests.exceptions import ConnectTimeout, ReadTimeout
from sqlalchemy import update
from structlog.testing import capture_logs

from consumer.delivery.breaker import REFUSED_IN_A_ROW
from consumer.delivery.delivery import Delivery, OpenRecord
from consumer.delivery.lanes import Lanes
from consumer.delivery.parking import BACKLOG
from consumer.errors import EgressRefused
from consumer.ledger import outbox
from consumer.matching.selection import PAUSE
from consumer.sending.signing import prepare
from models import Subscription
from tests.delivery.desk_kit import LONG, SHORT, TOOK, Desk, response
from tests.delivery.store_kit import NOW
from tests.ledger.rows_kit import GROUP, make_event, parked
from tests.simulation.transport import Hopeless

REFUSED = EgressRefused("10.0.0.1 is a private address")
HOPELESS = Hopeless("a line break")
UNKNOWN = "stopped while the request was open: its outcome is unknown"


def elsewhere(desk: Desk) -> None:
    """The subscription has another URL from now on."""
    desk.endpoint = replace(desk.endpoint, url="https://elsewhere.example")
    desk.lanes.lane(desk.endpoint)


def test_a_2xx_settles_at_once_and_stores_nothing(desk: Desk) -> None:
    """A success does not touch the database."""
    desk.end(desk.start(), response(204))
    assert (desk.settled, desk.parking.backlog) == ([0], 0)
    assert (desk.metrics.deliveries, desk.metrics.attempts) == ({"delivered": 1}, {"2xx": 1})
    assert desk.metrics.attempt_seconds.total == pytest.approx(TOOK)
    assert desk.metrics.delivery_latency_seconds.total == pytest.approx(100)


def test_a_success_moves_nothing_until_its_attempt_cannot_be_lost(desk: Desk) -> None:
    """Neither the offset nor the row: after a crash, the attempt alone proves a delivery that left no row."""
    waiting: list[Callable[[], object]] = []
    desk.settling.once_reported = waiting.append
    desk.end(desk.start(), response(200))
    desk.end(desk.due_row(), response(200))
    assert (desk.settled, set(desk.taken_up), desk.parking.backlog) == ([], {1}, 0)
    assert [status for status, *_ in desk.results()] == ["parked"]
    for each in waiting:
        each()
    desk.write()
    assert (desk.settled, set(desk.taken_up)) == ([0], set())
    assert [status for status, *_ in desk.results()] == ["delivered"]


@pytest.mark.parametrize(("timestamp", "counted"), [(-1, 0), (int(NOW * 1e6), 1)], ids=["none", "microseconds"])
def test_a_strange_timestamp_does_not_spoil_the_latency(desk: Desk, timestamp: int, counted: int) -> None:
    """Half a century would hide all other latencies, and a sum that falls looks like a restart."""
    delivery = desk.delivery()
    delivery.event = delivery.event._replace(record=delivery.event.record._replace(timestamp=timestamp))
    desk.end(desk.open(delivery), response(200))
    latency = desk.metrics.delivery_latency_seconds
    assert (latency.total, sum(latency.counts), desk.settled) == (0.0, counted, [0])


@pytest.mark.parametrize("wants", [True, False])
def test_each_answer_is_reported_if_the_subscription_wants_it(desk: Desk, *, wants: bool) -> None:
    """Of failures and of successes; an attempt without an answer has none."""
    if wants:
        desk.endpoint = replace(desk.endpoint, answer_headers=re.compile("content-type"))
    delivery = desk.start()
    desk.end(delivery, response(503))
    desk.end(desk.go_on(delivery, SHORT), response(200))
    desk.end(desk.start(offset=1), ConnectTimeout("slow"))
    assert desk.answers == ([(1, 503), (2, 200)] if wants else [])


@pytest.mark.parametrize("status", [200, 404])
def test_the_time_to_search_an_answer_is_charged(desk: Desk, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """A tenant names the secrets, and its receiver writes the answer. Over its budget its deliveries are stored."""
    reports = status == 200
    slow = iter(range(1000))
    monkeypatch.setattr("consumer.delivery.settling.time.thread_time", lambda: next(slow) * 0.03)
    victim = desk.endpoint
    if reports:
        desk.endpoint = replace(victim, answer_headers=re.compile("content-type"))
    for offset in range(2):
        assert not desk.budget.is_over(desk.subscription)
        desk.end(desk.start(offset=offset), response(status))
    assert desk.budget.is_over(desk.subscription)
    assert desk.lanes.lane(desk.endpoint).breaker.open_until == desk.monotonic.now + PAUSE
    desk.endpoint = replace(victim, subscription_id=1000)
    for offset in range(2, 7):
        desk.end(desk.start(offset=offset), response(200))
    assert not desk.budget.is_over(1000)
    assert {2, 3, 4, 5, 6} <= set(desk.settled)


@pytest.mark.parametrize("result", [response(503), response(404), ConnectTimeout("slow")], ids=repr)
def test_a_short_wait_stays_in_memory(desk: Desk, result: Response | RequestException) -> None:
    """Nothing is stored or settled. The same delivery is tried again when it is due, and each attempt is reported."""
    delivery = desk.start()
    desk.end(delivery, result)
    assert (desk.settled, desk.parking.backlog, desk.waiting()) == ([], 0, [SHORT])
    assert desk.metrics.deliveries == {"retried": 1}
    assert delivery.due_at == NOW + SHORT
    assert delivery.first is not None
    assert delivery.first.at == NOW
    desk.end(desk.go_on(delivery, SHORT), response(200))
    assert (desk.settled, delivery.attempts, desk.lanes.held) == ([0], 2, 0)
    status = result.status_code if isinstance(result, Response) else None
    assert [each[:5] for each in desk.reported] == [(0, 1, status, "retried", NOW), (0, 2, 200, "delivered", NOW)]
    assert [each[5] for each in desk.reported] == pytest.approx([TOOK] * 2)


@pytest.mark.parametrize(
    ("attempts", "result", "row"),
    [
        (1, response(503), ("parked", 2, LONG, 503, "status 503")),
        (1, ConnectTimeout("slow"), ("parked", 2, LONG, None, "connect time-out: slow")),
        (0, response(429, retry_after="60"), ("parked", 1, 60, 429, "status 429")),
        (1, response(503, retry_after="1"), ("parked", 2, LONG, 503, "status 503")),
        (0, response(503, retry_after="999999"), ("parked", 1, 86400, 503, "status 503")),
        (2, response(503), ("exhausted", 3, None, 503, "status 503")),
        (0, response(410), ("exhausted", 1, None, 410, "the receiver answered 410 Gone")),
        (1, HOPELESS, ("exhausted", 2, None, None, str(HOPELESS))),
    ],
    ids=repr,
)
@pytest.mark.parametrize("stored", [False, True], ids=["record", "row"])
def test_a_delivery_that_leaves_memory_is_settled_when_it_is_stored(
    desk: Desk, attempts: int, result: Response | RequestException, row: tuple[object, ...], *, stored: bool
) -> None:
    """Long waits, the end of the schedule, a 410 and hopeless requests are stored, for a record and for a row."""
    desk.end(desk.due_row(attempts) if stored else desk.start(attempts=attempts), result)
    assert (desk.settled, desk.waiting()) == ([], [])
    assert set(desk.taken_up) == ({1} if stored else set())
    desk.write()
    assert desk.settled == ([] if stored else [0])
    assert (set(desk.taken_up), desk.memory.held) == (set(), 0)
    assert desk.results() == [row]
    assert desk.metrics.deliveries == {row[0]: 1}
    assert len(desk.reported) == (result is not HOPELESS)
    assert desk.disabled() == ("the receiver answered 410 Gone" if row[3] == 410 else None)


def test_a_stored_delivery_of_a_replay_is_the_replays(desk: Desk) -> None:
    """It is no repetition of the live delivery, whether it has failed or waits untried."""
    desk.others_park(*(parked(make_event(offset), desk.subscription) for offset in (0, 1)))
    failed, untried = (OpenRecord(desk.settled.append, offset, 1, replay=7) for offset in (0, 1))
    desk.end(desk.start(failed, attempts=1), response(503))
    desk.settling.postpone(make_event(1), desk.endpoint, untried, None)
    desk.write()
    assert desk.settled == [0, 1]
    assert desk.rows("record_offset", "replay") == [(0, 0), (1, 0), (0, 7), (1, 7)]


@pytest.mark.parametrize("attempts", [0, 1])
@pytest.mark.parametrize("stored", [False, True], ids=["record", "row"])
def test_an_unsendable_delivery_is_stored_and_costs_no_attempt(desk: Desk, attempts: int, *, stored: bool) -> None:
    """It does not count towards disabling. The reason is logged once, and stored unless the row has an older error."""
    delivery = desk.due_row(attempts) if stored else desk.start(attempts=attempts)
    desk.enqueue(desk.delivery(offset=1))
    with capture_logs() as logs:
        desk.end(delivery, REFUSED)
        desk.write()
        assert desk.settled == ([1] if stored else [0, 1])
        assert not desk.taken_up
        assert (desk.lanes.held, desk.lanes.slots.in_flight, desk.lanes.next(desk.monotonic.now)) == (0, 0, None)
        assert 1 <= (desk.opens_in or 0) <= 1.2
        reason = "boom" if attempts or stored else str(REFUSED)
        assert desk.rows("attempt", "last_error", "status") == [(attempts, reason, "parked"), (0, None, "parked")]
        assert max(desk.seconds("next_attempt_at")) == (1,)  # whole seconds
        desk.monotonic.now += 2
        desk.end(desk.start(offset=2), REFUSED)
        assert (desk.opens_in or 0) >= 2
    assert (desk.metrics.attempts, desk.metrics.attempt_seconds.total) == ({}, 0)
    assert (set(desk.metrics.deliveries), desk.reported) == ({"parked"}, [])
    assert desk.disabled() is None
    (said,) = logs
    assert (said["event"], said["subscription"]) == ("a subscription is broken", desk.subscription)
    assert said["reason"] == f"url: {REFUSED}; its events are stored, not sent"


def test_ordered_deliveries_behind_an_unsendable_one_are_stored_behind_it(desk: Desk) -> None:
    """The key's first row is due and the others are blocked. After a success the reason is logged anew."""
    first = desk.open(*(desk.delivery(offset=place, key=b"k") for place in range(3)))
    with capture_logs() as logs:
        desk.end(first, REFUSED)
        desk.write_all()
        assert desk.settled == [0, 1, 2]
        assert desk.rows("record_offset", "status") == [(0, "parked"), (1, "blocked"), (2, "blocked")]
        desk.monotonic.now += 2
        desk.end(desk.start(offset=3), response(200))
        desk.end(desk.open(desk.delivery(offset=4, key=b"k")), response(200))  # like one of its rows: it need not wait
        desk.end(desk.start(offset=5), REFUSED)
    assert [each["event"] for each in logs].count("a subscription is broken") == 2


def test_a_delivery_refused_for_the_former_url_goes_to_the_new_one(desk: Desk) -> None:
    """The URL changed while its request was open. It is due at once, and the new URL's breaker stays closed."""
    delivery = desk.start()
    delivery.sent_to = desk.endpoint
    elsewhere(desk)
    with capture_logs() as logs:
        desk.end(delivery, REFUSED)
    desk.write()
    assert (desk.opens_in, logs) == (None, [])
    assert desk.seconds("status", "attempt", "next_attempt_at") == [("parked", 0, 0)]


def test_a_new_url_is_a_new_receiver(desk: Desk) -> None:
    """The old receiver's state is forgotten, so deliveries go to the new one at once."""
    desk.end(desk.start(), REFUSED)
    assert desk.lanes.room(desk.subscription, desk.monotonic.now) == 0
    desk.endpoint = replace(desk.endpoint, timeout=2.0)
    assert desk.opens_in is not None
    elsewhere(desk)
    desk.end(desk.start(offset=1), response(200))
    assert desk.settled == [1]


@pytest.mark.parametrize("outcome", [response(503, Retry_After="300"), response(401), response(410), ReadTimeout("t")])
def test_a_result_of_the_former_url_does_not_count_against_the_new_receiver(
    desk: Desk, outcome: Response | RequestException
) -> None:
    """The URL changed while the requests were open. They are retried, and the new receiver is not blamed."""
    old = desk.endpoint
    elsewhere(desk)
    for offset in range(REFUSED_IN_A_ROW):
        each = desk.start(offset=offset)
        each.sent_to = old
        desk.end(each, outcome)
    lane = desk.lanes.lane(desk.endpoint)
    assert (lane.breaker.open_until, lane.breaker.restrains, lane.timed_out) == (None, False, False)
    desk.write_all()
    assert desk.disabled() is None


@pytest.mark.parametrize("status", [410, 422])
def test_a_final_answer_of_the_former_url_ends_no_delivery(desk: Desk, status: int) -> None:
    """The URL changed while the request was open. The next attempt goes to the new receiver, which accepts it."""
    desk.endpoint = replace(desk.endpoint, final_statuses=frozenset((422,)))
    delivery = desk.start()
    delivery.sent_to = desk.endpoint
    elsewhere(desk)
    desk.end(delivery, response(status))
    assert desk.metrics.deliveries == {"retried": 1}
    desk.end(desk.go_on(delivery, SHORT), response(200))
    assert (desk.settled, desk.parking.backlog) == ([0], 0)


def test_a_request_that_cannot_be_built_is_no_attempt(desk: Desk) -> None:
    """No header can hold the event's type. The delivery is given up; neither metrics nor breaker count it."""
    for offset in range(REFUSED_IN_A_ROW):
        desk.end(desk.start(offset=offset), HOPELESS)
    assert (dict(desk.metrics.attempts), desk.metrics.deliveries["exhausted"]) == ({}, REFUSED_IN_A_ROW)
    assert desk.opens_in is None


def test_at_a_very_low_rate_no_retry_waits_in_memory(desk: Desk) -> None:
    """Its wait is short, but the rate allows its next attempt only in 100 s."""
    desk.endpoint = replace(desk.endpoint, rate_limit=0.01)
    desk.end(desk.start(), response(500))
    desk.write()
    assert (desk.waiting(), desk.settled, desk.results()[0][:2]) == ([], [0], ("parked", 1))


def test_a_retry_that_goes_from_memory_to_the_database_is_counted(desk: Desk) -> None:
    """It counts once as retried and once as parked, when each happens."""
    desk.end(desk.start(), response(500))
    desk.settling.leave_alone(desk.lanes.lane(desk.endpoint))
    assert dict(desk.metrics.deliveries) == {"retried": 1, "parked": 1}


@pytest.mark.parametrize(("made", "begun"), [(0, 0), (2, 2)], ids=["first schedule", "redelivery"])
def test_a_row_never_waits_in_memory(desk: Desk, made: int, begun: int) -> None:
    """However short the wait, a crash must find its attempt counted. Attempts of an older schedule do not count."""
    desk.end(desk.open(desk.row(attempts=made, schedule_start=begun)), response(500))
    assert desk.waiting() == []
    desk.write()
    assert desk.results() == [("parked", made + 1, SHORT, 500, "status 500")]


def test_a_delivered_row_is_updated_under_its_attempt(desk: Desk) -> None:
    """It stays taken up until the database is updated, so that no look for due rows brings it a second time."""
    desk.end(desk.due_row(attempts=4), response(200))
    assert set(desk.taken_up) == {1}
    with desk.without():
        desk.write()
    assert set(desk.taken_up) == {1}
    desk.monotonic.now += 1
    desk.write()
    assert (set(desk.taken_up), desk.memory.held) == (set(), 0)
    assert desk.results() == [("delivered", 5, None, 200, None)]


def test_each_exhausted_delivery_is_announced(desk: Desk) -> None:
    """A replay's too, although it has the event, the subscription and the attempts of the original."""
    for replay in (0, 1):
        desk.end(desk.due_row(attempts=2, replay=replay), HOPELESS)
    desk.write_all()
    announced = outbox.pending(desk.engine, GROUP, 9)
    assert [event.type for _, event, _ in announced] == ["delivery.exhausted"] * 2


def test_a_410_of_the_former_url_disables_nothing(desk: Desk) -> None:
    """The URL was changed by SQL and the old receiver removed, while a retry was still on its way there."""
    delivery = desk.start()
    with desk.engine.begin() as connection:
        connection.execute(update(Subscription).values(url="https://new.example/hook"))
    desk.end(delivery, response(410))
    desk.write_all()
    assert desk.disabled() is None


def test_a_breaker_that_opens_does_not_iterate_over_all_lanes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of receivers may be down, and each failed probe opens one again."""

    def looked(_: Lanes) -> None:
        raise AssertionError

    monkeypatch.setattr(Lanes, "__iter__", looked)
    for offset in range(10):
        desk.end(desk.start(offset=offset), response(503))
    assert desk.opens_in is not None
    assert desk.lanes.held == 0
    desk.write()
    assert sorted(desk.settled) == list(range(10))


def test_a_stored_delivery_keeps_when_it_was_first_tried(desk: Desk) -> None:
    """The time of the first attempt, not of the last."""
    delivery = desk.start()
    desk.end(delivery, response(500))
    desk.clock.now += SHORT
    desk.end(desk.go_on(delivery, SHORT), response(500))
    desk.write()
    assert desk.seconds("first_attempt_at", "first_status") == [(0, 500)]


def test_a_leaving_partition_keeps_nothing_in_memory(desk: Desk) -> None:
    """Its next owner sends the deliveries: even one with a short wait is stored. Other partitions are not affected."""
    desk.revoked.add(("t", 1))
    desk.end(desk.start(), response(500))
    assert desk.waiting() == [SHORT]
    desk.revoked.add(("t", 0))
    desk.end(desk.start(offset=1), response(500))
    assert desk.waiting() == [SHORT]
    desk.write()
    assert desk.settled == [1]
    assert desk.results() == [("parked", 1, SHORT, 500, "status 500")]


def test_a_withdrawn_retry_is_stored_unchanged(desk: Desk) -> None:
    """It keeps its attempts, its error and its due time."""
    delivery = desk.start()
    desk.end(delivery, response(503))
    desk.clock.now += 2
    assert desk.lanes.withdraw(lambda each: each is delivery) == [delivery]
    desk.settling.on_revoked(delivery)
    assert desk.settled == []
    desk.write()
    assert desk.settled == [0]
    assert desk.results() == [("parked", 1, SHORT, 503, "status 503")]


def test_a_withdrawn_delivery_is_stored_if_its_record_was_started(desk: Desk) -> None:
    """The next owner must not send the other deliveries of the record again."""
    record = desk.record(deliveries=2)
    desk.end(desk.start(record), response(200))
    desk.settling.on_revoked(Delivery(make_event(), desk.lanes.lane(desk.endpoint), record))
    assert desk.settled == []
    desk.write()
    assert desk.settled == [0]
    assert desk.results() == [("parked", 0, 0, None, None)]


def test_an_unstarted_record_is_left_to_the_next_owner(desk: Desk) -> None:
    """It is neither settled nor stored. The next owner reads it again from the log."""
    desk.settling.on_revoked(desk.delivery())
    assert (desk.settled, desk.parking.backlog) == ([], 0)


def test_a_withdrawn_row_stays_as_it_is(desk: Desk) -> None:
    """It is still pending and due. This process no longer holds it."""
    desk.settling.on_revoked(desk.due_row())
    assert (len(desk.taken_up), desk.parking.backlog) == (0, 0)
    assert desk.results() == [("parked", 1, 0, 500, "boom")]


@pytest.mark.parametrize("stored", [False, True], ids=["record", "row"])
def test_an_abandoned_request_counts_as_an_attempt(desk: Desk, *, stored: bool) -> None:
    """Its outcome is unknown. The row says so, and the next owner makes the next attempt."""
    delivery = desk.due_row(attempts=0) if stored else desk.start()
    desk.revoked.add(("t", 0))
    desk.lanes.finished(delivery.lane)
    desk.settling.on_cancelled([delivery], TOOK)
    assert (desk.settled, desk.reported) == ([], [(0, 1, None, "parked", NOW, TOOK)])
    desk.write()
    assert desk.results() == [("parked", 1, SHORT, None, UNKNOWN)]
    assert desk.settled == ([] if stored else [0])


def test_postponing_stops_while_the_database_does_not_keep_up(desk: Desk) -> None:
    """The backlog is bounded. Once it is written, there is room again."""
    record = desk.record(deliveries=BACKLOG)
    for offset in range(BACKLOG):
        assert desk.settling.may_postpone()
        desk.settling.postpone(make_event(offset), desk.endpoint, record, None)
    assert not desk.settling.may_postpone()
    desk.write()
    assert desk.settling.may_postpone()
    assert desk.metrics.deliveries == {"parked": BACKLOG}
    assert desk.results()[0] == ("parked", 0, 0, None, None)


def test_each_failed_attempt_is_one_wide_log_event(desk: Desk) -> None:
    """It has the record's place, the subscription, the outcome and the next step, but neither the body nor the URL."""
    with capture_logs() as logs:
        desk.end(desk.start(), response(503))
    (line,) = logs
    assert line == {
        "event": "attempt",
        "log_level": "warning",
        "topic": "t",
        "partition": 0,
        "offset": 0,
        "webhook_id": "msg_0",
        "event_type": "user.created",
        "subscription": desk.subscription,
        "attempt": 1,
        "seconds": TOOK,
        "status": 503,
        "outcome": "retried",
        "error": "status 503",
        "retry_in": SHORT,
    }


def test_an_answer_that_echoes_the_request_keeps_no_credential(desk: Desk) -> None:
    """The start of the answer is stored unencrypted and operators read it, but credentials are encrypted at rest."""
    key, password = "k3y-of-the-subscription", "p4ss w0rd"
    desk.endpoint = replace(desk.endpoint, confidential=(key,), auth=HTTPBasicAuth("user-name", password))
    desk.endpoint = replace(desk.endpoint, headers=(("x-api-key", key), ("x-team", "a-team")))
    echo = response(400)
    echo.request = sent = prepare(desk.endpoint).request
    echo._content = json.dumps({**sent.headers, "password": password}).encode() + b" " * 2000 + key.encode()
    desk.end(desk.start(attempts=2), echo)
    desk.write_all()
    ((kept,),) = desk.rows("last_response")
    assert kept.startswith('{"user-agent": "kafka-webhooks/')
    assert kept.count("(not shown)") == 3
    assert '"x-team": "a-team"' in kept
    for secret in (key, password, b64encode(f"user-name:{password}".encode()).decode()):
        assert secret not in kept


def test_behind_an_open_breaker_no_retry_waits_in_memory(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that was open when the breaker opened fails. Its wait is short, but it is stored like the first."""
    monkeypatch.setattr("consumer.delivery.breaker.IN_A_ROW", 1)
    first, second = (desk.start(offset=offset) for offset in (1, 2))
    desk.end(first, response(503))
    assert desk.opens_in is not None
    desk.end(second, response(503))
    assert desk.waiting() == []
    desk.write_all()
    assert [row[:2] for row in desk.results()] == [("parked", 1)] * 2
