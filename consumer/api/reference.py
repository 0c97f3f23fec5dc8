"""Turns the OpenAPI description of the API into its reference: operations by subject, and models. Pure.

It knows the subset of OpenAPI 3.1 that FastAPI writes.
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from consumer.api.problems import concerns

Schema = Mapping[str, Any]
_OF_MODELS = "#/components/schemas/"
_METHODS = ("get", "post", "put", "patch", "delete")
_WIDEST = 2**63  # a bound of the database, of no use to a reader
_BOUNDS = (("minLength", "maxLength", " characters"), ("minItems", "maxItems", " items"), ("minimum", "maximum", ""))
_DEPTH = 5  # of models in models of an example


class Kind(NamedTuple):
    """The type of a value in words, around the name of the model that it has, if any."""

    before: str
    model: str = ""
    after: str = ""


class Member(NamedTuple):
    """A member of an object, or a parameter; `place` is then path, query or header. `example` is JSON."""

    name: str
    kind: Kind
    required: bool
    notes: tuple[str, ...]
    example: str | None
    place: str = ""


class Body(NamedTuple):
    """The body of a request."""

    media_types: tuple[str, ...]
    about: str
    members: tuple[Member, ...]


class Answer(NamedTuple):
    """A successful answer. `example` is JSON, with line breaks."""

    status: int
    about: str
    model: str
    headers: tuple[Member, ...]
    example: str | None


class Errors(NamedTuple):
    """The errors that have the same model, by status, with their meanings."""

    model: str
    statuses: tuple[tuple[int, str], ...]


class Operation(NamedTuple):
    """An operation. `scopes` None: it takes no token. `command` sends an example with curl."""

    id: str
    title: str
    about: str
    method: str
    path: str
    scopes: tuple[str, ...] | None
    parameters: tuple[Member, ...]
    body: Body | None
    command: str
    answers: tuple[Answer, ...]
    errors: tuple[Errors, ...]


class Group(NamedTuple):
    """The operations on one subject."""

    name: str
    operations: tuple[Operation, ...]


class Model(NamedTuple):
    """The type of an object in answers, or in members of other objects."""

    name: str
    about: str
    members: tuple[Member, ...]


class Reference(NamedTuple):
    """The whole reference; the paths under /v1 come first."""

    title: str
    version: str
    groups: tuple[Group, ...]
    models: tuple[Model, ...]


def reference(description: Mapping[str, Any]) -> Reference:
    """The reference of an OpenAPI description."""
    schemas: Mapping[str, Schema] = description["components"]["schemas"]
    groups: dict[str, list[Operation]] = {}
    for path, methods in sorted(description["paths"].items(), key=lambda item: not concerns(item[0])):
        for method in _METHODS:
            if (operation := methods.get(method)) is not None:
                (tag,) = operation["tags"]
                groups.setdefault(tag, []).append(_operation(path, method, operation, schemas))
    found = tuple(Group(name.capitalize(), tuple(operations)) for name, operations in groups.items())
    return Reference(description["info"]["title"], description["info"]["version"], found, _models(found, schemas))


def _operation(path: str, method: str, operation: Schema, schemas: Mapping[str, Schema]) -> Operation:
    parameters = tuple(_parameter(each, schemas) for each in operation.get("parameters", ()))
    content: Schema = operation.get("requestBody", {}).get("content", {})
    body, sent = None, None
    if content:
        schema = next(iter(content.values()))["schema"]
        body = Body(tuple(content), _whole(schema, schemas).get("description", ""), _members(schema, schemas))
        sent = _sent(_whole(schema, schemas), schemas)
    answers, errors = [], dict[str, list[tuple[int, str]]]()
    for status, answer in sorted(operation["responses"].items()):
        if int(status) < HTTPStatus.BAD_REQUEST:
            answers.append(_answer(int(status), answer, schemas))
        else:
            errors.setdefault(_model_of(answer), []).append((int(status), answer["description"]))
    scopes = tuple(scope for each in operation.get("security", ()) for names in each.values() for scope in names)
    return Operation(
        operation["operationId"],
        operation["summary"].capitalize(),
        operation.get("description", ""),
        method.upper(),
        path,
        scopes if "security" in operation else None,
        parameters,
        body,
        _command(path, method, parameters, sent, takes_token="security" in operation),
        tuple(answers),
        tuple(Errors(model, tuple(statuses)) for model, statuses in errors.items()),
    )


def _parameter(parameter: Schema, schemas: Mapping[str, Schema]) -> Member:
    member = _member(parameter["name"], parameter["schema"], schemas, required=parameter.get("required", False))
    return member._replace(place=parameter["in"])


def _answer(status: int, answer: Schema, schemas: Mapping[str, Schema]) -> Answer:
    headers = tuple(
        _member(name, {**each.get("schema", {}), "description": each.get("description", "")}, schemas, required=True)
        for name, each in answer.get("headers", {}).items()
    )
    schema = _schema_of(answer)
    shown = None if schema is None else json.dumps(_example(schema, schemas), indent=2, ensure_ascii=False)
    return Answer(status, HTTPStatus(status).phrase, _model_of(answer), headers, shown)


def _schema_of(answer: Schema) -> Schema | None:
    return next((each["schema"] for each in answer.get("content", {}).values() if each.get("schema")), None)


def _model_of(answer: Schema) -> str:
    return _name((_schema_of(answer) or {}).get("$ref", ""))


def _command(path: str, method: str, parameters: Sequence[Member], sent: object, *, takes_token: bool) -> str:
    for each in parameters:
        if each.place == "path":
            path = path.replace(f"{{{each.name}}}", each.example or "1")
    asked = [f"{each.name}={each.example or ''}" for each in parameters if each.place == "query" and each.required]
    url = f"localhost:8080{path}{'?' + '&'.join(asked) if asked else ''}"
    words = ["curl", *(["-X", method.upper()] if method not in {"get", "post"} else []), shlex.quote(url)]
    if takes_token:
        words.append('-H "authorization: Bearer $TOKEN"')
    if sent is not None:
        words.append(f"--json {shlex.quote(json.dumps(sent, ensure_ascii=False))}")
    return " ".join(words)


def _models(groups: Sequence[Group], schemas: Mapping[str, Schema]) -> tuple[Model, ...]:
    """The models that operations refer to, directly or through other models, by name."""
    waiting = [name for group in groups for operation in group.operations for name in _referred(operation)]
    found: dict[str, Model] = {}
    while waiting:
        name = waiting.pop()
        if name and name not in found:
            found[name] = Model(name, schemas[name].get("description", ""), _members(schemas[name], schemas))
            waiting += [member.kind.model for member in found[name].members]
    return tuple(found[name] for name in sorted(found))


def _referred(operation: Operation) -> Iterator[str]:
    yield from (answer.model for answer in operation.answers)
    yield from (errors.model for errors in operation.errors)
    if operation.body is not None:
        yield from (member.kind.model for member in operation.body.members)


def _members(schema: Schema, schemas: Mapping[str, Schema]) -> tuple[Member, ...]:
    whole = _whole(schema, schemas)
    required = whole.get("required", ())
    found = (
        _member(name, each, schemas, required=name in required) for name, each in whole.get("properties", {}).items()
    )
    return tuple(sorted(found, key=lambda member: not member.required))


def _member(name: str, schema: Schema, schemas: Mapping[str, Schema], *, required: bool) -> Member:
    example = schema["examples"][0] if schema.get("examples") else None
    shown = example if isinstance(example, str) else json.dumps(example, ensure_ascii=False)
    about = schema.get("description", "")
    notes = (*((about,) if about else ()), *_limits(schema))
    return Member(name, _kind(schema, schemas), required, notes, None if example is None else shown)


def _limits(schema: Schema) -> Iterator[str]:
    whole = {**schema, **next((each for each in schema.get("anyOf", ()) if each.get("type") != "null"), {})}
    for lowest, highest, text in _BOUNDS:
        least, most = (_plain(whole.get(bound)) for bound in (lowest, highest))
        if least is not None and most is not None:
            yield f"{least:,} to {most:,}{text}."
        elif most is not None:
            yield f"At most {most:,}{text}."
        elif least is not None and abs(least) < _WIDEST:
            yield f"At least {least:,}{text}."
    if (default := schema.get("default")) not in (None, [], {}):
        yield f"{default if isinstance(default, str) else json.dumps(default)} unless given."


def _plain(bound: float | None) -> float | None:
    """A bound without `.0`: Pydantic writes the bounds of a nullable whole number as floats."""
    return int(bound) if bound is not None and bound == int(bound) else bound


def _kind(schema: Schema, schemas: Mapping[str, Schema]) -> Kind:
    if "$ref" in schema:
        whole = _whole(schema, schemas)
        return _kind(whole, schemas) if "enum" in whole else Kind("", _name(schema["$ref"]))
    if "anyOf" in schema:
        return _one_of_kinds(schema["anyOf"], schemas)
    if "enum" in schema:
        return Kind(f"one of {', '.join(map(str, schema['enum']))}")
    of = schema.get("items", schema.get("additionalProperties"))
    if isinstance(of, Mapping):
        before, model, after = _kind(of, schemas)
        return Kind(f"{schema['type']} of {before}", model, after)
    return Kind("date and time" if schema.get("format") == "date-time" else schema.get("type", "any JSON"))


def _one_of_kinds(choices: Sequence[Schema], schemas: Mapping[str, Schema]) -> Kind:
    some = [_kind(each, schemas) for each in choices if each.get("type") != "null"]
    linked = next((place for place, each in enumerate(some) if each.model), 0)
    before = "".join(f"{''.join(each)} or " for each in some[:linked])
    after = "".join(f" or {''.join(each)}" for each in some[linked + 1 :])
    null = " or null" if len(some) < len(choices) else ""
    return Kind(before + some[linked].before, some[linked].model, some[linked].after + after + null)


def _sent(whole: Schema, schemas: Mapping[str, Schema]) -> object:
    """An example of a request's body: its own, or its required members, or else all members that have an example."""
    if whole.get("examples"):
        return whole["examples"][0]
    members: Mapping[str, Schema] = whole.get("properties", {})
    names = whole.get("required") or [
        name for name, each in members.items() if each.get("examples", [None])[0] is not None
    ]
    return {name: _example(members[name], schemas) for name in names}


