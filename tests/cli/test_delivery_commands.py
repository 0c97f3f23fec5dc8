"""`deliveries`, `subscriptions`, and the refusals of `replay`; no worker runs."""

import json
import re
import signal
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, text, update

from consumer.cli import console
from consumer.ledger import cursors, replays, store, upkeep
from consumer.ledger.cursors import CursorMove, NewCursor
from consumer.ledger.replays import Span
from consumer.ledger.rows import AttemptFailure
from consumer.subscriptions import repository
from models import CursorReason, Subscription
from tests.ledger.rows_kit import GROUP, URL, expire, make_event, parked, query
from tests.processes import Command

DAY = 86_400.0
AT = 1_700_000_000.0
KAFKA = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "KAFKA_TOPICS": "t"}  # nobody listens there
FAILED = AttemptFailure("status 503\x1b[31m", 503, "<h1>no\x1b]0;title\x07", AT + 5)


@pytest.fixture
def sub(engine: Engine) -> int:
    return repository.add(engine, URL, "a", rate_limit=20, ordering="key")


def keep(
    engine: Engine, sub: int, offsets: Sequence[int], status: str, *, event_type: str = "a", at: float = 0.0
) -> None:
    """Stores deliveries of records with these offsets, parked for long or exhausted, `at` a time or now."""
    rows = []
    for offset in offsets:
        event = make_event(offset, partition=2, type=event_type, body=b'{"\xc3\xbc": 1}')
        row = parked(event, sub, AT + 9e8, status=status, first=FAILED, last=FAILED)
        rows.append(row if status == "parked" else row._replace(next_attempt_at=None))
    store.park(engine, GROUP, rows, at or time.time())


def states(engine: Engine) -> dict[int, str]:
    with engine.connect() as connection:
        return {row[0]: row[1] for row in connection.execute(text("SELECT id, status FROM webhook_deliveries"))}


def test_deliveries_are_listed_by_filter(called: Command, database: dict[str, str], engine: Engine, sub: int) -> None:
    """Filters and a limit apply, the limit is reported, and a receiver's answer cannot control the terminal."""
    other = repository.add(engine, URL, "b")
    keep(engine, sub, range(3), "exhausted")
    keep(engine, other, range(5, 7), "parked", event_type="b")
    shown = called("deliveries", "list", **database)
    assert (shown.returncode, shown.stderr) == (0, "")
    head, first, *_ = shown.stdout.splitlines()
    columns = ["id", "status", "subscription", "event_type", "attempts", "changed", "next_attempt", "last_error"]
    assert head.split() == columns
    assert first.split()[:5] == ["1", "exhausted", "1", "a", "1"]
    assert first.split()[6] == "-"
    assert "\\x1b" in first
    assert "\x1b" not in shown.stdout

    def ids(*options: str) -> list[int]:
        listed = called("deliveries", "list", "--json", *options, **database)
        return [item["id"] for item in json.loads(listed.stdout)]

    assert ids("--status", "parked", "--status", "held") == [4, 5]
    assert ids("--subscription", str(sub), "--since", "1h") == [1, 2, 3]
    assert ids("--event-type", "b", "--after", "4") == [5]
    assert ids("--until", "2020-01-01") == []
    cut = called("deliveries", "list", "--limit", "2", **database)
    assert (len(cut.stdout.splitlines()), cut.stderr.split(":")[0]) == (3, "there are more")
    assert "--after 2" in cut.stderr
    assert called("deliveries", "list", "--status", "held", **database).stderr == "no such deliveries are stored\n"


def test_no_password_of_a_url_is_shown(called: Command, database: dict[str, str], engine: Engine, sub: int) -> None:
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
        said = called(*words, **database).stdout
        assert ("@host/" in said, "s3cret" in said) == (True, False), words


def test_a_delivery_is_shown_in_full(called: Command, database: dict[str, str], engine: Engine, sub: int) -> None:
    """The output has record, receiver, attempts and the answer; the body only on request."""
    keep(engine, sub, [7], "parked")
    shown = called("deliveries", "show", "1", **database).stdout
    assert "\x1b" not in shown
    fields = dict(re.split("  +", line, maxsplit=1) for line in shown.splitlines())
    assert {name: fields[name] for name in ("partition", "offset", "webhook id", "url", "attempts", "last status")} == {
        "partition": "2",
        "offset": "7",
        "webhook id": "msg_7",
        "url": URL,
        "attempts": "1",
        "last status": "503",
    }
    assert (fields["first attempt"], fields["record time"]) == ("2023-11-14T22:13:25Z", "2023-11-14T22:13:20Z")
    assert fields["retry schedule"] == "as in WEBHOOK_RETRY_SCHEDULE"
    assert "ü" not in shown
    assert '{"ü": 1}' in called("deliveries", "show", "1", "--body", **database).stdout
    found = json.loads(called("deliveries", "show", "1", "--body", "--json", **database).stdout)
    assert (found["body"], found["status"], found["offset"]) == ('{"ü": 1}', "parked", 7)
    assert "body" not in json.loads(called("deliveries", "show", "1", "--json", **database).stdout)
    missing = called("deliveries", "show", "2", **database)
    assert (missing.returncode, missing.stdout, len(missing.stderr.splitlines())) == (1, "", 1)


