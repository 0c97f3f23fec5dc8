"""The source of the golden files of SQL: each statement's function, its purpose, and a run that issues it.

python -m tests.golden.golden_statements
"""

import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import trustme
from cryptography.fernet import Fernet
from sqlalchemy import Connection, Engine, event

from consumer.crypto.certificates import TlsIdentity
from consumer.crypto.vault import Owner, Vault
from consumer.database import migrations
from consumer.database.engine import lossy_commits, ping
from consumer.events.event import RecordId
from consumer.ledger import (
    admin,
    assigned,
    backlogs,
    cursors,
    due,
    given_up,
    marks,
    ordering,
    outbox,
    pauses,
    replays,
    request_keys,
    search,
    store,
    upkeep,
)
from consumer.ledger.admin import DeliveryQuery
from consumer.ledger.cursors import CursorMove, NewCursor
from consumer.ledger.due import FetchRequest
from consumer.ledger.replays import Span
from consumer.ledger.rows import OPEN, AttemptResult, OperationalEvent, time_of
from consumer.matching.catalog import find_endpoints
from consumer.matching.subscribers import find_subscribers
from consumer.subscriptions import health, naming, repository, secrets, tls
from consumer.subscriptions.endpoint_row import Rules
from models import CursorReason, Status
from tests.crypto.vaults import in_the_clear
from tests.databases import connect_to
from tests.golden.golden_sql import (
    ANY_OF_THESE,
    FOLDER,
    MIGRATIONS,
    ROOT,
    Issued,
    canonical,
    issuer,
    readable,
    without_conditions,
)
from tests.ledger.rows_kit import BOOM, GROUP, URL, make_event, operation, ordered, ordering_key, parked
from tests.oracle_emulator import OracleEmulator
from tests.processes import environment

NOWHERE = environment({"DATABASE_URL": "oracle+oracledb://nobody:nothing@nowhere/?service_name=x"})
KEYS = (b"default",)
T = 1000.0  # a time
TWO = (Status.PARKED, Status.EXHAUSTED)
CHOICE = {"group": GROUP, "statuses": TWO, "subscription": 1, "since": 0.0, "until": 10 * T}

SESSION = {
    "ALTER SESSION SET TIME_ZONE": "Each new session: times in UTC, text sorted and compared by its bytes.",
    "ALTER SESSION SET CURRENT_SCHEMA": "Each new session, with DATABASE_SCHEMA.",
    "select sys_context": "SQLAlchemy, at the first connection of a process: the current schema.",
    "SELECT value FROM nls": "The first connection of a process: the database's character set.",
    "SELECT 1.1": "SQLAlchemy, at the first connection: the decimal character.",
    "SELECT 1 ": "The pool, before it hands out a used session: does it answer? Once a transaction.",
}

