"""Requests that follow their event: method, path and query, computed headers, and record headers that go on."""

import json
import re
from base64 import b64encode
from dataclasses import replace
from urllib.parse import unquote

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from requests.auth import HTTPBasicAuth

from consumer.events.event import Event, RecordId
from consumer.http.urls import parse_proxy
from consumer.sending.exchange import SignedRequest
from consumer.sending.payloads import Unrenderable
from consumer.sending.request import build, message
from consumer.sending.route import placed
from consumer.sending.signing import prepare
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.follows import Follows, compile_text, parse_passed, url_template

URL = "https://erp.example/orders/{data.id}/lines/{data.line}?rev={headers['rev']}&open={data.open}"
EVENT = Event(RecordId("t", 0, 1, 2), "order.created", "msg_abc", b"{}", "application/json", None, None)
EXAMPLE = {"id": "A 7/1", "line": 12, "open": True, "price": 1.5}


def event_of(data: object, headers: dict[str, bytes | None] | None = None) -> Event:
    return EVENT._replace(body=json.dumps(data).encode(), headers=headers or {})


def endpoint_of(url: str = URL, computed: dict[str, str] | None = None, passed: str = "") -> Endpoint:
    expressions = tuple((name, compile_text(source)) for name, source in (computed or {}).items())
    follows = Follows(url_template(url), expressions, parse_passed(passed) if passed else None)
    return Endpoint(7, url, (b"key",), follows=follows)


def sent(endpoint: Endpoint, event: Event) -> h11.Request:
    """The request as a receiver reads it. The body is read to its end, and nothing follows."""
    request = build(prepare(endpoint), endpoint, event, 1700000000)
    head, body = message(request, placed(request.template.request.url or "", None, None))
    server = h11.Connection(h11.SERVER)
    server.receive_data(head + body)
    read = server.next_event()
    assert isinstance(read, h11.Request)
    data = server.next_event()
    assert (bytes(data.data) if isinstance(data, h11.Data) else b"") == event.body
    assert isinstance(server.next_event(), h11.EndOfMessage)
    assert server.trailing_data == (b"", False)
    return read


def test_path_and_query_follow_the_event() -> None:
    """Each value is one segment. The host is the subscription's, and the URL of the request is the one that is sent."""
    event = event_of(EXAMPLE, {"rev": "ü&x=1".encode()})
    read = sent(endpoint_of(), event)
    assert read.target == b"/orders/A%207%2F1/lines/12?rev=%C3%BC%26x%3D1&open=true"
    assert dict(read.headers)[b"host"] == b"erp.example"
    request = build(prepare(endpoint_of()), endpoint_of(), event, 1700000000)
    assert request.url == "https://erp.example/orders/A%207%2F1/lines/12?rev=%C3%BC%26x%3D1&open=true"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_the_method_is_the_subscriptions(method: str) -> None:
    """With a URL that is the same for each event too."""
    endpoint = replace(endpoint_of("https://erp.example/a"), method=method, follows=None)  # type: ignore[arg-type]
    assert sent(endpoint, EVENT).method == method.encode()


