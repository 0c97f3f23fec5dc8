"""`kafka-webhooks subscriptions rotate-secret`, `set-credential`, `set-tls` and `encrypt-secrets`."""

import sys
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from consumer.cli.console import duration, header, number, print_json
from consumer.cli.deployment import IdArgument, changes, open_database, vault_to_write
from consumer.cli.progress import progress_bar, until_signal
from consumer.config.environment import environment, load
from consumer.config.settings import FILE, SigningSettings
from consumer.crypto.certificates import TlsIdentity
from consumer.crypto.keys import algorithm_of, receiver_key, weakness
from consumer.subscriptions import secrets, tls

STDIN = "-"

PANEL = "Secrets (- reads the standard input)"


def _option(metavar: str, about: str) -> Any:
    return typer.Option(help=about, metavar=metavar, rich_help_panel=PANEL)


BasicOption = Annotated[str | None, _option("USER:PASSWORD", "Basic authentication.")]
BearerOption = Annotated[str | None, _option("TOKEN", "A bearer token.")]
OAuth2Option = Annotated[str | None, _option("JSON", "OAuth2 client credentials.")]
PluginOption = Annotated[str | None, _option("JSON", "A plug-in of WEBHOOK_AUTH_PLUGINS.")]
UnencryptedOption = Annotated[
    bool,
    typer.Option("--unencrypted", help="Store in the clear, without WEBHOOK_ENCRYPTION_KEY.", rich_help_panel=PANEL),
]


