"""Classifies database errors: whether they are transient, and, in one line, what to do about them."""

import re
import sqlite3
from typing import TypeGuard

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from consumer.errors import DatabaseRefused, DatabaseTooSlow, DatabaseUnavailable, SessionEnded

# The connection is unusable. SQLAlchemy itself knows ORA-00028, 01033, 02396, 03113, 03114, 03135, DPY-1001 and 4011.
_DISCONNECTS = {
    "ORA-01012",  # not logged on
    "ORA-01034",  # the instance is not running
    "ORA-01089",  # immediate shutdown in progress
    "ORA-01092",  # the instance terminated
    "ORA-02392",  # a profile's limit per session: CPU time
    "ORA-02394",  # a profile's limit per session: reads
    "ORA-02399",  # a profile's limit per session: age
    "ORA-12570",  # the packet reader failed
    "ORA-25408",  # lost in a call that cannot be replayed
    "DPY-4024",  # call time-out: the answer may still arrive and would stay unread
}
# Parts of the error's text if the session alone is gone: the others of the pool go on. The driver gives some of them as
# DPY-4011, with Oracle's error in the second line.
_ALONE = (
    "DPY-4024",  # see above
    "ORA-00028",  # killed by a DBA
    "ORA-00031",  # marked for kill
    "ORA-02392",
    "ORA-02394",
    "ORA-02396",  # a profile's limit per session: idle time
    "ORA-02399",
)
# Parts of the error's text if a single call took too long or exceeded a limit: a smaller batch may succeed.
_TOO_SLOW = (
    "DPY-4024",  # the call timed out
    "recovering from previous socket timeout",  # DPY-4011: the driver's attempt to cancel the call timed out too
    "ORA-00040",  # the resource manager's limit per call: time
    "ORA-02393",  # a profile's limit per call: CPU time
    "ORA-02395",  # a profile's limit per call: reads
    "ORA-56720",  # the resource manager's limit per call: reads and writes
    "ORA-56735",  # the resource manager's limit per call: elapsed time
)
# The same statement may succeed later. So may all OperationalErrors of Oracle; the codes below have other types too.
_TRANSIENT = {
    # Space.
    "ORA-00257",  # archiver error: connect as administrator only
    "ORA-01536",  # space quota exceeded
    "ORA-01628",  # an undo segment has reached its maximum of extents
    "ORA-01631",  # a table has reached its maximum of extents
    "ORA-01632",  # an index has reached its maximum of extents
    "ORA-01652",  # no temporary space
    "ORA-01653",  # a table cannot grow
    "ORA-01654",  # an index cannot grow
    "ORA-01658",  # no room for a segment's first extent
    "ORA-01683",  # a partition of an index cannot grow
    "ORA-01688",  # a partition of a table cannot grow
    "ORA-01691",  # a LOB cannot grow
    "ORA-01692",  # a partition of a LOB cannot grow
    "ORA-01950",  # no quota on the tablespace
    "ORA-12952",  # a free edition's maximum database size: 2 GB
    "ORA-12953",  # a free edition's maximum database size: 11 GB
    "ORA-12954",  # a free edition's maximum database size: 12 GB
    "ORA-15041",  # a disk group is full
    "ORA-25153",  # the temporary tablespace has no file
    "ORA-30027",  # the resource manager's quota of undo
    "ORA-30032",  # a resumable statement has timed out waiting for space
    "ORA-30036",  # no undo space
    "ORA-65114",  # a pluggable database may not grow
    # Limits of the server, of sessions and of memory.
    "ORA-00018",  # maximum number of sessions
    "ORA-00020",  # maximum number of processes
    "ORA-00052",  # maximum number of enqueue resources
    "ORA-00053",  # maximum number of enqueues
    "ORA-00055",  # maximum number of DML locks
    "ORA-01000",  # maximum number of open cursors
    "ORA-02391",  # a profile's limit of sessions
    "ORA-04030",  # no memory for the process
    "ORA-04031",  # no shared memory
    "ORA-04036",  # PGA_AGGREGATE_LIMIT
    "ORA-07454",  # timed out in the resource manager's queue
    "ORA-27102",  # the system is out of memory
    # Files and indexes.
    "ORA-00372",  # a file may not be changed now
    "ORA-00376",  # a file cannot be read now
    "ORA-01114",  # writing a file failed
    "ORA-01115",  # reading a file failed
    "ORA-01116",  # opening a file failed
    "ORA-01135",  # a file is offline
    "ORA-01157",  # a file cannot be opened
    "ORA-01502",  # an index is unusable
    "ORA-01542",  # a tablespace is offline
    "ORA-01552",  # undo is offline
    "ORA-01578",  # a block is corrupted
    "ORA-01647",  # a tablespace is read only
    "ORA-28365",  # the keystore of encrypted tablespaces is closed
    "ORA-28374",  # the keystore lacks the master key
    "ORA-28417",  # the keystore that a password opens is closed
    # Other sessions.
    "ORA-00051",  # timed out waiting for a resource
    "ORA-00054",  # resource busy
    "ORA-00060",  # deadlock
    "ORA-01013",  # cancelled
    "ORA-01410",  # a row was moved while it was read
    "ORA-01555",  # snapshot too old
    "ORA-01591",  # a row is locked by a distributed transaction in doubt
    "ORA-02049",  # timed out waiting for a distributed lock
    "ORA-04020",  # deadlock on a definition
    "ORA-04021",  # timed out waiting to lock a definition
    "ORA-04068",  # package state discarded
    "ORA-08103",  # a segment was replaced while it was read
    "ORA-08104",  # an index is being built online
    "ORA-08176",  # no undo for a consistent read
    "ORA-08177",  # cannot serialise access
    "ORA-12801",  # a parallel query server failed, and names no cause
    "ORA-12805",  # a parallel query server died
    "ORA-12842",  # a cursor was invalidated while it was executed in parallel
    "ORA-24761",  # the transaction was rolled back
    "ORA-25401",  # fail-over: reads cannot be continued
    "ORA-25402",  # fail-over: the transaction must be rolled back
    "ORA-25405",  # fail-over: the transaction's state is unknown
    "ORA-63300",  # rolled back for a transaction of higher priority, in 23ai
    "ORA-63302",  # so it was, by an earlier statement, and no rollback has followed yet
    # Accounts, and modes of the database.
    "ORA-01017",  # invalid credential: a password is being rotated
    "ORA-01031",  # no such privilege: a grant may follow
    "ORA-01035",  # restricted session
    "ORA-01045",  # no CREATE SESSION yet
    "ORA-01109",  # database not open
    "ORA-01219",  # database not open
    "ORA-01435",  # the schema's owner is not there yet
    "ORA-16000",  # open for reading only: a switch-over
    "ORA-16456",  # switch-over in progress
    "ORA-28000",  # account locked
    "ORA-28001",  # password expired
    "ORA-41900",  # no such privilege, in 23ai
}
_NOT_MIGRATED = {"ORA-00942", "ORA-00904"}  # no such table, no such column
_SQLITE_TRANSIENT = (
    "BUSY",
    "CANTOPEN",
    "CORRUPT",
    "FULL",
    "IOERR",
    "LOCKED",
    "NOMEM",
    "NOTADB",
    "PROTOCOL",
    "READONLY",
)
# Advice, by a part of the error's text: an error of connecting contains the text of its cause.
_ADVICE = {
    "DPY-2018": "wallet_location in DATABASE_URL names the directory of ewallet.pem",
    "DPY-3001": "thin mode has no native network encryption: use TLS, or a client (ORACLE_CLIENT_LIB)",
    "DPY-4000": "correct the alias in DATABASE_URL, or config_dir, the directory of tnsnames.ora",
    "DPY-4001": "write the password into DATABASE_URL, or name its file in DATABASE_PASSWORD_FILE",
    "DPY-4026": "config_dir in DATABASE_URL, or TNS_ADMIN, names the directory of tnsnames.ora",
    "DPY-4027": "an alias needs config_dir in DATABASE_URL, or TNS_ADMIN; a host needs ?service_name=…",
    "DPY-6001": "is service_name in DATABASE_URL right, is the database open?",
    "DPY-6002": "ssl_server_cert_dn is not the certificate's",
    "DPY-6003": "the word after host and port in DATABASE_URL is a SID; a service goes into ?service_name=…",
    "DPY-6006": "the certificate names another host: use that name, or set ssl_server_cert_dn to the certificate's DN",
    "ORA-01000": "raise OPEN_CURSORS, or lower stmtcachesize in DATABASE_URL",
    "ORA-01017": "is the password in DATABASE_URL or DATABASE_PASSWORD_FILE the present one?",
    "ORA-01031": "the account lacks a grant of docs/database.md",
    "ORA-01435": "is DATABASE_SCHEMA the owner of the tables?",
    "ORA-01502": "rebuild it: ALTER INDEX … REBUILD ONLINE",
    "ORA-08104": "if no session builds it, Oracle cleans up in minutes, DBMS_REPAIR.ONLINE_INDEX_CLEAN at once",
    "ORA-12660": "thin mode has no native network encryption: use TLS, or a client (ORACLE_CLIENT_LIB)",
    "ORA-41900": "the account lacks a grant of docs/database.md",
    "cannot connect to database. DPY-4011": "it hangs up: does it need TLS, a client certificate, network encryption?",
    "Connection refused": "is the database up, are host and port in DATABASE_URL right?",
    "Name or service not known": "is the host in DATABASE_URL right?",
    "timed out": "is the database up, are host and port in DATABASE_URL right, does a firewall drop it?",
    "database or disk is full": "free space on the disk of the file in DATABASE_URL, or give it a larger one",
    "disk I/O error": "is the disk of the file in DATABASE_URL full, or broken?",
    "database is locked": "another process has been writing to it for the whole wait",
    "CERTIFICATE_REQUIRED": "the server requires a client certificate: set wallet_location in DATABASE_URL",
    "CERTIFICATE_VERIFY_FAILED": "the certificate's issuer belongs in ewallet.pem, in wallet_location",
}
_CONNECTION_ID = re.compile(r" \(CONNECTION_ID=[^)]*\)")
_PARALLEL = re.compile(r"ORA-12801: .*?(ORA-\d{5})", re.DOTALL)
MIGRATE = "the tables are missing or old: run kafka-webhooks migrate"


