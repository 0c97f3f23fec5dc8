"""Auth plug-ins of `requests`: an installed one signs each request, and a failing one affects only its own attempts."""

import hashlib
import re
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests import Request
from requests.auth import HTTPDigestAuth

from consumer.config.environment import load
from consumer.config.settings import RuleSettings
from consumer.config.types import plugins_of
from consumer.crypto.credentials import PluginAuth, StoredSecret, credentials_of
from consumer.crypto.vault import Vault
from consumer.errors import NotAuthorized, SettingsError
from consumer.sending.request import build, message
from consumer.sending.route import placed
from consumer.sending.signing import prepare
from consumer.sending.trace import secrets_in
from tests.sending.conftest import Net
from tests.sending.signed_kit import EVENT, NOW_UTC, headers_of, signed
from tests.sending.test_following import endpoint_of, event_of

SIGV4 = '{"name": "sigv4", "args": ["AKID", "s3cret-key", "eu-central-1", "execute-api"]}'
URL = "https://hooks.test/a?b=c"
UNSENDABLE = "which cannot be sent"
NO_TEXT = "a header's value may hold visible ASCII and spaces only"


def made(text: str, plugins: str = "sigv4=requests_aws4auth:AWS4Auth") -> PluginAuth:
    """Credentials as read from a row of `webhook_secrets`."""
    rows = [StoredSecret("plugin", text, None)]
    found = credentials_of(1, rows, (), Vault().decrypt, NOW_UTC, plugins_of(plugins)).auth
    assert isinstance(found, PluginAuth)
    return found


def test_an_installed_plug_in_signs_each_request(net: Net) -> None:
    """The receiver computes AWS's signature of the request that has arrived, and finds the same one in it."""
    receiver, auth = net.receive(), made(SIGV4)
    net.sender().results(*(signed(receiver.url, body, auth=auth) for body in (b'{"id": 1}', b'{"id": 2}')))
    for request in receiver.requests:
        headers, body = headers_of(request), request.partition(b"\r\n\r\n")[2]
        signature = headers.pop("authorization")
        assert signature.startswith("AWS4-HMAC-SHA256 Credential=AKID/")
        assert headers["x-amz-content-sha256"] == hashlib.sha256(body).hexdigest()
        again = auth.auth(Request("POST", receiver.url, headers, data=body).prepare())
        assert again.headers["Authorization"] == signature
        assert headers["webhook-signature"]
        assert headers["webhook-id"] == EVENT.webhook_id
    assert len(receiver.requests) == 2


Plugin = Callable[[Any], Any]


def changes(name: str, value: object) -> Plugin:
    """A plug-in that sets this attribute of the request."""
    return lambda request: setattr(request, name, value) or request  # type: ignore[func-returns-value]


def adds(name: str, value: object) -> Plugin:
    """A plug-in that sets this header."""
    return lambda request: request.headers.__setitem__(name, value) or request


@pytest.mark.parametrize(
    ("auth", "text"),
    [
        (lambda _: int("s3cret"), "failed (ValueError)"),
        (changes("body", b"{}"), "changed the body or the URL; it may only add headers"),
        (changes("url", "https://10.0.0.1/"), "changed the body or the URL; it may only add headers"),
        (lambda _: None, "returned no request"),
        (adds("X-Shop-Id", 42), "set a header that is not text"),
        (adds("X-Shop-Id", None), "set a header that is not text"),
        (changes("headers", {7: "x"}), "set a header that is not text"),
        (adds("X-Token", "s3cret\n"), f"set the header 'X-Token', {UNSENDABLE}: {NO_TEXT}"),
        (adds("X-User", "J\u00fcrgen"), f"set the header 'X-User', {UNSENDABLE}: {NO_TEXT}"),
        (adds("Host", "127.0.0.1"), f"set the header 'Host', {UNSENDABLE}: Host is set by the sender"),
        (adds("Connection", "close"), f"set the header 'Connection', {UNSENDABLE}: Connection is set by the sender"),
        (adds("X Shop", "42"), f"set the header 'X Shop', {UNSENDABLE}: 'X Shop' is not a valid header name"),
        (changes("headers", None), "failed (AttributeError)"),
        (changes("hooks", None), "failed (AttributeError)"),
        (HTTPDigestAuth("a", "b"), "waits for a challenge in the answer, which is not supported"),
    ],
)
def test_a_misbehaving_plug_in_is_an_error_of_the_attempt(auth: Any, text: str) -> None:
    """The plug-in's own text and its headers' values are not quoted, since they may contain a secret."""
    with pytest.raises(NotAuthorized) as refused:
        signed(URL, auth=PluginAuth("p", "{}", auth))
    assert str(refused.value) == f"the plug-in p {text}"


