"""The least that sending costs in Python: kept sockets on epoll, one HMAC; no Kafka, no database, no retries.

python -m benchmarks.bare_loop URL REQUESTS CONCURRENCY [PAD]
"""

import hmac
import json
import select
import socket
import ssl
import sys
import time
from urllib.parse import SplitResult, urlsplit

from benchmarks.events import PAD, event

PIECE = 16_384
KEY = b"benchmark-secret"  # as rig.SECRET
SEND_BUFFER = 200_000  # bytes: enough to send a request of 64 KB in one call


def connect(place: SplitResult, context: ssl.SSLContext | None) -> socket.socket:
    """An open non-blocking connection; with a context its handshake is done."""
    each = socket.create_connection((place.hostname or "", place.port or 80))
    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    if context is not None:
        each = context.wrap_socket(each, server_hostname=place.hostname)
    each.setblocking(False)
    return each


def main(url: str, requests: int, concurrency: int, pad: int) -> None:
    """Sends so many requests and prints the CPU of each, in microseconds."""
    place = urlsplit(url)
    start = f"POST {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\ncontent-type: application/json\r\n".encode()
    body = json.dumps(event(0, pad)).encode()
    context = ssl.create_default_context() if place.scheme == "https" else None
    epoll, sockets = select.epoll(), {}
    for _ in range(concurrency):
        each = connect(place, context)
        sockets[each.fileno()] = each
        epoll.register(each.fileno(), select.EPOLLIN)
    free, sent, done, failed = list(sockets.values()), 0, 0, 0
    cpu, begin = time.process_time(), time.perf_counter()
    while done < requests:
        while free and sent < requests:
            signature = hmac.digest(KEY, body, "sha256").hex().encode()
            lines = b"webhook-id: bare_%d\r\nx-webhook-signature: %b\r\ncontent-length: %d\r\n" % (
                sent,
                signature,
                len(body),
            )
            request = b"%b%b\r\n%b" % (start, lines, body)
            if free.pop().send(request) != len(request):
                sys.exit("a request did not go out in one call")
            sent += 1
        for descriptor, _ in epoll.poll(1.0, 1024):
            each = sockets[descriptor]
            try:
                answer = each.recv(PIECE)
            except ssl.SSLWantReadError:  # a TLS session ticket
                continue
            failed += not (answer.startswith(b"HTTP/1.1 2") and answer.endswith(b"\r\n\r\n"))
            free.append(each)
            done += 1
    took, cpu = time.perf_counter() - begin, time.process_time() - cpu
    print(json.dumps({"per_second": requests / took, "cpu_us": cpu / requests * 1e6, "failed": failed}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else PAD)  # noqa: PLR2004
