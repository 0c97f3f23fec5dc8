"""The pages on a real database: their content, their forms, and the view of a tenant's token."""

import html
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from pathlib import Path

import pytest
from sqlalchemy import Engine, update
from structlog.testing import capture_logs

from consumer.api.tokens import TokenFile, line_of
from consumer.config.environment import load
from consumer.config.settings import KafkaSettings, RuleSettings
from consumer.console import subscriptions
from consumer.console.app import BASE
from consumer.console.assembly import SAID
from consumer.events.attempt import Attempt
from consumer.intake.dead_letters import DeadLetters
from consumer.intake.record import BAD_HEADERS, AssignedPartition, Headers, Record, Unreadable
from consumer.ledger import cursors, outbox, replays, store
from consumer.ledger.cursors import NewCursor
from consumer.ledger.rows import AttemptFailure
from consumer.ops.attempts import AttemptHistory, Minute
from consumer.ops.events import newest
from consumer.sending.validation_request import Declined, Granted, Permission
from consumer.subscriptions import repository
from models import CursorReason, Subscription
from tests.api.test_v1_observed import History, attempt
from tests.console.browser import Browser, form_token
from tests.kafka_kit import Kafka, until
from tests.ledger.rows_kit import GROUP, expire, make_event, parked


def send(browser: Browser, page: str, path: str, **fields: str) -> str:
    """Sends a form of a page and returns the page that follows."""
    return browser.post(path, data={**fields, "form_token": form_token(browser.get(page).text)}).text


def add(engine: Engine, path: str, **options: str) -> int:
    """A subscription."""
    return repository.add(engine, f"https://example.com/{path}", "order.paid", **options)  # type: ignore[arg-type]


def stored(engine: Engine, subscription: int, offset: int, status: str = "parked", tenant: str | None = None) -> int:
    """Stores a delivery that has failed and returns its id."""
    event = make_event(offset, body=b'{"offset": %d}' % offset, tenant=tenant)
    store.park(engine, GROUP, [parked(event, subscription, status=status)], 1.0)
    with engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT max(id) FROM webhook_deliveries").scalar_one())


def test_the_overview_lists_receivers_by_trouble(engine: Engine, console: Callable[[str | None], Browser]) -> None:
    """Each has its number of waiting deliveries. A missing part, as without Kafka, is named with its setting."""
    well, disabled, waiting = add(engine, "well"), add(engine, "disabled"), add(engine, "waiting")
    repository.set_enabled(engine, disabled, False, "the receiver answered 410 Gone")
    stored(engine, waiting, 1)
    expiring = add(engine, "expiring")
    cursors.begin(engine, GROUP, [NewCursor(("orders", 0, expiring), 5, CursorReason.BEHIND)], 0.0)
    expire(engine, expiring, time.time() + 7_250)
    page = console(None).get("/").text
    assert page.index("https://example.com/expiring") < page.index("https://example.com/disabled")
    assert "Kafka removes its next event in 2 h 0 min" in page
    assert page.index("https://example.com/disabled") < page.index("https://example.com/waiting")
    assert f"/subscriptions/{well}" not in page
    assert all(text in page for text in ("410 Gone", "boom", "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_ATTEMPTS_TOPIC"))


def test_the_overview_of_a_tenant_is_about_its_own(engine: Engine, console: Callable[..., Browser]) -> None:
    """Its receivers, numbers and failures have nothing of others, and no lag, group or address of the deployment."""
    mine, other = add(engine, "mine", tenant="acme"), add(engine, "other", tenant="other")
    moves = add(engine, "moves", tenant="acme")  # it was another tenant's
    repository.pause(engine, moves, "no space")
    stored(engine, mine, 1, tenant="acme")
    for offset in (2, 3):
        stored(engine, other, offset, tenant="other")
    history = AttemptHistory(Kafka("127.0.0.1:1", real=False).settings(), "attempts")  # it has not begun to read
    now = time.time()
    tried = Attempt(now, mine, "msg_3", "a", "acme", "t", 0, 3, 1, "parked", None, "to 10.9.8.7", 0.1, None)
    others = [tried._replace(subscription_id=number, tenant=of) for number, of in ((other, "other"), (other, "acme"))]
    others.append(tried._replace(subscription_id=moves, tenant="other"))
    for each in (tried, tried._replace(outcome="delivered", error=None), *others):
        history._recent.add(each._replace(event_type=f"of-{each.subscription_id}"), 100, now)
    page = console("acme", history=history).get("/").text
    rows = re.findall(r'id="receiver-\d+"[^>]*>https://example.com/(\w+)<', page)
    assert sorted(rows) == ["mine", "moves"]
    figures = dict(re.findall(r'<dt>([^<]+)</dt>\s*<dd class="value">([^<]+)</dd>', page))
    assert (figures["Delivered, last hour"], figures["Success"], figures["Stored, waiting"]) == ("1", "50.0 %", "1")
    assert [f"of-{number}" in page for number in (mine, other, moves)] == [True, False, False]
    assert "to …" in page
    assert not re.search("10.9.8.7|Lag|cannot be read|Group", page)
    assert "Lag, records" in console(None).get("/").text


