"""Connects to Oracle: the parameters of DATABASE_URL, passwords in files, and a time limit for the log-in.

In thick mode Oracle's client libraries connect. They read `sqlnet.ora`, and get an alias or a descriptor as it is.

Binds are declared with the sizes of their columns, instead of the sizes of their values. By default the driver declares
four bytes for each character of a text. Oracle keeps a child cursor of a statement for each combination of bind sizes,
in steps of 32, 128, 2,000 and 4,000 bytes, and searches them at each execution: a look-up of sixteen types and tenants
could have thousands. A larger declared size costs nothing on the wire.
"""

import ssl
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from threading import BoundedSemaphore, Thread, current_thread
from typing import Any, TypeAlias

import oracledb
import sqlalchemy as sa
from sqlalchemy import BindParameter, Engine, String, event
from sqlalchemy.engine.interfaces import DBAPICursor, ExecutionContext
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.types import TupleType, TypeEngine

from consumer.config.settings import DatabaseSettings
from consumer.database.errors import line
from consumer.errors import SettingsError

# The oldest release that Oracle supports and that the tests emulate. The driver connects to 12.1 and newer.
OLDEST = 19
# Seconds for each address. Firewalls drop packets that they do not allow, and the next address may answer.
TCP_CONNECT_TIMEOUT = 5.0
# Seconds for a log-in, with all addresses: the driver's own limit covers TCP only, and a listener may hang after that.
CONNECT_LIMIT = 60.0
# Log-ins that may hang beyond that limit: each holds a thread and a socket.
MAX_HANGING = 16
# Minutes of silence before the kernel probes the connection: firewalls forget idle connections.
EXPIRE_TIME = 2
STATEMENT_CACHE = 64
FIRST = 4  # times the limit of a call, for the first execution of a text in this process
MOST_OF_ACTION = 64  # bytes
PROGRAM = "kafka-webhooks"  # in V$SESSION

_SWITCHES = {"disable_oob", "ssl_server_dn_match", "use_sni"}
_PARAMETERS = {
    *_SWITCHES,
    "cclass",
    "config_dir",
    "dsn",
    "edition",
    "expire_time",
    "https_proxy",
    "https_proxy_port",
    "instance_name",
    "protocol",
    "purity",
    "retry_count",
    "retry_delay",
    "sdu",
    "server_type",
    "service_name",
    "ssl_server_cert_dn",
    "ssl_version",
    "stmtcachesize",
    "tcp_connect_timeout",
    "wallet_location",
}
_PURITIES = {"PURITY_NEW": oracledb.PURITY_NEW, "PURITY_SELF": oracledb.PURITY_SELF}  # SQLAlchemy refuses other words
_ON, _OFF = {"on", "true", "yes"}, {"off", "false", "no"}  # the driver takes every unknown word for off
_ELSEWHERE = {
    "password": "write it before the @, or set DATABASE_PASSWORD_FILE",
    "user": "write it before the @",
    "wallet_password": "set DATABASE_WALLET_PASSWORD, which is not logged",
}
_WALLET = "ewallet.pem"

# The largest size that every server binds as VARCHAR2 or RAW, and the largest that no server binds as LONG. TEXT is in
# characters of up to four bytes each, BYTES in bytes.
TEXT = (1000, 8191)
BYTES = (2000, 32767)

Sizes: TypeAlias = tuple[int, int]
Connect: TypeAlias = Callable[[], oracledb.Connection]


def connector(settings: DatabaseSettings, url: sa.URL) -> Connect:
    """A function that connects, and reads files and resolves names each time. It raises only OperationalError.

    With ORACLE_CLIENT_LIB the client's libraries are loaded, for the whole process. Raises SettingsError if they
    cannot be, and for a URL that can never work, without access to other files or the network.
    """
    if settings.password_file and url.password:
        raise SettingsError(
            "DATABASE_URL holds a password, and DATABASE_PASSWORD_FILE names another: take it out of the URL. "
            "For example: DATABASE_URL=oracle+oracledb://user@host:1521/?service_name=FREEPDB1"
        )
    arguments = _arguments(url)
    if settings.token_callback:
        if settings.password_file or url.username or url.password:
            raise SettingsError("DATABASE_TOKEN_CALLBACK gives tokens: take user and password out of DATABASE_URL")
        arguments["access_token"] = partial(_token, settings.token_callback)
    if settings.wallet_password:
        arguments["wallet_password"] = settings.wallet_password.get_secret_value()
    if settings.client_lib:
        _load_client(settings, arguments.get("config_dir"))
    connect = _thick if settings.client_lib else _thin
    return partial(_connect, arguments, settings.password_file, partial(connect, BoundedSemaphore(MAX_HANGING)))


