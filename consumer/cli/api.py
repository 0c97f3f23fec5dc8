"""`kafka-webhooks api` and `kafka-webhooks api-token`."""

import gc
from collections.abc import Mapping
from functools import partial
from typing import Annotated

import structlog
import typer

from consumer.api.app import create_app
from consumer.api.backing import Backing
from consumer.api.tokens import TokenFile, generate, line_of
from consumer.cli.deployment import configure, log_of, opened
from consumer.config.environment import check, environment, load
from consumer.config.settings import (
    FILE,
    ApiSettings,
    ConsumerGroupSettings,
    DatabaseSettings,
    DeliverySettings,
    KafkaSettings,
    RuleSettings,
    TopicSettings,
)
from consumer.console.assembly import with_console
from consumer.crypto.vault import Vault
from consumer.http.server import listen, serve
from consumer.matching.destinations import resolving_rules_of, rules_of
from consumer.ops.attempts import AttemptHistory
from consumer.ops.changes import Deployment
from consumer.ops.overview import overview, shared
from consumer.ops.ping import ping, sending_by
from consumer.ops.verification import asking


def api() -> None:
    """Serve the HTTP API and the web console until SIGTERM.

    The console is at /, the API's reference at /reference, and its OpenAPI description at /openapi.json. With
    KAFKA_BOOTSTRAP_SERVERS, KAFKA_TOPICS and KAFKA_ATTEMPTS_TOPIC both show data from Kafka too, and begin replays.
    Without API_TOKEN or API_TOKENS_FILE only requests from this machine are served.

    \b
    Example:
      kafka-webhooks api &
      curl -X POST localhost:8080/register-webhook -H 'content-type: application/json' \\
        -d '{"url": "https://example.com/hooks", "eventType": "user.created"}'
    """
    values = environment()
    check((ApiSettings, DatabaseSettings, ConsumerGroupSettings, RuleSettings), values)
    configure()
    settings = load(ApiSettings, values)
    tokens = TokenFile(settings.api_tokens_file, settings.api_token.get_secret_value() if settings.api_token else None)
    backing = _backing(values)
    app = with_console(create_app(backing, tokens), backing, tokens)
    listener = listen(settings.bind_host, settings.api_port)
    host, port = listener.getsockname()[:2]
    structlog.get_logger(__name__).info("listening", url=f"http://{host}:{port}", token=tokens.required)
    gc.freeze()  # objects made so far stay, and the collector takes 15 ms to walk them
    serve(app, listener)


def api_token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, which operational events show.")],
    *,
    scope: Annotated[
        list[str],
        typer.Option(help="read, write or secrets. May be repeated.", metavar="SCOPE"),
    ],
    tenant: Annotated[str | None, typer.Option(help="Only the subscriptions of this tenant.", metavar="NAME")] = None,
) -> None:
    """Make a token for the HTTP API.

    Prints the token on stdout, only this once, and on stderr the line for the file of API_TOKENS_FILE, which has only
    its hash. Scopes: read (see subscriptions), write (change them), secrets (change the secrets of existing ones).

    \b
    Examples:
      kafka-webhooks api-token grafana --scope read
      kafka-webhooks api-token acme --scope read --scope write --tenant acme
    """
    token = generate()
    try:
        line = line_of(name, token, dict.fromkeys(scope), tenant)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    typer.echo(token)
    typer.echo(line, err=True)


def _backing(values: Mapping[str, str]) -> Backing:
    """The deployment of these settings. Without those of a part, such as Kafka's, the API reports that."""
    signs = {"WEBHOOK_SECRET", "WEBHOOK_SECRET" + FILE} & set(values)
    delivery = load(DeliverySettings, values) if signs else None
    database, limits = load(DatabaseSettings, values), load(RuleSettings, values)
    engine, vault = opened(database), Vault(database.encryption_keys)
    group = load(ConsumerGroupSettings, values).group_id
    deployment = Deployment(engine, group, vault, rules_of(limits), delivery.secrets if delivery else ())
    kafka = load(KafkaSettings, values) if "KAFKA_BOOTSTRAP_SERVERS" in values else None
    topics = load(TopicSettings, values).topics if "KAFKA_TOPICS" in values else ()
    log, history = None, None
    if kafka is not None and topics:
        log = log_of(values)
    if kafka is not None and kafka.attempts_topic is not None:
        history = AttemptHistory(kafka, kafka.attempts_topic)
        history.start()
    return Backing(
        deployment,
        resolving_rules_of(limits).refusal,
        ping=None if delivery is None else partial(ping, send=sending_by(delivery)),
        ask=None if delivery is None else asking(delivery),
        history=history,
        look=shared(partial(overview, engine, kafka, topics, vault, deployment.rules)),
        kafka=kafka,
        log=log,
    )
