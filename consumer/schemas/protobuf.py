"""Protobuf to JSON, by Protobuf's own mapping. Pure, but for schemas in text form, which protoc compiles.

`google.protobuf.json_format` is not used: it has no limit, and takes twelve seconds for a hostile megabyte.
"""

import os
import re
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib import import_module
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from consumer.errors import Undecodable
from consumer.schemas.wire_format import Decode, Framed, JsonLimit, Misfit, base64, key_cost, number, single

_NAME = "the schema of the record"  # the file's name in its pool; an import cannot have it
_MOST_INDEXES = 100  # of a message nested in messages
_MOST_BYTES = 5  # of a varint that is an index
_PROTOC_SECONDS = 30.0
# Files that every Protobuf or Confluent client has; registries do not list them among the references of a schema.
_BUILT_IN = re.compile(r"(google/protobuf|google/type|confluent|confluent/types?)/[a-z_]+[.]proto")
_IMPORT = re.compile(r"""\bimport\s+(?:public\s+|weak\s+)?["']([^"']+)""")
# Apicurio's message Ref: its length, the tag of its only field, and that field's length; the name follows.
_REF = re.compile(rb"([\x02-\x7f])\x0a([\x00-\x7d])", re.DOTALL)

_Convert = Callable[[Any, JsonLimit], Any]
_Plan = list[tuple[str, str, bool, _Convert]]


def protobuf_decoder(schema: str, references: Sequence[tuple[str, str]] = ()) -> Decode:
    """A function that turns payloads of this schema into JSON.

    The schema is a FileDescriptorProto in base64, or the text of a .proto file, which is compiled: that blocks.
    `references` are the files that it imports, by name, each after its own imports. The function raises
    Undecodable: bad_protobuf, too_large, too_deep. ValueError, TypeError, KeyError, ImportError: the schema cannot be
    used.
    """
    pool = DescriptorPool()
    added: set[str] = set()
    for file in _descriptors([*references, (_NAME, schema)]):
        if _BUILT_IN.fullmatch(file.name):  # some registries list them
            continue
        for each in (*_built_in(file.dependency, added), file):
            pool.Add(each)
    messages = list(pool.FindFileByName(_NAME).message_types_by_name.values())
    mapping = _Mapping(pool)

    def decode(framed: Framed) -> bytes:
        try:
            if framed.name_in_front:
                message_type, begin = _named(messages, framed.payload)
                payload = framed.payload[begin:]
            elif framed.indexes is None:
                indexes, begin = _indexes(framed.payload)
                message_type, payload = _descriptor(messages, indexes), framed.payload[begin:]
            else:
                message_type, payload = _descriptor(messages, _indexes(framed.indexes)[0]), framed.payload
            message = GetMessageClass(message_type)()
            message.ParseFromString(payload)
            value = mapping.json(message, JsonLimit())
        except (DecodeError, ValueError, OverflowError) as error:
            # Others may quote the value.
            why = str(error) if isinstance(error, Misfit) else type(error).__name__
            raise Undecodable("bad_protobuf", f"the value does not fit its schema: {why}") from None
        return orjson.dumps(value)

    return decode


def _descriptors(files: Sequence[tuple[str, str]]) -> Sequence[FileDescriptorProto]:
    """The files, by name, each after its imports."""
    parsed = {name: _parsed(name, text) for name, text in files}
    found = [file for file in parsed.values() if file is not None]
    texts = {name: text for name, text in files if parsed[name] is None}
    if not texts:
        return found
    imports = [name for text in texts.values() for name in _IMPORT.findall(text)]
    imports += [name for file in found for name in file.dependency]
    return _compiled(texts, [*_built_in(imports, set()), *found], files[-1][0])


