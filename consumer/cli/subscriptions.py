"""`kafka-webhooks subscriptions`."""

import time
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

import typer

from consumer.cli.console import (
    MOST_COUNTED,
    YesOption,
    bounded,
    confirm,
    number,
    print_fields,
    print_json,
    print_json_rows,
    print_rows,
    printable,
)
from consumer.cli.deployment import (
    IdArgument,
    changes,
    deployment,
    json_of,
    open_database,
    places_from,
    rules,
    start_at,
    vault_to_read,
    vault_to_write,
)
from consumer.cli.receivers import asking, conclude, verified
from consumer.cli.secrets import (
    PANEL,
    STDIN,
    BasicOption,
    BearerOption,
    OAuth2Option,
    PluginOption,
    UnencryptedOption,
)
from consumer.cli.secrets import (
    given as given_secret,
)
from consumer.cli.subscription_options import takes_options, unset_columns
from consumer.config.environment import load
from consumer.config.settings import RuleSettings
from consumer.crypto.keys import generate, receiver_key
from consumer.ledger import backlogs, search
from consumer.matching.destinations import judge_names, policy_of
from consumer.ops.changes import Changes
from consumer.ops.verification import describe
from consumer.subscriptions import event_types, health
from consumer.subscriptions import repository as store
from consumer.subscriptions.options import completed

JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]


@takes_options
def add(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where to POST the events.")],
    event_type: Annotated[
        list[str],
        typer.Argument(metavar="EVENT_TYPE...", help="Types, order.* (one level below), order.** (any) or '*' (all)."),
    ],
    *,
    if_not_exists: Annotated[
        bool, typer.Option("--if-not-exists", help="Do nothing if this URL, types and tenant are subscribed.")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Add it disabled; enable it if its receiver answers a validation request."),
    ] = False,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="TIME", help="It gets the events since then: earliest, 2h, 2026-07-28T14:00 (UTC)."
        ),
    ] = None,
    as_json: JsonOption = False,
    given: dict[str, Any],
    secret: Annotated[
        str | None,
        typer.Option(help="Signing secret, instead of WEBHOOK_SECRET.", metavar="SECRET", rich_help_panel=PANEL),
    ] = None,
    generate_secret: Annotated[
        Literal["hmac", "ed25519"] | None,
        typer.Option(help="A random secret; its key is printed once.", metavar="ALGORITHM", rich_help_panel=PANEL),
    ] = None,
    basic: BasicOption = None,
    bearer: BearerOption = None,
    oauth2: OAuth2Option = None,
    plugin: PluginOption = None,
    secret_header: Annotated[
        list[str] | None,
        typer.Option(help="A confidential header. May be repeated.", metavar="'NAME: VALUE'", rich_help_panel=PANEL),
    ] = None,
    unencrypted: UnencryptedOption = False,
) -> None:
    """Subscribe a URL to events.

    \b
    Examples:
      kafka-webhooks subscriptions add https://example.com/hooks user.created
      kafka-webhooks subscriptions add https://example.com/hooks order.created 'invoice.*' --name Warehouse
      kafka-webhooks subscriptions add https://example.com/hooks 'order.**' --filter 'data.amount > 100'
      kafka-webhooks subscriptions add https://example.com/hooks user.created --ordering key --rate-limit 50
      kafka-webhooks subscriptions add https://example.com/hooks a.b --retry-schedule 1m,10m,1h --final-statuses 4xx
      kafka-webhooks subscriptions add https://example.com/hooks a.b --format cloudevents --batch-size 100
      kafka-webhooks subscriptions add https://example.com/hooks a.b --bearer - < token
      kafka-webhooks subscriptions add https://example.com/hooks a.b --verify
      kafka-webhooks subscriptions add https://example.com/hooks user.created --from 7d
    """
    if secret is not None and generate_secret is not None:
        raise typer.BadParameter("a secret is either given or generated", param_hint="--generate-secret")
    since = None if start is None else start_at(start)
    generated = None if generate_secret is None else generate(generate_secret)
    headers = [("header", line) for line in secret_header or ()]
    auths = [("basic", basic), ("bearer", bearer), ("oauth2", oauth2), ("plugin", plugin)]
    secrets = _read([("signing", generated or secret), *auths, *headers])
    first_type, *further = event_types.checked(event_type)
    values = completed({"url": url, "event_type": first_type, **given})
    vault = vault_to_write(unencrypted=unencrypted) if secrets else None
    ask = asking() if verify else None
    by_user = changes(vault)
    where = by_user.deployment
    found = store.find(where.engine, url, event_type, values["tenant"]) if if_not_exists else None
    added = found
    if added is None:
        why = store.AWAITS_VERIFICATION if verify else None
        first = None if since is None else places_from(since, values["topics"])
        added = by_user.add(new_secrets=secrets, disabled=why, first=first, further_types=further, **values).id
        _warn_of_doubts(url, event_type)
    key = receiver_key(generated) if generated and not found else None
    if not as_json:
        typer.echo(f"subscription {added} {'exists already, and is unchanged' if found else 'added'}")
        if key:
            typer.echo(f"its receiver verifies with (shown only once): {key}")
    done = None
    if ask is not None and not where.subscription(added).verified:
        done = verified(by_user, added, ask)
    if as_json:
        more: dict[str, object] = {"receiver_key": key} if key else {}
        more |= {"verification": describe(done.permission)} if done else {}
        print_json({"added": not found} | json_of(where.subscription(added)) | more)
    if done:
        conclude(done, quiet=as_json)


