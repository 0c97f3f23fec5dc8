"""The checks of `kafka-webhooks check`: everything that a worker needs, part by part.

Every check is limited in time, and depends on others as little as possible, so that one run finds all problems.
"""

import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from itertools import islice
from typing import NamedTuple

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without saying so
    AclOperation,
    AdminClient,
    ClusterMetadata,
)
from sqlalchemy import Engine

from consumer.config import slips
from consumer.config.environment import check, load
from consumer.config.settings import (
    DatabaseSettings,
    KafkaSettings,
    RuleSettings,
    SchemaSettings,
    SigningSettings,
    TopicSettings,
    WorkerSettings,
)
from consumer.crypto.keys import NEW_SECRET, weakness
from consumer.crypto.vault import Vault
from consumer.database.charset import shortcoming
from consumer.database.engine import create_engine, lossy_commits, ping, place_of
from consumer.database.migrations import state
from consumer.errors import SettingsError, WebhooksError
from consumer.intake.mapping_file import SETTING as MAPPINGS
from consumer.intake.mapping_file import mappings_of
from consumer.intake.topics import consumes
from consumer.kafka.client import OLD_BROKERS, allow, known_properties, made, onlooker
from consumer.ledger import backlogs
from consumer.matching.destinations import judge_names, policy_of, rules_of
from consumer.ops.bounded import reason_of, within
from consumer.ops.cluster import TIMEOUT, broker_config, connected, knows_kip_848, lags, waiting_long, without
from consumer.ops.dead_letters import HOUR, written
from consumer.ops.installation import sharing
from consumer.subscriptions import health, repository, secrets, tls
from consumer.subscriptions.subscribed import Subscribed

_MOST = 50_000  # subscriptions, or secrets, that are checked: 3 s
_SOON = timedelta(days=30)  # a certificate that expires sooner is a finding
_MOST_URLS = 1000  # whose host names are resolved, all at once
_LIST = "kafka-webhooks subscriptions list --broken"
_ROTATE = "kafka-webhooks subscriptions rotate-secret"
_RESUME = "kafka-webhooks subscriptions resume ID"
_RESCUE = "fix their receivers, resume them, or raise the topics' retention.ms"
_GIVE_UP = (
    "name it in KAFKA_TOPICS again, or give them up: DELETE FROM webhook_cursors WHERE group_id = … AND topic = …"
)
_ADOPT = "if one has no workers any more: kafka-webhooks deliveries adopt --from-group GROUP"
_VERIFY = "kafka-webhooks subscriptions verify ID"
_MOST_NEAR = 3  # existing topics suggested for one that does not exist
_MOST_LISTED = 1000  # failing subscriptions, and paused ones
_PUBLISH = "remove the cause, then kafka-webhooks dead-letters publish"
_LATE = 300.0  # seconds that a record may wait while workers run
_MOST_IDS = 20  # subscription ids in one line


class Finding(NamedTuple):
    """The result of one check; if it is not `ok`, the text says what to do.

    `warning`: a worker can start, but an operator has to look at it.
    """

    part: str
    ok: bool
    text: str
    warning: bool = False


class Warn(str):
    """The text of a finding that is a warning."""

    __slots__ = ()


class _Log(NamedTuple):
    """What workers of the group read: not the topics that are `ignored`.

    Of the `untold` ones this user may not see for how long Kafka keeps the events.
    """

    group: str
    ignored: Collection[str]
    untold: Sequence[str]


_Topic = tuple[Finding, list[tuple[str, int]]]  # with its partitions


def check_all(values: Mapping[str, str]) -> Iterator[Finding]:
    """Yield each finding as soon as it is known. `values` is the environment; errors in it are findings too."""
    try:
        check(WorkerSettings.__annotations__.values(), values)
        _, unknown = known_properties((kafka := load(KafkaSettings, values)).properties)  # a value may be refused here
        if kafka.oauth_callback is None:  # which could hang
            made(AdminClient, onlooker(kafka), kafka)  # or the whole of them
        ignored = map(str, [*slips.of_settings(values), *slips.of_properties(unknown)])
        yield Finding("settings", True, "; ".join(["complete", *ignored]))
        whys = [why for secret in load(SigningSettings, values).secrets if (why := weakness(secret)) is not None]
        yield from (
            Finding("settings", True, f"WEBHOOK_SECRET: a secret {why}: {NEW_SECRET}", True) for why in whys[:1]
        )
    except SettingsError as error:
        yield from (Finding("settings", False, line) for line in str(error).splitlines())
    if (shared := sharing()) is not None:
        yield Finding("packages", True, shared, warning=True)
    yield from _mappings(values)
    log = yield from _kafka(values)
    yield from _schema_registry(values)
    yield from _database(values, log)


