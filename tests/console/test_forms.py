"""Forms that change much: all options, several subscriptions, all deliveries that match; and pages that ask before."""

import html
import re
from collections.abc import Callable
from http import HTTPStatus

import pytest
from sqlalchemy import Engine

from consumer.console import deliveries
from consumer.console.assembly import SAID
from consumer.ledger import admin, outbox
from consumer.ledger.admin import DeliveryQuery
from consumer.subscriptions import repository
from consumer.subscriptions.options import OPTIONS
from consumer.subscriptions.subscribed import Subscribed
from tests.console.browser import Browser, form_token
from tests.console.test_pages import add, send, stored
from tests.ledger.rows_kit import GROUP

OPENS = Callable[..., Browser]


def texts(page: str) -> dict[str, str]:
    """The fields of the form on a page, by name."""
    inputs = re.findall(r'<input (?:[^>]*?)name="(\w+)"[^>]*? value="([^"]*)"', page)
    areas = re.findall(r'<textarea [^>]*?name="(\w+)"[^>]*>\n([^<]*)</textarea>', page)
    chosen = re.findall(r'<select [^>]*?name="(\w+)"[^>]*>.*?<option selected>([^<]*)<', page)
    return {name: html.unescape(text) for name, text in (*inputs, *areas, *chosen)}


def only(engine: Engine) -> Subscribed:
    """The only subscription."""
    (item,) = repository.walk(engine)
    return item


def save(browser: Browser, number: int, **changes: str) -> str:
    """Changes fields of the form of a subscription and sends it; returns the page that follows."""
    path = f"/subscriptions/{number}/edit"
    return browser.post(path, data=texts(browser.get(path).text) | changes).text


FOLLOWING = ("header_expressions", "pass_headers", "report_answer", "answer_headers")  # not with batches


def test_the_form_has_each_option_when_a_subscription_is_added_and_when_it_is_changed(
    engine: Engine, console: OPENS
) -> None:
    """A form that is sent as it came changes nothing; confidential values are not in it, and stay."""
    browser = console("all")
    apart = {"batch_wait_ms", *FOLLOWING}
    examples = {name: option.example for name, option in OPTIONS.items() if name not in apart}
    examples["custom_headers"] = '{"X-Origin": "confidential"}'
    assert OPTIONS.keys() <= texts(browser.get("/subscriptions/new").text).keys()
    page = send(browser, "/subscriptions/new", "/subscriptions/new", **examples)
    assert SAID["created"].text in page
    before = only(engine)
    assert {name: str(before.options[name]).removesuffix(".0") for name in examples} == examples
    shown = browser.get(f"/subscriptions/{before.id}/edit").text
    assert OPTIONS.keys() <= texts(shown).keys()
    assert "confidential" not in shown
    assert SAID["changed"].text in save(browser, before.id)
    assert SAID["changed"].text in save(browser, before.id, rate_limit="2.5", batch_size="", event_filter="true")
    changed: dict[str, object] = {"rate_limit": 2.5, "batch_size": None, "event_filter": "true"}
    assert only(engine).options == {**before.options, **changed}
    follows = {name: OPTIONS[name].example for name in FOLLOWING}
    assert SAID["changed"].text in save(browser, before.id, **follows)
    assert only(engine).options == {**before.options, **changed, **follows}
    told = [
        (each.type, each.data["actor"], each.data.get("changed")) for _, each, _ in outbox.pending(engine, GROUP, 9)
    ]
    assert told[1:] == [
        ("subscription.changed", "console:all", ["event_filter", "batch_size", "rate_limit"]),
        ("subscription.changed", "console:all", [*FOLLOWING]),
    ]


