-- Each new session: times in UTC, text sorted and compared by its bytes.
ALTER SESSION SET TIME_ZONE = '+00:00' NLS_SORT = BINARY NLS_COMP = BINARY
;

-- Each new session, with DATABASE_SCHEMA.
ALTER SESSION SET CURRENT_SCHEMA = webhooks
;

-- SQLAlchemy, at the first connection of a process: the current schema.
select sys_context( 'userenv', 'current_schema' ) from dual
;

-- SQLAlchemy, at the first connection: the transaction id, needed for the isolation level.
begin :trans_id := dbms_transaction.local_transaction_id( TRUE ); end;
;

-- SQLAlchemy, at the first connection: its isolation level, if it can read V$TRANSACTION.
SELECT CASE BITAND(t.flag, POWER(2, 28)) WHEN 0 THEN 'READ COMMITTED' ELSE 'SERIALIZABLE' END AS isolation_level FROM v$transaction t WHERE (t.xidusn, t.xidslot, t.xidsqn) = ((:xidusn, :xidslot, :xidsqn))
;

-- SQLAlchemy, at the first connection: the decimal character.
SELECT 1.1 FROM DUAL
;

-- The pool, before it hands out a used session: does it answer? Once a transaction.
SELECT 1 FROM DUAL
;