def test_redelivery_marks_the_selected_deliveries(
    called: Command, database: dict[str, str], engine: Engine, sub: int
) -> None:
    """Options select exhausted deliveries unless they name a status.

    Ids select any. Those of removed subscriptions are skipped, and those of paused ones are held.
    """
    gone = repository.add(engine, URL, "b")
    keep(engine, sub, range(3), "exhausted")
    keep(engine, gone, range(5, 7), "exhausted", event_type="b")
    repository.remove(engine, gone)
    nobody = called("deliveries", "redeliver", "--subscription", str(sub), **database)
    assert (nobody.returncode, nobody.stdout) == (2, "")
    assert "--yes" in nobody.stderr
    by_id = called("deliveries", "redeliver", "2", "--no-wait", **database)
    assert (by_id.returncode, by_id.stdout) == (0, "1 delivery due now; the workers send them\n")
    assert states(engine) == {1: "exhausted", 2: "parked", 3: "exhausted", 4: "exhausted", 5: "exhausted"}
    rest = called("deliveries", "redeliver", "--since", "1h", "--yes", "--no-wait", **database)
    assert (rest.returncode, rest.stdout) == (0, "2 deliveries due now; the workers send them\n")
    assert "2 deliveries skipped: their subscriptions were removed" in rest.stderr
    none = called("deliveries", "redeliver", "4", "99", "--no-wait", **database)
    assert (none.returncode, none.stdout) == (1, "")
    assert "not sent again: 4, 99" in none.stderr
    repository.pause(engine, sub)
    held = called("deliveries", "redeliver", "2", "--no-wait", **database)
    assert held.stdout == "1 delivery held: their subscriptions are disabled or paused\n"
    held = called("deliveries", "redeliver", "2", **database)
    assert (held.returncode, held.stdout.splitlines()[1:]) == (1, ["0 delivered, 1 held"])
    assert "or `resume` if they are paused" in held.stderr


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
    assert done.stdout == "subscription 1 removed; given up within a minute: more than 2 deliveries stored for it\n"
    again = called(*remove, **database)  # its deliveries are exhausted later
    assert (again.returncode, again.stderr.startswith("kafka-webhooks: there is no subscription 1;")) == (1, True)
    other, owed = (repository.add(engine, URL, "a") for _ in range(2))
    assert called("subscriptions", "remove", str(other), **database).stdout == f"subscription {other} removed\n"
    cursors.begin(engine, GROUP, [NewCursor(("orders", 0, owed), 5, CursorReason.PAUSED)], 0.0)
    asked = called("subscriptions", "remove", str(owed), **database)
    assert (asked.returncode, "give up its events that wait in Kafka?" in asked.stderr) == (2, True)


