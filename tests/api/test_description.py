"""The OpenAPI description, from which viewers make their pages."""

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from sqlalchemy import create_engine

from consumer.api.app import create_app
from consumer.api.backing import Backing
from consumer.api.problems import Code
from consumer.api.tokens import TokenFile
from consumer.crypto.vault import Vault
from consumer.ops.changes import Deployment
from consumer.subscriptions.options import Effect
from models import Status
from tests.sending.signed_kit import signed

DESCRIPTION = create_app(
    Backing(Deployment(create_engine("sqlite://"), "webhooks", Vault())), TokenFile(None)
).openapi()
OPERATIONS = [operation for methods in DESCRIPTION["paths"].values() for operation in methods.values()]


def _schemas(part: Any) -> Iterator[dict[str, Any]]:
    """Each schema in the description that has examples."""
    if isinstance(part, dict):
        if isinstance(part.get("examples"), list):
            yield part
        part = list(part.values())
    for each in part if isinstance(part, list) else ():
        yield from _schemas(each)


def test_examples_are_valid() -> None:
    """Each example of a parameter, a member or a body matches its schema."""
    found = list(_schemas(DESCRIPTION))
    assert len(found) > 50
    for schema in found:
        for example in schema["examples"]:
            Draft202012Validator({**schema, "components": DESCRIPTION["components"]}).validate(example)


def _members(part: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and the schema of each member and query parameter in the description."""
    if isinstance(part, dict):
        yield from (part.get("properties") or {}).items()
        if part.get("in") == "query":
            yield part["name"], part["schema"]
        part = list(part.values())
    for each in part if isinstance(part, list) else ():
        yield from _members(each)


def _types(schema: dict[str, Any]) -> set[str]:
    return {kind.get("type", "") for kind in (schema, *schema.get("anyOf", ())) if kind.get("type") != "null"} - {""}


def test_a_thing_has_one_name() -> None:
    """An id is named after what it identifies, `state` is a state, and `status` one of HTTP."""
    found = list(_members(DESCRIPTION))
    assert len(found) > 200
    assert {name for name, _ in found} & {"subscription", "replay", "delivery", "ids", "after", "before"} == {
        "subscription"  # a whole one
    }
    assert all("$ref" in schema for name, schema in found if name == "subscription")
    assert all(_types(schema) == {"integer"} for name, schema in found if name == "status")
    assert all("integer" not in _types(schema) for name, schema in found if name == "state")


def test_times_are_times() -> None:
    """So that a client reads them as such; what people may also write as an age is text."""
    for name, schema in _members(DESCRIPTION):
        if name.endswith(("_at", "_since")) or name in {"at", "previous_until"}:
            kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
            assert [kind.get("format") for kind in kinds] == ["date-time"], name


def test_schemas_are_classes_of_a_client() -> None:
    """Each page of a list is named after its items, and a closed set of values is an enum of its own."""
    schemas = DESCRIPTION["components"]["schemas"]
    members = {name: schema.get("properties", {}) for name, schema in schemas.items()}
    pages = {name: each for name, each in members.items() if each.keys() >= {"items", "next"}}
    assert {name: members["items"]["items"]["$ref"].rpartition("/")[2] for name, members in pages.items()} == {
        f"{each}Page": each
        for each in (
            "Attempt",
            "AuditEntry",
            "DeadLetter",
            "Delivery",
            "EventType",
            "Replay",
            "SearchHit",
            "Subscription",
        )
    }
    enums = {name: schema["enum"] for name, schema in schemas.items() if "enum" in schema}
    assert enums["DeliveryState"] == list(Status)
    assert enums["ProblemCode"] == [each.text for each in Code]
    assert enums["ProblemEffect"] == [each.name.lower() for each in Effect]
    named = {"Outcome", "ReceiverState", "ReplayState", "SubscriptionState", "CursorReason", "PayloadFormat"}
    assert enums.keys() >= named
    assert all(schema["title"] == name for name, schema in schemas.items())
    assert not [name for name in schemas if name.startswith(("Shown", "Given", "_")) or "Validation" in name]


def test_receivers_find_their_request() -> None:
    """It has the headers that workers send."""
    (operation,) = DESCRIPTION["webhooks"]["event"].values()
    sent = {name.lower() for name in signed("https://example.com/hooks").headers}
    required = {each["name"] for each in operation["parameters"] if each["required"]}
    assert required <= sent
    assert {name for name in sent if "webhook" in name} <= {each["name"] for each in operation["parameters"]}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation["operationId"])
def test_an_operation_is_explained(operation: dict[str, Any]) -> None:
    """It has a subject and a description, which names the scope that its token needs."""
    assert len(operation["tags"]) == 1
    scopes = [scope for each in operation.get("security", ()) for scope in each.get("HTTPBearer", ())]
    assert all(f"`{scope}`" in operation["description"].split("Scope:")[1] for scope in scopes)
