"""An HTTP/2 receiver on the library h2."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset, WindowUpdated
from h2.exceptions import ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from tests.sending.conftest import Listener, Net


def raw(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    """Any frame, also one that no library would write."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + number.to_bytes(4) + payload


def goaway(last: int, code: int = 0) -> bytes:
    """The frame by which a receiver ends the connection."""
    return GoAwayFrame(0, last, code, b"debug").serialize()


class Got(NamedTuple):
    """A complete request, with its connection and stream."""

    peer: "Peer"
    stream: int
    headers: dict[str, str]
    body: bytes

    def answer(self, status: int = 204, body: bytes = b"") -> None:
        """Answer the request, from any thread."""
        pieces = [body[at : at + 16_384] for at in range(0, len(body), 16_384)]
        with contextlib.suppress(StreamClosedError), self.peer.speaking() as h2:
            h2.send_headers(self.stream, [(":status", str(status))], end_stream=not body)
            for piece in pieces:
                h2.send_data(self.stream, piece, end_stream=piece is pieces[-1])

    def reset(self, code: int) -> None:
        """End the request without an answer."""
        with self.peer.speaking() as h2:
            h2.reset_stream(self.stream, code)


class Peer:
    """The receiver's side of one connection."""

    def __init__(self, connection: Any, settings: dict[SettingCodes, int]) -> None:
        self.connection = connection
        self.resets: list[tuple[int, int]] = []
        self.protocol = connection.selected_alpn_protocol()
        self._lock = threading.RLock()
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self._h2.local_settings = Settings(client=False, initial_values=settings)
        self._open: dict[int, tuple[dict[str, str], bytearray]] = {}

    @contextlib.contextmanager
    def speaking(self) -> Iterator[H2Connection]:
        """Within this context, frames that h2 queues are sent at the end."""
        with self._lock, contextlib.suppress(OSError):
            yield self._h2
            self.connection.sendall(self._h2.data_to_send())

    def say(self, data: bytes) -> None:
        """Send bytes that h2 would not produce."""
        with self._lock, contextlib.suppress(OSError):
            self.connection.sendall(data)

    def serve(self, behave: Callable[[Got], None], *, acknowledges: bool) -> None:
        """Serve until the client disconnects or breaks the protocol."""
        with self.speaking() as h2:
            h2.initiate_connection()
        while data := self.connection.recv(65536):
            with self._lock:
                events = self._h2.receive_data(data)
            whole = []
            with self.speaking() as h2:
                for event in events:
                    whole += self._on(h2, event, acknowledges=acknowledges)
            for got in whole:
                behave(got)

    def _on(self, h2: H2Connection, event: object, *, acknowledges: bool) -> list[Got]:
        if isinstance(event, RequestReceived):
            self._open[event.stream_id] = dict(event.headers), bytearray()  # type: ignore[arg-type]
        elif isinstance(event, DataReceived):
            self._open[event.stream_id][1].extend(event.data or b"")
            if acknowledges:
                h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
        elif isinstance(event, StreamEnded):
            headers, body = self._open.pop(event.stream_id)
            return [Got(self, event.stream_id, headers, bytes(body))]
        elif isinstance(event, StreamReset):
            self.resets.append((event.stream_id, int(event.error_code)))
        else:
            assert not isinstance(event, WindowUpdated) or event.delta
        return []


class Http2Receiver(Listener):
    """Listens on loopback with TLS and offers HTTP/2. Behaviours run on their connection's thread."""

    def __init__(
        self,
        behave: Callable[[Got], None],
        tls: ssl.SSLContext,
        *,
        settings: dict[SettingCodes, int] | None = None,
        acknowledges: bool = True,
    ) -> None:
        tls.set_alpn_protocols(["h2", "http/1.1"])
        self.got: list[Got] = []
        self.peers: list[Peer] = []
        self._behave = behave
        self._tls = tls
        self._settings = settings or {}
        self._acknowledges = acknowledges
        super().__init__("https")

    def _serve(self, raw: socket.socket) -> None:
        with self._tls.wrap_socket(raw, server_side=True) as connection:
            peer = Peer(connection, self._settings)
            self.peers.append(peer)
            try:
                peer.serve(self._on_request, acknowledges=self._acknowledges)
            except ProtocolError as fault:
                self.faults.append(fault)

    def _on_request(self, got: Got) -> None:
        self.got.append(got)
        self._behave(got)


def cut(peer: Peer) -> None:
    """End the connection abruptly. SSLSocket's own shutdown would leave TLS, and the rest be read in the clear."""
    socket.socket.shutdown(peer.connection, socket.SHUT_RDWR)


def receive2(net: Net, behave: Callable[[Got], None] = Got.answer, **options: Any) -> Http2Receiver:
    """A receiver that offers HTTP/2 and answers 204, or behaves like this."""
    return net.add(Http2Receiver(behave, net.tls(), **options))
