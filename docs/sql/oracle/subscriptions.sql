-- matching.catalog._rows
-- Workers, hot: the subscriptions to these types and tenants, with their signing secrets.
SELECT
  anon_1.subscription_id,
  anon_1.failing_since,
  anon_1.verified_url,
  anon_1.paused_at,
  anon_1.starts,
  anon_1.url,
  anon_1.event_type,
  anon_1.tenant,
  anon_1.topics,
  anon_1.event_filter,
  anon_1.payload_format,
  anon_1.projection,
  anon_1.batch_size,
  anon_1.batch_wait_ms,
  anon_1.method,
  anon_1.custom_headers,
  anon_1.header_expressions,
  anon_1.pass_headers,
  anon_1.signature_header,
  anon_1.signature_prefix,
  anon_1.signature_template,
  anon_1.report_answer,
  anon_1.answer_headers,
  anon_1.gzip_above,
  anon_1.http_version,
  anon_1.timeout_seconds,
  anon_1.ordering,
  anon_1.max_in_flight,
  anon_1.rate_limit,
  anon_1.retry_schedule,
  anon_1.final_statuses,
  anon_1.kind,
  anon_1.secret,
  anon_1.expires_at,
  anon_1.tls_of,
  anon_1.matched
FROM (
  SELECT
    webhook_subscriptions.id AS subscription_id,
    webhook_subscriptions.failing_since AS failing_since,
    webhook_subscriptions.verified_url AS verified_url,
    webhook_subscriptions.paused_at AS paused_at,
    webhook_subscriptions.starts AS starts,
    webhook_subscriptions.url AS url,
    webhook_subscriptions.event_type AS event_type,
    webhook_subscriptions.tenant AS tenant,
    webhook_subscriptions.topics AS topics,
    webhook_subscriptions.event_filter AS event_filter,
    webhook_subscriptions.payload_format AS payload_format,
    webhook_subscriptions.projection AS projection,
    webhook_subscriptions.batch_size AS batch_size,
    webhook_subscriptions.batch_wait_ms AS batch_wait_ms,
    webhook_subscriptions.method AS method,
    webhook_subscriptions.custom_headers AS custom_headers,
    webhook_subscriptions.header_expressions AS header_expressions,
    webhook_subscriptions.pass_headers AS pass_headers,
    webhook_subscriptions.signature_header AS signature_header,
    webhook_subscriptions.signature_prefix AS signature_prefix,
    webhook_subscriptions.signature_template AS signature_template,
    webhook_subscriptions.report_answer AS report_answer,
    webhook_subscriptions.answer_headers AS answer_headers,
    webhook_subscriptions.gzip_above AS gzip_above,
    webhook_subscriptions.http_version AS http_version,
    webhook_subscriptions.timeout_seconds AS timeout_seconds,
    webhook_subscriptions.ordering AS ordering,
    webhook_subscriptions.max_in_flight AS max_in_flight,
    webhook_subscriptions.rate_limit AS rate_limit,
    webhook_subscriptions.retry_schedule AS retry_schedule,
    webhook_subscriptions.final_statuses AS final_statuses,
    webhook_secrets.kind AS kind,
    webhook_secrets.secret AS secret,
    webhook_secrets.expires_at AS expires_at,
    webhook_tls.subscription_id AS tls_of,
    webhook_subscriptions.event_type AS matched,
    webhook_secrets.created_at AS secret_made_at,
    webhook_secrets.id AS secret_id
  FROM webhook_subscriptions
  LEFT OUTER JOIN webhook_secrets
    ON webhook_secrets.subscription_id = webhook_subscriptions.id
  LEFT OUTER JOIN webhook_tls
    ON webhook_tls.subscription_id = webhook_subscriptions.id
  WHERE
    (webhook_subscriptions.event_type, webhook_subscriptions.tenant) IN ((:patterns_1_1, :patterns_1_2), (:patterns_2_1, :patterns_2_2))
    AND webhook_subscriptions.enabled = :enabled_1
  UNION ALL
  SELECT
    webhook_subscriptions.id AS subscription_id,
    webhook_subscriptions.failing_since AS failing_since,
    webhook_subscriptions.verified_url AS verified_url,
    webhook_subscriptions.paused_at AS paused_at,
    webhook_subscriptions.starts AS starts,
    webhook_subscriptions.url AS url,
    webhook_subscriptions.event_type AS event_type,
    webhook_subscriptions.tenant AS tenant,
    webhook_subscriptions.topics AS topics,
    webhook_subscriptions.event_filter AS event_filter,
    webhook_subscriptions.payload_format AS payload_format,
    webhook_subscriptions.projection AS projection,
    webhook_subscriptions.batch_size AS batch_size,
    webhook_subscriptions.batch_wait_ms AS batch_wait_ms,
    webhook_subscriptions.method AS method,
    webhook_subscriptions.custom_headers AS custom_headers,
    webhook_subscriptions.header_expressions AS header_expressions,
    webhook_subscriptions.pass_headers AS pass_headers,
    webhook_subscriptions.signature_header AS signature_header,
    webhook_subscriptions.signature_prefix AS signature_prefix,
    webhook_subscriptions.signature_template AS signature_template,
    webhook_subscriptions.report_answer AS report_answer,
    webhook_subscriptions.answer_headers AS answer_headers,
    webhook_subscriptions.gzip_above AS gzip_above,
    webhook_subscriptions.http_version AS http_version,
    webhook_subscriptions.timeout_seconds AS timeout_seconds,
    webhook_subscriptions.ordering AS ordering,
    webhook_subscriptions.max_in_flight AS max_in_flight,
    webhook_subscriptions.rate_limit AS rate_limit,
    webhook_subscriptions.retry_schedule AS retry_schedule,
    webhook_subscriptions.final_statuses AS final_statuses,
    webhook_secrets.kind AS kind,
    webhook_secrets.secret AS secret,
    webhook_secrets.expires_at AS expires_at,
    webhook_tls.subscription_id AS tls_of,
    webhook_event_types.event_type AS matched,
    webhook_secrets.created_at AS secret_made_at,
    webhook_secrets.id AS secret_id
  FROM webhook_subscriptions
  LEFT OUTER JOIN webhook_secrets
    ON webhook_secrets.subscription_id = webhook_subscriptions.id
  LEFT OUTER JOIN webhook_tls
    ON webhook_tls.subscription_id = webhook_subscriptions.id
  JOIN webhook_event_types
    ON webhook_event_types.subscription_id = webhook_subscriptions.id
    AND webhook_event_types.tenant = webhook_subscriptions.tenant
  WHERE
    (webhook_event_types.event_type, webhook_event_types.tenant) IN ((:patterns_1_1, :patterns_1_2), (:patterns_2_1, :patterns_2_2))
    AND webhook_event_types.event_type != webhook_subscriptions.event_type
    AND webhook_subscriptions.enabled = :enabled_2
) anon_1
ORDER BY
  anon_1.subscription_id,
  anon_1.matched,
  anon_1.secret_made_at DESC,
  anon_1.secret_id DESC
;

-- matching.subscribers.find_subscribers
-- Workers: subscriptions that are behind, by id, with their signing secrets.
SELECT
  webhook_subscriptions.id AS subscription_id,
  webhook_subscriptions.failing_since,
  webhook_subscriptions.verified_url,
  webhook_subscriptions.paused_at,
  webhook_subscriptions.starts,
  webhook_subscriptions.url,
  webhook_subscriptions.event_type,
  webhook_subscriptions.tenant,
  webhook_subscriptions.topics,
  webhook_subscriptions.event_filter,
  webhook_subscriptions.payload_format,
  webhook_subscriptions.projection,
  webhook_subscriptions.batch_size,
  webhook_subscriptions.batch_wait_ms,
  webhook_subscriptions.method,
  webhook_subscriptions.custom_headers,
  webhook_subscriptions.header_expressions,
  webhook_subscriptions.pass_headers,
  webhook_subscriptions.signature_header,
  webhook_subscriptions.signature_prefix,
  webhook_subscriptions.signature_template,
  webhook_subscriptions.report_answer,
  webhook_subscriptions.answer_headers,
  webhook_subscriptions.gzip_above,
  webhook_subscriptions.http_version,
  webhook_subscriptions.timeout_seconds,
  webhook_subscriptions.ordering,
  webhook_subscriptions.max_in_flight,
  webhook_subscriptions.rate_limit,
  webhook_subscriptions.retry_schedule,
  webhook_subscriptions.final_statuses,
  webhook_secrets.kind,
  webhook_secrets.secret,
  webhook_secrets.expires_at,
  webhook_tls.subscription_id AS tls_of,
  webhook_subscriptions.enabled,
  (
    SELECT
      COUNT(*) AS count_1
    FROM webhook_event_types
    WHERE
      webhook_event_types.subscription_id = webhook_subscriptions.id
  ) AS further
FROM webhook_subscriptions
LEFT OUTER JOIN webhook_secrets
  ON webhook_secrets.subscription_id = webhook_subscriptions.id
LEFT OUTER JOIN webhook_tls
  ON webhook_tls.subscription_id = webhook_subscriptions.id
WHERE
  webhook_subscriptions.id IN (:id_1_1)
ORDER BY
  webhook_subscriptions.id,
  webhook_secrets.created_at DESC,
  webhook_secrets.id DESC
;

