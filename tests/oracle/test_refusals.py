"""The emulator refuses what Oracle refuses, with its error number, and accepts Oracle's SQL that H2 lacks."""

from datetime import UTC, datetime, timedelta

import oracledb
import pytest

from tests.oracle.conftest import Connect, Start
from tests.oracle.test_driver import TABLE
from tests.oracle.wrong_sql import MISTAKES, REFUSED_ON_SCHEMA, SCHEMA, TABLES, WRONG
from tests.oracle_emulator import PROFILE_19C, PROFILE_23AI, OracleEmulator

CHILD = """CREATE TABLE child (t_id NUMBER(19) NOT NULL, rate_limit NUMBER, CONSTRAINT ck_child CHECK (t_id > 0),
CONSTRAINT fk_child FOREIGN KEY (t_id) REFERENCES t (id))"""
VIOLATIONS = [
    ("INSERT INTO t (name) VALUES ('dup')", 1),
    ("INSERT INTO t (name) VALUES (NULL)", 1400),
    ("INSERT INTO t (name) VALUES ('')", 1400),  # '' is NULL
    ("INSERT INTO child (t_id) VALUES (99)", 2291),
    ("DELETE FROM t WHERE id = 1", 2292),
    ("INSERT INTO child (t_id) VALUES (-1)", 2290),
]
OTHERS = [
    ("INSERT INTO t (name) VALUES (RPAD('x', 60, 'x'))", 12899),
    ("CREATE TABLE t (a NUMBER)", 955),
    ("SELECT 1 / 0 FROM dual", 1476),
    ("SELECT SYSTIMESTAMP() FROM dual", 923),
    ("SELECT DISTINCT ON (id) id, name FROM t", 936),
    ("SELECT x.id FROM t x JOIN child AS y ON x.id = y.t_id", 905),
    ("SELECT id FROM t WHERE (id, name) IN ((1, 'dup')) AND (id, name) != (1, 'x')", 920),
    ("SELECT id FROM t WHERE (id, name) >= ((1, 'dup'))", 1796),
    ("ALTER TABLE t MODIFY (COLUMN name VARCHAR2(100 CHAR))", 905),
    ("UPDATE t SET ts = '2026-01-02 03:04:05'", 1843),
    ("INSERT INTO t (name, tz) VALUES ('x', '2026-01-02')", 1843),
    ("SELECT id FROM t WHERE d > '2026-01-02'", 1843),
    ("SELECT id FROM t WHERE id = (SELECT 1 FROM dual UNION SELECT 2 FROM dual)", 1427),
    (f"CREATE TABLE {'x' * 129} (a NUMBER)", 972),
    ("ROLLBACK TO SAVEPOINT nope", 1086),
]
BEFORE_23AI = [
    ("SELECT 1 FROM dual WHERE TRUE", 904),
    ("SELECT 1 FROM dual WHERE 1 IN ({})".format(", ".join("1" * 1001)), 1795),  # noqa: S608 (numbers)
    ("SELECT 1 FROM dual;", 933),
]
FROM_23AI = [  # it names the wrong word, instead of ORA-00933
    ("SELECT id FROM t LIMIT 5", 3049),
    ("SELECT x.id FROM t AS x", 3048),
    ("INSERT INTO t (id) VALUES (1) ON CONFLICT DO NOTHING", 3048),
    ("SELECT 1 FROM dual;", 3405),
]
ACCEPTED_BY_23AI = [
    "SELECT EXISTS (SELECT 1 FROM dual)",
    "CREATE TABLE IF NOT EXISTS x (a BOOLEAN)",
    "CREATE INDEX IF NOT EXISTS ix_x ON t (n)",
    "DROP TABLE IF EXISTS x",
]
ACCEPTED = [  # each resembles an invalid one
    "SELECT rate_limit FROM child WHERE rate_limit > 5",
    "SELECT 'LIMIT 5; :x' FROM dual /* ON CONFLICT */",
    "SELECT '2026-01-02' FROM dual WHERE '2026-01-02' = '2026-01-02'",
    "SELECT id FROM t WHERE name = '2026-01-02'",
    "SELECT id FROM t WHERE ts > TIMESTAMP '2026-01-02 03:04:05'",
    'SELECT id AS "level" FROM t',
    "SELECT body FROM t UNION ALL SELECT body FROM t",
    "SELECT DISTINCT name FROM t",
    "SELECT SYSTIMESTAMP, SYSDATE FROM dual",
    "WITH x AS (SELECT id FROM t), y AS (SELECT id FROM x) SELECT y.id AS again FROM y ORDER BY again",
    "SELECT CAST(id AS VARCHAR2(10)) AS text FROM t x WHERE CAST(id AS NUMBER) > 0",
    "SELECT id FROM t WHERE (id, name) = ((1, 'dup')) OR (id, name) IN (SELECT id, name FROM t)",
    "SELECT id FROM t WHERE id = (1) AND COALESCE(id, 2) > (COALESCE(1, 2)) AND id >= ((1 + 2) - 3)",
]


