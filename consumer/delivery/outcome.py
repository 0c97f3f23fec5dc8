"""What came of an attempt, as types. Pure.

Delivered   a 2xx status line was received
Failed      worth another attempt: any other status, a time-out, a network error
Gone        410: the receiver wants no more; the subscription is disabled
Hopeless    no attempt can succeed as the subscription and the settings stand: its url, or the egress policy
"""

from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import NamedTuple

from requests import RequestException, Response
from requests.exceptions import ConnectTimeout, ReadTimeout, SSLError

from consumer.errors import EgressRefused


class Delivered(NamedTuple):
    """A 2xx."""

    status: int


class Failed(NamedTuple):
    """Worth another attempt, not before `retry_after` seconds from now where the receiver asked for that."""

    error: str
    status: int | None = None
    retry_after: float | None = None


class Gone(NamedTuple):
    """A 410."""

    error: str = "the receiver answered 410 Gone"
    status: int = HTTPStatus.GONE


class Hopeless(NamedTuple):
    """No attempt can succeed."""

    error: str
    status: None = None


Outcome = Delivered | Failed | Gone | Hopeless


def judge(result: Response | RequestException, now: float) -> Outcome:
    """The outcome of an exchange that ended at `now` (unix seconds). 3xx is a failure: redirects are never followed."""
    if isinstance(result, Response):
        status = result.status_code
        if 200 <= status < 300:  # noqa: PLR2004 (RFC 9110 section 15.3)
            return Delivered(status)
        if status == HTTPStatus.GONE:
            return Gone()
        return Failed(f"status {status}", status, retry_after(result.headers.get("retry-after"), now))
    # What requests calls invalid (a url, a schema, a header) is a ValueError too.
    if isinstance(result, EgressRefused | ValueError):
        return Hopeless(_text(result))
    return Failed(_text(result))


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait that a `Retry-After` header asks for (RFC 9110 section 10.2.3: seconds or a date), else None."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        date = parsedate_to_datetime(value)
        return max(0.0, date.replace(tzinfo=date.tzinfo or UTC).timestamp() - now)
    except (ValueError, OverflowError):  # OverflowError: a year or a zone of twenty digits
        return None


def _text(error: RequestException) -> str:
    kind = {ConnectTimeout: "connect time-out", ReadTimeout: "time-out", SSLError: "TLS"}.get(type(error))
    return (f"{kind}: {error}" if kind else str(error))[:500]
