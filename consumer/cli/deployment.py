"""Shared by the commands on subscriptions: the deployment of the settings, its changes, and a subscription as JSON."""

import time
from collections.abc import Mapping
from datetime import UTC
from typing import Annotated

import typer
from sqlalchemy import Engine, event

from consumer.cli.console import row_id
from consumer.cli.progress import Waiting, at_end
from consumer.config import slips
from consumer.config.environment import check, environment, load
from consumer.config.settings import (
    ConsumerGroupSettings,
    DatabaseSettings,
    KafkaSettings,
    LogSettings,
    RuleSettings,
    SchemaSettings,
    SearchSettings,
    TopicSettings,
)
from consumer.crypto.vault import Vault
from consumer.database.engine import create_engine, place_of
from consumer.errors import InvalidSubscription, SettingsError
from consumer.events.cloud_event import rfc3339
from consumer.intake.log_reader import LogReader
from consumer.matching.destinations import rules_of
from consumer.ops.changes import Changes, Deployment, command_line_actor
from consumer.ops.events import event_reader
from consumer.ops.find import fields_of
from consumer.ops.replay_request import Log
from consumer.ops.reported import shown
from consumer.ops.start import Places, places, since
from consumer.subscriptions.endpoint_row import Rules
from consumer.subscriptions.subscribed import Subscribed
from consumer.telemetry.logs import configure_logging

IdArgument = Annotated[int, typer.Argument(metavar="ID", parser=row_id)]


def configure() -> None:
    """Set up logging at LOG_LEVEL, to stderr: stdout holds only a command's result. Warns of misspelt settings."""
    values = environment()
    configure_logging(load(LogSettings, values).log_level)
    slips.warn(slips.of_settings(values))


def open_database() -> Engine:
    """An engine for DATABASE_URL, with logging set up. It connects at its first use, and reports slow steps."""
    configure()
    return _told_of(opened(load(DatabaseSettings)))


def opened(settings: DatabaseSettings) -> Engine:
    """An engine whose connections are closed when the command ends."""
    engine = create_engine(settings)
    at_end(engine.dispose)
    return engine


def _told_of(engine: Engine) -> Engine:
    """Make the engine report when a connect or a statement takes longer than PATIENCE; returns the engine."""
    waiting = Waiting(f"the database at {place_of(engine)}")

    def begin(*_: object) -> None:
        waiting.__enter__()

    def end(*_: object) -> None:
        waiting.__exit__()

    event.listen(engine, "do_connect", begin, insert=True)
    event.listen(engine, "before_cursor_execute", begin)
    for name in ("connect", "after_cursor_execute", "handle_error"):
        event.listen(engine, name, end)
    return engine


def deployment(engine: Engine, vault: Vault | None = None, default: tuple[str, ...] = ()) -> Deployment:
    """The deployment of the settings. `vault` encrypts new secrets; `default` are those of WEBHOOK_SECRET."""
    return Deployment(engine, load(ConsumerGroupSettings).group_id, vault or vault_to_read(), rules(), default)


def changes(vault: Vault | None = None, default: tuple[str, ...] = ()) -> Changes:
    """The changes that the user of this process makes to DATABASE_URL."""
    return Changes(deployment(open_database(), vault, default), command_line_actor())


def vault_to_read() -> Vault:
    """The vault that decrypts secrets."""
    return Vault(load(DatabaseSettings).encryption_keys)


def vault_to_write(*, unencrypted: bool | None) -> Vault:
    """The vault that encrypts secrets. SettingsError without a key, unless `unencrypted`; None: no such option."""
    vault = vault_to_read()
    if not (vault.encrypts or unencrypted):
        otherwise = "" if unencrypted is None else ". Or give --unencrypted"
        raise SettingsError(
            "WEBHOOK_ENCRYPTION_KEY is not set: secrets would be stored in the clear. Set it for this command "
            'and for all workers, for example: WEBHOOK_ENCRYPTION_KEY="$(openssl rand -base64 32 | tr +/ -_)"'
            f"{otherwise}"
        )
    return vault


def rules() -> Rules:
    """The rules of the settings for a subscription's values."""
    return rules_of(load(RuleSettings))


def json_of(item: Subscribed) -> dict[str, object]:
    """A subscription as JSON."""
    return {
        "id": item.id,
        "state": item.state,
        **shown(item),
        "url": item.whole_url,
        "problems": [problem.as_json() for problem in item.problems],
        "failing_since": rfc3339(item.failing_since.timestamp()) if item.failing_since else None,
        "created_at": rfc3339(item.created_at.timestamp()) if item.created_at else None,
    }


def log_of(values: Mapping[str, str]) -> Log:
    """The log that the settings name, as workers read it."""
    check((KafkaSettings, TopicSettings), values)
    kafka, schemas = load(KafkaSettings, values), load(SchemaSettings, values)
    return Log(
        kafka,
        load(TopicSettings, values).topics,
        event_reader(kafka, schemas),
        fields_of(load(SearchSettings, values)),
        schemas.url is None,
    )


def start_at(text: str) -> float:
    """The unix seconds of a start in the past; else a usage error."""
    try:
        return since(text, time.time(), UTC)
    except InvalidSubscription as error:
        raise typer.BadParameter(error.why, param_hint="--from") from None


def places_from(at: float, topics: str | None) -> Places:
    """The places in Kafka's log, from a time on, where a subscription to these topics (None: all) begins."""
    values = environment()
    check((KafkaSettings, TopicSettings), values)
    kafka, names = load(KafkaSettings, values), load(TopicSettings, values).topics
    with LogReader(kafka) as reader, Waiting(f"Kafka at {kafka.bootstrap_servers}"):
        return places(reader, names, topics, at)
