"""Where subscriptions may be sent to: the egress rule, asked before there is anything to send.

Of an address in a URL the rule knows enough. A name has to be resolved, and may have another address when it is sent
to, or where a worker asks: who can wait for an answer gets it here, and the sender judges each connection again.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

import structlog

from consumer.config.settings import RuleSettings
from consumer.http.urls import parse_target
from consumer.sending.dns import Resolution, Unresolved, resolve_all
from consumer.sending.egress import EgressPolicy
from consumer.subscriptions.endpoint_row import Rules

log = structlog.get_logger(__name__)

Resolve = Callable[[Iterable[str], float], Mapping[str, Resolution]]  # names, and seconds for all of them

ANSWER = 2.0  # seconds for the names' servers
_CACHED = 65_536  # URLs judged: each look-up of subscriptions asks for all that it finds


class Named(NamedTuple):
    """What the name in a URL leads to here: `refused` says why to nowhere, `unresolved` why nobody can tell."""

    refused: str | None = None
    unresolved: str | None = None


def policy_of(settings: RuleSettings) -> EgressPolicy | None:
    """The egress rule; None where a proxy enforces one of its own."""
    return None if settings.proxy else EgressPolicy(settings.allow_networks, settings.allow_http)


def rules_of(settings: RuleSettings) -> Rules:
    """What the settings ask of each subscription, as far as its row alone tells."""
    policy = policy_of(settings)
    if policy is None:
        return Rules(own_secret=settings.require_own_secret)
    return Rules(lru_cache(_CACHED)(policy.refusal_of), settings.require_own_secret)


def resolving_rules_of(settings: RuleSettings, resolve: Resolve = resolve_all) -> Rules:
    """The same, where a URL's name is resolved too: for who runs where workers do, and can wait for two seconds.

    A name that does not resolve is taken: its receiver may not be up yet.
    """
    policy, rules = policy_of(settings), rules_of(settings)
    if policy is None:
        return rules

    def refusal(url: str) -> str | None:
        refused = rules.refusal(url)
        if refused is not None:
            return refused
        named = judge_names(policy, [url], resolve)[url]
        if named.unresolved is not None:
            log.warning("a subscription is added whose host has no address here", reason=named.unresolved)
        return named.refused

    return Rules(refusal, rules.own_secret)


def judge_names(policy: EgressPolicy, urls: Iterable[str], resolve: Resolve = resolve_all) -> dict[str, Named]:
    """What the rule makes of the addresses of each URL's name, as it resolves here and now.

    One that may be sent to is enough: the sender takes it. URLs with an address in place of a name have none to judge.
    ValueError as `parse_target` raises it.
    """
    targets = {url: parse_target(url) for url in urls}
    answers = resolve({target.host for target in targets.values() if target.address is None}, ANSWER)
    return {url: _judged(policy, target.scheme, answers.get(target.host, ())) for url, target in targets.items()}


def _judged(policy: EgressPolicy, scheme: str, answer: Resolution) -> Named:
    if isinstance(answer, Unresolved):
        return Named(unresolved=answer.text)
    refusals = [policy.refusal(scheme, address) for address in answer]
    if not refusals or None in refusals:
        return Named()
    return Named(f"its host resolves to {answer[0]}; {refusals[0]}")