def _load_client(settings: DatabaseSettings, config_dir: str | None) -> None:
    if settings.wallet_password:
        raise SettingsError("DATABASE_WALLET_PASSWORD: with ORACLE_CLIENT_LIB the wallet is cwallet.sso: unset it")
    try:
        oracledb.init_oracle_client(lib_dir=settings.client_lib, config_dir=config_dir)
    except oracledb.Error as error:
        raise SettingsError(f"ORACLE_CLIENT_LIB={settings.client_lib}: {line(error)}") from None


def _token(callback: Callable[[bool], Any], refresh: bool) -> Any:  # noqa: FBT001 (the driver's signature)
    try:
        return callback(refresh)
    except Exception as error:  # noqa: BLE001 (the operator's code; its text may hold the token)
        raise oracledb.OperationalError(f"DATABASE_TOKEN_CALLBACK fails: {type(error).__name__}") from None


def _arguments(url: sa.URL) -> dict[str, Any]:
    """The driver's arguments, with `dsn` if the URL has no address of its own."""
    query = _query(url)
    defaults = {
        "program": PROGRAM,
        "tcp_connect_timeout": TCP_CONNECT_TIMEOUT,
        "expire_time": EXPIRE_TIME,
        "stmtcachesize": STATEMENT_CACHE,
    }
    given = {"user": url.username, "password": url.password} | _address(url, query)
    return defaults | query | {name: value for name, value in given.items() if value}


def _address(url: sa.URL, query: Mapping[str, str]) -> dict[str, Any]:
    service, dsn = query.get("service_name"), query.get("dsn", "")
    if dsn and (url.host or service):
        raise SettingsError("DATABASE_URL: dsn already names the database: remove the host and service_name")
    if "password" in dsn.lower() or "@" in dsn.partition("(")[0].partition("?")[0]:
        raise SettingsError("DATABASE_URL: dsn holds a user or a password: write them before the @ of the URL")
    if "protocol" in query and not service and not url.database:
        raise SettingsError("DATABASE_URL: protocol needs a host and service_name; dsn and tnsnames.ora set their own")
    if dsn:
        return {}
    if not url.host:
        raise SettingsError(
            "DATABASE_URL names no host. For example: oracle+oracledb://user:password@host:1521/?service_name=FREEPDB1"
        )
    if url.database and service:
        raise SettingsError(f"DATABASE_URL: {url.database} is a SID: write that or ?service_name=…, not both")
    if url.database or service:
        return {"host": url.host, "port": url.port, "sid": url.database}
    if url.port:
        raise SettingsError("DATABASE_URL has a port and no service: add ?service_name=…")
    return {"dsn": url.host}  # an alias in tnsnames.ora


def _query(url: sa.URL) -> dict[str, Any]:
    """The URL's parameters. SettingsError for an unknown or secret one, or a value that the driver does not accept."""
    for name, value in url.query.items():
        if name in _ELSEWHERE:
            raise SettingsError(f"DATABASE_URL: {name} does not belong in its parameters: {_ELSEWHERE[name]}")
        if name not in _PARAMETERS:
            known = ", ".join(sorted(_PARAMETERS))
            raise SettingsError(f"DATABASE_URL: {name} is not a connection parameter; these are: {known}")
        if not isinstance(value, str):
            raise SettingsError(f"DATABASE_URL: {name} is given more than once")
        if name in _SWITCHES and value.lower() not in _ON | _OFF:
            raise SettingsError(f"DATABASE_URL: {name}={value}: write true or false")
        if name == "purity" and value not in _PURITIES:
            raise SettingsError(f"DATABASE_URL: purity={value}: write {' or '.join(_PURITIES)}")
        try:
            oracledb.ConnectParams(**{name: value} if name not in {"dsn", "purity"} else {})
        except (ValueError, OverflowError, oracledb.Error) as error:
            raise SettingsError(f"DATABASE_URL: {name}={value}: {line(error)}") from None
    return {name: _PURITIES[str(value)] if name == "purity" else value for name, value in url.query.items()}


