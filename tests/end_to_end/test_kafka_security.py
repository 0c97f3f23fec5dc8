"""Kafka with SASL, TLS, client certificates, OAuth and ACLs: the settings and commands of docs/kafka-security.md."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka.admin import AclBinding, AclOperation, ResourceType  # type: ignore[attr-defined]  # not said to be
from confluent_kafka.cimpl import NewTopic

from consumer.config.environment import load
from consumer.config.settings import KafkaSettings
from consumer.errors import WebhooksError
from consumer.kafka.producer import Outgoing, publish
from consumer.ops import events as tail
from consumer.ops.check import Finding, check_all
from consumer.ops.cluster import group_lag
from tests.docs.documentation import TEXTS
from tests.end_to_end.command_line import Api, CommandLine
from tests.end_to_end.deployed_database import SqliteDatabase
from tests.end_to_end.security_rig import AGAIN_AFTER, PAGE, PASSWORD, USERS, SecureKafka, documented, secure_kafka
from tests.end_to_end.service_rig import SECRET, Deployment, Worker
from tests.end_to_end.webhook_receiver import Answer, Receiver, always
from tests.kafka_broker import provision
from tests.kafka_kit import Kafka
from tests.provided import or_skip
from tests.waiting import eventually

PARTITIONS = 4
EVENTS = 400
# Both group protocols are tried with each way to connect.
WAYS = {
    "PLAIN": "classic",
    "SCRAM-SHA-512": "consumer",
    "SSL": "classic",
    "OAUTHBEARER": "consumer",
    "callback": "classic",
}


@pytest.fixture(scope="session")
def secured() -> Iterator[SecureKafka]:
    """A broker that authenticates clients; it has only the ACLs that a test adds."""
    or_skip(provision)
    with secure_kafka() as started:
        yield started


class Estate(Deployment):
    """A deployment whose users have exactly the rights of the page."""

    def __init__(self, kafka: SecureKafka, database: SqliteDatabase, receiver: Receiver, directory: Path) -> None:
        super().__init__(kafka.broker.bootstrap, "", database, receiver, directory)
        self.topic = f"{self.group}.orders"
        self.names = {  # the page's names, with the test's
            "orders": self.topic,
            "webhooks": self.group,
            "webhooks.dead-letters": f"{self.group}.dead",
            "webhooks.operations": f"{self.group}.operations",
            "webhooks.attempts": f"{self.group}.attempts",
        }
        self.kafka = kafka
        self.given: list[AclBinding] = []
        admin = kafka.broker.admin()
        topics = [NewTopic(self.topic, PARTITIONS, 1), *(NewTopic(name, 1, 1) for name in self.written)]
        for made in admin.create_topics(topics).values():
            made.result(60)

    @property
    def written(self) -> list[str]:
        """The service's own topics."""
        return [name for page, name in self.names.items() if page.startswith("webhooks.")]

    def connecting(self, way: str, user: str = "webhooks") -> dict[str, str]:
        """The variables of a process of `user`, with its way to connect."""
        dead, operations, attempts = self.written
        topics = {"DEAD_LETTER": dead, "OPERATIONS": operations, "ATTEMPTS": attempts}
        own = {f"KAFKA_{name}_TOPIC": topic for name, topic in topics.items()}
        return self.kafka.settings(way, user) | own

    def loaded(self, user: str) -> KafkaSettings:
        """The settings of a process of `user`, which connects with a password."""
        return load(KafkaSettings, self.connecting("PLAIN", user) | {"KAFKA_GROUP_ID": self.group})

    def give(self, user: str = "webhooks") -> list[AclBinding]:
        """Gives a user the rights of the page."""
        acls = documented(user, self.names)
        assert acls
        self.kafka.broker.allow(acls)
        self.given += acls
        return acls

    def page_name(self, name: str) -> str:
        """The page's name for a topic or group."""
        return next(page for page, here in self.names.items() if here == name)

    def check(self, way: str) -> list[Finding]:
        """The findings of `kafka-webhooks check` as the workers' user."""
        needed = {"KAFKA_GROUP_ID": self.group, "KAFKA_TOPICS": self.topic, "WEBHOOK_SECRET": SECRET}
        return list(check_all({**self.connecting(way), **needed, "DATABASE_URL": self.database.url}))

    def assert_each_once(self) -> None:
        """Nothing was lost or repeated, and the group has committed all records."""
        assert self.accepted() == self.expected()
        self.assert_true_to_what_was_published()
        assert sum(self.committed().values()) == len(self.published)
        assert self.rows() == []


@pytest.fixture
def estate(
    secured: SecureKafka, deployed_database: SqliteDatabase, receiver: Receiver, tmp_path: Path
) -> Iterator[Estate]:
    """Its own topics and group; its users have no rights yet."""
    estate = Estate(secured, deployed_database, receiver, tmp_path)
    estate.subscribe("a", "/a")
    yield estate
    for worker in estate.workers:
        worker.kill()
    secured.broker.forbid(estate.given)


