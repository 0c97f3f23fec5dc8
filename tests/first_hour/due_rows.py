"""Plans and logical reads of the statements for due rows."""

import re
from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from consumer.events.event import TopicPartition
from consumer.ledger import assigned, due
from consumer.ledger.rows import DueKey
from tests.crypto.vaults import in_the_clear
from tests.first_hour.verdicts import Finding, Sent, judged, reads_of, sent_by, unseen, with_literals
from tests.ledger.rows_kit import DEFAULT, GROUP

MOST_READS = 400  # blocks: a few for each due key, and those of the returned rows. A bad plan reads thousands
_WRONG = re.compile(r"(?<!NO)SORT(?! AGGREGATE)|TABLE ACCESS (?:STORAGE )?FULL|INDEX (?:FAST )?FULL SCAN(?! \(MIN)")
_PLAN = "SELECT plan_table_output FROM TABLE(DBMS_XPLAN.DISPLAY(format => 'BASIC'))"


def looked_at(engine: Engine, places: Sequence[TopicPartition], when: str) -> Iterator[Finding]:
    """Verdicts of each statement for due rows of these partitions."""
    for name, sent in statements(engine, places).items():
        about = f"{name}, {when}"
        with engine.connect() as connection:
            try:
                connection.exec_driver_sql(f"EXPLAIN PLAN FOR {with_literals(sent)}")
                yield judge_plan(about, "\n".join(map(str, connection.exec_driver_sql(_PLAN).scalars())))
            except DBAPIError as error:
                yield unseen(f"{about}: its plan", error)
            yield reads_of(about, connection, sent, MOST_READS)


def statements(engine: Engine, places: Sequence[TopicPartition]) -> Mapping[str, Sent]:
    """The statements of `scan` and `fetch` that read deliveries and nothing else, by name."""
    found: dict[str, Sent] = {}

    def scan() -> None:
        keys.extend(assigned.scan(engine, GROUP, places, None).due_keys)

    def fetch() -> None:
        wants = [due.FetchRequest(key, 10, frozenset()) for key in keys]
        due.fetch(engine, GROUP, wants, 9e9, default_secrets=DEFAULT, decrypt=in_the_clear)

    keys: list[DueKey] = []
    for work in (scan, fetch):
        for sent in sent_by(engine, work):
            alone = "webhook_deliveries" in sent.sql and "webhook_payloads" not in sent.sql
            if alone and sent.sql not in (each.sql for each in found.values()):
                found[f"{work.__name__}, statement {len(found) + 1}"] = sent
    return found


def judge_plan(name: str, plan: str) -> Finding:
    """The verdict of a plan's text: index range scans that stop at the first or last rows, and no sort or full scan."""
    wrong = sorted(set(_WRONG.findall(plan)))
    if "INDEX RANGE SCAN" not in plan or not re.search(r"STOPKEY|\(MIN/MAX\)", plan):
        wrong.append("no index range scan that stops")
    remedy = "docs/database.md, Inspecting plans, has the remedies"
    return judged(not wrong, f"{name}: an index range scan that stops", f"{name}: {', '.join(wrong)}; {remedy}\n{plan}")
