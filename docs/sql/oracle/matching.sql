-- matching.catalog.find_endpoints
-- Who subscribed to these types, with the secrets that sign. Workers, hot.
SELECT
  webhook_subscriptions.event_type,
  webhook_subscriptions.id AS subscription_id,
  webhook_subscriptions.url,
  webhook_subscriptions.ordering,
  webhook_subscriptions.max_in_flight,
  webhook_subscriptions.rate_limit,
  SYS_EXTRACT_UTC(webhook_subscriptions.failing_since) AS failing_since,
  webhook_subscriptions.payload_format,
  webhook_subscriptions.batch_size,
  webhook_subscriptions.batch_wait_ms,
  webhook_subscriptions.retry_schedule,
  webhook_subscriptions.final_statuses,
  webhook_subscriptions.topics,
  webhook_subscriptions.event_filter,
  webhook_subscriptions.timeout_seconds,
  webhook_subscriptions.projection,
  webhook_subscriptions.signature_header,
  webhook_subscriptions.signature_prefix,
  webhook_subscriptions.custom_headers,
  webhook_secrets.kind,
  webhook_secrets.secret,
  SYS_EXTRACT_UTC(webhook_secrets.expires_at) AS expires_at
FROM webhook_subscriptions
LEFT OUTER JOIN webhook_secrets
  ON webhook_secrets.subscription_id = webhook_subscriptions.id
WHERE
  webhook_subscriptions.event_type IN (:event_type_1_1, :event_type_1_2)
  AND webhook_subscriptions.enabled = :enabled_1
ORDER BY
  webhook_subscriptions.id,
  webhook_secrets.created_at DESC,
  webhook_secrets.id DESC
;

-- matching.subscriptions.add
-- A subscription.
INSERT INTO webhook_subscriptions (
  url,
  event_type,
  ordering,
  max_in_flight,
  rate_limit,
  retry_schedule,
  final_statuses
)
VALUES
  (
    :url,
    :event_type,
    :ordering,
    :max_in_flight,
    :rate_limit,
    :retry_schedule,
    :final_statuses
  )
RETURNING webhook_subscriptions.id INTO :ret_0
;

-- matching.subscriptions.add
-- A secret of its own.
INSERT INTO webhook_secrets (
  subscription_id,
  secret
)
VALUES
  (:subscription_id, :secret)
RETURNING webhook_secrets.id INTO :ret_0
;

-- matching.subscriptions.list_all
-- All, for people.
SELECT
  webhook_subscriptions.id,
  webhook_subscriptions.url,
  webhook_subscriptions.event_type,
  webhook_subscriptions.enabled,
  webhook_subscriptions.disabled_reason,
  webhook_subscriptions.created_at,
  webhook_subscriptions.ordering,
  webhook_subscriptions.max_in_flight,
  webhook_subscriptions.rate_limit,
  webhook_subscriptions.retry_schedule,
  webhook_subscriptions.final_statuses,
  SYS_EXTRACT_UTC(webhook_subscriptions.failing_since) AS failing_since,
  owned."number"
FROM webhook_subscriptions
LEFT OUTER JOIN (
  SELECT
    webhook_secrets.subscription_id AS subscription_id,
    COUNT(*) AS "number"
  FROM webhook_secrets
  GROUP BY
    webhook_secrets.subscription_id
) owned
  ON owned.subscription_id = webhook_subscriptions.id
ORDER BY
  webhook_subscriptions.id
;

-- matching.subscriptions.get
-- One, for people.
SELECT
  webhook_subscriptions.id,
  webhook_subscriptions.url,
  webhook_subscriptions.event_type,
  webhook_subscriptions.enabled,
  webhook_subscriptions.disabled_reason,
  webhook_subscriptions.created_at,
  webhook_subscriptions.ordering,
  webhook_subscriptions.max_in_flight,
  webhook_subscriptions.rate_limit,
  webhook_subscriptions.retry_schedule,
  webhook_subscriptions.final_statuses,
  SYS_EXTRACT_UTC(webhook_subscriptions.failing_since) AS failing_since,
  owned."number"
FROM webhook_subscriptions
LEFT OUTER JOIN (
  SELECT
    webhook_secrets.subscription_id AS subscription_id,
    COUNT(*) AS "number"
  FROM webhook_secrets
  GROUP BY
    webhook_secrets.subscription_id
) owned
  ON owned.subscription_id = webhook_subscriptions.id
WHERE
  webhook_subscriptions.id = :id_1
;

-- matching.subscriptions.set_enabled
-- Disable it.
UPDATE webhook_subscriptions SET enabled = :enabled, disabled_reason = :disabled_reason
WHERE
  webhook_subscriptions.id = :id_1
;

-- matching.subscriptions.set_enabled
-- Enable it.
UPDATE webhook_subscriptions SET enabled = :enabled, disabled_reason = :disabled_reason, failing_since = :failing_since
WHERE
  webhook_subscriptions.id = :id_1
;

-- matching.subscriptions.remove
-- Remove it; its secrets go with it.
DELETE FROM webhook_subscriptions
WHERE
  webhook_subscriptions.id = :id_1
;
