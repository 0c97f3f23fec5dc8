"""Makes TLS 1.3 records of any kind in the name of a receiver (RFC 8446), from the secrets that OpenSSL logs."""

import contextlib
import ssl
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

_HANDSHAKE, _DATA = 22, 23  # content types (5.1)
_TICKET = bytes.fromhex("0400000f 00001c20 00000000 0100 0001 78 0000")  # lifetime, age, nonce, ticket (4.6.1)


class Records:
    """The receiver's records. `start` once its handshake is complete, with TLS_AES_256_GCM_SHA384."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._secret = b""
        self._number = 0

    @classmethod
    @contextlib.contextmanager
    def of(cls, context: ssl.SSLContext) -> Iterator[Self]:
        """The records of the one handshake made in this block. The context makes no tickets of its own."""
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        with tempfile.TemporaryDirectory() as folder:
            context.keylog_filename = f"{folder}/keys"
            yield cls(Path(folder, "keys"))

    def start(self) -> None:
        """Read the receiver's secret."""
        lines = self._log.read_text().splitlines()
        self._secret = next(bytes.fromhex(line.split()[2]) for line in lines if line.startswith("SERVER_TRAFFIC"))

    def make(self, kind: str, data: bytes = b"") -> bytes:
        """A record: "ticket" (600 of them), "key update" (or "key update, answered" by the client), or "data"."""
        if kind == "ticket":
            return self._record(_HANDSHAKE, _TICKET * 600)
        if kind.startswith("key update"):
            record = self._record(_HANDSHAKE, b"\x18\0\0\1" + bytes([kind.endswith("answered")]))
            self._secret, self._number = self._derived(b"traffic upd", 48), 0
            return record
        return self._record(_DATA, data)

    def _record(self, kind: int, data: bytes) -> bytes:
        head = b"\x17\x03\x03" + struct.pack(">H", len(data) + 17)
        start = self._derived(b"iv", 12)
        nonce = bytes(one ^ other for one, other in zip(start, self._number.to_bytes(12), strict=True))
        self._number += 1
        return head + AESGCM(self._derived(b"key", 32)).encrypt(nonce, data + bytes([kind]), head)

    def _derived(self, label: bytes, size: int) -> bytes:
        label = b"tls13 " + label
        info = struct.pack(">HB", size, len(label)) + label + b"\0"
        return HKDFExpand(hashes.SHA384(), size, info).derive(self._secret)
