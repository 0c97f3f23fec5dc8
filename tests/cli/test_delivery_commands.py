"""`deliveries`, `subscriptions` and the refusals of `replay`; no worker runs."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, insert, text, update

from consumer.cli import console
from consumer.events.event import Event, RecordId
from consumer.ledger import outbox, store
from consumer.ledger.rows import AttemptFailure, NewDelivery
from consumer.subscriptions import repository
from models import StoredReplay, Subscription
from tests.databases import url_of
from tests.processes import Command

GROUP = "webhooks"
URL = "https://example.com/hook"
AT = 1_700_000_000.0
FAILED = AttemptFailure("status 503\x1b[31m", 503, "<h1>no\x1b]0;title\x07", AT + 5)


@pytest.fixture
def database(engine: Engine) -> dict[str, str]:
    """Settings of a command: the database, and a Kafka address where nobody listens."""
    return {
        "DATABASE_URL": url_of(engine),
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "KAFKA_TOPICS": "t",
    }


@pytest.fixture
def sub(engine: Engine) -> int:
    return repository.add(engine, URL, "a", rate_limit=20, ordering="key")


def keep(engine: Engine, sub: int, offsets: Sequence[int], status: str, *, event_type: str = "a") -> None:
    """Stores deliveries of records with these offsets, parked for long or exhausted."""
    rows = []
    for offset in offsets:
        event = Event(
            RecordId("t", 2, offset, int(AT * 1000)), event_type, f"msg_{offset}", b'{"\xc3\xbc": 1}', "", None, None
        )
        row = NewDelivery(event, sub, URL, 1, "exhausted", None, FAILED, FAILED)
        rows.append(row if status == "exhausted" else row._replace(status="parked", next_attempt_at=AT + 9e8))
    store.park(engine, GROUP, rows, time.time())


def states(engine: Engine) -> dict[int, str]:
    with engine.connect() as connection:
        return {row[0]: row[1] for row in connection.execute(text("SELECT id, status FROM webhook_deliveries"))}


def test_deliveries_are_listed_by_filter(command: Command, database: dict[str, str], engine: Engine, sub: int) -> None:
    """Filters and a limit apply, the limit is reported, and a receiver's answer cannot control the terminal."""
    other = repository.add(engine, URL, "b")
    keep(engine, sub, range(3), "exhausted")
    keep(engine, other, range(5, 7), "parked", event_type="b")
    shown = command("deliveries", "list", **database)
    assert (shown.returncode, shown.stderr) == (0, "")
    head, first, *_ = shown.stdout.splitlines()
    columns = ["id", "status", "subscription", "event_type", "attempts", "changed", "next_attempt", "last_error"]
    assert head.split() == columns
    assert first.split()[:5] == ["1", "exhausted", "1", "a", "1"]
    assert first.split()[6] == "-"
    assert "\\x1b" in first
    assert "\x1b" not in shown.stdout

    def ids(*options: str) -> list[int]:
        listed = command("deliveries", "list", "--json", *options, **database)
        return [item["id"] for item in json.loads(listed.stdout)]

    assert ids("--status", "parked", "--status", "held") == [4, 5]
    assert ids("--subscription", str(sub), "--since", "1h") == [1, 2, 3]
    assert ids("--event-type", "b", "--after", "4") == [5]
    assert ids("--until", "2020-01-01") == []
    cut = command("deliveries", "list", "--limit", "2", **database)
    assert (len(cut.stdout.splitlines()), cut.stderr.split(":")[0]) == (3, "there are more")
    assert "--after 2" in cut.stderr
    assert command("deliveries", "list", "--status", "held", **database).stderr == "no such deliveries are stored\n"


def test_no_password_of_a_url_is_shown(command: Command, database: dict[str, str], engine: Engine, sub: int) -> None:
    """Plain SQL can store such a URL, which is broken; lists are copied into tickets."""
    keep(engine, sub, [7], "parked")
    with engine.begin() as connection:
        for table in ("webhook_subscriptions", "webhook_deliveries"):
            connection.execute(text(f"UPDATE {table} SET url = 'http://user:s3cret%40host/'"))  # noqa: S608 (constants)
    for words in (
        ("subscriptions", "list"),
        ("subscriptions", "list", "--json"),
        ("subscriptions", "show", "1"),
        ("deliveries", "list", "--json"),
        ("deliveries", "show", "1"),
    ):
        said = command(*words, **database).stdout
        assert ("@host/" in said, "s3cret" in said) == (True, False), words


