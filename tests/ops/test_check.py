"""The checks of `check`: each part by itself, whatever is wrong with the others."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from cryptography.fernet import Fernet
from sqlalchemy import Engine, insert, update

from consumer.crypto.vault import Owner, Vault
from consumer.database import migrations
from consumer.ledger import cursors, upkeep
from consumer.ledger.cursors import NewCursor
from consumer.ops import check
from consumer.ops.check import Finding, check_all
from consumer.ops.cluster import knows_kip_848
from consumer.subscriptions import repository
from models import CursorReason, Subscription, SubscriptionSecret
from tests.databases import database, url_of
from tests.kafka_broker import HAS_KIP_848
from tests.kafka_kit import QUIET, Kafka, Member, unique, until
from tests.ledger.rows_kit import expire

URL = "https://example.com/hooks"
KEY, OTHER_KEY = (Fernet.generate_key().decode() for _ in range(2))
LIST, ROTATE = (f"kafka-webhooks subscriptions {name}" for name in ("list --broken", "rotate-secret"))


def found(part: str, values: dict[str, str]) -> Finding:
    """The only finding of this part."""
    (finding,) = [each for each in check_all(values) if each.part == part]
    return finding


def of_database(engine: Engine, part: str, **variables: str) -> str:
    """The text of a part of the database that is well."""
    finding = found(part, {"DATABASE_URL": url_of(engine), **variables})
    assert finding.ok
    return finding.text


def of_kafka(kafka: Kafka, topic: str, **variables: str) -> dict[str, str]:
    """The settings of a worker with a group of its own."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.servers,
        "KAFKA_TOPICS": topic,
        "KAFKA_GROUP_ID": unique("group"),
        "WEBHOOK_SECRET": "secret-of-24-characters-",
        **variables,
    }


def test_each_part_says_what_to_do_until_all_is_well(real_kafka: Kafka, tmp_path: Path) -> None:
    """Once topic, tables and subscription exist, all are well and the start position is reported."""
    path, topic = tmp_path / "webhooks.db", unique("topic")
    settings = of_kafka(real_kafka, topic, DATABASE_URL=f"sqlite:///{path}", WEBHOOK_SECRET="secret")
    before = {each.part: each for each in check_all(settings)}
    assert (before["topic"].ok, f"{topic} does not exist" in before["topic"].text) == (False, True)
    assert "there is no such file: correct DATABASE_URL, or make it with" in before["database"].text
    path.touch()
    assert "the tables are at no revision, not" in found("tables", settings).text
    real_kafka.write(topic, [b"{}"] * 7)
    engine = database(path)
    migrations.upgrade(engine)
    assert found("subscriptions", settings).text == "none yet: kafka-webhooks subscriptions add URL EVENT_TYPE"
    repository.add(engine, URL, "a")
    engine.dispose()
    after = {each.part: each for each in check_all(settings | {"KAFKA_ATTEMPTS_TOPIC": "webhooks.attempts"})}
    parts = "settings kafka topic group dead-letter,topic operations,topic attempts,topic database tables subscriptions"
    assert list(after) == [part.replace(",", " ") for part in f"{parts} receivers backlogs secrets".split()]
    assert all(finding.ok for finding in after.values())
    assert after["group"].text == f"{settings['KAFKA_GROUP_ID']} is new; a start now sends 7 records"
    assert "to get its events as webhooks, add it to KAFKA_TOPICS" in after["operations topic"].text
    weak = "WEBHOOK_SECRET: a secret has 6 bytes; Standard Webhooks wants 24 to 64: use one such as"
    assert (after["subscriptions"].text, after["settings"].warning) == ("1 enabled", True)
    assert after["settings"].text.startswith(weak)


