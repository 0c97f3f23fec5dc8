"""`kafka-webhooks run --workers N`: one worker in this process, or several, each in a process of its own."""

import ctypes
import socket
import sys
from collections.abc import Callable
from functools import partial

from sqlalchemy import make_url

from consumer.config.settings import KafkaSettings, WorkerSettings
from consumer.errors import SettingsError
from consumer.intake.mapping_file import mappings_of
from consumer.worker.service import Service, listener_of, load_extras
from consumer.worker.supervisor import Supervisor

LARGE = 131_072  # bytes; glibc's own first value, which it raises with each block that is freed unless it is set
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
INSTANCE, CLIENT = "group.instance.id", "client.id"


def run(settings: WorkerSettings, workers: int, describe: Callable[[Exception], tuple[str, int]]) -> None:
    """Run so many workers until SIGTERM or SIGINT. `describe` gives an error's text and exit status.

    Raises what `Service.run` and `Supervisor.run` raise.
    """
    if workers == 1:
        Service().run(settings)
        return
    if sys.platform != "linux":
        raise SettingsError("--workers: more than one worker needs Linux; start the command several times here")
    mappings_of(settings.kafka)  # a mistake in it is found before any process is made
    load_extras(settings)
    make_url(settings.database.url.get_secret_value()).get_dialect().import_dbapi()
    give_back_memory()
    port = listener_of(settings.ops)
    Supervisor(workers, partial(_work, settings), port, settings.delivery.drain, describe).run()


def give_back_memory() -> None:
    """Have glibc return each large block to the system once it is freed; other C libraries go on as they are.

    Else it keeps the blocks of fetched records: 72 MiB for each of two workers with a backlog (PSS), and 62 so.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, LARGE)
        mallopt(_TRIM_THRESHOLD, LARGE)


def _work(
    settings: WorkerSettings, number: int, listener: socket.socket | None, turned: Callable[[float], None]
) -> None:
    """The life of one worker. Its port is the parent's business."""
    ops = settings.ops.model_copy(update={"ops_port": 0})
    Service(listener, turned).run(settings._replace(kafka=member(settings.kafka, number), ops=ops))


def member(kafka: KafkaSettings, number: int) -> KafkaSettings:
    """The settings of one member: the names that Kafka knows it by are its own, and those of its successor."""
    properties = dict(kafka.properties)
    if INSTANCE in properties:
        properties[INSTANCE] += f"-{number}"
    properties[CLIENT] = f"{properties.get(CLIENT, 'kafka-webhooks')}-{number}"
    return kafka.model_copy(update={"properties": properties})