def _compiled(
    texts: Mapping[str, str], known: Sequence[FileDescriptorProto], wanted: str
) -> Sequence[FileDescriptorProto]:
    """The descriptors of `wanted` and of all that it imports, each after its imports.

    protoc runs in a process of its own: a text may exhaust its stack or its time. `texts` are files by name, `known`
    are compiled ones; the first of a name counts. ValueError: protoc refuses one.
    """
    with ExitStack() as stack:

        def handed_over(content: bytes) -> int:
            """A file in memory: the disk may be read-only, and no name of an import leads out of a folder."""
            file = stack.enter_context(os.fdopen(os.memfd_create("schema"), "wb"))
            file.write(content)
            file.flush()
            return file.fileno()

        numbers = {name: handed_over(text.encode()) for name, text in texts.items()}
        compiled_before = handed_over(FileDescriptorSet(file=known).SerializeToString())
        try:
            ran = subprocess.run(  # noqa: S603 (no shell; names and texts are no programs)
                [sys.executable, "-m", "grpc_tools.protoc",
                 *(f"--proto_path={name}=/proc/self/fd/{number}" for name, number in numbers.items()),
                 f"--descriptor_set_in=/proc/self/fd/{compiled_before}",
                 "--include_imports", "--descriptor_set_out=/dev/stdout", wanted],
                stdin=subprocess.DEVNULL, capture_output=True, pass_fds=(*numbers.values(), compiled_before),
                timeout=_PROTOC_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ValueError(f"protoc takes more than {_PROTOC_SECONDS:g} s for it") from None
    if ran.returncode:
        why = ran.stderr.decode(errors="replace").partition("\n")[0]
        raise ValueError(f"protoc refuses its text: {why or f'exit status {ran.returncode}'}")
    files: Sequence[FileDescriptorProto] = FileDescriptorSet.FromString(ran.stdout).file
    return files


def _parsed(name: str, text: str) -> FileDescriptorProto | None:
    """A descriptor in base64; None if the text is none."""
    try:
        file = FileDescriptorProto.FromString(b64decode(text, validate=True))
    except (ValueError, DecodeError):
        return None
    file.name = name
    return file


def _built_in(names: Iterable[str], added: set[str]) -> Iterator[FileDescriptorProto]:
    """The named built-in files, which no registry has to list, each after the files that it imports."""
    for name in names:
        if name in added or not _BUILT_IN.fullmatch(name):
            continue
        added.add(name)
        module = name.removesuffix(".proto").replace("/", ".") + "_pb2"
        prefix = "" if module.startswith("google.") else "confluent_kafka.schema_registry."
        file = FileDescriptorProto()
        import_module(prefix + module).DESCRIPTOR.CopyToProto(file)
        yield from _built_in(file.dependency, added)
        yield file


def _indexes(data: bytes) -> tuple[list[int], int]:
    """The message indexes that `data` begins with, and their length. A single 0 stands for the first message."""
    count, at = _varint(data, 0)
    if not 0 <= count <= _MOST_INDEXES:
        raise Misfit(f"{count} message indexes")
    indexes = []
    for _ in range(count):
        index, at = _varint(data, at)
        indexes.append(index)
    return indexes or [0], at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = 0
    for place, byte in enumerate(data[at : at + _MOST_BYTES]):
        result |= (byte & 127) << (7 * place)
        if byte < 128:  # noqa: PLR2004 (the bit that says that another byte follows)
            return (result >> 1) ^ -(result & 1), at + place + 1
    raise Misfit("the message indexes have no end")


def _named(messages: Sequence[Descriptor], payload: bytes) -> tuple[Descriptor, int]:
    """The message whose name a payload begins with, and where the message itself begins."""
    found = _REF.match(payload)
    if found is None or found[1][0] != found[2][0] + 2:
        raise Misfit("no name of a message in front")
    end = 1 + found[1][0]
    name = payload[found.end() : end].decode()
    for each in messages:
        if each.name == name:
            return each, end
    raise Misfit("the name in front is that of no message")


def _descriptor(messages: Sequence[Descriptor], indexes: Sequence[int]) -> Descriptor:
    """The message at a path of indexes."""
    found = None
    for index in indexes:
        if not 0 <= index < len(messages):
            raise Misfit(f"message index {index} of {len(messages)} messages")
        found = messages[index]
        messages = found.nested_types
    return found


class _Mapping:
    """The JSON of messages of one pool."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool
        self._plans: dict[str, tuple[int, _Plan]] = {}
        self._special: Mapping[str, _Convert] = {
            **dict.fromkeys(("Timestamp", "Duration", "FieldMask"), _by_itself),
            **{f"{kind}Value": self._wrapped for kind in _WRAPPED},
            "Any": self._any,
            "Struct": self._struct,
            "ListValue": self._list_value,
            "Value": self._value,
        }

    def json(self, message: Any, limit: JsonLimit) -> Any:
        """A message. ValueError if it has no JSON; Undecodable as `JsonLimit` raises it."""
        name: str = message.DESCRIPTOR.full_name
        if name.startswith("google.protobuf.") and (special := self._special.get(name[16:])) is not None:
            limit.enter(2)
            value = special(message, limit)
            limit.leave()
            return value
        cost, plan = self._plans.get(name) or self._planned(message.DESCRIPTOR)
        limit.enter(cost)
        result = {}
        for field, key, presence, convert in plan:
            if presence:
                if not message.HasField(field):
                    continue
                limit.spend(key_cost(key))
            result[key] = convert(getattr(message, field), limit)
        limit.leave()
        return result

    def _planned(self, descriptor: Descriptor) -> tuple[int, _Plan]:
        plan = [(each.name, each.json_name, each.has_presence, self._field(each)) for each in descriptor.fields]
        cost = 2 + sum(key_cost(key) for _, key, presence, _ in plan if not presence)
        self._plans[descriptor.full_name] = cost, plan
        return cost, plan

    def _field(self, field: FieldDescriptor) -> _Convert:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return self._map(self._field(field.message_type.fields_by_name["value"]))
        single_value = self.json if field.message_type is not None else _scalar(field)
        return _repeated(single_value) if field.is_repeated else single_value

    def _map(self, convert: _Convert) -> _Convert:
        def of_map(values: Any, limit: JsonLimit) -> Any:
            limit.enter(2 + key_cost("") * len(values))
            result = {_key(key): convert(values[key], limit) for key in values}
            limit.leave()
            return result

        return of_map

    def _wrapped(self, message: Any, limit: JsonLimit) -> Any:
        return _scalar(message.DESCRIPTOR.fields_by_name["value"])(message.value, limit)

    def _any(self, message: Any, limit: JsonLimit) -> Any:
        if not message.type_url:
            return {}
        try:
            inner = GetMessageClass(self._pool.FindMessageTypeByName(message.type_url.rpartition("/")[2]))()
        except (KeyError, TypeError):
            raise Misfit("an Any of a type that the schema does not import") from None
        inner.ParseFromString(message.value)
        value = self.json(inner, limit)
        name: str = inner.DESCRIPTOR.full_name
        special = name.startswith("google.protobuf.") and name[16:] in self._special
        return {"@type": message.type_url, **({"value": value} if special else value)}

    def _struct(self, message: Any, limit: JsonLimit) -> Any:
        return self._map(self.json)(message.fields, limit)

    def _list_value(self, message: Any, limit: JsonLimit) -> Any:
        return _repeated(self.json)(message.values, limit)

    def _value(self, message: Any, limit: JsonLimit) -> Any:
        kind = message.WhichOneof("kind")
        if kind is None or kind == "null_value":
            return None
        value = getattr(message, kind)
        if kind == "number_value":
            return number(value)
        return value if kind in ("string_value", "bool_value") else self.json(value, limit)


_WRAPPED = ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")


def _by_itself(message: Any, limit: JsonLimit) -> Any:
    return limit.counted(message.ToJsonString())


def _repeated(convert: _Convert) -> _Convert:
    def of_list(values: Any, limit: JsonLimit) -> Any:
        limit.enter(2 + 2 * len(values))
        result = [convert(each, limit) for each in values]
        limit.leave()
        return result

    return of_list


def _scalar(field: FieldDescriptor) -> _Convert:
    if field.enum_type is not None:
        if field.enum_type.full_name == "google.protobuf.NullValue":
            return lambda _value, _limit: None
        names = {number: each.name for number, each in field.enum_type.values_by_number.items()}
        return lambda value, limit: limit.counted(names[value]) if value in names else value
    return _SCALARS.get(field.cpp_type, _as_it_is) if field.type != FieldDescriptor.TYPE_BYTES else _base64


def _as_it_is(value: Any, _limit: JsonLimit) -> Any:
    return value


def _base64(value: bytes, limit: JsonLimit) -> str:
    return limit.counted(base64(value))


def _key(key: str | bytes | int) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return str(key) if isinstance(key, int) else _text(key)


def _text(value: str | bytes, _limit: JsonLimit | None = None) -> str:
    if isinstance(value, bytes):  # parsing checks the strings of proto3 only
        raise Misfit("a string is not UTF-8")
    return value


_SCALARS: dict[int, _Convert] = {
    FieldDescriptor.CPPTYPE_STRING: _text,
    FieldDescriptor.CPPTYPE_INT64: lambda value, _limit: str(value),
    FieldDescriptor.CPPTYPE_UINT64: lambda value, _limit: str(value),
    FieldDescriptor.CPPTYPE_DOUBLE: lambda value, _limit: number(value),
    FieldDescriptor.CPPTYPE_FLOAT: lambda value, _limit: single(value),
}