def test_several_types_are_written_in_lines(engine: Engine, console: OPENS) -> None:
    """The first one stays the first; pages show all of them, with the name, the external id and the metadata."""
    browser = console("all")
    more = {"name": "Orders & more", "external_id": "crm-4711", "metadata": '{"team": "shop"}'}
    given = {"url": "https://example.com/a", "event_type": " order.* \n\ninvoice.paid\norder.*"} | more
    page = send(browser, "/subscriptions/new", "/subscriptions/new", **given)
    for text in ("<h1>Orders &amp; more</h1>", "https://example.com/a", "order.*, invoice.paid", "crm-4711"):
        assert text in page
    assert "team" in browser.get("/subscriptions/1?tab=options").text
    before = only(engine)
    assert before.event_types == ("order.*", "invoice.paid")
    save(browser, before.id, name="Orders")
    assert only(engine).event_types == before.event_types
    save(browser, before.id, event_type="user.created\r\norder.*")
    assert only(engine).event_types == ("user.created", "order.*")
    add(engine, "beside")
    for field, text in (("name", "orders"), ("external_id", "crm-4711"), ("event_type", "order.*")):
        page = browser.get("/subscriptions", params={field: text}).text
        assert ">Orders</a>" in page
        assert all(each in page for each in ("https://example.com/a", "user.created", "crm-4711", "shop"))
        assert "beside" not in page
    assert ">Orders</a>" not in browser.get("/subscriptions?external_id=crm").text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"event_type": "order.paid\ntwo words"}, 'id="wrong-event_type"'),
        ({"event_type": ""}, "It has 0 types; 1 to 20 are kept."),
        ({"metadata": "[]"}, 'id="wrong-metadata"'),
        ({"rate_limit": "many"}, "It is &#39;many&#39;; it must be from"),
        ({"batch_size": "1.5"}, "It is &#39;1.5&#39;; it must be from"),
        ({"event_filter": "(("}, 'id="wrong-event_filter"'),
        ({"url": ""}, "It is required."),
        ({"url": "https://127.0.0.1/"}, 'id="wrong-url"'),
        ({"custom_headers": '{"X-Origin": "(not shown)", "X-New": "1"}'}, "It has values that are not shown"),
        ({"ordering": "<b>"}, "It is &#39;&lt;b&gt;&#39;"),
    ],
)
def test_a_wrong_value_comes_back_with_its_reason(
    engine: Engine, console: OPENS, changes: dict[str, str], text: str
) -> None:
    """The form has what was typed, and the subscription stays as it is."""
    number, browser = add(engine, "hooks", custom_headers='{"X-Origin": "shop"}'), console(None)
    before = only(engine)
    page = save(browser, number, **changes)
    assert text in page
    assert texts(page).items() >= {name: given for name, given in changes.items() if name != "ordering"}.items()
    assert only(engine) == before


def test_a_form_that_is_older_than_a_change_is_refused(engine: Engine, console: OPENS) -> None:
    """Otherwise it would undo what somebody else has done meanwhile."""
    number, browser = add(engine, "hooks"), console(None)
    path = f"/subscriptions/{number}/edit"
    fields = texts(browser.get(path).text)
    repository.edit(engine, number, {"rate_limit": 7.0})
    answer = browser.post(path, data=fields | {"max_in_flight": "3"})
    assert (answer.status_code, "somebody has changed it" in answer.text) == (HTTPStatus.CONFLICT, False)
    assert "Somebody has changed it since the page was loaded" in answer.text
    assert (only(engine).options["rate_limit"], only(engine).options["max_in_flight"]) == (7.0, None)


def test_a_tenant_s_form_has_no_tenant(engine: Engine, console: OPENS) -> None:
    """A field that is sent all the same changes nothing."""
    browser, mine, other = console("acme"), add(engine, "mine", tenant="acme"), add(engine, "other")
    assert "tenant" not in texts(browser.get(f"/subscriptions/{mine}/edit").text)
    save(browser, mine, tenant="globex", max_in_flight="3")
    assert [item.tenant for item in repository.walk(engine)] == ["acme", "*"]
    assert browser.get(f"/subscriptions/{other}/edit").status_code == HTTPStatus.NOT_FOUND
    token = form_token(browser.get(f"/subscriptions/{mine}").text)
    answer = browser.post(f"/subscriptions/{other}/edit", data={"form_token": token, "url": "https://example.com/x"})
    assert answer.status_code == HTTPStatus.NOT_FOUND


