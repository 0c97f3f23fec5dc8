-- Each new session: times in UTC, text sorted and compared by its bytes.
ALTER SESSION SET TIME_ZONE = '+00:00' NLS_SORT = BINARY NLS_COMP = BINARY
;

-- Each new session, with DATABASE_SCHEMA.
ALTER SESSION SET CURRENT_SCHEMA = webhooks
;

-- SQLAlchemy, at the first connection of a process: the current schema.
select sys_context( 'userenv', 'current_schema' ) from dual
;

-- SQLAlchemy, at the first connection: the decimal character.
SELECT 1.1 FROM DUAL
;

-- The first connection of a process: the database's character set.
SELECT value FROM nls_database_parameters WHERE "PARAMETER" = 'NLS_CHARACTERSET'
;

-- The pool, before it hands out a used session: does it answer? Once a transaction.
SELECT 1 FROM DUAL
;