def test_adoption_moves_rows_and_reports_the_rest(
    called: Command, database: dict[str, str], engine: Engine, sub: int
) -> None:
    """Rows that the new group has stored itself stay and are counted; a group cannot adopt its own.

    Cursors move too, and until then `subscriptions show` names their groups.
    """
    keep(engine, sub, range(3), "parked")
    database |= {"KAFKA_GROUP_ID": "new", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    nothing = called("deliveries", "adopt", "--from-group", "other", "--yes", **database)
    assert (nothing.returncode, nothing.stderr) == (0, "the group other has no deliveries stored\n")
    asked = called("deliveries", "adopt", "--from-group", GROUP, **database)
    assert asked.returncode == 2
    done = called("deliveries", "adopt", "--from-group", GROUP, "--yes", **database)
    assert (done.returncode, done.stdout) == (0, "3 deliveries moved to new\n")
    keep(engine, sub, range(4), "parked")
    again = called("deliveries", "adopt", "--from-group", GROUP, "--yes", **database)
    assert again.stdout.splitlines() == [
        "1 delivery moved to new",
        f"3 deliveries left with {GROUP}: new has stored the same ones",
    ]
    owed = NewCursor(("t", 2, sub), 5, CursorReason.PAUSED)
    for group in (GROUP, "new"):
        cursors.begin(engine, group, [owed, owed._replace(due_key=("t", 3, sub), first=len(group))], AT)
    columns = called("subscriptions", "show", str(sub), **database).stdout.splitlines()[-5].split()
    assert columns[:2] == ["group", "topic"]
    moved = called("deliveries", "adopt", "--from-group", GROUP, "--yes", **database)
    assert moved.stdout.splitlines()[1:] == [
        "1 cursor moved to new",
        "1 cursor deleted: new has its own at the same place",
        f"3 deliveries left with {GROUP}: new has stored the same ones",
    ]
    own = called("deliveries", "adopt", "--from-group", "new", "--yes", **database)
    assert (own.returncode, len(own.stderr.splitlines())) == (2, 1)


def test_a_subscription_from_add_to_enable(called: Command, database: dict[str, str]) -> None:
    """It is added, disabled with a reason and enabled again."""
    assert called("subscriptions", "add", URL, "a", **database).stdout == "subscription 1 added\n"
    disabled = called("subscriptions", "disable", "1", "--reason", "moves", **database)
    assert disabled.stdout == "subscription 1 is disabled\n"
    again = called("subscriptions", "disable", "1", **database)
    assert again.stdout == "subscription 1 was disabled already, because: moves\n"
    other = called("subscriptions", "disable", "1", "--reason", "gone", **database)
    assert other.stdout == "subscription 1 was disabled already, because: moves; the reason is now: gone\n"
    assert "disabled: gone" in called("subscriptions", "list", **database).stdout
    assert called("subscriptions", "enable", "1", **database).stdout == "subscription 1 is enabled\n"


def test_a_subscription_is_paused_and_resumed(called: Command, database: dict[str, str], engine: Engine) -> None:
    """Each answer says what is so now. Enabling does not end a pause, and resuming does not enable."""

    def do(*words: str) -> str:
        done = called("subscriptions", *words, **database)
        assert done.returncode == 0, done.stderr
        return re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z", "T", done.stdout.removeprefix("subscription 1 ").strip())

    do("add", URL, "a")
    assert do("resume", "1") == "was not paused"
    assert do("pause", "1") == "is paused"
    assert do("pause", "1", "--reason", "moves") == "is paused already, since T; the reason is now: moves"
    assert do("pause", "1", "--reason", "moves") == "is paused already, since T"
    with engine.begin() as connection:
        connection.execute(update(Subscription).values(probed_at=Subscription.paused_at))  # as after days of failures
    assert do("show", "1").splitlines()[0].split(maxsplit=1)[1] == "paused since T, and probed: moves"
    probed = "; failures have paused it, and workers probe it: a --reason ends that"
    assert do("pause", "1") == f"is paused already, since T{probed}"
    assert do("pause", "1", "--reason", "moves") == "is paused already, since T"
    assert do("show", "1").splitlines()[0].split(maxsplit=1)[1] == "paused since T: moves"
    assert "paused since T: moves" in do("list")
    enabled = do("enable", "1")
    resume = "`subscriptions resume 1` ends that"
    assert enabled == f"is enabled, and gets no events yet: it is paused since T: moves; {resume}"
    do("disable", "1")
    assert do("pause", "1").endswith("; it is disabled too, and is owed no events until `subscriptions enable`")
    assert do("resume", "1") == "is resumed, and gets no events yet: it is disabled; `subscriptions enable 1` ends that"
    assert do("enable", "1") == "is enabled"
    keep(engine, 1, [5], "parked")
    do("pause", "1")
    upkeep.reconcile(engine, 0.0)
    assert do("resume", "1") == "is resumed; 1 delivery held for it will be sent within a minute"
    for command in ("pause", "resume"):
        unknown = called("subscriptions", command, "7", **database)
        assert (unknown.returncode, "there is no subscription 7" in unknown.stderr) == (1, True)


def test_cursors_of_a_subscription_are_shown(called: Command, database: dict[str, str], engine: Engine) -> None:
    """Each has its place, reason and positions, the age of its next event, and for how long Kafka keeps that."""
    called("subscriptions", "add", URL, "a", **database)
    assert "position" not in called("subscriptions", "show", "1", **database).stdout
    hour = int((time.time() - 3600) * 1000)
    owed = [
        NewCursor(("orders", 0, 1), 5, CursorReason.PAUSED, timestamp=hour),
        NewCursor(("orders", 1, 1), 6, CursorReason.BEHIND, end=90),
    ]
    cursors.begin(engine, GROUP, owed, 0.0)
    expire(engine, 1, time.time() + 187_200 + 50, partition=1)
    shown = called("subscriptions", "show", "1", **database).stdout.splitlines()[-3:]
    columns = ["topic", "partition", "reason", "position", "end", "record_at", "behind", "kept_for"]
    assert shown[0].split() == columns
    first, second = (line.split() for line in shown[1:])
    assert first[:5] == ["orders", "0", "paused", "5", "-"]
    assert re.fullmatch(r"1:\d\d:\d\d", first[-2])
    assert first[-1] == "-"
    assert second == ["orders", "1", "behind", "6", "90", "-", "-", "2", "d", "4", "h"]
    found = json.loads(called("subscriptions", "show", "1", "--json", **database).stdout)["cursors"]
    known = {"group": GROUP, "topic": "orders", "partition": 1, "reason": "behind", "replay_id": None}
    assert found[1].pop("expires_at")[-1] == "Z"
    assert 187_000 < found[1].pop("seconds_left") < 187_300
    assert found[1] == known | {"position": 6, "end": 90, "record_at": None, "seconds_behind": None}
    expire(engine, 1, time.time() + 7_250)
    assert called("subscriptions", "show", "1", **database).stdout.endswith(
        "Kafka removes the next event in 2 h 0 min\n"
    )


def test_stored_deliveries_of_a_subscription_are_counted(
    called: Command, database: dict[str, str], engine: Engine, sub: int
) -> None:
    """Enabling it reports how many were held."""
    keep(engine, sub, range(3), "exhausted")
    keep(engine, sub, [5], "parked")
    with engine.begin() as connection:
        connection.execute(text("UPDATE webhook_deliveries SET status = 'held' WHERE record_offset = 5"))
        since = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        connection.execute(update(Subscription).values(failing_since=since))
    shown = called("subscriptions", "show", "1", **database).stdout
    assert "failing since 2026-01-02T03:04:05Z" in shown.splitlines()[0]
    counted = [line.split() for line in shown.splitlines()[-4:]]
    assert counted == [["parked", "0"], ["blocked", "0"], ["held", "1"], ["exhausted", "3"]]
    enabled = called("subscriptions", "enable", "1", **database).stdout
    assert enabled == "subscription 1 is enabled; 1 delivery held for it will be sent within a minute\n"


@pytest.fixture
def old(engine: Engine, sub: int) -> int:
    """Five deliveries exhausted 40 days ago, two exhausted today, and a replay of 40 days ago."""
    keep(engine, sub, range(5), "exhausted", at=time.time() - 40 * DAY)
    keep(engine, sub, range(5, 7), "exhausted")
    replays.create(engine, GROUP, sub, 0.0, 1.0, None, 1.0, [], time.time() - 40 * DAY)
    return sub


def left(engine: Engine) -> list[int]:
    """The numbers of deliveries, payloads and replays."""
    tables = ("webhook_deliveries", "webhook_payloads", "webhook_replays")
    return [query(engine, f"SELECT COUNT(*) FROM {table}")[0][0] for table in tables]  # noqa: S608 (names above)


@pytest.mark.usefixtures("old")
def test_a_purge_counts_deletes_and_reports(called: Command, database: dict[str, str], engine: Engine) -> None:
    """It reports the count before and after; a second run finds nothing and asks no question."""
    words = ("deliveries", "purge", "--older-than", "30d")
    counted = called(*words, "--dry-run", **database)
    assert (counted.returncode, counted.stdout) == (0, "5 deliveries and 1 replay would be deleted\n")
    as_json = json.loads(called(*words, "--dry-run", "--json", **database).stdout)
    assert as_json.keys() == {"before", "deliveries", "replays"}
    assert left(engine) == [7, 7, 1]
    done = called(*words, "--yes", **database)
    assert (done.returncode, done.stdout) == (0, "5 deliveries, 5 payloads and 1 replay deleted\n")
    assert left(engine) == [2, 2, 0]
    again = json.loads(called(*words, "--json", **database).stdout)
    assert [again[name] for name in ("deliveries", "payloads", "replays")] == [0, 0, 0]


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--older-than 30d", "Delete 5 deliveries and 1 replay that ended before"),
        ("--older-than 1h --yes", "at least a day"),
        ("--older-than soon --yes", "neither a time"),
        ("--older-than 30d --status held --yes", "'held' is not one of"),
    ],
)
def test_a_refused_purge_is_2_and_deletes_nothing(
    called: Command, database: dict[str, str], engine: Engine, line: str, said: str
) -> None:
    """It refuses without a terminal or --yes, a time that is too recent, and open states."""
    refused = called("deliveries", "purge", *line.split(), **database)
    assert (refused.returncode, refused.stdout, said in refused.stderr) == (2, "", True)
    assert left(engine) == [7, 7, 1]


