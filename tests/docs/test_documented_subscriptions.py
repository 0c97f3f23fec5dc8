"""docs/subscriptions.md against the code: each option's column, default, flag, effect and test."""

import re

import pytest

from consumer.cli.subscription_options import FLAGS, flag_of
from consumer.expressions.expression import NAMES
from consumer.subscriptions.options import OPTIONS, Effect
from consumer.subscriptions.secrets import CREDENTIALS
from tests.commands import commands
from tests.docs.documentation import ROOT, TEXTS, code, rows, table_behind

PAGE = "docs/subscriptions.md"
TABLE = rows(PAGE, "Every option")
SECRETS = table_behind(PAGE, "| kind | flag")


def test_each_option_is_in_the_table() -> None:
    """The table has the column, default and flag of all options, and no others."""
    assert {code(column)[0] for column, *_ in TABLE} == OPTIONS.keys()
    for cells in TABLE:
        column = code(cells[0])[0]
        option = OPTIONS[column]
        default = "required" if option.required else f"`{option.default}`" if option.default else "null"
        assert cells[1].partition(":")[0] == default
        assert column not in FLAGS or code(cells[2]) == [flag_of(column)]


def test_each_secret_is_in_the_table() -> None:
    """The table has all kinds with the flags of `add`, and no others."""
    assert [code(kind)[0] for kind, *_ in SECRETS] == ["signing", *CREDENTIALS]
    flags = {flag for _, names, *_ in SECRETS for flag in code(names)}
    command = commands()["subscriptions add"]
    panel = {each.opts[0] for each in command.params if (getattr(each, "rich_help_panel", "") or "").startswith("Secr")}
    assert flags == panel - {"--unencrypted"}


@pytest.mark.parametrize("test", sorted({code(cells[-1])[0] for cells in [*TABLE, *SECRETS]}))
def test_the_named_tests_exist(test: str) -> None:
    """A test that is renamed is renamed here too."""
    file, name = test.split("::")
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_effects() -> None:
    """The page has the effect of each option whose value is unusable."""
    *of_options, together = rows(PAGE, "Broken subscriptions")
    said = {name: follows for names, follows in of_options for name in code(names)}
    assert said.keys() == OPTIONS.keys()
    for column, option in OPTIONS.items():
        assert said[column].lower().startswith(option.effect.value.lower()), column
    assert together[1].lower() == f"{Effect.UNUSED.value}."


def test_variables_of_filters() -> None:
    """The page has each name that a filter can use."""
    (line,) = [line for line in TEXTS[PAGE].splitlines() if line.startswith("- **Filter**")]
    assert set(NAMES) <= set(code(line))
