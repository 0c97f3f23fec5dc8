"""What the deployment asks of subscriptions: where they may be sent to, a secret of their own, a permission."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from sqlalchemy import Engine, update
from structlog.testing import capture_logs

from consumer.config.settings import RuleSettings
from consumer.errors import InvalidSubscription
from consumer.ledger import store
from consumer.ledger.due import POSTPONED, FetchRequest, fetch
from consumer.ledger.rows import NewDelivery
from consumer.matching.catalog import SubscriptionProblems, find_endpoints
from consumer.matching.destinations import Named, judge_names, policy_of, resolving_rules_of, rules_of
from consumer.sending.dns import Resolution, Unresolved
from consumer.sending.egress import EgressPolicy
from consumer.subscriptions import repository
from consumer.subscriptions.endpoint_row import Rules
from consumer.subscriptions.options import Effect
from models import Subscription
from tests.crypto.vaults import in_the_clear
from tests.delivery.store_kit import DEFAULT, GROUP, make_event

PUBLIC, PRIVATE, ALLOWED = "https://example.com/hooks", "https://10.0.0.1/hooks", "http://10.1.0.1/hooks"
ALLOW_SOME = RuleSettings.model_validate({"WEBHOOK_ALLOW_NETWORKS": "10.1.0.0/16"})
REQUIRED = RuleSettings.model_validate({"WEBHOOK_REQUIRE_OWN_SECRET": "true"})
NAMES: Mapping[str, Resolution] = {
    "public.example": ("93.184.216.34",),
    "private.example": ("10.0.0.1", "10.0.0.2"),
    "both.example": ("10.0.0.1", "93.184.216.34"),
    "nowhere.example": Unresolved("'nowhere.example' does not resolve"),
}


def resolve(names: Iterable[str], _seconds: float) -> dict[str, Resolution]:
    return {name: NAMES[name] for name in names}


def found(engine: Engine, rules: Rules, broken: SubscriptionProblems) -> dict[int, str | None]:
    """The fault of each subscription to `t`, as events meet it."""
    endpoints = find_endpoints(engine, [("t", None)], DEFAULT, in_the_clear, rules=rules, broken=broken)
    return {each.subscription_id: each.fault for each in endpoints["t", None]}


def test_nothing_is_refused_where_a_proxy_decides() -> None:
    """It enforces a rule of its own, and resolves names where it is."""
    settings = RuleSettings.model_validate({"WEBHOOK_PROXY": "http://proxy:3128"})
    assert policy_of(settings) is None
    for rules in (rules_of(settings), resolving_rules_of(settings, resolve)):
        assert rules.refusal(PRIVATE) is None


def test_what_is_refused_is_stored_for(engine: Engine) -> None:
    """New events and stored ones meet one fault, which names the setting, and it is logged once for each."""
    numbers = [repository.add(engine, url, "t") for url in (PUBLIC, PRIVATE, ALLOWED)]
    rules, broken = rules_of(ALLOW_SOME), SubscriptionProblems()
    with capture_logs() as logs:
        for _ in range(2):
            faults = found(engine, rules, broken)
    assert [faults[number] is None for number in numbers] == [True, False, True]
    fault = faults[numbers[1]] or ""
    assert fault.startswith("url: 10.0.0.1 is not a public address; to allow it, add its network to WEBHOOK_ALLOW_NETW")
    assert [entry["reason"] for entry in logs] == [fault]
    waiting = [NewDelivery(make_event(number), number, PUBLIC, 0, "parked", 0.0) for number in numbers]
    store.park(engine, GROUP, waiting, 0.0)
    wants = [FetchRequest(("t", 0, number), 5, frozenset()) for number in numbers]
    taken = fetch(engine, GROUP, wants, 1.0, default_secrets=DEFAULT, decrypt=in_the_clear, rules=rules)
    assert [row.endpoint.subscription_id for row in taken.rows] == [numbers[0], numbers[2]]
    assert taken.next_due == {("t", 0, numbers[1]): 1.0 + POSTPONED}
    assert found(engine, rules_of(RuleSettings()), broken)[numbers[2]] is not None


def test_a_secret_of_its_own_can_be_required(engine: Engine) -> None:
    """Without one what it gets is stored; an expired one says that it has expired, and other kinds sign nothing."""
    shared = repository.add(engine, PUBLIC, "t", secrets=[("bearer", "token")])
    own = repository.add(engine, PUBLIC, "t", "a secret of its own that is long enough")
    rules = rules_of(REQUIRED)
    faults = found(engine, rules, SubscriptionProblems())
    assert faults[own] is None
    assert faults[shared] == (
        "secret: it has no secret of its own, and WEBHOOK_REQUIRE_OWN_SECRET requires one; "
        "its events are stored, not sent"
    )
    assert set(found(engine, Rules(), SubscriptionProblems()).values()) == {None}
    first, second = repository.walk(engine, rules=rules)
    assert (first.broken, second.problems) == (True, ())
    assert len(first.problems) == 1


def test_a_verification_can_be_required(engine: Engine) -> None:
    """Until the URL has answered, new events are stored and stored ones stay; a changed URL has to answer again."""
    settings = {"WEBHOOK_REQUIRE_VERIFICATION": "true", "WEBHOOK_ORIGIN": "Events.example.com"}
    rules = rules_of(RuleSettings.model_validate(settings))
    numbers = [repository.add(engine, PUBLIC, "t", rules=rules) for _ in range(3)]  # nobody is refused here
    with engine.begin() as connection:
        for number, url in zip(numbers, [None, PUBLIC, f"{PUBLIC}/old"], strict=True):
            change = update(Subscription).where(Subscription.id == number)
            connection.execute(change.values(verified_url=url))
    why = "url: it has not been verified; run: kafka-webhooks subscriptions verify {}; its events are stored, not sent"
    said = {number: why.format(number) for number in numbers}
    assert found(engine, rules, SubscriptionProblems()) == {**said, numbers[1]: None}
    assert set(found(engine, Rules(), SubscriptionProblems()).values()) == {None}
    assert [item.verified for item in repository.walk(engine)] == [False, True, False]
    waiting = [NewDelivery(make_event(number), number, PUBLIC, 0, "parked", 0.0) for number in numbers]
    store.park(engine, GROUP, waiting, 0.0)
    wants = [FetchRequest(("t", 0, number), 5, frozenset()) for number in numbers]
    (row,) = fetch(engine, GROUP, wants, 1.0, default_secrets=DEFAULT, decrypt=in_the_clear, rules=rules).rows
    assert (row.endpoint.subscription_id, row.endpoint.origin) == (numbers[1], "events.example.com")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"projection": "data"}, "its projection can produce any body, which the others' receivers would trust"),
        ({"tenant": "acme"}, "its receiver, which holds that secret, can sign requests to the others' receivers"),
        ({"projection": "data", "tenant": "acme"}, "its projection"),
        ({}, None),
        ({"tenant": "*"}, None),
    ],
)
@pytest.mark.parametrize("own", [False, True])
def test_who_signs_as_others_do_and_should_not_is_told(
    engine: Engine, options: dict[str, Any], why: str | None, *, own: bool
) -> None:
    """It is a warning and no fault: workers send, and log nothing."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" if own else None
    added = repository.add(engine, PUBLIC, "t", secret, **options)
    item = repository.get(engine, added)
    assert item is not None
    if own or why is None:
        assert (item.problems, item.state) == ((), "enabled")
    else:
        ((option, said, effect),) = item.problems
        assert (option, effect, item.broken) == ("secret", Effect.SENT, False)
        assert said.startswith("this subscription shares WEBHOOK_SECRET with others, and ")
        assert why in said
        assert item.state == f"warning: {item.problems[0]}"
    with capture_logs() as logs:
        key = ("t", options.get("tenant"))
        (endpoint,) = find_endpoints(engine, [key], DEFAULT, in_the_clear, broken=SubscriptionProblems())[key]
    assert (endpoint.fault, logs) == (None, [])