# By file and function: the purpose of each statement, in the order of the run below.
PURPOSES: dict[str, dict[str, tuple[str, ...]]] = {
    "database": {
        "database.engine.lossy_commits": ("`check`: does the server confirm commits too early?",),
        "database.engine.ping": ("`check`: does the database answer?",),
        "database.migrations._current": ("Does our version table exist?", "At which revision are the tables?"),
    },
    "subscriptions": {
        "matching.catalog._rows": (
            "Workers, hot: the subscriptions to these types and tenants, with their signing secrets.",
        ),
        "matching.subscribers.find_subscribers": (
            "Workers: subscriptions that are behind, by id, with their signing secrets.",
        ),
        "subscriptions.repository.add": ("Insert a subscription.",),
        "subscriptions.repository.note_start": ("Note that it begins in the past.",),
        "subscriptions.repository.find": ("Does it exist already?",),
        "subscriptions.repository.edit": (
            "Read and lock it.",
            "With WEBHOOK_REQUIRE_OWN_SECRET: has it a signing secret of its own?",
            "Write it.",
        ),
        "subscriptions.repository.page": (
            "The ids of a page, of all or of those that match; here of failing subscriptions.",
            "Here of paused ones.",
            "Here of those that get events.",
            "Here of those with one of these types, of a tenant.",
            "The same, of these tenants.",
        ),
        "subscriptions.naming.known_by": (
            "The ids of subscriptions that a text names in several ways.",
            "The same, of a tenant.",
        ),
        "subscriptions.event_types.of": ("The further types of these subscriptions.",),
        "subscriptions.event_types.write": ("Insert further types, an array.",),
        "subscriptions.event_types.clear": ("Delete the further types of a subscription.",),
        "subscriptions.subscribed_rows.found_rows": (
            "The subscriptions of these ids, with everything that their problems depend on.",
            "The first ones that get events.",
            "The same, of a tenant.",
            "One subscription.",
        ),
        "subscriptions.health.failing": ("Failing subscriptions, the longest failing first.",),
        "subscriptions.health.named": ("The names of these subscriptions.",),
        "subscriptions.health.noticed": (
            "The subscriptions of an overview: of these ids, failing, disabled, paused.",
            "The same, of a tenant.",
        ),
        "subscriptions.health.storing": ("A tenant's first subscriptions that have deliveries to send.",),
        "subscriptions.health.paused": ("Paused subscriptions, the longest paused first.",),
        "subscriptions.health.expiring": ("Subscriptions whose next event in Kafka expires, the most urgent first.",),
        "subscriptions.health.untimed": (
            "Subscriptions that are owed events which are not known to expire.",
            "The same, of these topics.",
        ),
        "subscriptions.health.named_types": (
            "The first event types that subscriptions name, and how many name each.",
            "The next event types.",
        ),
        "subscriptions.repository.count_others": ("Those with one of these types for none of these tenants.",),
        "subscriptions.repository.count_enabled": ("`check`: the number of enabled subscriptions.",),
        "subscriptions.repository._switch": (
            "Disable it and keep an earlier reason.",
            "Disable it for a new reason.",
            "Enable it.",
            "Pause it and keep an earlier reason.",
            "Pause it for a new reason.",
            "Resume it.",
        ),
        "subscriptions.repository.set_verified": ("Its receiver has agreed, up to this rate.",),
        "subscriptions.repository.remove": (
            "Its cursors.",
            "Delete these by id, an array.",
            "Remove it, and its secrets by the foreign key.",
        ),
        "subscriptions.secrets.insert_secrets": ("Insert its secrets, an array.",),
        "subscriptions.secrets.lock": ("Lock the subscription before its secrets change.",),
        "subscriptions.secrets.rotate": (
            "Its signing secrets, newest first.",
            "Delete secrets that ended long ago.",
            "Set the end of the secrets that sign now.",
            "Insert the new secret, an array.",
        ),
        "subscriptions.secrets._credentials": ("Its credentials.",),
        "subscriptions.secrets.set_credential": ("Insert the new credential.",),
        "subscriptions.secrets._delete": ("Delete the ones that it replaces.",),
        "subscriptions.secrets.entries": ("Its secrets, without their text.",),
        "subscriptions.secrets.made_at": (
            "Its signing secrets without an end, to find the one that a request has created.",
        ),
        "subscriptions.secrets.public_keys": (
            "The next signing secrets, for their public keys.",
            "The same, of a tenant.",
            "The same, of a subscription.",
            "The same, of a subscription if it is of a tenant.",
        ),
        "subscriptions.secrets.remove_secret": ("Remove one of them.",),
        "subscriptions.secrets.count": ("The number of secrets to encrypt anew.",),
        "subscriptions.secrets.pages": (
            "All secrets, a page at a time.",
            "All certificates, a page at a time, for expiry dates and for keys to encrypt.",
        ),
        "subscriptions.secrets.reencrypt": ("Encrypt them anew if they are unchanged, an array.",),
        "subscriptions.tls.stored": ("Workers: the certificates of subscriptions that have some, after the look-up.",),
        "subscriptions.tls.set_tls": (
            "Its certificates, because parts that are not given stay.",
            "Insert its first certificates.",
            "Replace its certificates.",
        ),
        "subscriptions.tls.remove_tls": ("Remove them.",),
        "subscriptions.tls.count": ("The number of private keys to encrypt anew.",),
        "subscriptions.tls._replace_key": (
            "Lock a key: is it unchanged?",
            "Encrypt it anew.",
        ),
    },
    "ledger_storing": {
        "ledger.store._stored_records": ("Which of these payloads are stored already?",),
        "ledger.store.insert_new": (
            "Insert payloads, an array.",
            "Workers, hot: insert the deliveries that are not stored yet, an array.",
        ),
        "ledger.store.exhausted": (
            "Which of these rows are stored as exhausted, need an operational event, or are sent from the topic?",
        ),
        "ledger.store._record": (
            "Attempts with several outcomes: lock all their rows by id before.",
            "Failed attempts that are retried, an array.",
            "Failed last attempts, an array.",
            "Failed attempts of a schedule that a redelivery has replaced, an array.",
            "Rows whose filter, evaluated late, does not match the event, an array.",
            "Successful attempts, an array.",
        ),
        "ledger.store._exhausted_after": ("Which of these rows are exhausted after this attempt?",),
        "ledger.ordering.normalise": (
            "Hot with ordering: unblock the first open row of each subscription and key, an array.",
            "Block later parked rows, an array.",
        ),
        "ledger.ordering.open_ones": ("Which of these ordering keys have open rows?",),
        "ledger.ordering.repair": (
            "Among some keys, ordering keys whose first open row is blocked.",
            "Among some keys, ordering keys with a parked row behind another open one.",
        ),
        "ledger.ordering._thousandth": ("The last key of a step: the step has a thousand rows of a state.",),
        "ledger.cursors.begin": (
            "Delete cursors that ended where these begin, an array.",
            "Insert the cursors that are not stored yet, an array.",
            "If some were there: has another owner moved them?",
        ),
        "ledger.cursors.save": (
            "Workers, each second: positions of cursors that have moved, an array.",
            "Some of these were moved by another worker, or are gone: as they are now.",
        ),
        "ledger.cursors.of_partition": ("A partition is assigned: its cursors.",),
        "ledger.cursors.of_due_keys": ("The cursors of these due keys (partition and subscription).",),
        "ledger.cursors.stored": ("The stored deliveries of cursors' due keys, in any state.",),
        "ledger.cursors.open_rows": ("Workers: how many rows the subscriptions of a partition have.",),
        "ledger.cursors.remove": ("Delete cursors.",),
        "ledger.cursors.prune": (
            "Upkeep: are there finished cursors below the committed offset?",
            "Those of them with which subscriptions began in the past.",
            "Delete these.",
            "Such subscriptions without another one have started.",
        ),
        "ledger.outbox.add": (
            "Which of these operational events are stored already?",
            "Insert operational events, an array.",
        ),
        "ledger.outbox.pending": ("The next operational events to publish.",),
        "ledger.outbox.forget": ("Delete published events.",),
        "ledger.outbox.expire": ("The oldest operational events and their times.",),
    },
    "ledger_sending": {
        "ledger.assigned.scan": ("Is any row parked?",),
        "database.statements.leaps": (
            "Workers, hot: the partitions of a topic with parked rows.",
            "Workers, hot: the next subscriptions with parked rows in a partition.",
            "Upkeep: the next subscriptions with rows.",
        ),
        "database.statements.of_each": (
            "Workers, hot: the earliest due rows of many due keys (partition and subscription), with a part for each.",
            "The rows that may go right behind the first of many ordering keys, with a part for each.",
            "Probes: a row of many due keys that no open row of its ordering key precedes, with a part for each.",
        ),
        "ledger.due._read": ("These rows, and those that may go right behind the first of their key.",),
        "ledger.due._endpoints": (
            "Their subscriptions, with the signing secrets.",
            "A paused subscription is probed: likewise.",
        ),
        "ledger.due._events": ("Their records.",),
        "ledger.due.postpone": (
            "Rows whose subscription has no usable secret, but for locked ones.",
            "Postpone them, an array.",
            "Not all were free: the rows that still exist.",
        ),
        "ledger.marks.own": ("A partition is assigned, which a mark counts: the number of this assignment.",),
        "ledger.marks.is_owned": ("Before cursors are inserted: lock that count, if it is still this assignment's.",),
        "ledger.marks.recent": (
            "A worker starts: the time of the newest mark.",
            "Workers, every few seconds: the new marks for owners of partitions.",
        ),
        "ledger.marks.published": ("The console: the dead letters that were published again.",),
        "ledger.marks.refused_since": (
            "Forget what was noted of an earlier topic's record.",
            "A delivery that the database refuses: note since when.",
            "Since when.",
        ),
        "ledger.assigned.settled_keys": (
            "A partition is assigned or resumed: a page of its stored deliveries at or above an offset.",
            "The same, for one record with more rows than a page.",
        ),
        "ledger.assigned.open_keys": ("A partition is assigned: its ordering keys with open rows.",),
        "ledger.assigned.open_topics": (
            "Upkeep: the first topic with rows of a state.",
            "The next topic.",
            "Upkeep: the first topic with cursors.",
            "The next topic.",
        ),
        "ledger.assigned.next_partition": (
            "Upkeep: the next partition of a topic that has rows.",
            "Upkeep: the next partition of a topic that has cursors.",
        ),
        "ledger.assigned._numbers": (
            "Upkeep: the next of these partitions that has rows.",
            "Upkeep: the next of these partitions that has marks.",
            "Upkeep: the next of these partitions that has cursors.",
        ),
    },
    "ledger_upkeep": {
        "ledger.upkeep.disable": ("Disable a subscription, after a 410.",),
        "ledger.upkeep.failing": ("A subscription has begun to fail.",),
        "ledger.upkeep.recovered": ("A subscription has recovered.",),
        "ledger.upkeep._enabled": ("Which of these subscriptions exist, and which are enabled?",),
        "ledger.upkeep._follow": (
            "Rows that have not followed subscriptions that were disabled, enabled or removed.",
            "Hold rows, an array.",
            "Resume held rows, an array.",
            "Exhaust rows of removed subscriptions, an array.",
        ),
        "ledger.backlogs.look_at": ("The due keys of a subscription's cursors.",),
        "ledger.pauses.pause": ("Pause a subscription, after days of failures.",),
        "ledger.pauses.claim": ("Paused subscriptions that are to be probed.", "Claim a probe."),
        "ledger.pauses._owed": ("Which of these subscriptions have rows that may be sent?", "Where their cursors are."),
        "ledger.pauses.resume": ("Resume a subscription, after a probe that succeeded.",),
        "ledger.pauses.count": ("How many subscriptions have failures paused?",),
        "ledger.upkeep.prune": ("Delivered rows below the committed offset.", "Delete these rows, an array."),
        "ledger.upkeep.drop_payloads": ("Delete payloads without rows, an array.",),
        "ledger.marks._delete": (
            "Are there marks of refused deliveries below the committed offset?",
            "Delete these.",
            "Are there marks older than a week?",
            "Delete these marks.",
        ),
        "ledger.upkeep.waiting": ("The number of waiting rows of a partition, for a gauge.",),
        "ledger.upkeep.by_id": (
            "Commands on any rows, in steps by primary key: the last id.",
            "The first id of the next step.",
            "`redeliver`, `adopt`: the rows of a step.",
            "The same, of an event type.",
            "The same, of a topic and a tenant.",
            "A replay: its rows of a step by state.",
            "A replay: the due times of its rows in a step.",
            "`purge`: the rows of a step that ended long ago.",
        ),
        "ledger.upkeep._purge": ("Delete these rows, an array.",),
        "ledger.given_up.unpublished": ("The leader: rows that the exhausted topic lacks.",),
        "ledger.upkeep.next_exhausted": ("A pass over exhausted rows: the first id of the next step.",),
        "ledger.given_up.owe": (
            "The rows of a step that the exhausted topic lacks, and that do not wait for it.",
            "Let them wait, an array.",
        ),
        "ledger.given_up.purge": (
            "WEBHOOK_KEEP_EXHAUSTED: the rows of a step that ended long ago and that the exhausted topic has.",
            "Delete them, an array.",
        ),
        "ledger.given_up.note_published": ("The exhausted topic has these rows, an array.",),
        "ledger.upkeep.purge_replays": (
            "Delete replays that ended long ago.",
            "Delete the cursors of deleted replays.",
        ),
        "ledger.upkeep.replays_ended_before": ("The number of replays that this would delete.",),
    },
    "ledger_commands": {
        "ledger.admin.find": ("A page of deliveries.", "A page of deliveries of an event type."),
        "ledger.admin.detail": ("One delivery.", "Its record."),
        "ledger.admin._redeliver": (
            "The rows of a step that can be sent again.",
            "Make them due, an array.",
            "The same, of an event type and a tenant.",
        ),
        "ledger.given_up._restore": ("`redeliver --from-topic`: the order of these subscriptions, if they exist.",),
        "ledger.given_up._renew": ("`redeliver --from-topic`: the topic has these rows, an array.",),
        "ledger.ordering.ahead": ("One delivery: the first open one of its ordering key, if that precedes it.",),
        "ledger.admin.of_record": ("Who got an event: the stored deliveries of its record.",),
        "ledger.marks._mark": (
            "Mark due rows again for the partition's owner, or count an assignment, an array.",
            "Insert the first mark, an array.",
        ),
        "ledger.backlogs.count": ("`adopt`: how many cursors a group has.",),
        "ledger.backlogs.topics": ("`check`: the groups and topics with cursors that owe events.",),
        "ledger.backlogs.adopt": (
            "`adopt`: delete cursors that the other group has itself.",
            "The due keys of the others.",
            "Move them.",
            "Move their replays.",
        ),
        "ledger.backlogs.of_subscription": ("What a subscription's cursors owe it.",),
        "ledger.backlogs.covering": ("`explain`: the cursors that cover an offset, of these subscriptions.",),
        "ledger.search.progress": ("The number of these rows in each state.",),
        "ledger.admin._adopt": (
            "A batch of rows, and whether the new group already has each delivery.",
            "Copy the payloads, an array.",
            "Move the rows, an array.",
        ),
        "ledger.replays.create": ("Insert a replay.",),
        "ledger.replays.load": (
            "A replay, its progress, and whether its subscription gets events.",
            "The same, if its subscription is of a tenant.",
        ),
        "ledger.replays.requests": ("Workers: the requests of replays that go on, and their cursors that are left.",),
        "ledger.replays.finish": (
            "Those that go on of the replays whose cursors have ended.",
            "Delete these cursors.",
            "Cancel those whose subscription was removed.",
            "Finish those without a cursor.",
            "All replays that go on.",
        ),
        "ledger.replays.find": (
            "A page of replays, newest first; here of those that go on.",
            *(f"Here of those that are {state}." for state in get_args(replays.State)),
            "The same of a tenant's subscriptions: those that go on.",
            *(f"A tenant's that are {state}." for state in get_args(replays.State)),
        ),
        "ledger.replays._set": (
            "Cancel a replay.",
            "The places of its cursors, whose owners look.",
            "Resume it.",
        ),
        "ledger.request_keys.find": ("The creation of an earlier request with this idempotency key.",),
        "ledger.request_keys.note": (
            "A bounded number of idempotency keys older than a day.",
            "Delete them, and this key if it is that old, an array.",
            "Insert a request's key and creation; fails if another request with the key was faster.",
        ),
        "ledger.search.statuses": ("`audit deliveries`: the rows of a thousand offsets.",),
        "ledger.search.by_state": (
            "The number of rows in each state, up to a bound.",
            "The same, of a tenant's subscriptions.",
        ),
        "ledger.search.most_loaded": ("The subscriptions of the oldest and the newest rows of each open state.",),
        "ledger.search.loads": ("The number of open rows of each of some subscriptions, up to a bound.",),
        "ledger.search.last_failures": (
            "The last failures of the newest and oldest rows of each of some subscriptions.",
        ),
        "ledger.search._range": ("Searches by time: the first and the last row.",),
        "ledger.search._around": ("The storing times of fifteen ids, or of the next ids.",),
        "ledger.search._newest_of_tenant": (
            "Searches by tenant: the newest row of each of its subscriptions, by state.",
        ),
        "ledger.search._ids": ("The ids of a page of a search, newest first, of each state or subscription.",),
        "ledger.search.search": ("The rows of these ids that meet conditions without an index.",),
        "ledger.search.of_subscription": ("A subscription's number of rows by state.",),
        "ledger.search.next_of": ("The earliest due time of these rows.",),
    },
}
LOOSE = {
    "ledger.upkeep.disable",
    "ledger.upkeep.by_id",
    "ledger.admin.find",
    "ledger.admin._redeliver",
    "ledger.replays.find",
    "ledger.search._ids",
    "ledger.search.search",
    "subscriptions.repository.page",
}