def _mappings(values: Mapping[str, str]) -> Iterator[Finding]:
    try:
        found = mappings_of(load(KafkaSettings, values))
    except SettingsError as error:
        if str(error).startswith(MAPPINGS):  # other errors have been reported
            yield from (Finding("mappings", False, line) for line in str(error).splitlines())
        return
    if found is not None:
        patterns = found.patterns
        more = ", …" if len(patterns) > _MOST_IDS else ""
        yield Finding("mappings", True, f"for {', '.join(patterns[:_MOST_IDS])}{more}")


def _kafka(values: Mapping[str, str]) -> Generator[Finding, None, _Log | None]:
    """Returns None if Kafka was not asked."""
    try:
        kafka = load(KafkaSettings, values)
        admin, cluster = within(lambda: connected(kafka), TIMEOUT)
    except SettingsError as error:
        yield _not_looked_at("kafka", error)
        return None
    except WebhooksError as error:
        yield Finding("kafka", False, str(error))
        return None
    yield Finding("kafka", True, f"{_number(len(cluster.brokers), 'broker')} at {kafka.bootstrap_servers}")
    if kafka.properties.get("group.protocol") == "consumer" and not knows_kip_848(broker_config(admin, cluster)):
        yield Finding("kafka", False, f"no worker can join the group: {OLD_BROKERS}")
    topics: Sequence[str] = ()
    try:
        topics = load(TopicSettings, values).topics
    except SettingsError as error:
        yield _not_looked_at("topics", error)
    found = [_topic(topic, kafka, admin, cluster) for topic in topics]
    yield from (finding for finding, _ in found)
    if partitions := {partition for _, part in found for partition in part}:
        yield _look("group", lambda: _group(kafka, admin, sorted(partitions)))
    untold = sorted(without(AclOperation.DESCRIBE_CONFIGS, {name for name, _ in partitions}, admin))
    for name in untold[:_MOST_IDS]:
        unknown = f"how long Kafka keeps the events of {name} is not known: {allow('DescribeConfigs', name)}"
        yield Finding("retention", True, unknown, warning=True)
    consumed = consumes(kafka, topics)
    yield _look("dead-letter topic", lambda: _dead_letter_topic(kafka, admin, cluster))
    yield _look("operations topic", lambda: _operations_topic(kafka.operations_topic, admin, cluster, consumed))
    if (history := kafka.attempts_topic) is not None:
        yield _look("attempts topic", lambda: _written_topic(history, admin, cluster))
    if (given_up := kafka.exhausted_topic) is not None:
        yield _look("exhausted topic", lambda: _written_topic(given_up, admin, cluster))
    ignored = {name for name in cluster.topics if not consumed(name)}
    return _Log(kafka.group_id, ignored, untold) if topics else None


def _schema_registry(values: Mapping[str, str]) -> Iterator[Finding]:
    """A finding, if a schema registry is configured."""
    try:
        settings = load(SchemaSettings, values)
    except SettingsError as error:
        if "SCHEMA_REGISTRY_URL" in values:
            yield _not_looked_at("schema registry", error)
        return

    def answers() -> str:
        from consumer.schemas.registry import Registry  # noqa: PLC0415 (an extra)

        with closing(Registry(settings)) as registry:
            return registry.ping()

    if settings.url is not None:
        yield _look("schema registry", answers)


def _database(values: Mapping[str, str], log: _Log | None = None) -> Iterator[Finding]:
    try:
        settings = load(DatabaseSettings, values)
    except SettingsError as error:
        yield _not_looked_at("database", error)
        return
    try:
        engine = create_engine(settings)
    except SettingsError as error:  # settings that are valid one by one, but not together
        yield Finding("database", False, str(error))
        return
    try:
        yield from _of_database(engine, Vault(settings.encryption_keys), values, log)
    finally:
        engine.dispose()