def test_what_breaks_a_rule_is_refused(engine: Engine) -> None:
    """By `add` and by `edit`, before anything is written; an edit is judged by its result."""
    with pytest.raises(InvalidSubscription, match=r"url: 10\.0\.0\.1 is not a public .* WEBHOOK_ALLOW_NETWORKS"):
        repository.add(engine, PRIVATE, "t", rules=rules_of(ALLOW_SOME))
    with pytest.raises(InvalidSubscription, match=r"secret: .* WEBHOOK_REQUIRE_OWN_SECRET"):
        repository.add(engine, PUBLIC, "t", secrets=[("bearer", "token")], rules=rules_of(REQUIRED))
    assert tuple(repository.walk(engine)) == ()
    shared = repository.add(engine, ALLOWED, "t", rules=rules_of(ALLOW_SOME))
    own = repository.add(engine, PUBLIC, "t", "its own", rules=rules_of(REQUIRED))
    for number, changes, settings, said in (
        (shared, {"url": PRIVATE}, ALLOW_SOME, "WEBHOOK_ALLOW_NETWORKS"),
        (shared, {"topics": "a"}, RuleSettings(), "WEBHOOK_ALLOW_NETWORKS"),
        (shared, {"url": PUBLIC}, REQUIRED, "WEBHOOK_REQUIRE_OWN_SECRET"),
    ):
        with pytest.raises(InvalidSubscription, match=said):
            repository.edit(engine, number, changes, rules_of(settings))
    assert repository.edit(engine, shared, {"topics": "a"}, rules_of(ALLOW_SOME))
    assert repository.edit(engine, own, {"topics": "a"}, rules_of(REQUIRED))
    assert [(item.url, item.options["topics"]) for item in repository.walk(engine)] == [
        (ALLOWED, "a"),
        (PUBLIC, "a"),
    ]


