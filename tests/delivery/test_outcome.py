"""The outcome of each answer and error."""

import re
import sys
from collections.abc import Sequence
from email.utils import formatdate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from requests import RequestException, Response
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import (
    ConnectTimeout,
    InvalidHeader,
    InvalidSchema,
    InvalidURL,
    MissingSchema,
    ReadTimeout,
    SSLError,
)

from consumer.delivery.outcome import (
    Delivered,
    Failed,
    Gone,
    Rejected,
    Unsendable,
    judge,
    reported,
    retry_after,
    unavailable,
)
from consumer.errors import EgressRefused
from consumer.sending import trace
from consumer.sending.answer import BODY_LIMIT
from consumer.sending.exchange import SignedRequest
from consumer.sending.oauth2 import LONGEST_TOKEN
from consumer.sending.signing import prepare
from consumer.sending.trace import MASK, SHORTEST, masked_start
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.options import parse_answer_headers
from tests.delivery import desk_kit


def response(status: int, body: bytes = b"", **headers: str) -> Response:
    """An answer with a status, a body and headers."""
    result = desk_kit.response(status, **headers)
    result._content = body
    return result


def test_every_status_has_its_outcome() -> None:
    """2xx is delivered and 410 ends the delivery. Every other status is tried again: a redirect is a failure."""
    for status in range(100, 600):
        outcome = judge(response(status), 0.0)
        if 200 <= status < 300:
            assert outcome == Delivered(status)
        elif status == 410:
            assert outcome == Gone()
        else:
            assert outcome == Failed(f"status {status}", status)
            assert judge(response(status, Retry_After="7"), 0.0) == Failed(f"status {status}", status, 7.0)


@pytest.mark.parametrize(("status", "is_told"), [(400, True), (415, True), (404, False), (503, False)])
def test_an_error_may_name_the_compressed_body(status: int, is_told: bool) -> None:  # noqa: FBT001 (a test's parameter)
    """If compression may be the cause, the error names the option, also when the status is final."""
    answer = response(status)
    answer.request = request = SignedRequest(prepare(Endpoint(1, "https://example.com/", ())), b"", b"{}" * 100)
    request.send_as(b"packed")
    for final in (frozenset[int](), frozenset([status])):
        outcome = judge(answer, 0.0, final)
        assert isinstance(outcome, Failed | Rejected)
        assert outcome.error == f"status {status}" + ", to a body compressed with gzip (gzip_above)" * is_told


@pytest.mark.parametrize(
    "error",
    [
        ConnectTimeout("slow"),
        ReadTimeout("slow"),
        SSLError("bad"),
        RequestsConnectionError("reset"),
        RequestException("?"),
        InvalidHeader("no"),  # of a request that was built
    ],
)
def test_errors_of_a_request_are_tried_again(error: RequestException) -> None:
    """The error's text is kept for the log and the row."""
    outcome = judge(error, 0.0)
    assert isinstance(outcome, Failed)
    assert str(error) in outcome.error


@pytest.mark.parametrize("error", [EgressRefused("no"), InvalidURL("no"), MissingSchema("no"), InvalidSchema("no")])
def test_an_unsendable_request_is_no_attempt(error: RequestException) -> None:
    """An invalid URL and a forbidden address are faults of the subscription, which its owner can correct."""
    assert judge(error, 0.0) == Unsendable("no")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("00000000000120", 120.0),
        ("000", 0.0),
        ("99999999999999999999999", 999999999.0),
        (formatdate(1_000_060, usegmt=True), 60.0),
        (formatdate(999_000, usegmt=True), 0.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("²", None),
        ("Mon, 20 Nov 99999999999999999999 19:12:08 GMT", None),
        ("Mon, 20 Nov 2026 19:12:08 +99999999999999999999", None),
        (None, None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    """Seconds or a date. Any other value is ignored."""
    assert retry_after(value, 1_000_000.0) == seconds


@given(st.text())
def test_retry_after_takes_any_text(value: str) -> None:
    """No header value breaks the loop."""
    seconds = retry_after(value, 1_000_000.0)
    assert seconds is None or seconds >= 0


@given(status=st.integers(100, 599), final=st.frozensets(st.integers(200, 599)))
def test_a_final_status_ends_the_delivery(status: int, final: frozenset[int]) -> None:
    """A status in the subscription's list is rejected. A 2xx is still delivered and a 410 is still gone."""
    outcome = judge(response(status), 0.0, final)
    if status in final and not 200 <= status < 300 and status != 410:
        assert outcome == Rejected(f"status {status}", status)
    else:
        assert outcome == judge(response(status), 0.0)


@pytest.mark.parametrize("status", [302, 400, 410, 422, 500])
@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b"", None),
        (b"no such user", "no such user"),
        ("größer".encode(), "größer"),
        ("größer".encode("latin-1"), "gr\ufffd\ufffder"),
        (b"x" * 65_536, "x" * 1000),
        ("\U0001f600".encode() * 2000, "\U0001f600" * 1000),
        (b"a" + "\U0001f600".encode() * 2000, "a" + "\U0001f600" * 999),
        (b"\xff" * 2000, "\ufffd" * 1000),
    ],
)
def test_a_failure_keeps_the_start_of_its_answer(status: int, body: bytes, kept: str | None) -> None:
    """The first 1,000 characters, decoded as UTF-8. Invalid bytes are marked, and no character is cut in two."""
    outcome = judge(response(status, body), 0.0, frozenset((400,)))
    assert isinstance(outcome, Failed | Gone | Rejected)
    assert outcome.response == kept