@given(st.dictionaries(st.sampled_from(("x-api-key", "X_Api_Key", "x.api-key", "X-Other")), st.just(b"of a record")))
def test_what_a_plug_in_adds_is_a_secret_and_no_record_joins_it(headers: dict[str, bytes | None]) -> None:
    """Also if a header of the record has its name, or one that some servers take for it."""
    auth: Any = adds("X-Api-Key", "made-by-the-plug-in")
    endpoint = replace(endpoint_of("https://a.example/", passed="x*"), auth=PluginAuth("p", "{}", auth))
    request = build(prepare(endpoint), endpoint, event_of({}, headers), 1_700_000_000)
    assert "made-by-the-plug-in" in secrets_in(endpoint, request)
    assert "of a record" not in secrets_in(endpoint, request)
    sent = headers_of(message(request, placed(URL, None, None))[0])
    assert [value for name, value in sent.items() if re.sub("[^a-z]", "-", name) == "x-api-key"] == [
        "made-by-the-plug-in"
    ]
    assert ("x-other" in sent) == ("X-Other" in headers)


def test_the_headers_of_a_copied_request_are_sent() -> None:
    """A plug-in may return one. They replace the lines that were rendered before the plug-in was called."""
    auth: Any = lambda request: adds("X-Shop-Id", "42")(copy(request))  # noqa: E731 (a plug-in is a callable)
    request = signed(URL, auth=PluginAuth("p", "{}", auth))
    assert b"X-Shop-Id: 42\r\n" in message(request, placed(URL, None, None))[0]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (SIGV4.replace("sigv4", "other"), "the plug-in 'other' is not in WEBHOOK_AUTH_PLUGINS of this process"),
        ('{"name": "sigv4", "args": ["h1dden"]}', "the plug-in sigv4 refuses its arguments (TypeError)"),
        ('{"name": "sigv4", "arg": []}', "a plug-in's credentials are written "),
        ('["sigv4"]', "a plug-in's credentials are JSON: "),
        ('{"name": "text", "args": ["h1dden"]}', "the plug-in text makes a str, which is no requests.auth.AuthBase"),
    ],
)
def test_unusable_credentials(text: str, error: str) -> None:
    """The reason is a problem of the subscription. No text contains the secret."""
    with pytest.raises(ValueError, match="plug-in") as refused:
        made(text, "sigv4=requests_aws4auth:AWS4Auth, text=builtins:str")
    assert str(refused.value).startswith(error)
    assert "h1dden" not in str(refused.value)


def test_the_same_row_gives_the_same_plug_in() -> None:
    """Look-ups read the row again and again, and the plug-in keeps its computed state."""
    assert made(SIGV4) == made(SIGV4)
    assert made(SIGV4).auth is made(SIGV4).auth
    assert made(SIGV4) != made(SIGV4.replace("AKID", "AKID2"))
    assert "s3cret" not in repr(made(SIGV4))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("sigv4", "'sigv4' is not written name=module:class"),
        ("a=no_such_module:A", "a: No module named 'no_such_module'; install it where this process runs"),
        ("a=requests_aws4auth:A", "a: the module requests_aws4auth has no A"),
        ("a=hashlib:__doc__", "a: hashlib:__doc__ is neither a class nor a function"),
    ],
)
def test_a_plug_in_that_cannot_be_loaded_is_reported_at_the_start(value: str, text: str) -> None:
    """The process names it before any event is read."""
    with pytest.raises(SettingsError, match=r"^WEBHOOK_AUTH_PLUGINS: ") as refused:
        load(RuleSettings, {"WEBHOOK_AUTH_PLUGINS": value})
    assert text in str(refused.value)
