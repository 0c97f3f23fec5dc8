"""`kafka-webhooks run`: one worker, from the wait for the database to the last commit, and its own port.

The port serves /metrics, /healthz (does the loop turn?) and /readyz (what is it waiting for?).
"""

import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from queue import SimpleQueue
from types import FrameType
from typing import NamedTuple

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from consumer import __version__
from consumer.config.settings import OpsSettings, SchemaSettings, TraceSettings, WorkerSettings
from consumer.database import migrations
from consumer.database.charset import shortcoming
from consumer.database.engine import DatabaseThread, create_engine
from consumer.errors import DatabaseUnavailable, WebhooksError
from consumer.http.server import BackgroundServer, listen
from consumer.intake.mapping_file import mappings_of
from consumer.loop.backoff import seconds_after
from consumer.schemas.wire_format import Decode, SchemaId
from consumer.telemetry.build import BUILD
from consumer.telemetry.metrics import Metrics, Readings, registry
from consumer.telemetry.tracer import Tracer
from consumer.worker.wiring import WorkerParts
from consumer.worker.worker import Worker

log = structlog.get_logger(__name__)

COLLECT_EVERY = (50_000, 20, 50)  # allocations; the default of 700 collects each 50 deliveries, 8 µs for each
BACK_OFF = (0.5, 5.0)  # seconds between two looks for the database: the first wait, the longest

# Those that end a worker in order. `nohup` has SIGHUP, that of a terminal that closes, ignored: so it is then.
STOPPING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    STOPPING -= {signal.SIGHUP}
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


def listener_of(ops: OpsSettings) -> socket.socket | None:
    """The listening port for metrics and probes. None if it is 0, or, with a warning, if it is taken."""
    if ops.ops_port == 0:
        return None
    try:
        return listen(ops.ops_host, ops.ops_port)
    except WebhooksError as error:
        log.warning("no metrics and no probes", reason=str(error), change="OPS_PORT (0 turns them off)")
        return None


class Service:
    """A worker, and the wait for the database before it: a worker that cannot find subscriptions joins no group."""

    def __init__(self, listener: socket.socket | None = None, turned: Callable[[float], None] = lambda _: None) -> None:
        """Serve metrics and probes on `listener`; without one, on the port that the settings name.

        `turned` gets the time of each turn of the loop (monotonic seconds).
        """
        self._turned = turned
        self._listener = listener
        self._worker: Worker | None = None
        self._waiting_for = "starting"
        self._metrics = Metrics()
        self._server: BackgroundServer | None = None

    def run(self, settings: WorkerSettings) -> None:
        """Consume until SIGTERM, SIGINT or SIGHUP, at any time.

        Raises FatalKafkaError, and SettingsError for mistakes in the mappings and settings that Kafka's client refuses.
        """
        kafka, topics, schemas, database, delivery, ops, traces, _ = settings
        mapped = mappings_of(kafka)
        for number in STOPPING:
            signal.signal(number, self._stop)
        log.info("starting", version=__version__, build=BUILD, group=kafka.group_id, topics=list(topics.topics))
        if (listener := self._listener or listener_of(ops)) is not None:
            app = create_app(self._status, registry(self._metrics, self._readings))
            self._server = BackgroundServer(app, listener, "health")
        tracer, load_schema = _tracer(traces), _load_schema(schemas)
        try:
            self._await_database(create_engine(database))
            self._worker = Worker(
                partial(
                    WorkerParts,
                    kafka,
                    topics.topics,
                    database,
                    delivery,
                    self._metrics,
                    mapped=mapped,
                    tracer=tracer,
                    load_schema=load_schema,
                ),
                self._turned,
            )
            # Objects made so far stay, so the collector need not walk them. Deliveries are freed without a collection.
            gc.freeze()
            gc.set_threshold(*COLLECT_EVERY)
            self._worker.run()
        finally:
            if tracer is not None:
                tracer.close()
            if self._server is not None:
                self._server.close()
        log.info("stopped")

    def _await_database(self, engine: Engine) -> None:
        # On a thread: a signal's handler waits while the main one is in a driver, half a minute for a lock of SQLite.
        thread, outcomes = DatabaseThread("start", lambda done: done()), SimpleQueue[str | None | Exception]()
        for failures in count(1):
            thread.submit(partial(_look, engine), outcomes.put)
            reason = outcomes.get()
            if isinstance(reason, DatabaseUnavailable):
                reason = f"database: {reason}"
            if isinstance(reason, Exception):
                raise reason
            if reason is None:
                thread.close()
                return
            if reason != self._waiting_for:
                log.warning("waiting for the database", reason=reason)
            self._waiting_for = reason
            time.sleep(seconds_after(failures, *BACK_OFF))

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        if self._worker is None:
            os._exit(0)  # nothing is taken in yet; an exception here could surface inside a driver's callback
        self._worker.stop()

    def _status(self) -> LoopState:
        if self._worker is None:
            return LoopState(time.monotonic(), [self._waiting_for])
        return LoopState(self._worker.turned_at, self._worker.reasons())

    def _readings(self) -> Readings:
        found = self._worker.readings() if self._worker is not None else Readings()
        return found if self._server is None else found._replace(ops_closed=self._server.cut)


def _look(engine: Engine) -> str | None:
    """Why a worker cannot use the tables yet; None if it can."""
    if (fault := migrations.state(engine).fault) is not None:
        return fault
    if (lacks := shortcoming(engine)) is not None:
        log.warning("the database cannot hold all texts", reason=lacks)
    engine.dispose()
    return None


def load_extras(settings: WorkerSettings) -> None:
    """Import what `Service.run` would import for these settings."""
    if settings.traces.enabled:
        from consumer.telemetry import tracing  # noqa: F401, PLC0415 (an extra, which takes 0.2 s to import)
    if settings.schemas.url is not None:
        from consumer.schemas import registry  # noqa: F401, PLC0415 (an extra)


def _tracer(settings: TraceSettings) -> Tracer | None:
    if not settings.enabled:
        return None
    from consumer.telemetry.tracing import OpenTelemetryTracer  # noqa: PLC0415 (an extra, which takes 0.2 s to import)

    return OpenTelemetryTracer()


def _load_schema(settings: SchemaSettings) -> Callable[[SchemaId], Decode] | None:
    if settings.url is None:
        return None
    from consumer.schemas.registry import Registry  # noqa: PLC0415 (an extra)

    return Registry(settings).decoder
