"""What the golden files of SQL are made from: each statement's function, what it is for, and a run that issues it.

python -m tests.golden.golden_statements
"""

import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import trustme
from cryptography.fernet import Fernet
from sqlalchemy import Connection, Engine, event

from consumer.crypto.certificates import TlsIdentity
from consumer.crypto.vault import Owner, Vault
from consumer.database import migrations
from consumer.database.engine import ping
from consumer.ledger import (
    admin,
    adoption,
    assigned,
    counts,
    due,
    marks,
    ordering,
    outbox,
    replays,
    request_keys,
    search,
    store,
    upkeep,
)
from consumer.ledger.admin import DeliveryQuery
from consumer.ledger.due import FetchRequest
from consumer.ledger.replays import Lease, Span
from consumer.ledger.rows import AttemptResult, NewDelivery, OperationalEvent
from consumer.matching.catalog import find_endpoints
from consumer.subscriptions import event_types, health, repository, secrets, tls
from consumer.subscriptions.endpoint_row import Rules
from models import Status, Wish
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
T = 1000.0  # a moment
TWO = (Status.PARKED, Status.EXHAUSTED)
CHOICE = {"group": GROUP, "statuses": TWO, "subscription": 1, "since": 0.0, "until": 10 * T}

SESSION = {
    "ALTER SESSION SET TIME_ZONE": "Each new session: times in UTC, texts sorted and compared by their bytes.",
    "ALTER SESSION SET CURRENT_SCHEMA": "Each new session, with DATABASE_SCHEMA.",
    "select sys_context": "SQLAlchemy, at the first connection of a process: the schema that names mean.",
    "begin": "SQLAlchemy, the same: the number of its transaction, to ask for the isolation level.",
    "SELECT CASE BITAND": "SQLAlchemy, the same; where V$TRANSACTION may not be read READ COMMITTED is assumed.",
    "SELECT 1.1": "SQLAlchemy, the same: whether numbers come with a point.",
    "SELECT 1 ": "The pool, before a session that was used before is given out: does it answer? Once a transaction.",
}

