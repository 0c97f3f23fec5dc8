"""The OpenAPI description, from which viewers make their pages."""

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from sqlalchemy import create_engine

from consumer.api.app import create_app
from consumer.api.backing import Backing
from consumer.api.tokens import TokenFile
from consumer.crypto.vault import Vault
from consumer.ops.changes import Deployment

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


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation["operationId"])
def test_an_operation_is_explained(operation: dict[str, Any]) -> None:
    """It has a subject and a description, which names the scope that its token needs."""
    assert len(operation["tags"]) == 1
    scopes = [scope for each in operation.get("security", ()) for scope in each["HTTPBearer"]]
    assert all(f"`{scope}`" in operation["description"].split("Scope:")[1] for scope in scopes)