def printed_migrations(*words: str) -> str:
    """Alembic's SQL for Oracle, by default from nothing to the newest revision, without a connection."""
    command = [sys.executable, "-m", "alembic", *(words or ("upgrade", "head")), "--sql"]
    return subprocess.run(command, cwd=ROOT, env=NOWHERE, check=True, capture_output=True, text=True).stdout


def files(oracle: OracleEmulator) -> dict[str, str]:
    """The files of statements by name, from a run on a server. Raises ValueError naming missing purposes."""
    owner = connect_to(oracle.url)
    migrations.upgrade(owner)
    owner.dispose()
    oracle.forget()
    engine = connect_to(oracle.url, "webhooks")
    issued = _recorded(engine)
    run(engine)
    engine.dispose()
    sent = {call.sql: None for call in oracle.calls if " " in call.sql}
    by_function: dict[str, dict[str, str]] = defaultdict(dict)
    for function, sql in issued:
        if sql not in sent:
            raise ValueError(f"the driver sent another text than {sql}")
        if function not in LOOSE:
            by_function[function].setdefault(canonical(sql), sql)
        elif not _is_part_of(sql, by_function[function].values()):
            by_function[function][sql] = sql
    ours = {sql for _, sql in issued}
    texts = {"session.sql": _session([sql for sql in sent if sql not in ours])}
    _check(by_function)
    for name, functions in PURPOSES.items():
        blocks = [
            block
            for function, purposes in functions.items()
            for block in _blocks(function, purposes, by_function[function].values())
        ]
        texts[f"{name}.sql"] = "\n".join(blocks)
    return texts