@pytest.mark.parametrize(
    ("secrets", "text", "kept"),
    [
        (["secret-of-more"], "x" * 995 + "secret-of-more", "x" * 995 + "(not "),
        (["secret-of-more"], "x" * 1000 + "secret-of-more", "x" * 1000),
        (["secret"], "x" * 990 + "secret" * 20, "x" * 990 + "(not shown"),
        (["secret-of-more", "secret"], "secret-of-more" * 72, "(not shown)"),
        (["s" + "o" * 700, "secret"], ("s" + "o" * 700 + ".") * 3, "(not shown).(not shown)"),
        (["s" + "o" * 700, "secret"], ("s" + "o" * 700 + ".") + "secret" * 200, "(not shown).(not shown)"),
    ],
)
def test_no_part_of_an_echoed_secret_is_kept(secrets: list[str], text: str, kept: str) -> None:
    """Wherever the answer is cut: masking may make it shorter, or longer, before the cut."""
    outcome = judge(response(500, text.encode()), 0.0, secrets=lambda: secrets)
    assert isinstance(outcome, Failed)
    assert outcome.response == kept


def test_an_answer_is_searched_once_however_many_headers_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty secrets in two hundred headers: only those that occur at all are masked, in each."""
    searches: list[str] = []

    def counted(text: str, secrets: Sequence[str], most: int) -> str:
        searches.extend(secrets)
        return trace.masked_start(text, secrets, most)

    monkeypatch.setattr("consumer.delivery.outcome.masked_start", counted)
    answer = response(200, b"x" * BODY_LIMIT)
    answer.headers.update({f"x-{number}": "y" * 200 for number in range(199)} | {"x-last": "a secret-7 b"})
    headers, _ = reported(answer, re.compile("x-.*"), [f"secret-{number}" for number in range(50)])
    assert (len(headers), headers["x-last"]) == (200, "a (not shown) b")
    assert searches == ["secret-7"] * 201


def test_names_of_an_answers_headers_are_bounded_before_they_are_matched() -> None:
    """A tenant writes the patterns, and its receiver the names: they could take a tenth of a second."""
    names = parse_answer_headers(
        ",".join(f"*{first}*{second}" for first in "zyxwv" for second in "zyxwvutsrqponmlkjihg")
    )
    answer = response(200, b"{}")
    answer.headers.update({f"{number}{'a' * 320}": "1" for number in range(199)} | {"a-z-y": "1"})
    assert reported(answer, names, []) == ({"a-z-y": "1"}, "{}")
    answer.headers.update({f"{number}{'a' * 200}": "1" for number in range(199)})
    assert reported(answer, names, []) == ({}, "{}")


@example("s3cret-of-more", 1, "x", "X-s3cret-OF-more")
@given(
    st.text("s3cret-", min_size=SHORTEST, max_size=40), st.integers(0, 60), st.sampled_from("x\u00e9\xff"), st.text()
)
def test_no_part_of_a_secret_is_reported(secret: str, beyond: int, fill: str, name: str) -> None:
    """Not where the 64 KiB of a body end, whatever its encoding, and not in a header's name, in any case."""
    filled = (fill if fill != "\xff" else "\udcff") * BODY_LIMIT
    whole = filled.encode(errors="surrogateescape")[: max(0, BODY_LIMIT - len(secret) + beyond - 20)] + secret.encode()
    body = whole[:BODY_LIMIT]
    answer = response(200, body)
    answer.headers[f"X-{secret.title()}"] = answer.headers[name] = "1"
    headers, kept = reported(answer, re.compile(".*", re.DOTALL), [secret])
    text = kept if isinstance(kept, str) else kept.decode("latin-1")
    assert secret[:SHORTEST] not in text.replace(MASK, "")
    assert len(text) >= len(body) // 2 - 2 * len(secret)
    assert not any(secret in each.lower() for each in headers)


def test_the_forms_of_secrets_take_little_memory() -> None:
    """They are kept for later failures: at most 16 MiB, even if a server gives a new token of the longest each time."""
    longest = trace._forms('"' * LONGEST_TOKEN)
    assert sum(map(sys.getsizeof, longest)) * (trace._forms.cache_info().maxsize or 0) < 2**24


def test_only_the_start_of_an_answer_is_searched_for_secrets() -> None:
    """A search of 64 KiB for each form of each header would hold the loop up."""

    class Whole(str):
        __slots__ = ()

        def replace(self, *_: object) -> str:
            raise AssertionError

    text = Whole("x" * 900 + "secret" * 10_000)
    assert masked_start(text, ["secret"], 1000) == "x" * 900 + "(not shown)"


def test_which_statuses_count_against_the_receiver() -> None:
    """Time-outs, too many requests and server errors count. Other statuses concern the one event."""
    counted = {408, 429, 500, 503, 599}
    assert {each for each in (*counted, 301, 400, 401, 404, 409, 425, 499) if unavailable(each)} == counted
