-- Each new session: times in UTC, texts sorted and compared by their bytes.
ALTER SESSION SET TIME_ZONE = '+00:00' NLS_SORT = BINARY NLS_COMP = BINARY
;

-- Each new session, with DATABASE_SCHEMA.
ALTER SESSION SET CURRENT_SCHEMA = webhooks
;

-- SQLAlchemy, at the first connection of a process: the schema that names mean.
select sys_context( 'userenv', 'current_schema' ) from dual
;

-- SQLAlchemy, the same: the number of its transaction, to ask for the isolation level.
begin :trans_id := dbms_transaction.local_transaction_id( TRUE ); end;
;

-- SQLAlchemy, the same; where V$TRANSACTION may not be read READ COMMITTED is assumed.
SELECT CASE BITAND(t.flag, POWER(2, 28)) WHEN 0 THEN 'READ COMMITTED' ELSE 'SERIALIZABLE' END AS isolation_level FROM v$transaction t WHERE (t.xidusn, t.xidslot, t.xidsqn) = ((:xidusn, :xidslot, :xidsqn))
;

-- SQLAlchemy, the same: whether numbers come with a point.
SELECT 1.1 FROM DUAL
;

-- The pool, before a session that was used before is given out: does it answer? Once a transaction.
SELECT 1 FROM DUAL
;
