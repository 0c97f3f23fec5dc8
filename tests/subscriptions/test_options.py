"""The options of subscriptions: one table, by which commands, the API and rows are read alike."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import String

from consumer.cli.subscription_options import FLAGS, flag_of
from consumer.errors import InvalidSubscription
from consumer.subscriptions.options import OPTIONS, Effect, OptionProblem, completed, read
from models import Subscription

COLUMNS = Subscription.__table__.columns
# Columns that workers and commands write; no subscriber sets them.
STATE = {
    "verified_url",
    "id",
    "created_at",
    "enabled",
    "disabled_reason",
    "paused_at",
    "probed_at",
    "paused_reason",
    "starts",
    "failing_since",
}
LEAST: dict[str, Any] = {"url": "https://example.com/hooks", "event_type": "order.created"}
DEFAULTS = LEAST | {name: option.default for name, option in OPTIONS.items() if not option.required}

# Possible content of a column, mostly similar to valid content.
WORDS = (
    "https:// http:// a.example / : @ [ order . * ** , 5s 1h 4xx 400 { } ( ) none key record sha256= X-A Host Cookie"
    " x-webhook-signature ^ é \N{GRINNING FACE} data.amount > 100 matches in ' \" \\ \ud800"
)
PIECES = st.sampled_from([*WORDS.split(), " ", "\n", "\0", '{"X-A": "b"}'])
TEXTS = st.lists(PIECES, max_size=8).map("".join) | st.text(max_size=60)
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, 1, 0.001, 300, 300.001, 1000, 1001, 60_000, 999_999.999])
ANYTHING = TEXTS | NUMBERS | st.binary(max_size=8)


def test_each_column_that_a_subscriber_may_set_is_an_option() -> None:
    """Tables and options have the same names. Flags exist for all but url and event type."""
    assert OPTIONS.keys() == {column.name for column in COLUMNS} - STATE
    assert FLAGS.keys() == OPTIONS.keys() - LEAST.keys()
    assert len({flag_of(column) for column in FLAGS}) == len(FLAGS)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_default_is_the_databases(name: str) -> None:
    """A row by plain SQL and one by `add` have the same values for options that neither mentions."""
    default: Any = COLUMNS[name].server_default
    assert OPTIONS[name].nullable == COLUMNS[name].nullable
    assert OPTIONS[name].default == (str(default.arg).strip("'") if default is not None else None)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_example_of_an_option_is_valid(name: str) -> None:
    """Each example that errors show is accepted."""
    example = OPTIONS[name].example
    number = not isinstance(COLUMNS[name].type.python_type(), str)
    needs: dict[str, dict[str, Any]] = {
        "batch_wait_ms": {"batch_size": 10},
        "answer_headers": {"report_answer": "true"},
    }
    assert completed(LEAST | needs.get(name, {}) | {name: float(example) if number else example})[name] is not None


@given(st.sampled_from(sorted(OPTIONS)), ANYTHING)
def test_reading_never_raises(name: str, value: Any) -> None:
    """Any value of a column is understood, or is a problem with its option's effect and default."""
    meant, problems = read(DEFAULTS | {name: value})
    assert meant.keys() == OPTIONS.keys()
    plain, none = read(DEFAULTS)
    assert none == []
    for problem in problems:
        assert problem.option in OPTIONS
        assert problem.effect in {OPTIONS[problem.option].effect, Effect.UNUSED, Effect.STORED}
        assert str(problem).startswith(f"{problem.option}: ")
    if name in {problem.option for problem in problems if problem.effect is not Effect.UNUSED}:
        assert meant[name] == plain[name] or problems[0].why.endswith("is the signature's header")
    assert {each: meant[each] for each in OPTIONS if each != name} == {
        each: plain[each] for each in OPTIONS if each != name
    }


