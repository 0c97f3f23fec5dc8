"""A worker's own port: /metrics, /healthz (does the loop turn?), /readyz (what is it waiting for?)."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from consumer.errors import WebhooksError
from consumer.http.server import BackgroundServer, listen

log = structlog.get_logger(__name__)

STALLED = 30.0  # seconds without a turn; far beyond the loop's longest wait, below Kafka's max.poll.interval.ms (300 s)


class LoopState(NamedTuple):
    """The loop's state. `turned_at` is a time of the clock that `create_app` is given."""

    turned_at: float
    reasons: Sequence[str]


def create_app(
    status: Callable[[], LoopState], registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic
) -> Starlette:
    """`status` is called in the server's thread and must not block."""

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    def stall(turned_at: float) -> list[str]:
        idle = clock() - turned_at
        return [f"the loop has not turned for {idle:.0f} s"] if idle >= STALLED else []

    async def healthz(_: Request) -> Response:
        reasons = stall(status().turned_at)
        return JSONResponse({"alive": not reasons, "reasons": reasons}, 503 if reasons else 200)

    async def readyz(_: Request) -> Response:
        now = status()
        reasons = [*stall(now.turned_at), *now.reasons]
        return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    return Starlette(routes=[Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)])


def serve(
    host: str, port: int, status: Callable[[], LoopState], registry: CollectorRegistry
) -> BackgroundServer | None:
    """Serve in a thread of its own until `close()`. None if the port is 0, or, with a warning, if it is taken."""
    if port == 0:
        return None
    try:
        listener = listen(host, port)
    except WebhooksError as error:
        log.warning("no metrics and no probes", reason=str(error), change="OPS_PORT (0 turns them off)")
        return None
    return BackgroundServer(create_app(status, registry), listener, "health")
