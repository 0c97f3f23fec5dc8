"""Scenarios for a group while events flow. Each runs on a `Fleet`, asserts its own rules, and ends drained."""

import time
from itertools import chain

from tests.end_to_end.webhook_receiver import Answer, always
from tests.kafka_kit import Kafka
from tests.membership.fleet import LONG_SESSION, PATH, Fleet
from tests.waiting import eventually

CONSUMER = {"KAFKA_GROUP_PROTOCOL": "consumer"}


def group_settings(protocol: str) -> dict[str, str]:
    """Settings of a worker. `protocol` is `consumer`, or an assignment strategy of the classic protocol."""
    return CONSUMER if protocol == "consumer" else {"KAFKA_PARTITION_ASSIGNMENT_STRATEGY": protocol}


def static_restart(fleet: Fleet, protocol: str) -> None:
    """Static members restart one after the other. The others see no rebalance."""
    names = ("one", "two", "three")[: 2 if fleet.rounds == 1 else 3]
    settings = group_settings(protocol)
    if protocol == "consumer":
        fleet.long_session()
    else:
        settings = {**settings, "KAFKA_SESSION_TIMEOUT_MS": LONG_SESSION}
    for name in names:
        fleet.start(name, KAFKA_GROUP_INSTANCE_ID=name, **settings)
    with fleet.flow():
        _settled(fleet)
        for _ in range(fleet.rounds):
            for name in names:
                others = {each: fleet.told(each) for each in names if each != name}
                had = _owned(fleet, name)
                fleet.stop(name)
                fleet.start(name, KAFKA_GROUP_INSTANCE_ID=name, **settings)
                eventually(lambda: _owned(fleet, name) == had, timeout=60)  # noqa: B023 (called here)
                fleet.delivered()
                assert {each: fleet.told(each) for each in others} == others
    fleet.quiesce()


def come_and_go(fleet: Fleet, protocol: str) -> None:
    """Workers join and leave, and none dies."""
    settings = group_settings(protocol)
    fleet.start("first", **settings)
    with fleet.flow():
        for _ in range(fleet.rounds):
            fleet.start("second", **settings)
            fleet.start("third", **settings)
            fleet.delivered()
            fleet.stop("second")
            fleet.delivered()
            fleet.stop("third")
            fleet.delivered()
    fleet.quiesce()


def killed(fleet: Fleet, protocol: str) -> None:
    """One of two workers is killed, and another one takes its place."""
    settings = group_settings(protocol)
    fleet.start_all("first", "second", **settings)
    with fleet.flow():
        _settled(fleet)  # else the other may own nothing yet, and the pause would be that of the dead one's session
        for _ in range(fleet.rounds):
            fleet.delivered()
            fleet.kill("second")
            fleet.start("second", **settings)
            _settled(fleet)
            fleet.delivered(300)
    fleet.quiesce()


def upgrade_at_once(fleet: Fleet, protocol: str) -> None:
    """With cooperative-sticky, Kafka refuses a KIP-848 worker while a classic one is there. The way back is possible.

    Kafka does not convert a group whose assignments carry data of the strategy, as librdkafka's do with this one.
    """
    settings = group_settings(protocol)
    fleet.start_all("first", "second", **settings)
    with fleet.flow():
        _settled(fleet)
        for _ in range(fleet.rounds):
            fleet.stop("second")
            refused = fleet.deployment.start(**CONSUMER)
            assert refused.process.wait(60) == 1
            assert "The group id does not exist" in refused.log
            fleet.delivered()
            fleet.stop("first")
            fleet.start_all("first", "second", **CONSUMER)
            _settled(fleet)
            fleet.delivered()
            fleet.roll(settings)
            _settled(fleet)
            fleet.delivered()
    fleet.quiesce()


def eager_to_cooperative(fleet: Fleet, protocol: str) -> None:
    """By way of KIP-848, worker by worker, since a group cannot mix the two kinds of strategy."""
    fleet.start_all("first", "second", **group_settings(protocol))
    with fleet.flow():
        for wanted in (CONSUMER, group_settings("cooperative-sticky")):
            fleet.roll(wanted)
            _settled(fleet)
            fleet.delivered()
    fleet.quiesce()


def upgrade(fleet: Fleet, protocol: str) -> None:
    """From the classic protocol to KIP-848 and back, worker by worker."""
    settings = group_settings(protocol)
    fleet.start_all("first", "second", **settings)
    with fleet.flow():
        for _ in range(fleet.rounds):
            for wanted in (CONSUMER, settings):
                fleet.roll(wanted)
                _settled(fleet)
                fleet.delivered()
    fleet.quiesce()


def made_anew(fleet: Fleet, protocol: str) -> None:
    """The topic is recreated while frozen workers cannot notice, until the new log is longer than the old one."""
    settings = group_settings(protocol)
    deployment = fleet.deployment
    if protocol != "consumer":
        settings = {**settings, "KAFKA_SESSION_TIMEOUT_MS": LONG_SESSION}
    else:
        fleet.long_session()
    fleet.start_all("first", "second", **settings)
    for _ in range(fleet.rounds):
        deployment.publish(["a"] * 200)
        fleet.quiesce()
        for worker in fleet.workers.values():
            worker.freeze()
        fleet.delete_topic()
        fleet.make_topic()
        deployment.publish(["a"] * 400)
        for worker in fleet.workers.values():
            worker.thaw()
        with fleet.flow():
            eventually(lambda: not deployment.missing(), timeout=60)
    fleet.quiesce()


