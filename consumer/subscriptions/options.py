"""The options of a subscription: how their stored values are parsed, and the effect of an invalid value. Pure.

Subscriptions come from plain SQL, the command line and the API. The command line and the API refuse invalid values
(`completed`); for rows written by SQL, `endpoint_row` reports the problems and their effects. `read` parses all three.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple, get_args

import orjson
import structlog
from sqlalchemy import String

from consumer.config.types import final_statuses, topic_names, waits
from consumer.errors import InvalidSubscription
from consumer.expressions.expression import TOGETHER, Expression, compile_filter, compile_projection
from consumer.http import header_rules
from consumer.subscriptions.endpoint import Method, PayloadFormat
from consumer.subscriptions.follows import MOST_EXPRESSIONS, compile_text, follows_of, parse_passed, url_template
from consumer.subscriptions.patterns import check_pattern
from consumer.subscriptions.signature_template import parse_signature_template
from models import Subscription

log = structlog.get_logger(__name__)

BATCH_WAIT = 1.0  # seconds; the default of batch_wait_ms
LONGEST_BATCH_WAIT = 60_000  # milliseconds
LARGEST_BATCH = 1000  # events
LONGEST_TIMEOUT = 300.0  # seconds; the same limit as WEBHOOK_TIMEOUT
LEAST_NUMBER, MOST_NUMBER = 0.001, 999_999.999  # the range of the columns: NUMBER(9, 3)
MOST_IN_FLIGHT = 1_000_000
LARGEST_BODY = 100 * 2**20  # bytes; the largest gzip_above, beyond any body
MOST_LABELS = 32  # members of metadata
UNREPORTED = frozenset(("set-cookie", "set-cookie2"))  # of an answer: a session's secret
BOOLEAN = ("false", "true")  # in the database, as Oracle before 23ai has no such type
OFF = "none"  # as the name of the hex signature's header, turns that signature off
COLUMN_BYTES = 4000  # the limit of a VARCHAR2, for any declared number of characters
_COLUMNS = Subscription.__table__.columns


class Effect(Enum):
    """The effect of a problem on the subscription."""

    UNMATCHED = "it matches no event"
    UNNAMED = "no event matches it"  # one of several types; the others match theirs
    STORED = "its events are stored, not sent"
    DEFAULT = "the default is used"
    UNUSED = "it has no effect"
    SENT = "it is sent all the same"


class OptionProblem(NamedTuple):
    """An option with an unusable value, or (SENT) with an inadvisable one, and why. The text holds no secret."""

    option: str
    why: str
    effect: Effect

    def __str__(self) -> str:
        return f"{self.option}: {self.why}; {self.effect.value}"

    def as_json(self) -> dict[str, str]:
        """The problem as a JSON object, in the API and in `--json`."""
        return {"option": self.option, "why": self.why, "effect": self.effect.name.lower()}


class Option(NamedTuple):
    """A column that holds an option of a subscription.

    `parse` turns the stored value into the option's; the text of its ValueError continues a sentence that begins with
    the column's name, and `effect` is the effect of that error. `default` is the database's default; None: null, or no
    default if the column is `required`. `choices`: the only values, if there are few.
    """

    parse: Callable[[Any], Any]
    effect: Effect
    example: str
    default: str | None = None
    required: bool = False
    choices: tuple[str, ...] = ()

    @property
    def nullable(self) -> bool:
        """Whether the column may be null; null is then its default."""
        return self.default is None and not self.required


def parse_headers(text: str) -> tuple[tuple[str, str], ...]:
    """Parse a JSON object of texts into request headers. Raises ValueError; its text quotes no value."""
    headers = _by_header(text)
    for name, value in headers.items():
        header_rules.check(name, value)
    return tuple(headers.items())


def parse_header_expressions(text: str) -> tuple[tuple[str, Expression], ...]:
    """Parse a JSON object of CEL expressions into computed headers. Raises ValueError."""
    found = _by_header(text)
    if len(found) > MOST_EXPRESSIONS:
        raise ValueError(f"has {len(found)} headers; at most {MOST_EXPRESSIONS} are computed")
    return tuple((name, compile_text(source)) for name, source in found.items())


def _by_header(text: str) -> dict[str, str]:
    found = _texts(text)
    if len({name.lower() for name in found}) != len(found):
        raise ValueError("names a header twice")
    for name in found:
        if header_rules.dashed(name) in header_rules.CREDENTIALS:
            place = "webhook_secrets (--basic, --bearer, or subscriptions set-credential)"
            raise ValueError(f"{name} is a credential; store it in {place}")
        header_rules.check_name(name)
    return found


def _texts(text: str) -> dict[str, str]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ValueError("is not JSON") from None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError("is not a JSON object of texts")
    return found


def parse_metadata(text: str) -> dict[str, str]:
    """Parse a JSON object of texts. Raises ValueError."""
    labels = _texts(text)
    if len(labels) > MOST_LABELS:
        raise ValueError(f"has {len(labels)} members; at most {MOST_LABELS} are kept")
    return labels


def parse_hex_header(text: str) -> str | None:
    """The name of the hex signature's header; None for `none`. Raises ValueError."""
    if text.lower() == OFF:
        return None
    if text.lower() in header_rules.CREDENTIALS | {"user-agent"}:
        raise ValueError(f"{text} already has another purpose")
    header_rules.check_name(text)
    return text


