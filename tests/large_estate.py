"""A large estate in SQLite: 100,000 subscriptions and a million stored deliveries, made only by SQL."""

from sqlalchemy import Engine

from tests.ledger.rows_kit import run

SUBSCRIPTIONS = 100_000
DELIVERIES = 1_000_000
BORN = 1_700_000_000  # unix seconds; the first delivery is stored a second later
_NUMBERS = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :most)"
_RECORD = "group_id, topic, partition_no, record_offset, record_ts"


def fill(engine: Engine, subscriptions: int = SUBSCRIPTIONS, deliveries: int = DELIVERIES) -> None:
    """Add a delivery per second, half of them to subscription 1; one in ten is exhausted, one in a thousand held.

    A third of the subscriptions are of all tenants, the others of 1,000. The tenant `rare` has two deliveries. One in
    ten subscriptions has a further type, a secret, and an authority that cannot be read; one is paused.
    """
    _insert(
        engine,
        "webhook_subscriptions (id, url, event_type, enabled, failing_since, tenant)",
        "n, 'https://example.com/' || n, 'type.' || (n % 500), n % 1000 <> 0, CASE WHEN n % 100 = 1 THEN {at} END,"
        " CASE WHEN n % 3 = 0 THEN '*' ELSE 'tenant-' || (n % 1000) END",
        subscriptions,
    )
    tenth = subscriptions // 10
    at = "SELECT tenant FROM webhook_subscriptions WHERE id = n * 10 - 1"
    _insert(engine, "webhook_event_types (subscription_id, tenant, event_type)", f"n * 10 - 1, ({at}), 'more'", tenth)
    _insert(engine, "webhook_secrets (subscription_id, secret)", "n * 10 - 1, 'a secret of its own'", tenth)
    _insert(engine, "webhook_tls (subscription_id, authorities)", "n * 10 - 1, 'none'", tenth)
    run(engine, "UPDATE webhook_subscriptions SET paused_at = created_at WHERE id % 10 = 5")
    _insert(
        engine,
        f"webhook_payloads ({_RECORD}, event_type, webhook_id, body, tenant)",
        "'webhooks', 't', n % 12, n, n, 'type.' || (n % 500), 'msg_' || n, CAST('1' AS BLOB),"
        f" 'tenant-' || CASE WHEN n % 2 THEN 1 ELSE (n % {subscriptions} + 1) % 1000 END",
        deliveries,
    )
    _insert(
        engine,
        f"webhook_deliveries ({_RECORD}, subscription_id, url, attempt, last_error,"
        " next_attempt_at, created_at, status)",
        f"'webhooks', 't', n % 12, n, n, CASE WHEN n % 2 THEN 1 ELSE n % {subscriptions} + 1 END,"
        " 'https://example.com', 1, 'status 503', {at}, {at},"
        " CASE WHEN n % 1000 = 0 THEN 'held' WHEN n % 10 = 0 THEN 'exhausted' ELSE 'parked' END",
        deliveries,
    )
    for record in (77_776, 99_990):
        run(engine, "UPDATE webhook_payloads SET tenant = 'rare' WHERE record_offset = :r", r=record)
        run(engine, "UPDATE webhook_subscriptions SET tenant = 'rare' WHERE id = :s", s=record + 1)


def _insert(engine: Engine, columns: str, values: str, rows: int) -> None:
    filled = values.format(at=f"strftime('%Y-%m-%d %H:%M:%f000', {BORN} + n, 'unixepoch')")
    run(engine, f"{_NUMBERS} INSERT INTO {columns} SELECT {filled} FROM numbers", most=rows)  # noqa: S608 (our own text)