def _connect(
    arguments: Mapping[str, Any],
    password_file: str | None,
    connect: Callable[[dict[str, Any], str | None], oracledb.Connection],
) -> oracledb.Connection:
    given = dict(arguments)
    dsn = given.pop("dsn", None)
    if password_file:
        given["password"] = _read_password(password_file)
    connection = connect(given, dsn)
    if int(connection.version.partition(".")[0]) < OLDEST:
        version = connection.version
        connection.close()
        raise oracledb.OperationalError(f"this is Oracle {version}; Oracle {OLDEST}c or newer is needed")
    connection.module = PROGRAM  # sent with the next call
    return connection


def _thin(places: BoundedSemaphore, given: dict[str, Any], dsn: str | None) -> oracledb.Connection:
    try:
        params = oracledb.ConnectParams(**given)
        if dsn:
            params.parse_connect_string(dsn)
    except oracledb.Error as error:
        raise oracledb.OperationalError(str(error)) from None
    for directory in {directory for directory in _each(params.wallet_location) if directory.upper() != "SYSTEM"}:
        _check_wallet(Path(directory) / _WALLET, given.get("wallet_password"))
    return _limited(places, params)


def _thick(places: BoundedSemaphore, given: dict[str, Any], dsn: str | None) -> oracledb.Connection:
    return _limited(places, oracledb.ConnectParams(**given), dsn)


def _limited(places: BoundedSemaphore, params: oracledb.ConnectParams, dsn: str | None = None) -> oracledb.Connection:
    """Connect within CONNECT_LIMIT, or raise OperationalError. The thread closes a connection that comes too late."""
    if not places.acquire(blocking=False):
        raise oracledb.OperationalError(f"{MAX_HANGING} log-ins hang: no other starts until one of them ends")
    outcome: Future[oracledb.Connection | str] = Future()
    hosts = ", ".join(_each(params.host)) or dsn

    def work() -> None:
        try:
            outcome.set_result(oracledb.connect(dsn, params=params))
        except OSError as error:  # a host that does not resolve: the driver passes the resolver's error on
            outcome.set_result(f"cannot connect to {hosts}: {error.strerror or error}")
        except Exception as error:  # noqa: BLE001 (as text: an exception would keep its frames, and a socket, alive)
            outcome.set_result(f"{_addresses(params)}{error}")
        finally:
            places.release()

    Thread(target=work, name="oracle-connect", daemon=True).start()
    if not wait([outcome], CONNECT_LIMIT).done:
        outcome.add_done_callback(_close)
        raise oracledb.OperationalError(
            f"no answer from {hosts} within {CONNECT_LIMIT:g} s: it hangs, or only one side speaks TLS"
        )
    answer = outcome.result()
    if isinstance(answer, str):
        raise oracledb.OperationalError(answer)
    return answer


def _addresses(params: oracledb.ConnectParams) -> str:
    """The addresses as an error's prefix, such as `db.example:1521: `, separated by commas; empty if there are none."""
    hosts, ports = (value if isinstance(value, list) else [value] for value in (params.host, params.port))
    found = ", ".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=False) if host)
    return f"{found}: " if found else ""


def _close(outcome: Future[oracledb.Connection | str]) -> None:
    answer = outcome.result()
    if not isinstance(answer, str):
        answer.close()


def _read_password(file: str) -> str:
    try:
        password = Path(file).read_text(encoding="utf-8-sig").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise oracledb.OperationalError(f"DATABASE_PASSWORD_FILE={file} cannot be read: {reason}") from None
    if not password:
        raise oracledb.OperationalError(f"DATABASE_PASSWORD_FILE={file} is empty: write the password into it")
    return password


