-- database.ping
-- `check`: does the database answer?
SELECT
  :param_1 AS anon_1
FROM DUAL
;

-- schema._current
-- Is Alembic's table there?
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

-- schema._current
-- Which revision are the tables at?
SELECT
  alembic_version.version_num
FROM alembic_version
;