@pytest.mark.usefixtures("old")
def test_a_signal_ends_a_purge_after_the_present_step(
    called: Command, database: dict[str, str], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line reports the rest, which the same command deletes."""
    whole = upkeep.purge

    def interrupted(*arguments: Any) -> Iterator[upkeep.Purged]:
        for step in whole(*arguments):
            signal.raise_signal(signal.SIGINT)
            yield step

    monkeypatch.setattr(upkeep, "BATCH", 2)
    monkeypatch.setattr(upkeep, "purge", interrupted)
    ended = called("deliveries", "purge", "--older-than", "30d", "--yes", **database)
    assert (ended.returncode, left(engine)) == (0, [5, 5, 1])
    assert ended.stderr == "stopped; the rest is unchanged; the same command deletes it\n"


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
    called: Command, database: dict[str, str], sub: int, words: Sequence[str], says: str
) -> None:
    """The error says what to change, before Kafka is contacted."""
    ended = called("replay", "--subscription", str(sub), *words, "--yes", **database, **KAFKA)
    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (2, "", 1)
    assert says in ended.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--subscription", "9", "--since", "1h"], "there is no subscription 9"),
        (["--subscription", "1", "--since", "1h"], "subscriptions enable 1"),
        (["--subscription", "3", "--since", "1h", "--ordered"], "subscriptions enable 3"),
        (["--resume", "7"], "there is no replay 7"),
        (["--watch", "1"], "KAFKA_GROUP_ID"),
        (["--resume", "2"], "replay 2 is not cancelled: it is running"),
        (["--resume", "3"], "subscriptions enable 3"),
        (["--cancel", "3"], "replay 3 has ended already: it is cancelled"),
    ],
)
def test_an_impossible_replay_is_1(
    called: Command, database: dict[str, str], engine: Engine, sub: int, words: Sequence[str], says: str
) -> None:
    """The subscription is absent or disabled, or the replay is absent, another group's, or in the wrong state."""
    other, disabled = (repository.add(engine, f"{URL}/{number}", "a", ordering="key") for number in range(2))
    for group, receiver in (("other", sub), (GROUP, other), (GROUP, disabled)):
        replays.create(engine, group, receiver, 0.0, 1.0, None, 1.0, [Span("t", 0, 0, 9)], AT)
    replays.cancel(engine, 3, AT)
    for number in (sub, disabled):
        repository.set_enabled(engine, number, False)
    ended = called("replay", *words, "--yes", **database, **KAFKA)
    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (1, "", 1)
    assert says in ended.stderr


def test_a_replay_is_followed_to_its_end(called: Command, database: dict[str, str], engine: Engine, sub: int) -> None:
    """Cancelled, it can be resumed. Status 1 once it is cancelled, or if a delivery of it was given up."""
    number = replays.create(engine, GROUP, sub, 0.0, 1.0, None, 1.0, [Span("t", 0, 0, 9)], AT)
    cancelled = called("replay", "--cancel", str(number), **database)
    assert (cancelled.returncode, cancelled.stdout) == (
        0,
        "replay 1 is cancelled; `kafka-webhooks replay --resume 1` goes on with it\n",
    )
    watched = called("replay", "--watch", str(number), **database)
    assert (watched.returncode, watched.stdout) == (1, "replay 1: 0 records read, and cancelled\n")
    resumed = called("replay", "--resume", str(number), "--no-wait", **database)
    assert (resumed.returncode, resumed.stdout) == (0, "")
    assert "replay 1: the workers send it" in resumed.stderr
    (cursor,) = cursors.of_partition(engine, GROUP, ("t", 0))
    cursors.save(engine, [CursorMove(cursor.id, cursor.version, 9, 9, "", None)], AT)
    replays.finish(engine, AT)
    watched = called("replay", "--watch", str(number), **database)
    assert (watched.returncode, watched.stdout) == (0, "replay 1: 9 records read, and finished\n")
    assert watched.stderr == ""
    row = parked(make_event(1), sub, replay=number, status="exhausted", next_attempt_at=None)
    store.park(engine, GROUP, [row], AT)
    watched = called("replay", "--watch", str(number), **database)
    assert (watched.returncode, watched.stdout) == (
        1,
        "replay 1: 9 records read, and finished\n0 delivered, 1 exhausted\n",
    )