def test_a_delivery_is_shown_in_full(command: Command, database: dict[str, str], engine: Engine, sub: int) -> None:
    """The output has record, receiver, attempts and the answer; the body only on request."""
    keep(engine, sub, [7], "parked")
    shown = command("deliveries", "show", "1", **database).stdout
    assert "\x1b" not in shown
    for line in (
        "topic partition 2 offset 7",
        "webhook id msg_7",
        f"url {URL}",
        "attempts 1",
        "last status 503",
        "first attempt 2023-11-14T22:13:25Z",
        "record time 2023-11-14T22:13:20Z",
        "retry schedule as in WEBHOOK_RETRY_SCHEDULE",
    ):
        words = line.replace("topic partition", "partition").split(" offset ")
        assert all(part.split()[-1] in shown for part in words), line
    assert "ü" not in shown
    assert '{"ü": 1}' in command("deliveries", "show", "1", "--body", **database).stdout
    found = json.loads(command("deliveries", "show", "1", "--body", "--json", **database).stdout)
    assert (found["body"], found["status"], found["offset"]) == ('{"ü": 1}', "parked", 7)
    assert "body" not in json.loads(command("deliveries", "show", "1", "--json", **database).stdout)
    missing = command("deliveries", "show", "2", **database)
    assert (missing.returncode, missing.stdout, len(missing.stderr.splitlines())) == (1, "", 1)


def test_redelivery_marks_the_selected_deliveries(
    command: Command, database: dict[str, str], engine: Engine, sub: int
) -> None:
    """Options select exhausted deliveries unless they name a status.

    Ids select any. Those of removed subscriptions are skipped. Operational events name the user and the deliveries.
    """
    gone = repository.add(engine, URL, "b")
    keep(engine, sub, range(3), "exhausted")
    keep(engine, gone, range(5, 7), "exhausted", event_type="b")
    repository.remove(engine, gone)
    nobody = command("deliveries", "redeliver", "--subscription", str(sub), **database)
    assert (nobody.returncode, nobody.stdout) == (2, "")
    assert "--yes" in nobody.stderr
    by_id = command("deliveries", "redeliver", "2", "--no-wait", **database)
    assert (by_id.returncode, by_id.stdout) == (0, "1 delivery due now; the workers send them\n")
    assert states(engine) == {1: "exhausted", 2: "parked", 3: "exhausted", 4: "exhausted", 5: "exhausted"}
    rest = command("deliveries", "redeliver", "--since", "1h", "--yes", "--no-wait", **database)
    assert (rest.returncode, rest.stdout) == (0, "2 deliveries due now; the workers send them\n")
    assert "2 deliveries skipped: their subscriptions were removed" in rest.stderr
    none = command("deliveries", "redeliver", "4", "99", "--no-wait", **database)
    assert (none.returncode, none.stdout) == (1, "")
    assert "not sent again: 4, 99" in none.stderr
    told = [event for _, event, _ in outbox.pending(engine, GROUP, 9)]
    assert [(each.type, each.data["delivery_ids"], each.data["subscription_ids"]) for each in told] == [
        ("delivery.redelivered", ids, [sub]) for ids in ([2], [1, 3])
    ]
    assert {str(each.data["actor"]).partition(":")[0] for each in told} == {"cli"}


