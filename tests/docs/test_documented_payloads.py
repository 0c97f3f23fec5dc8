"""docs/payloads.md against the code: examples are rendered and tables compared."""

import json
import re
from dataclasses import replace
from typing import Any, get_args

import pytest

from consumer.events.event import Event, RecordId
from consumer.expressions.expression import NAMES, compile_projection
from consumer.http.header_rules import check
from consumer.sending.payloads import PROJECTION_BYTES, Rendered, Unrenderable, attribute_lines, render, render_batch
from consumer.sending.request import build
from consumer.sending.signing import prepare
from consumer.subscriptions.endpoint import Batch, Endpoint, PayloadFormat
from tests.docs.documentation import TEXTS, code, rows, table_behind

PAGE = TEXTS["docs/payloads.md"]
ENDPOINT = Endpoint(7, "https://example.com/hooks", (b"key",))
BODY = re.findall(r"<!-- the record -->\n```json\n(.*?)\n```", PAGE)[0].encode()
EVENT = Event(
    RecordId("orders", 2, 7, 1793620800123),
    "order.paid",
    "msg_c8f5ad15e7b02bbd4ee8f5f0e3a3d3a1",
    BODY,
    "application/json",
    None,
    None,
    {"event-type": b"order.paid"},
)
RENDERED = re.findall(r"<!-- rendered: ([\w-]+) ?(.*?) ?-->\n```json\n(.*?)```", PAGE, re.DOTALL)


def rendered(kind: str, projection: str | None = None, event: Event = EVENT) -> Rendered:
    expression = compile_projection(projection) if projection else None
    return render(replace(ENDPOINT, payload_format=kind, projection=expression), event)  # type: ignore[arg-type]


def in_order(text: str | bytes) -> Any:
    return json.loads(text, object_pairs_hook=list)


def test_each_format_has_an_example() -> None:
    """No format lacks one."""
    assert {kind for kind, projection, _ in RENDERED if not projection} == set(get_args(PayloadFormat))


@pytest.mark.parametrize(("kind", "projection", "text"), RENDERED)
def test_examples(kind: str, projection: str, text: str) -> None:
    """Each example is the rendered record of the page, member by member, in order."""
    payload = rendered(kind, projection)
    assert in_order(payload.body) == in_order(text)
    assert kind not in {"record", "cloudevents-binary"} or payload.body == text.strip().encode()


@pytest.mark.parametrize("row", table_behind("docs/payloads.md", "| projection |"))
def test_projections(row: list[str]) -> None:
    """Each projection of the table gives the result beside it, byte for byte."""
    [projection], [text] = map(code, row)
    assert rendered("record", projection).body == text.encode()


def test_the_variables_are_named() -> None:
    """The page lists all variables, and no others."""
    assert code(PAGE.split("over the same variables: ")[1].split(". ")[0]) == sorted(
        NAMES, key=lambda name: PAGE.split("over the same variables: ")[1].index(f"`{name}`")
    )
    assert set(code(PAGE.split("over the same variables: ")[1].split(". ")[0])) == set(NAMES)


@pytest.mark.parametrize("projection", ["1.0 / 0.0", "type(1)", "{1: 2}", "data.note"])
def test_unrenderable_events(projection: str) -> None:
    """Each error described on the page is one."""
    with pytest.raises(Unrenderable):
        rendered("record", projection)
    assert f"{PROJECTION_BYTES // 2**20} MiB" in PAGE


def test_the_batch() -> None:
    """The example is the rendering of its two records."""
    text = re.findall(r"<!-- batch: standard -->\n```json\n(.*?)```", PAGE, re.DOTALL)[0]
    second = EVENT._replace(body=json.dumps(json.loads(text)[1]["data"]).encode())
    endpoint = replace(ENDPOINT, payload_format="standard", batch=Batch(10, 1.0))
    body, _ = render_batch(endpoint, [render(endpoint, event) for event in (EVENT, second)])
    assert in_order(body) == in_order(text)


def test_content_types() -> None:
    """The content types on the page are those that are sent."""
    for kind in get_args(PayloadFormat):
        assert f"`{rendered(kind).content_type}`" in PAGE
        endpoint = replace(ENDPOINT, payload_format=kind, batch=Batch(10, 1.0))
        assert f"`{render_batch(endpoint, [])[1]}`" in PAGE


def test_the_headers_of_a_cloud_event() -> None:
    """The example of binary mode has the header lines that are sent."""
    text = re.findall(r"<!-- headers: cloudevents-binary -->\n```text\n(.*?)```", PAGE, re.DOTALL)[0]
    assert attribute_lines(EVENT).decode().splitlines() == text.splitlines()


def test_headers() -> None:
    """The table has all headers of a request, and no others; only the user agent may be a custom header."""
    event = EVENT._replace(traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    verified = replace(ENDPOINT, origin="events.example.com")
    sent = {name.lower() for name in build(prepare(verified), verified, event, 1).headers}
    names = [code(row[0])[0] for row in rows("docs/payloads.md", "Headers")]
    assert set(names) == sent - {"content-length"}
    for name in set(names) - {"user-agent", "x-webhook-signature"}:
        with pytest.raises(ValueError, match="a subscription may not set"):
            check(name, "x")
    check("user-agent", "x")
