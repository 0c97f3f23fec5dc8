"""The types of settings: each parses and checks its values. Errors never repeat a secret's text."""

import binascii
import math
import re
import warnings
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, tzinfo
from importlib import import_module
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, SecretStr
from pydantic_core import ErrorDetails

from consumer.crypto.credentials import PluginFactory, Plugins
from consumer.crypto.keys import MOST_SIGNING, parse_signing_key
from consumer.events.event import in_calendar
from consumer.http.urls import check_target, parse_proxy, parse_target

Network = IPv4Network | IPv6Network
TokenOf = Callable[[str | None], tuple[Any, ...]]  # librdkafka's oauth_cb: gives a token and its end in unix seconds
# python-oracledb's access_token: gives an OAuth 2.0 token, or one of IAM and its private key. True: it must be new.
DatabaseTokenOf = Callable[[bool], str | tuple[str, str]]

_PLACE = r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)"
_PLUGIN = re.compile(r"([a-z][a-z0-9_-]{0,49})=" + _PLACE)
_FUNCTION = re.compile(_PLACE)
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)(ms|s|m|h|d)?")
AGE = re.compile(r"[0-9.]+(ms|s|m|h|d)")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}|\^.+")
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")
_LONGEST_HOST_NAME = 253  # characters (RFC 1035, 2.3.4, without the root's dot)
# A database URL as SQLAlchemy splits it: a user without `:/?@`, a password without `@`, and no further `@`.
_ONE_AT = re.compile(r"[^:/]+://([^:/?@]*(:[^@]*)?@)?[^@]*")
_WITH_AT = re.compile(r"[?&](config_dir|dsn|ssl_server_cert_dn|wallet_location)=[^&]*")  # parameters that may have an @
_PROTOCOL = re.compile(r"((SASL_)?(PLAINTEXT|SSL)://)?", re.IGNORECASE)
_BROKER = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:;\s]+)(?::0*([0-9]{1,5}))?/?|[0-9A-Fa-f]*(:[0-9A-Fa-f]*){2,}")
_LAST_PORT = 65_535
_STATUS = re.compile(r"([345])([0-9]{2}|xx|XX)")
_ASK_FOR_ANOTHER = frozenset((408, 409, 425, 429))  # retry: later, after a conflict is settled, or more slowly
_ENCODE = "percent-encode each @ : / ? % of its user and password (@ is %40)"
_LONGEST_WAIT = 30 * 86400.0  # seconds; a wait longer than a month is a typing error
# POSIX classes, reduced to the characters that topic names can have; Python's patterns have no classes.
_CLASSES = {"alnum": "a-zA-Z0-9", "alpha": "a-zA-Z", "digit": "0-9", "lower": "a-z", "upper": "A-Z", "punct": "._-"}

# Properties that would let an offset move before its deliveries are settled, or that this service sets itself.
REFUSED_KAFKA_PROPERTIES = {
    "enable.auto.commit": "offsets are committed only after success",
    "enable.auto.offset.store": "offsets are committed only after success",
    "auto.commit.interval.ms": "offsets are committed only after success",
    "enable.partition.eof": "the worker has to know when it has read all of a partition",
    "metadata.broker.list": "set KAFKA_BOOTSTRAP_SERVERS",
    "isolation.level": "it is read_committed; else records of aborted transactions would be delivered",
    "acks": "a dead letter must be acknowledged by all replicas before its record's offset moves",
    "enable.idempotence": "a dead letter must be acknowledged before its record's offset moves",
    "queuing.strategy": "the consumer must drop no record",
}


