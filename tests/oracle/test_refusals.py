"""The emulator refuses what Oracle refuses, with its error number, and accepts Oracle's SQL that H2 lacks."""

from datetime import UTC, datetime, timedelta

import oracledb
import pytest

from tests.databases import connect_to
from tests.oracle.conftest import Connect, Start
from tests.oracle.test_driver import TABLE
from tests.oracle_emulator import PROFILE_23AI, OracleEmulator

CHILD = """CREATE TABLE child (t_id NUMBER(19) NOT NULL, rate_limit NUMBER, CONSTRAINT ck_child CHECK (t_id > 0),
CONSTRAINT fk_child FOREIGN KEY (t_id) REFERENCES t (id))"""
# Refused by H2, with another number.
BY_H2 = {
    "INSERT INTO t (name) VALUES ('dup')": 1,
    "INSERT INTO t (name) VALUES (NULL)": 1400,
    "INSERT INTO t (name) VALUES ('')": 1400,  # '' is NULL
    "INSERT INTO child (t_id) VALUES (99)": 2291,
    "DELETE FROM t WHERE id = 1": 2292,
    "INSERT INTO child (t_id) VALUES (-1)": 2290,
    "INSERT INTO t (name) VALUES (RPAD('x', 60, 'x'))": 12899,
    "SELECT RPAD('x', 4000, 'x') || 'y' FROM dual": 1489,
    "CREATE TABLE t (a NUMBER)": 955,
    "SELECT 1 / 0 FROM dual": 1476,
    "SELECT id FROM t WHERE id = (SELECT 1 FROM dual UNION SELECT 2 FROM dual)": 1427,
    "SELECT id FROM nope": 942,
    "SELECT n * 2 AS twice FROM t WHERE twice > 1": 904,
    "SELECT id FROM t x JOIN t y ON x.id = y.id": 918,
    "DROP INDEX nope": 1418,
}
# Accepted by H2, and by the grammar of `tests.golden`: for Oracle's Error Help, and the named pages of the SQL
# Language Reference.
REFUSED = {
    "SELECT DISTINCT ON (id) id FROM t": 936,
    "SELECT COALESCE(n) FROM t": 938,
    # LOBs: "Comparison Conditions", "LOB Restrictions"
    "SELECT id FROM t WHERE body = 'x'": 932,
    "SELECT id FROM t WHERE body BETWEEN 'a' AND 'b'": 932,
    "SELECT id FROM t ORDER BY body": 932,
    "SELECT id, body FROM t ORDER BY 2": 932,
    "SELECT body, COUNT(*) FROM t GROUP BY body": 932,
    "SELECT DISTINCT id, body FROM t": 932,
    "SELECT body FROM t UNION SELECT body FROM t": 932,
    "SELECT COUNT(DISTINCT body) FROM t": 932,
    "SELECT id FROM t WHERE (id, body) IN (SELECT id, body FROM t)": 932,
    "SELECT x.id FROM t x JOIN t y ON x.body = y.body": 932,
    "SELECT id FROM t WHERE b LIKE 'x%'": 932,
    "SELECT b || 'x' FROM t": 932,
    "UPDATE t SET n = 1 WHERE body = 'x'": 932,
    "DELETE FROM t WHERE body != 'x'": 932,
    # results of several types: "COALESCE", "CASE Expressions"
    "SELECT COALESCE(tz, ts) FROM t": 932,
    "SELECT COALESCE(body, 'x') FROM t": 932,
    "UPDATE t SET tz = COALESCE(tz, SYS_EXTRACT_UTC(SYSTIMESTAMP))": 932,
    "SELECT CASE WHEN n > 1 THEN body ELSE name END FROM t": 932,
    "SELECT CASE n WHEN 'x' THEN 1 END FROM t": 932,
    "SELECT body FROM t UNION ALL SELECT name FROM t": 1790,
    # conversions and arithmetic: "Data Type Comparison Rules"
    "SELECT id FROM t WHERE ts > n": 932,
    "SELECT body + 1 FROM t": 932,
    "SELECT -d FROM t": 932,
    "SELECT d * 2 FROM t": 932,
    "SELECT d + d FROM t": 975,
    "SELECT ts + tz FROM t": 30087,
    "SELECT CAST(d AS NUMBER) FROM t": 932,
    "SELECT CAST(n AS BIGINT) FROM t": 902,
    "SELECT CAST(n AS VARCHAR2) FROM t": 906,
    "SELECT SUM(d) FROM t": 932,
    "INSERT INTO t (name, body) VALUES ('x', 1)": 932,
    "INSERT INTO t (name, b) SELECT 'x', n FROM t": 932,
    "UPDATE t SET n = (SELECT MAX(d) FROM t)": 932,
    "UPDATE t SET ts = '2026-01-02 03:04:05'": 1843,
    "SELECT id FROM t WHERE d > '2026-01-02'": 1843,
    # groups: "Aggregate Functions", "group_by_clause"
    "SELECT COUNT(*), n + 1 FROM t": 937,
    "SELECT COUNT(*) FROM t ORDER BY id": 937,
    "SELECT name, n, COUNT(*) FROM t GROUP BY name": 979,
    "SELECT * FROM t GROUP BY id": 979,
    "SELECT LOWER(name) FROM t GROUP BY UPPER(name)": 979,
    "SELECT name FROM t GROUP BY name ORDER BY id": 979,
    "SELECT name, ROWNUM FROM t GROUP BY name": 979,
    "SELECT id FROM t WHERE n = MAX(n)": 934,
    "UPDATE t SET n = MAX(n)": 934,
    "SELECT name, (SELECT 1 FROM dual) FROM t GROUP BY name, (SELECT 1 FROM dual)": 22818,
    # rows to lock: "for_update_clause"
    "SELECT id FROM t FETCH FIRST 5 ROWS ONLY FOR UPDATE": 2014,
    "SELECT id FROM (SELECT DISTINCT id FROM t) FOR UPDATE": 2014,
    "SELECT id FROM (SELECT id FROM t UNION ALL SELECT t_id FROM child) FOR UPDATE": 2014,
    "SELECT id FROM (SELECT id FROM t WHERE ROWNUM <= 5) FOR UPDATE": 2014,
    "SELECT id FROM (SELECT id FROM t ORDER BY id) WHERE ROWNUM <= 5 FOR UPDATE": 2014,
    "SELECT m FROM (SELECT MAX(id) AS m FROM t) FOR UPDATE": 2014,
    "WITH x AS (SELECT DISTINCT id FROM t) SELECT id FROM x FOR UPDATE": 2014,
    "SELECT COUNT(*) FROM t FOR UPDATE": 1786,
    "SELECT id FROM t FOR UPDATE OF nope": 904,
    # names and lists: "Oracle SQL Reserved Words", "Comparison Conditions"
    "SELECT n AS number FROM t": 904,
    "SELECT id FROM t x WHERE x.file = 1": 904,
    "SELECT id FROM t date": 904,
    "SELECT SYSTIMESTAMP() FROM dual": 923,
    "SELECT id FROM t WHERE n": 920,
    "SELECT id FROM t WHERE id IN (SELECT t_id FROM child ORDER BY t_id)": 907,
    "SELECT id FROM t WHERE (id, name) = (1, 'dup')": 920,
    "SELECT id FROM t WHERE (id, name) >= ((1, 'dup'))": 1796,
    f"CREATE TABLE {'x' * 129} (a NUMBER)": 972,
    "SELECT 1 FROM dual;": 900,
    "ALTER SESSION SET NLS_SORT = KLINGON": 2248,
    "ALTER SESSION SET NOT_A_PARAMETER = 1": 2248,
}
BEFORE_23AI = {
    "SELECT 1 FROM dual WHERE TRUE": 904,
    "SELECT EXISTS (SELECT 1 FROM t) FROM dual": 904,
    "SELECT 1 FROM dual WHERE 1 IN ({})".format(", ".join("1" * 1001)): 1795,  # noqa: S608 (numbers)
    "CREATE TABLE flags (a BOOLEAN)": 902,
}
ACCEPTED = [  # each resembles an invalid one
    "SELECT rate_limit FROM child WHERE rate_limit > 5",
    "SELECT 'LIMIT 5; :x' FROM dual /* ON CONFLICT */",
    "SELECT '2026-01-02' FROM dual WHERE '2026-01-02' = '2026-01-02'",
    "SELECT id FROM t WHERE ts > TIMESTAMP '2026-01-02 03:04:05'",
    'SELECT id AS "level" FROM t',
    "SELECT body FROM t UNION ALL SELECT body FROM t",
    "SELECT SYSTIMESTAMP, SYSDATE FROM dual",
    "WITH x AS (SELECT id FROM t), y AS (SELECT id FROM x) SELECT y.id AS again FROM y ORDER BY again",
    "SELECT CAST(id AS VARCHAR2(10)) AS text FROM t x WHERE CAST(id AS NUMBER) > 0",
    "SELECT id FROM t WHERE (id, name) = ((1, 'dup')) OR (id, name) IN (SELECT id, name FROM t)",
    "SELECT id FROM t WHERE id = (1) AND COALESCE(id, 2) > (COALESCE(1, 2)) AND id >= ((1 + 2) - 3)",
    "ALTER SESSION SET TIME_ZONE = '+00:00' NLS_SORT = BINARY NLS_COMP = BINARY",
]
SCHEMA = [
    """CREATE TABLE t (id NUMBER(19) GENERATED BY DEFAULT AS IDENTITY, name VARCHAR2(5 CHAR) DEFAULT 'x' NOT NULL,
    b VARCHAR2(5), n NUMBER(10, 2), tz TIMESTAMP WITH TIME ZONE, body CLOB, big VARCHAR2(4000 CHAR),
    CONSTRAINT pk_t PRIMARY KEY (id))""",
    "CREATE TABLE p (a NUMBER, b NUMBER, CONSTRAINT pk_p PRIMARY KEY (a, b))",
    "CREATE INDEX ix_n ON t (n)",
    "CREATE INDEX ix_down ON t (n DESC)",
    "CREATE INDEX t ON t (b, n) ONLINE",  # indexes have names of their own
    "DROP INDEX t ONLINE",
    "ALTER TABLE t MODIFY n NUMBER(12, 2)",
    "INSERT INTO t (name, n) VALUES ('x', 7)",
]
# Definitions on SCHEMA that H2 and the grammar accept.
REFUSED_ON_SCHEMA = {
    "CREATE INDEX ix_n2 ON t (n)": 1408,
    "CREATE INDEX ix_d2 ON t (n DESC)": 1408,
    "CREATE INDEX ix_pk ON t (id)": 1408,
    "CREATE INDEX pk_p ON p (b)": 955,
    "CREATE TABLE x (a TIMESTAMP WITH TIME ZONE PRIMARY KEY)": 2329,
    "ALTER TABLE p ADD UNIQUE (a, b)": 2261,
    "ALTER TABLE t MODIFY n VARCHAR2(10)": 1439,
    "ALTER TABLE t MODIFY name NOT NULL": 1442,
    "ALTER TABLE t ADD vv VARCHAR2(4001)": 910,
    "CREATE TABLE x (a RAW(2001))": 910,
    "ALTER TABLE t ADD vv TEXT": 902,
    "ALTER TABLE t DROP name": 905,
    "CREATE TABLE x (d DATE CHECK (d < SYSDATE))": 2436,
}


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
    before = oracle.profile.release < 23
    later = BEFORE_23AI if before else dict.fromkeys(BEFORE_23AI, 0)
    wanted = BY_H2 | REFUSED | later | dict.fromkeys(ACCEPTED, 0)
    assert {sql: code_of(tables, sql) for sql in wanted} == wanted
    tables.execute("UPDATE t SET n = 1")
    assert tables.execute("SELECT COUNT(*) FROM t").fetchone() == (1,)