@pytest.mark.parametrize(("committed", "first", "said"), [(5, 0, "sends 2 records"), (2, 6, "sends 3 records; retent")])
def test_records_are_counted_from_the_committed_offsets(
    real_kafka: Kafka, committed: int, first: int, said: str
) -> None:
    """A committed offset below the log's start is a failure, with the number of records that were never sent."""
    topic = real_kafka.topic()
    settings = of_kafka(real_kafka, topic)
    real_kafka.write(topic, [b"{}"] * (9 if first else 7))
    consumer = Consumer({"bootstrap.servers": real_kafka.servers, "group.id": settings["KAFKA_GROUP_ID"], **QUIET})
    consumer.commit(offsets=[TopicPartition(topic, 0, committed)], asynchronous=False)
    consumer.close()
    if first:
        admin = AdminClient({"bootstrap.servers": real_kafka.servers, **QUIET})
        for answer in admin.delete_records([TopicPartition(topic, 0, first)]).values():
            answer.result()
    group = found("group", settings)
    assert (group.ok, f"has committed on 1 of 1 partition; a start now {said}" in group.text) == (not first, True)
    assert ("retention has dropped 4 records" in group.text) == bool(first)


def test_old_records_that_running_workers_do_not_read_are_a_warning(
    real_kafka: Kafka, join: Callable[..., Member]
) -> None:
    """Whatever the cause. Without a worker it is none, nor if the records have just come."""
    settings = of_kafka(real_kafka, real_kafka.topic(name := unique("topic"), partitions=2))
    real_kafka.write(name, [b"{}"], partition=0)
    real_kafka.write(name, [b"{}"], partition=1, timestamp=round(time.time() * 1000) - 600_000)
    assert not found("group", settings).warning
    group = real_kafka.settings(group=settings["KAFKA_GROUP_ID"])
    member = join(group, [name], settle=False)
    until(lambda: len(member.records) == 2, member)
    late = found("group", settings)
    assert (late.ok, late.warning, f"5 minutes wait in {name}[1], although" in late.text) == (True, True, True)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, True),  # it may not be read
        ({"inter.broker.protocol.version": "2.8-IV1"}, False),
        # A preview, which librdkafka does not speak.
        ({"inter.broker.protocol.version": "3.9", "group.coordinator.rebalance.protocols": "classic,consumer"}, False),
        ({"group.coordinator.rebalance.protocols": "classic"}, False),
        ({"group.coordinator.rebalance.protocols": "classic,consumer"}, True),
        ({"group.min.session.timeout.ms": "6000"}, True),  # if a later Kafka has no such choice
    ],
)
def test_brokers_without_kip_848_are_found(config: dict[str, str], expected: bool) -> None:  # noqa: FBT001 (a table)
    """A worker would wait for ever there."""
    assert knows_kip_848(config) is expected


def test_a_real_broker_is_told_whether_it_has_kip_848(real_kafka: Kafka) -> None:
    """By its configuration, in each version that `make kafka-versions` tries."""
    settings = of_kafka(real_kafka, "any", KAFKA_GROUP_PROTOCOL="consumer")
    said = [each.text for each in check_all(settings) if each.part == "kafka" and not each.ok]
    advice = "set KAFKA_GROUP_PROTOCOL=classic: the other protocol needs Kafka 4.0 or newer"
    assert said == ([] if HAS_KIP_848 else [f"no worker can join the group: {advice}"])


def test_a_failure_hides_no_other() -> None:
    """With everything wrong, each part is still reported, in bounded time and without a secret."""
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "KAFKA_TOPICS": "users",
        "DATABASE_URL": "oracle+oracledb://user:hidden@127.0.0.1:1/?service_name=X",
        "WEBHOOK_TIMEOUT": "soon",
    }
    failures = list(check_all(settings))
    assert [(each.part, each.ok) for each in failures] == [
        (part, False) for part in ("settings", "settings", "kafka", "database")
    ]
    assert "hidden" not in str(failures)


