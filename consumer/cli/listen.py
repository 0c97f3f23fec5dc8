"""`kafka-webhooks listen`."""

import signal
import time
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from consumer.crypto.keys import VerifyingKey
    from consumer.ops.receiver import Received, Reply

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
    from consumer.cli.console import configure
    from consumer.http.server import listen as open_port
    from consumer.http.server import serve
    from consumer.ops.receiver import HexHeader, Reply, create_app

    configure()
    answer = Reply(status, delay)
    app = create_app(_keys(secret), _print, lambda _: answer, hex_header=HexHeader(hex_header, hex_prefix))
    listener = open_port(host, port)
    typer.echo(f"listening on http://{host}:{listener.getsockname()[1]} (Ctrl-C ends it)", err=True)
    serve(app, listener)


def _keys(texts: list[str] | None) -> "list[VerifyingKey]":
    from consumer.config.environment import load
    from consumer.config.settings import SigningSettings
    from consumer.crypto.keys import parse_verifying_key

    try:
        return [parse_verifying_key(text) for text in texts or load(SigningSettings).secrets]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--secret") from None


def _print(received: "Received", answer: "Reply") -> None:
    from consumer.cli.console import discard_output, printable

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
