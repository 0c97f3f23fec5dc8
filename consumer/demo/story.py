"""The steps of the demo, in order. Ctrl-C and SIGTERM end it at any point, and nothing is left behind."""

import io
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import NamedTuple

from sqlalchemy import Engine

from consumer.config.environment import load
from consumer.config.settings import DatabaseSettings
from consumer.crypto.keys import parse_secret
from consumer.database import migrations
from consumer.database.engine import create_engine
from consumer.demo.figures import beside, figures, stored
from consumer.demo.kafka import EmbeddedKafka
from consumer.demo.process import WorkerProcess
from consumer.demo.receivers import Receiver, ReceiverServer, make_receivers
from consumer.demo.screen import Screen
from consumer.demo.summary import REAL_THING, Evidence, claims, left_alone
from consumer.errors import WebhooksError
from consumer.subscriptions import repository

TOPIC, DEAD_LETTER_TOPIC, GROUP = "events", "webhooks.dead-letters", "webhooks"
SECRET = "whsec_ZGVtby1yZWNlaXZlcnMtaW4tdGhpcy1wcm9jZXNz"  # noqa: S105 (it signs for receivers in this process alone)
# The default schedule takes three days; this one shows the same in seconds: one retry from memory, the others parked.
SCHEDULE = (1, 2, 4)
FIRST = (123, b'{"id": 123, "name": "Jane Doe"}')
UNDECODABLE = b'{"id": 124, "name": "Joh'

RATE = 400  # events a second
CALM, STORM = 2 * RATE, 8 * RATE  # events: for crm alone, then of all types
MIX = ("order.placed", "user.created", "order.placed", "user.deleted", "order.placed", "user.created", "invoice.paid")
TICK = 0.01  # seconds
SWITCH = 0.0005  # seconds that a thread may hold the interpreter: receivers must not wait while the table is drawn
LOOK = 0.5  # seconds between looks at the database
LONGEST_START = 25.0  # seconds until the first event arrives; Kafka's wait for other members of the group takes 3
LONGEST = 45.0  # seconds from the start; the demo then stops waiting and reports the deliveries still owed


class Stopped(Exception):
    """A signal has arrived."""


class Database(NamedTuple):
    """An empty database for the demo: its URL, and its name in the output."""

    url: str
    name: str


class Planned(NamedTuple):
    """An event of the stream, due `at` seconds after its start."""

    at: float
    number: int
    type: str


class Parts(NamedTuple):
    """The running parts of the demo."""

    screen: Screen
    kafka: EmbeddedKafka
    engine: Engine
    worker: WorkerProcess
    receivers: Sequence[Receiver]
    published_at: dict[int, float]  # monotonic, by an event's number; without the first, which waited for the worker
    started: float
    breathe: Callable[[], None]  # a short sleep; raises Stopped, or WebhooksError if the worker has ended


def main(database: Database | None = None) -> None:
    """Run the demo, on SQLite if no database is given.

    WebhooksError if the worker ended, or if the figures contradict a claim.
    """
    sys.setswitchinterval(SWITCH)
    stopped: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        stopped.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # for a terminal that cannot show ✓
    with Screen() as screen:
        try:
            with ExitStack() as parts:
                held = _play(screen, parts, stopped, database)
        except Stopped:
            screen.say("Stopped; no process and no file is left.")
            return
    if not held:
        raise WebhooksError("the figures do not support the claims marked with ✗")


def _play(screen: Screen, parts: ExitStack, stopped: list[int], database: Database | None) -> bool:
    started = time.monotonic()
    screen.say("kafka-webhooks demo: Kafka, database, worker and receivers on this machine.\n")
    stage = _set_up(screen, parts, stopped, started, database)
    _first_event(stage)
    calm_ended = _stream(stage, "calm: crm alone", list(plan(CALM, ["user.created"], 1000)))
    screen.done(f"{CALM:,} events for crm alone, to compare with; now the badly behaved receivers get theirs, too")
    _stream(stage, "storm: all receivers", list(plan(STORM, MIX, 1000 + CALM)))
    _last_deliveries(stage)
    return _tell(stage, calm_ended)


def _set_up(screen: Screen, parts: ExitStack, stopped: list[int], started: float, database: Database | None) -> Parts:
    # 1. A database, with the tables of the migrations.
    folder = Path(parts.enter_context(TemporaryDirectory(prefix="kafka-webhooks-demo-")))
    database = database or Database(f"sqlite:///{folder / 'demo.db'}", "SQLite in a temporary folder")
    engine = create_engine(load(DatabaseSettings, {"DATABASE_URL": database.url}))
    parts.callback(engine.dispose)
    migrations.upgrade(engine)
    screen.done(f"{database.name}, its tables made by the Alembic migrations")

    # 2. Receivers, and a subscription for each.
    receivers, published_at = make_receivers(), dict[int, float]()
    parts.enter_context(closing(ReceiverServer(receivers, parse_secret(SECRET), published_at)))
    for receiver in receivers:
        receiver.subscription_id = repository.add(engine, receiver.url, receiver.event_type)
    screen.done(f"{len(receivers)} receivers on ports of 127.0.0.1, a subscription for each; some behave badly")

    # 3. Kafka, and the worker as users run it.
    kafka = parts.enter_context(closing(EmbeddedKafka()))
    kafka.create(TOPIC)
    kafka.create(DEAD_LETTER_TOPIC)
    screen.done(f"Kafka, embedded, at {kafka.servers}")
    worker = WorkerProcess(_settings(database.url, kafka.servers), folder)
    parts.callback(worker.stop)
    screen.done(f"a worker: the command `kafka-webhooks run` as process {worker.pid}")

    def breathe() -> None:
        time.sleep(TICK)
        if stopped:
            raise Stopped
        worker.check()
        kafka.poll()

    return Parts(screen, kafka, engine, worker, receivers, published_at, started, breathe)


