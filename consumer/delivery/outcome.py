"""The outcome of an attempt, as types. Pure.

`response` is the start of the answer's body, for operators to read: it is untrusted, never logged, and None if empty.
"""

import re
from codecs import getincrementaldecoder
from collections.abc import Callable, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import NamedTuple

from requests import RequestException, Response
from requests.exceptions import ConnectTimeout, InvalidSchema, InvalidURL, MissingSchema, ReadTimeout, SSLError

from consumer.errors import EgressRefused
from consumer.http.header_rules import LONGEST_NAME, takes_long
from consumer.sending.answer import BODY_LIMIT, LINE_LIMIT
from consumer.sending.exchange import SignedRequest
from consumer.sending.trace import masked, masked_start
from consumer.subscriptions.options import UNREPORTED

RESPONSE = 1000  # characters kept of an answer's body
# Answers to a body whose encoding the receiver does not understand (RFC 9110, 15.5.16; RFC 7694)
COMPRESSION_STATUSES = frozenset((HTTPStatus.BAD_REQUEST, HTTPStatus.UNSUPPORTED_MEDIA_TYPE))
_OVERLOADED = frozenset((HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS))


class Delivered(NamedTuple):
    """A 2xx status line was received."""

    status: int


_DELIVERED = tuple(map(Delivered, range(200, 300)))


class Failed(NamedTuple):
    """Worth another attempt: any other status, a time-out, a network error.

    Not earlier than in `retry_after` seconds if the receiver asked for that.
    """

    error: str
    status: int | None = None
    retry_after: float | None = None
    response: str | None = None

    @property
    def unavailable(self) -> bool:
        """The failure concerns the receiver as a whole."""
        return unavailable(self.status)


def unavailable(status: int | None) -> bool:
    """A failure with this status concerns the receiver as a whole: another event would fail as well.

    These are: no answer at all; 408 (RFC 9110 section 15.5.9: it waited for the request in vain); 429 (RFC 6585
    section 4: too many requests); 5xx (RFC 9110 section 15.6: the server knows that it failed). Any other status comes
    from a working receiver and concerns this request, even 425 (RFC 8470 section 5.2: not as early data).
    """
    return status is None or status >= 500 or status in _OVERLOADED  # noqa: PLR2004 (section 15.6)


class Rejected(NamedTuple):
    """A status that the subscription declares final: this delivery ends."""

    error: str
    status: int
    response: str | None = None


class Gone(NamedTuple):
    """A 410, which disables the subscription (RFC 9110 section 15.5.11: likely to be permanent)."""

    error: str = "the receiver answered 410 Gone"
    status: int = HTTPStatus.GONE
    response: str | None = None


class Unsendable(NamedTuple):
    """The url or the egress rule forbids the request, until one of them or the name's address changes: no attempt."""

    error: str
    status: None = None
    response: None = None


class Undeliverable(NamedTuple):
    """No request can be built from the event: no attempt can succeed."""

    error: str
    status: None = None
    response: None = None


Outcome = Delivered | Failed | Rejected | Gone | Unsendable | Undeliverable


def judge(
    result: Response | RequestException,
    now: float,
    final: frozenset[int] = frozenset(),
    secrets: Callable[[], Sequence[str]] = tuple,
) -> Delivered | Failed | Rejected | Gone | Unsendable:
    """The outcome of an exchange that ended at `now` (unix seconds). 3xx is a failure: redirects are never followed.

    A status in `final` is Rejected, except 2xx and 410. An error of a request that was built, such as InvalidHeader, is
    Failed: its cause is not the event, and may be put right. `secrets` gives the secrets that an answer might echo and
    that must not be kept; it is called only if the answer is kept.
    """
    if isinstance(result, Response):
        status = result.status_code
        if 200 <= status < 300:  # noqa: PLR2004 (RFC 9110 section 15.3)
            return _DELIVERED[status - 200]
        response = _start_of(result.content, secrets)
        if status == HTTPStatus.GONE:
            return Gone(response=response)
        error = f"status {status}"
        if status in COMPRESSION_STATUSES and is_compressed(result.request):
            error += ", to a body compressed with gzip (gzip_above)"
        if status in final:
            return Rejected(error, status, response)
        return Failed(error, status, retry_after(result.headers.get("retry-after"), now), response)
    if isinstance(result, EgressRefused | InvalidURL | InvalidSchema | MissingSchema):
        return Unsendable(_text(result))
    return Failed(_text(result))


def reported(result: Response, names: re.Pattern[str], secrets: Sequence[str]) -> tuple[dict[str, str], str | bytes]:
    """The headers of an answer whose names, in lower case, match, and its body: text, or bytes if it is not UTF-8.

    Headers whose names are too long, or take too long to match, are left out.

    Secrets that it echoes are masked. A body of BODY_LIMIT may end in the middle of one, and ends before it then.
    """
    headers = {name.lower(): value for name, value in result.headers.items() if len(name) <= LONGEST_NAME}
    is_long = takes_long(names, headers)
    headers = {name: headers[name] for name in headers if not is_long and names.match(name) and name not in UNREPORTED}
    body = result.content or b""
    is_whole = len(body) < BODY_LIMIT
    try:
        text, is_text = getincrementaldecoder("utf-8")().decode(body, final=is_whole), True  # a character may be cut
    except UnicodeDecodeError:
        text, is_text = body.decode("latin-1"), False
    most = BODY_LIMIT if is_whole else max(0, len(text) + 1 - max(map(len, secrets), default=1))
    everything = "\n".join((*headers.values(), text))
    echoed = [secret for secret in secrets if secret in everything]  # searched once: mostly there is none
    headers = {name: masked_start(value, echoed, LINE_LIMIT) for name, value in headers.items()}
    named = "\n".join(headers)
    if in_names := [lower for secret in secrets if (lower := secret.lower()) in named]:
        headers = {masked(name, in_names): value for name, value in headers.items()}
    text = masked_start(text, echoed, most)
    return headers, text if is_text else text.encode("latin-1")


def is_compressed(request: object) -> bool:
    """Whether the body of a request was sent in its compressed form."""
    return isinstance(request, SignedRequest) and request.is_compressed


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait that a `Retry-After` header asks for (RFC 9110 section 10.2.3: seconds or a date), else None."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value.lstrip("0")[:9] or 0)  # finite; nine digits are 31 years
    try:
        date = parsedate_to_datetime(value)
        return max(0.0, date.replace(tzinfo=date.tzinfo or UTC).timestamp() - now)
    except (ValueError, OverflowError):  # OverflowError: a year or a zone of twenty digits
        return None


def _start_of(body: bytes | None, secrets: Callable[[], Sequence[str]]) -> str | None:
    """Decoded as UTF-8, whatever the header says: a receiver could make charset detection take seconds of CPU."""
    return masked_start(body.decode("utf-8", "replace"), secrets(), RESPONSE) if body else None


def _text(error: RequestException) -> str:
    kind = {ConnectTimeout: "connect time-out", ReadTimeout: "time-out", SSLError: "TLS"}.get(type(error))
    return (f"{kind}: {error}" if kind else str(error))[:500]