def test_headers_follow_the_event() -> None:
    """Computed ones, and record headers, in base64 if they are no text. None overwrites one that the sender owns."""
    headers: dict[str, bytes | None] = {
        "x-trace": b"abc",
        "X-Trace": b"again",
        "x-bytes": b"\xff\0",
        "x-line": b"a\r\nevil: 1",
        "x-null": None,
        "x-order": b"not this one",
        "x-webhook-signature": b"forged",
        "x-origin": b"forged",
        "X-Webhook-Event": b"forged",
        "webhook-signature": b"forged",
        "host": b"evil.example",
        "content-length": b"0",
        "user-agent": b"forged",
        "authorization": b"Bearer stolen",
        "ce-id": b"forged",
        "not a name": b"1",
        "other": b"1",
    }
    endpoint = replace(
        endpoint_of(computed={"X-Order": "'order-' + data.id", "X-Price": "data.price"}, passed="x-*,correlation-id"),
        headers=(("X-Origin", "shop"),),
    )
    read = sent(endpoint, event_of(EXAMPLE | {"id": "A7"}, headers | {"rev": b"1", "Correlation-Id": b"c 1"}))
    found = [(name, value) for name, value in read.headers if name.startswith((b"x-", b"correlation"))]
    assert len(found) == len(dict(found))
    signature = dict(found).pop(b"x-webhook-signature")
    assert len(signature) == 64
    assert dict(found) == {
        b"x-webhook-event": b"order.created",
        b"x-webhook-signature": signature,
        b"x-origin": b"shop",
        b"x-order": b"order-A7",
        b"x-price": b"1.5",
        b"x-trace": b"abc",
        b"x-bytes": b64encode(b"\xff\0"),
        b"x-line": b64encode(b"a\r\nevil: 1"),
        b"correlation-id": b"c 1",
    }
    everything = sent(replace(endpoint, follows=Follows(passed=parse_passed("*"))), event_of(EXAMPLE, headers))
    names = [name for name, _ in everything.headers]
    assert len(names) == len(set(names))
    assert dict(everything.headers)[b"host"] == b"erp.example"
    assert {b"authorization", b"ce-id", b"not a name"}.isdisjoint(names)
    assert b"forged" not in dict(everything.headers).values()


def variables(endpoint: Endpoint, headers: dict[str, bytes | None]) -> dict[str, list[str]]:
    """The request's headers as programs behind CGI, WSGI or Rack see them (RFC 3875, 4.1.18), or behind lighttpd."""
    found: dict[str, list[str]] = {}
    for name, value in sent(endpoint, event_of(EXAMPLE, headers)).headers:
        found.setdefault(re.sub("[^A-Z0-9]", "_", name.decode().upper()), []).append(value.decode())
    return found


SET = ["webhook-id", "webhook-signature", "x-webhook-event", "x-webhook-signature", "x-tenant", "x-id", "content-type"]
SET += ["content-length", "transfer-encoding", "user-agent", "authorization", "host", "ce-id", "proxy-authorization"]
SPELT = st.sampled_from(SET).flatmap(
    lambda name: st.tuples(*(st.sampled_from({"-": "-_.~"}.get(each, each + each.upper())) for each in name))
)


@given(st.dictionaries(SPELT.map("".join), st.just(b"forged"), min_size=1))
def test_no_record_header_joins_one_of_the_request(headers: dict[str, bytes | None]) -> None:
    """Servers that write - as _ would take both for one header, and read the forged value."""
    endpoint = endpoint_of("https://a.example/", {"X_Id": "data.id"}, passed="*")
    endpoint = replace(endpoint, headers=(("X-Tenant", "acme"),), auth=HTTPBasicAuth("u", "p"))
    assert variables(endpoint, headers) == variables(endpoint, {})
    assert len(variables(endpoint, {"x-a": b"1", "X_A": b"2", "x_a": b"3"})["X_A"]) == 1


STEERING = ["X-HTTP-Method-Override", "x_http_method", "x.method.override", "Forwarded", "x-forwarded-for", "via"]
STEERING += ["X_Forwarded_Host", "x-original-url", "x-rewrite-url", "range", "if-match", "If_None_Match", "early-data"]
STEERING += ["proxy", "x-real-ip", "true-client.ip", "x-remote-user", "x-accel-mapping"]


def test_headers_that_steer_a_receiver_go_on_only_if_named() -> None:
    """A pattern passes none: with one, a producer turns a POST into a DELETE. Named whole, each goes on."""
    steering: dict[str, bytes | None] = dict.fromkeys(STEERING, b"1")
    for passed in ("*", "*-*,x_*", "x-*,i*,early-dat*"):
        endpoint = endpoint_of("https://a.example/", passed=passed)
        assert variables(endpoint, steering) == variables(endpoint, {})
    named = endpoint_of("https://a.example/", passed=",".join(STEERING))
    assert len(variables(named, steering)) == len(variables(named, {})) + len(STEERING)


