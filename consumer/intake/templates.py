"""The templates of a mapping: text with references in braces, such as `{value.table}.{header.kind}`. Pure.

A reference names a part of the record: `{topic}`, `{header.NAME}`, `{key}` or `{key.PATH}`, `{value.PATH}`, and
`{cloudevent.NAME}`, an attribute of a CloudEvent in either content mode. A path is names of fields and positions in
arrays, separated by dots. `{{` and `}}` stand for braces.
"""

import re
from typing import NamedTuple

LONGEST = 500  # characters of a template
MOST_REFERENCES = 20  # of a template
DEEPEST = 16  # fields of a path

_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_KINDS = "{topic}, {key}, {key.PATH}, {value.PATH}, {header.NAME} or {cloudevent.NAME}"
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,255}")
_ATTRIBUTE = re.compile(r"[!-z|~]{1,100}")


class Reference(NamedTuple):
    """A part of the record. `kind`: topic, key, value, header or cloudevent; `path`: a name, or a path of fields."""

    kind: str
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ".".join((self.kind, *self.path))


class Template(NamedTuple):
    """A template as it is written, and its parts: constant text and references."""

    text: str
    parts: tuple[str | Reference, ...]

    @property
    def references(self) -> tuple[Reference, ...]:
        """The references, in order."""
        return tuple(part for part in self.parts if isinstance(part, Reference))


def parse_template(text: str) -> Template:
    """Parse a template. Raises ValueError, whose text says what to write instead."""
    if not text:
        raise ValueError("is empty; write a text or a reference, or leave it out")
    if len(text) > LONGEST:
        raise ValueError(f"has {len(text)} characters; at most {LONGEST} are taken")
    parts: list[str | Reference] = []
    constant, at = "", 0
    for found in _BRACES.finditer(text):
        constant += text[at : found.start()]
        at = found.end()
        if found[1] is not None:
            parts += [constant] if constant else []
            parts.append(parse_reference(found[1]))
            constant = ""
        elif len(found[0]) == 1:
            raise ValueError(f"has a single {found[0]} in {text!r}; write {found[0] * 2} for a brace")
        else:
            constant += found[0][0]
    constant += text[at:]
    parts += [constant] if constant else []
    template = Template(text, tuple(parts))
    if len(template.references) > MOST_REFERENCES:
        raise ValueError(f"has more than {MOST_REFERENCES} references")
    return template


def parse_reference(text: str) -> Reference:
    """Parse the text between braces. Raises ValueError, whose text says what to write instead."""
    kind, dot, rest = text.partition(".")
    match kind:
        case "topic" if not dot:
            return Reference(kind)
        case "key" if not dot:
            return Reference(kind)
        case "value" if not dot:
            raise ValueError("{value} is the whole value, which only body takes; write {value.PATH} for a field")
        case "header" if _NAME.fullmatch(rest):
            return Reference(kind, (rest,))
        case "cloudevent" if _ATTRIBUTE.fullmatch(rest):
            return Reference(kind, (rest,))
        case "key" | "value":
            return Reference(kind, _path(text, rest))
        case _:
            raise ValueError(f"{{{text}}} is no reference; write {_KINDS}")


def parse_body(text: str) -> Template:
    """The template of a body: `{value}`, or `{value.PATH}` alone. Raises ValueError as `parse_template` does."""
    if text == "{value}":
        return Template(text, (Reference("value"),))
    template = parse_template(text)
    if [reference.kind for reference in template.references] != ["value"] or len(template.parts) > 1:
        raise ValueError(
            f"{text!r} is no body; write {{value}} for the whole value, or {{value.PATH}} for a part of it"
        )
    return template


def _path(text: str, path: str) -> tuple[str, ...]:
    fields = tuple(path.split("."))
    if not all(map(_NAME.fullmatch, fields)):
        raise ValueError(f"{{{text}}} has a field without a name; write {{value.order.id}} for the id inside the order")
    if len(fields) > DEEPEST:
        raise ValueError(f"{{{text}}} names {len(fields)} fields; at most {DEEPEST} are taken")
    return fields
