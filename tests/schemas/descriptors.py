"""Protobuf descriptors made in code, as `protoc` makes them from a .proto file."""

from base64 import b64encode
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

TYPES = {name.removeprefix("TYPE_").lower(): number for name, number in FieldDescriptorProto.Type.items()}
SCALARS = sorted(TYPES.keys() - {"group", "message", "enum"})
WELL_KNOWN = (
    "any", "duration", "empty", "field_mask", "struct", "timestamp", "wrappers",
)  # fmt: skip


def file_of(name: str, package: str = "shop", *imports: str) -> FileDescriptorProto:
    """An empty file with the syntax proto3."""
    return FileDescriptorProto(name=name, package=package, syntax="proto3", dependency=imports)


def field(message: DescriptorProto, name: str, kind: str, *, repeated: bool = False, optional: bool = False) -> None:
    """Add a field; `kind` is a scalar, or the full name of a message (`.shop.Order`) or enum (`enum .shop.Size`)."""
    new = message.field.add(name=name, number=len(message.field) + 1, label=3 if repeated else 1)
    if kind in TYPES:
        new.type = TYPES[kind]
    else:
        new.type = TYPES["enum"] if kind.startswith("enum ") else TYPES["message"]
        new.type_name = kind.removeprefix("enum ")
    if optional:
        new.proto3_optional = True
        new.oneof_index = len(message.oneof_decl)
        message.oneof_decl.add(name=f"_{name}")


def map_field(message: DescriptorProto, path: str, name: str, key: str, value: str) -> None:
    """Add a map field; `path` is the message's full name."""
    entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
    entry.options.map_entry = True
    field(entry, "key", key)
    field(entry, "value", value)
    field(message, name, f"{path}.{entry.name}", repeated=True)


def everything() -> FileDescriptorProto:
    """A file whose first message has a field of each kind. Its second is `Other`, with a nested `Inner`."""
    file = file_of("everything.proto", "shop", *(f"google/protobuf/{each}.proto" for each in WELL_KNOWN))
    message = file.message_type.add(name="Everything")
    for kind in SCALARS:
        field(message, f"a_{kind}", kind)
        field(message, f"some_{kind}s", kind, repeated=True)
        field(message, f"maybe_{kind}", kind, optional=True)
    size = file.enum_type.add(name="Size")
    size.value.add(name="SMALL", number=0)
    size.value.add(name="LARGE", number=1)
    field(message, "size", "enum .shop.Size")
    field(message, "sizes", "enum .shop.Size", repeated=True)
    field(message, "inner", ".shop.Everything")
    field(message, "inners", ".shop.Everything", repeated=True)
    for key in ("string", "bool", "int32", "uint64"):
        map_field(message, ".shop.Everything", f"by{key}", key, "int64")
    map_field(message, ".shop.Everything", "messages", "string", ".shop.Everything")
    for kind in ("Timestamp", "Duration", "FieldMask", "Struct", "Value", "ListValue", "Any", "Empty"):
        field(message, f"the_{kind.lower()}", f".google.protobuf.{kind}")
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes"):
        field(message, f"wrapped_{kind.lower()}", f".google.protobuf.{kind}Value")
    field(message, "nothing", "enum .google.protobuf.NullValue")
    other = file.message_type.add(name="Other")
    field(other, "name", "string")
    field(other.nested_type.add(name="Inner"), "size", "enum .shop.Size")
    return file


def text_of(file: FileDescriptorProto) -> str:
    """The descriptor as a registry returns it for `format=serialized`."""
    return b64encode(file.SerializeToString()).decode()


def class_of(name: str, *files: FileDescriptorProto) -> Any:
    """The class of a message in a descriptor pool of its own, with all of Protobuf's well-known files."""
    from google.protobuf import (  # noqa: PLC0415 (the pool of this call)
        any_pb2,
        duration_pb2,
        empty_pb2,
        field_mask_pb2,
        struct_pb2,
        timestamp_pb2,
        wrappers_pb2,
    )

    pool = DescriptorPool()
    for module in (any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    for file in files:
        pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName(name))