# By file and function: what each of its statements is for, in the order of the run below.
PURPOSES: dict[str, dict[str, tuple[str, ...]]] = {
    "database": {
        "database.engine.ping": ("`check`: does the database answer?",),
        "database.migrations.noted": ("Is our table of Alembic's there?", "Which revision are the tables at?"),
        "database.migrations._in_former": (
            "Where it is not: are Alembic's default table, and one of ours, there?",
            "What a release before 0008 has noted, and other programs.",
        ),
    },
    "subscriptions": {
        "matching.catalog.find_endpoints": (
            "Who subscribed to these types and tenants, with the secrets that sign. Workers, hot.",
        ),
        "subscriptions.repository.add": ("A subscription.",),
        "subscriptions.repository.find": ("Is it there already?",),
        "subscriptions.repository.edit": (
            "It as it is, locked.",
            "Has it a signing secret of its own? Where each needs one (WEBHOOK_REQUIRE_OWN_SECRET).",
            "It as it is to be.",
            "The same, where its filter or projection changes.",
        ),
        "subscriptions.repository.walk": (
            "The ids of the next page of all of them, or of some.",
            "These, with what would be found wrong, for people.",
        ),
        "subscriptions.repository.page": (
            "The API: the ids of a page, of all of them or of some.",
            "These, with what would be found wrong, for people.",
        ),
        "subscriptions.repository.get": ("One of them.",),
        "subscriptions.health.failing": ("Failing ones, longest first.",),
        "subscriptions.health.disabled": ("Disabled ones, newest first.",),
        "subscriptions.event_types.named_types": (
            "The first event type that a subscription names.",
            "How many name it, up to a bound.",
            "The next event type.",
        ),
        "subscriptions.repository.count_enabled": ("`check`: how many are there?",),
        "subscriptions.repository.set_enabled": (
            "Disable it: a reason that it was disabled for before stays.",
            "The same, for a new reason.",
            "Enable it.",
        ),
        "subscriptions.repository.set_verified": ("Its receiver has agreed, to at most this rate.",),
        "subscriptions.repository.remove": ("Remove it; its secrets go with it.",),
        "subscriptions.secrets.insert_secrets": ("Secrets of a new one, an array.",),
        "subscriptions.secrets.lock": ("The subscription, locked: its secrets are about to be changed.",),
        "subscriptions.secrets.rotate": (
            "What signs for it, newest first.",
            "Delete what ended long ago.",
            "What signs now has an end.",
            "The new one, an array.",
        ),
        "subscriptions.secrets._credentials": ("What it shows to its receiver.",),
        "subscriptions.secrets.set_credential": ("The new one.",),
        "subscriptions.secrets._delete": ("Those whose place it takes.",),
        "subscriptions.secrets.entries": ("Its secrets, without their texts.",),
        "subscriptions.secrets.made_at": ("Its signing secrets without an end: which was made by the request?",),
        "subscriptions.secrets.remove_secret": ("One of them is removed.",),
        "subscriptions.secrets.count": ("How many there are to be encrypted anew.",),
        "subscriptions.secrets._pages": ("All secrets, page by page.",),
        "subscriptions.secrets._write": ("Encrypt them anew, if nobody has changed them meanwhile; an array.",),
        "subscriptions.tls.stored": ("The certificates of subscriptions that have some, after the look-up. Workers.",),
        "subscriptions.tls.set_tls": (
            "Its certificates: parts that are not given stay.",
            "Its first ones.",
            "Others in their place.",
        ),
        "subscriptions.tls.remove_tls": ("Remove them.",),
        "subscriptions.tls.count": ("How many private keys there may be to be encrypted anew.",),
        "subscriptions.tls._page": ("All certificates, page by page: what expires, and keys to be encrypted.",),
        "subscriptions.tls._replace_key": (
            "A key, locked: has nobody changed it meanwhile?",
            "Encrypt it anew.",
        ),
    },
    "ledger_storing": {
        "ledger.store._stored_records": ("Which of these payloads are there already?",),
        "ledger.store.insert_new": ("Payloads, an array.", "Deliveries that are not there, an array. Workers, hot."),
        "ledger.store._announced": ("Which of these rows are stored as exhausted, so that an event may tell of it?",),
        "ledger.store._record": (
            "The first attempt of a row, an array.",
            "Attempts that failed, an array.",
            "Attempts that failed for the last time, an array.",
            "Attempts that failed of a schedule that a redelivery has replaced, an array.",
            "Attempts that delivered, an array.",
            "Rows whose filter was asked, at last, and does not want the event, an array.",
        ),
        "ledger.store._exhausted_after": ("Which of these rows are exhausted now?",),
        "ledger.ordering.normalise": (
            "Of each subscription and key the first open row is not blocked, an array. Hot where ordered.",
            "And a later one not parked.",
        ),
        "ledger.ordering.open_ones": ("Which of these ordering keys have something open?",),
        "ledger.ordering.repair": (
            "Of some keys, pairs that wait for nothing.",
            "Of some keys, pairs whose order somebody has broken.",
        ),
        "ledger.ordering._thousandth": ("Which keys these are: as many as have a thousand rows of a state.",),
        "ledger.outbox.add": ("Which of these operational events wait already?", "Operational events, an array."),
        "ledger.outbox.pending": ("The next operational events to publish.",),
        "ledger.outbox.forget": ("They are published.",),
        "ledger.outbox.expire": ("The oldest operational events: when were they written?",),
    },
    "ledger_sending": {
        "ledger.due.scan": (
            "Is anything parked?",
            "The next head: the first row of the next subscription in a partition. Workers, hot.",
        ),
        "ledger.due._due": ("The rows of a head that are due first. Workers, hot.",),
        "ledger.due._read": ("What is known of them, and of those that may go right behind the first of their key.",),
        "ledger.ordering.behind": ("What may go right behind the first row of a key.",),
        "ledger.due._endpoints": ("Where they go now, and the secrets that sign.",),
        "ledger.due._events": ("The records that they carry.",),
        "ledger.due._postpone": ("Later: nothing can be signed for their subscription, an array.",),
        "ledger.marks.recent": (
            "When was anything asked last? A worker begins.",
            "What is asked of the owners of partitions? Workers, every few seconds.",
        ),
        "ledger.marks.decision": ("A delivery cannot be stored: what has somebody decided on it?",),
        "ledger.marks.acted": ("That was done.",),
        "ledger.assigned.settled_keys": (
            "A partition is assigned or read on: what of it is stored at or above an offset? A page.",
            "The same of one record that has more rows than a page.",
        ),
        "ledger.assigned.open_keys": ("A partition is assigned: which keys wait in it?",),
        "ledger.assigned.open_topics": (
            "The first topic with rows of a state.",
            "The highest partition of it.",
            "The next topic.",
        ),
        "ledger.assigned._numbers": (
            "The database is to be tidied: which is the next of these partitions that has rows?",
            "And marks?",
        ),
    },
    "ledger_upkeep": {
        "ledger.upkeep.disable": ("A subscription is disabled: a 410, or failures for days.",),
        "ledger.upkeep.failing": ("A subscription fails from now on.",),
        "ledger.upkeep.recovered": ("It does no more.",),
        "ledger.upkeep.slow": ("Its filter or projection is left out until then.",),
        "ledger.upkeep._seen": ("The next subscription that has rows.",),
        "ledger.upkeep._enabled": ("Which of these subscriptions are there, and enabled?",),
        "ledger.upkeep._follow": (
            "Of some subscriptions, disabled, enabled or removed, what has not followed them.",
            "Hold them, an array.",
            "What was held is due, an array.",
            "What nobody can get is given up, an array.",
        ),
        "ledger.upkeep.prune": ("Delivered rows below the committed offset.", "Delete them, an array."),
        "ledger.upkeep.drop_payloads": ("Delete payloads that nothing refers to any more, an array.",),
        "ledger.marks._delete": (
            "Are there decisions below the committed offset?",
            "Forget them.",
            "Is anything that is asked a week old?",
            "Forget it.",
        ),
        "ledger.upkeep.waiting": ("How many rows of a partition wait, for a gauge.",),
        "ledger.upkeep.by_id": (
            "What commands say or do of any rows: the last id. They are gone through by the primary key.",
            "The next id.",
            "`redeliver`, `adopt`: those of a step.",
            "Of an event type.",
            "Of a topic and a tenant.",
            "Of an event type, a topic and a tenant.",
            "A replay: when those of a step are due.",
            "The same: how many of a step are in which state.",
            "`purge`: those of a step that have ended long ago.",
        ),
        "ledger.upkeep._purge": ("Delete them, an array.",),
        "ledger.upkeep.purge_replays": ("Delete replays that ended long ago.",),
        "ledger.upkeep.replays_finished_before": ("How many that would be.",),
    },
    "ledger_commands": {
        "ledger.admin.find": ("A page of deliveries.", "A page of deliveries of an event type."),
        "ledger.admin.owed": ("`subscriptions remove`: how many would be given up, up to a bound.",),
        "ledger.admin.detail": ("One delivery.", "The record that it carries."),
        "ledger.admin._redeliver": (
            "Of a step: what may be sent again.",
            "Of an event type.",
        ),
        "ledger.admin.of_record": ("`settle`: what is stored of a record?",),
        "ledger.admin._mark": ("They are due, an array.",),
        "ledger.marks._mark": (
            "Whoever makes rows due, or decides: ask the owner once more, an array.",
            "Ask for the first time, an array.",
        ),
        "ledger.admin.progress": ("Where these rows stand.",),
        "ledger.adoption._adopt": (
            "A batch of these, and whether the other group has the delivery itself.",
            "Copy the payloads, an array.",
            "Move the rows, an array.",
        ),
        "ledger.replays.create": ("A replay begins.",),
        "ledger.replays.load": ("A replay, to go on with it or to show it.",),
        "ledger.replays.claim": ("The API's processes: which replays does nobody run?", "Take one."),
        "ledger.replays.release": ("Leave it to another process, or to be tried again.",),
        "ledger.replays.advance": (
            "How far a replay is.",
            "It is further now.",
            "The same, while the process still has it.",
        ),
        "ledger.replays.finish": ("It has ended.",),
        "ledger.replays.find": ("A page of replays, the newest first.",),
        "ledger.replays.cancel": ("Nothing more is to be read.",),
        "ledger.request_keys.find": ("What has a request with this idempotency key created?",),
        "ledger.request_keys.note": (
            "Idempotency keys older than a day, some of them.",
            "They are removed, and this one if it is that old, an array.",
            "What a request has created. It fails if another one with this key was quicker.",
        ),
        "ledger.counts.by_state": ("How many rows of a state are there, up to a bound?",),
        "ledger.counts.most_loaded": (
            "Whose are the open rows that were stored first?",
            "Whose are those that were stored last?",
        ),
        "ledger.counts.last_failure": ("Why a subscription's newest rows of a state have failed.",),
        "ledger.search._range": ("Searches by time: the first row.", "And the last one."),
        "ledger.search._first_since": ("When was the row of an id, or the next one, stored?",),
        "ledger.search._ids": ("The ids of a page of a search, newest first; of a state, of a subscription.",),
        "ledger.search.search": ("Those of these ids that meet conditions which no index has.",),
        "ledger.search.recent_types": ("The event types of rows.",),
        "ledger.counts.of_subscription": ("A subscription's rows by state.",),
        "ledger.counts._next": ("The first of these rows that is due.",),
    },
}
LOOSE = {
    "ledger.upkeep.disable",
    "ledger.upkeep.by_id",
    "ledger.admin.find",
    "ledger.admin.owed",
    "ledger.admin._redeliver",
    "ledger.replays.find",
    "ledger.search._ids",
    "ledger.search.search",
    "subscriptions.repository.walk",
    "subscriptions.repository.page",
}