@pytest.mark.parametrize(
    "name", ["webhook_id", "Content_Type", "webhook.id", "ce_id", "ce-type", "authorization", "Cookie"]
)
def test_a_name_that_never_goes_on(name: str) -> None:
    """Naming it is an error when the subscription is made."""
    with pytest.raises(ValueError, match=f"{name.lower()}"):
        parse_passed(f"x-*,{name}")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"line": 1}, "url: Key not found"),
        (EXAMPLE | {"id": None}, "url: data.id is null, not a text"),
        (EXAMPLE | {"id": ["a"]}, "url: data.id is a list, not a text"),
        (EXAMPLE | {"id": ""}, "url: data.id is empty, so the path would be another one"),
        (EXAMPLE | {"id": ".."}, "url: a segment of the path is . or .., which leads to another path"),
        (EXAMPLE | {"id": "ä" * 2000}, "url: path and query have more than 8192 bytes"),
        (EXAMPLE | {"id": "A7", "name": "a\nb"}, "headers: the value of x-name may hold visible ASCII only"),
        (EXAMPLE | {"id": "A7", "name": "ü"}, "headers: the value of x-name may hold visible ASCII only"),
        (EXAMPLE | {"id": "a" * 8193}, "url: data.id has more than 8192 bytes"),
        (EXAMPLE | {"id": "A7", "name": "a" * 8190}, "headers: the header lines have more than 8192 bytes"),
    ],
)
def test_a_value_that_makes_no_request(data: object, why: str) -> None:
    """The delivery is given up with the reason, which quotes nothing of the event."""
    endpoint = endpoint_of(computed={"x-name": "data.name"})
    with pytest.raises(Unrenderable, match=f"^{why}"):
        build(prepare(endpoint), endpoint, event_of(data, {"rev": b"1"}), 1700000000)


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({f"x-{number}": b"" for number in range(1001)}, "the record has 1001 headers; they go on if it has 1000"),
        ({"x-a": b"a" * 8193}, "the record's header x-a has 8193 bytes"),
        ({f"x-{number}": b"a" * 900 for number in range(10)}, "the header lines have more than 8192 bytes"),
    ],
)
def test_record_headers_that_make_no_request(headers: dict[str, bytes | None], why: str) -> None:
    """The loop never spends more than milliseconds on them. A name that is not ASCII does not go on."""
    endpoint = replace(endpoint_of("https://a.example/"), follows=Follows(passed=parse_passed("x-*")))
    with pytest.raises(Unrenderable, match=f"^headers: {why}"):
        build(prepare(endpoint), endpoint, event_of(EXAMPLE, headers), 1700000000)
    odd: dict[str, bytes | None] = {"x-\u212a": b"1"}
    strange, none = (sent(endpoint, event_of(EXAMPLE, each)).headers for each in (odd, {}))
    assert len(strange) == len(none)


LITERAL = "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1].exists(x,'a'.matches('.{39}'))"  # 5 ms on any event


@pytest.mark.parametrize("computed", [True, False], ids=["headers", "url"])
@pytest.mark.parametrize(
    ("source", "data"),
    [(LITERAL, {}), ("size(data.l)", {"l": list(range(12_000))}), ("size(data.l)", {"l": "x" * 1_000_000})],
    ids=["literals", "a long list", "a long text"],
)
def test_the_expressions_of_a_request_are_bounded_together(source: str, data: object, *, computed: bool) -> None:
    """One of them may take what all may. The verdict depends on the event alone, and an event of usual size passes."""

    def endpoint(number: int, source: str) -> Endpoint:
        if computed:
            return endpoint_of("https://a.example/", {f"x-{each}": source for each in range(number)})
        return endpoint_of("https://a.example/" + "/".join([f"{{{source}}}"] * number))

    for _ in range(2):
        sent(endpoint(1, source), event_of(data))
        with pytest.raises(Unrenderable, match="its expressions may take 5 ms together, and could take longer"):
            sent(endpoint(20, source), event_of(data))
    sent(endpoint(20, "size(data.l)"), event_of({"l": list(range(10))}))


