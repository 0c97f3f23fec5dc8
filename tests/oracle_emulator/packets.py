"""TNS packets on one connection: data, and the markers of a break."""

import contextlib
import socket
import struct

from tests.oracle_emulator.wire import Writer

CONNECT, ACCEPT, REFUSE, DATA, RESEND, MARKER = 1, 2, 4, 6, 11, 12
UNIT = 8192  # size of the session data unit
_BREAK, _RESET = 1, 2
_HEADER = 8
_FLAGS = 2
_END_OF_FILE, _LAST_OF_ANSWER = 0x40, 0x2000
_END_OF_RESPONSE = 29


class Disconnect(Exception):
    """The connection is over: the client has gone, or is to be dropped."""


class Break(Exception):
    """The client interrupts the call that is under way."""


class Channel:
    """A connection to one client. Only the session's own thread may use it, except `kill`."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.long_lengths = False  # packets after ACCEPT have long lengths
        self.marks_end = False  # an answer's last packet marks its end

    def receive(self) -> tuple[int, bytes]:
        """The next packet's type and content."""
        header = self._exactly(_HEADER)
        size: int = struct.unpack(">I" if self.long_lengths else ">H", header[: 4 if self.long_lengths else 2])[0]
        return header[4], self._exactly(size - _HEADER)

    def send(self, kind: int, payload: bytes) -> None:
        """Sends one packet."""
        size = len(payload) + _HEADER
        length = struct.pack(">I", size) if self.long_lengths else struct.pack(">HH", size, 0)
        self.connection.sendall(length + bytes([kind, 0, 0, 0]) + payload)

    def data(self) -> bytes:
        """The content of the client's next data packet. Raises Break if the client interrupts instead."""
        while True:
            kind, body = self.receive()
            if kind == MARKER:
                if body[2] != _RESET:  # a reset without a break is only acknowledged
                    raise Break
            elif kind != DATA:
                raise Disconnect(f"a packet of type {kind}")
            elif int.from_bytes(body[:_FLAGS], "big") & _END_OF_FILE:
                raise Disconnect
            else:
                return body[_FLAGS:]

    def answer(self, message: Writer) -> None:
        """Sends a whole answer, in as many packets as needed."""
        if self.marks_end:
            message.byte(_END_OF_RESPONSE)
        room = UNIT - _HEADER - _FLAGS
        for start in range(0, max(len(message), 1), room):
            is_last = start + room >= len(message)
            flags = _LAST_OF_ANSWER if self.marks_end and is_last else 0
            self.send(DATA, struct.pack(">H", flags) + message[start : start + room])

    def interrupted(self) -> bool:
        """Reads one packet in the middle of a call. True for a break; False if the client has gone."""
        with contextlib.suppress(Disconnect, OSError):
            return self.receive()[0] == MARKER
        return False

    def acknowledge_break(self) -> None:
        """Runs the handshake that follows a client's break."""
        self._mark(_BREAK)
        self._await_reset()
        self._mark(_RESET)

    def announce_error(self) -> None:
        """Breaks and waits for the client's reset, as a real server does before it answers with an error."""
        self._mark(_BREAK)
        self._mark(_RESET)
        self._await_reset()

    def kill(self) -> None:
        """Ends the connection from any thread. The thread that reads from it notices, and closes the socket."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Ends the connection and closes the socket; for the reading thread."""
        self.kill()
        self.connection.close()

    def _mark(self, kind: int) -> None:
        self.send(MARKER, bytes([1, 0, kind]))

    def _await_reset(self) -> None:
        while True:
            kind, body = self.receive()
            if kind == MARKER and body[2] == _RESET:
                return

    def _exactly(self, length: int) -> bytes:
        received = bytearray()
        while len(received) < length:
            part = self.connection.recv(length - len(received))
            if not part:
                raise Disconnect
            received += part
        return bytes(received)
