"""The second part of `make first-hour`: what only a real Oracle server shows, each a verdict with its figure.

python -m tests.first_hour [ROWS]

ORACLE_URL names a user with an empty schema, and none of the tables is left. ROWS (a million) is the number of
deliveries, of subscriptions, and of a team's rows to adopt. The exit status is 1 if a verdict is `look at this`, and 2
if nothing was tried.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from consumer.database import migrations
from consumer.database.engine import CALL_TIMEOUT, ping, place_of
from consumer.database.errors import line
from consumer.errors import WebhooksError
from tests.databases import connect_to
from tests.first_hour import adoption, all_statements, due_rows, estate, load, locks, server
from tests.first_hour.verdicts import LOOK, Finding, patient
from tests.ledger.rows_kit import PLACES
from tests.oracle.oracle_databases import OURS, tables_of

ROWS = 1_000_000
CONTENTION = 300.0  # seconds for ROWS rows, and fewer for fewer

Part = Callable[[], Iterator[Finding]]


def parts(engine: Engine, rows: int) -> dict[str, Part]:
    """What is looked at, in this order: each needs the rows of the parts before it."""
    share = min(1.0, rows / ROWS)
    return {
        "settings": lambda: server.settings(engine),
        "the accounts": lambda: server.accounts(engine),
        "subscriptions": lambda: estate.subscribed(engine, rows),
        "deliveries": lambda: estate.filled(engine, rows),
        "due rows without statistics": lambda: due_rows.looked_at(engine, PLACES, "without statistics"),
        "statistics": lambda: estate.with_statistics(engine),
        "all statements": lambda: all_statements.planned(engine),
        "due rows": lambda: due_rows.looked_at(engine, PLACES, "all rows waiting"),
        "look-ups": lambda: load.looked_up(engine),
        "taking up": lambda: load.fetched(engine),
        "redo": lambda: load.redo(engine),
        "pruning": lambda: estate.pruned(engine, rows),
        "statistics of the rest": lambda: estate.with_statistics(engine),
        "due rows of the rest": lambda: due_rows.looked_at(engine, PLACES, "nine of ten pruned"),
        "contention": lambda: load.contended(engine, CONTENTION * share),
        "locks": lambda: locks.left(engine, max(0.3, CALL_TIMEOUT * share)),
        "cursors": lambda: all_statements.kept(engine),
        "adoption": lambda: _adoption(engine, rows),
    }


def _adoption(engine: Engine, rows: int) -> Iterator[Finding]:
    clean(engine)
    yield from adoption.adopted(engine, rows)


def clean(engine: Engine) -> None:
    """Drop our tables."""
    with patient(engine) as connection:
        for name in sorted(OURS & tables_of(engine)):
            connection.exec_driver_sql(f"DROP TABLE {name} CASCADE CONSTRAINTS PURGE")


def main(url: str, rows: int, say: Callable[[str], None]) -> int:
    """Look at the server of a URL. The exit status."""
    try:
        engine = connect_to(url)
        ping(engine)
    except (SQLAlchemyError, WebhooksError, ValueError) as error:
        say(f"ORACLE_URL: {line(error)}")
        return 2
    if engine.dialect.name != "oracle" or tables_of(engine):
        say("ORACLE_URL has to name an Oracle server, and a user without tables: this program drops the service's.")
        engine.dispose()
        return 2
    say(f"{place_of(engine)}, {rows:,} rows of each kind")
    verdicts = Counter[str]()
    try:
        migrations.upgrade(engine)
        for name, part in parts(engine, rows).items():
            for verdict, text in _each(name, part):
                verdicts[verdict] += 1
                say(f"{verdict}: {text}".replace("\n", "\n    "))
    finally:
        clean(engine)
        engine.dispose()
    say(", ".join(f"{number} {verdict}" for verdict, number in sorted(verdicts.items()) if verdict != "…"))
    return 1 if verdicts[LOOK] else 0


def _each(name: str, part: Part) -> Iterator[Finding]:
    """The findings of a part. One that fails is a finding, too, and the other parts go on."""
    try:
        yield from part()
    except Exception as error:  # noqa: BLE001 (each is told)
        yield Finding(LOOK, f"{name}: {type(error).__name__}: {line(error)}")


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    sys.exit(main(os.environ.get("ORACLE_URL", ""), number, lambda text: print(text, flush=True)))  # noqa: T201 (a program)
