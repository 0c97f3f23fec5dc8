"""The documented accounts without tables of their own: their statements and their grants."""

import re
from collections.abc import Iterator

from tests.docs.documentation import BLOCKS
from tests.golden.golden_sql import FOLDER, MIGRATIONS, SESSION, bare, blocks

# The functions of each account's programs: a worker; the API and `subscriptions`; `deliveries`, `replay` and `top`;
# `deliveries purge`.
ACCOUNTS = {
    "webhooks_service": r"database\.(migrations|statements)|matching"
    r"|ledger\.(store|ordering|outbox|assigned|due|pauses|cursors|backlogs\.look_at)"
    r"|ledger\.replays\.(requests|finish)"
    r"|ledger\.given_up\.(note_published|owe|purge|unpublished)|ledger\.marks\.(?!published)|ledger\.upkeep\.(?!by_id|_purge|purge|replays)",
    "webhooks_admin": r"subscriptions|ledger\.(request_keys|search\.(of_subscription|loads)|outbox\.add|marks\._mark)"
    r"|ledger\.(backlogs\.(of_subscription|covering|look_at)|cursors\.begin)",
    "webhooks_operator": r"ledger\.(admin|search)|ledger\.replays\.(?!requests|finish)"
    r"|ledger\.(backlogs\.(count|adopt|topics)|cursors\.begin)"
    r"|ledger\.marks\.(published|_mark)|ledger\.outbox\.add|ledger\.upkeep\.(drop_payloads|by_id: (?!`purge`))"
    r"|subscriptions\.(subscribed_rows\.found_rows|event_types\.of)"
    r"|ledger\.(given_up\.(_renew|_restore)|store\.(_stored_records|insert_new|exhausted)|ordering)",
    "webhooks_keeper": r"ledger\.upkeep\.(_purge|purge|replays|drop_payloads|by_id: `purge`)",
}


def granted(account: str) -> set[tuple[str, str]]:
    """The account's privileges on tables, as the documentation grants them."""
    blocks = "".join(block.text for block in BLOCKS if block.info == "sql oracle")
    return {
        (action, table)
        for actions, table in re.findall(rf"GRANT ([A-Z, ]+) ON (\w+) TO {account};", blocks)
        for action in actions.split(", ")
    }


def statements() -> Iterator[tuple[str, str]]:
    """The statements of docs/sql/oracle, each with the function that issues it and its purpose."""
    for path in set(FOLDER.glob("*.sql")) - {MIGRATIONS, SESSION}:
        for block in blocks(path.read_text()):
            function, purpose, *_ = (line.removeprefix("-- ") for line in block.strip().splitlines())
            yield f"{function}: {purpose}", bare(block)
