"""The deployment's rules for subscriptions: permitted addresses, a secret of their own, verification."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from sqlalchemy import Engine, update
from structlog.testing import capture_logs

from consumer.config.settings import RuleSettings
from consumer.errors import InvalidSubscription
from consumer.ledger import store
from consumer.ledger.due import POSTPONED, Fetched, FetchRequest, fetch
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
from tests.ledger.rows_kit import DEFAULT, GROUP, make_event

PUBLIC, PRIVATE, ALLOWED = "https://example.com/hooks", "https://10.0.0.1/hooks", "http://10.1.0.1/hooks"
ALLOW_SOME = RuleSettings.model_validate({"WEBHOOK_ALLOW_NETWORKS": "10.1.0.0/16"})
REQUIRED = RuleSettings.model_validate({"WEBHOOK_REQUIRE_OWN_SECRET": "true"})
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NAMES: Mapping[str, Resolution] = {
    "public.example": ("93.184.216.34",),
    "private.example": ("10.0.0.1", "10.0.0.2"),
    "both.example": ("10.0.0.1", "93.184.216.34"),
    "nowhere.example": Unresolved("'nowhere.example' does not resolve"),
}


def resolve(names: Iterable[str], _seconds: float) -> dict[str, Resolution]:
    return {name: NAMES[name] for name in names}


def found(engine: Engine, rules: Rules, broken: SubscriptionProblems) -> dict[int, str | None]:
    """The fault of each subscription to `t`, as events see it."""
    endpoints = find_endpoints(engine, [("t", None)], DEFAULT, in_the_clear, rules=rules, broken=broken)
    return {each.subscription_id: each.fault for each in endpoints["t", None]}


def due(engine: Engine, numbers: list[int], rules: Rules) -> Fetched:
    """Store an event for each subscription, and take the due ones up."""
    store.park(engine, GROUP, [NewDelivery(make_event(each), each, PUBLIC, 0, "parked", 0.0) for each in numbers], 0.0)
    wants = [FetchRequest(("t", 0, each), 5, frozenset()) for each in numbers]
    return fetch(engine, GROUP, wants, 1.0, default_secrets=DEFAULT, decrypt=in_the_clear, rules=rules)


def test_with_a_proxy_no_address_is_refused() -> None:
    """The proxy enforces its own rule and resolves names in its network."""
    settings = RuleSettings.model_validate({"WEBHOOK_PROXY": "http://proxy:3128"})
    assert policy_of(settings) is None
    for rules in (rules_of(settings), resolving_rules_of(settings, resolve)):
        assert rules.refusal(PRIVATE) is None


def test_events_for_a_refused_address_are_stored(engine: Engine) -> None:
    """New events and stored ones have the same fault. It names the setting and is logged once per subscription."""
    numbers = [repository.add(engine, url, "t") for url in (PUBLIC, PRIVATE, ALLOWED)]
    rules, broken = rules_of(ALLOW_SOME), SubscriptionProblems()
    with capture_logs() as logs:
        for _ in range(2):
            faults = found(engine, rules, broken)
    assert [faults[number] is None for number in numbers] == [True, False, True]
    fault = faults[numbers[1]] or ""
    assert fault.startswith("url: 10.0.0.1 is not a public address; to allow it, add its network to WEBHOOK_ALLOW_NETW")
    assert [entry["reason"] for entry in logs] == [fault]
    taken = due(engine, numbers, rules)
    assert [row.endpoint.subscription_id for row in taken.rows] == [numbers[0], numbers[2]]
    assert taken.next_due == {("t", 0, numbers[1]): 1.0 + POSTPONED}
    assert found(engine, rules_of(RuleSettings()), broken)[numbers[2]] is not None


def test_an_own_secret_can_be_required(engine: Engine) -> None:
    """Without one its events are stored. An expired secret is reported as such. Other kinds of secrets do not sign."""
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


def test_verification_can_be_required(engine: Engine) -> None:
    """Until the URL has answered, new events are stored and stored ones stay. A changed URL must answer again."""
    settings = {"WEBHOOK_REQUIRE_VERIFICATION": "true", "WEBHOOK_ORIGIN": "Events.example.com"}
    rules = rules_of(RuleSettings.model_validate(settings))
    numbers = [repository.add(engine, PUBLIC, "t", rules=rules) for _ in range(3)]  # these rules allow all three
    with engine.begin() as connection:
        for number, url in zip(numbers, [None, PUBLIC, f"{PUBLIC}/old"], strict=True):
            change = update(Subscription).where(Subscription.id == number)
            connection.execute(change.values(verified_url=url))
    why = "url: it has not been verified; run: kafka-webhooks subscriptions verify {}; its events are stored, not sent"
    said = {number: why.format(number) for number in numbers}
    assert found(engine, rules, SubscriptionProblems()) == {**said, numbers[1]: None}
    assert set(found(engine, Rules(), SubscriptionProblems()).values()) == {None}
    assert [item.verified for item in repository.walk(engine)] == [False, True, False]
    (row,) = due(engine, numbers, rules).rows
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
def test_a_shared_secret_that_should_not_be_shared_is_reported(
    engine: Engine, options: dict[str, Any], why: str | None
) -> None:
    """It is a warning and no fault: workers send its events and log nothing. With a secret of its own there is none."""
    shared, own = (repository.add(engine, PUBLIC, "t", secret, **options) for secret in (None, SECRET))
    warned, silent = repository.get(engine, shared), repository.get(engine, own)
    assert warned is not None
    assert silent is not None
    assert (silent.problems, silent.state) == ((), "enabled")
    if why is None:
        assert (warned.problems, warned.state) == ((), "enabled")
    else:
        ((option, said, effect),) = warned.problems
        assert (option, effect, warned.broken) == ("secret", Effect.SENT, False)
        assert said.startswith("this subscription shares WEBHOOK_SECRET with others, and ")
        assert why in said
        assert warned.state == f"warning: {warned.problems[0]}"
    with capture_logs() as logs:
        key = ("t", options.get("tenant"))
        both = find_endpoints(engine, [key], DEFAULT, in_the_clear, broken=SubscriptionProblems())[key]
    assert ([each.fault for each in both], logs) == ([None, None], [])


def test_a_violation_of_a_rule_is_refused(engine: Engine) -> None:
    """`add` and `edit` refuse it before anything is written. An edit is judged by its result."""
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
    """One permitted address is enough, as for the sender. A name without addresses is not refused."""
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


def test_add_may_also_check_the_name() -> None:
    """The URL is checked first. A name without an address is accepted, and the log says so."""
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


def test_names_are_resolved_by_the_system() -> None:
    """They are resolved with its configuration, all at once."""
    judged = judge_names(EgressPolicy(), ["https://localhost/", "https://localhost:8443/x", "https://nowhere.invalid/"])
    first, second, third = judged.values()
    assert first == second
    assert (first.refused or "").startswith("its host resolves to ")
    assert "nowhere.invalid" in (third.unresolved or "")
