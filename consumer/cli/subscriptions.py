"""`kafka-webhooks subscriptions`."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from consumer.cli.console import row_id

if TYPE_CHECKING:
    from consumer.errors import WebhooksError
    from consumer.matching.subscriptions import Subscribed

subscriptions = typer.Typer(name="subscriptions", help="Who gets which events.", no_args_is_help=True)

IdArgument = Annotated[int, typer.Argument(metavar="ID", parser=row_id)]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]


@subscriptions.command()
def add(
    url: Annotated[str, typer.Argument(help="Where to POST the events.")],
    event_type: Annotated[str, typer.Argument(help="The events' type.")],
    *,
    ordering: Annotated[
        Literal["none", "key"], typer.Option(help="key: the events of a record's key go one at a time, in order.")
    ] = "none",
    max_in_flight: Annotated[int | None, typer.Option(help="Requests open at once, of all workers together.")] = None,
    rate_limit: Annotated[float | None, typer.Option(help="Deliveries a second, of all workers together.")] = None,
    retry_schedule: Annotated[
        str | None, typer.Option(metavar="WAITS", help="Instead of WEBHOOK_RETRY_SCHEDULE: 5s,5m,1h.")
    ] = None,
    final_statuses: Annotated[
        str | None, typer.Option(metavar="STATUSES", help="Answers after which it is not tried again: 400,422 or 4xx.")
    ] = None,
    if_not_exists: Annotated[bool, typer.Option("--if-not-exists", help="Do nothing if it is there already.")] = False,
) -> None:
    """Subscribe a URL to events of a type.

    \b
    Examples:
      kafka-webhooks subscriptions add https://example.com/hooks user.created
      kafka-webhooks subscriptions add https://example.com/hooks user.created --ordering key --rate-limit 50
      kafka-webhooks subscriptions add https://example.com/hooks a.b --retry-schedule 1m,10m,1h --final-statuses 4xx
    """
    from consumer.cli.console import open_database
    from consumer.matching import subscriptions as store
    from consumer.registration import ANY_SETTINGS

    engine = open_database()
    if if_not_exists and any((item.url, item.event_type) == (url, event_type) for item in store.list_all(engine)):
        typer.echo("the subscription is there already")
        return
    subscription_id = store.add(
        engine,
        url,
        event_type,
        ordering=ordering,
        max_in_flight=max_in_flight,
        rate_limit=rate_limit,
        retry_schedule=retry_schedule,
        final_statuses=final_statuses,
        policy=ANY_SETTINGS,
    )
    typer.echo(f"subscription {subscription_id} added")


@subscriptions.command("list")
def list_all(
    *,
    event_type: Annotated[str | None, typer.Option(help="Only those of this type.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the subscriptions.

    Example: kafka-webhooks subscriptions list --event-type user.created --json
    """
    from consumer.cli.console import open_database, print_json, print_rows
    from consumer.matching import subscriptions as store

    found = [item for item in store.list_all(open_database()) if event_type in {None, item.event_type}]
    if as_json:
        print_json([_as_json(item) for item in found])
    elif found:
        rows = [
            {"id": item.id, "event_type": item.event_type, "state": _state(item), "url": item.url} for item in found
        ]
        print_rows(("id", "event_type", "state", "url"), rows)
    else:
        typer.echo("no subscriptions", err=True)


@subscriptions.command()
def show(subscription_id: IdArgument, *, as_json: JsonOption = False) -> None:
    """Show a subscription, its limits, and how much is stored for it.

    Example: kafka-webhooks subscriptions show 7
    """
    from consumer.cli.console import open_database, print_fields, print_json
    from consumer.ledger import tallies
    from consumer.matching import subscriptions as store

    engine = open_database()
    found = store.get(engine, subscription_id)
    if found is None:
        raise _absent(subscription_id)
    states = tallies.of_subscription(engine, subscription_id)
    stored = {name: states[name] for name in ("parked", "blocked", "held", "exhausted")}
    if as_json:
        print_json(_as_json(found) | {"deliveries": stored})
    else:
        print_fields({"state": _state(found)} | _as_json(found) | stored)


@subscriptions.command()
def enable(subscription_id: IdArgument) -> None:
    """Enable a subscription.

    It gets events again, and what was held for it is sent.

    Example: kafka-webhooks subscriptions enable 7
    """
    from consumer.cli.console import number, open_database
    from consumer.ledger import tallies
    from consumer.matching import subscriptions as store

    engine = open_database()
    if not store.set_enabled(engine, subscription_id, True):
        raise _absent(subscription_id)
    held = tallies.of_subscription(engine, subscription_id)["held"]
    waiting = f"; {number(held, 'delivery')} held for it go out within a minute" if held else ""
    typer.echo(f"subscription {subscription_id} is enabled{waiting}")


@subscriptions.command()
def disable(
    subscription_id: IdArgument,
    *,
    reason: Annotated[str | None, typer.Option(help="Why, for those who look at it later.")] = None,
) -> None:
    """Disable a subscription.

    It matches no event, and what is stored for it is held. Events that happen meanwhile are not kept for it;
    `kafka-webhooks replay` sends them later.

    Example: kafka-webhooks subscriptions disable 7 --reason "moves to another host"
    """
    from consumer.cli.console import open_database
    from consumer.matching import subscriptions as store

    if not store.set_enabled(open_database(), subscription_id, False, reason):
        raise _absent(subscription_id)
    typer.echo(f"subscription {subscription_id} is disabled")


@subscriptions.command()
def remove(subscription_id: IdArgument) -> None:
    """Remove a subscription and what waits for it.

    Example: kafka-webhooks subscriptions remove 7
    """
    from consumer.cli.console import open_database
    from consumer.matching import subscriptions as store

    if not store.remove(open_database(), subscription_id):
        raise _absent(subscription_id)
    typer.echo(f"subscription {subscription_id} removed")


def _absent(subscription_id: int) -> "WebhooksError":
    from consumer.errors import WebhooksError

    return WebhooksError(f"there is no subscription {subscription_id}; `subscriptions list` shows them")


def _state(item: "Subscribed") -> str:
    if not item.enabled:
        return f"disabled: {item.disabled_reason}" if item.disabled_reason else "disabled"
    return f"failing since {item.failing_since:%Y-%m-%dT%H:%M:%SZ}" if item.failing_since else "enabled"


def _as_json(item: "Subscribed") -> dict[str, object]:
    return {
        "id": item.id,
        "url": item.url,
        "event_type": item.event_type,
        "enabled": item.enabled,
        "disabled_reason": item.disabled_reason,
        "secrets": item.secrets,
        "ordering": item.ordering,
        "max_in_flight": item.max_in_flight,
        "rate_limit": item.rate_limit,
        "retry_schedule": item.retry_schedule,
        "final_statuses": item.final_statuses,
        "failing_since": item.failing_since.isoformat() if item.failing_since else None,
        "created_at": item.created_at.isoformat() if item.created_at else None,
    }