@takes_options
def edit(
    subscription_id: IdArgument,
    *,
    url: Annotated[str | None, typer.Option(help="Where to POST the events.", metavar="URL")] = None,
    event_type: Annotated[
        list[str] | None,
        typer.Option(
            help="A type, order.* (one level below), order.** (any) or '*' (all). May be repeated: all of its types.",
            metavar="TYPE",
        ),
    ] = None,
    unset: Annotated[
        list[str] | None,
        typer.Option(help="Reset to its default: filter, batch-size, … May be repeated.", metavar="OPTION"),
    ] = None,
    as_json: JsonOption = False,
    given: dict[str, Any],
) -> None:
    """Change the named options of a subscription.

    --header replaces all headers. Secrets have commands of their own. Workers apply changes within
    WEBHOOK_SUBSCRIPTION_CACHE.

    \b
    Examples:
      kafka-webhooks subscriptions edit 7 --filter 'data.amount > 100' --timeout 5s
      kafka-webhooks subscriptions edit 7 --url https://example.com/new --unset filter --unset rate-limit
      kafka-webhooks subscriptions edit 7 --event-type order.created --event-type 'invoice.*'
    """
    values = given | unset_columns(unset or (), given)
    values |= {name: value for name, value in (("url", url), ("event_types", event_type)) if value}
    if not values:
        raise typer.BadParameter("name at least one option to change")
    changed = changes().edit(subscription_id, lambda _: values)
    _warn_of_doubts(url, event_type or ())
    if as_json:
        print_json(json_of(changed))
    else:
        typer.echo(f"subscription {subscription_id} is changed")


