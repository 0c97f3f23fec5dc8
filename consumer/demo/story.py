"""The steps of the demo, in order. Ctrl-C and SIGTERM end it at any point, and nothing is left behind."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory

from consumer.config.environment import load
from consumer.config.settings import DatabaseSettings, KafkaSettings
from consumer.crypto.keys import parse_secret
from consumer.database import migrations
from consumer.database.engine import create_engine
from consumer.demo.broker import EmbeddedKafka
from consumer.demo.figures import UNDECODABLE, claims, figures
from consumer.demo.receivers import make_receivers, serving
from consumer.demo.screen import Screen
from consumer.errors import WebhooksError
from consumer.ops import dead_letters
from consumer.ops.cluster import group_lag
from consumer.subscriptions import repository

SECRET = "whsec_ZGVtby1yZWNlaXZlcnMtaW4tdGhpcy1wcm9jZXNz"  # noqa: S105 (it signs for receivers in this process alone)
# The default schedule takes three days; this one shows the same in seconds: one retry from memory, the others parked.
SETTINGS = {
    "KAFKA_TOPICS": "events",
    "KAFKA_DEAD_LETTER_TOPIC": "webhooks.dead-letters",
    "KAFKA_FETCH_WAIT_MAX_MS": "5",  # the mock cluster answers a fetch when its wait ends, not when a record comes
    "WEBHOOK_SECRET": SECRET,
    "WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
    "WEBHOOK_TIMEOUT": "1s",
    "WEBHOOK_RETRY_SCHEDULE": "1s,2s,4s",
    "WEBHOOK_RETRY_JITTER": "0",
    "WEBHOOK_RETRY_IN_MEMORY": "1s",
    "WEBHOOK_DRAIN": "2s",
    "OPS_PORT": "0",
}
TOPICS = (SETTINGS["KAFKA_TOPICS"], SETTINGS["KAFKA_DEAD_LETTER_TOPIC"])
OTHERS = ("KAFKA_", "WEBHOOK_", "DATABASE_", "OPS_", "API_", "LOG_LEVEL")  # settings of the user, which are left out
# Ends with the demo, even if that is killed: it writes nothing, so the read returns when its end of the pipe closes.
WORKER = """
import os, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
sys.argv = ["kafka-webhooks", "run"]
from consumer.__main__ import main
main()
"""
REAL_THING = """\
export DATABASE_URL='oracle+oracledb://user:pw@db:1521/?service_name=FREEPDB1'
export KAFKA_BOOTSTRAP_SERVERS=localhost:9092
export KAFKA_TOPICS=users,orders
export WEBHOOK_SECRET="whsec_$(openssl rand -base64 32)"
kafka-webhooks migrate
kafka-webhooks subscriptions add https://example.com/webhooks user.created
kafka-webhooks check
kafka-webhooks run"""
RATE, EVENTS = 400, 3200  # events a second, and in all
MIX = ("order.placed", "user.created", "order.placed", "user.deleted", "order.placed", "user.created", "invoice.paid")
SWITCH = 0.0005  # seconds that a thread may hold the interpreter: receivers must not wait while the table is drawn
LOOK = 0.5  # seconds between looks at the database
LONGEST = 90.0  # seconds from the start; the demo then stops waiting and reports the deliveries still owed


class Stopped(Exception):
    """A signal has arrived."""


def main(database: str | None = None, name: str = "SQLite in a temporary folder") -> None:
    """Run the demo on an empty database: its URL, and its `name` in the output.

    WebhooksError if the worker ended, or if the figures contradict a claim.
    """
    sys.setswitchinterval(SWITCH)
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: stopped.append(received))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # for a terminal that cannot show ✓
    with Screen() as screen:
        try:
            with ExitStack() as parts:
                _Demo(screen, parts, stopped, database, name).play()
        except Stopped:
            screen.say("Stopped; no process and no file is left.")
            return
    if screen.contradicted:
        raise WebhooksError("the figures do not support the claims marked with ✗")


class _Demo:
    def __init__(
        self, screen: Screen, parts: ExitStack, stopped: Sequence[int], database: str | None, name: str
    ) -> None:
        self._screen, self._stopped, self._started = screen, stopped, time.monotonic()
        screen.say("kafka-webhooks demo: Kafka, database, worker and receivers on this machine.\n")
        folder = Path(parts.enter_context(TemporaryDirectory(prefix="kafka-webhooks-demo-")))
        settings = {"DATABASE_URL": database or f"sqlite:///{folder / 'demo.db'}"}
        self._engine = create_engine(load(DatabaseSettings, settings))
        parts.callback(self._engine.dispose)
        migrations.upgrade(self._engine)
        screen.tell(f"{name}, its tables made by the Alembic migrations")
        self._receivers = make_receivers()
        self._published_at: dict[int, float] = {}  # by an event's id; without the first, which waited for the worker
        parts.enter_context(serving(self._receivers, parse_secret(SECRET), self._published_at))
        for receiver in self._receivers:
            receiver.subscription_id = repository.add(self._engine, receiver.url, receiver.event_type)
        screen.tell(f"{len(self._receivers)} receivers, a subscription for each; some behave badly")
        self._kafka = parts.enter_context(closing(EmbeddedKafka(*TOPICS)))
        settings |= SETTINGS | {"KAFKA_BOOTSTRAP_SERVERS": self._kafka.servers}
        self._settings = load(KafkaSettings, settings)
        screen.tell(f"Kafka, embedded, at {self._kafka.servers}")
        inherited = {each: value for each, value in os.environ.items() if not each.startswith(OTHERS)}
        self._log = folder / "worker.log"
        self._worker = subprocess.Popen(  # noqa: S603 (this interpreter, on our own code)
            [sys.executable, "-c", WORKER],
            cwd=folder,  # without a .env of the user
            env=inherited | settings | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=self._log.open("wb"),
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C is the demo's to handle
        )
        parts.enter_context(self._worker)
        parts.callback(self._worker.kill)
        screen.tell(f"a worker: the command `kafka-webhooks run` as process {self._worker.pid}")

    def play(self) -> None:
        """Publish, watch and tell."""
        self._first_event()
        self._kafka.publish(TOPICS[0], UNDECODABLE, key=b"124")
        self._stream()
        self._worker.terminate()
        rows, status = figures(self._engine, self._receivers), self._worker.wait(LONGEST)
        self._screen.final(rows)
        letters = [each.value for each in dead_letters.recent(self._settings, 10).found]
        for text, good in claims(rows, *self._progress(), status, letters):
            self._screen.tell(text, good)
        took = time.monotonic() - self._started
        self._screen.say(f"\nThat took {took:.0f} s. For the real thing, copy these lines:\n")
        self._screen.say(REAL_THING, "cyan")

    def _first_event(self) -> None:
        self._publish("user.created", b'{"id": 123, "name": "Jane Doe"}', 123)
        self._screen.say("… the worker joins its consumer group; Kafka waits 3 s for other members")
        crm = self._receivers[0]
        while crm.first is None:
            self._breathe()
            if crm.unverified or time.monotonic() - self._started > LONGEST:
                raise WebhooksError(f"crm got no first event, or one that it cannot verify:\n{self._log_tail()}")
        self._screen.request(*crm.first, "user.created, as it arrived at the receiver crm, which has verified it")

    def _stream(self) -> None:
        """Publish the events at RATE, their types in turn, and wait until nothing moves any more."""
        begin, look_at, moving = time.monotonic(), 0.0, True
        while moving:
            self._breathe()
            now = time.monotonic()
            for number in range(len(self._published_at), min(EVENTS, int((now - begin) * RATE))):
                self._published_at[1000 + number] = time.monotonic()
                kind = MIX[number % len(MIX)]
                body = {"id": 1000 + number, "type": kind, "created_at": round(time.time(), 3)}
                self._publish(kind, json.dumps(body).encode(), 1000 + number)
            if now >= look_at:
                look_at, rows, published = now + LOOK, figures(self._engine, self._receivers), len(self._published_at)
                self._screen.show(rows, f"{now - self._started:3.0f} s  {published:,} of {EVENTS:,} published")
                if published == EVENTS:
                    committed, end = self._progress()
                    moving = not all(row.at_rest for row in rows) or committed < end
                    moving &= now - self._started < LONGEST
        self._kafka.flush()

    def _publish(self, event_type: str, value: bytes, number: int) -> None:
        self._kafka.publish(TOPICS[0], value, key=b"%d" % number, event_type=event_type)
        for receiver in self._receivers:
            receiver.published += receiver.event_type == event_type

    def _progress(self) -> tuple[int, int]:
        """How many records of the topic the group has committed, and how many there are."""
        found = group_lag(self._settings, TOPICS[:1])
        return sum(each.committed or 0 for each in found), sum(each.end for each in found)

    def _breathe(self) -> None:
        """Sleep a little. Stopped after a signal; WebhooksError, with the end of its log, if the worker has ended."""
        time.sleep(0.01)
        if self._stopped:
            raise Stopped
        if self._worker.poll() is not None:
            raise WebhooksError(f"the worker has ended with status {self._worker.returncode}:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        """The last lines of the worker's log, without attempts, which fail by the thousand."""
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join([line for line in lines if '"event": "attempt"' not in line][-8:])