def unavailable(error: Exception) -> DatabaseUnavailable | None:
    """`error` as DatabaseUnavailable if it is transient (lost, busy, full, not migrated yet), else None."""
    if isinstance(error, DatabaseUnavailable):
        return error
    if isinstance(error, PoolTimeoutError):
        return DatabaseUnavailable("all connections of the pool are in use")
    if not isinstance(error, DBAPIError):
        return None
    code = _code(error.orig)
    if is_not_migrated(error):
        return DatabaseUnavailable(f"{line(error)} ({MIGRATE})")
    if any(part in str(error.orig) for part in _TOO_SLOW):
        return DatabaseTooSlow(line(error))
    sqlite = isinstance(error.orig, sqlite3.Error)
    passes = (
        error.connection_invalidated
        or code in _DISCONNECTS
        or code in _TRANSIENT
        or (isinstance(error, OperationalError) and not sqlite)
        or (sqlite and code.removeprefix("SQLITE_").startswith(_SQLITE_TRANSIENT))
    )
    return DatabaseUnavailable(line(error)) if passes else None


def is_not_migrated(error: DBAPIError) -> bool:
    """Whether a table or column does not exist."""
    code = _code(error.orig)
    return code in _NOT_MIGRATED or (
        code == "SQLITE_ERROR" and line(error).startswith(("no such table", "no such column"))
    )