def parse_answer_headers(text: str) -> re.Pattern[str]:
    """Compile the names of the headers of answers that are reported. Raises ValueError."""
    return header_rules.parse_names(text, _check_reported)


def _check_reported(name: str) -> None:
    if name in UNREPORTED:
        raise ValueError(f"names {name}, a credential, which is not reported")


def parse_prefix(text: str) -> str:
    """The prefix of the hex digits. Raises ValueError."""
    if not header_rules.is_value(text) or text != text.lstrip():
        raise ValueError("may contain only visible ASCII and spaces, and must not start with a space")
    return text


def parse_tenant(text: str) -> str:
    """A tenant's name, or `*` for all tenants. Raises ValueError."""
    if not text:
        raise ValueError("is empty; write the tenant's name, or * for all")
    return parse_line(text)


def parse_line(text: str) -> str:
    """A text of one line. Raises ValueError."""
    if not text.isprintable() or text != text.strip():
        raise ValueError("must not contain control characters, or spaces at either end")
    return text


def _number(least: float, most: float, unit: str = "") -> Callable[[Any], float]:
    def parse(value: Any) -> float:
        if not isinstance(value, int | float) or not least <= value <= most:
            own = "" if isinstance(value, str) else unit
            raise ValueError(f"is {value!r:.40}{own}; it must be from {_plain(least)} to {_plain(most)}{unit}")
        return value

    return parse


def _whole(least: int, most: int, unit: str = "") -> Callable[[Any], int]:
    number = _number(least, most, unit)

    def parse(value: Any) -> int:
        if number(value) != int(value):
            raise ValueError(f"is {value!r}; it must be a whole number")
        return int(value)

    return parse


def _plain(number: float) -> str:
    return f"{number:.3f}".rstrip("0").rstrip(".") if isinstance(number, float) else str(number)


def _one_of(words: tuple[str, ...], effect: Effect, example: str, default: str) -> Option:
    def parse(value: Any) -> str:
        if value not in words:
            raise ValueError(f"is {value!r:.40}; it must be {', '.join(words[:-1])} or {words[-1]}")
        return str(value)

    return Option(parse, effect, example, default, choices=words)