def seconds(value: str | float) -> float:
    """`10s`, `5m`, `250ms`, `1d`, or a bare number of seconds. ValueError for anything else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
        return float(value)
    match = _DURATION.fullmatch(str(value).strip())
    if not match:
        raise ValueError(f"{str(value)!r:.40} is not a duration; write 10s, 5m, 250ms or a number of seconds")
    return float(match[1]) * _UNITS[match[2] or "s"]


def duration(value: float) -> str:
    """Seconds as users write them, in the largest unit that gives a whole number: 300 is `5m`."""
    return next(
        (f"{value / _UNITS[unit]:.0f}{unit}" for unit in "dhm" if value and not value % _UNITS[unit]), f"{value:g}s"
    )


def moment(text: str, now: float, zone: tzinfo | None = UTC) -> float:
    """Unix seconds of a time in ISO 8601, or of an age before `now` such as `2h`; at least 0.

    A time without a zone is in `zone`; if that is None, it is refused. ValueError, which does not quote `text`, for
    anything else.
    """
    try:
        if AGE.fullmatch(text):
            return max(0.0, now - seconds(text))
        parsed = datetime.fromisoformat(text.upper())
        if parsed.tzinfo or zone:
            return in_calendar(max(0.0, (parsed if parsed.tzinfo else parsed.replace(tzinfo=zone)).timestamp()))
    except (ValueError, OverflowError):
        pass
    raise ValueError("is neither a time such as 2026-07-28T14:00Z nor an age such as 2h or 3d")


def _split(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _words(value: object) -> object:
    return _split(value) if isinstance(value, str) else value


def waits(text: str | Iterable[str | float]) -> tuple[float, ...]:
    """`5s,5m,1h`: seconds before the second, third, … attempt; empty for one attempt. ValueError for a wrong wait."""
    return tuple(_wait(word) for word in (_split(text) if isinstance(text, str) else text))


def _wait(word: str | float) -> float:
    result = seconds(word)
    if not 0 < result <= _LONGEST_WAIT:
        raise ValueError(f"{word} is not a wait between attempts; each is more than 0 and at most 30d")
    return result


def final_statuses(text: str) -> frozenset[int]:
    """`400,422,4xx`: statuses, or whole classes, from 3xx to 5xx. ValueError for anything else.

    A class leaves out the statuses that ask for another attempt (408, 409, 425, 429), unless they are named as well.
    """
    return frozenset(status for word in _split(text) for status in _statuses(word))


def _statuses(word: str) -> Iterable[int]:
    match = _STATUS.fullmatch(word)
    if not match:
        raise ValueError(f"{word!r} is neither a status from 300 to 599 nor a class (3xx, 4xx, 5xx)")
    if match[2].isdigit():
        return (int(word),)
    first = 100 * int(match[1])
    return (status for status in range(first, first + 100) if status not in _ASK_FOR_ANOTHER)


def _networks(text: object) -> object:
    words = _words(text)
    return tuple(ip_network(word, strict=False) for word in words) if isinstance(words, tuple) else words


def _topics(words: tuple[str, ...]) -> tuple[str, ...]:
    if not words:
        raise ValueError("names no topic")
    for word in words:
        if not _TOPIC.fullmatch(word):
            raise ValueError(f"{word!r} is neither a topic name (letters, digits, . _ -) nor a pattern (starts with ^)")
        if word.startswith("^"):
            topic_pattern(word)
    return words


def topic_pattern(text: str) -> re.Pattern[str]:
    """Python's form of a pattern of topics, which is one of POSIX or RE2. ValueError: it is no regular expression."""
    translated = re.sub(r"\[:([a-z]+):\]", lambda found: _CLASSES.get(found[1], found[0]), text)
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # `[[` may mean something one day
            return re.compile(translated)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from None


def topic_names(text: str) -> frozenset[str]:
    """`orders,users`: names of topics. ValueError for a pattern, or for no name at all."""
    words = _topics(_split(text))
    if any(word.startswith("^") for word in words):
        raise ValueError("a pattern of topics cannot be used here")
    return frozenset(words)


def _host_name(name: str) -> str:
    if len(name) > _LONGEST_HOST_NAME or not _HOST_NAME.fullmatch(name):
        raise ValueError(f"{name!r:.80} is not a DNS name; write events.example.com, without https://")
    return name.lower()


def _named(pattern: str, what: str) -> AfterValidator:
    """A validator that refuses a name unless `pattern` matches all of it; `what` describes a valid name."""

    def check(name: str) -> str:
        if not re.fullmatch(pattern, name):
            raise ValueError(f"{name!r:.80} is not a {what}")
        return name

    return AfterValidator(check)


# A proxy that cannot work is refused at the start, not at each delivery. Its user and password may hold any
# visible ASCII character.
def _http_url(text: str) -> str:
    parse_target(text)
    if text.count("@") > 1 or ("@" in text and "@" not in urlsplit(text).netloc):
        raise ValueError(f"holds an @ in its user, password or path: {_ENCODE}")
    return text


def _registry_url(text: str) -> str:
    for url in map(str.strip, text.split(",")):
        parse_target(url)
        if "@" in url:  # wherever it stands: a password with a / or # ends the host for a parser
            raise ValueError("holds a user or a password; set SCHEMA_REGISTRY_USER and SCHEMA_REGISTRY_PASSWORD")
    return text