def _of_database(engine: Engine, vault: Vault, values: Mapping[str, str], log: _Log | None) -> Iterator[Finding]:
    def reachable() -> str:
        ping(engine)
        return f"reachable at {place_of(engine)}"

    yield (database := _look("database", reachable))
    if not database.ok:
        return
    if (lacks := shortcoming(engine)) is not None:
        yield Finding("character set", False, lacks)
    commits = _look("commits", lambda: Warn(lossy_commits(engine) or ""))
    if commits.text:
        yield commits
    yield (tables := _look("tables", lambda: _tables(engine)))
    if tables.ok:
        yield _look("subscriptions", lambda: _subscriptions(engine, vault, values))
        yield _look("receivers", lambda: _receivers(engine))
        yield _look("backlogs", lambda: _backlogs(engine, datetime.now(UTC), log))
        yield _look("secrets", lambda: _secrets(engine, vault))
        if found := tls.expiries(engine):
            yield _look("certificates", lambda: _certificates(found, datetime.now(UTC)))


def _not_looked_at(part: str, error: SettingsError) -> Finding:
    return Finding(part, False, f"not checked: {'; '.join(str(error).splitlines())}")


def _topic(topic: str, kafka: KafkaSettings, admin: AdminClient, cluster: ClusterMetadata) -> _Topic:
    """The finding about a topic, or about a pattern of topics."""
    pattern, names = topic.startswith("^"), [topic]
    if (kind := kafka.never_consumed.get(topic)) is not None:
        return Finding("topic", False, f"{topic} is the {kind}: take it out of KAFKA_TOPICS"), []
    if pattern:
        names = list(filter(consumes(kafka, [topic]), cluster.topics))
    if closed := without(AclOperation.READ, names, admin):
        which = f"{topic} matches {closed[0]}, which" if pattern else topic
        return Finding("topic", False, f"{which} may not be read: {allow('Read', closed[0])}"), []
    there = [name for name in names if name in cluster.topics and cluster.topics[name].error is None]
    if not there:
        lacks = "matches no topic now: create one" if pattern else "does not exist: create it"
        return Finding("topic", False, f"{topic} {lacks}, or correct KAFKA_TOPICS{_there(topic, cluster)}"), []
    partitions = [(name, number) for name in there for number in cluster.topics[name].partitions]
    told = f"{_number(len(there), 'topic')} match now" if pattern else _number(len(partitions), "partition")
    return Finding("topic", True, f"{topic}: {told}"), partitions


def _there(wanted: str, cluster: ClusterMetadata) -> str:
    """A hint with the existing topics most similar to a name or pattern that matches none; empty if there are none."""
    names = [name for name in sorted(cluster.topics) if not name.startswith("__")]
    near = get_close_matches(re.sub(r"[^A-Za-z0-9_-]", "", wanted), names, _MOST_NEAR)
    return f" (there is {', '.join(near)})" if near else ""


def _group(kafka: KafkaSettings, admin: AdminClient, partitions: Sequence[tuple[str, int]]) -> str:
    """The group's commits, and how many records a worker would send if it started now."""
    found = lags(kafka, partitions)
    committed = sum(each.committed is not None for each in found)
    waiting, overtaken = sum(each.records for each in found), sum(each.overtaken for each in found)
    known = f"has committed on {committed} of {_number(len(partitions), 'partition')}"
    text = f"{kafka.group_id} {known if committed else 'is new'}; a start now sends {_number(waiting, 'record')}"
    if overtaken:
        raise WebhooksError(f"{text}; retention has dropped {_number(overtaken, 'record')} that were not sent yet")
    if late := waiting_long(kafka, admin, found, time.time() - _LATE):
        named = ", ".join(f"{each.topic}[{each.partition}]" for each in late[:_MOST_IDS])
        return Warn(
            f"{text}; records older than 5 minutes wait in {named}, although workers run: look at their /readyz"
        )
    return text


def _written_topic(name: str, admin: AdminClient, cluster: ClusterMetadata) -> str:
    if without(AclOperation.WRITE, [name], admin):
        raise WebhooksError(f"{name} may not be written to: {allow('Write', name)}")
    if name in cluster.topics:
        return f"{name}: {_number(len(cluster.topics[name].partitions), 'partition')}"
    # Where the brokers' configuration may not be read, they may create topics.
    if broker_config(admin, cluster).get("auto.create.topics.enable", "true") != "true":
        raise WebhooksError(f"{name} does not exist, and this Kafka creates no topics by itself: create it")
    return f"{name} does not exist yet; Kafka creates it with the first record"