def printed_migrations(*words: str) -> str:
    """What Alembic prints for Oracle, from nothing to the newest if nothing else is said; nothing connects."""
    command = [sys.executable, "-m", "alembic", *(words or ("upgrade", "head")), "--sql"]
    return subprocess.run(command, cwd=ROOT, env=NOWHERE, check=True, capture_output=True, text=True).stdout


def files(oracle: OracleEmulator) -> dict[str, str]:
    """The files of statements by name, from a run on a server. ValueError says which purposes are to be written."""
    owner = connect_to(oracle.url)
    migrations.upgrade(owner)
    with owner.begin() as connection:  # as a release before 0008 left it
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR2(32))")
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
            raise ValueError(f"the driver sent something else than {sql}")
        by_function[function].setdefault(_shape(sql) if function in LOOSE else canonical(sql), sql)
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


def _shape(sql: str) -> str:
    """A statement without its conditions, but for those that look into other tables."""
    rest, conditions = without_conditions(sql)
    return " ".join([rest, *sorted(each for each in conditions if "SELECT" in each)])


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
            raise ValueError(f"in SESSION nothing is said of {sql}")
        text = " ".join(sql.split())
        blocks.append(f"-- {purposes[0]}\n{text}\n;\n")
    return "\n".join(blocks)


