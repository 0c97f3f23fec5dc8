"""Rules for headers: those that a subscription may set, and those that are sent."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from requests.exceptions import InvalidHeader

from consumer.http import header_rules
from consumer.http.header_rules import header_lines
from consumer.sending.signing import prepare
from consumer.subscriptions.endpoint import Endpoint

# RFC 9110, 7.6.1 and 10.1; RFC 9112, 6: headers of the connection or of message framing
FRAMING = (
    *("Host", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive"),
    *("TE", "Trailer", "Upgrade", "Expect"),
)
PROXIES = ("Proxy-Authorization", "Proxy-Authenticate", "Proxy-Connection")
OURS = ("webhook-id", "webhook-timestamp", "webhook-signature", "x-webhook-event", "content-type", "traceparent")
DECODED_BY_NOBODY = ("Accept-Encoding", "Content-Encoding")

names = st.text(max_size=12) | st.from_regex(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", fullmatch=True)
values = st.text(max_size=12) | st.text(st.characters(min_codepoint=0, max_codepoint=0x80), max_size=12)


def is_allowed(name: str, value: str) -> bool:
    try:
        header_rules.check(name, value)
    except ValueError:
        return False
    return True


def in_any_case(name: str) -> st.SearchStrategy[str]:
    cases = [st.sampled_from((character.lower(), character.upper())) for character in name]
    return st.tuples(*cases).map("".join)


@example("WebHook-Request-Origin")
@given(st.sampled_from(FRAMING + PROXIES + OURS + DECODED_BY_NOBODY).flatmap(in_any_case))
def test_reserved_names_are_refused(name: str) -> None:
    """Headers of framing, of the connection, and our own are refused, in any case. The error names the header."""
    with pytest.raises(ValueError, match=f"^a subscription may not set {name}$"):
        header_rules.check(name, "x")


@pytest.mark.parametrize("name", ["", " ", "a b", "a:", ":path", "a\r\nb", "a\tb", "\x00", "é", "a\n", "a(b)", "a,b"])
def test_invalid_names(name: str) -> None:
    """A name is a token of RFC 9110."""
    with pytest.raises(ValueError, match="is not a valid header name"):
        header_rules.check(name, "x")


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\n", "\ra", "a\x00", "a\tb", "\x7f", "é", " a", "a ", " ", "\u2028"])
def test_invalid_values(value: str) -> None:
    """A value is visible ASCII with inner spaces. The error does not contain it, since it may be secret."""
    with pytest.raises(ValueError, match=r"^the value of X-A may hold visible ASCII only, and spaces inside$"):
        header_rules.check("X-A", value)


@pytest.mark.parametrize(
    ("name", "value"), [("X-A", ""), ("x_a", 'a, b; c="d"'), ("User-Agent", "x/1"), ("Accept", "*/*")]
)
def test_permitted_headers(name: str, value: str) -> None:
    """All others may be set, including an empty value and the user agent."""
    header_rules.check(name, value)


@given(names, values)
@example("data", "x")
@example("self", "")
def test_a_permitted_header_is_sent(name: str, value: str) -> None:
    """It can be prepared and becomes one line with that value, so no later event fails because of it."""
    if not is_allowed(name, value):
        return
    lines = lines_of(prepare(Endpoint(1, "https://example.com", (b"k",), headers=((name, value),))).request.headers)
    mine = [line for line in lines if line.lower().startswith(f"{name.lower()}:")]
    assert mine == [f"{name}: {value}" if value else f"{name}:"]


def lines_of(headers: Mapping[str, str | bytes]) -> list[str]:
    """The lines without their ends."""
    *lines, last = header_lines(headers).decode().split("\r\n")
    assert last == ""
    return lines


@given(st.dictionaries(names, values | values.map(str.encode), max_size=3))
def test_no_control_character_is_sent(headers: dict[str, str | bytes]) -> None:
    """For any request, a line is visible ASCII, and each header is one line."""
    try:
        lines = lines_of(headers)
    except InvalidHeader:
        return
    for line in lines:
        assert all(" " <= character <= "~" for character in line)
    assert len(lines) <= len(headers)


@pytest.mark.parametrize("value", [42, None, ["a"]])
def test_a_value_that_is_not_text_is_refused(value: Any) -> None:
    """A plug-in can set any value."""
    with pytest.raises(InvalidHeader, match="the value of X-Shop-Id is not text"):
        header_lines({"X-Shop-Id": value})


@given(st.sampled_from(("Host", "Transfer-Encoding", "Connection")).flatmap(in_any_case))
def test_plug_ins_cannot_change_framing(name: str) -> None:
    """Headers that a plug-in must not set are refused when the request is built."""
    with pytest.raises(InvalidHeader):
        header_lines({name: "chunked"})
