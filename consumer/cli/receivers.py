"""Commands that meet a receiver: subscriptions ping and verify, and listen, which is one."""

import signal
import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from consumer.cli.app import discard_output
from consumer.cli.console import print_json, print_lines, printable, row_id
from consumer.cli.deployment import IdArgument, changes, configure, json_of
from consumer.cli.progress import Waiting
from consumer.config.environment import load
from consumer.config.settings import NO_ORIGIN, DeliverySettings, SigningSettings
from consumer.crypto.keys import VerifyingKey, parse_verifying_key
from consumer.errors import SettingsError, WebhooksError
from consumer.events.event import Event
from consumer.http.server import listen as open_port
from consumer.http.server import serve
from consumer.ops import ping as pinging
from consumer.ops import verification
from consumer.ops.changes import Changes
from consumer.ops.ping import Ping
from consumer.ops.receiver import HexHeader, Received, Reply, create_app
from consumer.ops.verification import Ask, Verification, describe
from consumer.sending.validation_request import Declined
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
    try:
        event = pinging.ping_event(subscription_id, time.time(), event_type, data)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    delivery = load(DeliverySettings)

    def exchange(endpoint: Endpoint, event: Event) -> Ping:
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


def _blocks(told: Mapping[str, Any]) -> Iterator[dict[str, object]]:
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
        "expires": certificate.get("expires_at"),
    }
    if told["headers"]:
        yield {"request": told["request"], **told["headers"], "": told["body"]}
    yield {
        "status": told["status"],
        "time": steps or None,
        "response": told["response"],
        "verdict": told["verdict"],
        "look at": told["advice"],
    }


def verify(
    subscription_id: IdArgument,
    *,
    rate: Annotated[
        int | None,
        typer.Option(
            metavar="REQUESTS", min=1, max=10**9, help="Ask for so many requests a minute. Default: its rate limit."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Ask a subscription's receiver for its permission.

    This command, not a worker, sends one OPTIONS request to the subscription's URL, with its headers and credentials,
    in the name of WEBHOOK_ORIGIN, as CloudEvents' web hooks require. If the receiver agrees, the subscription is
    verified; if it permits a lower rate than the rate limit, the limit is lowered. A subscription that was added with
    --verify is enabled.

    Exit status 0 if the receiver agrees, else 1; then nothing has changed.

    \b
    Examples:
      kafka-webhooks subscriptions verify 7
      kafka-webhooks subscriptions verify 7 --rate 600 --json
    """
    ask = asking()
    done = verified(changes(), subscription_id, ask, rate)
    if as_json:
        print_json(json_of(done.subscription) | {"verification": describe(done.permission)})
    conclude(done, quiet=as_json)


def asking() -> Ask:
    """The function that asks receivers, by the settings. SettingsError without WEBHOOK_ORIGIN."""
    found = verification.asking(load(DeliverySettings))
    if found is None:
        raise SettingsError(NO_ORIGIN)
    return found


def verified(changes: Changes, subscription_id: int, ask: Ask, rate: int | None = None) -> Verification:
    """Ask, and note the answer."""
    with Waiting(f"the receiver of subscription {subscription_id}"):
        return verification.verify(changes, subscription_id, ask, rate)


def conclude(done: Verification, *, quiet: bool = False) -> None:
    """Print the receiver's answer, unless `quiet`; exit with status 1 if it does not agree."""
    item = done.subscription
    if isinstance(done.permission, Declined):
        if quiet:
            raise typer.Exit(1)
        why, advice = done.permission
        state = "was verified before, and stays so" if item.verified else "is not verified"
        rest = "" if item.enabled else ", and is disabled"
        raise WebhooksError(
            f"subscription {item.id} {state}{rest}: {why}{f' ({advice})' if advice else ''}. "
            f"To go on: kafka-webhooks subscriptions verify {item.id}"
        )
    if quiet:
        return
    rate, limit = done.permission.rate, item.options["rate_limit"]
    permits = "any rate" if rate is None else f"{rate:,} requests a minute"
    text = f"subscription {item.id} is verified: its receiver permits {permits}"
    if limit is not None:
        text += f"; its rate limit is {limit:g} a second"
    typer.echo(text if item.enabled else f"{text}; {printable(item.state)}")


_MOST_SHOWN = 2000  # characters of a body


def listen(
    *,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="Port to listen on; 0 takes a free one.")
    ] = 8000,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    secret: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SECRET",
            help="Signing secret or public key (whpk_…); may be repeated. Default: those of WEBHOOK_SECRET.",
        ),
    ] = None,
    hex_header: Annotated[
        str, typer.Option(metavar="NAME", help="Header of the hex signature, verified if present.")
    ] = "x-webhook-signature",
    hex_prefix: Annotated[str, typer.Option(metavar="TEXT", help="Prefix of its hex digits, such as sha256=.")] = "",
    status: Annotated[int, typer.Option(min=200, max=599, metavar="STATUS", help="Status to answer with.")] = 200,
    delay: Annotated[
        float, typer.Option(min=0, max=3600, metavar="SECONDS", help="Seconds to wait before the answer.")
    ] = 0.0,
) -> None:
    """Receive webhooks, verify and print them.

    \b
    Examples:
      kafka-webhooks listen --port 8000 --secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw
      kafka-webhooks listen --secret whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4= --status 503
      kafka-webhooks listen --hex-header x-hub-signature-256 --hex-prefix sha256=
    """
    configure()
    answer = Reply(status, delay)
    app = create_app(_keys(secret), _print, lambda _: answer, hex_header=HexHeader(hex_header, hex_prefix))
    listener = open_port(host, port)
    typer.echo(f"listening on http://{host}:{listener.getsockname()[1]} (Ctrl-C ends it)", err=True)
    serve(app, listener)


def _keys(texts: list[str] | None) -> list[VerifyingKey]:
    try:
        return [parse_verifying_key(text) for text in texts or load(SigningSettings).secrets]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--secret") from None


def _print(received: Received, answer: Reply) -> None:
    body = received.body[: _MOST_SHOWN * 4].decode(errors="backslashreplace")
    shown = body if len(body) <= _MOST_SHOWN else f"{body[:_MOST_SHOWN]}… ({len(received.body)} bytes)"
    mark = "✗" if received.problem else "✓"
    verdict = received.problem or "signatures verified"
    head = f"{time.strftime('%H:%M:%S')} {mark} {received.event_type or '-'} {received.webhook_id or '-'}"
    try:
        typer.echo(printable(f"{head} {received.path}: {verdict}; answered {answer.status}"))
        typer.echo(f"  {printable(shown)}")
    except OSError as error:
        discard_output()
        if not isinstance(error, BrokenPipeError):
            typer.echo(f"kafka-webhooks: the output cannot be written: {error.strerror}", err=True)
        signal.raise_signal(signal.SIGTERM)