def _check(by_function: Mapping[str, Mapping[str, str]]) -> None:
    """Each statement has its purpose."""
    said = {function: purposes for functions in PURPOSES.values() for function, purposes in functions.items()}
    wrong = [
        f"{function}: {len(said.get(function, ()))} purposes, and these statements:\n" + "\n".join(statements.values())
        for function in said.keys() | by_function.keys()
        if len(said.get(function, ())) != len(statements := by_function.get(function, {}))
    ]
    if wrong:
        raise ValueError("PURPOSES does not fit what is issued\n" + "\n\n".join(sorted(wrong)))


def _blocks(function: str, purposes: Iterable[str], statements: Iterable[str]) -> Iterator[str]:
    for purpose, sql in zip(purposes, statements, strict=True):
        note = f"\n-- {ANY_OF_THESE}" if function in LOOSE else ""
        yield f"-- {function}\n-- {purpose}{note}\n{readable(sql)}\n;\n"


def run(engine: Engine) -> None:
    """Have `consumer` issue each of its statements, on empty tables."""
    ping(engine)
    migrations.state(engine)
    with engine.connect() as connection:
        migrations.noted_before(connection)
    _subscribe(engine)
    _store(engine)
    _send(engine)
    _command(engine)
    _keep(engine)


def _subscribe(engine: Engine) -> None:
    for _ in range(3):
        repository.add(engine, URL, "user.created", "a secret", ordering="key")
    find_endpoints(engine, [("created", None)], KEYS, in_the_clear)
    repository.find(engine, URL, "user.created")
    repository.edit(engine, 1, {"timeout_seconds": 5.0}, Rules(own_secret=True))
    repository.edit(engine, 1, {"event_filter": None})
    list(repository.walk(engine, event_type="user.created", tenant="*", enabled=True))
    repository.page(engine, after=None, limit=10, event_type="user.created", tenant="*", state="failing", url="example")
    repository.page(engine, after=None, limit=10)
    health.failing(engine, 20)
    health.disabled(engine, 20)
    event_types.named_types(engine, 10, 10_000)
    repository.count_enabled(engine)
    repository.get(engine, 1)
    for enabled, reason in ((False, None), (False, "moves"), (True, None)):
        repository.set_enabled(engine, 1, enabled, reason)
    with engine.begin() as connection:
        repository.set_verified(connection, 1, URL, 1.5)
    _change_secrets(engine)


def _change_secrets(engine: Engine) -> None:
    vault, now = Vault(Fernet.generate_key().decode()), datetime.now(UTC)
    with engine.begin() as connection:
        secrets.insert_secrets(connection, 2, [("bearer", "token")], vault, now)
    secrets.rotate(engine, 2, vault=vault, default=(), overlap=timedelta(1), now=now)
    secrets.set_credential(engine, 2, "bearer", "another", vault, now)
    secrets.entries(engine, 2, now)
    secrets.made_at(engine, 2, now, vault)
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
    waiting = outbox.pending(engine, GROUP, 10)
    outbox.forget(engine, [row for row, _, _ in waiting])


