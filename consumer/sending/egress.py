"""Which addresses may be sent to: a pure decision, taken where the socket is opened and, for literals, before.

Judged is the resolved address, so that no spelling of a host and no change of a DNS answer gets around it.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from consumer.http.urls import parse_target

Network = IPv4Network | IPv6Network

# RFC 4291, RFC 6052: IPv6 addresses whose last four bytes are the IPv4 address that is meant.
_EMBEDDING = tuple(IPv6Network(text) for text in ("::/96", "::ffff:0:0/96", "64:ff9b::/96"))
_NO_IPV4 = (0, 1)  # `::` and the loopback address `::1` embed none
_GLOBAL_UNICAST_6 = IPv6Network("2000::/3")
# What `is_global` of Python 3.11 lets through and no receiver on the internet has.
_NOT_PUBLIC = tuple(
    ip_network(text)
    for text in (
        "192.0.0.0/24",  # IETF protocol assignments; Oracle Cloud's metadata service
        "192.88.99.0/24",  # 6to4 relays
        "168.63.129.16/32",  # Azure's platform services, answered inside each machine
        "3fff::/20",  # documentation
    )
)


def _meant(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The address a packet ends at: that inside of a mapped, NAT64, 6to4 or Teredo address."""
    if isinstance(address, IPv4Address):
        return address
    if any(address in network for network in _EMBEDDING) and int(address) not in _NO_IPV4:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address.sixtofour is not None:
        return address.sixtofour
    return address if address.teredo is None else address.teredo[1]


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST_6:
        return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _NOT_PUBLIC)


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """Public unicast addresses by https; by plain http with `allow_http`; `allow_networks` by both."""

    allow_networks: tuple[Network, ...] = ()
    allow_http: bool = False

    def refusal(self, scheme: str, address: str) -> str | None:
        """Why this address may not be connected to, naming the setting that would change it; None if it may."""
        try:
            meant = _meant(ip_address(address.partition("%")[0]))
        except ValueError:
            return f"{address!r} is not an address"
        if any(meant in network for network in self.allow_networks):
            return None
        if not _is_public(meant):
            inner = "" if str(meant) == address else f" (that is {meant})"
            return f"{address}{inner} is not a public address; to allow it, add its network to WEBHOOK_ALLOW_NETWORKS"
        return None if scheme == "https" or self.allow_http else _PLAIN_HTTP

    def refusal_of(self, url: str) -> str | None:
        """Why nothing may be sent to a URL, whatever a name in it resolves to; None: something may, or that depends.

        ValueError as `parse_target` raises it.
        """
        target = parse_target(url)
        if target.address is not None:
            return self.refusal(target.scheme, target.address)
        return _PLAIN_HTTP if target.scheme == "http" and not (self.allow_http or self.allow_networks) else None


_PLAIN_HTTP = "plain http to a public address is refused; use https, or set WEBHOOK_ALLOW_HTTP=true"