def rotate_secret(
    subscription_id: IdArgument,
    *,
    overlap: Annotated[
        str, typer.Option(metavar="DURATION", help="How long the previous secrets also sign; 0: not at all.")
    ] = "24h",
    secret: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The new secret; - reads it from stdin. Default: a random one.")
    ] = None,
    algorithm: Annotated[
        Literal["hmac", "ed25519"] | None, typer.Option(help="Of a random secret. Default: that of the newest.")
    ] = None,
    unencrypted: UnencryptedOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Give a subscription a new signing secret.

    The previous secrets also sign until the overlap ends: the subscription's own, or else those of WEBHOOK_SECRET.
    The key that the receiver verifies with is printed on stdout, only this once: whsec_…, or for ed25519 whpk_….

    \b
    Examples:
      kafka-webhooks subscriptions rotate-secret 7 --overlap 24h
      kafka-webhooks subscriptions rotate-secret 7 --algorithm ed25519 --json
      kafka-webhooks subscriptions rotate-secret 7 --secret - < new-secret
    """
    lasting = duration(overlap, "--overlap")
    values = environment()
    default = load(SigningSettings, values).secrets if {"WEBHOOK_SECRET", "WEBHOOK_SECRET" + FILE} & set(values) else ()
    vault = vault_to_write(unencrypted=unencrypted)
    rotation = changes(vault, default).rotate(
        subscription_id,
        overlap=lasting,
        secret=None if secret is None else given("signing", secret),
        algorithm=algorithm,
    )
    key = receiver_key(rotation.secret)
    until = rotation.previous_until and rotation.previous_until.isoformat(timespec="seconds").replace("+00:00", "Z")
    if as_json:
        print_json(
            {
                "subscription_id": subscription_id,
                "algorithm": algorithm_of(rotation.secret),
                "receiver_key": key,
                "previous_until": until,
            }
        )
    else:
        typer.echo(key)
    what = "it" if key == rotation.secret else "this public key"
    typer.echo(f"subscription {subscription_id} signs with a new secret now; {what} is shown only once", err=True)
    before = f"by {until}; until then the previous secrets also sign" if until else "now; no previous secret signs"
    typer.echo(f"the receiver must accept it {before}", err=True)
    if (why := weakness(rotation.secret)) is not None:
        typer.echo(f"the secret {why}; without --secret a strong one is generated", err=True)
    if rotation.previous_until:
        typer.echo("until then the hex signature uses the previous secret, afterwards the new one", err=True)


def set_credential(
    subscription_id: IdArgument,
    *,
    basic: BasicOption = None,
    bearer: BearerOption = None,
    header: Annotated[str | None, _option("'NAME: VALUE'", "A confidential header.")] = None,
    oauth2: OAuth2Option = None,
    plugin: PluginOption = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove all credentials.")] = False,
    unencrypted: UnencryptedOption = False,
) -> None:
    """Set a credential that a subscription sends.

    --header replaces a header of the same name; the others replace each other. - reads the value from stdin.

    \b
    Examples:
      kafka-webhooks subscriptions set-credential 7 --bearer - < token
      kafka-webhooks subscriptions set-credential 7 --header "x-api-key: 3nc0d3"
      kafka-webhooks subscriptions set-credential 7 --oauth2 - < credentials.json
      kafka-webhooks subscriptions set-credential 7 --remove
    """
    options: dict[secrets.Credential, str | None] = {
        "basic": basic,
        "bearer": bearer,
        "header": header,
        "oauth2": oauth2,
        "plugin": plugin,
    }
    chosen = [(kind, text) for kind, text in options.items() if text is not None]
    if len(chosen) + remove != 1:
        raise typer.BadParameter("give exactly one of --basic, --bearer, --header, --oauth2, --plugin and --remove")
    if remove:
        removed = changes().remove_credentials(subscription_id)
        typer.echo(f"{number(removed, 'credential')} of subscription {subscription_id} removed")
        return
    ((kind, text),) = chosen
    vault = vault_to_write(unencrypted=unencrypted)
    secret = given(kind, text)
    changes(vault).set_credential(subscription_id, kind, secret)
    typer.echo(f"subscription {subscription_id} sends the credential from now on ({kind})")


def set_tls(
    subscription_id: IdArgument,
    *,
    cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Client certificate, then its intermediates, in PEM."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Key of the certificate, in PEM."),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The only authorities to trust, in PEM."),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove its certificates and authorities.")] = False,
    unencrypted: UnencryptedOption = False,
) -> None:
    """Set a subscription's client certificate and authorities.

    Parts that are not given stay as they are. Connections with a certificate are used for no other subscription, unless
    it has the same certificate, key and authorities.

    \b
    Examples:
      kafka-webhooks subscriptions set-tls 7 --cert client.pem --key client-key.pem
      kafka-webhooks subscriptions set-tls 7 --ca private-ca.pem
      kafka-webhooks subscriptions set-tls 7 --remove
    """
    if (cert is None) != (key is None):
        raise typer.BadParameter("--cert and --key belong together")
    if remove == (cert is not None or ca is not None):
        raise typer.BadParameter("give --cert and --key, --ca, or --remove")
    if remove:
        removed = changes().remove_tls(subscription_id)
        typer.echo(f"subscription {subscription_id} {'uses' if removed else 'used'} no certificates of its own")
        return
    by_user = changes(vault_to_write(unencrypted=unencrypted or key is None))
    found = by_user.set_tls(subscription_id, TlsIdentity(_text(cert), _text(key), _text(ca))).tls
    assert found is not None, "this transaction has written it"  # noqa: S101 (for mypy, too)
    own, trusted = found.certificate, found.authorities
    if own is not None:
        typer.echo(f"subscription {subscription_id} shows {own.subject}, which expires on {own.not_after:%Y-%m-%d}")
    if trusted:
        typer.echo(f"subscription {subscription_id} trusts {'; '.join(each.subject for each in trusted)}, and no other")


def encrypt_secrets() -> None:
    """Encrypt all stored secrets with the newest key.

    Private keys of client certificates are among them. The newest key is the first in WEBHOOK_ENCRYPTION_KEY. Secrets
    stored in the clear are encrypted too. The command may be run again at any time.

    Exit status 1 if there is a secret that no key decrypts.

    Example: kafka-webhooks subscriptions encrypt-secrets
    """
    vault = vault_to_write(unencrypted=None)
    engine = open_database()
    looked_at = encrypted = failed = 0
    batches = chain(secrets.reencrypt(engine, vault), tls.reencrypt(engine, vault))
    with progress_bar(secrets.count(engine) + tls.count(engine)) as draw:
        for batch in until_signal(batches, "run it again for the rest"):
            looked_at += batch.looked_at
            encrypted += batch.encrypted
            failed += len(batch.unopened)
            draw(looked_at, f"{encrypted:,} encrypted")
            for each in batch.unopened:
                typer.echo(f"{each.what} of subscription {each.subscription_id}: {each.why}", err=True)
    typer.echo(f"{number(looked_at, 'secret')} checked, {encrypted:,} encrypted, {failed:,} failed")
    if failed:
        raise typer.Exit(1)


def given(kind: str, text: str, header_option: str = "--header") -> str:
    """A secret from the command line. `-` reads it from stdin, which keeps it out of the shell's history.

    A usage error, which does not repeat it, for a header that is not one, such as a bare key.
    """
    if text == STDIN and sys.stdin.isatty():
        text = str(typer.prompt("Secret", hide_input=True, err=True))
    elif text == STDIN:
        text = sys.stdin.read() if kind in ("oauth2", "plugin") else sys.stdin.readline().rstrip("\r\n")
    if kind != "header":
        return text
    name, value = header(text, header_option)
    if not value.strip("="):  # only the padding of a base64 key
        raise typer.BadParameter("write 'NAME: VALUE'", param_hint=header_option)
    return f"{name}: {value}"


def _text(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text("ascii")
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{file} is not PEM; openssl converts it") from None