@pytest.fixture
def tables(cursor: oracledb.Cursor) -> oracledb.Cursor:
    """A cursor of a schema with a parent and a child table, of one row each."""
    for sql in (TABLE, CHILD, "INSERT INTO t (name) VALUES ('dup')", "INSERT INTO child (t_id) VALUES (1)"):
        cursor.execute(sql)
    cursor.connection.commit()
    return cursor


def code_of(cursor: oracledb.Cursor, sql: str, **binds: object) -> int:
    """Oracle's number of the error that a statement raises; 0 if it raises none."""
    try:
        cursor.execute(sql, binds)
    except oracledb.DatabaseError as error:
        return int(error.args[0].code)
    return 0


def test_each_is_refused_with_the_number_that_oracle_documents(oracle: OracleEmulator, tables: oracledb.Cursor) -> None:
    """The session stays usable; what is right, or right from 23ai on, is accepted."""
    of_release = BEFORE_23AI if oracle.profile.release < 23 else FROM_23AI
    wanted = dict([*VIOLATIONS, *OTHERS, *of_release])
    assert {sql: code_of(tables, sql) for sql in wanted} == wanted
    right = ACCEPTED if oracle.profile.release < 23 else [*ACCEPTED, *ACCEPTED_BY_23AI]
    assert {sql: code_of(tables, sql) for sql in right} == dict.fromkeys(right, 0)
    tables.execute("UPDATE t SET n = 1")
    assert code_of(tables, "SET TRANSACTION READ ONLY") == 1453
    assert tables.execute("SELECT COUNT(*) FROM t").fetchone() == (1,)
    with pytest.raises(oracledb.IntegrityError):
        tables.execute(VIOLATIONS[0][0])


def test_all_of_another_databases_sql_is_refused(start_oracle: Start) -> None:
    """19c refuses each statement with Oracle's number, or as unknown."""
    oracle = start_oracle(PROFILE_19C)
    with oracledb.connect(user="webhooks", password="secret", dsn=oracle.dsn) as connection:
        cursor = connection.cursor()
        for sql in TABLES:
            cursor.execute(sql)
        found = {
            wrong: code_of(cursor, wrong.sql, **({"x": cursor.var(int)} if ":x" in wrong.sql else {}))
            for wrong in WRONG
        }
    understood = {wrong for wrong in WRONG if wrong.sql not in {failure.sql for failure in oracle.failures}}
    assert {wrong: code for wrong, code in found.items() if wrong in understood} == {
        wrong: wrong.code for wrong in understood
    }
    assert {found[wrong] for wrong in WRONG if wrong not in understood} == {900}
    assert len(understood) >= 40
    oracle.forget()


def test_what_contradicts_the_schema_is_refused(cursor: oracledb.Cursor) -> None:
    """Each wrong definition, change or setting gets the number that Oracle documents; the right ones are accepted."""
    for sql in SCHEMA:
        cursor.execute(sql)
    assert {sql: code_of(cursor, sql) for sql in REFUSED_ON_SCHEMA} == REFUSED_ON_SCHEMA


def test_what_does_not_fit_is_refused(oracle: OracleEmulator, tables: oracledb.Cursor) -> None:
    """Names, types and clauses are checked, with Oracle's number; a function that the emulator lacks is a failure."""
    assert {sql: code_of(tables, sql) for sql, _ in MISTAKES} == dict(MISTAKES)
    assert {str(failure.error)[:9] for failure in oracle.failures} == {"ORA-00904"}
    oracle.forget()


@pytest.mark.parametrize(
    ("column", "text", "message"),
    [
        ("name", "\U0001f600" * 6, '"T"."NAME" (actual: 6, maximum: 5)'),
        ("b", "ééé", '"T"."B" (actual: 6, maximum: 5)'),
    ],
)
def test_lengths_are_counted_as_declared(cursor: oracledb.Cursor, column: str, text: str, message: str) -> None:
    """CHAR counts characters, BYTE (the default) bytes of UTF-8; the error names the column and both lengths."""
    cursor.execute(SCHEMA[0])
    cursor.execute(f"INSERT INTO t ({column}) VALUES (:1)", [text[1:]])  # noqa: S608 (a test's column)
    with pytest.raises(oracledb.DatabaseError, match="ORA-12899") as raised:
        cursor.execute(f"INSERT INTO t ({column}) VALUES (:1)", [text])  # noqa: S608 (a test's column)
    assert message in str(raised.value)