def test_credentials_do_not_move_without_the_scope_for_secrets(engine: Engine, console: OPENS) -> None:
    """The console and the API share that rule."""
    number = repository.add(engine, "https://example.com/a", "order.paid", secrets=[("bearer", "t")])
    browser = console("writer")
    assert "the token needs the scope secrets" in save(browser, number, url="https://example.org/a")
    assert SAID["changed"].text in save(browser, number, url="https://example.com/b")
    assert only(engine).url == "https://example.com/b"


def test_what_hurts_is_confirmed_on_a_page_of_its_own(engine: Engine, console: OPENS) -> None:
    """It says how many deliveries are owed, and changes nothing; the form of that page does."""
    number, browser = add(engine, "hooks"), console("all")
    for offset in range(3):
        stored(engine, number, offset)
    here = f"/subscriptions/{number}"
    for what in ("disable", "remove"):
        assert "Stored deliveries that it is owed: 3." in browser.get(f"{here}/{what}").text
    assert "signs too for" in browser.get(f"{here}/rotate-secret").text
    assert only(engine).enabled
    page = send(browser, f"{here}/disable", f"{here}/disable", reason="it moves")
    assert all(text in page for text in (SAID["disabled"].text, "it moves"))
    assert "The form does not say how long" in send(browser, here, f"{here}/rotate-secret", overlap="-1")
    assert only(engine).secrets == 0
    assert SAID["removed"].text in send(browser, f"{here}/remove", f"{here}/remove")
    assert list(repository.walk(engine)) == []


def test_several_subscriptions_are_changed_at_once(engine: Engine, console: OPENS) -> None:
    """The filters stay; disabling asks first; subscriptions of others, and ones that are gone, are left alone."""
    browser = console("acme")
    mine = [add(engine, f"mine-{number}", tenant="acme") for number in range(3)]
    other = add(engine, "other")

    def do(word: str, *ids: int, **more: str) -> str:
        page = browser.get("/subscriptions?url=mine&state=").text
        data = texts(page) | {"do": word, "id": list(map(str, ids)), **more}
        answer = browser.post("/subscriptions/several", data=data)
        if ids and ("sure" in more or word != "disable"):
            assert answer.url.endswith("/subscriptions?url=mine&state=")
        return answer.text

    def modes() -> list[str]:
        return [item.mode for item in repository.walk(engine)]

    assert "Paused: 2 of 3 subscriptions." in do("pause", *mine[:2], other)
    assert modes() == ["paused", "paused", "enabled", "enabled"]
    assert "Resumed: 2 of 2 subscriptions." in do("resume", *mine[:2])
    asked = do("disable", *mine)
    assert "Disable 3 subscriptions" in asked
    assert modes() == ["enabled"] * 4
    assert re.findall(r'name="id" value="(\d+)"', asked) == list(map(str, mine))
    assert "Disabled: 3 of 3 subscriptions." in do("disable", *mine, sure="yes", reason="it moves")
    assert modes() == ["disabled"] * 3 + ["enabled"]
    assert {item.disabled_reason for item in repository.walk(engine)} == {"it moves", None}
    assert "Enabled: 1 of 1 subscriptions." in do("enable", mine[0])
    assert "Select some of them first" in do("enable")


def parked_ids(engine: Engine) -> set[int]:
    """The deliveries that are due."""
    return {each.id for each in admin.find(engine, DeliveryQuery(["parked"]), limit=100)}