-- subscriptions.repository.add
-- Insert a subscription.
INSERT INTO webhook_subscriptions (
  url,
  event_type,
  enabled,
  disabled_reason,
  ordering,
  max_in_flight,
  rate_limit,
  retry_schedule,
  final_statuses,
  tenant,
  topics,
  event_filter,
  timeout_seconds,
  payload_format,
  projection,
  batch_size,
  batch_wait_ms,
  signature_header,
  signature_prefix,
  signature_template,
  custom_headers,
  method,
  header_expressions,
  pass_headers,
  report_answer,
  answer_headers,
  gzip_above,
  http_version,
  name,
  external_id,
  metadata
)
VALUES
  (
    :url,
    :event_type,
    :enabled,
    :disabled_reason,
    :ordering,
    :max_in_flight,
    :rate_limit,
    :retry_schedule,
    :final_statuses,
    :tenant,
    :topics,
    :event_filter,
    :timeout_seconds,
    :payload_format,
    :projection,
    :batch_size,
    :batch_wait_ms,
    :signature_header,
    :signature_prefix,
    :signature_template,
    :custom_headers,
    :method,
    :header_expressions,
    :pass_headers,
    :report_answer,
    :answer_headers,
    :gzip_above,
    :http_version,
    :name,
    :external_id,
    :metadata
  )
RETURNING webhook_subscriptions.id INTO :ret_0
;

-- subscriptions.repository.note_start
-- Note that it begins in the past.
UPDATE webhook_subscriptions SET starts = :starts
WHERE
  webhook_subscriptions.id = :id_1
;

-- subscriptions.repository.find
-- Does it exist already?
SELECT
  webhook_subscriptions.id AS subscription_id,
  (
    SELECT
      COUNT(*) AS count_1
    FROM webhook_event_types
    WHERE
      webhook_event_types.subscription_id = webhook_subscriptions.id
  ) AS further
FROM webhook_subscriptions
WHERE
  webhook_subscriptions.event_type = :event_type_1
  AND webhook_subscriptions.tenant = :tenant_1
  AND webhook_subscriptions.url = (
    :url_0_1 || :url_1_1 || :url_2_1
  )
ORDER BY
  webhook_subscriptions.id
;

-- subscriptions.repository.edit
-- Read and lock it.
SELECT
  webhook_subscriptions.url,
  webhook_subscriptions.event_type,
  webhook_subscriptions.tenant,
  webhook_subscriptions.topics,
  webhook_subscriptions.event_filter,
  webhook_subscriptions.payload_format,
  webhook_subscriptions.projection,
  webhook_subscriptions.batch_size,
  webhook_subscriptions.batch_wait_ms,
  webhook_subscriptions.method,
  webhook_subscriptions.custom_headers,
  webhook_subscriptions.header_expressions,
  webhook_subscriptions.pass_headers,
  webhook_subscriptions.signature_header,
  webhook_subscriptions.signature_prefix,
  webhook_subscriptions.signature_template,
  webhook_subscriptions.report_answer,
  webhook_subscriptions.answer_headers,
  webhook_subscriptions.gzip_above,
  webhook_subscriptions.http_version,
  webhook_subscriptions.timeout_seconds,
  webhook_subscriptions.ordering,
  webhook_subscriptions.max_in_flight,
  webhook_subscriptions.rate_limit,
  webhook_subscriptions.retry_schedule,
  webhook_subscriptions.final_statuses,
  webhook_subscriptions.name,
  webhook_subscriptions.external_id,
  webhook_subscriptions.metadata
FROM webhook_subscriptions
WHERE
  webhook_subscriptions.id = :id_1   FOR UPDATE
;

-- subscriptions.repository.edit
-- With WEBHOOK_REQUIRE_OWN_SECRET: has it a signing secret of its own?
SELECT
  anon_1.id
FROM (
  SELECT
    webhook_secrets.id AS id
  FROM webhook_secrets
  WHERE
    webhook_secrets.subscription_id = :subscription_id_1
    AND webhook_secrets.kind = :kind_1
) anon_1
WHERE
  ROWNUM <= 1
;

-- subscriptions.repository.edit
-- Write it.
UPDATE webhook_subscriptions SET url = (
  :url_0_1 || :url_1_1 || :url_2_1
), event_type = :event_type, ordering = :ordering, max_in_flight = :max_in_flight, rate_limit = :rate_limit, retry_schedule = :retry_schedule, final_statuses = :final_statuses, tenant = :tenant, topics = :topics, event_filter = (
  :event_filter_0_1 || :event_filter_1_1
), timeout_seconds = :timeout_seconds, payload_format = :payload_format, projection = (
  :projection_0_1 || :projection_1_1
), batch_size = :batch_size, batch_wait_ms = :batch_wait_ms, signature_header = :signature_header, signature_prefix = :signature_prefix, signature_template = :signature_template, custom_headers = (
  :custom_headers_0_1 || :custom_headers_1_1
), method = :method, header_expressions = (
  :header_expressions_0_1 || :header_expressions_1_1
), pass_headers = :pass_headers, report_answer = :report_answer, answer_headers = :answer_headers, gzip_above = :gzip_above, http_version = :http_version, name = :name, external_id = :external_id, metadata = (
  :metadata_0_1 || :metadata_1_1
)
WHERE
  webhook_subscriptions.id = :id_1
;

-- subscriptions.repository.page
-- The ids of a page, of all or of those that match; here of failing subscriptions.
-- A call has only the requested conditions.
SELECT
  anon_1.id
FROM (
  SELECT
    webhook_subscriptions.id AS id
  FROM webhook_subscriptions
  WHERE
    webhook_subscriptions.id > :id_1
    AND webhook_subscriptions.id IN (
      SELECT
        webhook_subscriptions.id
      FROM webhook_subscriptions
      WHERE
        webhook_subscriptions.event_type = :event_type_1
      UNION ALL
      SELECT
        webhook_event_types.subscription_id
      FROM webhook_event_types
      WHERE
        webhook_event_types.event_type = :event_type_2
    )
    AND webhook_subscriptions.tenant = :tenant_1
    AND (
      LOWER(webhook_subscriptions.url) LIKE LOWER(:param_1) ESCAPE '/'
      OR (
        LOWER(webhook_subscriptions.url) LIKE '%' || LOWER(:param_2) || '%' ESCAPE '/'
      )
      AND webhook_subscriptions.url NOT LIKE :param_3
    )
    AND (
      LOWER(webhook_subscriptions.name) LIKE '%' || LOWER(:param_4) || '%' ESCAPE '/'
    )
    AND webhook_subscriptions.external_id = :external_id_1
    AND webhook_subscriptions.enabled = :enabled_1
    AND webhook_subscriptions.failing_since IS NOT NULL
  ORDER BY
    webhook_subscriptions.id
) anon_1
WHERE
  ROWNUM <= 10
;

-- subscriptions.repository.page
-- Here of paused ones.
-- A call has only the requested conditions.
SELECT
  anon_1.id
FROM (
  SELECT
    webhook_subscriptions.id AS id
  FROM webhook_subscriptions
  WHERE
    webhook_subscriptions.id > :id_1
    AND webhook_subscriptions.id IN (
      SELECT
        webhook_subscriptions.id
      FROM webhook_subscriptions
      WHERE
        webhook_subscriptions.event_type = :event_type_1
      UNION ALL
      SELECT
        webhook_event_types.subscription_id
      FROM webhook_event_types
      WHERE
        webhook_event_types.event_type = :event_type_2
    )
    AND webhook_subscriptions.tenant = :tenant_1
    AND (
      LOWER(webhook_subscriptions.url) LIKE LOWER(:param_1) ESCAPE '/'
      OR (
        LOWER(webhook_subscriptions.url) LIKE '%' || LOWER(:param_2) || '%' ESCAPE '/'
      )
      AND webhook_subscriptions.url NOT LIKE :param_3
    )
    AND (
      LOWER(webhook_subscriptions.name) LIKE '%' || LOWER(:param_4) || '%' ESCAPE '/'
    )
    AND webhook_subscriptions.external_id = :external_id_1
    AND webhook_subscriptions.enabled = :enabled_1
    AND webhook_subscriptions.paused_at IS NOT NULL
  ORDER BY
    webhook_subscriptions.id
) anon_1
WHERE
  ROWNUM <= 10
;

-- subscriptions.repository.page
-- Here of those that get events.
-- A call has only the requested conditions.
SELECT
  anon_1.id
FROM (
  SELECT
    webhook_subscriptions.id AS id
  FROM webhook_subscriptions
  WHERE
    webhook_subscriptions.id > :id_1
    AND webhook_subscriptions.id IN (
      SELECT
        webhook_subscriptions.id
      FROM webhook_subscriptions
      WHERE
        webhook_subscriptions.event_type = :event_type_1
      UNION ALL
      SELECT
        webhook_event_types.subscription_id
      FROM webhook_event_types
      WHERE
        webhook_event_types.event_type = :event_type_2
    )
    AND webhook_subscriptions.tenant = :tenant_1
    AND (
      LOWER(webhook_subscriptions.url) LIKE LOWER(:param_1) ESCAPE '/'
      OR (
        LOWER(webhook_subscriptions.url) LIKE '%' || LOWER(:param_2) || '%' ESCAPE '/'
      )
      AND webhook_subscriptions.url NOT LIKE :param_3
    )
    AND (
      LOWER(webhook_subscriptions.name) LIKE '%' || LOWER(:param_4) || '%' ESCAPE '/'
    )
    AND webhook_subscriptions.external_id = :external_id_1
    AND webhook_subscriptions.enabled = :enabled_1
    AND webhook_subscriptions.paused_at IS NULL
  ORDER BY
    webhook_subscriptions.id
) anon_1
WHERE
  ROWNUM <= 10
