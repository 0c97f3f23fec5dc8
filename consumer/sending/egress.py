"""Decides which addresses may be sent to. Pure; applied when a socket is opened and, for literal addresses, earlier.

The rule judges the resolved address, so no spelling of a host and no changed DNS answer can get around it.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from consumer.http.urls import parse_target

Network = IPv4Network | IPv6Network

# RFC 4291, RFC 6052: IPv6 addresses whose last four bytes are the IPv4 address of the destination.
_EMBEDDING = tuple(IPv6Network(text) for text in ("::/96", "::ffff:0:0/96", "64:ff9b::/96"))
_NO_IPV4 = (0, 1)  # `::` and the loopback address `::1` embed none
_GLOBAL_UNICAST_6 = IPv6Network("2000::/3")
# Networks that `is_global` of Python 3.11 accepts, although no receiver on the internet has such an address.
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
    """The address that packets reach: the one embedded in a mapped, NAT64, 6to4 or Teredo address, if there is one."""
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
    """Allows https to public unicast addresses, plain http too with `allow_http`, and both to `allow_networks`."""

    allow_networks: tuple[Network, ...] = ()
    allow_http: bool = False

    def refusal(self, scheme: str, address: str) -> str | None:
        """The reason to refuse a connection to this address, with the setting that would allow it; None if allowed."""
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
        """The reason to refuse a URL without resolving its name; None if allowed, or if it depends on the address.

        Raises ValueError as `parse_target` does.
        """
        target = parse_target(url)
        if target.address is not None:
            return self.refusal(target.scheme, target.address)
        return _PLAIN_HTTP if target.scheme == "http" and not (self.allow_http or self.allow_networks) else None


_PLAIN_HTTP = "plain http to a public address is refused; use https, or set WEBHOOK_ALLOW_HTTP=true"
