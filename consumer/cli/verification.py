"""`kafka-webhooks subscriptions verify`, and the verification after `subscriptions add --verify`."""

from typing import TYPE_CHECKING, Annotated

import typer

from consumer.cli.deployment import IdArgument, changes, json_of

if TYPE_CHECKING:
    from consumer.ops.changes import Changes
    from consumer.ops.verification import Ask, Verification


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
    from consumer.cli.console import print_json
    from consumer.ops.verification import describe

    ask = asking()
    done = verified(changes(), subscription_id, ask, rate)
    if as_json:
        print_json(json_of(done.subscription) | {"verification": describe(done.permission)})
    conclude(done, quiet=as_json)


def asking() -> "Ask":
    """The function that asks receivers, by the settings. SettingsError without WEBHOOK_ORIGIN."""
    from consumer.config.environment import load
    from consumer.config.settings import NO_ORIGIN, DeliverySettings
    from consumer.errors import SettingsError
    from consumer.ops import verification

    found = verification.asking(load(DeliverySettings))
    if found is None:
        raise SettingsError(NO_ORIGIN)
    return found


def verified(changes: "Changes", subscription_id: int, ask: "Ask", rate: int | None = None) -> "Verification":
    """Ask, and note the answer."""
    from consumer.cli.waiting import Waiting
    from consumer.ops import verification

    with Waiting(f"the receiver of subscription {subscription_id}"):
        return verification.verify(changes, subscription_id, ask, rate)


def conclude(done: "Verification", *, quiet: bool = False) -> None:
    """Print the receiver's answer, unless `quiet`; exit with status 1 if it does not agree."""
    from consumer.cli.console import printable
    from consumer.errors import WebhooksError
    from consumer.sending.validation_request import Declined

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