@pytest.mark.parametrize(
    ("settings", "part", "says"),
    [
        ({"KAFKA_SECURITY_PROTOCOL": "SLS"}, "kafka", 'KAFKA_SECURITY_PROTOCOL: Invalid value "SLS"'),
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "kafka", "KAFKA_SASL_MECHANISMS is not set. For example: "),
        ({"KAFKA_ENABLE_AUTO_COMMIT": "true"}, "kafka", "KAFKA_ENABLE_AUTO_COMMIT cannot be set: offsets are"),
        ({"DATABASE_URL": "mysql://u:hidden@h/d"}, "database", "DATABASE_URL: starts with neither oracle"),
    ],
)
def test_a_part_that_is_not_checked_says_why(settings: dict[str, str], part: str, says: str) -> None:
    """A part whose settings are wrong names the reason, and so do the settings."""
    least = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "KAFKA_TOPICS": "t", "DATABASE_URL": "sqlite:///w.db"}
    failures = [each for each in check_all({**least, "WEBHOOK_SECRET": "hidden", **settings}) if not each.ok]
    assert any(each.part == part and each.text.startswith(f"not checked: {says}") for each in failures)
    assert any(each.part == "settings" and each.text.startswith(says) for each in failures)
    assert "hidden" not in str(failures)


def test_unknown_names_are_reported(real_kafka: Kafka) -> None:
    """An unmatched pattern is a failure, an unknown variable a warning; the most similar name is shown."""
    real_kafka.write("orders-of-today", [b"{}"])
    misspelt = {"KAFKA_SASL_MECHANISMZ": "hidden", "WEBHOOK_TIMEOUTS": "hidden", "DATABASE_URL": "sqlite:///w.db"}
    told = of_kafka(real_kafka, "^order[.]of.*", **misspelt)
    topic, settings = found("topic", told), found("settings", told)
    nothing = "^order[.]of.* matches no topic now: create one, or correct KAFKA_TOPICS (there is orders-of-today"
    assert (topic.ok, topic.text.startswith(nothing), settings.ok) == (False, True, True)
    assert "KAFKA_SASL_MECHANISMZ is ignored: librdkafka has no property sasl.mechanismz" in settings.text
    assert "WEBHOOK_TIMEOUTS is ignored: there is no such setting. Did you mean WEBHOOK_TIMEOUT?" in settings.text
    del told["KAFKA_TOPICS"]
    lines = [each.text for each in check_all(told) if each.part == "settings"]
    assert [line.split(" is ")[0] for line in lines] == ["KAFKA_TOPICS", "WEBHOOK_TIMEOUTS"]
    assert "hidden" not in f"{topic}{settings}{lines}"


def test_each_mistake_in_the_file_of_mappings_is_reported(tmp_path: Path) -> None:
    """It is a line of its own."""
    path = tmp_path / "mappings.toml"
    path.write_text('[[mapping]]\ntopics = ["a"]\ntype = "valeu.a"\nkind = "b"\n')
    settings = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "KAFKA_MAPPINGS_FILE": str(path)}
    told = [each.text for each in check._mappings(settings)]
    assert [text.partition("mapping 1 (a), ")[2].partition(":")[0] for text in told] == ["type", "kind"]
    path.write_text('[[mapping]]\ntopics = ["a"]\ntype = "value.a"\n')
    assert [*check._mappings(settings)] == [("mappings", True, "for a", False)]