def _is_part_of(sql: str, known: Iterable[str]) -> bool:
    """Whether one of the statements that are known is this one, with the same conditions or more."""
    rest, conditions = without_conditions(sql)
    others = map(without_conditions, known)
    return any(rest == other and conditions <= allowed for other, allowed in others)


def _recorded(engine: Engine) -> list[Issued]:
    issued: list[Issued] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(_: Connection, __: object, sql: str, *___: object) -> None:
        if (function := issuer()) is not None:
            issued.append(Issued(function, sql))

    return issued


def _session(sent: list[str]) -> str:
    blocks = []
    for sql in sent:
        purposes = [purpose for start, purpose in SESSION.items() if sql.startswith(start)]
        if not purposes:
            raise ValueError(f"SESSION has no purpose for {sql}")
        text = " ".join(sql.split())
        blocks.append(f"-- {purposes[0]}\n{text}\n;\n")
    return "\n".join(blocks)


def _check(by_function: Mapping[str, Mapping[str, str]]) -> None:
    """Raises ValueError unless each statement has its purpose."""
    said = {function: purposes for functions in PURPOSES.values() for function, purposes in functions.items()}
    wrong = [
        f"{function}: {len(said.get(function, ()))} purposes, and these statements:\n" + "\n".join(statements.values())
        for function in said.keys() | by_function.keys()
        if len(said.get(function, ())) != len(statements := by_function.get(function, {}))
    ]
    if wrong:
        raise ValueError("PURPOSES does not match the statements issued\n" + "\n\n".join(sorted(wrong)))


