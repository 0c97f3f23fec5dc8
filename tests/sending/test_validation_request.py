"""The validation request, and the verdict on each answer."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests import Response
from requests.auth import HTTPBasicAuth
from requests.exceptions import InvalidURL
from requests.structures import CaseInsensitiveDict

from consumer.sending.signing import prepare
from consumer.sending.validation_request import (
    Declined,
    Granted,
    Permission,
    asked_rate,
    lowered,
    permission,
    validation_request,
)
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.options import MOST_NUMBER, OPTIONS

ORIGIN = "events.example.com"
LIMITS = st.none() | st.integers(1, 999_999_999).map(lambda thousandths: thousandths / 1000)
RATES = st.integers(1, 10**18 - 1)


def answered(status: int = 200, asked: int | None = None, **headers: str) -> Permission:
    """The verdict on an answer with these headers."""
    response = Response()
    response.status_code = status
    response.headers = CaseInsensitiveDict({f"WebHook-Allowed-{name.title()}": text for name, text in headers.items()})
    return permission(response, ORIGIN, asked)


def test_the_request_follows_the_specification() -> None:
    """It is OPTIONS to the same URL, with the subscription's headers and credentials, without those of deliveries."""
    own = (("X-Team", "blue"), ("WebHook-Request-Callback", "https://x"), ("webhook-request-origin", "other"))
    endpoint = Endpoint(7, "https://example.com/a?b=c", (), headers=own, auth=HTTPBasicAuth("u", "p"))
    request = validation_request(endpoint, ORIGIN, 120)
    assert (request.method, request.url, request.body) == ("OPTIONS", endpoint.url, b"")
    headers = {name.lower(): value for name, value in request.headers.items()}
    assert headers.pop("user-agent").startswith("kafka-webhooks/")
    assert headers == {
        "content-length": "0",
        "x-team": "blue",
        "authorization": "Basic dTpw",
        "webhook-request-origin": ORIGIN,
        "webhook-request-rate": "120",
    }
    assert "webhook-request-rate" not in validation_request(endpoint, ORIGIN, None).headers
    with pytest.raises(InvalidURL):
        validation_request(Endpoint(7, "https://u:p@example.com", ()), ORIGIN, None)


def test_deliveries_name_the_origin_that_was_permitted() -> None:
    """Each has WebHook-Request-Origin, whatever a custom header says. Without a permission none has it."""
    own = (("WebHook-Request-Origin", "other"),)
    permitted = prepare(Endpoint(7, "https://example.com", (), headers=own, origin=ORIGIN))
    assert permitted.lines.lower().count(b"webhook-request-origin: events.example.com\r\n") == 1
    assert b"other" not in permitted.lines
    assert b"webhook-request" not in prepare(Endpoint(7, "https://example.com", ())).lines


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"origin": ORIGIN, "rate": "100"}, Granted(100)),
        ({"origin": "Events.EXAMPLE.com", "rate": "*"}, Granted(None)),
        ({"origin": "*", "rate": "0120"}, Granted(120)),
        ({"origin": "*"}, Granted(None)),
        ({"origin": "*", "rate": "120", "asked": 500, "status": 204}, Granted(120)),
    ],
)
def test_answers_that_permit(answer: dict[str, Any], expected: Granted) -> None:
    """The origin or an asterisk, and the rate or an asterisk. The rate may be missing if none was requested."""
    assert answered(**answer) == expected


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"status": 405}, "answered 405: it does not implement the validation request (OPTIONS)"),
        ({"status": 501, "origin": "*", "rate": "*"}, "answered 501: it does not implement"),
        ({"status": 302, "origin": "*", "rate": "*"}, "answered 302"),
        ({"status": 403, "origin": "*", "rate": "*"}, "answered 403"),
        ({}, "answered 200 without WebHook-Allowed-Origin"),
        ({"rate": "*"}, "answered 200 without WebHook-Allowed-Origin"),
        ({"origin": "example.com", "rate": "*"}, f"permits another origin (WebHook-Allowed-Origin) than {ORIGIN}"),
        ({"origin": f"x{ORIGIN}", "rate": "*"}, "permits another origin"),
        ({"origin": f"{ORIGIN}, other.example", "rate": "*"}, "permits another origin"),
        ({"origin": "", "rate": "*"}, "permits another origin"),
        ({"origin": "*", "asked": 100}, "without WebHook-Allowed-Rate"),
        *(
            ({"origin": "*", "rate": rate}, "WebHook-Allowed-Rate")
            for rate in ("0", "-1", "1.5", "ten", "", "1e3", "²")
        ),
        ({"origin": "*", "rate": "9" * 5000}, "WebHook-Allowed-Rate"),
    ],
)
def test_answers_that_do_not_permit(answer: dict[str, Any], said: str) -> None:
    """A status without headers, another origin, or an invalid rate."""
    refused = answered(**answer)
    assert isinstance(refused, Declined)
    assert said in refused.why


@given(st.integers(100, 599), st.dictionaries(st.sampled_from(["origin", "rate"]), st.text()), st.none() | RATES)
def test_no_answer_raises_or_permits_by_chance(status: int, headers: dict[str, str], asked: int | None) -> None:
    """For any answer to OPTIONS, only the specified values of both headers permit."""
    answer = answered(status, asked, **headers)
    if isinstance(answer, Granted):
        assert 200 <= status < 300
        assert headers["origin"] == "*" or headers["origin"].lower() == ORIGIN
        assert answer.rate is None or answer.rate > 0


@given(LIMITS, st.none() | RATES)
def test_the_limit_stays_within_the_permission(limit: float | None, rate: int | None) -> None:
    """It exceeds neither the permitted rate nor the former limit. It can be stored, and stays if permitted again."""
    new = lowered(limit, rate)
    if limit is not None:
        assert new is not None
        assert new <= limit
    if rate is not None:
        assert round(60 * (MOST_NUMBER if new is None else new), 3) <= rate
    if new is not None:
        assert OPTIONS["rate_limit"].parse(new) == round(new, 3)
    assert lowered(new, rate) == new


@given(LIMITS)
def test_a_permission_of_the_requested_rate_keeps_the_limit(limit: float | None) -> None:
    """The request asks for at least the limit, so that its permission does not lower it."""
    assert lowered(limit, asked_rate(limit)) == limit
