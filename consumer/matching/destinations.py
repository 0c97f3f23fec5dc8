"""Applies the egress rule to subscriptions' URLs before there are events to send.

The rule judges an address in a URL directly. A name has to be resolved, and may have another address later, or on a
worker's host. Callers that can wait get names resolved here; the sender judges each connection again.
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

ANSWER = 2.0  # seconds for the name servers
_CACHED = 65_536  # judged URLs: each look-up of subscriptions judges every URL it finds


class Named(NamedTuple):
    """The verdict on a URL's name: why the rule refuses its addresses, or why it does not resolve; else both None."""

    refused: str | None = None
    unresolved: str | None = None


def policy_of(settings: RuleSettings) -> EgressPolicy | None:
    """The egress rule; None if a proxy enforces its own."""
    return None if settings.proxy else EgressPolicy(settings.allow_networks, settings.allow_http)


def rules_of(settings: RuleSettings) -> Rules:
    """The settings' rules for each subscription that can be checked from its row alone."""
    policy = policy_of(settings)
    rules = Rules(
        own_secret=settings.require_own_secret,
        plugins=settings.auth_plugins,
        verification=settings.require_verification,
        origin=settings.origin,
    )
    return rules if policy is None else rules._replace(refusal=lru_cache(_CACHED)(policy.refusal_of))


def resolving_rules_of(settings: RuleSettings, resolve: Resolve = resolve_all) -> Rules:
    """The rules of `rules_of` that also resolve URLs' names: for callers on workers' hosts that can wait two seconds.

    A name that does not resolve is accepted: its receiver may not be up yet.
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

    return rules._replace(refusal=refusal)


def judge_names(policy: EgressPolicy, urls: Iterable[str], resolve: Resolve = resolve_all) -> dict[str, Named]:
    """The rule's verdict on the addresses of each URL's name, as it resolves here and now.

    One allowed address is enough: the sender uses it. A URL with an address in place of a name is not judged here.
    Raises ValueError as `parse_target` does.
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
