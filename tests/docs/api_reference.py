"""Writes docs/api-reference.md from the OpenAPI description of the API: `make reference`."""

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import create_engine

from consumer.api.app import create_app
from consumer.api.backing import Backing
from consumer.api.reference import Kind, Member, Operation, Reference, reference
from consumer.api.tokens import TokenFile
from consumer.crypto.vault import Vault
from consumer.ops.changes import Deployment
from tests.docs.documentation import ROOT

PAGE = ROOT / "docs/api-reference.md"


def description() -> dict[str, Any]:
    """The content of /openapi.json."""
    engine = create_engine("sqlite://")
    return create_app(Backing(Deployment(engine, "webhooks", Vault())), TokenFile(None)).openapi()


def written(found: Reference) -> str:
    """The page's text."""
    return "\n".join(_lines(found))


def _lines(found: Reference) -> Iterator[str]:
    yield "# API reference\n"
    yield (
        "`make reference` writes this page from the OpenAPI description; a test compares the two. `kafka-webhooks api` "
        "serves the same at `/reference`, and the description at `/openapi.json`. [HTTP API](api.md) explains tokens, "
        "scopes and conventions; set `TOKEN` to a token for these examples.\n"
    )
    for group in found.groups:
        yield f"- {group.name}: {', '.join(_link(each.title, each.title) for each in group.operations)}"
    yield "- [Models](#models)\n"
    for group in found.groups:
        yield f"## {group.name}\n"
        for operation in group.operations:
            yield from _operation(operation)
    yield "## Models\n"
    for model in found.models:
        yield f"### Model {model.name}\n"
        yield f"{model.about}\n"
        yield from _table(model.members)


def _operation(operation: Operation) -> Iterator[str]:
    yield f"### {operation.title}\n"
    scope = "no token" if operation.scopes is None else f"scope `{'`, `'.join(operation.scopes)}`"
    yield f"`{operation.method} {operation.path}` ({scope}; `{operation.id}`)\n"
    yield f"{operation.about}\n"
    if operation.parameters:
        yield from _table(operation.parameters)
    if operation.body is not None:
        types = " or ".join(f"`{each}`" for each in operation.body.media_types)
        yield f"The body, as {types}: {operation.body.about[0].lower()}{operation.body.about[1:]}\n"
        if operation.body.members:
            yield from _table(operation.body.members)
    yield f"```sh\n{operation.command}\n```\n"
    for answer in operation.answers:
        headers = "".join(f" Header `{each.name}`: {' '.join(each.notes)}" for each in answer.headers)
        model = f": {_model(answer.model)}" if answer.model else ""
        yield f"**{answer.status} {answer.about}**{model}.{headers}\n"
        if answer.example is not None:
            yield f"```json\n{answer.example}\n```\n"
    for errors in operation.errors:
        named = ", ".join(f"{status} {about.removesuffix('.')}" for status, about in errors.statuses)
        yield f"Errors, each a {_model(errors.model)}: {named}.\n"


def _table(members: Iterable[Member]) -> Iterator[str]:
    places = any(each.place for each in members)
    yield f"| name | {'in | ' if places else ''}type | meaning | example |"
    yield f"| --- | {'--- | ' if places else ''}--- | --- | --- |"
    for each in members:
        name = f"`{each.name}`{' (required)' if each.required else ''}"
        example = f"`{each.example}`" if each.example is not None else ""
        place = [each.place] if places else []
        yield "| " + " | ".join([name, *place, _kind(each.kind), _cell(" ".join(each.notes)), _cell(example)]) + " |"
    yield ""


def _kind(kind: Kind) -> str:
    return f"{kind.before}{_model(kind.model) if kind.model else ''}{kind.after}"


def _link(text: str, heading: str) -> str:
    return f"[{text}](#{heading.lower().replace(' ', '-')})"


def _model(name: str) -> str:
    return _link(name, f"Model {name}")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*") if not text.startswith("`") else text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(written(reference(description())))