def _token_url(text: str) -> str:
    if "@" in text:
        raise ValueError("holds a user or a password; set SCHEMA_REGISTRY_CLIENT_ID and SCHEMA_REGISTRY_CLIENT_SECRET")
    check_target(text)
    target = parse_target(text)
    if target.scheme != "https" and not is_loopback(target.host):
        raise ValueError("must start with https://, since it gets the client's secret; http:// is for loopback")
    return text


def _proxy(url: str) -> str:
    if url:
        parse_proxy(url)
    return url


def _group_id(name: str) -> str:
    if name != name.strip():  # librdkafka drops the blanks, and aborts the process if nothing is left
        raise ValueError(f"{name!r} begins or ends with a blank; leave it out")
    return name


def _bootstrap_servers(text: str) -> str:
    if "@" in text:
        raise ValueError("holds a user or a password; set KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD")
    servers = _split(text)
    if not servers:
        raise ValueError("names no broker")
    for number, server in enumerate(servers, 1):
        place = _PROTOCOL.sub("", server, count=1)
        if "://" in place:
            raise ValueError(f"its broker number {number} begins with a protocol that Kafka has not; write host:port")
        found = _BROKER.fullmatch(place)
        if found is None or not 0 < int(found[2] or 1) <= _LAST_PORT:
            raise ValueError(f"its broker number {number} is not host:port, with a port from 1 to {_LAST_PORT}")
    return text


def _kafka_properties(properties: Mapping[str, str]) -> Mapping[str, str]:
    for name, reason in REFUSED_KAFKA_PROPERTIES.items():
        if name in properties:
            raise ValueError(f"KAFKA_{name.upper().replace('.', '_')} cannot be set: {reason}")
    if "@" in properties.get("sasl.oauthbearer.token.endpoint.url", ""):  # librdkafka logs it
        raise ValueError(
            "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL holds a user or a password; "
            "set KAFKA_SASL_OAUTHBEARER_CLIENT_ID and KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET"
        )
    return properties


def _database_url(url: SecretStr) -> SecretStr:
    from sqlalchemy.engine import make_url  # noqa: PLC0415 (only this group needs it; commands without it start faster)
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415 (the same)

    text = url.get_secret_value()
    if "@" in text and not text.startswith("sqlite:///") and not _ONE_AT.fullmatch(_WITH_AT.sub("", text)):
        raise ValueError(f"needs exactly one @, before its host: {_ENCODE}")
    try:
        driver = make_url(text).drivername
    except (ArgumentError, ValueError):
        raise ValueError("is not a database URL") from None
    if driver not in {"oracle+oracledb", "sqlite"}:
        raise ValueError("starts with neither oracle+oracledb:// nor sqlite:///")
    return url


def _fernet_keys(keys: SecretStr) -> SecretStr:
    for key in keys.get_secret_value().split():
        try:
            size = len(urlsafe_b64decode(key))
        except (binascii.Error, ValueError):
            size = 0
        if size != 32:  # noqa: PLR2004 (Fernet specification: 128 bits to sign, 128 to encrypt)
            raise ValueError("a Fernet key is 32 bytes in url-safe base64")
    return keys


def _signing_secrets(secrets: SecretStr) -> SecretStr:
    words = secrets.get_secret_value().split()
    if not words:
        raise ValueError("holds no secret")
    if len(words) > MOST_SIGNING:
        raise ValueError(f"holds {len(words)} secrets; at most {MOST_SIGNING} sign at a time")
    for word in words:
        parse_signing_key(word)
    return secrets


def _token(token: SecretStr) -> SecretStr:
    if not re.fullmatch("[!-~]+", token.get_secret_value()):
        raise ValueError("only visible ASCII fits in a header")
    return token


def plugins_of(text: str) -> Plugins:
    """Import plug-ins, written `sigv4=requests_aws4auth:AWS4Auth,…`: names and factories.

    ValueError, which says what to do, if a plug-in cannot be used.
    """
    found: dict[str, PluginFactory] = {}
    for word in filter(None, map(str.strip, text.split(","))):
        match = _PLUGIN.fullmatch(word)
        if match is None:
            raise ValueError(f"{word!r:.100} is not written name=module:class")
        name, module, attribute = match.groups()
        try:
            found[name] = _imported(module, attribute)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return tuple(found.items())