def test_what_contradicts_the_schema_is_refused(oracle: OracleEmulator, cursor: oracledb.Cursor) -> None:
    """Each wrong definition gets the number that Oracle documents; the right ones are accepted."""
    for sql in SCHEMA:
        cursor.execute(sql)
    cursor.connection.commit()
    tables = oracle.tables_of("webhooks")
    found = {}
    for sql in REFUSED_ON_SCHEMA:
        engine = connect_to(oracle.url_of(oracle.new_user(tables)))
        with engine.connect() as connection:
            found[sql] = code_of(connection.connection.cursor(), sql)  # type: ignore[arg-type]  # the driver's own
        engine.dispose()
    assert found == REFUSED_ON_SCHEMA


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
    """It may if it is quoted, as SQLAlchemy does. RETURNING is for VALUES alone."""
    sql = "INSERT INTO t (id) SELECT 1 FROM dual RETURNING id INTO :x"
    assert code_of(cursor, sql, x=cursor.var(int)) == 933
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


def test_json_table(tables: oracledb.Cursor) -> None:
    """It gives a row for each element, in which a value of another type is null; its names are checked."""
    columns = "x VARCHAR2(249) PATH '$[0]', y NUMBER PATH '$[1]'"
    found = f"FROM t, JSON_TABLE(t.body, '$[*]' COLUMNS ({columns})) j"
    tables.execute("""UPDATE t SET body = '[["a.b", 9007199254740993], ["c", "d"], ["e"], 7]'""")
    tables.execute(f"SELECT t.id, j.x AS x, j.y AS y {found} WHERE j.x IS NOT NULL ORDER BY j.x")
    assert tables.fetchall() == [(1, "a.b", 9007199254740993), (1, "c", None), (1, "e", None)]
    assert tables.execute(f"SELECT COUNT(*) {found}").fetchone() == (4,)
    assert code_of(tables, f"SELECT j.z AS z {found}") == 904


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