def _dead_letter_topic(kafka: KafkaSettings, admin: AdminClient, cluster: ClusterMetadata) -> str:
    text = _written_topic(kafka.dead_letter_topic, admin, cluster)
    number = written(kafka, time.time() - HOUR) if kafka.dead_letter_topic in cluster.topics else 0
    return Warn(f"{text}; {_number(number, 'dead letter')} in the last hour: {_PUBLISH}") if number else text


def _operations_topic(name: str, admin: AdminClient, cluster: ClusterMetadata, consumed: Callable[[str], bool]) -> str:
    text = _written_topic(name, admin, cluster)
    return text if consumed(name) else f"{text}; to get its events as webhooks, add it to KAFKA_TOPICS"


def _tables(engine: Engine) -> str:
    revision = state(engine)
    if revision.fault is not None:
        raise WebhooksError(revision.fault)
    return f"up to date at {revision.current}"


def _subscriptions(engine: Engine, vault: Vault, values: Mapping[str, str]) -> str:
    settings = load(RuleSettings, values)
    enabled = repository.count_enabled(engine)
    waiting = [each.subscription_id for each in health.paused(engine, _MOST_LISTED + 1)]
    paused = f"; paused: {_first(waiting)}: {_RESUME}" if waiting else ""
    if not enabled and not paused:
        return "none yet: kafka-webhooks subscriptions add URL EVENT_TYPE"
    looked_at, concerned = 0, defaultdict[str, list[int]](list)
    named: dict[str, list[int]] = {}  # URLs whose host names are to be resolved, with the ids of their subscriptions
    policy, rules = policy_of(settings), rules_of(settings)
    for item in islice(repository.walk(engine, vault, state="enabled", rules=rules), _MOST):
        looked_at += 1
        for concern in _concerns(item, settings, values):
            concerned[concern].append(item.id)
        if not item.broken and (item.whole_url in named or len(named) < _MOST_URLS):
            named.setdefault(item.whole_url, []).append(item.id)
    of_them = "of them" if enabled <= looked_at else f"of the first {looked_at:,}"
    text = f"{enabled:,} enabled{paused}"
    if broken := concerned["broken"]:
        text += f"; {len(broken):,} {of_them} broken: {_LIST}"
    if unverified := concerned["unverified"]:
        text += f"; not verified: {_ids(unverified)}: {_VERIFY}"
    if shared := concerned["shared secret"]:
        text += f"; {len(shared):,} {of_them} sign with WEBHOOK_SECRET and should not: {_LIST}, then {_ROTATE}"
    if unreported := concerned["unreported"]:
        text += f"; the answers to {_ids(unreported)} are not reported: set KAFKA_ATTEMPTS_TOPIC"
    judged = judge_names(policy, named) if policy is not None else {}
    refused = {url: name.refused for url, name in judged.items() if name.refused is not None}
    if refused:
        ids = sorted(number for url in refused for number in named[url])
        text += f"; nothing can be sent to {_ids(ids)}; their deliveries are stored: {next(iter(refused.values()))}"
    return text


def _concerns(item: Subscribed, settings: RuleSettings, values: Mapping[str, str]) -> Iterator[str]:
    if item.broken:
        yield "broken"
    elif any(problem.option == "secret" for problem in item.problems):
        yield "shared secret"
    if settings.require_verification and not item.verified:
        yield "unverified"
    if item.options["report_answer"] == "true" and not values.get("KAFKA_ATTEMPTS_TOPIC"):
        yield "unreported"


def _receivers(engine: Engine) -> str:
    """The subscriptions whose attempts all fail."""
    found = health.failing(engine, _MOST_LISTED + 1)
    if not found:
        return "none fails"
    since, ids = f"{found[0].since:%Y-%m-%d %H:%M}", _first([each.subscription_id for each in found])
    return Warn(f"all attempts fail for {ids}, the first since {since} UTC: kafka-webhooks top")