;

-- subscriptions.repository.page
-- Here of those with one of these types, of a tenant.
-- A call has only the requested conditions.
SELECT
  anon_1.id
FROM (
  SELECT
    webhook_subscriptions.id AS id
  FROM webhook_subscriptions
  WHERE
    webhook_subscriptions.id > :id_1
    AND webhook_subscriptions.id IN (
      SELECT
        webhook_subscriptions.id
      FROM webhook_subscriptions
      WHERE
        webhook_subscriptions.event_type IN (:event_type_1_1, :event_type_1_2, :event_type_1_3, :event_type_1_4)
      UNION ALL
      SELECT
        webhook_event_types.subscription_id
      FROM webhook_event_types
      WHERE
        webhook_event_types.event_type IN (:event_type_2_1, :event_type_2_2, :event_type_2_3, :event_type_2_4)
    )
    AND webhook_subscriptions.tenant = :tenant_1
  ORDER BY
    webhook_subscriptions.id
) anon_1
WHERE
  ROWNUM <= 10
;

-- subscriptions.repository.page
-- The same, of these tenants.
-- A call has only the requested conditions.
SELECT
  anon_1.id
FROM (
  SELECT
    webhook_subscriptions.id AS id
  FROM webhook_subscriptions
  WHERE
    webhook_subscriptions.id > :id_1
    AND webhook_subscriptions.id IN (
      SELECT
        webhook_subscriptions.id
      FROM webhook_subscriptions
      WHERE
        webhook_subscriptions.event_type IN (:event_type_1_1, :event_type_1_2, :event_type_1_3, :event_type_1_4)
      UNION ALL
      SELECT
        webhook_event_types.subscription_id
      FROM webhook_event_types
      WHERE
        webhook_event_types.event_type IN (:event_type_2_1, :event_type_2_2, :event_type_2_3, :event_type_2_4)
    )
    AND webhook_subscriptions.tenant IN (:tenant_1_1, :tenant_1_2)
  ORDER BY
    webhook_subscriptions.id
) anon_1
WHERE
  ROWNUM <= 10
;

-- subscriptions.naming.known_by
-- The ids of subscriptions that a text names in several ways.
SELECT
  anon_1.id
FROM (
  SELECT
    anon_2.id AS id
  FROM (
    SELECT
      webhook_subscriptions.id AS id
    FROM webhook_subscriptions
    WHERE
      webhook_subscriptions.id = :id_1
    ORDER BY
      webhook_subscriptions.id
  ) anon_2
  WHERE
    ROWNUM <= 10
) anon_1
UNION ALL
SELECT
  anon_3.id
FROM (
  SELECT
    anon_4.id AS id
  FROM (
    SELECT
      webhook_subscriptions.id AS id
    FROM webhook_subscriptions
    WHERE
      webhook_subscriptions.id IN (
        SELECT
          webhook_subscriptions.id
        FROM webhook_subscriptions
        WHERE
          webhook_subscriptions.event_type = :event_type_1
        UNION ALL
        SELECT
          webhook_event_types.subscription_id
        FROM webhook_event_types
        WHERE
          webhook_event_types.event_type = :event_type_2
      )
    ORDER BY
      webhook_subscriptions.id
  ) anon_4
  WHERE
    ROWNUM <= 10
) anon_3
UNION ALL
SELECT
  anon_5.id
FROM (
  SELECT
    anon_6.id AS id
  FROM (
    SELECT
      webhook_subscriptions.id AS id
    FROM webhook_subscriptions
    WHERE
      webhook_subscriptions.external_id = :external_id_1
    ORDER BY
      webhook_subscriptions.id
  ) anon_6
  WHERE
    ROWNUM <= 10
) anon_5
UNION ALL
SELECT
  anon_7.id
FROM (
  SELECT
    anon_8.id AS id
  FROM (
    SELECT
      webhook_subscriptions.id AS id
    FROM webhook_subscriptions
    WHERE
      LOWER(webhook_subscriptions.url) LIKE LOWER(:param_4) ESCAPE '/'
      OR (
        LOWER(webhook_subscriptions.url) LIKE '%' || LOWER(:param_5) || '%' ESCAPE '/'
      )
      AND webhook_subscriptions.url NOT LIKE :param_6
      OR webhook_subscriptions.name IS NOT NULL
      AND (
        LOWER(webhook_subscriptions.name) LIKE '%' || LOWER(:param_7) || '%' ESCAPE '/'
      )
    ORDER BY
      CASE
        WHEN (
          webhook_subscriptions.name IS NOT NULL
          AND (
            LOWER(webhook_subscriptions.name) LIKE '%' || LOWER(:param_7) || '%' ESCAPE '/'
          )
        )
        THEN :param_8
        ELSE :param_9
      END,
      webhook_subscriptions.id
  ) anon_8
  WHERE
    ROWNUM <= 10
) anon_7
UNION ALL
SELECT
  anon_9.id
FROM (
  SELECT
    anon_10.id AS id
  FROM (
    SELECT
      webhook_subscriptions.id AS id
    FROM webhook_subscriptions
    WHERE
      webhook_subscriptions.tenant = :tenant_1
    ORDER BY
      webhook_subscriptions.id
  ) anon_10
  WHERE
    ROWNUM <= 10
) anon_9
;

-- subscriptions.naming.known_by
-- The same, of a tenant.
SELECT
  anon_1.id
FROM (
  SELECT
    anon_2.id AS id
  FROM (
    SELECT
      webhook_subscriptions.id AS id
    FROM webhook_subscriptions
    WHERE
      webhook_subscriptions.id = :id_1 AND webhook_subscriptions.tenant = :tenant_1
    ORDER BY
      webhook_subscriptions.id
  ) anon_2
  WHERE
    ROWNUM <= 10
) anon_1
UNION ALL
SELECT
  anon_3.id
FROM (
  SELECT
    anon_4.id AS id
  FROM (
    SELECT
      webhook_subscriptions.id AS id
    FROM webhook_subscriptions
    WHERE
      webhook_subscriptions.id IN (
        SELECT
          webhook_subscriptions.id
        FROM webhook_subscriptions
        WHERE
          webhook_subscriptions.event_type = :event_type_1
        UNION ALL
        SELECT
          webhook_event_types.subscription_id
        FROM webhook_event_types
        WHERE
          webhook_event_types.event_type = :event_type_2
      )
      AND webhook_subscriptions.tenant = :tenant_1
    ORDER BY
      webhook_subscriptions.id
  ) anon_4
  WHERE
    ROWNUM <= 10
) anon_3
UNION ALL
SELECT
  anon_5.id
FROM (
  SELECT
    anon_6.id AS id
  FROM (
    SELECT
      webhook_subscriptions.id AS id
    FROM webhook_subscriptions
    WHERE
      webhook_subscriptions.external_id = :external_id_1
      AND webhook_subscriptions.tenant = :tenant_1
    ORDER BY
      webhook_subscriptions.id
  ) anon_6
  WHERE
    ROWNUM <= 10
) anon_5
UNION ALL
SELECT
  anon_7.id
FROM (
  SELECT
    anon_8.id AS id
  FROM (
    SELECT
      webhook_subscriptions.id AS id
    FROM webhook_subscriptions
    WHERE
      (
        LOWER(webhook_subscriptions.url) LIKE LOWER(:param_4) ESCAPE '/'
        OR (
          LOWER(webhook_subscriptions.url) LIKE '%' || LOWER(:param_5) || '%' ESCAPE '/'
        )
        AND webhook_subscriptions.url NOT LIKE :param_6
        OR webhook_subscriptions.name IS NOT NULL
        AND (
          LOWER(webhook_subscriptions.name) LIKE '%' || LOWER(:param_7) || '%' ESCAPE '/'
        )
      )
      AND webhook_subscriptions.tenant = :tenant_1
    ORDER BY
      CASE
        WHEN (
          webhook_subscriptions.name IS NOT NULL
          AND (
            LOWER(webhook_subscriptions.name) LIKE '%' || LOWER(:param_7) || '%' ESCAPE '/'
          )
        )
        THEN :param_8
        ELSE :param_9
      END,
      webhook_subscriptions.id
  ) anon_8
  WHERE
    ROWNUM <= 10
) anon_7
;

-- subscriptions.event_types.of
-- The further types of these subscriptions.
SELECT
  webhook_event_types.subscription_id,
  webhook_event_types.event_type
FROM webhook_event_types
WHERE
  webhook_event_types.subscription_id IN (:subscription_id_1_1)
ORDER BY
  webhook_event_types.event_type
;

-- subscriptions.event_types.write
-- Insert further types, an array.
INSERT INTO webhook_event_types (
  subscription_id,
  tenant,
  event_type
)
VALUES
  (:subscription_id, :tenant, :event_type)
;

-- subscriptions.event_types.clear
-- Delete the further types of a subscription.
DELETE FROM webhook_event_types
WHERE
  webhook_event_types.subscription_id = :subscription_id_1
;