def test_a_long_bind_is_for_values_alone(cursor: oracledb.Cursor) -> None:
    """A bind above 4,000 bytes is LONG: only VALUES and SET of a large object take it, as it is, before others."""
    cursor.execute(SCHEMA[0])
    found = {
        "INSERT INTO t (id, body) VALUES (7, :x)": 0,
        "UPDATE t SET n = 2, body = :x WHERE n = 1": 0,
        "INSERT INTO t (big) VALUES (:x)": 1461,
        "UPDATE t SET big = :x": 1461,
        "UPDATE t SET body = LOWER(:x)": 1461,
        "INSERT INTO t (body) SELECT :x FROM dual": 1461,
        "DELETE FROM t WHERE big = :x": 1461,
        "SELECT 1 FROM t WHERE big = :x": 1461,
    }
    assert {sql: code_of(cursor, sql, x="x" * 9000) for sql in found} == found
    cursor.setinputsizes(big=9000, body=9000)
    cursor.execute("INSERT INTO t (big, body) VALUES (:big, :body)", big="x", body="x" * 9000)
    cursor.setinputsizes(big=9000, body=9000)
    assert code_of(cursor, "INSERT INTO t (body, big) VALUES (:body, :big)", big="x", body="x" * 9000) == 24816


def test_a_bind_may_not_have_a_reserved_name(cursor: oracledb.Cursor) -> None:
    """It may if it is quoted, as SQLAlchemy does."""
    assert code_of(cursor, "SELECT 1 FROM dual WHERE :level = 1", level=1) == 1745
    assert cursor.execute('SELECT 1 FROM dual WHERE :"level" = 1', {'"level"': 1}).fetchone() == (1,)


def test_the_utc_of_an_instant(connect: Connect, tables: oracledb.Cursor) -> None:
    """It works in the column list, in comparisons and in the order, whatever the session's zone."""
    insert = "INSERT INTO t (name, tz) VALUES (:1, TO_TIMESTAMP_TZ(:2, 'YYYY-MM-DD HH24:MI:SS.FF TZH:TZM'))"
    tables.execute(insert, ["later", "2026-01-02 03:04:05.678901 -05:00"])
    tables.execute(insert, ["earlier", "2026-01-02 04:00:00.000000 +00:00"])
    tables.connection.commit()
    other = connect().cursor()
    other.execute("ALTER SESSION SET TIME_ZONE = '+02:00'")
    for cursor in (tables, other):
        cursor.execute(
            "SELECT name, SYS_EXTRACT_UTC(t.tz) FROM t WHERE SYS_EXTRACT_UTC(tz) > TIMESTAMP '2026-01-01 00:00:00' "
            "ORDER BY SYS_EXTRACT_UTC(tz) DESC FETCH FIRST 5 ROWS ONLY"
        )
        assert cursor.fetchall() == [
            ("later", datetime(2026, 1, 2, 8, 4, 5, 678901)),  # noqa: DTZ001 (TIMESTAMP)
            ("earlier", datetime(2026, 1, 2, 4)),  # noqa: DTZ001 (TIMESTAMP)
        ]
        assert (cursor.description or [])[1].type_code is oracledb.DB_TYPE_TIMESTAMP
        [(now,)] = cursor.execute("SELECT SYS_EXTRACT_UTC(SYSTIMESTAMP) FROM dual").fetchall()
        assert abs(datetime.now(UTC) - now.replace(tzinfo=UTC)) < timedelta(seconds=5)


def test_an_unknown_statement_is_a_failure(start_oracle: Start) -> None:
    """It is answered as invalid SQL, and recorded with its user."""
    oracle = start_oracle(PROFILE_23AI)
    unknown = {
        "SELECT * FROM dual PIVOT (COUNT(*) FOR dummy IN ('X'))": 900,
        "begin do_something; end;": 6550,
        "SELECT ROW_NUMBER() OVER (ORDER BY dummy) FROM dual": 900,
        "SELECT COUNT(*) FROM dual HAVING COUNT(*) > 1": 900,
        "SELECT NVL(dummy, 'x') FROM dual": 904,
    }
    with oracledb.connect(user="webhooks", password="secret", dsn=oracle.dsn) as connection:
        assert {sql: code_of(connection.cursor(), sql) for sql in unknown} == unknown
    assert [(failure.user, failure.sql) for failure in oracle.failures] == [("WEBHOOKS", sql) for sql in unknown]
    oracle.forget()
    assert oracle.failures == []


@pytest.mark.usefixtures("tables")
def test_names_belong_to_schemas(oracle: OracleEmulator, connect: Connect) -> None:
    """A user sees its own tables, and another's by CURRENT_SCHEMA or with the owner's name."""
    oracle.add_user("other", "secret")
    other = connect(user="other").cursor()
    assert code_of(other, "SELECT COUNT(*) FROM t") == 942
    assert other.execute("SELECT COUNT(*) FROM webhooks.t").fetchone() == (1,)
    other.execute("ALTER SESSION SET CURRENT_SCHEMA = webhooks")
    assert other.execute("SELECT COUNT(*) FROM t").fetchone() == (1,)
