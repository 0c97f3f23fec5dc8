"""The reference agrees with the OpenAPI description, and the description with the API."""

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from consumer.api.reference import Kind, Operation, Reference, reference
from tests.docs.api_reference import description

DESCRIPTION = description()
FOUND: Reference = reference(DESCRIPTION)
OPERATIONS = [operation for group in FOUND.groups for operation in group.operations]


def described(operation: Operation) -> dict[str, Any]:
    """The description of an operation."""
    found: dict[str, Any] = DESCRIPTION["paths"][operation.path][operation.method.lower()]
    return found


def schemas_and_examples(operation: Operation) -> Iterator[tuple[dict[str, Any], str]]:
    """The schemas of requests and answers, each with the reference's example."""
    of = described(operation)
    words = shlex.split(operation.command)
    if "--json" in words:
        yield next(iter(of["requestBody"]["content"].values()))["schema"], words[words.index("--json") + 1]
    for answer in operation.answers:
        if answer.example is not None:
            (content,) = of["responses"][str(answer.status)]["content"].values()
            yield content["schema"], answer.example


def test_it_has_every_operation() -> None:
    """Each operation is there once, those under /v1 first, with each parameter and each answer."""
    there = [each["operationId"] for methods in DESCRIPTION["paths"].values() for each in methods.values()]
    assert sorted(operation.id for operation in OPERATIONS) == sorted(there)
    under = [operation.path.startswith("/v1/") for operation in OPERATIONS]
    assert under == sorted(under, reverse=True)
    for operation in OPERATIONS:
        of = described(operation)
        assert len(operation.parameters) == len(of.get("parameters", ()))
        statuses = {answer.status for answer in operation.answers}
        statuses |= {status for errors in operation.errors for status, _ in errors.statuses}
        assert statuses == set(map(int, of["responses"]))


def test_every_model_is_explained() -> None:
    """This holds for each model that the reference names."""
    members = [member for model in FOUND.models for member in model.members]
    for operation in OPERATIONS:
        members += [*operation.parameters, *(operation.body.members if operation.body else ())]
    named = {member.kind.model for member in members}
    for operation in OPERATIONS:
        named |= {answer.model for answer in operation.answers} | {errors.model for errors in operation.errors}
    assert named - {""} == {model.name for model in FOUND.models}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_examples_are_valid(operation: Operation) -> None:
    """The examples of requests and answers match their schemas, and no path parameter is left open."""
    assert "{" not in shlex.split(operation.command.partition("--json")[0])[-1]
    for schema, example in schemas_and_examples(operation):
        whole = {**schema, "components": DESCRIPTION["components"]}
        Draft202012Validator(whole).validate(json.loads(example))


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "integer"}, Kind("integer")),
        ({}, Kind("any JSON")),
        (
            {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
            Kind("date and time", "", " or null"),
        ),
        ({"type": "array", "items": {"$ref": "#/components/schemas/A"}}, Kind("array of ", "A")),
        ({"type": "array", "items": {"$ref": "#/components/schemas/E"}}, Kind("array of one of x, y")),
        (
            {
                "anyOf": [
                    {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/A"}},
                    {"type": "string"},
                    {"type": "null"},
                ]
            },
            Kind("object of ", "A", " or string or null"),
        ),
    ],
)
def test_types_in_words(schema: dict[str, Any], kind: Kind) -> None:
    """Each form of a schema in the description has a text."""
    schemas = {
        "A": {"type": "object", "properties": {}},
        "E": {"enum": ["x", "y"]},
        "Answer": {"type": "object", "properties": {"member": schema}},
    }
    refers = {"application/json": {"schema": {"$ref": "#/components/schemas/Answer"}}}
    operation = {
        "operationId": "a",
        "summary": "A",
        "tags": ["t"],
        "responses": {"200": {"description": "", "content": refers}},
    }
    found = reference(
        {
            "info": {"title": "", "version": ""},
            "paths": {"/a": {"get": operation}},
            "components": {"schemas": schemas},
        }
    )
    (answer,) = [model for model in found.models if model.name == "Answer"]
    assert answer.members[0].kind == kind