def _blocks(function: str, purposes: Iterable[str], statements: Iterable[str]) -> Iterator[str]:
    for purpose, sql in zip(purposes, statements, strict=True):
        note = f"\n-- {ANY_OF_THESE}" if function in LOOSE else ""
        yield f"-- {function}\n-- {purpose}{note}\n{readable(sql)}\n;\n"


def run(engine: Engine) -> None:
    """Makes `consumer` issue each of its statements on empty tables."""
    ping(engine)
    lossy_commits(engine)
    migrations.state(engine)
    _subscribe(engine)
    _store(engine)
    _send(engine)
    _command(engine)
    _keep(engine)


def _subscribe(engine: Engine) -> None:
    for _ in range(3):
        repository.add(engine, URL, "user.created", "a secret", ordering="key")
    with engine.begin() as connection:
        repository.note_start(connection, 1)
    find_endpoints(engine, [("created", None)], KEYS, in_the_clear)
    find_subscribers(engine, KEYS, in_the_clear, [1])
    repository.find(engine, URL, ["user.created"])
    repository.edit(engine, 1, {"timeout_seconds": 5.0}, Rules(own_secret=True))
    repository.edit(engine, 1, {"event_filter": None})
    states: tuple[repository.State, ...] = ("failing", "paused", "enabled")
    of_type = {"event_type": "user.created", "tenant": "*", "url": "example", "name": "example", "external_id": "x"}
    for state in states:
        repository.page(engine, after=None, limit=10, state=state, **of_type)  # type: ignore[arg-type]  # all are texts
    list(repository.walk(engine, event_type="user.created", tenant="*", state="enabled"))
    for tenants in ("acme", ["*", "acme"]):
        repository.page(engine, after=None, limit=10, event_type=["user.created", "user.*", "*"], tenant=tenants)
    for tenant in (None, "acme"):
        naming.known_by(engine, "example", 10, tenant=tenant)
    several = repository.add(engine, URL, "user.created", further_types=["user.removed"])
    repository.edit(engine, several, {"event_types": ["user.created", "user.renamed"]})
    repository.page(engine, after=None, limit=10)
    health.failing(engine, 20)
    health.paused(engine, 20)
    health.storing(engine, 20, "acme", OPEN)
    for tenant in (None, "acme"):
        health.noticed(engine, [1], 20, tenant)
        health.problematic(engine, 10, tenant=tenant)
    health.expiring(engine, time_of(T), 20)
    for topics in (None, ["t"]):
        health.untimed(engine, topics, 20)
    health.named(engine, [1])
    for after in (None, "user.created"):
        health.named_types(engine, 10, after)
    repository.count_enabled(engine)
    repository.count_others(engine, ["user.created", "user.*", "*"], ["acme", "*"])
    repository.get(engine, 1)
    for enabled, reason in ((False, None), (False, "moves"), (True, None)):
        repository.set_enabled(engine, 1, enabled, reason)
    for why in (None, "moves"):
        repository.pause(engine, 1, why)
    repository.resume(engine, 1)
    with engine.begin() as connection:
        repository.set_verified(connection, 1, URL, 1.5)
    _change_secrets(engine)