@pytest.mark.parametrize("seconds", [60.0, 0.0])
def test_all_deliveries_that_match_are_sent_again(
    engine: Engine, console: OPENS, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """They are those that the filters find, page by page; when the time is over a page says how far it came.

    The question says how many they are.
    """
    monkeypatch.setattr(deliveries, "SECONDS", seconds)
    monkeypatch.setattr(deliveries, "COUNTING", seconds)
    monkeypatch.setattr(deliveries, "MOST", 2)
    browser = console("acme")
    mine, beside = add(engine, "mine", tenant="acme"), add(engine, "beside", tenant="acme")
    meant = {stored(engine, mine, offset, "exhausted", tenant="acme") for offset in range(5)}
    stored(engine, beside, 5, "exhausted", tenant="acme")
    stored(engine, mine, 6, "exhausted", tenant="globex")
    path = f"/deliveries?state=exhausted&subscription={mine}"
    form = browser.get(path).text.partition('id="all"')[2]
    asked = browser.post("/deliveries/redeliver-all", data=texts(form))
    assert f'<dd class="mono">{mine}</dd>' in asked.text
    assert f'<dd class="mono">{"5" if seconds else "more than 2"}</dd>' in asked.text
    assert parked_ids(engine) == set()
    answer, steps = browser.post("/deliveries/redeliver-all", data=texts(asked.text)), [0]
    while 'value="Go on"' in answer.text or ">Go on</button>" in answer.text:
        steps.append(int(re.findall(r"(\d+) marked, of", answer.text)[0]))
        answer = browser.post("/deliveries/redeliver-all", data=texts(answer.text))
    assert steps == ([0] if seconds else [0, 2, 4])
    assert answer.url.endswith(path)
    assert "Marked: 5." in answer.text
    assert parked_ids(engine) == meant


@pytest.mark.parametrize("state", ["delivered", "blocked", "lost"])
def test_what_cannot_be_sent_again_is_refused(console: OPENS, state: str) -> None:
    """The state in the filter may be one of these, or none."""
    browser = console(None)
    token = form_token(browser.get("/subscriptions/new").text)
    answer = browser.post("/deliveries/redeliver-all", data={"form_token": token, "state": state, "sure": "yes"})
    assert answer.status_code == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize(
    ("back", "there"),
    [
        ("/deliveries?state=exhausted&event_type=a", "/deliveries?state=exhausted&event_type=a"),
        ("/deliveries/1?x=%0D%0Aset-cookie:a", "/deliveries/1?x=%0D%0Aset-cookie:a"),
        ("https://evil.example/", "/deliveries"),
        ("//evil.example/", "/deliveries"),
    ],
)
def test_a_form_leads_back_to_its_page(engine: Engine, console: OPENS, back: str, there: str) -> None:
    """The page has its filters again, and never is one of another site."""
    browser, delivery = console(None), stored(engine, add(engine, "down"), 1, "exhausted")
    token = form_token(browser.get("/subscriptions/new").text)
    data = {"form_token": token, "id": str(delivery), "back": back}
    answer = browser.post("/deliveries/redeliver", data=data, allow_redirects=False)
    assert answer.headers["location"] == f"/console{there}"
    assert "Marked: 1." in browser.get(there).text


@pytest.mark.parametrize("token", ["reader", "writer"])
def test_a_page_that_asks_needs_the_scope_of_what_it_does(engine: Engine, console: OPENS, token: str) -> None:
    """A visitor who may not change a subscription finds neither links nor boxes, and may not open the pages."""
    number, browser = add(engine, "hooks"), console(token)
    here, list_page = browser.get(f"/subscriptions/{number}?tab=secrets").text, browser.get("/subscriptions").text
    for what, scope in (("edit", "write"), ("disable", "write"), ("remove", "write"), ("rotate-secret", "secrets")):
        allowed = (token, scope) == ("writer", "write")
        answer = browser.get(f"/subscriptions/{number}/{what}")
        assert (answer.status_code == HTTPStatus.OK) == allowed
        assert (f'/subscriptions/{number}/{what}"' in here) == allowed
    assert ('type="checkbox"' in list_page) == (token == "writer")
    assert ("/subscriptions/several" in list_page) == (token == "writer")