def _check_wallet(file: Path, password: str | None) -> None:
    """OperationalError if the wallet's key cannot be used: the driver would continue without it, or prompt for it."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise oracledb.OperationalError(f"{file} cannot be read: {error.strerror}: correct wallet_location") from None
    if "PRIVATE KEY-----" not in text:
        return  # the wallet only holds certificates to trust
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(file, password=password or "")
    except (ssl.SSLError, ValueError):
        what = "does not open its key" if password else "is not set, and is needed if the key is encrypted"
        raise oracledb.OperationalError(f"{file}: cannot be used: DATABASE_WALLET_PASSWORD {what}") from None


def _each(value: str | list[str | None] | None) -> list[str]:
    """A parameter's values: a list, if there are several addresses."""
    return [each for each in (value if isinstance(value, list) else [value]) if each]


def allow_parsing(engine: Engine) -> None:
    """Let the first execution of each text take FIRST times a session's limit of a call, as Oracle parses it then.

    A limit that ends a hard parse would do so again each time, since Oracle keeps nothing of it.
    """
    executed = set[int]()

    @event.listens_for(engine, "before_cursor_execute")
    def before(connection: sa.Connection, _: object, statement: str, *__: object) -> None:
        session: Any = connection.connection.dbapi_connection
        restore(session, connection.info)
        if hash(statement) not in executed:
            connection.info["limit"] = session.call_timeout
            session.call_timeout *= FIRST

    @event.listens_for(engine, "after_cursor_execute")
    def after(connection: sa.Connection, _: object, statement: str, *__: object) -> None:
        executed.add(hash(statement))
        restore(connection.connection.dbapi_connection, connection.info)

    @event.listens_for(engine, "checkin")
    def checkin(session: Any, record: ConnectionPoolEntry) -> None:
        restore(session, record.info)

    def restore(session: Any, info: dict[Any, Any]) -> None:
        limit = info.pop("limit", None)
        if limit is not None and session is not None:
            session.call_timeout = limit


def name_sessions(engine: Engine) -> None:
    """Name the action of each session after the thread that uses it, for V$SESSION and the database's history."""

    @event.listens_for(engine, "checkout")
    def name(connection: Any, record: ConnectionPoolEntry, _: object) -> None:
        action = current_thread().name[:MOST_OF_ACTION]
        if record.info.get("action") != action:
            connection.action = record.info["action"] = action  # sent with the next call


def declare(engine: Engine) -> None:
    """Declare the sizes of text and byte binds in each statement that knows its bind types."""
    event.listen(engine, "do_setinputsizes", _declare)


def _declare(
    sizes: dict[BindParameter[Any], Any],
    cursor: DBAPICursor,
    _statement: str,
    rows: Sequence[Mapping[str, Any]],
    context: ExecutionContext,
) -> None:
    names = context.compiled.bind_names  # type: ignore[union-attr]  # only compiled statements get here
    for bind, given in sizes.items():
        if bind.isoutparam:
            continue
        if isinstance(bind.type, TupleType):
            types = zip(bind.type.types, given, strict=True)
            sizes[bind] = [_least(each) if isinstance(each, String) else its for each, its in types]
        elif isinstance(bind.type, String):
            least = _least(bind.type)
            # If a value is longer than its short column, the driver declares more by itself.
            sizes[bind] = least if least < TEXT[0] or bind.expanding else _room(rows, names[bind], TEXT)
        elif given is oracledb.DB_TYPE_RAW and not bind.expanding:
            size = _room(rows, names[bind], BYTES)
            sizes[bind] = cursor.var(given, size, arraysize=len(rows))


def _least(of: TypeEngine[Any]) -> int:
    """The characters of a text column, at most TEXT[0]."""
    return min(getattr(of, "length", None) or TEXT[0], TEXT[0])


def _room(rows: Sequence[Mapping[str, Any]], name: str, limits: Sizes) -> int:
    """The size for a bind's longest value, rounded up to few sizes: the short limit, powers of two, the long limit."""
    short, long = limits
    longest = max(len(row.get(name) or "") for row in rows)
    if longest <= short:
        return short
    power = 1 << (longest - 1).bit_length()
    return min(power, long) if longest <= long else power
