"""The webhook receivers, each on a port of its own. All verify their requests, and some behave badly."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import orjson
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from consumer.http.server import listen
from consumer.ops.receiver import Reply, verify

OUTAGE = 6.0  # seconds
SLOW = 0.3  # seconds


class Seen(NamedTuple):
    """A verified request and the status of its answer, sent `latency` seconds after its event was published."""

    webhook_id: str
    status: int
    latency: float | None


@dataclass(slots=True)
class DemoReceiver:
    """One receiver and its requests. Only the server's thread writes them; others read."""

    name: str
    event_type: str
    character: str  # its behaviour in words
    behaviour: Callable[[float], Reply | None] | None  # by seconds since its first request; None: refuses connections
    url: str = ""
    subscription_id: int = 0
    published: int = 0  # events of its type that are in Kafka
    seen: list[Seen] = field(default_factory=list)
    first: tuple[Mapping[str, str], bytes] | None = None  # headers and body of the first request
    first_at: float = 0.0
    unverified: int = 0


def make_receivers() -> list[DemoReceiver]:
    """The receivers of the demo. All but two get the same events, so that each could hold up the others."""
    order = "order.placed"
    return [
        DemoReceiver("crm", "user.created", "answers at once", lambda _: Reply()),
        DemoReceiver("search", order, "answers at once", lambda _: Reply()),
        DemoReceiver("stock", order, f"slow: {SLOW * 1000:.0f} ms", lambda _: Reply(delay=SLOW)),
        DemoReceiver("billing", order, f"down {OUTAGE:.0f} s, then back", lambda s: Reply(503 if s < OUTAGE else 200)),
        DemoReceiver("partner", order, "never answers", lambda _: None),
        DemoReceiver("legacy", order, "refuses connections", None),
        DemoReceiver("retired", "user.deleted", "410: wants no more", lambda _: Reply(410)),
    ]


@contextmanager
def serving(receivers: list[DemoReceiver], secret: bytes, published_at: Mapping[int, float]) -> Iterator[None]:
    """Serve the receivers, and set their urls. `published_at`: monotonic time by an event's id."""
    by_port: dict[int, DemoReceiver] = {}
    with ExitStack() as parts:
        listening = []
        for receiver in receivers:
            place = parts.enter_context(listen("127.0.0.1", 0) if receiver.behaviour else socket.socket())
            if receiver.behaviour:
                listening.append(place)
            else:
                place.bind(("127.0.0.1", 0))  # without listening: connections are refused, and nobody gets the port
            by_port[place.getsockname()[1]] = receiver
            receiver.url = f"http://127.0.0.1:{place.getsockname()[1]}/webhooks"
        app = partial(_answer, by_port, secret, published_at)
        server = uvicorn.Server(uvicorn.Config(app, interface="asgi3", lifespan="off", ws="none", log_level="critical"))
        thread = threading.Thread(target=server.run, args=(listening,), daemon=True)
        thread.start()

        def stop() -> None:
            server.should_exit = server.force_exit = True
            thread.join(5)

        parts.callback(stop)
        yield


async def _answer(
    by_port: Mapping[int, DemoReceiver],
    secret: bytes,
    published_at: Mapping[int, float],
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    request, receiver, at = Request(scope, receive), by_port[scope["server"][1]], time.monotonic()
    headers, body = request.headers, await request.body()
    if receiver.behaviour is None or verify(headers, body, [secret], time.time()) is not None:
        receiver.unverified += 1
        return await Response(status_code=401)(scope, receive, send)
    if receiver.first is None:
        receiver.first, receiver.first_at = (headers, body), at
    reply = receiver.behaviour(at - receiver.first_at)
    if reply is None:
        receiver.seen.append(Seen(headers["webhook-id"], 0, None))
        await receive()  # returns when the sender hangs up
        return None
    await asyncio.sleep(reply.delay)
    published = published_at.get(orjson.loads(body)["id"])
    latency = None if published is None else time.monotonic() - published
    receiver.seen.append(Seen(headers["webhook-id"], reply.status, latency))
    return await Response(status_code=reply.status)(scope, receive, send)