-- subscriptions.subscribed_rows.found_rows
-- The subscriptions of these ids, with everything that their problems depend on.
SELECT
  webhook_subscriptions.id AS subscription_id,
  webhook_subscriptions.failing_since,
  webhook_subscriptions.verified_url,
  webhook_subscriptions.paused_at,
  webhook_subscriptions.starts,
  webhook_subscriptions.url,
  webhook_subscriptions.event_type,
  webhook_subscriptions.tenant,
  webhook_subscriptions.topics,
  webhook_subscriptions.event_filter,
  webhook_subscriptions.payload_format,
  webhook_subscriptions.projection,
  webhook_subscriptions.batch_size,
  webhook_subscriptions.batch_wait_ms,
  webhook_subscriptions.method,
  webhook_subscriptions.custom_headers,
  webhook_subscriptions.header_expressions,
  webhook_subscriptions.pass_headers,
  webhook_subscriptions.signature_header,
  webhook_subscriptions.signature_prefix,
  webhook_subscriptions.signature_template,
  webhook_subscriptions.report_answer,
  webhook_subscriptions.answer_headers,
  webhook_subscriptions.gzip_above,
  webhook_subscriptions.http_version,
  webhook_subscriptions.timeout_seconds,
  webhook_subscriptions.ordering,
  webhook_subscriptions.max_in_flight,
  webhook_subscriptions.rate_limit,
  webhook_subscriptions.retry_schedule,
  webhook_subscriptions.final_statuses,
  webhook_secrets.kind,
  webhook_secrets.secret,
  webhook_secrets.expires_at,
  webhook_tls.subscription_id AS tls_of,
  webhook_subscriptions.enabled,
  webhook_subscriptions.disabled_reason,
  webhook_subscriptions.paused_reason,
  webhook_subscriptions.probed_at,
  SYS_EXTRACT_UTC(CAST(webhook_subscriptions.created_at AS TIMESTAMP WITH TIME ZONE)) AS created_at,
  (
    SELECT
      COUNT(*) AS count_1
    FROM webhook_event_types
    WHERE
      webhook_event_types.subscription_id = webhook_subscriptions.id
  ) AS further,
  webhook_subscriptions.name,
  webhook_subscriptions.external_id,
  webhook_subscriptions.metadata
FROM webhook_subscriptions
LEFT OUTER JOIN webhook_secrets
  ON webhook_secrets.subscription_id = webhook_subscriptions.id
LEFT OUTER JOIN webhook_tls
  ON webhook_tls.subscription_id = webhook_subscriptions.id
WHERE
  webhook_subscriptions.id IN (:id_1_1, :id_1_2, :id_1_3, :id_1_4)
ORDER BY
  webhook_subscriptions.id,
  webhook_secrets.created_at DESC,
  webhook_secrets.id DESC
;

-- subscriptions.subscribed_rows.found_rows
-- The first ones that get events.
SELECT
  webhook_subscriptions.id AS subscription_id,
  webhook_subscriptions.failing_since,
  webhook_subscriptions.verified_url,
  webhook_subscriptions.paused_at,
  webhook_subscriptions.starts,
  webhook_subscriptions.url,
  webhook_subscriptions.event_type,
  webhook_subscriptions.tenant,
  webhook_subscriptions.topics,
  webhook_subscriptions.event_filter,
  webhook_subscriptions.payload_format,
  webhook_subscriptions.projection,
  webhook_subscriptions.batch_size,
  webhook_subscriptions.batch_wait_ms,
  webhook_subscriptions.method,
  webhook_subscriptions.custom_headers,
  webhook_subscriptions.header_expressions,
  webhook_subscriptions.pass_headers,
  webhook_subscriptions.signature_header,
  webhook_subscriptions.signature_prefix,
  webhook_subscriptions.signature_template,
  webhook_subscriptions.report_answer,
  webhook_subscriptions.answer_headers,
  webhook_subscriptions.gzip_above,
  webhook_subscriptions.http_version,
  webhook_subscriptions.timeout_seconds,
  webhook_subscriptions.ordering,
  webhook_subscriptions.max_in_flight,
  webhook_subscriptions.rate_limit,
  webhook_subscriptions.retry_schedule,
  webhook_subscriptions.final_statuses,
  webhook_secrets.kind,
  webhook_secrets.secret,
  webhook_secrets.expires_at,
  webhook_tls.subscription_id AS tls_of,
  webhook_subscriptions.enabled,
  webhook_subscriptions.disabled_reason,
  webhook_subscriptions.paused_reason,
  webhook_subscriptions.probed_at,
  SYS_EXTRACT_UTC(CAST(webhook_subscriptions.created_at AS TIMESTAMP WITH TIME ZONE)) AS created_at,
  (
    SELECT
      COUNT(*) AS count_1
    FROM webhook_event_types
    WHERE
      webhook_event_types.subscription_id = webhook_subscriptions.id
  ) AS further,
  webhook_subscriptions.name,
  webhook_subscriptions.external_id,
  webhook_subscriptions.metadata
FROM webhook_subscriptions
LEFT OUTER JOIN webhook_secrets
  ON webhook_secrets.subscription_id = webhook_subscriptions.id
LEFT OUTER JOIN webhook_tls
  ON webhook_tls.subscription_id = webhook_subscriptions.id
WHERE
  webhook_subscriptions.id IN (
    SELECT
      anon_1.id
    FROM (
      SELECT
        webhook_subscriptions.id AS id
      FROM webhook_subscriptions
      WHERE
        webhook_subscriptions.enabled = :enabled_1
        AND webhook_subscriptions.paused_at IS NULL
      ORDER BY
        webhook_subscriptions.id
    ) anon_1
    WHERE
      ROWNUM <= 10
  )
ORDER BY
  webhook_subscriptions.id,
  webhook_secrets.created_at DESC,
  webhook_secrets.id DESC
;

-- subscriptions.subscribed_rows.found_rows
-- The same, of a tenant.
SELECT
  webhook_subscriptions.id AS subscription_id,
  webhook_subscriptions.failing_since,
  webhook_subscriptions.verified_url,
  webhook_subscriptions.paused_at,
  webhook_subscriptions.starts,
  webhook_subscriptions.url,
  webhook_subscriptions.event_type,
  webhook_subscriptions.tenant,
  webhook_subscriptions.topics,
  webhook_subscriptions.event_filter,
  webhook_subscriptions.payload_format,
  webhook_subscriptions.projection,
  webhook_subscriptions.batch_size,
  webhook_subscriptions.batch_wait_ms,
  webhook_subscriptions.method,
  webhook_subscriptions.custom_headers,
  webhook_subscriptions.header_expressions,
  webhook_subscriptions.pass_headers,
  webhook_subscriptions.signature_header,
  webhook_subscriptions.signature_prefix,
  webhook_subscriptions.signature_template,
  webhook_subscriptions.report_answer,
  webhook_subscriptions.answer_headers,
  webhook_subscriptions.gzip_above,
  webhook_subscriptions.http_version,
  webhook_subscriptions.timeout_seconds,
  webhook_subscriptions.ordering,
  webhook_subscriptions.max_in_flight,
  webhook_subscriptions.rate_limit,
  webhook_subscriptions.retry_schedule,
  webhook_subscriptions.final_statuses,
  webhook_secrets.kind,
  webhook_secrets.secret,
  webhook_secrets.expires_at,
  webhook_tls.subscription_id AS tls_of,
  webhook_subscriptions.enabled,
  webhook_subscriptions.disabled_reason,
  webhook_subscriptions.paused_reason,
  webhook_subscriptions.probed_at,
  SYS_EXTRACT_UTC(CAST(webhook_subscriptions.created_at AS TIMESTAMP WITH TIME ZONE)) AS created_at,
  (
    SELECT
      COUNT(*) AS count_1
    FROM webhook_event_types
    WHERE
      webhook_event_types.subscription_id = webhook_subscriptions.id
  ) AS further,
  webhook_subscriptions.name,
  webhook_subscriptions.external_id,
  webhook_subscriptions.metadata
FROM webhook_subscriptions
LEFT OUTER JOIN webhook_secrets
  ON webhook_secrets.subscription_id = webhook_subscriptions.id
LEFT OUTER JOIN webhook_tls
  ON webhook_tls.subscription_id = webhook_subscriptions.id
WHERE
  webhook_subscriptions.id IN (
    SELECT
      anon_1.id
    FROM (
      SELECT
        webhook_subscriptions.id AS id
      FROM webhook_subscriptions
      WHERE
        webhook_subscriptions.enabled = :enabled_1
        AND webhook_subscriptions.paused_at IS NULL
        AND webhook_subscriptions.tenant = :tenant_1
      ORDER BY
        webhook_subscriptions.id
    ) anon_1
    WHERE
      ROWNUM <= 10
  )
ORDER BY
  webhook_subscriptions.id,
  webhook_secrets.created_at DESC,
  webhook_secrets.id DESC
;

