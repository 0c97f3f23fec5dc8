"""Statements that Oracle 19c refuses, mostly other databases' SQL: a checker of our SQL must detect these errors."""

from typing import NamedTuple

TABLES = [
    f"CREATE TABLE {name} (id NUMBER(19), name VARCHAR2(10), a NUMBER, b NUMBER, enabled NUMBER(1), at TIMESTAMP)"
    for name in ("t", "u")
]


class Wrong(NamedTuple):
    """A statement on TABLES, Oracle's error, and what is wrong with it."""

    sql: str
    code: int
    why: str


QUERIES = [
    Wrong("SELECT id FROM t LIMIT 5", 933, "rows are limited by FETCH FIRST"),
    Wrong("SELECT id FROM t ORDER BY id LIMIT 5 OFFSET 10", 933, "the same by OFFSET ... ROWS FETCH NEXT"),
    Wrong("SELECT TOP 5 id FROM t", 923, "TOP is SQL Server's"),
    Wrong("SELECT x.id FROM t AS x", 933, "no AS before a table's alias"),
    Wrong("SELECT y.id FROM t x, u AS y", 933, "nor before that of a second table"),
    Wrong("SELECT x.id FROM (SELECT id FROM t) AS x", 933, "nor before that of a subquery"),
    Wrong("SELECT y.id FROM t x JOIN u AS y ON x.id = y.id", 905, "nor in a join, where ON is expected"),
    Wrong("SELECT EXISTS (SELECT 1 FROM t) FROM dual", 936, "EXISTS is a condition, not a value"),
    Wrong("SELECT 1", 923, "FROM is required before 23ai"),
    Wrong("SELECT id FROM t FETCH FIRST 5 ROWS ONLY FOR UPDATE", 2014, "limited rows cannot be locked"),
    Wrong("SELECT id FROM t FOR UPDATE SKIP LOCKED NOWAIT", 933, "only one of the two"),
    Wrong("SELECT id FROM t WHERE name ILIKE 'x%'", 920, "ILIKE is PostgreSQL's"),
    Wrong("SELECT id FROM t WHERE enabled = TRUE", 904, "no boolean values before 23ai"),
    Wrong("SELECT DISTINCT ON (id) id, name FROM t", 936, "DISTINCT ON is PostgreSQL's"),
    Wrong("SELECT COUNT(*) FILTER (WHERE id > 1) FROM t", 923, "FILTER came with 23.26.1"),
    Wrong("SELECT id FROM t WHERE (a, b) = (1, 2)", 920, "the right side is a list of lists: ((1, 2))"),
    Wrong("SELECT id FROM t WHERE (a, b) > ((1, 2))", 1796, "lists are equal or not, never greater"),
    Wrong("WITH RECURSIVE x (id) AS (SELECT 1 FROM dual) SELECT id FROM x", 905, "no RECURSIVE"),
    Wrong("SELECT id FROM (VALUES (1), (2)) x (id)", 903, "no VALUES in FROM before 23ai"),
    Wrong("SELECT SYSDATE() FROM dual", 923, "no parentheses behind SYSDATE"),
    Wrong("SELECT CURRENT_TIMESTAMP() FROM dual", 923, "no empty parentheses"),
    Wrong("SELECT `id` FROM t", 911, "names are quoted by double quotes"),
    Wrong("SELECT [id] FROM t", 936, "the same"),
    Wrong("SELECT id FROM t WHERE id IN ()", 936, "an empty list"),
    Wrong("SELECT id FROM t WHERE id IN (1, 2", 907, "a parenthesis is not closed"),
    Wrong("SELECT id FROM t WHERE id == 1", 936, "the operator is ="),
]
CHANGES = [
    Wrong("INSERT INTO t (id) VALUES (1) ON CONFLICT DO NOTHING", 933, "ON CONFLICT is PostgreSQL's and SQLite's"),
    Wrong("INSERT INTO t (id) VALUES (1) ON DUPLICATE KEY UPDATE id = 2", 933, "MySQL's"),
    Wrong("INSERT IGNORE INTO t (id) VALUES (1)", 925, "MySQL's"),
    Wrong("REPLACE INTO t (id) VALUES (1)", 900, "MySQL's"),
    Wrong("INSERT INTO t (id) VALUES (1), (2)", 933, "one row before 23ai"),
    Wrong("INSERT INTO t (id) VALUES (1) RETURNING id", 925, "RETURNING needs INTO"),
    Wrong("INSERT INTO t (id) SELECT id FROM u RETURNING id INTO :x", 933, "RETURNING is for VALUES alone"),
    Wrong("WITH x AS (SELECT 1 AS id FROM dual) INSERT INTO t (id) SELECT id FROM x", 928, "WITH stands behind INTO"),
    Wrong("UPDATE t SET name = u.name FROM u WHERE t.id = u.id", 933, "no FROM before 23ai"),
    Wrong("UPDATE t JOIN u ON t.id = u.id SET t.name = u.name", 971, "MySQL's"),
    Wrong("DELETE FROM t USING u WHERE t.id = u.id", 933, "PostgreSQL's"),
    Wrong("DELETE FROM t WHERE id > 1 LIMIT 5", 933, "MySQL's"),
]
DEFINITIONS = [
    Wrong("ALTER TABLE t ADD COLUMN title VARCHAR2(10)", 904, "ADD without COLUMN"),
    Wrong("ALTER TABLE t ALTER COLUMN name SET NOT NULL", 1735, "the word is MODIFY"),
    Wrong("ALTER TABLE t ALTER COLUMN name TYPE VARCHAR2(20)", 1735, "the same"),
    Wrong("ALTER TABLE t MODIFY COLUMN name VARCHAR2(20)", 905, "MODIFY without COLUMN"),
    Wrong("ALTER TABLE t DROP name", 905, "DROP with COLUMN"),
    Wrong("ALTER TABLE t DROP CONSTRAINT IF EXISTS ck_t", 1735, "no IF EXISTS, not in 23ai either"),
    Wrong("CREATE TABLE IF NOT EXISTS x (id NUMBER)", 922, "no IF NOT EXISTS before 19.28"),
    Wrong("DROP TABLE IF EXISTS t", 933, "no IF EXISTS before 19.28"),
    Wrong("CREATE INDEX IF NOT EXISTS ix_t ON t (id)", 969, "no IF NOT EXISTS before 19.28"),
    Wrong("CREATE INDEX CONCURRENTLY ix_t ON t (id)", 969, "the word is ONLINE, at the end"),
    Wrong("CREATE INDEX ix_t ON t (id) WHERE id > 1", 2158, "no partial indexes"),
    Wrong("CREATE INDEX ix_t ON t (id) INCLUDE (name)", 2158, "no included columns"),
    Wrong("DROP INDEX ix_t ON t", 933, "an index has a name of its own in the schema"),
    Wrong("CREATE TABLE x (id NUMBER(19) AUTO_INCREMENT PRIMARY KEY)", 907, "MySQL's"),
    Wrong("CREATE TABLE x (id NUMBER(1) NOT NULL DEFAULT 1)", 907, "DEFAULT stands before NOT NULL"),
    Wrong("CREATE TABLE x (id NUMBER COMMENT 'key')", 907, "a comment is a statement of its own"),
    Wrong("CREATE TABLE x (id NUMBER) ENGINE=InnoDB", 922, "MySQL's"),
    Wrong("CREATE TABLE x (id NUMBER, )", 904, "a column is missing"),
    Wrong("CREATE TABLE x (id NUMBER REFERENCES u (id) ON UPDATE CASCADE)", 905, "ON DELETE alone"),
    Wrong("CREATE TABLE x (name TEXT)", 902, "no such type"),
    Wrong("CREATE TABLE x (id BIGINT)", 902, "no such type"),
    Wrong("CREATE TABLE x (at TIMESTAMPTZ)", 902, "no such type"),
    Wrong("CREATE TABLE x (enabled BOOLEAN)", 902, "no such type before 23ai"),
    Wrong("CREATE TABLE x (data JSON)", 902, "no such type before 21c"),
    Wrong("CREATE TABLE x (name VARCHAR2)", 906, "its length is missing"),
    Wrong("CREATE TABLE x (level NUMBER)", 904, "LEVEL is reserved"),
    Wrong("TRUNCATE t", 3290, "TABLE is missing"),
]
WRONG = QUERIES + CHANGES + DEFINITIONS
