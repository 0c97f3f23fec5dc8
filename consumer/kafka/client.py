"""The common parts of librdkafka's clients: users' properties, its log, whether a broker answers, advice on errors."""

import logging
import re
import time
from collections.abc import Callable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from consumer.config import slips
from consumer.config.settings import KafkaSettings
from consumer.config.types import TokenOf
from consumer.crypto.certificates import ca_file
from consumer.errors import FatalKafkaError, KafkaUnavailable, SettingsError

log = structlog.get_logger(__name__)

Client = TypeVar("Client")

# librdkafka logs these for every broker and every attempt; `Reachability` reports each fault once.
_QUIET_FACILITIES = frozenset({"FAIL", "ERROR", "CONFWARN", "GETPID"})
_UNCONNECTED = "not yet connected to Kafka at "
_UP = "UP"  # a broker's state: connected, and its versions known
# Seconds without an answer: four heartbeats, two dozen fetches. A broker's garbage collection takes less.
SILENT = 12.0
# `logger` is an argument of the binding, not a property.
_NOT_PROPERTIES = frozenset({"logger"})
# Not a property, and passed last: librdkafka refuses it only after it has accepted the property before it.
_PROBE = "?"
_LONGEST = 1e9  # seconds that a token may live: an end in milliseconds is later, and such a token is never renewed
_TRUST = {"https.ca.location", "https.ca.pem"}
# Properties of group members; librdkafka refuses some of them, and some values, in a consumer that is no member.
_OF_MEMBERS = ("group.", "session.", "heartbeat.", "max.poll.", "partition.assignment.")
_FILE = re.compile(r"(ssl\.[a-z]+\.location) failed")

# What to set instead of a value that librdkafka refuses: its own text does not say.
_VALUES = {
    "security.protocol": "PLAINTEXT, SSL (which is TLS), SASL_PLAINTEXT or SASL_SSL",
    "group.protocol": "classic or consumer",
    "auto.offset.reset": "earliest, latest or error",
}
_MECHANISMS = "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"

# Parts of an error's text: librdkafka has few codes for refusals, so its texts have to tell the causes apart.
IS_IT_UP = "is it up, are KAFKA_BOOTSTRAP_SERVERS and KAFKA_SECURITY_PROTOCOL right?"
OLD_BROKERS = "set KAFKA_GROUP_PROTOCOL=classic: the other protocol needs Kafka 4.0 or newer"
_CUT_SHORT = "mechanism handshake failed"  # by a lost connection, or within a second of the last authentication
_USER = "check KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
_TOKENS_AUTHORITY = "set KAFKA_HTTPS_CA_LOCATION to the authority of the token server's certificate"
_IN_TEXTS = (  # parts of an error's text with their advice; the first match counts
    ("ConsumerGroupHeartbeat fatal error: Broker: API version", OLD_BROKERS),
    ("trust anchors", _TOKENS_AUTHORITY),
    ("certificate OpenSSL verify", _TOKENS_AUTHORITY),
    ("OAuth callback raised", "the log says why KAFKA_OAUTH_CALLBACK gave no token"),
    ("SASL OAUTHBEARER token", "check KAFKA_SASL_OAUTHBEARER_CLIENT_ID, _CLIENT_SECRET and _TOKEN_ENDPOINT_URL"),
    ("invalid_token", "the brokers do not accept its tokens: compare their life, audience, issuer and scope"),
    ("Unsupported SASL mechanism", "set KAFKA_SASL_MECHANISMS to one that the brokers have there"),
    (
        "certificate verify failed",
        "set KAFKA_SSL_CA_LOCATION to the authority of the brokers' certificates",
    ),
    ("SSL alert number", "check KAFKA_SSL_CERTIFICATE_LOCATION and KAFKA_SSL_KEY_LOCATION: the brokers refuse them"),
    (
        "PLAINTEXT broker listener",
        "check KAFKA_SECURITY_PROTOCOL and the port: the brokers use no TLS there",
    ),
)


