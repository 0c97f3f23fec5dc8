"""Kafka with SASL, TLS, client certificates, OAuth and ACLs: the settings and commands of docs/kafka-security.md."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AclBinding
from confluent_kafka.cimpl import NewTopic

from consumer.ops.check import Finding, check_all
from tests.docs.documentation import TEXTS
from tests.end_to_end.command_line import CommandLine
from tests.end_to_end.deployed_database import SqliteDatabase
from tests.end_to_end.security_rig import AGAIN_AFTER, PAGE, PASSWORD, SecureKafka, documented, secure_kafka
from tests.end_to_end.service_rig import SECRET, Deployment, Worker, eventually
from tests.end_to_end.webhook_receiver import Answer, Receiver, always
from tests.kafka_broker import KafkaUnavailable

PARTITIONS = 4
EVENTS = 400
# The two ways to be a member are tried with each way to connect.
WAYS = {"PLAIN": "classic", "SCRAM-SHA-512": "consumer", "SSL": "classic", "OAUTHBEARER": "consumer"}


@pytest.fixture(scope="session")
def secured() -> Iterator[SecureKafka]:
    """A broker that knows its clients; it has no ACLs but those that a test adds."""
    try:
        with secure_kafka() as started:
            yield started
    except KafkaUnavailable as error:
        if os.environ.get("KAFKA_TEST_REQUIRED"):
            raise
        pytest.skip(str(error))


class Estate(Deployment):
    """A deployment whose users have the rights of the page and no others."""

    def __init__(self, kafka: SecureKafka, database: SqliteDatabase, receiver: Receiver, directory: Path) -> None:
        super().__init__(kafka.broker.bootstrap, "", database, receiver, directory)
        self.topic = f"{self.group}.orders"
        self.names = {  # of the page, with the ones here
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
            made.result(15)

    @property
    def written(self) -> list[str]:
        """The service's own topics."""
        return [name for page, name in self.names.items() if page.startswith("webhooks.")]

    def settings(self, way: str, user: str = "webhooks") -> dict[str, str]:
        """The variables of a process of `user`, the way by which it connects included."""
        dead, operations, attempts = self.written
        topics = {"DEAD_LETTER": dead, "OPERATIONS": operations, "ATTEMPTS": attempts}
        own = {f"KAFKA_{name}_TOPIC": topic for name, topic in topics.items()}
        return self.kafka.settings(way, user) | own

    def give(self, user: str = "webhooks") -> list[AclBinding]:
        """Give a user the rights of the page."""
        acls = documented(user, self.names)
        assert acls
        self.kafka.broker.allow(acls)
        self.given += acls
        return acls

    def page_name(self, name: str) -> str:
        """What the page calls a topic or a group."""
        return next(page for page, here in self.names.items() if here == name)

    def check(self, way: str) -> list[Finding]:
        """What `kafka-webhooks check` finds as the workers' user."""
        needed = {"KAFKA_GROUP_ID": self.group, "KAFKA_TOPICS": self.topic, "WEBHOOK_SECRET": SECRET}
        return list(check_all({**self.settings(way), **needed, "DATABASE_URL": self.database.url}))

    def all_arrived(self) -> bool:
        """Every event has, and every offset is committed."""
        return not self.missing() and not self.lag()

    def assert_each_once(self) -> None:
        """Nothing was lost or repeated, and the group has committed all of it."""
        assert self.accepted() == self.expected()
        self.assert_true_to_what_was_published()
        assert sum(self.committed().values()) == len(self.published)
        assert self.rows() == []


@pytest.fixture
def estate(
    secured: SecureKafka, deployed_database: SqliteDatabase, receiver: Receiver, tmp_path: Path
) -> Iterator[Estate]:
    """Topics and a group of its own; its users have no rights yet."""
    estate = Estate(secured, deployed_database, receiver, tmp_path)
    estate.subscribe("a", "/a")
    yield estate
    for worker in estate.workers:
        worker.kill()
    secured.broker.forbid(estate.given)


TOKEN_LIFE = 4.0  # seconds