def _imported(module: str, attribute: str) -> Any:
    try:
        found = getattr(import_module(module), attribute)
    except ImportError as error:
        raise ValueError(f"{error}; install it where this process runs") from None
    except AttributeError:
        raise ValueError(f"the module {module} has no {attribute}") from None
    except Exception as error:  # noqa: BLE001 (the module's own; its text may hold a secret)
        raise ValueError(f"the module {module} cannot be imported: {type(error).__name__}") from None
    if not callable(found):
        raise ValueError(f"{module}:{attribute} is neither a class nor a function")  # noqa: TRY004 (pydantic's)
    return found


def _callback(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match = _FUNCTION.fullmatch(value)
    if match is None:
        raise ValueError("is not written module:function")
    return _imported(*match.groups())


def _plugins(value: Any) -> Any:
    return plugins_of(value) if isinstance(value, str) else value


def is_loopback(host: str) -> bool:
    """Whether `host` can be reached only from this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


Duration = Annotated[float, BeforeValidator(seconds)]
Waits = Annotated[tuple[float, ...], BeforeValidator(waits)]
Networks = Annotated[tuple[Network, ...], BeforeValidator(_networks)]
Topics = Annotated[tuple[str, ...], BeforeValidator(_words), AfterValidator(_topics)]
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)]
TenantName = Annotated[str, _named(r"[!-~]{1,100}", "name of an attribute (visible ASCII, at most 100 characters)")]
GroupId = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_group_id)]
TopicName = Annotated[str, _named(r"[A-Za-z0-9._-]{1,249}", "topic name (letters, digits, . _ -)")]
SchemaName = Annotated[
    str,
    _named(r"[A-Za-z][A-Za-z0-9_$#]{0,29}", "schema (a letter, then letters, digits, _ $ #; at most 30 characters)"),
]
Port = Annotated[int, Field(ge=0, le=65535)]
HostName = Annotated[str, AfterValidator(_host_name)]
KafkaProperties = Annotated[Mapping[str, str], AfterValidator(_kafka_properties)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
BootstrapServers = Annotated[str, AfterValidator(_bootstrap_servers)]
FernetKeys = Annotated[SecretStr, AfterValidator(_fernet_keys)]
SigningSecrets = Annotated[SecretStr, AfterValidator(_signing_secrets)]
Proxy = Annotated[str, AfterValidator(_proxy)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
RegistryUrl = Annotated[str, AfterValidator(_registry_url)]
Token = Annotated[SecretStr, AfterValidator(_token)]
TokenUrl = Annotated[str, AfterValidator(_token_url)]
HeaderValue = Annotated[str, _named(r"[!-~]{1,1000}", "value of a header (visible ASCII, at most 1000 characters)")]
OAuthCallback = Annotated[TokenOf, PlainValidator(_callback)]
DatabaseTokens = Annotated[DatabaseTokenOf, PlainValidator(_callback)]
AuthPlugins = Annotated[Plugins, PlainValidator(_plugins)]


_BOUNDS = {"gt", "ge", "lt", "le"}
# Messages by Pydantic's error type: Pydantic's own are written for programmers.
_WRONG = {
    "bool_parsing": "is neither true nor false",
    "bool_type": "is neither true nor false",
    "finite_number": "is not a number",
    "float_parsing": "is not a number",
    "float_type": "is not a number",
    "greater_than": "is too small; it must be more than {gt}",
    "greater_than_equal": "is too small; the least is {ge}",
    "int_from_float": "is not a whole number",
    "int_parsing": "is not a whole number",
    "int_parsing_size": "has too many digits",
    "int_type": "is not a whole number",
    "literal_error": "is not one of {expected}",
    "less_than": "is too large; it must be less than {lt}",
    "less_than_equal": "is too large; the most is {le}",
    "string_too_short": "is too short",
    "string_too_long": "is too long; at most {max_length} characters are taken",
}


def in_words(error: ErrorDetails, value: object, bound: Callable[[float], str] = "{:g}".format) -> str:
    """The error in words. `value` is quoted; None leaves out a value that is secret. `bound` writes a limit."""
    wrong = _WRONG.get(error["type"])
    if wrong is None:
        return error["msg"].removeprefix("Value error, ").removesuffix(".")
    limits = {name: bound(limit) if name in _BOUNDS else limit for name, limit in error.get("ctx", {}).items()}
    what = wrong.format(**limits)
    return what if value is None else f"{str(value)!r:.80} {what}"