def _backlogs(engine: Engine, now: datetime, log: _Log | None) -> str:
    """The subscriptions whose events Kafka removes soon, or nobody knows when; and the cursors that no worker reads."""
    told = []
    if found := health.expiring(engine, now + timedelta(seconds=health.EXPIRES_SOON), _MOST_LISTED + 1):
        left = health.time_left((found[0].expires - now).total_seconds())
        who = _first([each.subscription_id for each in found])
        told.append(f"Kafka removes events that it owes to {who}, the first in {left}: {_RESCUE}")
    if untimed := health.untimed(engine, None if log is None else log.untold, _MOST_LISTED + 1):
        told.append(f"how long Kafka keeps the events that it owes to {_first(untimed)} is not known")
    owing = [] if log is None else backlogs.topics(engine)
    unread = [topic for group, topic in owing if log and group == log.group and topic in log.ignored]
    if unread:
        shown = ", ".join(unread[:_MOST_IDS])
        told.append(f"no worker reads {shown}, of which events are owed: {_GIVE_UP}")
    groups = sorted({group for group, _ in owing if log and group != log.group})
    others = f"; owed by other groups, too ({', '.join(groups[:_MOST_IDS])}): {_ADOPT}" if groups else ""
    text = "; ".join(told or ["none expires within 6 hours"]) + others
    return Warn(text) if told else text


def _secrets(engine: Engine, vault: Vault) -> str:
    """How subscriptions' own secrets are stored. WebhooksError if some cannot be decrypted with the keys here."""
    found = secrets.survey(engine, vault, datetime.now(UTC), _MOST)
    text = f"{_number(found.looked_at, 'secret')} owned by subscriptions"
    if in_the_clear := sorted({*found.in_the_clear, *tls.in_the_clear(engine)}):
        how = "kafka-webhooks subscriptions encrypt-secrets" if vault.encrypts else "set WEBHOOK_ENCRYPTION_KEY"
        text += f"; stored in the clear for {_ids(in_the_clear)}: {how}"
    if found.weak:
        text += f"; shorter or longer than Standard Webhooks requires for {_ids(found.weak)}: {_ROTATE}"
    if found.unopened:
        raise WebhooksError(
            f"{text}; cannot be decrypted for {_ids(found.unopened)}, whose deliveries are stored, not sent: "
            "add the key that encrypted them to WEBHOOK_ENCRYPTION_KEY"
        )
    return text


def _certificates(found: Sequence[tls.Expiry], now: datetime) -> str:
    """How many subscriptions have certificates of their own. WebhooksError if one has expired, or will in a month."""
    soon = [expiry for expiry in found if expiry.not_after < now + _SOON]
    text = (
        f"{_number(len({expiry.subscription_id for expiry in found}), 'subscription')} with certificates of their own"
    )
    if not soon:
        return f"{text}; the first expires on {found[0].not_after:%Y-%m-%d}"
    told = [
        f"{expiry.part} of subscription {expiry.subscription_id} ({expiry.subject}) "
        f"{'has expired' if expiry.not_after <= now else 'expires'} on {expiry.not_after:%Y-%m-%d}"
        for expiry in soon[:_MOST_IDS]
    ]
    more = f"; and {len(soon) - _MOST_IDS:,} more" if len(soon) > _MOST_IDS else ""
    raise WebhooksError(f"{text}; {'; '.join(told)}{more}: kafka-webhooks subscriptions set-tls")


def _ids(subscription_ids: Sequence[int]) -> str:
    """`2 subscriptions (4, 7)`."""
    more = ", …" if len(subscription_ids) > _MOST_IDS else ""
    shown = ", ".join(map(str, subscription_ids[:_MOST_IDS]))
    return f"{_number(len(subscription_ids), 'subscription')} ({shown}{more})"


def _first(subscription_ids: Sequence[int]) -> str:
    """The same; `more than` for more than _MOST_LISTED."""
    more = "more than " if len(subscription_ids) > _MOST_LISTED else ""
    return f"{more}{_ids(subscription_ids[:_MOST_LISTED])}"


def _look(part: str, job: Callable[[], str]) -> Finding:
    try:
        text = within(job, TIMEOUT)
        return Finding(part, True, text, isinstance(text, Warn))
    except Exception as error:
        if (reason := reason_of(error)) is None:
            raise
        return Finding(part, False, reason)


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