@pytest.mark.parametrize(("way", "protocol"), WAYS.items())
def test_each_way_to_connect_delivers_each_event_once(estate: Estate, way: str, protocol: str) -> None:
    """While passwords have to be shown again, and tokens expire, in the middle of it."""
    estate.give()
    tokens = estate.kafka.tokens
    tokens.seconds, tokens.issued = TOKEN_LIFE, 0
    worker = estate.start(**estate.settings(way), KAFKA_GROUP_PROTOCOL=protocol)
    eventually(worker.ready)
    assert [finding for finding in estate.check(way) if not finding.ok] == []
    seconds = {"SSL": 0.5, "OAUTHBEARER": 1.5 * TOKEN_LIFE}.get(way, 1.5 * AGAIN_AFTER)
    estate.publish(["a"] * EVENTS, per_second=EVENTS / seconds)
    eventually(estate.all_arrived)
    worker.stop()
    estate.assert_each_once()
    print(tokens.issued, worker.log)


# The part of a right's name on the page, and what tells that it is missing.
WITHOUT = {
    "orders": "allow this service's user Read on the topic",
    "webhooks": "allow this service's user Read on the group",
    "webhooks.dead-letters": "allow this service's user to write to it",
    "webhooks.operations": "allow this service's user to write to it",
    "webhooks.attempts": "attempts are missing from the attempt history",
}


def test_a_worker_needs_each_right_of_the_page(estate: Estate) -> None:
    """Without it the log and `check` say which one is missing; with it again, all that came meanwhile arrives."""
    acls = estate.give()
    assert {estate.page_name(acl.name) for acl in acls} == WITHOUT.keys()
    worker = estate.start(**estate.settings("PLAIN"))
    eventually(worker.ready)
    for acl in acls:
        page_name = estate.page_name(acl.name)
        before = len(worker.log)
        estate.kafka.broker.forbid([acl])
        begin = time.monotonic()
        if page_name == "webhooks.operations":
            estate.subscribe("b", "/gone")
            estate.subscriptions.pop("/gone")
            estate.receiver.rules["/gone"] = always(Answer(410))
            estate.write(b'{"type": "b"}')
        if page_name == "webhooks.dead-letters":
            estate.write(b"not JSON")
        estate.publish(["a"] * 20)
        eventually(lambda: WITHOUT[page_name] in worker.log[before:] and acl.name in worker.log[before:])
        print(page_name, "seen", time.monotonic() - begin, worker.unready_because())
        assert WITHOUT[page_name] in TEXTS[PAGE]
        (failing,) = [finding for finding in estate.check("PLAIN") if not finding.ok]
        print(failing, time.monotonic() - begin)
        assert acl.name in failing.text
        assert f"allow this service's user {acl.operation.name.capitalize()} on the" in failing.text
        estate.kafka.broker.allow([acl])
        eventually(lambda: estate.all_arrived() and worker.ready())
        print("healed", time.monotonic() - begin)
    assert not estate.missing()
    print("repeated", estate.duplicates())
    worker.stop()


def test_the_group_protocol_of_kip_848_without_the_group(estate: Estate) -> None:
    """Taken while a worker runs, the right ends it with status 1; a new worker waits for it. Topics come by a prefix."""
    prefix = estate.topic.removesuffix("orders")
    acls = documented("webhooks", {"events.": prefix, "webhooks": estate.group})
    estate.given += acls
    estate.kafka.broker.allow(acls)
    settings = estate.settings("SCRAM-SHA-512") | {
        "KAFKA_GROUP_PROTOCOL": "consumer",
        "KAFKA_TOPICS": f"^{re.escape(prefix)}ord.*",
        "KAFKA_DEAD_LETTER_TOPIC": "other",
        "KAFKA_ATTEMPTS_TOPIC": "another",
    }
    (group,) = [acl for acl in acls if acl.name == estate.group]
    advice = f"allow this service's user Read on the group {estate.group}"
    worker = estate.start(**settings)
    eventually(worker.ready)
    estate.publish(["a"] * 20)
    eventually(estate.all_arrived)
    estate.kafka.broker.forbid([group])
    assert worker.process.wait(30) == 1
    assert advice in worker.log.splitlines()[-1]
    estate.publish(["a"] * 20)
    worker = estate.start(**settings)
    eventually(lambda: advice in worker.unready_because())
    estate.kafka.broker.allow([group])
    eventually(estate.all_arrived)
    worker.stop()
    estate.assert_each_once()