def known_properties(properties: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Split users' properties into the properties that librdkafka knows and the names of unknown ones.

    A client of a token server trusts the authorities of `ca_file`, unless the properties name others. Raises
    SettingsError with the property whose value librdkafka refuses. No client is created.
    """
    known: dict[str, str] = {}
    unknown: list[str] = []
    for name, value in properties.items():
        if name in _NOT_PROPERTIES:
            unknown.append(name)
            continue
        text = _refusal({name: value, _PROBE: ""})
        if f'"{_PROBE}"' in text:
            known[name] = value
        elif "No such configuration property" in text:
            unknown.append(name)
        else:
            # librdkafka's text does not repeat the value of a secret.
            instead = f"; set {_VALUES[name]}" if name in _VALUES else ""
            raise SettingsError(f"{slips.variable_of(name)}: {text}{instead}")
    if known.get("sasl.oauthbearer.method", "").lower() == "oidc" and not known.keys() & _TRUST:
        # librdkafka's wheels look for a file that only some distributions have, even with `probe`.
        known["https.ca.location"] = ca_file()
    return known, unknown


def client_properties(kafka: KafkaSettings, *, warns: bool = False) -> dict[str, Any]:
    """The users' properties of one client, and the callback for its tokens. `warns`: of what librdkafka does not know.

    Raises SettingsError as `known_properties`, and KafkaUnavailable if KAFKA_OAUTH_CALLBACK gives no token.
    """
    known, unknown = known_properties(kafka.properties)
    if warns:
        slips.warn(slips.of_properties(unknown))
    if kafka.oauth_callback is None:
        return known
    return {**known, "oauth_cb": _tokens(kafka.oauth_callback, known.get("sasl.oauthbearer.config"))}


def _tokens(token_of: TokenOf, config: str | None) -> TokenOf:
    """The callback of one client, which librdkafka's own thread calls, also while nobody polls.

    The first token is made here: without it the binding waits for ten seconds, and then raises SystemError.
    """
    first = [_token(token_of, config)]
    return lambda config: first.pop() if first else _token(token_of, config)


def _token(token_of: TokenOf, config: str | None) -> tuple[Any, ...]:
    """A token that librdkafka takes. Raises KafkaUnavailable, and logs it: librdkafka repeats no text of a callback."""
    why = "it must return a token and its end, which is to come, in unix seconds (not milliseconds)"
    try:
        match token_of(config):
            case (str(token), int() | float() as end, *rest) if 0 < end - time.time() < _LONGEST:
                return token, float(end), *rest
    except Exception as error:  # noqa: BLE001 (the callback's own; its text may hold a secret)
        why = f"it failed ({type(error).__name__}); call it by itself to see why"
    log.error("no token for Kafka", reason=f"KAFKA_OAUTH_CALLBACK: {why}")
    raise KafkaUnavailable(f"no token for Kafka from KAFKA_OAUTH_CALLBACK: {why}")


def onlooker(kafka: KafkaSettings, name: str = "kafka-webhooks", *, warns: bool = False) -> dict[str, Any]:
    """The configuration of a client that joins no group and creates no topic; the brokers' logs show its `name`.

    `warns` and errors as for `client_properties`.
    """
    known = client_properties(kafka, warns=warns)
    return {
        "client.id": name,
        **{each: value for each, value in known.items() if not each.startswith(_OF_MEMBERS)},
        "bootstrap.servers": kafka.bootstrap_servers,
        # AdminClient is a producer to librdkafka, and so would have the brokers create each topic that it asks for.
        "allow.auto.create.topics": False,
    }


def refused(error: KafkaException, properties: Mapping[str, str]) -> SettingsError:
    """The reason why librdkafka makes no client of users' `properties`, with the setting at fault if it is known."""
    text = error.args[0].str()
    name = next((each for each in ("sasl.mechanisms", "sasl.mechanism") if each in properties), None)
    if "SASL mechanism" in text and name is None:
        return SettingsError("KAFKA_SASL_MECHANISMS is not set. For example: KAFKA_SASL_MECHANISMS=SCRAM-SHA-512")
    if "SASL mechanism" in text and name is not None:
        why = f"Kafka's client has no mechanism {properties[name]!r}; set {_MECHANISMS}"
        return SettingsError(f"{slips.variable_of(name)}: {why}")
    if "sasl.username and sasl.password" in text and name is not None:
        lacks = [slips.variable_of(each) for each in ("sasl.username", "sasl.password") if not properties.get(each)]
        return SettingsError(f"{properties[name]} needs a user and a password; set {' and '.join(lacks)}")
    if "Failed to set subscription" in text:
        return SettingsError(
            "KAFKA_TOPICS: Kafka's client refuses a pattern; write POSIX extended regular expressions, without (?:…). "
            "For example: KAFKA_TOPICS=^orders[.](eu|us)$"
        )
    if (found := _FILE.search(text)) is not None and (path := properties.get(found[1])) is not None:
        try:
            Path(path).read_bytes()
            why = "is not the PEM file that it should be"
        except OSError as unread:
            why = f"cannot be read: {unread.strerror}"
        return SettingsError(f"{slips.variable_of(found[1])}: {path} {why}")
    return SettingsError(f"Kafka's client refuses the settings: {text}")


def made(kind: Callable[..., Client], config: Mapping[str, Any], kafka: KafkaSettings) -> Client:
    """A client of librdkafka, whose lines go to our log. SettingsError: it refuses a setting."""
    try:
        return kind(config, logger=LibrdkafkaLog())
    except KafkaException as error:
        raise refused(error, kafka.properties) from None


def _refusal(config: dict[str, str]) -> str:
    try:
        Producer(config)
    except KafkaException as error:
        return str(error.args[0].str())
    raise AssertionError(f"librdkafka took the property {_PROBE!r}")


def allow(operation: str, topic: str) -> str:
    """The change that an operator should make if this user lacks a right to a topic."""
    return f"allow this service's user {operation} on the topic {topic}"


def remedy(error: KafkaError, *, topic: str | None = None, group: str = "") -> str | None:
    """The change that an operator should make; None if `error` is about something other than credentials and rights."""
    code, text = error.code(), error.str()
    if topic and code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return allow("Read", topic)
    if group and (code == KafkaError.GROUP_AUTHORIZATION_FAILED or "Group authorization failed" in text):
        return f"allow this service's user Read on the group {group}"
    found = next((advice for part, advice in _IN_TEXTS if part in text), None)
    if found is None and code == KafkaError._AUTHENTICATION and _CUT_SHORT not in text:  # noqa: SLF001 (its public name)
        return _USER
    return found


def explained(error: KafkaError, *, topic: str | None = None, group: str = "") -> str:
    """The text of `error`, and what to change if it is about credentials and rights."""
    advice = remedy(error, topic=topic, group=group)
    return error.str() if advice is None else f"{error.str()}; {advice}"


class LibrdkafkaLog:
    """Logs librdkafka's lines; the binding calls it inside `poll`, in place of a `logging.Logger`."""

    def log(self, level: int, _format: str, facility: str, client: str, message: str) -> None:
        """Log one line; `level` is one of the standard library's."""
        level = logging.DEBUG if facility in _QUIET_FACILITIES else level
        log.log(level, "librdkafka", facility=facility, client=client, text=message)


class Reachability:
    """Tracks whether brokers and the group's coordinator answer, from errors at once, and from statistics each second.

    A hanging broker keeps its connections, so librdkafka counts it as up for a minute, until a request times out.
    """

    def __init__(
        self, kafka: KafkaSettings, clock: Callable[[], float] = time.monotonic, *, expected: bool = True
    ) -> None:
        """`expected`: a missing first connection is a fault, as for a service; else only outages are faults."""
        self.fault: str | None = f"{_UNCONNECTED}{kafka.bootstrap_servers}" if expected else None
        self.coordinator_up = True
        self._up = True  # as of the last document: one that was written before a broker answered is no outage
        self._servers = kafka.bootstrap_servers
        self._detail = ""
        self._advice: str | None = None  # what to change, if this client is refused
        self._silence = Silence(kafka.properties.get("fetch.wait.max.ms", ""), clock)

    @property
    def detail(self) -> str:
        """The last error of a connection, and what to change if that is known; empty after an answer."""
        return self._detail[2:-1]

    def error(self, error: KafkaError) -> None:
        """Take note of an error from librdkafka's `error_cb`."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 (the binding's public name for it)
            self._down()
            return
        advice = remedy(error)
        if advice is not None and advice != self._advice:
            log.warning("Kafka refuses this client", servers=self._servers, error=error.str(), advice=advice)
        if advice is not None or self._advice is None:  # the report of a lost connection does not hide its cause
            self._detail, self._advice = f" ({explained(error)})", advice
        if self.fault is not None and self.fault.startswith(_UNCONNECTED):
            self.fault = f"{_UNCONNECTED}{self._servers}{self._detail}"

    def statistics(self, statistics: Mapping[str, Any]) -> None:
        """Take note of one statistics document of librdkafka."""
        self.coordinator_up = statistics.get("cgrp", {}).get("state") == "up"
        silent = self._silence.note(statistics)
        if silent is not None:
            if self.fault is None:
                log.warning("a Kafka broker does not answer", servers=self._servers, reason=silent)
            self.fault = silent
        elif any(broker["state"] == _UP for broker in statistics["brokers"].values()):
            self.up()
        elif self.fault is None and not self._up:
            self._down()
        else:
            self._up = False

    def up(self) -> None:
        """Note that a broker answered. The coordinator's state comes from the group's callbacks and statistics."""
        if self.fault is not None:
            log.info("connected to Kafka", servers=self._servers)
        self.fault, self._detail, self._advice, self._up = None, "", None, True

    def coordinated(self) -> None:
        """Note that the group's coordinator answered, and with it a broker."""
        self.up()
        self.coordinator_up = True

    def _down(self) -> None:
        fault = f"no Kafka broker reachable at {self._servers}{self._detail}"
        if self.fault is None or self.fault.startswith(_UNCONNECTED):
            log.warning("no Kafka broker reachable", servers=self._servers, detail=self.detail)
        self.fault, self.coordinator_up = fault, False


class Silence:
    """Finds brokers that owe this client an answer for too long: its partitions' leaders and its coordinator.

    The client always has a request open at each of them, however quiet the topics are: a broker answers a fetch when
    its wait is over, a heartbeat at once. A coordinator that lets a joining member wait for the others is not silent.
    """

    def __init__(self, longest_fetch: str, clock: Callable[[], float]) -> None:
        """`longest_fetch`: the property `fetch.wait.max.ms`, or an empty text if it is not set."""
        self._limit = SILENT + (int(longest_fetch) / 1000 if longest_fetch.isdecimal() else 0.0)
        self._clock = clock
        self._owing: dict[str, tuple[int, float]] = {}  # by broker: its number of answers, and when it last changed

    def note(self, statistics: Mapping[str, Any]) -> str | None:
        """Take note of one statistics document. Returns the fault of the broker silent for longest, if too long."""
        now = self._clock()
        steady = statistics.get("cgrp", {}).get("join_state") == "steady"
        before, self._owing = self._owing, {}
        for name, broker in statistics["brokers"].items():
            depends = bool(broker["toppars"]) or (broker["source"] == "logical" and steady)
            if broker["state"] == _UP and broker["waitresp_cnt"] and depends:
                answers, since = before.get(name, (-1, now))
                self._owing[name] = broker["rx"], since if answers == broker["rx"] else now
        name, since = min(
            ((name, since) for name, (_, since) in self._owing.items()), key=itemgetter(1), default=("", now)
        )
        if now - since < self._limit:
            return None
        return f"the Kafka broker {statistics['brokers'][name]['nodename']} has not answered for {now - since:.0f} s"


class Reported:
    """Errors that Kafka reports in place of records. `fatal`: the error that makes this client unusable.

    `faults`: the errors since the last answer, by topic; None is the client itself.
    """

    def __init__(self, group: str) -> None:
        """`group`: the consumer group of this client."""
        self._group = group
        self.fatal: FatalKafkaError | None = None
        self.faults: dict[str | None, str] = {}

    @property
    def fault(self) -> str | None:
        """The errors of topics and of the client since they last answered; None if there are none."""
        return "; ".join(self.faults.values()) or None

    def error(self, topic: str | None, error: KafkaError) -> None:
        """Take note of an error of `topic`, or of the client if None. The end of a partition is none."""
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 (the binding's public name)
            return
        if error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001 (a message's error lacks the flag)
            self.fatal = FatalKafkaError(f"Kafka's client cannot go on: {explained(error, group=self._group)}")
            return
        text = explained(error, topic=topic, group=self._group)
        fault = f"{topic}: {text}" if topic else text
        if self.faults.get(topic) != fault:
            log.warning("Kafka reports", topic=topic, error=text)
        self.faults[topic] = fault

    def statistics(self, statistics: Mapping[str, Any]) -> None:
        """Clear the client's fault if one statistics document of librdkafka shows the client in the group again."""
        group = statistics.get("cgrp", {})
        if group.get("state") == "up" and group.get("join_state") == "steady":
            self.answers(None)

    def answers(self, topic: str | None) -> None:
        """Clear the fault of `topic`: a record of it arrived, or it was assigned, or its last partition has left."""
        if self.faults:
            self.faults.pop(topic, None)