def _send(engine: Engine) -> None:
    due.scan(engine, GROUP, [("t", 0)], None)
    wants = [FetchRequest(("t", 0, 1), 9, frozenset())]
    due.fetch(engine, GROUP, wants, T, default_secrets=KEYS, decrypt=in_the_clear)
    due.fetch(engine, GROUP, wants, T, default_secrets=KEYS, decrypt=_refuse)
    assigned.settled_keys(engine, GROUP, "t", 0, 0, 0)
    assigned.open_keys(engine, GROUP, "t", 0, 10)
    subject = marks.Subject("t", 0, 0, 1)
    marks.decide(engine, GROUP, subject, Wish.GIVE_UP)
    marks.recent(engine, GROUP, None)
    marks.decision(engine, GROUP, subject)
    marks.acted(engine, GROUP, subject)
    assigned.open_topics(engine, GROUP)
    assigned.with_rows(engine, GROUP, [("t", 0)])


def _refuse(_: str, _owner: Owner) -> str:
    raise ValueError("no key")


def _command(engine: Engine) -> None:
    choice: Any = CHOICE
    admin.find(engine, limit=10, after_id=0, **choice)
    admin.find(engine, limit=10, after_id=0, event_type="user.created", **choice)
    for event_type in (None, "user.created"):
        admin.count(engine, DeliveryQuery(event_type=event_type, **choice), 10_000)
    admin.count(engine, DeliveryQuery(tenant="acme", topic="t", **choice), 10_000)
    admin.owed(engine, 1, 10_001)
    admin.detail(engine, 1)
    admin.of_record(engine, GROUP, "t", 0, 1)
    for event_type in (None, "user.created"):
        of_all = DeliveryQuery(event_type=event_type, tenant="*", topic="t", **choice)
        list(admin.redeliver(engine, of_all, T))
    admin.progress(engine, [1, 2])
    span = Span("t", 0, 0, 9)
    replay = replays.create(engine, GROUP, 1, 0.0, T, None, 1.0, [span])
    replays.load(engine, replay)
    row = NewDelivery(make_event(0), 1, URL, 0, "parked", 1.0, replay=replay)
    replays.advance(engine, replay, GROUP, [row], {("t", 0): 9}, 1, T)
    replays.create(engine, GROUP, 1, 0.0, T, None, 1.0, [span], background=True, created_by="api:token")
    claimed = replays.claim(engine, GROUP, T, T + 30)
    assert claimed is not None
    replays.advance(engine, claimed.id, GROUP, [], {}, 0, T, Lease(T + 30, T + 31))
    replays.release(engine, claimed.id, T + 31, None, None)
    replays.finish(engine, replay, T)
    replays.find(engine, limit=10, group=GROUP, subscription=1, before=9)
    replays.cancel(engine, replay, T)
    key = request_keys.request_key("8e03978e", ("acme", "/v1/replays"), b"{}", T)
    request_keys.find(engine, key)
    with engine.begin() as connection:
        request_keys.note(connection, key, replay)
    counts.by_state(engine, 10_000)
    counts.most_loaded(engine, 1, 10_001)
    counts.last_failure(engine, 1)
    search.search(engine, search.Query(TWO, 1, "acme", "user.created", "t", 0.0, 10 * T))
    search.recent_types(engine)
    counts.of_subscription(engine, 1)
    counts.of_replay(engine, replay, 1)
    counts.last_of_replay(engine, replay)
    counts.next_of_replay(engine, replay)
    counts.next_of(engine, [1, 2])
    list(adoption.adopt(engine, GROUP, "another", T))


def _keep(engine: Engine) -> None:
    group = "another"
    upkeep.failing(engine, 1, T)
    upkeep.recovered(engine, group, 1)
    upkeep.slow(engine, 1, T)
    told = OperationalEvent("subscription.disabled", "op_3", {})
    upkeep.disable(engine, group, 1, "410", told, failing_before=T, url=URL)
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
    list(upkeep.purge(engine, (Status.DELIVERED, Status.EXHAUSTED), 5_000_000_000.0))
    upkeep.replays_finished_before(engine, T)
    upkeep.purge_replays(engine, T)


def _end(engine: Engine, group: str) -> None:
    """One row is delivered."""
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