def _text(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Let `parse` see only valid text that is not blank; SQLite keeps bytes in any column."""

    def parse_text(value: Any) -> Any:
        try:
            value.encode()
        except (AttributeError, UnicodeEncodeError):  # bytes, a number, or a lone surrogate
            raise ValueError("is not text") from None
        if value.isspace():
            raise ValueError("is blank")
        return parse(value)

    return parse_text


# Each look-up parses all subscriptions that it finds, so the results of common and slow options are cached.
_check_type = lru_cache(65_536)(check_pattern)
_topics, _headers, _hex_header = (lru_cache(1000)(parse) for parse in (topic_names, parse_headers, parse_hex_header))
_signature = lru_cache(1000)(parse_signature_template)
_passed = lru_cache(1000)(parse_passed)
_answered = lru_cache(1000)(parse_answer_headers)
_waits, _statuses = lru_cache(1000)(waits), lru_cache(1000)(final_statuses)

OPTIONS: Mapping[str, Option] = {
    "url": Option(_text(url_template), Effect.STORED, "https://example.com/hooks", required=True),
    "event_type": Option(_text(_check_type), Effect.UNMATCHED, "order.created", required=True),
    "tenant": Option(_text(parse_tenant), Effect.UNMATCHED, "acme", "*"),
    "topics": Option(_text(_topics), Effect.UNMATCHED, "orders,users"),
    "event_filter": Option(_text(compile_filter), Effect.STORED, "data.amount > 100"),
    "payload_format": _one_of(get_args(PayloadFormat), Effect.STORED, "standard", "record"),
    "projection": Option(_text(compile_projection), Effect.STORED, '{"id": data.id}'),
    "batch_size": Option(_whole(1, LARGEST_BATCH), Effect.STORED, "100"),
    "batch_wait_ms": Option(_whole(0, LONGEST_BATCH_WAIT, " milliseconds"), Effect.DEFAULT, "500"),
    "method": _one_of(get_args(Method), Effect.STORED, "PUT", "POST"),
    "custom_headers": Option(_text(_headers), Effect.STORED, '{"X-Origin": "shop"}'),
    "header_expressions": Option(_text(parse_header_expressions), Effect.STORED, '{"X-Order": "data.id"}'),
    "pass_headers": Option(_text(_passed), Effect.STORED, "x-*,correlation-id"),
    "signature_header": Option(_text(_hex_header), Effect.STORED, "X-Hub-Signature-256", "x-webhook-signature"),
    "signature_prefix": Option(_text(parse_prefix), Effect.STORED, "sha256="),
    "signature_template": Option(_text(_signature), Effect.STORED, "stripe"),
    "report_answer": _one_of(BOOLEAN, Effect.DEFAULT, "true", "false"),
    "answer_headers": Option(_text(_answered), Effect.DEFAULT, "etag,x-*"),
    "gzip_above": Option(_whole(0, LARGEST_BODY, " bytes"), Effect.DEFAULT, "1024"),
    "http_version": _one_of(("1.1", "2"), Effect.DEFAULT, "2", "1.1"),
    "timeout_seconds": Option(_number(LEAST_NUMBER, LONGEST_TIMEOUT, " seconds"), Effect.DEFAULT, "5"),
    "ordering": _one_of(("none", "key"), Effect.STORED, "key", "none"),
    "max_in_flight": Option(_whole(1, MOST_IN_FLIGHT), Effect.DEFAULT, "20"),
    "rate_limit": Option(_number(LEAST_NUMBER, MOST_NUMBER, " a second"), Effect.STORED, "50"),
    "retry_schedule": Option(_text(_waits), Effect.DEFAULT, "5s,5m,1h"),
    "final_statuses": Option(_text(_statuses), Effect.DEFAULT, "400,422,4xx"),
    "name": Option(_text(parse_line), Effect.SENT, "Orders to the warehouse"),
    "external_id": Option(_text(parse_line), Effect.SENT, "crm-4711"),
    "metadata": Option(_text(parse_metadata), Effect.SENT, '{"team": "shop"}'),
}
DESCRIPTIVE = ("name", "external_id", "metadata")  # for people and programs; no event depends on them
_BY_DEFAULT = {
    name: None if option.default is None else option.parse(option.default) for name, option in OPTIONS.items()
}


def read(stored: Mapping[str, Any]) -> tuple[dict[str, Any], list[OptionProblem]]:
    """The parsed values as of `parsed`, and the problems, also of options that do not go together."""
    meant, problems = parsed(stored)
    problems.extend(_conflicts(stored, meant))
    return meant, problems


def parsed(stored: Mapping[str, Any]) -> tuple[dict[str, Any], list[OptionProblem]]:
    """The parsed values of the `stored` columns of OPTIONS, and the problems. The default replaces an unusable value.

    An empty text counts as null if the column may be null, as in Oracle.
    """
    meant = dict(_BY_DEFAULT)
    problems: list[OptionProblem] = []
    for column, value in stored.items():
        option = OPTIONS[column]
        if value is None or value == option.default or (value == "" and option.nullable):
            continue
        try:
            meant[column] = option.parse(value)
        except Exception as error:  # noqa: BLE001 (one row must not end a look-up of many)
            problems.append(OptionProblem(column, reason_of(error), option.effect))
    return meant, problems


def reason_of(error: Exception) -> str:
    """The reason of a problem. The text of an exception other than ValueError, a bug, may quote a secret."""
    if isinstance(error, ValueError):
        return str(error)
    log.debug("a value of a subscription cannot be read", exc_info=error)  # each look-up repeats it
    return f"cannot be read ({type(error).__name__})"


def _conflicts(stored: Mapping[str, Any], meant: Mapping[str, Any]) -> Iterator[OptionProblem]:
    """Problems of options that are valid by themselves, but not together."""
    if meant["batch_wait_ms"] is not None and stored["batch_size"] is None:
        yield OptionProblem("batch_wait_ms", "needs batch_size, which is not set", Effect.UNUSED)
    if stored["batch_size"] is not None:
        if meant["payload_format"] == "cloudevents-binary":
            yield OptionProblem("batch_size", "a request of cloudevents-binary carries one event", Effect.STORED)
        for column in ("url", "header_expressions", "pass_headers"):
            if meant[column] is not None:
                what = "its expressions need" if column == "url" else "needs"
                yield OptionProblem(column, f"{what} one event for each request; unset batch_size", Effect.STORED)
        if meant["report_answer"] == "true":
            why = "needs one event for each request; unset batch_size"
            yield OptionProblem("report_answer", why, Effect.UNUSED)
    if meant["answer_headers"] is not None and meant["report_answer"] != "true":
        yield OptionProblem("answer_headers", "needs report_answer, which is not true", Effect.UNUSED)
    follows = follows_of(meant)
    if follows is not None and follows.takes_too_long:
        column = "header_expressions" if meant["header_expressions"] else "url"
        yield OptionProblem(column, f"{TOGETHER}, whatever the event", Effect.STORED)
    yield from _header_conflicts(meant)


def _header_conflicts(meant: Mapping[str, Any]) -> Iterator[OptionProblem]:
    """Headers that two options set."""
    template, plain = meant["signature_template"], meant["signature_header"]
    signatures = set(template.headers) if template is not None else set[str]()
    if plain is not None and plain.lower() in signatures:
        yield OptionProblem("signature_template", f"{plain} is signature_header; set that to {OFF}", Effect.STORED)
    signatures |= {plain.lower()} if plain is not None else set()
    before = set[str]()
    for column in ("custom_headers", "header_expressions"):
        names = {name.lower(): name for name, _ in meant[column] or ()}
        if meant["payload_format"] == "cloudevents-binary" and any(name.startswith("ce-") for name in names):
            yield OptionProblem(column, "a header that begins with ce- is one of cloudevents-binary", Effect.STORED)
        for twice in names.keys() & signatures:
            yield OptionProblem(column, f"{twice} is the signature's header", Effect.STORED)
        for twice in names.keys() & before:
            yield OptionProblem(column, f"custom_headers has {names[twice]} too", Effect.STORED)
        before |= names.keys()


def completed(given: Mapping[str, Any]) -> dict[str, Any]:
    """A value for each column of OPTIONS, with the default for each that is not `given`.

    Raises InvalidSubscription, whose text names a value that would work, if a value is unusable or does not fit.
    """
    if unknown := given.keys() - OPTIONS.keys():
        raise InvalidSubscription(f"there is no option {', '.join(sorted(unknown))}; there are {', '.join(OPTIONS)}")
    values = {name: option.default if given.get(name) is None else given[name] for name, option in OPTIONS.items()}
    for name, value in values.items():
        _check_fits(name, value)
    _, problems = read(values)
    if problems:
        name, why, effect = problems[0]
        raise InvalidSubscription(why, name, None if effect is Effect.UNUSED else OPTIONS[name].example)
    return values


def _check_fits(name: str, value: Any) -> None:
    example, kind = OPTIONS[name].example, _COLUMNS[name].type
    if value is None and OPTIONS[name].required:
        raise InvalidSubscription("is required", name, example)
    if not isinstance(value, str):
        return
    if not value.strip():
        raise InvalidSubscription("is empty", name, example)
    if isinstance(kind, String) and kind.length and len(value) > kind.length:
        raise InvalidSubscription(f"has {len(value)} characters; at most {kind.length} are kept", name)
    if (size := len(value.encode(errors="replace"))) > COLUMN_BYTES:
        raise InvalidSubscription(f"has {size} bytes in UTF-8; Oracle keeps {COLUMN_BYTES}", name)