def _example(schema: Schema, schemas: Mapping[str, Schema], depth: int = _DEPTH) -> object:  # noqa: PLR0911 (a case each)
    """A valid value: the example in the schema, or the least value that it allows."""
    whole = _whole(schema, schemas)
    if whole.get("examples"):
        return whole["examples"][0]
    if "anyOf" in whole:
        refers = [each for each in whole["anyOf"] if "$ref" in each or "$ref" in each.get("items", {})]
        return _example(refers[0], schemas, depth - 1) if refers and depth else whole.get("default")
    if "default" in whole:
        return whole["default"]
    if "enum" in whole:
        return whole["enum"][0]
    if whole.get("type") == "object" or "properties" in whole:
        return {name: _example(each, schemas, depth - 1) for name, each in whole.get("properties", {}).items()}
    if whole.get("type") == "array":
        return [_example(whole["items"], schemas, depth - 1)] if "$ref" in whole["items"] and depth else []
    return {"string": "", "integer": 0, "number": 0.0, "boolean": True}.get(whole.get("type", ""))


def _whole(schema: Schema, schemas: Mapping[str, Schema]) -> Schema:
    """The schema, or the model that it refers to."""
    return schemas[_name(schema["$ref"])] if "$ref" in schema else schema


def _name(reference_to: str) -> str:
    return reference_to.removeprefix(_OF_MODELS)