def test_an_empty_service_says_how_to_begin(console: Callable[[str | None], Browser]) -> None:
    """Each page explains its future content."""
    browser = console(None)
    for path, text in (
        ("/", "No receiver yet"),
        ("/subscriptions", "kafka-webhooks subscriptions add"),
        ("/deliveries", "No stored delivery matches"),
        ("/replays", "kafka-webhooks replay"),
        ("/types", "No event type yet"),
        ("/events", "Attempt history is off"),
        ("/dead-letters", "Set KAFKA_BOOTSTRAP_SERVERS"),
        ("/audit", "Set KAFKA_BOOTSTRAP_SERVERS"),
    ):
        assert text in browser.get(path).text


def test_the_overview_says_that_every_receiver_is_well(engine: Engine, console: Callable[..., Browser]) -> None:
    """It does if there is one, and none has trouble."""
    number = add(engine, "well")
    assert "Every receiver is well" in console(None).get("/").text
    repository.pause(engine, number)
    assert "Every receiver is well" not in console(None).get("/").text


def test_a_subscription_is_added_and_changed_by_forms(engine: Engine, console: Callable[[str | None], Browser]) -> None:
    """Each change is an operational event with the token's name."""
    browser = console("all")
    new = {"url": "https://example.com/new", "event_type": "order.*"}
    page = send(browser, "/subscriptions/new", "/subscriptions/new", **new)
    assert all(text in page for text in (SAID["created"].text, "https://example.com/new", "order.*"))
    (item,) = repository.walk(engine)
    here = f"/subscriptions/{item.id}"
    assert SAID["disabled"].text in send(browser, here, f"{here}/disable")
    assert SAID["enabled"].text in send(browser, here, f"{here}/enable")
    rotated = send(browser, here, f"{here}/rotate-secret", overlap="604800")
    assert "signs too for a week" in rotated
    assert "whsec_" in rotated
    assert "shown only once" in rotated
    assert "whsec_" not in browser.get(here).text
    told = [(operation.type, operation.data["actor"]) for _, operation, _ in outbox.pending(engine, GROUP, 10)]
    kinds = ("created", "disabled", "enabled", "secret_rotated")
    assert told == [(f"subscription.{kind}", "console:all") for kind in kinds]


@pytest.mark.parametrize(("required", "wanted"), [("true", {}), ("false", {"own_secret": "yes"}), ("false", {})])
def test_a_new_subscription_may_have_a_secret_of_its_own(
    engine: Engine, console: Callable[..., Browser], required: str, wanted: dict[str, str]
) -> None:
    """It has one if the deployment requires it, or the form asks for it. The next page alone shows the key."""
    browser = console("all", rules=load(RuleSettings, {"WEBHOOK_REQUIRE_OWN_SECRET": required}))
    new = {"url": "https://example.com/new", "event_type": "order.*", **wanted}
    page = send(browser, "/subscriptions/new", "/subscriptions/new", **new)
    assert SAID["created"].text in page
    (item,) = repository.walk(engine)
    own = required == "true" or bool(wanted)
    assert (item.secrets, "whsec_" in page, "The previous secret" in page) == (int(own), own, False)
    assert "whsec_" not in browser.get(f"/subscriptions/{item.id}?tab=secrets").text