def test_stored_secrets_are_surveyed(engine: Engine) -> None:
    """They are counted; the line has the subscriptions whose secrets are in the clear, weak, or undecryptable."""
    repository.add(engine, URL, "a")

    def insert_secret(subscription: int, text: str) -> None:
        with engine.begin() as connection:
            connection.execute(insert(SubscriptionSecret), [{"subscription_id": subscription, "secret": text}])

    assert of_database(engine, "secrets") == "0 secrets owned by subscriptions"
    insert_secret(1, "hidden")
    clear = "1 secret owned by subscriptions; stored in the clear for 1 subscription (1): "
    short = f"; shorter or longer than Standard Webhooks requires for 1 subscription (1): {ROTATE}"
    encrypt = "kafka-webhooks subscriptions encrypt-secrets"
    assert of_database(engine, "secrets", WEBHOOK_ENCRYPTION_KEY=KEY) == f"{clear}{encrypt}{short}"
    assert of_database(engine, "secrets") == f"{clear}set WEBHOOK_ENCRYPTION_KEY{short}"
    other = repository.add(engine, URL, "b")
    insert_secret(other, Vault(KEY).encrypt("a-hidden-secret-of-24-characters", Owner(other, "signing")))
    of_database(engine, "secrets", WEBHOOK_ENCRYPTION_KEY=KEY)
    for keys in ({}, {"WEBHOOK_ENCRYPTION_KEY": OTHER_KEY}):
        finding = found("secrets", {"DATABASE_URL": url_of(engine), **keys})
        assert not finding.ok
        assert "; cannot be decrypted for 1 subscription (2), whose deliveries are stored, not sent: " in finding.text
        assert "hidden" not in finding.text


