"""What an attempt's answer means."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests import RequestException, Response
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import ConnectTimeout, InvalidHeader, InvalidURL, MissingSchema, ReadTimeout, SSLError

from consumer.delivery.outcome import Delivered, Failed, Gone, Hopeless, judge, retry_after
from consumer.errors import EgressRefused


def response(status: int, **headers: str) -> Response:
    """An answer with a status and headers."""
    result = Response()
    result.status_code = status
    result.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return result


@given(st.integers(100, 599))
def test_every_status_has_its_outcome(status: int) -> None:
    """2xx is delivered, 410 ends the delivery, all else is tried again: a redirect is a failure."""
    outcome = judge(response(status), 0.0)
    if 200 <= status < 300:
        assert outcome == Delivered(status)
    elif status == 410:
        assert isinstance(outcome, Gone)
    else:
        assert outcome == Failed(f"status {status}", status)


@pytest.mark.parametrize(
    "error",
    [
        ConnectTimeout("slow"),
        ReadTimeout("slow"),
        SSLError("bad"),
        RequestsConnectionError("reset"),
        RequestException("?"),
    ],
)
def test_network_errors_are_tried_again(error: RequestException) -> None:
    """The error's text is kept for the log and the row."""
    outcome = judge(error, 0.0)
    assert isinstance(outcome, Failed)
    assert str(error) in outcome.error


@pytest.mark.parametrize("error", [EgressRefused("no"), InvalidURL("no"), MissingSchema("no"), InvalidHeader("no")])
def test_what_cannot_succeed_is_not_tried_again(error: RequestException) -> None:
    """A url that is none and a forbidden address end the delivery."""
    assert judge(error, 0.0) == Hopeless("no")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
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
    """Seconds or a date; what is neither is ignored."""
    assert retry_after(value, 1_000_000.0) == seconds


@given(st.text())
def test_retry_after_takes_any_text(value: str) -> None:
    """A receiver cannot break the loop with a header."""
    seconds = retry_after(value, 1_000_000.0)
    assert seconds is None or seconds >= 0


def test_retry_after_is_read_from_the_answer() -> None:
    """The header reaches the outcome."""
    assert judge(response(503, Retry_After="7"), 0.0) == Failed("status 503", 503, 7.0)