def _settings(url: str, servers: str) -> dict[str, str]:
    return {
        "DATABASE_URL": url,
        "KAFKA_BOOTSTRAP_SERVERS": servers,
        "KAFKA_TOPICS": TOPIC,
        "KAFKA_GROUP_ID": GROUP,
        "KAFKA_DEAD_LETTER_TOPIC": DEAD_LETTER_TOPIC,
        "WEBHOOK_SECRET": SECRET,
        "WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
        "WEBHOOK_TIMEOUT": "1s",
        "WEBHOOK_RETRY_SCHEDULE": ",".join(f"{seconds}s" for seconds in SCHEDULE),
        "WEBHOOK_RETRY_JITTER": "0",
        "WEBHOOK_RETRY_IN_MEMORY": f"{SCHEDULE[0]}s",
        "WEBHOOK_DRAIN": "2s",
        "KAFKA_FETCH_WAIT_MAX_MS": "5",  # the mock cluster answers a fetch when its wait ends, not when a record comes
        "OPS_PORT": "0",
        "LOG_LEVEL": "INFO",
    }


def plan(count: int, types: Sequence[str], number: int) -> Iterator[Planned]:
    """`count` events at RATE, their types in turn, numbered from `number`."""
    for index in range(count):
        yield Planned(index / RATE, number + index, types[index % len(types)])


def _publish(stage: Parts, number: int, event_type: str, value: bytes) -> None:
    stage.kafka.publish(TOPIC, value, key=b"%d" % number, event_type=event_type)
    for receiver in stage.receivers:
        receiver.published += receiver.event_type == event_type


def _first_event(stage: Parts) -> None:
    number, value = FIRST
    _publish(stage, number, "user.created", value)
    crm = next(receiver for receiver in stage.receivers if receiver.event_type == "user.created")
    stage.screen.waiting("the worker joins its consumer group; Kafka waits 3 s for other members")
    while crm.first is None:
        stage.breathe()
        if crm.problem:
            raise WebhooksError(f"the first event's signature does not verify: {crm.problem}")
        if time.monotonic() - stage.started > LONGEST_START:
            raise WebhooksError(f"the first event did not arrive; the worker's log ends:\n{stage.worker.log_tail()}")
    stage.screen.request(
        crm.first,
        "user.created, the first event, as it arrived at the receiver crm",
        "crm has verified both signatures",
    )


def _stream(stage: Parts, phase: str, planned: Sequence[Planned]) -> float:
    """Publish a part of the stream; the storm includes an undecodable record. Returns when it ended (monotonic)."""
    begin, done = time.monotonic(), 0
    before = 1 + len(stage.published_at)
    rows, next_look = stored(stage.engine), 0.0
    while done < len(planned):
        stage.breathe()
        now = time.monotonic()
        while done < len(planned) and planned[done].at <= now - begin:
            event = planned[done]
            body = {"id": event.number, "type": event.type, "created_at": round(time.time(), 3)}
            stage.published_at[event.number] = time.monotonic()
            _publish(stage, event.number, event.type, json.dumps(body).encode())
            done += 1
            if done == STORM // 2:
                stage.kafka.publish(TOPIC, UNDECODABLE, key=b"124")
        if now >= next_look:
            rows, next_look = stored(stage.engine), now + LOOK
        if stage.screen.due():
            stage.screen.show(
                figures(stage.receivers, rows), phase, before + done, 1 + CALM + STORM, now - stage.started
            )
    stage.kafka.flush()
    return time.monotonic()


def _last_deliveries(stage: Parts) -> None:
    """Wait until all offsets are committed and nothing is owed, except to receivers left alone; or until LONGEST."""
    total, next_look = 1 + len(stage.published_at), 0.0
    while (now := time.monotonic()) - stage.started < LONGEST:
        stage.breathe()
        if now < next_look:
            continue
        next_look = now + LOOK
        rows = figures(stage.receivers, stored(stage.engine))
        if stage.screen.due():
            stage.screen.show(rows, "all published: the last retries", total, total, now - stage.started)
        if any(row.owed and not left_alone(row) for row in rows if row.enabled):
            continue
        committed, end = stage.kafka.progress(GROUP, TOPIC)
        if committed == end:
            return


def _tell(stage: Parts, calm_ended: float) -> bool:
    exit_status = stage.worker.stop()
    committed, end = stage.kafka.progress(GROUP, TOPIC)
    rows = figures(stage.receivers, stored(stage.engine))
    calm, storm = beside([stage.receivers[0]], calm_ended)
    evidence = Evidence(
        rows=rows,
        events=1 + len(stage.published_at),
        committed=committed,
        end=end,
        dead_letters=stage.kafka.dead_letters(DEAD_LETTER_TOPIC),
        undecodable=UNDECODABLE,
        calm=calm,
        beside=storm,
        attempts=len(SCHEDULE) + 1,
        exit_status=exit_status,
    )
    stage.screen.final(rows)
    found = claims(evidence)
    for claim in found:
        stage.screen.done(claim.text, good=claim.holds)
    stage.screen.say(f"\nThat took {time.monotonic() - stage.started:.0f} s. For the real thing, copy these lines:\n")
    stage.screen.commands(REAL_THING)
    return all(claim.holds is not False for claim in found)
