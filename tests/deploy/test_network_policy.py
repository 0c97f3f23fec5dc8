"""The chart's network policy, compared with the service's egress rule."""

from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer.sending import egress as egress_rule
from consumer.sending.egress import EgressPolicy
from tests.deploy.helm_kit import Helm, Object, one, pod, set_to

pytestmark = pytest.mark.timeout(2_000)  # the first run builds Helm


def egress(things: list[Object], component: str, port: int) -> list[Object]:
    """The peers that a component may connect to on a port; `{}` means any."""
    rules = one(things, "NetworkPolicy", f"-{component}")["spec"]["egress"]
    chosen = [rule for rule in rules if port in {each["port"] for each in rule.get("ports", [{"port": port}])}]
    return [peer for rule in chosen for peer in rule.get("to", [{}])]


def lets(peers: list[Object], address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is in a block of the peers and in none of its exceptions."""
    return any(
        address in ip_network(peer["ipBlock"]["cidr"])
        and not any(address in ip_network(each) for each in peer["ipBlock"].get("except", ()))
        for peer in peers
        if "ipBlock" in peer
    )


@pytest.mark.parametrize("host", ["db.example.com", "[2001:db8::1]"])
def test_the_database_may_listen_on_any_port(helm: Helm, host: str) -> None:
    """The port of its URL is allowed to all that connect to it, that of another account's to the migration too."""
    urls = [f"oracle+oracledb://u@{host}:{port}/?service_name=s" for port in (15210, 15211)]
    things = helm.render("minimal", *set_to({"database.url": urls[0], "migration.database.url": urls[1]}))
    for component in ("worker", "check", "migrate"):
        assert egress(things, component, 15210) == [{}], component
    assert egress(things, "migrate", 15211) == [{}]


@pytest.fixture(scope="module")
def receivers(helm: Helm) -> list[Object]:
    """The peers of a worker for https."""
    return egress(helm.render("minimal"), "worker", 443)


def test_networks_are_in_canonical_form(receivers: list[Object]) -> None:
    """Kubernetes warns of an IPv6 network that is not written as RFC 5952 has it."""
    texts = [text for peer in receivers for text in (peer["ipBlock"]["cidr"], *peer["ipBlock"]["except"])]
    assert texts == [str(ip_network(text)) for text in texts]


# Networks that embed an IPv4 address, and Teredo's with its neighbours.
TUNNELS = [ip_network(text) for text in ("::/96", "::ffff:0:0/96", "2001::/23", "2002::/16")]
SPECIAL = ["10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "198.18.0.0/15", "2001::/23", "fc00::/7"]
IPV4 = st.one_of(
    st.ip_addresses(v=4), st.ip_addresses(v=4, network="192.0.0.0/8"), st.ip_addresses(v=4, network="168.63.129.0/24")
)
module_fixture = partial(settings, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(address=IPV4)
@module_fixture()
def test_ipv4_receivers(receivers: list[Object], address: IPv4Address) -> None:
    """The policy allows exactly the addresses that the service considers public, also behind NAT64."""
    public = EgressPolicy().refusal("https", str(address)) is None
    assert lets(receivers, address) == public
    assert lets(receivers, ip_address(int(IPv6Address("64:ff9b::")) | int(address))) == public


@given(
    address=st.one_of(
        st.ip_addresses(v=6), st.ip_addresses(v=6, network="2000::/3"), st.ip_addresses(v=6, network="2001::/16")
    )
)
@module_fixture()
def test_ipv6_receivers(receivers: list[Object], address: IPv6Address) -> None:
    """It allows no IPv6 address that the service refuses, and all others that embed no IPv4 address."""
    public = EgressPolicy().refusal("https", str(address)) is None
    embeds = any(address in network for network in TUNNELS)
    assert lets(receivers, address) <= public
    assert lets(receivers, address) == public or embeds


@pytest.mark.parametrize("text", [*SPECIAL, *(str(network) for network in egress_rule._NOT_PUBLIC)])
def test_edges_of_special_networks(receivers: list[Object], text: str) -> None:
    """The policy and the service agree on the first and last address of a network and on their neighbours."""
    network = ip_network(text)
    kind = type(network[0])
    for number in (int(network[0]) - 1, int(network[0]), int(network[-1]), int(network[-1]) + 1):
        if 0 <= number < 2**network.max_prefixlen:
            address = kind(number)
            public = EgressPolicy().refusal("https", str(address)) is None
            embeds = any(address in tunnel for tunnel in TUNNELS)
            assert lets(receivers, address) == (public and not embeds), address


def test_policy_of_the_values(helm: Helm) -> None:
    """Networks and plain http allowed by the settings are allowed here; Kafka and the database on their ports only."""
    things = helm.render("full")
    assert {"ipBlock": {"cidr": "10.1.0.0/16"}} in egress(things, "worker", 8080)
    assert lets(egress(things, "worker", 80), ip_address("1.1.1.1"))
    assert lets(egress(things, "worker", 8443), ip_address("1.1.1.1"))
    assert not lets(egress(things, "worker", 8080), ip_address("1.1.1.1"))
    assert {"ipBlock": {"cidr": "10.2.0.0/16"}} in egress(things, "worker", 9094)
    assert {"ipBlock": {"cidr": "10.3.0.10/32"}} in egress(things, "worker", 2484)
    assert egress(things, "migrate", 443) == []
    assert egress(things, "api", 443) == egress(things, "worker", 443), "the API sends test events"
    assert not lets(egress(helm.render("minimal"), "worker", 80), ip_address("1.1.1.1"))
    things = helm.render("keda-api")  # Kafka's ports are those of its servers
    assert egress(things, "worker", 9093) == egress(things, "worker", 9094) == egress(things, "check", 9094) == [{}]
    assert egress(things, "worker", 9092) == []


def test_servers_of_the_settings_can_be_reached(helm: Helm) -> None:
    """A schema registry and a trace collector, on the ports of their URLs; nothing while there are none."""
    things = helm.render("registry")
    assert egress(things, "worker", 8081) == egress(things, "check", 8081) == egress(things, "api", 8081) == [{}]
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    assert egress(things, "worker", 4318) == [monitoring]
    assert egress(helm.render("minimal"), "worker", 8081) == []
    urls = "https://[fd00::1]/a,http://b:8082/c"
    things = helm.render("minimal", *set_to({"settings": {"SCHEMA_REGISTRY_URL": urls}}))
    assert {} in egress(things, "check", 443)
    assert egress(things, "check", 8082) == [{}]


def test_who_may_call_the_api(helm: Helm) -> None:
    """Pods of the cluster; anybody by a Service that leads out of it; named peers alone if there are some."""

    def peers(name: str, *options: str) -> object:
        (rule,) = one(helm.render(name, *options), "NetworkPolicy", "-api")["spec"]["ingress"]
        return rule.get("from")

    assert peers("keda-api") == [{"namespaceSelector": {}}]
    assert peers("keda-api", *set_to({"api.service.type": "NodePort"})) is None
    office = [{"ipBlock": {"cidr": "203.0.113.0/24"}}]
    assert peers("full", *set_to({"networkPolicy.api.from": office})) == office


def test_with_a_proxy_workers_reach_no_receiver(helm: Helm) -> None:
    """The policy then allows the proxy only."""
    things = helm.render("keda-api")
    assert egress(things, "worker", 443) == []
    assert egress(things, "worker", 3128) == [{"podSelector": {"matchLabels": {"app": "egress-proxy"}}}]
    hidden = helm.render("keda-api", *set_to({"egress.proxy": "", "secret.keys.proxyUrl": "proxy-url"}))
    assert egress(hidden, "worker", 443) == []
    assert pod(hidden, "worker").environment["WEBHOOK_PROXY"]["valueFrom"]["secretKeyRef"]["key"] == "proxy-url"
    without = helm.render("vault", *set_to({"secret.keys.proxyUrl": "proxy-url"}))  # there is no Secret
    assert "WEBHOOK_PROXY" not in pod(without, "worker").environment
    assert lets(egress(without, "worker", 443), ip_address("1.1.1.1"))
