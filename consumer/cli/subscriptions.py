"""`kafka-webhooks subscriptions`."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sqlalchemy import Engine

subscriptions = typer.Typer(name="subscriptions", help="Who gets which events.", no_args_is_help=True)


@subscriptions.command()
def add(
    url: Annotated[str, typer.Argument(help="Where to POST the events.")],
    event_type: Annotated[str, typer.Argument(help="The events' type.")],
    *,
    if_not_exists: Annotated[bool, typer.Option("--if-not-exists", help="Do nothing if it is there already.")] = False,
) -> None:
    """Subscribe a URL to events of a type.

    Example: kafka-webhooks subscriptions add https://example.com/hooks user.created
    """
    from consumer.matching import subscriptions as store
    from consumer.registration import register

    engine = _engine()
    if if_not_exists and any((item.url, item.event_type) == (url, event_type) for item in store.list_all(engine)):
        typer.echo("the subscription is there already")
        return
    typer.echo(f"subscription {register(engine, url, event_type)} added")


@subscriptions.command("list")
def list_all(
    *,
    event_type: Annotated[str | None, typer.Option(help="Only those of this type.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the subscriptions.

    Example: kafka-webhooks subscriptions list --event-type user.created --json
    """
    from consumer.cli.console import print_json, print_rows
    from consumer.matching import subscriptions as store

    found = [item for item in store.list_all(_engine()) if event_type in {None, item.event_type}]
    rows = [
        {
            "id": item.id,
            "url": item.url,
            "event_type": item.event_type,
            "enabled": item.enabled,
            "disabled_reason": item.disabled_reason,
            "secrets": item.secrets,
            "created_at": item.created_at.isoformat() if item.created_at else None,
        }
        for item in found
    ]
    if as_json:
        print_json(rows)
    elif rows:
        print_rows(("id", "event_type", "enabled", "url"), rows)
    else:
        typer.echo("no subscriptions", err=True)


@subscriptions.command()
def remove(subscription_id: Annotated[int, typer.Argument(metavar="ID")]) -> None:
    """Remove a subscription and what waits for it.

    Example: kafka-webhooks subscriptions remove 7
    """
    from consumer.errors import WebhooksError
    from consumer.matching import subscriptions as store

    if not store.remove(_engine(), subscription_id):
        raise WebhooksError(f"there is no subscription {subscription_id}; `subscriptions list` shows them")
    typer.echo(f"subscription {subscription_id} removed")


def _engine() -> "Engine":
    from consumer.cli.console import configure
    from consumer.database import create_engine
    from consumer.settings import DatabaseSettings, load

    configure()
    return create_engine(load(DatabaseSettings))