def refused(error: Exception) -> DatabaseRefused | None:
    """`error` as DatabaseRefused if the database refused the statement, or None if the error is not the database's."""
    return DatabaseRefused(line(error)) if isinstance(error, DBAPIError) else None


def translated(error: Exception) -> Exception:
    """`error` as DatabaseUnavailable or DatabaseRefused, with the driver's text; unchanged if not the database's."""
    return unavailable(error) or refused(error) or error


def is_outage(answer: object) -> TypeGuard[DatabaseUnavailable]:
    """Whether the database is unavailable to all calls, and not only to one, which is too slow or ends its session."""
    return isinstance(answer, DatabaseUnavailable) and not isinstance(answer, DatabaseTooSlow | SessionEnded)


def kind(error: Exception) -> str:
    """The kind of a `translated` error, for metrics: `unavailable`, `too_slow`, `refused` or `other`."""
    if isinstance(error, DatabaseTooSlow):
        return "too_slow"
    if isinstance(error, DatabaseUnavailable):
        return "unavailable"
    return "refused" if isinstance(error, DatabaseRefused) else "other"


def is_disconnect(error: BaseException | None) -> bool:
    """Whether the error leaves the connection unusable, in a way that SQLAlchemy does not recognise."""
    return _code(error) in _DISCONNECTS


def is_alone(error: BaseException | None) -> bool:
    """Whether the error has ended this session alone, and tells nothing of the server and its other sessions."""
    return any(part in str(error) for part in _ALONE)


def ended_session(error: Exception) -> bool:
    """Whether the server has ended the session of this statement, for no reason of the session's own."""
    if not isinstance(error, DBAPIError) or is_alone(error.orig):
        return False
    return error.connection_invalidated and not isinstance(unavailable(error), DatabaseTooSlow)


def line(error: Exception) -> str:
    """The driver's text on one line, without the connection id and the help link, and with known advice.

    SQLAlchemy's own text is not used, because it contains the statement.
    """
    text = _CONNECTION_ID.sub("", str(getattr(error, "orig", None) or error))
    text = " ".join(line for line in text.splitlines() if not line.startswith("Help: ")) or type(error).__name__
    advice = next((advice for part, advice in _ADVICE.items() if part in text), None)
    return f"{text} ({advice})" if advice else text


def _code(error: BaseException | None) -> str:
    """`ORA-03113`, `DPY-4011`, `SQLITE_BUSY`; empty if the error has none. Of a parallel query, that of its cause."""
    if isinstance(error, sqlite3.Error):
        return str(getattr(error, "sqlite_errorname", ""))
    if cause := _PARALLEL.match(str(error)):
        return cause.group(1)
    return str(getattr(error.args[0], "full_code", "")) if error and error.args else ""