-- subscriptions.subscribed_rows.found_rows
-- One subscription.
SELECT
  webhook_subscriptions.id AS subscription_id,
  webhook_subscriptions.failing_since,
  webhook_subscriptions.verified_url,
  webhook_subscriptions.paused_at,
  webhook_subscriptions.starts,
  webhook_subscriptions.url,
  webhook_subscriptions.event_type,
  webhook_subscriptions.tenant,
  webhook_subscriptions.topics,
  webhook_subscriptions.event_filter,
  webhook_subscriptions.payload_format,
  webhook_subscriptions.projection,
  webhook_subscriptions.batch_size,
  webhook_subscriptions.batch_wait_ms,
  webhook_subscriptions.method,
  webhook_subscriptions.custom_headers,
  webhook_subscriptions.header_expressions,
  webhook_subscriptions.pass_headers,
  webhook_subscriptions.signature_header,
  webhook_subscriptions.signature_prefix,
  webhook_subscriptions.signature_template,
  webhook_subscriptions.report_answer,
  webhook_subscriptions.answer_headers,
  webhook_subscriptions.gzip_above,
  webhook_subscriptions.http_version,
  webhook_subscriptions.timeout_seconds,
  webhook_subscriptions.ordering,
  webhook_subscriptions.max_in_flight,
  webhook_subscriptions.rate_limit,
  webhook_subscriptions.retry_schedule,
  webhook_subscriptions.final_statuses,
  webhook_secrets.kind,
  webhook_secrets.secret,
  webhook_secrets.expires_at,
  webhook_tls.subscription_id AS tls_of,
  webhook_subscriptions.enabled,
  webhook_subscriptions.disabled_reason,
  webhook_subscriptions.paused_reason,
  webhook_subscriptions.probed_at,
  SYS_EXTRACT_UTC(CAST(webhook_subscriptions.created_at AS TIMESTAMP WITH TIME ZONE)) AS created_at,
  (
    SELECT
      COUNT(*) AS count_1
    FROM webhook_event_types
    WHERE
      webhook_event_types.subscription_id = webhook_subscriptions.id
  ) AS further,
  webhook_subscriptions.name,
  webhook_subscriptions.external_id,
  webhook_subscriptions.metadata
FROM webhook_subscriptions
LEFT OUTER JOIN webhook_secrets
  ON webhook_secrets.subscription_id = webhook_subscriptions.id
LEFT OUTER JOIN webhook_tls
  ON webhook_tls.subscription_id = webhook_subscriptions.id
WHERE
  webhook_subscriptions.id = :id_1
ORDER BY
  webhook_subscriptions.id,
  webhook_secrets.created_at DESC,
  webhook_secrets.id DESC
;

-- subscriptions.health.failing
-- Failing subscriptions, the longest failing first.
SELECT
  anon_1.id,
  anon_1.url,
  anon_1.event_type,
  anon_1.tenant,
  anon_1.name,
  anon_1.enabled,
  anon_1.disabled_reason,
  anon_1.paused_at,
  anon_1.paused_reason,
  anon_1.failing_since
FROM (
  SELECT
    webhook_subscriptions.id AS id,
    webhook_subscriptions.url AS url,
    webhook_subscriptions.event_type AS event_type,
    webhook_subscriptions.tenant AS tenant,
    webhook_subscriptions.name AS name,
    webhook_subscriptions.enabled AS enabled,
    webhook_subscriptions.disabled_reason AS disabled_reason,
    webhook_subscriptions.paused_at AS paused_at,
    webhook_subscriptions.paused_reason AS paused_reason,
    webhook_subscriptions.failing_since AS failing_since
  FROM webhook_subscriptions
  WHERE
    webhook_subscriptions.failing_since IS NOT NULL
  ORDER BY
    webhook_subscriptions.failing_since
) anon_1
WHERE
  ROWNUM <= 20
;

-- subscriptions.health.named
-- The names of these subscriptions.
SELECT
  webhook_subscriptions.id,
  webhook_subscriptions.url,
  webhook_subscriptions.event_type,
  webhook_subscriptions.tenant,
  webhook_subscriptions.name,
  webhook_subscriptions.enabled,
  webhook_subscriptions.disabled_reason,
  webhook_subscriptions.paused_at,
  webhook_subscriptions.paused_reason,
  webhook_subscriptions.failing_since
FROM webhook_subscriptions
WHERE
  webhook_subscriptions.id IN (:id_1_1)
;

-- subscriptions.health.noticed
-- The subscriptions of an overview: of these ids, failing, disabled, paused.
SELECT
  0 AS part,
  anon_1.id,
  anon_1.url,
  anon_1.event_type,
  anon_1.tenant,
  anon_1.name,
  anon_1.enabled,
  anon_1.disabled_reason,
  anon_1.paused_at,
  anon_1.paused_reason,
  anon_1.failing_since
FROM (
  SELECT
    webhook_subscriptions.id AS id,
    webhook_subscriptions.url AS url,
    webhook_subscriptions.event_type AS event_type,
    webhook_subscriptions.tenant AS tenant,
    webhook_subscriptions.name AS name,
    webhook_subscriptions.enabled AS enabled,
    webhook_subscriptions.disabled_reason AS disabled_reason,
    webhook_subscriptions.paused_at AS paused_at,
    webhook_subscriptions.paused_reason AS paused_reason,
    webhook_subscriptions.failing_since AS failing_since
  FROM webhook_subscriptions
  WHERE
    webhook_subscriptions.id IN (:id_1_1)
) anon_1
UNION ALL
SELECT
  1 AS part,
  anon_2.id,
  anon_2.url,
  anon_2.event_type,
  anon_2.tenant,
  anon_2.name,
  anon_2.enabled,
  anon_2.disabled_reason,
  anon_2.paused_at,
  anon_2.paused_reason,
  anon_2.failing_since
FROM (
  SELECT
    anon_3.id AS id,
    anon_3.url AS url,
    anon_3.event_type AS event_type,
    anon_3.tenant AS tenant,
    anon_3.name AS name,
    anon_3.enabled AS enabled,
    anon_3.disabled_reason AS disabled_reason,
    anon_3.paused_at AS paused_at,
    anon_3.paused_reason AS paused_reason,
    anon_3.failing_since AS failing_since
  FROM (
    SELECT
      webhook_subscriptions.id AS id,
      webhook_subscriptions.url AS url,
      webhook_subscriptions.event_type AS event_type,
      webhook_subscriptions.tenant AS tenant,
      webhook_subscriptions.name AS name,
      webhook_subscriptions.enabled AS enabled,
      webhook_subscriptions.disabled_reason AS disabled_reason,
      webhook_subscriptions.paused_at AS paused_at,
      webhook_subscriptions.paused_reason AS paused_reason,
      webhook_subscriptions.failing_since AS failing_since
    FROM webhook_subscriptions
    WHERE
      webhook_subscriptions.failing_since IS NOT NULL
    ORDER BY
      webhook_subscriptions.failing_since
  ) anon_3
  WHERE
    ROWNUM <= 20
) anon_2
UNION ALL
SELECT
  2 AS part,
  anon_4.id,
  anon_4.url,
  anon_4.event_type,
  anon_4.tenant,
  anon_4.name,
  anon_4.enabled,
  anon_4.disabled_reason,
  anon_4.paused_at,
  anon_4.paused_reason,
  anon_4.failing_since
FROM (
  SELECT
    anon_5.id AS id,
    anon_5.url AS url,
    anon_5.event_type AS event_type,
    anon_5.tenant AS tenant,
    anon_5.name AS name,
    anon_5.enabled AS enabled,
    anon_5.disabled_reason AS disabled_reason,
    anon_5.paused_at AS paused_at,
    anon_5.paused_reason AS paused_reason,
    anon_5.failing_since AS failing_since
  FROM (
    SELECT
      webhook_subscriptions.id AS id,
      webhook_subscriptions.url AS url,
      webhook_subscriptions.event_type AS event_type,
      webhook_subscriptions.tenant AS tenant,
      webhook_subscriptions.name AS name,
      webhook_subscriptions.enabled AS enabled,
      webhook_subscriptions.disabled_reason AS disabled_reason,
      webhook_subscriptions.paused_at AS paused_at,
      webhook_subscriptions.paused_reason AS paused_reason,
      webhook_subscriptions.failing_since AS failing_since
    FROM webhook_subscriptions
    WHERE
      webhook_subscriptions.enabled = :enabled_1
    ORDER BY
      webhook_subscriptions.id DESC
  ) anon_5
  WHERE
    ROWNUM <= 20
) anon_4
UNION ALL
SELECT
  3 AS part,
  anon_6.id,
  anon_6.url,
  anon_6.event_type,
  anon_6.tenant,
  anon_6.name,
  anon_6.enabled,
  anon_6.disabled_reason,
  anon_6.paused_at,
  anon_6.paused_reason,
  anon_6.failing_since
FROM (
  SELECT
    anon_7.id AS id,
    anon_7.url AS url,
    anon_7.event_type AS event_type,
    anon_7.tenant AS tenant,
    anon_7.name AS name,
    anon_7.enabled AS enabled,
    anon_7.disabled_reason AS disabled_reason,
    anon_7.paused_at AS paused_at,
    anon_7.paused_reason AS paused_reason,
    anon_7.failing_since AS failing_since
  FROM (
    SELECT
      webhook_subscriptions.id AS id,
      webhook_subscriptions.url AS url,
      webhook_subscriptions.event_type AS event_type,
      webhook_subscriptions.tenant AS tenant,
      webhook_subscriptions.name AS name,
      webhook_subscriptions.enabled AS enabled,
      webhook_subscriptions.disabled_reason AS disabled_reason,
      webhook_subscriptions.paused_at AS paused_at,
      webhook_subscriptions.paused_reason AS paused_reason,
      webhook_subscriptions.failing_since AS failing_since
    FROM webhook_subscriptions
    WHERE
      webhook_subscriptions.paused_at IS NOT NULL
      AND webhook_subscriptions.enabled = :enabled_2
    ORDER BY
      webhook_subscriptions.paused_at
  ) anon_7
  WHERE
    ROWNUM <= 20
) anon_6
;

-- subscriptions.health.noticed
-- The same, of a tenant.
SELECT
  0 AS part,
  anon_1.id,
  anon_1.url,
  anon_1.event_type,
  anon_1.tenant,
  anon_1.name,
  anon_1.enabled,
  anon_1.disabled_reason,
  anon_1.paused_at,
  anon_1.paused_reason,
  anon_1.failing_since
