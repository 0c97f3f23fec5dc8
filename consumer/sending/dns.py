"""Non-blocking name resolution: c-ares queries, the loop gets the answer, and a hanging name delays only itself.

A resolver with threads would share a few of them among all names: ten hanging names could block every other look-up.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import pycares

from consumer.loop.poller import Poller

_POSITIVE_TTL = 30.0  # seconds at most; a record's own TTL may be shorter, but not below _NEGATIVE_TTL
_NEGATIVE_TTL = 1.0
_MAX_NAMES = 10_000
MOST_ADDRESSES = 16  # of a name: a connection may try each, and an answer of DNS has room for thousands


@dataclass(frozen=True, slots=True)
class Unresolved:
    """The reason why a name has no address now."""

    text: str
    timed_out: bool = False


Resolution = tuple[str, ...] | Unresolved


class _CachedAddresses(NamedTuple):
    answer: Resolution
    expires: float


def resolve_all(names: Iterable[str], timeout: float) -> dict[str, Resolution]:
    """Resolve all `names` in parallel, within `timeout` seconds. Blocks: do not call it from the loop."""
    poller, until = Poller(), time.monotonic() + timeout
    resolver = Resolver(poller, timeout=timeout)
    late = Unresolved(f"no name server has answered within {timeout:g} s", timed_out=True)
    answers: dict[str, Resolution] = {}
    asked = set(names)
    try:
        for name in asked:
            resolver.resolve(name, partial(answers.__setitem__, name))
        while len(answers) < len(asked) and (left := until - time.monotonic()) > 0:
            poller.turn(left)
    finally:
        resolver.close()
        poller.close()
    return {name: answers.get(name, late) for name in asked}


class Resolver:
    """Resolves names as the system is configured (/etc/hosts, search domains, resolv.conf), or at `servers` (ip:port).

    A name server has `timeout` seconds to answer. Who asks limits the whole look-up: search domains and further name
    servers may take longer. Concurrent requests for a name share one look-up. An answer has at most MOST_ADDRESSES
    addresses, of both families if the name has both; the rest is dropped.
    """

    def __init__(
        self,
        poller: Poller,
        *,
        timeout: float,
        servers: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._poller = poller
        self._clock = clock
        # Two tries, of one third and two thirds of the time limit, so that one lost packet is repeated within it.
        self._channel = pycares.Channel(timeout=max(timeout / 3, 0.05), tries=2, servers=list(servers) or None)
        self._cache: dict[str, _CachedAddresses] = {}
        self._waiting: dict[str, list[Callable[[Resolution], None]]] = {}

    def cached(self, name: str) -> Resolution | None:
        """The cached answer, or None if there is none or it has expired."""
        entry = self._cache.get(name)
        return entry.answer if entry is not None and entry.expires > self._clock() else None

    def resolve(self, name: str, callback: Callable[[Resolution], None]) -> None:
        """Look up `name`; `callback` runs in a later callback of the poller, never inside this call."""
        if name in self._waiting:
            self._waiting[name].append(callback)
            return
        self._waiting[name] = [callback]
        try:
            self._channel.getaddrinfo(name, None, callback=partial(self._on_answer, name))
        except (pycares.AresError, ValueError) as error:
            self._poller.post(
                partial(self._settle, name, Unresolved(f"{name!r} does not resolve: {error}"), _NEGATIVE_TTL)
            )

    def close(self) -> None:
        """Stop; callbacks of open look-ups do not run."""
        self._waiting.clear()
        self._channel.close()

    def _on_answer(self, name: str, result: pycares.AddrInfoResult | None, error: int | None) -> None:
        """Post the answer to the poller; runs on the thread of c-ares."""
        nodes = [] if result is None else result.nodes
        addresses = tuple(alternated(list(dict.fromkeys(node.addr[0].decode() for node in nodes))))[:MOST_ADDRESSES]
        if addresses:
            ttl = min(node.ttl for node in nodes)
            self._poller.post(partial(self._settle, name, addresses, min(max(ttl, _NEGATIVE_TTL), _POSITIVE_TTL)))
        else:
            reason = "it has no address" if error is None else pycares.errno.strerror(error)
            answer = Unresolved(
                f"{name!r} does not resolve: {reason!s}", timed_out=error == pycares.errno.ARES_ETIMEOUT
            )
            self._poller.post(partial(self._settle, name, answer, _NEGATIVE_TTL))

    def _settle(self, name: str, answer: Resolution, ttl: float) -> None:
        if len(self._cache) >= _MAX_NAMES:
            del self._cache[next(iter(self._cache))]
        self._cache[name] = _CachedAddresses(answer, self._clock() + ttl)
        for callback in self._waiting.pop(name, ()):
            self._poller.post(partial(callback, answer))


def alternated(addresses: Sequence[str]) -> list[str]:
    """IPv6 and IPv4 addresses alternated, starting with the family of the first address (RFC 8305, 4)."""
    families: dict[bool, deque[str]] = {}
    for address in addresses:
        families.setdefault(":" in address, deque()).append(address)
    found: list[str] = []
    while families:
        for family, left in tuple(families.items()):
            found.append(left.popleft())
            if not left:
                del families[family]
    return found