def test_names_are_judged_by_all_of_their_addresses() -> None:
    """One that may be sent to is enough, as for the sender; a name without an address is refused by nobody."""
    urls = [f"https://{name}/hooks" for name in NAMES]
    judged = judge_names(EgressPolicy(), [*urls, PRIVATE], resolve)
    public, private, both, nowhere = (judged[url] for url in urls)
    assert public == both == judged[PRIVATE] == Named()
    assert nowhere == Named(unresolved="'nowhere.example' does not resolve")
    assert (private.refused or "").startswith(
        "its host resolves to 10.0.0.1; 10.0.0.1 is not a public address; to allow"
    )
    plain = judge_names(EgressPolicy(policy_of(ALLOW_SOME).allow_networks), ["http://public.example"], resolve)  # type: ignore[union-attr]  # no proxy
    assert "WEBHOOK_ALLOW_HTTP" in (plain["http://public.example"].refused or "")


def test_who_can_wait_refuses_by_name_too() -> None:
    """By the url first; a name that has no address yet is taken, and the log says so."""
    rules = resolving_rules_of(RuleSettings(), resolve)
    with capture_logs() as logs:
        assert "WEBHOOK_ALLOW_NETWORKS" in (rules.refusal(PRIVATE) or "")
        assert "resolves to 10.0.0.1" in (rules.refusal("https://private.example/") or "")
        assert rules.refusal("https://public.example/") is None
        assert logs == []
        assert rules.refusal("https://nowhere.example/") is None
    ((event, reason),) = [(entry["event"], entry["reason"]) for entry in logs]
    assert (event, reason) == (
        "a subscription is added whose host has no address here",
        "'nowhere.example' does not resolve",
    )


def test_names_are_really_resolved() -> None:
    """By the system's configuration, all at once."""
    judged = judge_names(EgressPolicy(), ["https://localhost/", "https://localhost:8443/x", "https://nowhere.invalid/"])
    first, second, third = judged.values()
    assert first == second
    assert (first.refused or "").startswith("its host resolves to ")
    assert "nowhere.invalid" in (third.unresolved or "")
