-- database.engine.lossy_commits
-- `check`: does the server confirm commits too early?
SELECT
  v$parameter.name
FROM v$parameter
WHERE
  v$parameter.name IN (:name_1_1, :name_1_2)
  AND UPPER(v$parameter.value) LIKE :upper_1
;

-- database.engine.ping
-- `check`: does the database answer?
SELECT
  :param_1 AS anon_1
FROM DUAL
;

-- database.migrations._current
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

-- database.migrations._current
-- At which revision are the tables?
SELECT
  webhook_alembic_version.version_num
FROM webhook_alembic_version
;
