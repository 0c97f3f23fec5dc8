"""The target of a URL, invalid URLs, and that no text shows a part that may be a password."""

from base64 import b64encode
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.http.urls import check_target, parse_proxy, parse_target, place_of, redact_url, without_addresses


@given(st.ip_addresses().map(str), st.integers(1, 65535))
def test_addresses_are_hidden(address: str, port: int) -> None:
    """Each is, with or without a port, wherever it stands in a text."""
    text = f"connecting to {place_of(address, port)}: refused; its host resolves to {address}, {address}: {address}."
    assert without_addresses(text).replace(f"[…]:{port}", f"…:{port}") == (
        f"connecting to …:{port}: refused; its host resolves to …, …: …."
    )


@pytest.mark.parametrize("text", ["status 503 at 14:00:00 on 1.12.2026", "example.com:443", "cafe::function", ""])
def test_other_text_stays_as_it_is(text: str) -> None:
    """Only whole addresses are hidden."""
    assert without_addresses(text) == text


def test_the_default_port_is_the_schemes() -> None:
    """A connection needs both a host and a port."""
    assert parse_target("http://a.example/")[:3] == ("http", "a.example", 80)
    assert parse_target("https://A.example:444/")[:3] == ("https", "a.example", 444)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://example.com/", "https://"),
        ("file:///etc/passwd", "https://"),
        ("example.com/hook", "https://"),
        ("", "https://"),
        ("https://", "no host"),
        ("https:///path", "no host"),
        ("https://user:pass@example.com/", "user name"),
        ("https://example.com:0/", "port"),
        ("https://example.com:65536/", "malformed"),
        ("https://example.com:x/", "malformed"),
        ("https://[::1/", "malformed"),
        ("https://exa mple.com/", "spaces"),
        ("https://example.com/\r\nHost: x", "spaces"),
        ("https://example.com\\@127.0.0.1/", "backslashes"),
        ("https://bücher.example/", "ASCII"),
        ("https://*.example.com/", "its host is not valid"),
        ("https://.example.com/", "its host is not valid"),
        ("https://a%zz.com/", "its host is not valid"),
        ("https://[v1.x]/", "its host is not valid"),
    ],
)
def test_invalid_urls_are_refused(url: str, reason: str) -> None:
    """The text says what is wrong, in our own words."""
    with pytest.raises(ValueError, match=reason):
        check_target(url)


@pytest.mark.parametrize(
    "url",
    [
        *("https://user:s3cret@host/", "https://user:s3cret@host:99999/", "https://user:s3cret@host:x/"),
        *("https://user:s3cret@/hook", "http//user:s3cret@host", "ftp://user:s3cret@host/", "user:s3cret@host"),
        *("https://user:s3cret/x@host/", "https://user:s3cret?x@host/", "https://user:s3cret#x@host/"),
        *("https://user:[s3cret]@host/", "https://user:s3cret]@host/", "https://[s3cret]:1@host/"),
        *("https://user:s3cret\\@host/", "https://user:s3cret @host/", "https://user:s3crét@host/", "https:// s3cret"),
        "https://user:s3cret:x",
    ],
)
def test_a_refusal_does_not_quote_the_url(url: str) -> None:
    """It goes to logs, to `last_error` and to Kafka, and the malformed part of a URL is often a password."""
    with pytest.raises(ValueError, match="the URL") as caught:
        check_target(url)
    for piece in ("s3cr", "user", "@"):
        assert piece not in str(caught.value).replace("user name", "")
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@given(st.text())
def test_any_text_is_refused_or_has_a_host_and_a_port(text: str) -> None:
    """This holds for all text that `check_target` accepts."""
    for url in (text, f"https://{text}"):
        with suppress(ValueError):
            check_target(url)
            scheme, host, port, _ = parse_target(url)
            assert scheme in {"http", "https"}
            assert host
            assert 0 < port < 65536


@pytest.mark.parametrize(
    ("url", "published"),
    [
        ("https://example.com:8443/@me", "https://example.com:8443/@me"),
        ("https://example.com:8443/@me?token=s3cret@b", "https://example.com:8443/@me?…"),
        ("http//user:p@host/?token=s3cret", "…@host/?…"),
        ("https://user:s3cret@host/hook", "…@host/hook"),
        ("https://user:s3/cr@et@host/hook", "…@host/hook"),
        ("http//user:s3cret@host/", "…@host/"),
        ("http://user:s3cret%40host/", "…@host/"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_published_url_has_no_password_and_no_query(url: str, published: str) -> None:
    """Pages, events and commands name a target without a password, at any position, and without tokens in the query."""
    assert redact_url(url) == published


def test_an_ipv6_address_of_a_proxy_is_in_brackets() -> None:
    """Both in requests to the proxy and in the proxy's own URL."""
    proxy = parse_proxy("http://[::1]:3128")
    assert (proxy.host, proxy.port) == ("::1", 3128)
    place = b"[2001:db8::1]:443"
    assert proxy.connect("2001:db8::1", 443).startswith(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n" % (place, place))


@pytest.mark.parametrize(
    ("user", "told"),
    [
        ("bob:pass%20word", "bob:pass word"),
        ("bob%40x:s3%3Acr:et", "bob@x:s3:cr:et"),
        ("bob:s3/c@et", "bob:s3/c@et"),
        ("bob:p%C3%A4sse", "bob:pässe"),
        ("bob", "bob:"),
    ],
)
def test_a_proxys_password(user: str, told: str) -> None:
    """It is sent percent-decoded."""
    line = b"Proxy-Authorization: Basic " + b64encode(told.encode()) + b"\r\n"
    assert parse_proxy(f"http://{user}@127.0.0.1:1").authorization == line


@pytest.mark.parametrize(
    "proxy",
    [
        *("http://bob:s3cret@127.0.0.1:99999", "http://bob:s3/cret@127.0.0.1:x", "http://bob:s3cret@[::1"),
        *("http://bob:s3cret@", "socks5h://bob:s3cret@nowhere.invalid:1", "http://bob:s3%00cret@proxy"),
    ],
)
def test_an_invalid_proxy_is_refused_without_its_password(proxy: str) -> None:
    """It is refused at the start, and the text goes to a log."""
    with pytest.raises(ValueError, match=r"starts with neither|is malformed") as refused:
        parse_proxy(proxy)
    for piece in ("s3", "cret", "bob"):
        assert piece not in str(refused.value)