def test_names_of_record_headers_are_bounded_before_they_are_matched() -> None:
    """A producer chooses them, and a tenant the patterns. A name that is too long does not go on; others do."""
    patterns = ",".join(f"*{first}*{second}" for first in "zyxwv" for second in "zyxwvutsrqponmlkjihg")
    costly = endpoint_of("https://a.example/", passed=patterns)
    long: dict[str, bytes | None] = {f"{number:04}{'a' * 950}": b"1" for number in range(999)}
    found = dict(sent(costly, event_of({}, long | {"a-z-y": b"1"})).headers)
    assert found[b"a-z-y"] == b"1"
    assert not any(name.startswith(b"0") for name in found)
    shorter: dict[str, bytes | None] = {name[:250]: b"1" for name in long}
    with pytest.raises(Unrenderable, match="too many and too long for pass_headers"):
        sent(costly, event_of({}, shorter))
    usual: dict[str, bytes | None] = {f"{number:02}{'a' * 30}": b"1" for number in range(100)}
    sent(costly, event_of({}, usual))


def test_a_template_whose_segment_a_value_completes() -> None:
    """Percent-encoded dots count: some servers decode them before they resolve the path."""
    for url in ("https://a.example/{data.id}./b", "https://a.example/%2E{data.id}", "https://a.example/%2e{data.id}/"):
        with pytest.raises(Unrenderable, match="leads to another path"):
            sent(endpoint_of(url), event_of({"id": "."}))
    assert sent(endpoint_of("https://a.example/{data.id}."), event_of({"id": "a"})).target == b"/a."
    assert sent(endpoint_of("https://a.example?q={data.id}"), event_of({"id": ".."})).target == b"/?q=.."


@example("../admin")
@given(st.lists(st.sampled_from(["..", ".", "/", "\\", ";", "?", "%", "25", "2e", "2F", "5c", "3B", "a"])).map("".join))
def test_no_value_makes_a_segment_of_dots(value: str) -> None:
    """However a server reads it: decoded once or twice, with a backslash for /, without what follows a semicolon."""
    endpoint = endpoint_of("https://a.example/hooks/{data.id}/done")
    try:
        path = sent(endpoint, event_of({"id": value})).target.decode("ascii")
    except Unrenderable:
        assert not value or "." in value or "2e" in value
        return
    for read in (path, unquote(path), unquote(unquote(path))):
        for segment in read.replace("\\", "/").split("/"):
            assert re.split("[;?#]", segment)[0] not in {".", ".."}, read


@pytest.mark.parametrize(
    "value", ["../admin", "..\\..\\admin", "a/..", "..;/..;/admin", "%2E%2e/admin", "./a", "a/.;b", "..?b"]
)
def test_a_value_whose_segments_are_dots(value: str) -> None:
    """They are segments to servers that decode the path before they route the request, as nginx and lighttpd do."""
    endpoint = endpoint_of("https://a.example/hooks/{data.id}")
    with pytest.raises(Unrenderable, match=r"^url: a segment of the path is . or .., which"):
        sent(endpoint, event_of({"id": value}))


def test_dots_that_are_no_segments() -> None:
    """They are sent: in names of files, versions, and behind other text."""
    for value in ("a/b", "v1.2/x", "...", "a..b", "..a/b", "?..", "a;..", "1.5", ".well-known", "x/.y", "..%"):
        read = sent(endpoint_of("https://a.example/hooks/{data.id}/done"), event_of({"id": value}))
        assert unquote(read.target.decode("ascii")) == f"/hooks/{value}/done"


