"""Each revision up and back on the emulated Oracle server with a million rows in each table: seconds, and memory.

python -m benchmarks.migrations [ROWS]

The emulator keeps all in the memory of one Java machine (6 GB here): this compares revisions, and proves no lock.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing

import oracledb
from alembic import command
from sqlalchemy import Engine

from consumer.database import migrations
from tests.databases import connect_to
from tests.oracle_emulator import OracleEmulator

FILLED_AT = "0002"  # the first revision with stored deliveries
PART = 1000  # numbers in the table that generates rows
RECORD = "group_id, topic, partition_no, record_offset, record_ts"
# The row's number is {n}: PART numbers, times the parts.
FILL = (
    "INSERT INTO webhook_subscriptions (url, event_type) SELECT 'https://r.example/' || {n}, 'order.' || {n} FROM",
    "INSERT INTO webhook_secrets (subscription_id, secret) SELECT {n}, 'whsec_' || {n} FROM",
    f"INSERT INTO webhook_payloads ({RECORD}, event_type, webhook_id, body_size)"  # noqa: S608 (constants)
    " SELECT 'group', 'orders', MOD({n}, 12), {n}, 1700000000000, 'order.created', 'msg_' || {n}, 0 FROM",
    f"INSERT INTO webhook_deliveries ({RECORD}, subscription_id, url, status, attempt, last_error)"  # noqa: S608 (the same)
    " SELECT 'group', 'orders', MOD({n}, 12), {n}, 1700000000000, MOD({n}, 1000) + 1, 'https://r.example/hooks',"
    " 'parked', 1, 'status 503' FROM",
)


def fill(connection: oracledb.Connection, rows: int) -> None:
    """Fill the tables of FILLED_AT, with a transaction for each hundredth of the rows."""
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE numbers (n NUMBER)")
    cursor.executemany("INSERT INTO numbers VALUES (:1)", [(number,) for number in range(1, PART + 1)])
    parts = rows // PART
    step = max(1, parts // 100)
    for statement in FILL:
        text = statement.format(n=f"(a.n + {PART} * (b.n - 1))")
        for part in range(1, parts + 1, step):
            until = min(part + step - 1, parts)
            cursor.execute(f"{text} numbers a CROSS JOIN numbers b WHERE b.n BETWEEN {part} AND {until}")
            connection.commit()


def steps(engine: Engine) -> Iterator[tuple[str, float]]:
    """Migrate by one revision after the other, up and back; yields each with its seconds."""
    todo = [each for each in migrations.revisions() if each > FILLED_AT]
    for revision in todo:
        start = time.perf_counter()
        migrations.upgrade(engine, revision=revision)
        yield f"to {revision}", time.perf_counter() - start
    for revision, before in zip(reversed(todo), reversed([FILLED_AT, *todo[:-1]]), strict=True):
        start = time.perf_counter()
        command.downgrade(migrations._config(engine), before)  # noqa: SLF001 (there is no command for it)
        yield f"back from {revision}", time.perf_counter() - start


def main(rows: int) -> None:
    """Print a line for each step."""
    os.environ["_JAVA_OPTIONS"] = "-Xmx6g -XX:TieredStopAtLevel=4"
    with OracleEmulator() as oracle:
        engine = connect_to(oracle.url)
        migrations.upgrade(engine, revision=FILLED_AT)
        with closing(oracledb.connect(user="webhooks", password="secret", dsn=oracle.dsn)) as connection:
            start = time.perf_counter()
            fill(connection, rows)
            cursor = connection.cursor()

            def report(step: str, seconds: float) -> None:
                (used,) = cursor.execute("SELECT MEMORY_USED() FROM dual").fetchone() or (0,)
                print(f"{step:16} {seconds:7.1f} s {used / 1024:7.0f} MiB", flush=True)

            report(f"{rows} rows", time.perf_counter() - start)
            for step, seconds in steps(engine):
                report(step, seconds)
        engine.dispose()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
