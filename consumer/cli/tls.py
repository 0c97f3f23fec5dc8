"""`kafka-webhooks subscriptions set-tls`."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from consumer.cli.registry import IdArgument, absent, registry, vault_to_write
from consumer.cli.secrets import UnencryptedOption


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
    from consumer.cli.console import open_database
    from consumer.crypto.certificates import TlsIdentity
    from consumer.errors import WebhooksError
    from consumer.ops import changes

    if (cert is None) != (key is None):
        raise typer.BadParameter("--cert and --key belong together")
    if remove == (cert is not None or ca is not None):
        raise typer.BadParameter("give --cert and --key, --ca, or --remove")
    actor = changes.command_line_actor()
    if remove:
        removed = changes.remove_tls(registry(open_database()), actor, subscription_id)
        if removed is None:
            raise absent(subscription_id)
        typer.echo(f"subscription {subscription_id} {'uses' if removed else 'used'} no certificates of its own")
        return
    vault = vault_to_write(unencrypted=unencrypted or key is None)
    given = TlsIdentity(_text(cert), _text(key), _text(ca))
    now = datetime.fromtimestamp(time.time(), UTC)
    found = changes.set_tls(registry(open_database(), vault), actor, subscription_id, given, now)
    if found is None:
        raise absent(subscription_id)
    if found.tls is None:  # for mypy
        raise WebhooksError("the certificates were removed meanwhile")
    own, trusted = found.tls.certificate, found.tls.authorities
    if own is not None:
        typer.echo(f"subscription {subscription_id} shows {own.subject}, which expires on {own.not_after:%Y-%m-%d}")
    if trusted:
        typer.echo(f"subscription {subscription_id} trusts {'; '.join(each.subject for each in trusted)}, and no other")


def _text(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text("ascii")
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{file} is not PEM; openssl converts it") from None