VALUES = (
    st.text() | st.text("/\\?#&=%.:@\r\n\t\0 {}\u2028") | st.integers() | st.floats(allow_nan=False) | st.booleans()
)


@pytest.mark.slow
@settings(max_examples=30_000, deadline=None)
@given(st.fixed_dictionaries({"id": VALUES, "line": VALUES, "open": VALUES, "name": VALUES}), st.binary(), VALUES)
def test_no_value_changes_anything_else(data: dict[str, object], header: bytes, rev: object) -> None:
    """Host, method, the number of segments and the names of headers stay what they are; or no request is made."""
    endpoint = endpoint_of(computed={"x-name": "data.name"}, passed="x-*")
    try:
        body = json.dumps(data).encode()
        event = EVENT._replace(body=body, headers={"rev": str(rev).encode(errors="replace"), "x-raw": header})
        read = sent(endpoint, event)
    except Unrenderable:
        return
    path, _, query = read.target.decode("ascii").partition("?")
    assert read.method == b"POST"
    assert [name for name, _ in read.headers if name in {b"host", b"content-length", b"x-name", b"x-raw"}] == [
        *(b"host", b"x-name", b"x-raw", b"content-length")
    ]
    assert dict(read.headers)[b"host"] == b"erp.example"
    assert [path.split("/")[place] for place in (0, 1, 3)] == ["", "orders", "lines"]
    assert [each.partition("=")[0] for each in query.split("&")] == ["rev", "open"]
    assert len(path.split("/")) == 5
    if isinstance(data["id"], str) and "\0" not in data["id"]:
        assert unquote(path.split("/")[2]) == data["id"]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://{data.host}/a", "scheme, host and port are fixed"),
        ("https://erp.example:{data.port}/a", "port must be 1 to 65535"),
        ("https://erp.example{data.path}", "scheme, host and port are fixed"),
        ("{data.url}", "must start with https"),
        ("https://erp.example/{data.id", "has a { without a }"),
        ("https://erp.example/data.id}", "has a } without a {"),
        ("https://erp.example/{}", "not CEL"),
        ("https://erp.example/{data.}", "'data.', which is not CEL"),
        ("https://erp.example/{dat.id}", "undeclared reference"),
        ("https://erp.example/{data.id}#a", "has a fragment"),
        ("https://erp.example/{data.id + 'a'}", "without spaces"),
        ("https://erp.example/" + "{data.id}" * 21, "more than 20 expressions"),
        ("https://erp.example/a/../{data.id}", "has a segment . or .. in its path"),
        ("https://erp.example/{data.id}/%2e%2E?a=..", "has a segment . or .. in its path"),
        ("https://u:p@erp.example/{data.id}", "must not hold a user name"),
    ],
)
def test_bad_templates(url: str, why: str) -> None:
    """They are refused when the subscription is made."""
    with pytest.raises(ValueError, match=why):
        url_template(url)


def test_braces_inside_an_expression() -> None:
    """A map, and texts with braces, belong to it."""
    url = "https://a.example/{{'a':'x'}[data.id]}/{data.id=='}'?'{':data.id}"
    assert sent(endpoint_of(url), event_of({"id": "a"})).target == b"/x/a"
    assert url_template("https://a.example/%7Bid%7D") is None


def test_a_proxy_gets_the_whole_url() -> None:
    """Of plain http, in the absolute form."""
    endpoint = endpoint_of("http://erp.example/orders/{data.id}")
    request = build(prepare(endpoint), endpoint, event_of({"id": "a/b"}), 1700000000)
    assert isinstance(request, SignedRequest)
    head, _ = message(request, placed(request.template.request.url or "", None, parse_proxy("http://proxy:3128")))
    assert head.startswith(b"POST http://erp.example/orders/a%2Fb HTTP/1.1\r\nHost: erp.example\r\n")
