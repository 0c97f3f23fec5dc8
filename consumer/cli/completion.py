"""`kafka-webhooks completion`: Typer's scripts, with which a shell calls this program to complete a word.

The program then answers from its commands and options alone. It reads no setting and no database.
"""

import os
from enum import StrEnum
from typing import Annotated

import typer

ASKED = "_KAFKA_WEBHOOKS_COMPLETE"  # the variable that a script sets; Typer derives its name from the program's


class Shell(StrEnum):
    """The shells that have a script."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="The shell.")]) -> None:
    """Print a script that lets a shell complete commands.

    The script calls the installed program, so that it need not be renewed after an upgrade. For zsh put it after
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
    """Let Typer answer a shell's call. Without this call it would need two options of its own in each help."""
    if ASKED in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]  # the same

        completion_init()