def test_removing_asks_before_deliveries_are_given_up(
    called: Command, database: dict[str, str], engine: Engine, sub: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Open deliveries are counted, up to a bound.

    Without any there is no question, and without a terminal --yes is needed.
    """
    keep(engine, sub, range(3), "parked")
    keep(engine, sub, [5], "exhausted")
    remove = ("subscriptions", "remove", str(sub))
    refused = called(*remove, **database)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "kafka-webhooks: Remove subscription 1 and give up 3 deliveries stored for it? There is no terminal "
        "to answer on, and nothing was changed: give --yes (`kafka-webhooks subscriptions remove --help` shows how)\n"
    )
    assert repository.get(engine, sub)
    monkeypatch.setattr(console, "MOST_COUNTED", 2)
    assert "and give up more than 2 deliveries stored" in called(*remove, **database).stderr
    done = called(*remove, "--yes", **database)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "subscription 1 removed; given up within a minute: more than 2 deliveries\n"
    again = called(*remove, **database)  # its deliveries are exhausted later
    assert (again.returncode, again.stderr.startswith("kafka-webhooks: there is no subscription 1;")) == (1, True)
    other = repository.add(engine, URL, "a")
    assert called("subscriptions", "remove", str(other), **database).stdout == f"subscription {other} removed\n"


def test_adoption_moves_rows_and_reports_the_rest(
    command: Command, database: dict[str, str], engine: Engine, sub: int
) -> None:
    """Rows that the new group has stored itself stay and are counted; a group cannot adopt its own."""
    keep(engine, sub, range(3), "parked")
    database |= {"KAFKA_GROUP_ID": "new"}
    nothing = command("deliveries", "adopt", "--from-group", "other", "--yes", **database)
    assert (nothing.returncode, nothing.stderr) == (0, "the group other has no deliveries stored\n")
    asked = command("deliveries", "adopt", "--from-group", GROUP, **database)
    assert asked.returncode == 2
    done = command("deliveries", "adopt", "--from-group", GROUP, "--yes", **database)
    assert (done.returncode, done.stdout) == (0, "3 deliveries moved to new\n")
    keep(engine, sub, range(4), "parked")
    again = command("deliveries", "adopt", "--from-group", GROUP, "--yes", **database)
    assert again.stdout.splitlines() == [
        "1 delivery moved to new",
        f"3 deliveries left with {GROUP}: new has stored the same ones",
    ]
    own = command("deliveries", "adopt", "--from-group", "new", "--yes", **database)
    assert (own.returncode, len(own.stderr.splitlines())) == (2, 1)


def test_a_subscription_from_add_to_enable(command: Command, database: dict[str, str]) -> None:
    """It is added, disabled with a reason and enabled again."""
    assert command("subscriptions", "add", URL, "a", **database).stdout == "subscription 1 added\n"
    disabled = command("subscriptions", "disable", "1", "--reason", "moves", **database)
    assert disabled.stdout == "subscription 1 is disabled\n"
    again = command("subscriptions", "disable", "1", **database)
    assert again.stdout == "subscription 1 was disabled already, because: moves\n"
    other = command("subscriptions", "disable", "1", "--reason", "gone", **database)
    assert other.stdout == "subscription 1 was disabled already, because: moves; the reason is now: gone\n"
    assert "disabled: gone" in command("subscriptions", "list", **database).stdout
    assert command("subscriptions", "enable", "1", **database).stdout == "subscription 1 is enabled\n"


def test_stored_deliveries_of_a_subscription_are_counted(
    command: Command, database: dict[str, str], engine: Engine, sub: int
) -> None:
    """Enabling it reports how many were held."""
    keep(engine, sub, range(3), "exhausted")
    keep(engine, sub, [5], "parked")
    with engine.begin() as connection:
        connection.execute(text("UPDATE webhook_deliveries SET status = 'held' WHERE record_offset = 5"))
        since = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        connection.execute(update(Subscription).values(failing_since=since))
    shown = command("subscriptions", "show", "1", **database).stdout
    assert "failing since 2026-01-02T03:04:05Z" in shown.splitlines()[0]
    counted = [line.split() for line in shown.splitlines()[-4:]]
    assert counted == [["parked", "0"], ["blocked", "0"], ["held", "1"], ["exhausted", "3"]]
    enabled = command("subscriptions", "enable", "1", **database).stdout
    assert enabled == "subscription 1 is enabled; 1 delivery held for it will be sent within a minute\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--since", "2999-01-01"], "not in the past"),
        (["--since", "1h", "--until", "2h"], "not after the beginning"),
        (["--since", "1h", "--event-type", "b"], "gets a"),
        (["--since", "1h", "--rate", "21"], "to 20 per second, the limit of subscription 1"),
        (["--since", "1h", "--rate", "0"], "--rate"),
        (["--since", "1h", "--rate", "nan"], "--rate"),
    ],
)
def test_an_invalid_replay_is_2(
    command: Command, database: dict[str, str], sub: int, words: Sequence[str], says: str
) -> None:
    """The error says what to change, before Kafka is contacted."""
    ended = command("replay", "--subscription", str(sub), *words, "--yes", **database)
    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (2, "", 1)
    assert says in ended.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--subscription", "2", "--since", "1h"], "there is no subscription 2"),
        (["--subscription", "1", "--since", "1h"], "subscriptions enable 1"),
        (["--resume", "7"], "there is no replay 7"),
        (["--resume", "1"], "KAFKA_GROUP_ID"),
        (["--resume", "2"], "replay 2 is run by the API's processes"),
        (["--resume", "3"], "replay 3 cannot be resumed: its positions are not a JSON array"),
    ],
)
def test_an_impossible_replay_is_1(
    command: Command, database: dict[str, str], engine: Engine, sub: int, words: Sequence[str], says: str
) -> None:
    """Nothing is stored for an absent or disabled subscription, for another group, or for a replay of API processes.

    Nor for a replay with damaged positions.
    """
    repository.set_enabled(engine, sub, False)
    day = datetime(2026, 1, 1, tzinfo=UTC)
    with engine.begin() as connection:
        for group, background, positions in (("other", 0, "[]"), ("webhooks", 1, "[]"), ("webhooks", 0, "{}")):
            connection.execute(
                insert(StoredReplay).values(
                    group_id=group,
                    subscription_id=1,
                    since_at=day,
                    until_at=day,
                    rate=1,
                    positions=positions,
                    background=background,
                )
            )
    ended = command("replay", *words, "--yes", **database)
    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (1, "", 1)
    assert says in ended.stderr