def _change_secrets(engine: Engine) -> None:
    vault, now = Vault(Fernet.generate_key().decode()), datetime.now(UTC)
    with engine.begin() as connection:
        secrets.insert_secrets(connection, 2, [("bearer", "token")], vault, now)
    with engine.begin() as connection:
        secrets.lock(connection, 2)
    secrets.rotate(engine, 2, vault=vault, default=(), overlap=timedelta(1), now=now)
    secrets.set_credential(engine, 2, "bearer", "another", vault, now)
    secrets.entries(engine, 2, now)
    secrets.made_at(engine, 2, now, vault)
    secrets.public_keys(engine, vault, now, None, 10, None)
    secrets.public_keys(engine, vault, now, 1, 10, "acme")
    secrets.public_keys(engine, vault, now, 1, 10, None, 1)
    secrets.public_keys(engine, vault, now, 1, 10, "acme", 1)
    with engine.begin() as connection:
        secrets.remove_secret(connection, 2, 99)
    secrets.count(engine)
    list(secrets.reencrypt(engine, vault))
    authority = trustme.CA()
    issued = authority.issue_cert("sender.test")
    mine = TlsIdentity(issued.cert_chain_pems[0].bytes().decode(), issued.private_key_pem.bytes().decode())
    tls.set_tls(engine, 2, mine, Vault(), now)
    tls.set_tls(engine, 2, TlsIdentity(authorities=authority.cert_pem.bytes().decode()), Vault(), now)
    repository.get(engine, 2)
    tls.count(engine)
    list(tls.reencrypt(engine, vault))
    tls.remove_tls(engine, 2)