@pytest.fixture
def deployment(estate: Estate) -> Estate:
    """For the commands."""
    return estate


TOKEN_LIFE = 4.0  # seconds


def operation_of(acl: AclBinding) -> str:
    """The operation's name, in capitals."""
    return AclOperation(acl.operation).name


@pytest.mark.parametrize(("way", "protocol"), WAYS.items())
def test_each_way_to_connect_delivers_each_event_once(
    estate: Estate, way: str, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During the test, passwords have to be presented again and tokens expire.

    A dead letter, an operational event, an attempt, `check`, lag, a reader and `publish` have clients of their own.
    """
    estate.give()
    monkeypatch.syspath_prepend(estate.kafka.certificates.authority.parent)
    tokens = estate.kafka.tokens
    tokens.seconds, tokens.issued = TOKEN_LIFE, 0
    worker = estate.start(**estate.connecting(way), KAFKA_GROUP_PROTOCOL=protocol)
    eventually(worker.ready)
    at_first = tokens.issued
    with_tokens = 1.3 * TOKEN_LIFE
    seconds = {"SSL": 0.5, "OAUTHBEARER": with_tokens, "callback": with_tokens}.get(way, 1.3 * AGAIN_AFTER)
    estate.publish(["a"] * EVENTS, per_second=EVENTS / seconds)
    eventually(estate.finished)
    estate.assert_each_once()
    assert tokens.issued > at_first or way not in {"OAUTHBEARER", "callback"}
    for page_name in ("webhooks.dead-letters", "webhooks.operations"):
        provoke(estate, page_name)
    of_all = Kafka(estate.servers, real=True).settings()
    for topic in estate.written:
        eventually(partial(tail.newest, of_all, topic, 1))
    assert not [each for each in estate.check(way) if not each.ok]
    kafka = load(KafkaSettings, estate.connecting(way) | {"KAFKA_GROUP_ID": estate.group})
    for name, use in _USES.items():
        assert use(kafka, estate.written[0] if name == "WRITE" else estate.topic, estate.topic)
    worker.stop()


# The text that reports a worker's missing right, by the page's name of the topic or group and the operation.
WITHOUT = {
    ("orders", "READ"): "allow this service's user Read on the topic",
    ("orders", "DESCRIBE_CONFIGS"): "allow this service's user DescribeConfigs on the topic",
    ("webhooks", "READ"): "allow this service's user Read on the group",
    ("webhooks.dead-letters", "WRITE"): "allow this service's user to write to it",
    ("webhooks.operations", "WRITE"): "allow this service's user to write to it",
    ("webhooks.attempts", "WRITE"): "attempts are missing from the attempt history",
}


def provoke(estate: Estate, page_name: str) -> None:
    """Writes records that make a worker use each right."""
    if page_name == "webhooks.operations":
        estate.subscribe("b", "/gone")
        del estate.subscriptions["/gone"]
        estate.receiver.rules["/gone"] = always(Answer(410))
        estate.write(b'{"type": "b"}')
    if page_name == "webhooks.dead-letters":
        estate.write(b"not JSON")
    estate.publish(["a"] * 20)


def test_a_worker_needs_each_right_of_the_page(estate: Estate) -> None:
    """Without a right the log and `check` name it; once it is back, all events of the meantime arrive."""
    acls = estate.give()
    assert {(estate.page_name(acl.name), operation_of(acl)) for acl in acls} == WITHOUT.keys()
    # A restored right to a topic is noticed with the next metadata request, by default twice a minute.
    worker = estate.start(**estate.connecting("PLAIN"), KAFKA_TOPIC_METADATA_REFRESH_INTERVAL_MS="500")
    estate.publish(["a"] * 20)
    eventually(estate.finished)
    assert [finding for finding in estate.check("PLAIN") if not finding.ok] == []
    for acl in acls:
        without(acl, estate, worker)
    worker.stop()
    assert not estate.missing()


def without(acl: AclBinding, estate: Estate, worker: Worker) -> None:
    """Takes a right from the workers for a while. A worker can do without knowing the retention: a warning."""
    page_name, before = estate.page_name(acl.name), len(worker.log)
    told, of_retention = WITHOUT[page_name, operation_of(acl)], operation_of(acl) == "DESCRIBE_CONFIGS"
    assert told in TEXTS[PAGE]
    estate.kafka.broker.forbid([acl])
    if of_retention:  # it is used once a subscription is behind
        estate.sql("UPDATE webhook_subscriptions SET paused_at = CURRENT_TIMESTAMP")
    provoke(estate, page_name)
    eventually(lambda: told in worker.log[before:] and acl.name in worker.log[before:])
    found = estate.check("PLAIN")
    (lacking,) = [finding for finding in found if "allow this service's user" in finding.text]
    kind, operation = ResourceType(acl.restype).name.lower(), operation_of(acl).title().replace("_", "")
    assert f"allow this service's user {operation} on the {kind} {acl.name}" in lacking.text
    assert [finding for finding in found if not finding.ok] == ([] if of_retention else [lacking])
    assert [finding.warning for finding in found if finding.part == "backlogs"] == [of_retention]
    estate.kafka.broker.allow([acl])
    estate.sql("UPDATE webhook_subscriptions SET paused_at = NULL")
    eventually(lambda: estate.finished() and worker.ready())


def test_the_right_to_the_group_with_kip_848(estate: Estate) -> None:
    """Without it a worker waits; if it is taken later, the worker exits with status 1. Topics have rights by prefix."""
    prefix = estate.topic.removesuffix("orders")
    acls = documented("webhooks", {"events.": prefix, "webhooks": estate.group})
    (group,) = [acl for acl in acls if acl.name == estate.group]
    estate.given += acls
    estate.kafka.broker.allow(acl for acl in acls if acl is not group)
    settings = estate.connecting("SCRAM-SHA-512") | {
        "KAFKA_GROUP_PROTOCOL": "consumer",
        "KAFKA_TOPICS": f"^{re.escape(prefix)}ord.*",
    }
    advice = f"allow this service's user Read on the group {estate.group}"
    worker = estate.start(**settings)
    estate.publish(["a"] * 20)
    eventually(lambda: advice in worker.unready_because())
    estate.kafka.broker.allow([group])
    eventually(estate.finished)
    estate.assert_each_once()
    estate.kafka.broker.forbid([group])
    assert worker.process.wait(120) == 1
    assert advice in worker.log.splitlines()[-1]
    estate.kafka.broker.allow([group])


def test_wrong_credentials_say_what_to_change_and_lose_nothing(estate: Estate) -> None:
    """First the authority is unknown; then a password changes while a worker, which must reauthenticate, runs."""
    estate.give()
    estate.publish(["a"] * 20)
    stranger = str(estate.kafka.certificates.stranger())
    worker = estate.start(**estate.connecting("SCRAM-SHA-512") | {"KAFKA_SSL_CA_LOCATION": stranger})
    eventually(lambda: "set KAFKA_SSL_CA_LOCATION" in worker.log)
    eventually(lambda: "set KAFKA_SSL_CA_LOCATION" in worker.unready_because())
    worker.stop()
    worker = estate.start(**estate.connecting("SCRAM-SHA-512"))
    eventually(estate.finished)
    broker = estate.kafka.broker
    broker.scram("webhooks", "another")
    try:
        eventually(lambda: "check KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD" in worker.unready_because())
        assert '"advice": "check KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"' in worker.log
        estate.publish(["a"] * 20)
    finally:
        broker.scram("webhooks", PASSWORD)
    eventually(estate.finished)
    worker.stop()
    estate.assert_each_once()


@pytest.mark.parametrize("user", ["webhooks-api", "webhooks-cli"])
def test_each_right_of_the_api_and_of_commands_is_needed(estate: Estate, user: str) -> None:
    """With a right the use works; without it the error names it."""
    acls = estate.give(user)
    kafka = estate.loaded(user)
    records = Kafka(estate.servers, real=True)
    for topic in (estate.topic, *estate.written):
        records.write(topic, [b"{}"])
    for acl in acls:
        use = partial(_USES[operation_of(acl)], kafka, acl.name, estate.topic)
        assert use()
        estate.kafka.broker.forbid([acl])
        with pytest.raises(WebhooksError, match=f"allow this .*{acl.name}"):
            use()
        estate.kafka.broker.allow([acl])


def test_a_command_and_the_api_as_users_of_their_own(estate: Estate, command_line: CommandLine) -> None:
    """With the rights of the page, a replay sends the whole log, and the API reads the log and the attempts."""
    for user in USERS:
        estate.give(user)
    worker = estate.start(**estate.connecting("PLAIN"))
    estate.publish(["a"] * 20)
    eventually(estate.finished)
    late = str(estate.subscribe("a", "/late"))
    api = Api(command_line, **estate.connecting("PLAIN", "webhooks-api"))
    wanted = {"subscription_id": int(late), "since": "1h", "dry_run": True}
    assert api.call("POST", "/replays", wanted)["records"] == 20
    person = estate.connecting("PLAIN", "webhooks-cli")
    status, _, errors = command_line.run("replay", "--subscription", late, "--since", "1h", "--yes", **person)
    assert status == 0, errors
    eventually(lambda: len(api.call("GET", "/attempts")["items"]) == 40)
    worker.stop()
    assert estate.accepted() == estate.expected()


_USES: dict[str, Callable[[KafkaSettings, str, str], Sequence[object]]] = {
    "READ": lambda kafka, topic, _: tail.newest(kafka, topic, 5),
    "DESCRIBE": lambda kafka, _, topic: group_lag(kafka, [topic]),
    "WRITE": lambda kafka, topic, _: list(publish(kafka, [Outgoing(topic, b"{}")])),
}
