"""Compiles .proto files with protoc, in a process of its own: a text may exhaust its stack or its time. Blocking."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

_TIMEOUT = 30.0  # seconds


def compiled(
    texts: Mapping[str, str], known: Sequence[FileDescriptorProto], wanted: str
) -> Sequence[FileDescriptorProto]:
    """The descriptors of `wanted` and of all that it imports, each after its imports.

    `texts` are files by name, `known` are compiled ones; the first of a name counts. ValueError: protoc refuses one.
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
                timeout=_TIMEOUT, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ValueError(f"protoc takes more than {_TIMEOUT:g} s for it") from None
    if ran.returncode:
        why = ran.stderr.decode(errors="replace").partition("\n")[0]
        raise ValueError(f"protoc refuses its text: {why or f'exit status {ran.returncode}'}")
    files: Sequence[FileDescriptorProto] = FileDescriptorSet.FromString(ran.stdout).file
    return files