def _store(engine: Engine) -> None:
    given_up = parked(make_event(0), 1, status="exhausted", next_attempt_at=None, operation=operation())
    rows = [given_up, parked(make_event(1), 1, attempt=0)]
    store.park(engine, GROUP, [*rows, *(ordered(offset, 1) for offset in (2, 3, 4))], 1.0)
    results = [
        AttemptResult(2, 0, "parked", 2.0, 503, BOOM, 2.0),
        AttemptResult(3, 0, "exhausted", None, 410, BOOM, 2.0, ordering_key(1), operation(2)),
    ]
    store.record(engine, GROUP, results)
    store.record(engine, GROUP, [AttemptResult(2, 9, "parked", 2.0, 503, BOOM, 2.0)])
    store.record(engine, GROUP, [AttemptResult(2, 1, "unwanted", None, None, None, 2.0)])
    ordering.repair(engine, GROUP, "t", 0, 1.0)
    _follow_the_log(engine)
    waiting = outbox.pending(engine, GROUP, 10)
    outbox.forget(engine, [row for row, _, _ in waiting])


def _follow_the_log(engine: Engine) -> None:
    marks.own(engine, GROUP, ("t", 0))
    cursors.begin(engine, GROUP, [NewCursor(("t", 0, 1), 5, CursorReason.PAUSED, assignment=1)], T)
    cursors.save(engine, [CursorMove(99, 0, 6, None, "", None)], T)
    cursors.of_partition(engine, GROUP, ("t", 0))
    cursors.of_due_keys(engine, GROUP, [("t", 0, 1)])
    cursors.stored(engine, GROUP, [("t", 0, 1)])
    cursors.open_rows(engine, GROUP, ("t", 0))
    cursors.remove(engine, [99])
    cursors.begin(engine, GROUP, [NewCursor(("t", 0, 1), 7, CursorReason.PAUSED, 7)], T)
    cursors.begin(engine, GROUP, [NewCursor(("t", 0, 1), 3, CursorReason.START, 3)], T)
    cursors.prune(engine, GROUP, ("t", 0), 9)


def _send(engine: Engine) -> None:
    assigned.scan(engine, GROUP, [("t", 0)], None)
    wants = [FetchRequest(("t", 0, 1), 9, frozenset())]
    due.fetch(engine, GROUP, wants, T, default_secrets=KEYS, decrypt=in_the_clear)
    faulty = due.fetch(engine, GROUP, wants, T, default_secrets=KEYS, decrypt=_refuse).faulty
    due.postpone(engine, [*faulty, max(faulty) + 1], T)
    due.fetch_to_probe(engine, GROUP, {1: ("t", 0, 1)}, T, default_secrets=KEYS, decrypt=in_the_clear)
    assigned.settled_keys(engine, GROUP, "t", 0, 0, 0)
    assigned.open_keys(engine, GROUP, "t", 0, 10)
    marks.refused_since(engine, GROUP, RecordId("t", 0, 0, 0), 1, T)
    marks.recent(engine, GROUP, None)
    marks.recent(engine, GROUP, datetime(2026, 1, 1, tzinfo=UTC))
    marks.published(engine, GROUP, "t", 0)
    assigned.open_topics(engine, GROUP)
    assigned.next_partition(engine, GROUP, "t", 0)
    assigned.with_rows(engine, GROUP, [("t", 0)])


def _refuse(_: str, _owner: Owner) -> str:
    raise ValueError("no key")