def made_anew_while_down(fleet: Fleet, protocol: str) -> None:
    """The topic is recreated under a worker that has not committed all of the old one, and then stops."""
    settings = group_settings(protocol)
    deployment = fleet.deployment
    for _ in range(fleet.rounds):
        deployment.receiver.rules.pop(PATH, None)
        fleet.start("first", **settings)
        deployment.publish(["a"] * 200)
        fleet.quiesce()
        deployment.receiver.rules[PATH] = always(Answer(delay=3))
        before = len(deployment.receiver.requests)
        deployment.publish(["a"] * 20)
        eventually(lambda: len(deployment.receiver.requests) >= before + 20)  # noqa: B023 (called here)
        fleet.delete_topic()
        fleet.make_topic()
        fleet.stop("first")  # without noticing, it would commit the old topic's offsets for the new one
        deployment.publish(["a"] * 400)
    deployment.receiver.rules.pop(PATH, None)
    fleet.start("first", **settings)
    with fleet.flow():
        eventually(lambda: not deployment.missing(), timeout=60)
    fleet.quiesce()


def partitions_added(fleet: Fleet, protocol: str) -> None:
    """Partitions are added, with records in them before the workers know of them."""
    settings = {**group_settings(protocol), "KAFKA_TOPIC_METADATA_REFRESH_INTERVAL_MS": "2000"}
    fleet.start_all("first", "second", **settings)
    with fleet.flow():
        for _ in range(fleet.rounds):
            fleet.delivered()
            fleet.add_partitions(2)
            _settled(fleet)
            fleet.delivered()
    fleet.quiesce()


def transactions(fleet: Fleet, protocol: str) -> None:
    """Transactions are committed and aborted, and one stays open until the broker aborts it."""
    deployment, kafka = fleet.deployment, Kafka(fleet.deployment.servers, real=True)
    fleet.start_all("first", "second", **group_settings(protocol))
    with fleet.flow():
        for number in range(3 * fleet.rounds):
            producer = kafka.transactional()
            producer.begin_transaction()
            bodies = [b'{"type":"a","transaction":"%d-%d"}' % (number, each) for each in range(40)]
            for each, body in enumerate(bodies):
                producer.produce(deployment.topic, body, b"key", each % deployment.partitions)
            producer.flush(20)
            if number % 2 == 0:
                deployment.published |= dict.fromkeys(bodies, "a")
                deployment.published_at |= dict.fromkeys(bodies, time.time())
                producer.commit_transaction(20)
            else:
                producer.abort_transaction(20)
        left_open = kafka.transactional(transaction_timeout_ms="2000")
        left_open.begin_transaction()
        left_open.produce(deployment.topic, b'{"type":"a","transaction":"open"}', b"key", 0)
        left_open.flush(20)
        fleet.delivered()
    # Records behind the open one do not count as lag. They are read once the broker has aborted it.
    eventually(lambda: not deployment.missing(), timeout=60)
    deployment.publish(["a"] * 20)  # a marker at the end of a log is passed with the next record
    fleet.quiesce()


def broker_lost(fleet: Fleet, protocol: str) -> None:
    """One of three brokers is killed and restarted, each in turn."""
    fleet.start_all("first", "second", **group_settings(protocol))
    with fleet.flow():
        for number in range(fleet.rounds):
            node = 1 + number % 3
            fleet.delivered()
            fleet.brokers.kill(node)
            fleet.delivered(600)
            fleet.brokers.restart(node)
            fleet.delivered(600)
    fleet.quiesce()


def rack(fleet: Fleet, protocol: str) -> None:
    """Each worker fetches from its rack's broker, and from another one while that is dead."""
    for number in (1, 2):
        fleet.start(str(number), KAFKA_CLIENT_RACK=f"rack{number}", **group_settings(protocol))

    def near(name: str) -> bool:
        fetched = fleet.fetched(name).values()
        return bool(fetched) and all(broker == int(name) for broker, _, _ in fetched)

    with fleet.flow():
        _settled(fleet)
        eventually(lambda: near("1") and near("2"), timeout=60)
        leaders = {leader for name in ("1", "2") for _, leader, _ in fleet.fetched(name).values()}
        assert leaders - {1, 2}, "a partition is led from the third rack, but not fetched from there"
        for _ in range(fleet.rounds):
            fleet.brokers.kill(2)
            fleet.delivered(600)
            eventually(lambda: near("1") and not near("2"), timeout=60)
            fleet.brokers.restart(2)
            eventually(lambda: near("1") and near("2"), timeout=90)
    fleet.quiesce()


def _settled(fleet: Fleet) -> None:
    """The workers own all partitions, in equal shares."""
    partitions = list(range(fleet.deployment.partitions))

    def shared() -> bool:
        owned = [_owned(fleet, name) for name in fleet.workers]
        sizes = {len(each) for each in owned}
        return sorted(chain(*owned)) == partitions and max(sizes) - min(sizes) <= 1

    eventually(shared, timeout=60)


def _owned(fleet: Fleet, name: str) -> list[int]:
    return sorted(fleet.workers[name].lag())
