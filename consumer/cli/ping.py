"""`kafka-webhooks subscriptions ping`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from consumer.cli.console import row_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from consumer.events.event import Event
    from consumer.ops.ping import Ping
    from consumer.subscriptions.endpoint import Endpoint


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

    from consumer.cli.console import print_json, print_lines
    from consumer.cli.deployment import changes
    from consumer.cli.waiting import Waiting
    from consumer.config.environment import load
    from consumer.config.settings import DeliverySettings
    from consumer.ops import ping as pinging

    try:
        event = pinging.ping_event(subscription_id, time.time(), event_type, data)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    delivery = load(DeliverySettings)

    def exchange(endpoint: "Endpoint", event: "Event") -> "Ping":
        with Waiting(f"the receiver of subscription {subscription_id}"):
            return pinging.ping(endpoint, event, pinging.sending_by(delivery))

    item, made = pinging.ping_subscription(changes(default=delivery.secrets), subscription_id, event, exchange)
    told = {"subscription_id": item.id, "state": item.state, "url": item.url} | made
    if as_json:
        print_json(told)
    else:
        for number, fields in enumerate(_blocks(told)):
            if number:
                typer.echo()
            print_lines(fields)
    if not told["ok"]:
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