FROM (
  SELECT
    webhook_subscriptions.id AS id,
    webhook_subscriptions.url AS url,
    webhook_subscriptions.event_type AS event_type,
    webhook_subscriptions.tenant AS tenant,
    webhook_subscriptions.name AS name,
    webhook_subscriptions.enabled AS enabled,
    webhook_subscriptions.disabled_reason AS disabled_reason,
    webhook_subscriptions.paused_at AS paused_at,
    webhook_subscriptions.paused_reason AS paused_reason,
    webhook_subscriptions.failing_since AS failing_since
  FROM webhook_subscriptions
  WHERE
    webhook_subscriptions.id IN (:id_1_1)
) anon_1
UNION ALL
SELECT
  1 AS part,
  anon_2.id,
  anon_2.url,
  anon_2.event_type,
  anon_2.tenant,
  anon_2.name,
  anon_2.enabled,
  anon_2.disabled_reason,
  anon_2.paused_at,
  anon_2.paused_reason,
  anon_2.failing_since
FROM (
  SELECT
    anon_3.id AS id,
    anon_3.url AS url,
    anon_3.event_type AS event_type,
    anon_3.tenant AS tenant,
    anon_3.name AS name,
    anon_3.enabled AS enabled,
    anon_3.disabled_reason AS disabled_reason,
    anon_3.paused_at AS paused_at,
    anon_3.paused_reason AS paused_reason,
    anon_3.failing_since AS failing_since
  FROM (
    SELECT
      webhook_subscriptions.id AS id,
      webhook_subscriptions.url AS url,
      webhook_subscriptions.event_type AS event_type,
      webhook_subscriptions.tenant AS tenant,
      webhook_subscriptions.name AS name,
      webhook_subscriptions.enabled AS enabled,
      webhook_subscriptions.disabled_reason AS disabled_reason,
      webhook_subscriptions.paused_at AS paused_at,
      webhook_subscriptions.paused_reason AS paused_reason,
      webhook_subscriptions.failing_since AS failing_since
    FROM webhook_subscriptions
    WHERE
      webhook_subscriptions.failing_since IS NOT NULL
      AND webhook_subscriptions.tenant = :tenant_1
    ORDER BY
      webhook_subscriptions.failing_since
  ) anon_3
  WHERE
    ROWNUM <= 20
) anon_2
UNION ALL
SELECT
  2 AS part,
  anon_4.id,
  anon_4.url,
  anon_4.event_type,
  anon_4.tenant,
  anon_4.name,
  anon_4.enabled,
  anon_4.disabled_reason,
  anon_4.paused_at,
  anon_4.paused_reason,
  anon_4.failing_since
FROM (
  SELECT
    anon_5.id AS id,
    anon_5.url AS url,
    anon_5.event_type AS event_type,
    anon_5.tenant AS tenant,
    anon_5.name AS name,
    anon_5.enabled AS enabled,
    anon_5.disabled_reason AS disabled_reason,
    anon_5.paused_at AS paused_at,
    anon_5.paused_reason AS paused_reason,
    anon_5.failing_since AS failing_since
  FROM (
    SELECT
      webhook_subscriptions.id AS id,
      webhook_subscriptions.url AS url,
      webhook_subscriptions.event_type AS event_type,
      webhook_subscriptions.tenant AS tenant,
      webhook_subscriptions.name AS name,
      webhook_subscriptions.enabled AS enabled,
      webhook_subscriptions.disabled_reason AS disabled_reason,
      webhook_subscriptions.paused_at AS paused_at,
      webhook_subscriptions.paused_reason AS paused_reason,
      webhook_subscriptions.failing_since AS failing_since
    FROM webhook_subscriptions
    WHERE
      webhook_subscriptions.enabled = :enabled_1
      AND webhook_subscriptions.tenant = :tenant_2
    ORDER BY
      webhook_subscriptions.id DESC
  ) anon_5
  WHERE
    ROWNUM <= 20
) anon_4
UNION ALL
SELECT
  3 AS part,
  anon_6.id,
  anon_6.url,
  anon_6.event_type,
  anon_6.tenant,
  anon_6.name,
  anon_6.enabled,
  anon_6.disabled_reason,
  anon_6.paused_at,
  anon_6.paused_reason,
  anon_6.failing_since
FROM (
  SELECT
    anon_7.id AS id,
    anon_7.url AS url,
    anon_7.event_type AS event_type,
    anon_7.tenant AS tenant,
    anon_7.name AS name,
    anon_7.enabled AS enabled,
    anon_7.disabled_reason AS disabled_reason,
    anon_7.paused_at AS paused_at,
    anon_7.paused_reason AS paused_reason,
    anon_7.failing_since AS failing_since
  FROM (
    SELECT
      webhook_subscriptions.id AS id,
      webhook_subscriptions.url AS url,
      webhook_subscriptions.event_type AS event_type,
      webhook_subscriptions.tenant AS tenant,
      webhook_subscriptions.name AS name,
      webhook_subscriptions.enabled AS enabled,
      webhook_subscriptions.disabled_reason AS disabled_reason,
      webhook_subscriptions.paused_at AS paused_at,
      webhook_subscriptions.paused_reason AS paused_reason,
      webhook_subscriptions.failing_since AS failing_since
    FROM webhook_subscriptions
    WHERE
      webhook_subscriptions.paused_at IS NOT NULL
      AND webhook_subscriptions.enabled = :enabled_2
      AND webhook_subscriptions.tenant = :tenant_3
    ORDER BY
      webhook_subscriptions.paused_at
  ) anon_7
  WHERE
    ROWNUM <= 20
) anon_6
;

-- subscriptions.health.storing
-- A tenant's first subscriptions that have deliveries to send.
SELECT
  anon_1.id
FROM (
  SELECT
    webhook_subscriptions.id AS id
  FROM webhook_subscriptions
  WHERE
    webhook_subscriptions.tenant = :tenant_1
    AND (
      EXISTS(
        SELECT
          *
        FROM webhook_deliveries
        WHERE
          webhook_deliveries.subscription_id = webhook_subscriptions.id
          AND webhook_deliveries.status IN (:status_1_1, :status_1_2, :status_1_3, :status_1_4)
      )
    )
  ORDER BY
    webhook_subscriptions.id
) anon_1
WHERE
  ROWNUM <= 20
;

-- subscriptions.health.paused
-- Paused subscriptions, the longest paused first.
SELECT
  anon_1.id,
  anon_1.url,
  anon_1.event_type,
  anon_1.tenant,
  anon_1.name,
  anon_1.enabled,
  anon_1.disabled_reason,
  anon_1.paused_at,
  anon_1.paused_reason,
  anon_1.failing_since
FROM (
  SELECT
    webhook_subscriptions.id AS id,
    webhook_subscriptions.url AS url,
    webhook_subscriptions.event_type AS event_type,
    webhook_subscriptions.tenant AS tenant,
    webhook_subscriptions.name AS name,
    webhook_subscriptions.enabled AS enabled,
    webhook_subscriptions.disabled_reason AS disabled_reason,
    webhook_subscriptions.paused_at AS paused_at,
    webhook_subscriptions.paused_reason AS paused_reason,
    webhook_subscriptions.failing_since AS failing_since
  FROM webhook_subscriptions
  WHERE
    webhook_subscriptions.paused_at IS NOT NULL
    AND webhook_subscriptions.enabled = :enabled_1
  ORDER BY
    webhook_subscriptions.paused_at
) anon_1
WHERE
  ROWNUM <= 20
;

-- subscriptions.health.expiring
-- Subscriptions whose next event in Kafka expires, the most urgent first.
SELECT
  webhook_subscriptions.id,
  webhook_subscriptions.url,
  webhook_subscriptions.event_type,
  webhook_subscriptions.tenant,
  webhook_subscriptions.name,
  webhook_cursors.expires_at
FROM webhook_subscriptions
JOIN webhook_cursors
  ON webhook_cursors.subscription_id = webhook_subscriptions.id
WHERE
  webhook_cursors.expires_at < :expires_at_1
  AND webhook_cursors.replay = :replay_1
  AND webhook_subscriptions.enabled = :enabled_1
  AND (
    webhook_cursors.end_offset IS NULL
    OR webhook_cursors.end_offset > webhook_cursors.next_offset
  )
ORDER BY
  webhook_cursors.expires_at
;

-- subscriptions.health.untimed
-- Subscriptions that are owed events which are not known to expire.
SELECT
  anon_1.id
FROM (
  SELECT DISTINCT
    webhook_subscriptions.id AS id
  FROM webhook_subscriptions
  JOIN webhook_cursors
    ON webhook_cursors.subscription_id = webhook_subscriptions.id
  WHERE
    webhook_cursors.expires_at IS NULL
    AND webhook_cursors.replay = :replay_1
    AND webhook_subscriptions.enabled = :enabled_1
    AND (
      webhook_cursors.end_offset IS NULL
      OR webhook_cursors.end_offset > webhook_cursors.next_offset
    )
  ORDER BY
    webhook_subscriptions.id
) anon_1
WHERE
  ROWNUM <= 20
;

-- subscriptions.health.untimed
-- The same, of these topics.
SELECT
  anon_1.id