def _command(engine: Engine) -> None:
    choice: Any = CHOICE
    admin.find(engine, DeliveryQuery(**choice), limit=10, after_id=0)
    admin.find(engine, DeliveryQuery(event_type="user.created", **choice), limit=10, after_id=0)
    for event_type in (None, "user.created"):
        admin.count(engine, DeliveryQuery(event_type=event_type, **choice), 10_000)
    admin.count(engine, DeliveryQuery(tenant="acme", topic="t", **choice), 10_000)
    admin.detail(engine, 1)
    ordering.ahead(engine, 1)
    admin.of_record(engine, GROUP, RecordId("t", 0, 1, 5), 10)
    list(admin.redeliver(engine, DeliveryQuery(**choice), T))
    list(
        admin.redeliver(
            engine, DeliveryQuery(ids=[1], event_type="user.created", tenant="acme", topic="t", **choice), T
        )
    )
    cursors.begin(engine, GROUP, [NewCursor(("t", 3, 1), 5, CursorReason.PAUSED)], T)
    backlogs.of_subscription(engine, 1)
    backlogs.covering(engine, GROUP, ("t", 3), 5, [1])
    list(search.statuses(engine, GROUP, Span("t", 3, 0, 2)))
    with engine.begin() as connection:
        backlogs.look_at(connection, 1)
    search.progress(engine, [1, 2])
    span = Span("t", 0, 0, 9)
    replay = replays.create(engine, GROUP, 1, 0.0, T, None, 1.0, [span], T, created_by="api:token")
    for tenant in (None, "acme"):
        replays.load(engine, replay, tenant)
        replays.find(engine, limit=10, group=GROUP, subscription=1, before=9, tenant=tenant, is_open=True)
        for state in get_args(replays.State):
            replays.find(engine, limit=10, group=GROUP, subscription=1, before=9, tenant=tenant, state=state)
        search.by_state(engine, 10_000, tenant)
    search.most_loaded(engine, 1)
    replays.requests(engine, {replay})
    replays.finish(engine, T, {replay})
    replays.finish(engine, T)
    replays.cancel(engine, replay, T)
    replays.resume(engine, replay)
    key = request_keys.request_key("8e03978e", ("acme", "/v1/replays"), b"{}", T)
    request_keys.find(engine, key)
    with engine.begin() as connection:
        request_keys.note(connection, key, replay)
    search.loads(engine, [1, 2], 10_001)
    search.last_failures(engine, [1, 2])
    search.search(engine, DeliveryQuery(TWO, 1, "acme", "user.created", "t", 0.0, 10 * T, webhook_id="msg_1"))
    search.search(engine, DeliveryQuery(tenant="*"))
    with engine.connect() as connection:
        search._around(connection, T, 0, 10_000)
    search.of_subscription(engine, 1)
    search.of_replay(engine, replay, 1)
    search.next_of_replay(engine, replay)
    search.next_of(engine, [1, 2])
    given_up.restore(engine, GROUP, [ordered(70, 1, status="exhausted", next_attempt_at=None)], T)
    list(admin.adopt(engine, GROUP, "another", T))
    backlogs.count(engine, GROUP)
    backlogs.topics(engine)
    backlogs.adopt(engine, GROUP, "another")


def _keep(engine: Engine) -> None:
    group = "another"
    upkeep.failing(engine, 1, T)
    upkeep.recovered(engine, group, 1)
    told = OperationalEvent("subscription.disabled", "op_3", {})
    upkeep.failing(engine, 1, T)
    pauses.pause(engine, group, 1, "failures", T, told, failing_before=T, url=URL)
    pauses.claim(engine, group, {("t", 0)}, 2 * T, 100.0)
    pauses.count(engine)
    pauses.resume(engine, group, 1, time_of(T), T, told)
    upkeep.disable(engine, group, 1, "410", told, url=URL)
    upkeep.disable(engine, group, 1, "410", told)
    upkeep.reconcile(engine, T)
    repository.set_enabled(engine, 1, enabled=True)
    upkeep.reconcile(engine, T)
    _end(engine, group)
    upkeep.prune(engine, group, "t", 0, 100)
    upkeep.waiting(engine, group, "t", 0)
    marks.prune(engine, GROUP, "t", 0, 9)
    marks.expire(engine, group, 5_000_000_000.0)
    outbox.expire(engine, group, 0.0)
    repository.remove(engine, 1)
    upkeep.reconcile(engine, T)
    ids = upkeep.next_exhausted(engine, 0) or (0, 0)
    given_up.owe(engine, group, *ids)
    given_up.note_published(engine, given_up.unpublished(engine, group, 1))
    given_up.purge(engine, group, 5_000_000_000.0, *ids)
    list(upkeep.purge(engine, (Status.DELIVERED, Status.EXHAUSTED), 5_000_000_000.0))
    upkeep.replays_ended_before(engine, T)
    upkeep.purge_replays(engine, T)


def _end(engine: Engine, group: str) -> None:
    """Delivers one row."""
    wants = [FetchRequest(("t", 0, 1), 9, frozenset())]
    taken = due.fetch(engine, group, wants, T, default_secrets=KEYS, decrypt=in_the_clear).rows
    store.record(engine, group, [AttemptResult(taken[0].id, taken[0].attempt, "delivered", None, 200, None, T)])


def main() -> None:
    """Write the files anew."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with OracleEmulator() as oracle:
        texts = files(oracle) | {MIGRATIONS.name: printed_migrations()}
        if oracle.failures:
            raise RuntimeError(oracle.failures)
    for path in FOLDER.glob("*.sql"):
        path.unlink()
    for name, text in texts.items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