def judged(asked: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    try:
        return completed(asked), None
    except InvalidSubscription as error:
        return {}, str(error)


@given(st.sampled_from(sorted(OPTIONS)), ANYTHING, st.dictionaries(st.sampled_from(sorted(OPTIONS)), ANYTHING))
def test_add_accepts_exactly_the_values_that_workers_can_use(name: str, value: Any, others: dict[str, Any]) -> None:
    """`add` refuses a value only if workers would report a problem or it does not fit its column."""
    for asked in ({name: value}, others):
        values, refusal = judged(LEAST | asked)
        if refusal is None:
            assert read(values)[1] == []
            assert values.keys() == OPTIONS.keys()
        elif not any(why in refusal for why in ("is empty", "are kept", "Oracle keeps", "is not text")):
            assert read(DEFAULTS | asked)[1] != []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"batch_wait_ms": 5}, "batch_wait_ms: needs batch_size, which is not set"),
        ({"batch_size": 0}, "batch_size: is 0; it must be from 1 to 1000; for example 100"),
        ({"batch_size": 2.5}, "batch_size: is 2.5; it must be a whole number"),
        (
            {"payload_format": "xml"},
            "payload_format: is 'xml'; it must be record, standard, cloudevents or cloud",
        ),
        (
            {"payload_format": "cloudevents-binary", "batch_size": 2},
            "batch_size: a request of cloudevents-binary carries one event",
        ),
        (
            {"payload_format": "cloudevents-binary", "custom_headers": '{"CE-Source": "a"}'},
            "custom_headers: a header that begins with ce- is one of cloudevents-binary",
        ),
        ({"tenant": " a"}, "tenant: must not contain control characters, or spaces at either end; for example acme"),
        ({"topics": "^a"}, "topics: a pattern of topics cannot be used here; for example orders,users"),
        ({"event_filter": "1 + 1"}, "event_filter: its value is neither true nor false; for example data.amount > 100"),
        ({"custom_headers": '{"Host": "a"}'}, "custom_headers: a subscription may not set Host"),
        ({"custom_headers": '{"a": "1", "A": "2"}'}, "custom_headers: names a header twice"),
        ({"custom_headers": '{"Authorization": "Bearer x"}'}, "Authorization is a credential; store it in webhook_se"),
        ({"custom_headers": '{"X-Webhook-Signature": "a"}'}, "x-webhook-signature is the signature's header"),
        ({"signature_header": "webhook-id"}, "signature_header: a subscription may not set webhook-id"),
        ({"signature_header": "Authorization"}, "signature_header: Authorization already has another purpose"),
        ({"signature_prefix": " a"}, "signature_prefix: may contain only visible ASCII and spaces, and must not start"),
        (
            {"url": "https://u:p@a.example"},
            "url: the URL must not hold a user name or password; store them as a secret",
        ),
        ({"colour": "red"}, "there is no option colour; there are url, event_type, tenant"),
        ({"url": ""}, "url: is empty; for example https://example.com/hooks"),
        ({"url": "https://example.com/" + "x" * 2048}, "2068 characters; at most 2048"),
        ({"event_type": "t" * 256}, "256 characters; at most 255"),
        ({"rate_limit": float("nan")}, "rate_limit: is nan a second; it must be from 0.001 to 999999.999 a second"),
        ({"retry_schedule": " "}, "retry_schedule: is empty; for example 5s,5m,1h"),
        ({"final_statuses": "200"}, "'200' is neither a status from 300 to 599"),
    ],
)
def test_unusable_values_are_refused_with_a_valid_example(asked: dict[str, Any], said: str) -> None:
    """The error names the option, says what is wrong and shows a valid value; it never quotes a header's value."""
    with pytest.raises(InvalidSubscription) as caught:
        completed(LEAST | asked)
    assert said in str(caught.value)
    assert "Bearer" not in str(caught.value)


def test_a_bug_in_parsing_has_the_effect_of_an_unusable_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up reads many rows, and one must not end it. The exception's text may quote a secret, and is not shown."""

    def fail(value: str) -> None:
        raise KeyError(value)

    option = OPTIONS["event_filter"]._replace(parse=fail)
    monkeypatch.setattr("consumer.subscriptions.options.OPTIONS", {**OPTIONS, "event_filter": option})
    _, problems = read({**DEFAULTS, "event_filter": "h1dden"})
    assert problems == [OptionProblem("event_filter", "cannot be read (KeyError)", Effect.STORED)]


def test_an_empty_text_is_as_null() -> None:
    """Oracle stores an empty text as NULL, so a row means the same on both databases."""
    empty = {name: "" for name, option in OPTIONS.items() if option.nullable}
    assert read(DEFAULTS | empty) == read(DEFAULTS)


@pytest.mark.parametrize("name", [name for name in OPTIONS if isinstance(COLUMNS[name].type, String)])
def test_a_blank_text_is_a_problem(name: str) -> None:
    """It is neither null nor a value: a blank schedule does not mean one without retries."""
    assert [problem.option for problem in read(DEFAULTS | {name: " "})[1]] == [name]