FROM (
  SELECT DISTINCT
    webhook_subscriptions.id AS id
  FROM webhook_subscriptions
  JOIN webhook_cursors
    ON webhook_cursors.subscription_id = webhook_subscriptions.id
  WHERE
    webhook_cursors.expires_at IS NULL
    AND webhook_cursors.replay = :replay_1
    AND webhook_subscriptions.enabled = :enabled_1
    AND (
      webhook_cursors.end_offset IS NULL
      OR webhook_cursors.end_offset > webhook_cursors.next_offset
    )
    AND webhook_cursors.topic IN (:topic_1_1)
  ORDER BY
    webhook_subscriptions.id
) anon_1
WHERE
  ROWNUM <= 20
;

-- subscriptions.health.named_types
-- The first event types that subscriptions name, and how many name each.
SELECT
  anon_1.event_type,
  anon_1.sum_1
FROM (
  SELECT
    anon_2.event_type AS event_type,
    SUM(anon_2.subscriptions) AS sum_1
  FROM (
    SELECT
      anon_3.event_type AS event_type,
      anon_3.subscriptions AS subscriptions
    FROM (
      SELECT
        anon_4.event_type AS event_type,
        anon_4.subscriptions AS subscriptions
      FROM (
        SELECT
          webhook_subscriptions.event_type AS event_type,
          COUNT(*) AS subscriptions
        FROM webhook_subscriptions
        GROUP BY
          webhook_subscriptions.event_type
        ORDER BY
          webhook_subscriptions.event_type
      ) anon_4
      WHERE
        ROWNUM <= 10
    ) anon_3
    UNION ALL
    SELECT
      anon_5.event_type AS event_type,
      anon_5.subscriptions AS subscriptions
    FROM (
      SELECT
        anon_6.event_type AS event_type,
        anon_6.subscriptions AS subscriptions
      FROM (
        SELECT
          webhook_event_types.event_type AS event_type,
          COUNT(*) AS subscriptions
        FROM webhook_event_types
        GROUP BY
          webhook_event_types.event_type
        ORDER BY
          webhook_event_types.event_type
      ) anon_6
      WHERE
        ROWNUM <= 10
    ) anon_5
  ) anon_2
  GROUP BY
    anon_2.event_type
  ORDER BY
    anon_2.event_type
) anon_1
WHERE
  ROWNUM <= 10
;

-- subscriptions.health.named_types
-- The next event types.
SELECT
  anon_1.event_type,
  anon_1.sum_1
FROM (
  SELECT
    anon_2.event_type AS event_type,
    SUM(anon_2.subscriptions) AS sum_1
  FROM (
    SELECT
      anon_3.event_type AS event_type,
      anon_3.subscriptions AS subscriptions
    FROM (
      SELECT
        anon_4.event_type AS event_type,
        anon_4.subscriptions AS subscriptions
      FROM (
        SELECT
          webhook_subscriptions.event_type AS event_type,
          COUNT(*) AS subscriptions
        FROM webhook_subscriptions
        WHERE
          webhook_subscriptions.event_type > :event_type_1
        GROUP BY
          webhook_subscriptions.event_type
        ORDER BY
          webhook_subscriptions.event_type
      ) anon_4
      WHERE
        ROWNUM <= 10
    ) anon_3
    UNION ALL
    SELECT
      anon_5.event_type AS event_type,
      anon_5.subscriptions AS subscriptions
    FROM (
      SELECT
        anon_6.event_type AS event_type,
        anon_6.subscriptions AS subscriptions
      FROM (
        SELECT
          webhook_event_types.event_type AS event_type,
          COUNT(*) AS subscriptions
        FROM webhook_event_types
        WHERE
          webhook_event_types.event_type > :event_type_2
        GROUP BY
          webhook_event_types.event_type
        ORDER BY
          webhook_event_types.event_type
      ) anon_6
      WHERE
        ROWNUM <= 10
    ) anon_5
  ) anon_2
  GROUP BY
    anon_2.event_type
  ORDER BY
    anon_2.event_type
) anon_1
WHERE
  ROWNUM <= 10
;

-- subscriptions.repository.count_others
-- Those with one of these types for none of these tenants.
SELECT
  COUNT(*) AS count_1
FROM webhook_subscriptions
WHERE
  webhook_subscriptions.id IN (
    SELECT
      webhook_subscriptions.id
    FROM webhook_subscriptions
    WHERE
      webhook_subscriptions.event_type IN (:event_type_1_1, :event_type_1_2, :event_type_1_3, :event_type_1_4)
    UNION ALL
    SELECT
      webhook_event_types.subscription_id
    FROM webhook_event_types
    WHERE
      webhook_event_types.event_type IN (:event_type_2_1, :event_type_2_2, :event_type_2_3, :event_type_2_4)
  )
  AND webhook_subscriptions.tenant != :tenant_1
  AND webhook_subscriptions.tenant != :tenant_2
;

-- subscriptions.repository.count_enabled
-- `check`: the number of enabled subscriptions.
SELECT
  COUNT(*) AS count_1
FROM webhook_subscriptions
WHERE
  webhook_subscriptions.enabled = :enabled_1
  AND webhook_subscriptions.paused_at IS NULL
;

-- subscriptions.repository._switch
-- Disable it and keep an earlier reason.
UPDATE webhook_subscriptions SET enabled = :enabled, disabled_reason = CASE
  WHEN (
    webhook_subscriptions.enabled = :enabled_1
  )
  THEN webhook_subscriptions.disabled_reason
END
WHERE
  webhook_subscriptions.id = :id_1
;

-- subscriptions.repository._switch
-- Disable it for a new reason.
UPDATE webhook_subscriptions SET enabled = :enabled, disabled_reason = :disabled_reason
WHERE
  webhook_subscriptions.id = :id_1
;

-- subscriptions.repository._switch
-- Enable it.
UPDATE webhook_subscriptions SET enabled = :enabled, disabled_reason = :disabled_reason, failing_since = :failing_since
WHERE
  webhook_subscriptions.id = :id_1
;

-- subscriptions.repository._switch
-- Pause it and keep an earlier reason.
UPDATE webhook_subscriptions SET paused_at = COALESCE(webhook_subscriptions.paused_at, SYS_EXTRACT_UTC(SYSTIMESTAMP)), paused_reason = CASE
  WHEN (
    webhook_subscriptions.paused_at IS NOT NULL
  )
  THEN webhook_subscriptions.paused_reason
END, probed_at = CASE
  WHEN (
    webhook_subscriptions.paused_at IS NOT NULL
  )
  THEN webhook_subscriptions.probed_at
END, failing_since = :failing_since
WHERE
  webhook_subscriptions.id = :id_1
;

-- subscriptions.repository._switch
-- Pause it for a new reason.
UPDATE webhook_subscriptions SET paused_at = COALESCE(webhook_subscriptions.paused_at, SYS_EXTRACT_UTC(SYSTIMESTAMP)), paused_reason = :paused_reason, probed_at = :probed_at, failing_since = :failing_since
WHERE
  webhook_subscriptions.id = :id_1
;

-- subscriptions.repository._switch
-- Resume it.
UPDATE webhook_subscriptions SET paused_at = :paused_at, paused_reason = :paused_reason, probed_at = :probed_at, failing_since = :failing_since
WHERE
  webhook_subscriptions.id = :id_1
;

-- subscriptions.repository.set_verified
-- Its receiver has agreed, up to this rate.
UPDATE webhook_subscriptions SET rate_limit = :rate_limit, verified_url = (
  :verified_url_0_1 || :verified_url_1_1 || :verified_url_2_1
)
WHERE
  webhook_subscriptions.id = :id_1
;

-- subscriptions.repository.remove
-- Its cursors.
SELECT
  webhook_cursors.id
FROM webhook_cursors
WHERE
  webhook_cursors.subscription_id = :subscription_id_1
;

-- subscriptions.repository.remove
-- Delete these by id, an array.
DELETE FROM webhook_cursors
WHERE
  webhook_cursors.id = :b_id
;

-- subscriptions.repository.remove
-- Remove it, and its secrets by the foreign key.
DELETE FROM webhook_subscriptions
WHERE
  webhook_subscriptions.id = :id_1
;

-- subscriptions.secrets.insert_secrets
-- Insert its secrets, an array.
INSERT INTO webhook_secrets (
  subscription_id,
  secret,
  created_at,
  kind
)
VALUES
  (:subscription_id, :secret, :created_at, :kind)
RETURNING webhook_secrets.id INTO :ret_0
;

-- subscriptions.secrets.lock
-- Lock the subscription before its secrets change.
SELECT
  webhook_subscriptions.id
FROM webhook_subscriptions
WHERE
  webhook_subscriptions.id = :id_1   FOR UPDATE
;

-- subscriptions.secrets.rotate
-- Its signing secrets, newest first.
SELECT
  webhook_secrets.secret,
  webhook_secrets.created_at,
  webhook_secrets.expires_at
FROM webhook_secrets
WHERE
  webhook_secrets.subscription_id = :subscription_id_1
  AND webhook_secrets.kind = :kind_1
ORDER BY
  webhook_secrets.created_at DESC,
  webhook_secrets.id DESC
;

-- subscriptions.secrets.rotate
-- Delete secrets that ended long ago.
DELETE FROM webhook_secrets
WHERE
  webhook_secrets.subscription_id = :subscription_id_1
  AND webhook_secrets.kind = :kind_1
  AND webhook_secrets.expires_at <= :expires_at_1
;

-- subscriptions.secrets.rotate
-- Set the end of the secrets that sign now.
UPDATE webhook_secrets SET expires_at = :expires_at
WHERE
  webhook_secrets.subscription_id = :subscription_id_1
  AND webhook_secrets.kind = :kind_1
  AND (
    webhook_secrets.expires_at IS NULL OR webhook_secrets.expires_at > :expires_at_1
  )
