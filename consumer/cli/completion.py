"""`kafka-webhooks completion`: Typer's scripts, by which a shell asks this program to complete a word.

The program then answers from its commands and options alone. It reads no setting and no database.
"""

import os
from enum import StrEnum
from typing import Annotated

import typer

ASKED = "_KAFKA_WEBHOOKS_COMPLETE"  # the variable by which a script asks; Typer derives its name from the program's


class Shell(StrEnum):
    """The shells that have a script."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="The shell.")]) -> None:
    """Print a script by which a shell completes commands.

    The script asks the installed program, so that it need not be renewed after an upgrade. For zsh it belongs behind
    compinit.

    \b
    Examples:
      kafka-webhooks completion bash >> ~/.bashrc
      kafka-webhooks completion zsh >> ~/.zshrc
      kafka-webhooks completion fish > ~/.config/fish/completions/kafka-webhooks.fish
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # Typer exports neither

    from consumer.cli.app import PROGRAM

    typer.echo(get_completion_script(prog_name=PROGRAM, complete_var=ASKED, shell=shell.value))


def answer_shell() -> None:
    """Have Typer answer if a shell asks. It does so only with its own two options in each help, or with this call."""
    if ASKED in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]  # the same

        completion_init()