def test_broken_subscriptions_are_counted(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Enabled ones are; if there are too many to examine, only among the first."""
    for event_type in ("a", "b", "c", "d"):
        repository.add(engine, URL, event_type)
    assert of_database(engine, "subscriptions") == "4 enabled"
    with engine.begin() as connection:
        connection.execute(update(Subscription).where(Subscription.id > 2).values(event_filter="1 +"))
    assert of_database(engine, "subscriptions") == f"4 enabled; 2 of them broken: {LIST}"
    repository.set_enabled(engine, 1, enabled=False)
    monkeypatch.setattr(check, "_MOST", 2)
    assert of_database(engine, "subscriptions") == f"3 enabled; 1 of the first 2 broken: {LIST}"


def test_subscriptions_whose_backlog_expires_are_named(engine: Engine) -> None:
    """A warning names them, how long the first event is kept, and what helps; a later one needs nothing yet.

    It names those for which that is not known, too.
    """
    ids = [repository.add(engine, URL, "a") for _ in range(3)]
    new = [NewCursor(("t", 0, each), 5, CursorReason.PAUSED) for each in ids]
    cursors.begin(engine, "webhooks", new, 0.0)
    settings = {"DATABASE_URL": url_of(engine)}
    unknown = "how long Kafka keeps the events that it owes to 3 subscriptions (1, 2, 3) is not known"
    assert found("backlogs", settings) == ("backlogs", True, unknown, True)
    for sub in ids:
        expire(engine, sub, time.time() + 30_000)
    assert found("backlogs", settings) == ("backlogs", True, "none expires within 6 hours", False)
    for sub, left in zip(ids, (7_250, 3_650), strict=False):
        expire(engine, sub, time.time() + left)
    finding = found("backlogs", settings)
    told = "Kafka removes events that it owes to 2 subscriptions (2, 1), the first in 1 h 0 min: "
    rescue = "fix their receivers, resume them, or raise the topics' retention.ms"
    assert finding == ("backlogs", True, told + rescue, True)


def test_cursors_that_no_worker_reads_are_named(engine: Engine, real_kafka: Kafka) -> None:
    """Those of a topic that is not consumed, and of other groups, with what to do. Workers see to a topic that went."""
    here, dropped = real_kafka.topic(), real_kafka.topic()
    settings = of_kafka(real_kafka, here, DATABASE_URL=url_of(engine))
    group, sub = settings["KAFKA_GROUP_ID"], repository.add(engine, URL, "a")

    def owe(group: str, topic: str) -> Finding:
        cursors.begin(engine, group, [NewCursor((topic, 0, sub), 5, CursorReason.PAUSED)], 0.0)
        return found("backlogs", settings)

    well = "none expires within 6 hours"
    assert owe(group, here) == owe(group, unique("gone")) == ("backlogs", True, well, False)
    adopt = "if one has no workers any more: kafka-webhooks deliveries adopt --from-group GROUP"
    others = f"; owed by other groups, too (another): {adopt}"
    assert owe("another", here) == owe("another", dropped) == ("backlogs", True, well + others, False)
    finding = owe(group, dropped)
    told = (
        f"no worker reads {dropped}, of which events are owed: name it in KAFKA_TOPICS again, or give them up: DELETE "
    )
    assert finding.warning
    assert finding.text.startswith(told)
    assert finding.text.endswith(others)


def test_paused_subscriptions_are_named(engine: Engine) -> None:
    """They are not enabled ones, and people forget them; retention does not wait for them."""
    for each in [repository.add(engine, URL, "a") for _ in range(3)][:2]:
        repository.pause(engine, each)
    resume = "kafka-webhooks subscriptions resume ID"
    assert of_database(engine, "subscriptions") == f"1 enabled; paused: 2 subscriptions (1, 2): {resume}"
    repository.set_enabled(engine, 3, enabled=False)
    assert of_database(engine, "subscriptions") == f"0 enabled; paused: 2 subscriptions (1, 2): {resume}"


def test_failing_receivers_are_a_warning(engine: Engine) -> None:
    """The line has the subscriptions and since when; the check does not fail, since workers can start."""
    first, second, _ = (repository.add(engine, URL, event_type) for event_type in ("a", "b", "c"))
    settings = {"DATABASE_URL": url_of(engine)}
    assert found("receivers", settings) == ("receivers", True, "none fails", False)
    upkeep.failing(engine, second, 1_700_000_000.0)
    upkeep.failing(engine, first, 1_700_000_060.0)
    text = "all attempts fail for 2 subscriptions (2, 1), the first since 2023-11-14 22:13 UTC: kafka-webhooks top"
    assert found("receivers", settings) == ("receivers", True, text, True)


def test_refused_addresses_and_shared_secrets_are_listed(engine: Engine) -> None:
    """It lists subscriptions whose URL or address is refused, and those that sign with WEBHOOK_SECRET but must not."""

    def said(**variables: str) -> str:
        return of_database(engine, "subscriptions", **variables)

    for url in (URL, "https://10.0.0.1/", "https://localhost/a", "https://localhost/b", "https://nowhere.invalid/"):
        repository.add(engine, url, "a")
    repository.add(engine, URL, "a", tenant="acme")
    begin, end = said().split("; nothing can be sent to ")
    shared = f"1 of them sign with WEBHOOK_SECRET and should not: {LIST}, then {ROTATE}"
    assert begin == f"6 enabled; 1 of them broken: {LIST}; {shared}"
    assert end.startswith("2 subscriptions (3, 4); their deliveries are stored: its host resolves to ")
    assert "WEBHOOK_ALLOW_NETWORKS" in end
    assert "; 2 of them broken" not in said(WEBHOOK_ALLOW_NETWORKS="10.0.0.0/8")
    assert "nothing can be sent" not in said(WEBHOOK_ALLOW_NETWORKS="127.0.0.0/8")
    assert "nothing can be sent" not in said(WEBHOOK_PROXY="http://proxy:3128")
    assert "6 of them broken" in said(WEBHOOK_REQUIRE_OWN_SECRET="true")
    with engine.begin() as connection:
        connection.execute(update(Subscription).where(Subscription.id != 5).values(verified_url=Subscription.url))
    asked = said(WEBHOOK_REQUIRE_VERIFICATION="true", WEBHOOK_ORIGIN="events.example.com")
    assert "; not verified: 1 subscription (5): kafka-webhooks subscriptions verify ID; " in asked
    assert "not verified" not in said()
    repository.add(engine, URL, "a", report_answer="true")
    assert "; the answers to 1 subscription (7) are not reported: set KAFKA_ATTEMPTS_TOPIC" in said()
    assert "not reported" not in said(KAFKA_ATTEMPTS_TOPIC="webhooks.attempts")
