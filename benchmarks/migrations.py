"""Each revision up and back on the emulated Oracle server with a million stored deliveries: seconds, and memory.

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
OF_RECORD = "'group', 'orders', MOD({n}, 12), {n}, 1700000000000"
# Each begins an INSERT of rows with the numbers {n}: a tenth of them subscriptions with a secret.
FILL = (
    ("webhook_subscriptions (url, event_type)", "'https://r.example/' || {n}, 'order.' || {n}", 10),
    ("webhook_secrets (subscription_id, secret)", "{n}, 'whsec_' || {n}", 10),
    (
        f"webhook_payloads ({RECORD}, event_type, webhook_id, body_size)",
        OF_RECORD + ", 'order.created', 'msg_' || {n}, 0",
        1,
    ),
    (
        f"webhook_deliveries ({RECORD}, subscription_id, url, status, attempt, last_error)",
        OF_RECORD + ", MOD({n}, 1000) + 1, 'https://r.example/hooks', 'parked', 1, 'status 503'",
        1,
    ),
)


def fill(connection: oracledb.Connection, rows: int) -> None:
    """Fill the tables of FILLED_AT, with a transaction for each PART of the rows."""
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE numbers (n NUMBER)")
    cursor.executemany("INSERT INTO numbers VALUES (:1)", [(number,) for number in range(1, PART + 1)])
    for into, values, share in FILL:
        for part in range(rows // share // PART):
            numbered = values.format(n=f"({PART * part} + n)")
            cursor.execute(f"INSERT INTO {into} SELECT {numbered} FROM numbers")  # noqa: S608 (constants)
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
        with closing(oracledb.connect(user="webhooks", password="secret", dsn=oracle.dsn)) as connection:  # noqa: S106 (the emulator's)
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
