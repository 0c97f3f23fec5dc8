-- database.engine.ping
-- `check`: does the database answer?
SELECT
  :param_1 AS anon_1
FROM DUAL
;

-- database.migrations.noted
-- Does our version table exist?
SELECT
  tables_and_views.table_name
FROM (
  SELECT
    a_tables.table_name AS table_name,
    a_tables.owner AS owner
  FROM all_tables a_tables
  UNION ALL
  SELECT
    a_views.view_name AS table_name,
    a_views.owner AS owner
  FROM all_views a_views
) tables_and_views
WHERE
  tables_and_views.table_name IN (:table_names_1)
  AND tables_and_views.owner = :owner
;

-- database.migrations.noted
-- At which revision are the tables?
SELECT
  webhook_alembic_version.version_num
FROM webhook_alembic_version
;

-- database.migrations._in_former
-- If it does not: do Alembic's default table and one of ours exist?
SELECT
  tables_and_views.table_name
FROM (
  SELECT
    a_tables.table_name AS table_name,
    a_tables.owner AS owner
  FROM all_tables a_tables
  UNION ALL
  SELECT
    a_views.view_name AS table_name,
    a_views.owner AS owner
  FROM all_views a_views
) tables_and_views
WHERE
  tables_and_views.table_name IN (:table_names_1)
  AND tables_and_views.owner = :owner
;

-- database.migrations._in_former
-- The revisions in Alembic's default table: of a release before 0008, or of other programs.
SELECT
  alembic_version.version_num
FROM alembic_version
;