;

-- subscriptions.secrets.rotate
-- Insert the new secret, an array.
INSERT INTO webhook_secrets (
  subscription_id,
  secret,
  created_at,
  expires_at
)
VALUES
  (:subscription_id, :secret, :created_at, :expires_at)
RETURNING webhook_secrets.id INTO :ret_0
;

-- subscriptions.secrets._credentials
-- Its credentials.
SELECT
  webhook_secrets.id,
  webhook_secrets.kind,
  webhook_secrets.secret
FROM webhook_secrets
WHERE
  webhook_secrets.subscription_id = :subscription_id_1
  AND webhook_secrets.kind IN (:kind_1_1, :kind_1_2, :kind_1_3, :kind_1_4, :kind_1_5)
;

-- subscriptions.secrets.set_credential
-- Insert the new credential.
INSERT INTO webhook_secrets (
  subscription_id,
  secret,
  created_at,
  kind
)
VALUES
  (:subscription_id, :secret, :created_at, :kind)
RETURNING webhook_secrets.id INTO :ret_0
;

-- subscriptions.secrets._delete
-- Delete the ones that it replaces.
DELETE FROM webhook_secrets
WHERE
  webhook_secrets.id IN (:id_1_1)
;

-- subscriptions.secrets.entries
-- Its secrets, without their text.
SELECT
  webhook_secrets.id,
  webhook_secrets.kind,
  webhook_secrets.created_at,
  webhook_secrets.expires_at
FROM webhook_secrets
WHERE
  webhook_secrets.subscription_id = :subscription_id_1
ORDER BY
  webhook_secrets.created_at DESC,
  webhook_secrets.id DESC
;

-- subscriptions.secrets.made_at
-- Its signing secrets without an end, to find the one that a request has created.
SELECT
  webhook_secrets.secret,
  webhook_secrets.created_at
FROM webhook_secrets
WHERE
  webhook_secrets.subscription_id = :subscription_id_1
  AND webhook_secrets.kind = :kind_1
  AND webhook_secrets.expires_at IS NULL
;

-- subscriptions.secrets.public_keys
-- The next signing secrets, for their public keys.
SELECT
  anon_1.id,
  anon_1.subscription_id,
  anon_1.secret
FROM (
  SELECT
    webhook_secrets.id AS id,
    webhook_secrets.subscription_id AS subscription_id,
    webhook_secrets.secret AS secret
  FROM webhook_secrets
  WHERE
    webhook_secrets.id > :id_1
    AND webhook_secrets.kind = :kind_1
    AND (
      webhook_secrets.expires_at IS NULL OR webhook_secrets.expires_at > :expires_at_1
    )
  ORDER BY
    webhook_secrets.id
) anon_1
WHERE
  ROWNUM <= 10
;

-- subscriptions.secrets.public_keys
-- The same, of a tenant.
SELECT
  anon_1.id,
  anon_1.subscription_id,
  anon_1.secret
FROM (
  SELECT
    webhook_secrets.id AS id,
    webhook_secrets.subscription_id AS subscription_id,
    webhook_secrets.secret AS secret
  FROM webhook_secrets
  JOIN webhook_subscriptions
    ON webhook_subscriptions.id = webhook_secrets.subscription_id
  WHERE
    webhook_secrets.id > :id_1
    AND webhook_secrets.kind = :kind_1
    AND (
      webhook_secrets.expires_at IS NULL OR webhook_secrets.expires_at > :expires_at_1
    )
    AND webhook_subscriptions.tenant = :tenant_1
  ORDER BY
    webhook_secrets.id
) anon_1
WHERE
  ROWNUM <= 10
;

-- subscriptions.secrets.public_keys
-- The same, of a subscription.
SELECT
  anon_1.id,
  anon_1.subscription_id,
  anon_1.secret
FROM (
  SELECT
    webhook_secrets.id AS id,
    webhook_secrets.subscription_id AS subscription_id,
    webhook_secrets.secret AS secret
  FROM webhook_secrets
  WHERE
    webhook_secrets.id > :id_1
    AND webhook_secrets.kind = :kind_1
    AND (
      webhook_secrets.expires_at IS NULL OR webhook_secrets.expires_at > :expires_at_1
    )
    AND webhook_secrets.subscription_id = :subscription_id_1
  ORDER BY
    webhook_secrets.id
) anon_1
WHERE
  ROWNUM <= 10
;

-- subscriptions.secrets.public_keys
-- The same, of a subscription if it is of a tenant.
SELECT
  anon_1.id,
  anon_1.subscription_id,
  anon_1.secret
FROM (
  SELECT
    webhook_secrets.id AS id,
    webhook_secrets.subscription_id AS subscription_id,
    webhook_secrets.secret AS secret
  FROM webhook_secrets
  JOIN webhook_subscriptions
    ON webhook_subscriptions.id = webhook_secrets.subscription_id
  WHERE
    webhook_secrets.id > :id_1
    AND webhook_secrets.kind = :kind_1
    AND (
      webhook_secrets.expires_at IS NULL OR webhook_secrets.expires_at > :expires_at_1
    )
    AND webhook_subscriptions.tenant = :tenant_1
    AND webhook_secrets.subscription_id = :subscription_id_1
  ORDER BY
    webhook_secrets.id
) anon_1
WHERE
  ROWNUM <= 10
;

-- subscriptions.secrets.remove_secret
-- Remove one of them.
DELETE FROM webhook_secrets
WHERE
  webhook_secrets.id = :id_1
  AND webhook_secrets.subscription_id = :subscription_id_1
;

-- subscriptions.secrets.count
-- The number of secrets to encrypt anew.
SELECT
  COUNT(*) AS count_1
FROM webhook_secrets
;

-- subscriptions.secrets.pages
-- All secrets, a page at a time.
SELECT
  anon_1.id,
  anon_1.subscription_id,
  anon_1.kind,
  anon_1.secret,
  anon_1.expires_at
FROM (
  SELECT
    webhook_secrets.id AS id,
    webhook_secrets.subscription_id AS subscription_id,
    webhook_secrets.kind AS kind,
    webhook_secrets.secret AS secret,
    webhook_secrets.expires_at AS expires_at
  FROM webhook_secrets
  WHERE
    webhook_secrets.id > :id_1
  ORDER BY
    webhook_secrets.id
) anon_1
WHERE
  ROWNUM <= 200
;

-- subscriptions.secrets.pages
-- All certificates, a page at a time, for expiry dates and for keys to encrypt.
SELECT
  anon_1.subscription_id,
  anon_1.certificate,
  anon_1.private_key,
  anon_1.authorities
FROM (
  SELECT
    webhook_tls.subscription_id AS subscription_id,
    webhook_tls.certificate AS certificate,
    webhook_tls.private_key AS private_key,
    webhook_tls.authorities AS authorities
  FROM webhook_tls
  WHERE
    webhook_tls.subscription_id > :subscription_id_1
  ORDER BY
    webhook_tls.subscription_id
) anon_1
WHERE
  ROWNUM <= 100
;

-- subscriptions.secrets.reencrypt
-- Encrypt them anew if they are unchanged, an array.
UPDATE webhook_secrets SET secret = (
  :b_secret_0 || :b_secret_1 || :b_secret_2 || :b_secret_3
)
WHERE
  webhook_secrets.id = :b_id
  AND webhook_secrets.secret = (
    :b_before_0 || :b_before_1 || :b_before_2 || :b_before_3
  )
;

-- subscriptions.tls.stored
-- Workers: the certificates of subscriptions that have some, after the look-up.
SELECT
  webhook_tls.subscription_id,
  webhook_tls.certificate,
  webhook_tls.private_key,
  webhook_tls.authorities
FROM webhook_tls
WHERE
  webhook_tls.subscription_id IN (:subscription_id_1_1)
;

-- subscriptions.tls.set_tls
-- Its certificates, because parts that are not given stay.
SELECT
  webhook_tls.subscription_id,
  webhook_tls.certificate,
  webhook_tls.private_key,
  webhook_tls.authorities
FROM webhook_tls
WHERE
  webhook_tls.subscription_id = :subscription_id_1
;

-- subscriptions.tls.set_tls
-- Insert its first certificates.
INSERT INTO webhook_tls (
  subscription_id,
  certificate,
  private_key,
  authorities,
  created_at
)
VALUES
  (:subscription_id, :certificate, :private_key, :authorities, :created_at)
;

-- subscriptions.tls.set_tls
-- Replace its certificates.
UPDATE webhook_tls SET certificate = :certificate, private_key = :private_key, authorities = :authorities, created_at = :created_at
WHERE
  webhook_tls.subscription_id = :subscription_id_1
;

-- subscriptions.tls.remove_tls
-- Remove them.
DELETE FROM webhook_tls
WHERE
  webhook_tls.subscription_id = :subscription_id_1
;

-- subscriptions.tls.count
-- The number of private keys to encrypt anew.
SELECT
  COUNT(*) AS count_1
FROM webhook_tls
;

-- subscriptions.tls._replace_key
-- Lock a key: is it unchanged?
SELECT
  webhook_tls.private_key
FROM webhook_tls
WHERE
  webhook_tls.subscription_id = :subscription_id_1   FOR UPDATE
;

-- subscriptions.tls._replace_key
-- Encrypt it anew.
UPDATE webhook_tls SET private_key = :private_key
WHERE
  webhook_tls.subscription_id = :subscription_id_1
;
