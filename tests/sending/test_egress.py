from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.sending.egress import EgressPolicy

STRICT = EgressPolicy()
PRIVATE = (
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.0.1"),  # noqa: S104 (nothing binds)
    *("169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192", "192.0.2.1", "198.18.0.1"),
    *("0.255.255.255", "10.255.255.255", "100.127.255.255", "169.254.0.0", "172.31.255.255", "192.0.0.0"),
    *("192.168.255.255", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255"),
    *("240.0.0.1", "255.255.255.255", "192.88.99.1", "168.63.129.16", "::", "::1", "::2", "::127.0.0.1"),
    *("fe80::1", "febf::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "ff0e::1"),
    *("2001:db8::1", "3fff::1", "100::1", "64:ff9b:1::1", "4000::1", "2001:2::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::1"),
    "2001:0:53aa:64c::80ff:fffe",  # the last one is Teredo with the client 127.0.0.1
)
PUBLIC = (*("1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1"),)


@pytest.mark.parametrize("address", PRIVATE)
def test_non_public_addresses_are_refused(address: str) -> None:
    """No loopback, private, link-local, metadata, multicast, reserved or embedded private address passes by default."""
    assert "WEBHOOK_ALLOW_NETWORKS" in (STRICT.refusal("https", address) or "")
    assert EgressPolicy(allow_http=True).refusal("http", address) is not None


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass_by_https_only(address: str) -> None:
    """Plain http to a public address needs WEBHOOK_ALLOW_HTTP, and the refusal says so."""
    assert STRICT.refusal("https", address) is None
    assert "WEBHOOK_ALLOW_HTTP" in (STRICT.refusal("http", address) or "")
    assert EgressPolicy(allow_http=True).refusal("http", address) is None


@given(st.ip_addresses(v=4, network="10.0.0.0/8"))
def test_an_allowed_network_passes_by_both_schemes_in_every_spelling(address: IPv4Address) -> None:
    """The embedded IPv4 address is judged, however IPv6 wraps it."""
    policy = EgressPolicy((ip_network("10.0.0.0/8"),))
    for text in (
        str(address),
        f"::ffff:{address}",
        f"64:ff9b::{address}",
        str(IPv6Address((0x2002 << 112) | int(address) << 80)),
    ):
        for scheme in ("http", "https"):
            assert policy.refusal(scheme, text) is None
            assert STRICT.refusal(scheme, text) is not None


def test_the_loopback_address_of_ipv6_can_be_allowed() -> None:
    """It embeds no IPv4 address, though its prefix belongs to addresses that do."""
    policy = EgressPolicy((ip_network("::1/128"),))
    assert policy.refusal("http", "::1") is None
    for other in ("::", "::2", "127.0.0.1", "::ffff:127.0.0.1"):
        assert policy.refusal("http", other) is not None
    assert "0.0.0.1" not in (STRICT.refusal("http", "::1") or "")


@given(st.text())
def test_nonsense_is_refused_and_raises_nothing(text: str) -> None:
    """Every text that a resolver may return gets a verdict."""
    assert isinstance(STRICT.refusal("https", text), str | None)


@pytest.mark.parametrize("address", PRIVATE)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_url_with_an_address_is_judged_by_it(scheme: str, address: str) -> None:
    """The verdict comes before anything is sent, and is the same as at sending."""
    host = f"[{address.replace('%', '%25')}]" if ":" in address else address
    assert "WEBHOOK_ALLOW_NETWORKS" in (STRICT.refusal_of(f"{scheme}://{host}:8443/hooks") or "")


def test_a_plain_http_url_with_a_name_is_refused_if_no_address_could_pass() -> None:
    """Plain http could pass only with an allowed network or WEBHOOK_ALLOW_HTTP."""
    assert STRICT.refusal_of("https://receiver/hooks") is None
    assert "WEBHOOK_ALLOW_HTTP" in (STRICT.refusal_of("http://receiver/hooks") or "")
    assert EgressPolicy(allow_http=True).refusal_of("http://receiver/hooks") is None
    assert EgressPolicy((ip_network("10.0.0.0/8"),)).refusal_of("http://receiver/hooks") is None