def test_the_list_has_the_state_of_each_subscription_s_page(
    engine: Engine, console: Callable[..., Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recent failures are among the states, and the reason beside a bad one. To share the secret is no warning.

    Each state can be filtered, however many others come first; an unknown one is an error.
    """
    monkeypatch.setattr(subscriptions, "PAGE", 1)
    monkeypatch.setattr(subscriptions, "READ", 2)
    monkeypatch.setattr(subscriptions, "LOOKED_AT", 4)
    names = ("shares", "flaky", "down", "broken", "odd", "failing", "paused", "disabled")
    made = {name: add(engine, name, tenant="acme") for name in names}
    made |= {f"well-{n}": add(engine, f"well-{n}") for n in range(7)} | {"late": add(engine, "late")}
    repository.pause(engine, made["paused"], "it moves")
    repository.set_enabled(engine, made["disabled"], False)
    with engine.begin() as connection:
        failing, odd, broken = {"failing_since": datetime.now(UTC)}, {"metadata": '{"a": 1}'}, {"url": "nonsense"}
        for name, values in (("failing", failing), ("odd", odd), ("broken", broken), ("late", broken)):
            connection.execute(update(Subscription).where(Subscription.id == made[name]).values(values))
    history = AttemptHistory(Kafka("127.0.0.1:1", real=False).settings(), "attempts")  # it has not begun to read
    now = time.time()
    for number, (name, outcome) in enumerate([("flaky", "parked"), *[("flaky", "delivered")] * 3, ("down", "parked")]):
        tried = Attempt(now, made[name], f"m{number}", "a", "acme", "t", 0, 3, 1, outcome, 503, None, 0.1, None)
        history._recent.add(tried, 100, now)
    browser, known = console(None, history=history), {number: name for name, number in made.items()}

    def found(state: str) -> dict[str, str]:
        ids, words, path = list[int](), list[str](), f"/subscriptions?state={state}"
        while path:
            page = browser.get(path).text
            ids += map(int, re.findall(r'<td[^>]*><a[^>]* href="/console/subscriptions/(\d+)"', page))
            words += re.findall(r'<td><span class="badge \w+">([^<]+)<', page)
            link = re.search(r'href="/console([^"]+)" rel="next"', page)
            path = "" if link is None else html.unescape(link[1])
        for number, word in zip(ids, words, strict=True):
            assert f">{word}</span>" in browser.get(f"/subscriptions/{number}").text
        return dict(zip((known[each] for each in ids), words, strict=True))

    wrong = {"flaky": "25.0 % fail", "down": "100 % fail", "odd": "warning"}
    assert found("warning") == wrong
    assert found("broken") == {"broken": "broken", "late": "broken"}
    states = found("")
    assert states.items() >= {**wrong, "shares": "well", "failing": "failing", "paused": "paused"}.items()
    assert len(states) == len(made)
    refused = browser.get("/subscriptions?state=lost")
    assert (refused.status_code, "There is no state lost." in refused.text) == (HTTPStatus.BAD_REQUEST, True)


def test_a_subscription_is_paused_and_resumed(engine: Engine, console: Callable[[str | None], Browser]) -> None:
    """Its page has the button that fits; the lists have its state, since when, and the reason."""
    browser, number = console("all"), add(engine, "moves")
    here = f"/subscriptions/{number}"

    def buttons() -> list[str]:
        return [
            name
            for name in ("Pause", "Resume", "Disable", "Enable")
            if re.search(f">{name}( …)?</(a|button)>", browser.get(here).text)
        ]

    assert buttons() == ["Pause", "Disable"]
    assert SAID["paused"].text in send(browser, here, f"{here}/pause")
    assert buttons() == ["Resume", "Disable"]
    repository.pause(engine, number, "its database moves")
    pages = [browser.get(path).text for path in (here, "/subscriptions", "/subscriptions?state=paused")]
    for page in (*pages, console(None).get("/").text):  # signing in has opened the other console's overview
        assert all(text in page for text in (">paused</span>", "its database moves"))
    assert "probed" not in browser.get(here).text
    with engine.begin() as connection:  # as after days of failures
        connection.exec_driver_sql("UPDATE webhook_subscriptions SET probed_at = paused_at")
    assert ", and probed until it answers: its database moves" in browser.get(here).text
    assert "https://example.com/moves" not in browser.get("/subscriptions?state=enabled").text
    send(browser, here, f"{here}/disable")
    assert buttons() == ["Enable"]
    assert "It is still paused" in send(browser, here, f"{here}/enable")
    assert SAID["resumed"].text in send(browser, here, f"{here}/resume")
    assert buttons() == ["Pause", "Disable"]
    told = [(operation.type, operation.data["actor"]) for _, operation, _ in outbox.pending(engine, GROUP, 10)]
    kinds = ("paused", "disabled", "enabled", "resumed")
    assert told == [(f"subscription.{kind}", "console:all") for kind in kinds]


def test_cursors_are_shown(engine: Engine, console: Callable[[str | None], Browser]) -> None:
    """A subscription's page says what it is owed from Kafka, how old the next event is, and how long Kafka keeps it."""
    browser, mine, other = console(None), add(engine, "mine"), add(engine, "other")
    here = f"/subscriptions/{mine}"
    assert "Owed from Kafka" not in browser.get(here).text
    old = int((time.time() - 7300) * 1000)
    owed = [
        (GROUP, NewCursor(("orders", 3, mine), 41_000, CursorReason.PAUSED, timestamp=old)),
        (GROUP, NewCursor(("orders", 4, other), 5, CursorReason.PAUSED)),
        ("another", NewCursor(("orders", 5, mine), 6, CursorReason.BEHIND, end=72_000)),
    ]
    for group, new in owed:
        cursors.begin(engine, group, [new], 0.0)
    expire(engine, mine, time.time() + 187_250, partition=3)
    expire(engine, mine, time.time() + 7_250, partition=5)
    page = browser.get(here).text
    assert 'class="badge ">2 d 4 h<' in page
    assert 'class="badge warn">2 h 0 min<' in page
    shown = ("orders[3]", "41,000", "new events", "2 h ago", "orders[5]", "group another", "72,000", "behind")
    assert [text for text in shown if text not in page] == []
    assert "orders[4]" not in page


def test_a_form_comes_back_to_its_tab(engine: Engine, console: Callable[..., Browser]) -> None:
    """A subscription's page opens on its attempts, or without a history on what waits."""
    here, browser = f"/subscriptions/{add(engine, 'hooks')}", console("all", ask=lambda *_: Granted(120))
    history = History([])
    history.summary = lambda _: []  # type: ignore[attr-defined]

    def tab(page: str) -> str:
        return "".join(re.findall('href="[?]tab=([a-z]+)" aria-current="page"', page))

    assert tab(console(None, history=history).get(here).text) == "attempts"
    asked = ("", "?tab=attempts", "?tab=options", "?tab=replay", "?tab=x")
    found = [tab(browser.get(here + each).text) for each in asked]
    assert found == ["waiting", "attempts", "options", "waiting", "waiting"]
    for word in ("pause", "resume", "verify"):
        action = re.findall(rf'action="/console({here}/{word}[^"]*)"', browser.get(f"{here}?tab=options").text)[0]
        assert tab(send(browser, here, action)) == "options"
    assert tab(send(browser, here, f"{here}/rotate-secret", overlap="0")) == "secrets"
    assert 'tab=secrets">Cancel</a>' in browser.get(f"{here}/rotate-secret").text


def test_a_receiver_is_asked_for_its_permission(engine: Engine, console: Callable[..., Browser]) -> None:
    """There is a button until it has agreed, and the page shows its answer as text."""
    here = f"/subscriptions/{add(engine, 'asked')}"
    answers: list[Permission] = [Declined("it <b>does not</b>", "look there"), Granted(120)]
    nameless, browser = console("all"), console("all", ask=lambda *_: answers.pop(0))
    assert "Verify</button>" not in nameless.get(here).text
    assert "Set WEBHOOK_ORIGIN" in send(nameless, here, f"{here}/verify")
    refused, granted = (send(browser, here, f"{here}/verify") for _ in range(2))
    assert "it &lt;b&gt;does not&lt;/b&gt; (look there)" in refused
    assert "permits 120 requests a minute" in granted
    assert ["Verify</button>" in page for page in (refused, granted)] == [True, False]


@pytest.mark.parametrize(("url", "event_type"), [("https://127.0.0.1/", "a"), ("https://example.com/h", "two words")])
def test_an_invalid_subscription_is_not_added(
    engine: Engine, console: Callable[[str | None], Browser], url: str, event_type: str
) -> None:
    """The form comes back with the input and the reason."""
    page = send(console(None), "/subscriptions/new", "/subscriptions/new", url=url, event_type=event_type)
    assert "cannot work" in page
    assert f'value="{url}"' in page
    assert list(repository.walk(engine)) == []


def test_lists_go_on_from_page_to_page(engine: Engine, console: Callable[[str | None], Browser]) -> None:
    """Each subscription and each delivery is on one page, also with a filter."""
    browser = console(None)
    ids = [add(engine, f"n{number}") for number in range(120)]
    assert seen(browser, "/subscriptions?event_type=order.paid", "subscriptions") == ids
    rows = [stored(engine, ids[0], offset) for offset in range(1, 121)]
    assert seen(browser, f"/deliveries?state=parked&subscription={ids[0]}", "deliveries") == rows[::-1]


def seen(browser: Browser, path: str, kind: str) -> list[int]:
    """The ids on this page and all following ones."""
    found: list[int] = []
    following: str | None = path
    while following is not None:
        page = browser.get(following).text
        ids = [int(each) for each in re.findall(rf'<td[^>]*><a[^>]* href="/console/{kind}/(\d+)\b', page)]
        assert 0 < len(ids) <= 50
        found += ids
        link = re.search(r'href="/console([^"]+)" rel="next"', page)
        following = None if link is None else html.unescape(link[1])
    return found


def test_a_delivery_shows_its_payload_and_is_sent_again(
    engine: Engine, console: Callable[[str | None], Browser]
) -> None:
    """Text of receivers and producers is escaped."""
    browser = console(None)
    delivery = stored(engine, add(engine, "down"), 7, "exhausted")
    page = browser.get(f"/deliveries/{delivery}").text
    assert "{&#34;offset&#34;: 7}" in page
    assert "{\n  &#34;offset&#34;: 7\n}" in page
    assert "/console/events/t/0/7" in page
    assert "&lt;h1&gt;no&lt;/h1&gt;" in page
    assert "<h1>no" not in page
    after = send(browser, f"/deliveries/{delivery}", "/deliveries/redeliver", id=str(delivery))
    assert "Marked: 1." in after
    ((_, operation, _),) = outbox.pending(engine, GROUP, 10)
    assert (operation.type, operation.data["delivery_ids"]) == ("delivery.redelivered", [delivery])
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT status FROM webhook_deliveries").scalars().all() == ["parked"]


def test_a_delivery_says_what_it_waits_for_and_what_was_tried(engine: Engine, console: Callable[..., Browser]) -> None:
    """The attempts are those of its record and subscription, and for a tenant those of its own."""
    mine, other = add(engine, "mine", tenant="acme"), add(engine, "other", tenant="acme")
    repository.pause(engine, mine, "its database moves")
    delivery = stored(engine, mine, 3, tenant="acme")
    history = AttemptHistory(Kafka("127.0.0.1:1", real=False).settings(), "attempts")  # it has not begun to read
    tried = Attempt(time.time(), mine, "msg_3", "a", "acme", "t", 0, 3, 1, "parked", 503, "status 503", 0.1, "<b>busy")
    others = [tried._replace(offset=4), tried._replace(subscription_id=other), tried._replace(tenant="globex")]
    for each in (tried, *(each._replace(response="another") for each in others)):
        history._recent.add(each, 100, time.time())
    history._recent.add(tried._replace(subscription_id=99, response="of all tenants"), 100, time.time())
    browser = console("acme", history=history)
    page = browser.get(f"/deliveries/{delivery}").text
    assert "Its subscription is paused since" in page
    assert "its database moves. It is sent once that is resumed." in page
    assert ("&lt;b&gt;busy" in page, "another" in page, "/console/events/t/0/3" in page) == (True, False, True)
    page = browser.get("/events").text
    assert (page.count("&lt;b&gt;busy"), page.count("another"), "of all tenants" in page) == (1, 2, False)


def test_the_attempts_of_a_subscription_go_on_into_the_past(engine: Engine, console: Callable[..., Browser]) -> None:
    """Its page links to earlier ones, takes times, and loads how many succeed; a tenant sees its own events'."""
    mine, other = add(engine, "mine", tenant="acme"), add(engine, "other", tenant="other")
    made = [attempt(mine, "acme")._replace(at=1_800_000_000.0 - each, response=f"try {each}") for each in range(60)]
    history = History([*made, attempt(mine, "other")._replace(response="theirs")])
    history.summary = lambda _: [Minute(0, 1, 2)]  # type: ignore[attr-defined]
    browser = console("acme", history=history)
    path = f"/subscriptions/{mine}"
    page = browser.get(path).text
    assert ("try 9<" in page, "try 10<" in page, "theirs" in page) == (True, False, False)
    assert f'hx-get="/console{path}/statistics"' in page
    earlier = html.unescape(re.findall('href="([?][^"]+)#attempts"', page)[0])
    page = browser.get(path + earlier).text
    assert ("try 9<" in page, "try 10<" in page, "try 59<" in page, "theirs" in page) == (False, True, True, False)
    page = browser.get(f"{path}?since=2027-01-15T07:59:50&until=2027-01-15T08:00").text
    assert ("try 10<" in page, "try 11<" in page, "try 0<" in page, "theirs" in page) == (True, False, False, False)
    wrong = browser.get(f"{path}?since=yesterday")
    assert (wrong.status_code, 'value="yesterday"' in wrong.text) == (HTTPStatus.BAD_REQUEST, True)
    assert browser.get(f"{path}?cursor=x").status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    part = browser.get(f"{path}/statistics").text
    assert "about 120" in part
    assert "a sample of 60 attempts since" in part
    assert f'hx-get="/console{path}/statistics?unread=3"' in part
    assert "too slowly" in browser.get(f"{path}/statistics?unread=3").text  # no more is read: it ends
    assert browser.get(f"/subscriptions/{other}/statistics").status_code == HTTPStatus.NOT_FOUND


def test_statistics_that_cannot_be_read_say_why(engine: Engine, console: Callable[..., Browser]) -> None:
    """The page's part is shown with the reason, since htmx would not replace "Reading" by another status."""
    mine = add(engine, "mine")
    kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    history = AttemptHistory(kafka, "attempts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("consumer.intake.log_reader._TIMEOUT", 0.2)
        part = console(None, history=history).get(f"/subscriptions/{mine}/statistics")
    assert part.status_code == HTTPStatus.OK
    assert "was not read: no answer from Kafka at 127.0.0.1:1" in part.text


def test_a_failure_of_a_delivery_is_shown_once(engine: Engine, console: Callable[..., Browser]) -> None:
    """It has a card of its own only while it is not among the attempts."""
    sub, now = add(engine, "down"), time.time()
    first, last = (AttemptFailure(error, None, None, now - age) for error, age in (("refused", 900), ("reset", 60)))
    store.park(engine, GROUP, [parked(make_event(3), sub, first=first, last=last)], now)
    history = AttemptHistory(Kafka("127.0.0.1:1", real=False).settings(), "attempts")  # it has not begun to read
    browser, cards = console(None, history=history), ["Last failure", "First failure"]
    for each in (last, first):
        assert re.findall(r"<h2>(\w+ failure)", browser.get("/deliveries/1").text) == cards
        tried = Attempt(each.at, sub, "msg_3", "a", None, "t", 0, 3, 1, "parked", None, each.error, 0.1, None)
        history._recent.add(tried, 100, now)
        cards.pop(0)
    page = browser.get("/deliveries/1").text
    assert ("failure</h2>" in page, page.count("refused"), page.count("reset")) == (False, 1, 1)


def test_a_subscription_s_name_and_tenant_stand_wherever_its_number_does(
    engine: Engine, console: Callable[..., Browser]
) -> None:
    """Nobody has to look up a number at night. Failures of one receiver take one row, with how many there are."""
    number, beside = add(engine, "erp", name="Acme ERP", tenant="acme"), add(engine, "beside")
    delivery = stored(engine, number, 7)
    history = AttemptHistory(Kafka("127.0.0.1:1", real=False).settings(), "attempts")  # it has not begun to read
    tried = attempt(number, "acme")._replace(at=time.time())
    for each in (*[tried] * 9, tried._replace(subscription_id=beside)):
        history._recent.add(each._replace(at=each.at), 100, each.at)
    replays.create(engine, GROUP, number, 0.0, 1.0, None, 1.0, [], 0.0)
    browser = console(None, history=history)
    pages = {path: browser.get(path).text for path in ("/", "/events", "/deliveries", "/replays", "/subscriptions")}
    pages |= {path: browser.get(path).text for path in (f"/deliveries/{delivery}", f"/subscriptions/{number}/remove")}
    form = {"form_token": form_token(pages["/deliveries"]), "do": "disable", "id": [str(number), str(beside)]}
    pages["several"] = browser.post("/subscriptions/several", data=form).text
    for path, page in pages.items():
        main = page.partition("<main")[2]
        assert all(text in main for text in ("Acme ERP", "acme")), path
    failures = pages["/"].partition('id="failures"')[2]
    rows = re.findall(r'(#\d+).*?data-label="failures">(\d+)<', failures, re.DOTALL)
    assert rows == [(f"#{beside}", "1"), (f"#{number}", "9")]


def test_nothing_reorders_the_text_around_it(engine: Engine, console: Callable[..., Browser]) -> None:
    """Controls of the direction of text are escaped on every page; a form keeps them, since it is saved as it came."""
    name = "from \u202ekcabdeef\u2066 \u05e9\u200f"
    labels = f'{{"note": "{name}"}}'
    number, body = add(engine, "hooks", metadata=labels), labels.encode()
    repository.pause(engine, number, name)
    failed = AttemptFailure(name, 500, name, time.time())
    store.park(engine, GROUP, [parked(make_event(3, body=body), number, last=failed)], 1.0)
    browser, here = console(None), f"/subscriptions/{number}"
    for path in ("/", "/subscriptions", here, f"{here}?tab=options", "/deliveries", "/deliveries/1"):
        page = browser.get(path).text
        assert "from \\u202ekcabdeef\\u2066" in page, path
        assert not re.search("[\u200f\u202e\u2066]", page), path
    assert name in html.unescape(browser.get(f"{here}/edit").text)


def test_a_delivery_that_is_stored_no_more_leads_to_what_became_of_it(
    engine: Engine, console: Callable[..., Browser]
) -> None:
    """A link to a delivery outlives its row; the page behind it says so, and leads to its event."""
    browser, delivery = console(None), stored(engine, add(engine, "down"), 7)
    (link,) = re.findall(rf'href="/console(/deliveries/{delivery}[^"]*)"', browser.get("/deliveries").text)
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM webhook_deliveries")
    gone = browser.get(html.unescape(link))
    assert gone.status_code == HTTPStatus.NOT_FOUND
    assert f"Delivery {delivery} is not stored any more" in gone.text
    assert 'href="/console/events/t/0/7"' in gone.text
    for path in (f"/deliveries/{delivery}", f"/deliveries/{delivery}?event=x", "/nowhere", "/subscriptions/99"):
        main = browser.get(path).text.partition("<main")[2]
        assert 'href="/console/' in main, path  # there is a way on


@pytest.mark.parametrize("query", ["state=lost", "subscription=x", "since=yesterday", "position=x"])
def test_an_invalid_search_says_so(console: Callable[[str | None], Browser], query: str) -> None:
    """It is not a server error."""
    answer = console(None).get(f"/deliveries?{query}")
    assert (answer.status_code, "cannot be made" in answer.text) == (HTTPStatus.BAD_REQUEST, True)


def test_a_tenant_s_token_sees_its_own(engine: Engine, console: Callable[..., Browser]) -> None:
    """Other tenants' subscriptions and deliveries are unknown to it on every page and in every form."""
    mine, other = add(engine, "mine", tenant="acme"), add(engine, "other", tenant="other")
    own, foreign = stored(engine, mine, 1, tenant="acme"), stored(engine, other, 2, tenant="other")
    earlier = stored(engine, mine, 3, tenant="other")  # the subscription was of all tenants
    browser = console(
        "acme", ping=lambda *_: pytest.fail("a test event was sent"), ask=lambda *_: pytest.fail("it was asked")
    )
    for path in ("/", "/subscriptions", "/subscriptions?tenant=other", f"/deliveries?subscription={other}"):
        assert "https://example.com/other" not in browser.get(path).text
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE webhook_deliveries SET last_error = 'connecting to 10.9.8.7:443'")
    for path in (f"/deliveries/{own}", f"/subscriptions/{mine}", "/deliveries"):
        assert "10.9.8.7" not in browser.get(path).text
        assert "connecting to …:443" in browser.get(path).text
    for path in ("/deliveries", f"/subscriptions/{mine}"):
        links = browser.get(path).text
        assert (f"/deliveries/{own}?" in links, f"/deliveries/{earlier}?" in links) == (True, False)
    for path in (f"/subscriptions/{other}", f"/deliveries/{foreign}", f"/deliveries/{earlier}"):
        assert browser.get(path).status_code == HTTPStatus.NOT_FOUND
    owed = NewCursor(
        ("orders", 0, mine), 41_234, CursorReason.PAUSED, end=777_888
    )  # offsets are of all tenants' events
    cursors.begin(engine, "secret-group", [owed], 0.0)
    owing = browser.get(f"/subscriptions/{mine}").text
    assert "orders[0]" in owing
    assert not re.search("41,234|777,888|secret-group|From offset", owing)
    menu = re.findall('href="/console([^"]+)"', re.findall("<nav.*?</nav>", owing, re.DOTALL)[0])
    assert menu == ["/", "/subscriptions", "/events", "/deliveries", "/replays"]
    assert [browser.get(path).status_code for path in menu] == [HTTPStatus.OK] * 5
    for path in ("/types", "/dead-letters", "/audit"):
        assert browser.get(path).status_code == HTTPStatus.FORBIDDEN
    page = f"/subscriptions/{mine}"
    for path in ("enable", "disable", "pause", "resume", "ping", "verify", "rotate-secret", "edit", "remove"):
        assert "There is no subscription" in send(browser, page, f"/subscriptions/{other}/{path}", overlap="0")
    send(browser, page, "/deliveries/redeliver", id=str(foreign))
    new = {"url": "https://example.com/another", "event_type": "a", "tenant": "other"}
    send(browser, page, "/subscriptions/new", **new)
    assert {item.url: item.tenant for item in repository.walk(engine)}["https://example.com/another"] == "acme"
    assert [operation.data["url"] for _, operation, _ in outbox.pending(engine, GROUP, 10)] == [new["url"]]


def test_a_dead_letter_without_its_whole_record_is_not_published_again(
    engine: Engine, mock_kafka: str, console: Callable[..., Browser]
) -> None:
    """Without its content it would be a tombstone, and without its headers another event. The page says why.

    One that was published again is marked, and an operational event names the caller.
    """
    kafka = Kafka(mock_kafka, real=False)
    settings, topic = kafka.settings(), kafka.topic()
    letters = DeadLetters(settings)
    acknowledged: list[int] = []
    parts: tuple[tuple[str, bytes | None, Headers | Unreadable], ...] = (
        ("not_json", b"one", [("event-id", b"7")]),
        ("unreadable", None, Unreadable("unreadable", "damaged")),
        ("bad_headers", b"three", BAD_HEADERS),
    )
    for offset, (reason, value, headers) in enumerate(parts):
        record = Record(AssignedPartition(topic, 0), offset, 1_700_000_000_000, b"key", value, headers)
        letters.send(record, reason, "detail", partial(acknowledged.append, offset))

    def all_acknowledged() -> bool:
        letters.poll(0.0)
        return len(acknowledged) == len(parts)

    until(all_acknowledged)
    letters.close()
    browser = console(None, kafka=settings)
    page = html.unescape(browser.get("/dead-letters").text)
    reasons = ("its producer has to publish it again", "the content of this record", "the headers of this record")
    assert [page.count(text) for text in (" disabled ", *reasons)] == [2, 2, 1, 1]
    for letter in newest(settings, settings.dead_letter_topic, 9):
        place = {"partition": str(letter.partition.number), "offset": str(letter.offset)}
        answer = html.unescape(send(browser, "/dead-letters", "/dead-letters/publish", **place))
        published = letter.value == b"one"
        assert (SAID["published"].text in answer) == published
        if published:
            where = {"topic": settings.dead_letter_topic, "places": [[letter.partition.number, letter.offset]]}
    ((_, operation, _),) = outbox.pending(engine, GROUP, 10)
    assert (operation.type, operation.data) == (
        "dead_letter.published",
        {"actor": "console:local", "published_to": [topic], **where},
    )
    page = html.unescape(browser.get("/dead-letters").text)
    assert [page.count(text) for text in ("Published again", "Publish once more to", "Publish again to")] == [1, 1, 2]
    (again,) = newest(settings, topic, 9)
    assert (again.key, again.value, again.headers) == (b"key", b"one", [("event-id", b"7")])


@pytest.mark.parametrize("path", ["/", "/absent", "/sign-in", "/static/absent"])
def test_a_host_name_of_another_site_is_refused_without_tokens(console: Callable[..., Browser], path: str) -> None:
    """Otherwise its pages could use this console by a name that resolves here (DNS rebinding)."""
    browser = console(None)
    answer = browser.get(path, headers={"host": "evil.example"}, allow_redirects=False)
    assert (answer.status_code, answer.headers.get("set-cookie")) == (HTTPStatus.FORBIDDEN, None)


def test_a_file_without_tokens_lets_nobody_in(console: Callable[..., Browser], tmp_path: Path) -> None:
    """An operator may have revoked the last token."""
    file = tmp_path / "tokens.toml"
    file.write_text(line_of("ops", "a-token", ["read"], None))
    browser = console(None, TokenFile(str(file)))
    browser.post("/sign-in", data={"token": "a-token"})
    assert "Overview" in browser.get("/subscriptions").text
    file.write_text("# none")
    for path in ("/", "/subscriptions", "/absent"):
        answer = browser.get(path, headers={"host": "localhost"}, allow_redirects=False)
        assert answer.headers["location"].startswith(f"{BASE}/sign-in")
        assert "set-cookie" not in answer.headers
    part = browser.get("/", headers={"host": "localhost", "hx-request": "true"})
    assert (part.status_code, part.headers["hx-refresh"]) == (HTTPStatus.UNAUTHORIZED, "true")
    assert browser.post("/sign-in", data={"token": ""}).status_code == HTTPStatus.UNAUTHORIZED


def test_an_unreachable_database_is_named_on_the_page(engine: Engine, console: Callable[[str | None], Browser]) -> None:
    """The overview is shown without the missing parts."""
    browser = console(None)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE webhook_deliveries")
    page = browser.get("/").text
    missing = (
        "The numbers of stored deliveries and the failing subscriptions and the subscriptions with waiting deliveries"
        " and the disabled subscriptions and the paused subscriptions"
    )
    assert f"{missing} cannot be read" in page
    assert "Every receiver is well" not in page
    with capture_logs():
        assert browser.get("/deliveries").status_code == HTTPStatus.SERVICE_UNAVAILABLE


@pytest.mark.parametrize(
    ("site", "coding"),
    [(None, "gzip"), ("same-origin", "gzip"), ("none", "gzip"), ("same-site", None), ("cross-site", None)],
)
def test_answers_are_compressed_for_their_own_site_alone(
    console: Callable[[str | None], Browser], engine: Engine, site: str | None, coding: str | None
) -> None:
    """Another site could have guesses repeated beside what the visitor may see, and learn from the length of both."""
    add(engine, "guess")
    browser = console("all")
    headers = {"authorization": "Bearer all", **({} if site is None else {"sec-fetch-site": site})}
    for path in ("/subscriptions?url=guess", "/../v1/subscriptions?url=guess"):
        answer = browser.get(path, headers=headers)
        assert (answer.status_code, answer.headers.get("content-encoding")) == (200, coding)
    assert "content-encoding" not in browser.get("/subscriptions", headers={"accept-encoding": "identity"}).headers


def test_the_reference_needs_nothing_from_elsewhere(console: Callable[[str | None], Browser]) -> None:
    """Without a token, it refers only to files of this server; its policy allows no inline script and no eval."""
    browser = console("all")
    assert 'href="/reference"' in browser.get("/subscriptions").text
    browser.cookies.clear()
    for _ in range(2):  # each answer is compressed by itself
        page = browser.get("/../reference", headers={"accept-encoding": "gzip"})
    policy = dict(each.split(" ", 1) for each in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert {policy.pop("img-src")} | set(policy.values()) == {"'self' data:", "'self'", "'none'"}
    targets = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert len(targets) == 5
    assert all(target.startswith("/") and browser.get(f"/..{target}").ok for target in targets)
