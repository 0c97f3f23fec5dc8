"""`kafka-webhooks subscriptions ping`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from consumer.cli.console import row_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def ping(
    subscription_id: Annotated[int, typer.Argument(metavar="ID", parser=row_id)],
    *,
    event_type: Annotated[
        str, typer.Option(metavar="TYPE", help="The test event's type, sent in x-webhook-event.")
    ] = "webhooks.ping",
    data: Annotated[str | None, typer.Option(metavar="JSON", help="The test event's body.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Send a subscription a test event and show the exchange.

    This command, not a worker, sends one signed request to the subscription's URL, in its format, with its headers and
    credentials, under the egress rule of this command's settings. It ignores the subscription's filter and topics,
    and writes an operational event that names the user.

    Exit status 0 if the receiver answers with a 2xx, else 1.

    \b
    Examples:
      kafka-webhooks subscriptions ping 7
      kafka-webhooks subscriptions ping 7 --event-type order.paid --data '{"amount": 5}' --json
    """
    import time

    from consumer.cli.console import open_database, print_json, print_lines
    from consumer.cli.registry import absent, registry
    from consumer.cli.waiting import Waiting
    from consumer.config.environment import load
    from consumer.config.settings import DatabaseSettings, DeliverySettings
    from consumer.crypto.keys import parse_signing_key
    from consumer.crypto.vault import Vault
    from consumer.matching.destinations import rules_of
    from consumer.ops import ping as pinging
    from consumer.ops.changes import command_line_actor, note_ping
    from consumer.subscriptions import repository as store

    try:
        event = pinging.ping_event(subscription_id, time.time(), event_type, data)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    delivery, database = load(DeliverySettings), load(DatabaseSettings)
    default = tuple(map(parse_signing_key, delivery.secrets))
    vault = Vault(database.encryption_keys)
    engine = open_database()
    found = store.get_endpoint(engine, subscription_id, default, vault, rules_of(delivery))
    if found is None:
        raise absent(subscription_id)
    item, endpoint = found
    send = pinging.sending_by(delivery)
    note_ping(registry(engine), command_line_actor(), item, event.type)
    with Waiting(f"the receiver at {item.url}"):
        done = pinging.ping(endpoint, event, send)
    told = {"subscription_id": item.id, "state": item.state, "url": item.url} | pinging.describe(endpoint, done)
    if as_json:
        print_json(told)
    else:
        for number, fields in enumerate(_blocks(told)):
            if number:
                typer.echo()
            print_lines(fields)
    if not done.verdict.ok:
        raise typer.Exit(1)


def _blocks(told: "Mapping[str, Any]") -> "Iterator[dict[str, object]]":
    """The fields to print, in blocks: the destination, the request if one was sent, the result."""
    certificate = told["certificate"] or {}
    steps = ", ".join(f"{step.replace('_', ' ')} {1000 * took:.1f} ms" for step, took in told["seconds"].items())
    yield {
        "state": told["state"],
        "url": told["url"],
        "address": told["connected"] or ", ".join(told["addresses"]) or None,
        "tls": told["tls"],
        "certificate": certificate.get("subject"),
        "issuer": certificate.get("issuer"),
        "expires": certificate.get("expires"),
    }
    if told["headers"]:
        yield {**told["headers"], "": told["body"]}
    yield {
        "status": told["status"],
        "time": steps or None,
        "answer": told["answer"],
        "verdict": told["verdict"],
        "look at": told["advice"],
    }