def list_all(
    *,
    event_type: Annotated[
        str | None, typer.Option(metavar="TYPE", help="Only subscriptions with exactly this type or pattern.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only subscriptions with this text in their name.")
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only subscriptions of exactly this tenant.")
    ] = None,
    broken: Annotated[
        bool, typer.Option("--broken", help="Only subscriptions with an unusable value, or a warning.")
    ] = False,
    disabled: Annotated[bool, typer.Option("--disabled", help="Only disabled subscriptions.")] = False,
    paused: Annotated[bool, typer.Option("--paused", help="Only paused subscriptions.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the subscriptions and their states.

    Exit status 1 if, with --broken, there are some.

    \b
    Examples:
      kafka-webhooks subscriptions list --event-type user.created --json
      kafka-webhooks subscriptions list --broken
      kafka-webhooks subscriptions list --disabled
      kafka-webhooks subscriptions list --paused
    """
    if disabled and paused:
        raise typer.BadParameter("a disabled subscription is not listed as paused", param_hint="--paused")
    state: store.State | None = "disabled" if disabled else "paused" if paused else None
    found = store.walk(
        open_database(), vault_to_read(), event_type=event_type, name=name, tenant=tenant, state=state, rules=rules()
    )
    shown = (item for item in found if item.problems) if broken else found
    columns = ("id", "event_type", "tenant", "url", "state")
    if as_json:
        number = print_json_rows(map(json_of, shown))
    elif not (number := print_rows(columns, ({name: getattr(item, name) for name in columns} for item in shown))):
        typer.echo("no subscriptions", err=True)
    if broken and number:
        raise typer.Exit(1)


def show(subscription_id: IdArgument, *, as_json: JsonOption = False) -> None:
    """Show a subscription.

    Prints its options, its unusable values, how many deliveries are stored for it, and the cursors that owe it events:
    their positions in Kafka, how old the next event is, and for how long Kafka keeps it.

    Example: kafka-webhooks subscriptions show 7
    """
    engine = open_database()
    where = deployment(engine)
    found = where.subscription(subscription_id)
    states = search.of_subscription(engine, subscription_id)
    stored = {name: states[name] for name in ("parked", "blocked", "held", "exhausted")}
    parts = [each.as_json(time.time()) for each in backlogs.of_subscription(engine, subscription_id)]
    if as_json:
        print_json(json_of(found) | {"deliveries": stored, "cursors": parts})
    else:
        fields = {"state": found.state} | json_of(found)
        fields |= {"credentials": ", ".join(found.credentials) or None, "problems": None, "tls": None}
        if found.tls is not None and (own := found.tls.certificate) is not None:
            fields["client certificate"] = f"{own.subject}, expires on {own.not_after:%Y-%m-%d}"
        if found.tls is not None:
            fields["authorities"] = "; ".join(each.subject for each in found.tls.authorities) or None
        problems = {f"problem {place}": problem for place, problem in enumerate(found.problems, 1)}
        print_fields(fields | stored | problems)
        if parts:
            typer.echo()
            rows = (each | {"behind": _age(each["seconds_behind"]), "kept_for": _left(each)} for each in parts)
            group = () if all(each["group"] == where.group for each in parts) else ("group",)
            shown = ("topic", "partition", "reason", "position", "end", "record_at", "behind", "kept_for")
            print_rows((*group, *shown), rows)
            left: list[Any] = [each["seconds_left"] for each in parts if each["seconds_left"] is not None]
            if left and min(left) < health.EXPIRES_SOON:
                typer.secho(f"Kafka removes the next event in {health.time_left(min(left))}", fg=typer.colors.YELLOW)


def _age(seconds: Any) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _left(part: Mapping[str, Any]) -> str | None:
    return None if part["seconds_left"] is None else health.time_left(part["seconds_left"])


def enable(subscription_id: IdArgument) -> None:
    """Enable a subscription.

    It gets events again, and its held deliveries are sent. One that is paused too stays paused: `resume` ends that.

    Example: kafka-webhooks subscriptions enable 7
    """
    by_user = changes()
    after = by_user.set_enabled(subscription_id, True).after
    if after.pause is None:
        typer.echo(f"subscription {subscription_id} is enabled{_waiting(by_user, subscription_id)}")
    else:
        rest = f"it is {printable(after.pause)}; `subscriptions resume {subscription_id}` ends that"
        typer.echo(f"subscription {subscription_id} is enabled, and gets no events yet: {rest}")


def _waiting(by_user: Changes, subscription_id: int) -> str:
    held = search.of_subscription(by_user.deployment.engine, subscription_id)["held"]
    return f"; {number(held, 'delivery')} held for it will be sent within a minute" if held else ""


def pause(
    subscription_id: IdArgument,
    *,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; `subscriptions show` prints it.")] = None,
) -> None:
    """Pause a subscription: its events wait in Kafka.

    Nothing is sent to it, and its stored deliveries are held. `resume` sends it all events from the beginning of the
    pause that Kafka's retention has kept by then. The other subscriptions go on. One that is paused already stays
    paused since then, and keeps its reason unless you give another, which also ends the probes of one that failures
    had paused.

    \b
    Examples:
      kafka-webhooks subscriptions pause 7
      kafka-webhooks subscriptions pause 7 --reason "its database moves tonight"
    """
    done = changes().pause(subscription_id, reason)
    before, after = done.before, done.after
    again = f" already, since {before.paused_at:%Y-%m-%dT%H:%M:%SZ}" if before.paused_at else ""
    why = f"; the reason is now: {printable(reason)}" if again and reason and reason != before.paused_reason else ""
    why += "; failures have paused it, and workers probe it: a --reason ends that" if after.probed else ""
    off = "" if after.enabled else "; it is disabled too, and is owed no events until `subscriptions enable`"
    typer.echo(f"subscription {subscription_id} is paused{again}{why}{off}")


def resume(subscription_id: IdArgument) -> None:
    """Resume a paused subscription.

    Workers begin within seconds to send it the events of the pause, in order if it is ordered, at its own limits, and
    its held deliveries within a minute. New events come behind them, or among them if it is not ordered.

    Example: kafka-webhooks subscriptions resume 7
    """
    by_user = changes()
    done = by_user.resume(subscription_id)
    was = "is resumed" if done.before.paused_at else "was not paused"
    if done.after.enabled:
        typer.echo(f"subscription {subscription_id} {was}{_waiting(by_user, subscription_id)}")
    else:
        rest = f"it is disabled; `subscriptions enable {subscription_id}` ends that"
        typer.echo(f"subscription {subscription_id} {was}, and gets no events yet: {rest}")


def disable(
    subscription_id: IdArgument,
    *,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; `subscriptions show` prints it.")] = None,
) -> None:
    """Disable a subscription.

    It matches no event, and its stored deliveries are held. It does not get the events that happen meanwhile, unless
    `kafka-webhooks replay` sends them; `pause` keeps them for it. A subscription that is already disabled keeps its
    reason, unless you give another.

    \b
    Example:
      kafka-webhooks subscriptions disable 7 --reason "moves to another host"
    """
    before = changes().set_enabled(subscription_id, False, reason).before
    if before.enabled:
        typer.echo(f"subscription {subscription_id} is disabled")
        return
    known = f", because: {printable(before.disabled_reason)}" if before.disabled_reason else ""
    new = f"; the reason is now: {printable(reason)}" if reason and reason != before.disabled_reason else ""
    typer.echo(f"subscription {subscription_id} was disabled already{known}{new}")


def remove(subscription_id: IdArgument, *, yes: YesOption = False) -> None:
    """Remove a subscription.

    Its stored deliveries that are still owed are given up within a minute: they stay in the table as exhausted, and
    cannot be sent again. The events that its cursors owe it are not sent. The command counts the deliveries first, and
    asks if there are any, or cursors.

    \b
    Examples:
      kafka-webhooks subscriptions remove 7
      kafka-webhooks subscriptions remove 7 --yes
    """
    by_user = changes()
    where = by_user.deployment
    where.subscription(subscription_id)
    owed = search.loads(where.engine, [subscription_id], MOST_COUNTED + 1)[subscription_id]
    stored = [f"{bounded(owed, 'delivery')} stored for it"] if owed else []
    waiting = ["its events that wait in Kafka"] if backlogs.of_subscription(where.engine, subscription_id, 1) else []
    given_up = " and ".join(stored + waiting)
    if given_up:
        confirm(f"Remove subscription {subscription_id} and give up {given_up}?", yes=yes)
    by_user.remove(subscription_id, give_up=True)
    after = f"; given up within a minute: {given_up}" if given_up else ""
    typer.echo(f"subscription {subscription_id} removed{after}")


def _warn_of_doubts(url: str | None, event_types: Iterable[str]) -> None:
    """Warn of what is valid and hardly meant, as a host that has no address here: workers may use another DNS."""
    for doubled in (each for each in event_types if ".." in each):
        typer.echo(f"warning: event type: {doubled} gets only events whose type has both dots in a row, too", err=True)
    if url is None:
        return
    if "#" in url:
        typer.echo("warning: url: what follows # is never sent; write %23 if it belongs to the path", err=True)
    if (policy := policy_of(load(RuleSettings))) is None:
        return
    named = judge_names(policy, [url])[url]
    if named.refused is not None:
        typer.echo(
            f"warning: url: {named.refused}. If it does for workers too, deliveries are stored, not sent", err=True
        )
    if named.unresolved is not None:
        typer.echo(f"warning: url: {named.unresolved}. Until it does, attempts fail and are retried", err=True)


def _read(secrets: list[tuple[str, str | None]]) -> list[tuple[str, str]]:
    """The given secrets, by kind; a line of stdin replaces a `-`."""
    there = [(kind, text) for kind, text in secrets if text is not None]
    if sum(text == STDIN for _, text in there) > 1:
        raise typer.BadParameter("only one secret can be read from the standard input", param_hint=STDIN)
    return [(kind, given_secret(kind, text, "--secret-header")) for kind, text in there]
