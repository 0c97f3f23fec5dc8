-- ledger.upkeep.disable
-- A subscription is disabled: a 410, or failures for days.
-- Of the conditions, those that were asked for.
UPDATE webhook_subscriptions SET enabled = :enabled, disabled_reason = :disabled_reason, failing_since = :failing_since
WHERE
  webhook_subscriptions.id = :id_1
  AND webhook_subscriptions.enabled = :enabled_1
  AND webhook_subscriptions.url = :url_1
  AND SYS_EXTRACT_UTC(webhook_subscriptions.failing_since) <= :param_1
;

-- ledger.upkeep.failing
-- A subscription fails from now on.
UPDATE webhook_subscriptions SET failing_since = :failing_since
WHERE
  webhook_subscriptions.id = :id_1
  AND webhook_subscriptions.enabled = :enabled_1
  AND webhook_subscriptions.failing_since IS NULL
;

-- ledger.upkeep.recovered
-- It does no more.
UPDATE webhook_subscriptions SET failing_since = :failing_since
WHERE
  webhook_subscriptions.id = :id_1
  AND webhook_subscriptions.failing_since IS NOT NULL
;

-- ledger.upkeep.slow
-- Its filter or projection is left out until then.
UPDATE webhook_subscriptions SET slow_until = :slow_until
WHERE
  webhook_subscriptions.id = :id_1
;

-- ledger.upkeep._seen
-- The next subscription that has rows.
SELECT
  MIN(webhook_deliveries.subscription_id) AS min_1
FROM webhook_deliveries
WHERE
  webhook_deliveries.subscription_id > :subscription_id_1
;

-- ledger.upkeep._enabled
-- Which of these subscriptions are there, and enabled?
SELECT
  webhook_subscriptions.id,
  webhook_subscriptions.enabled
FROM webhook_subscriptions
WHERE
  webhook_subscriptions.id IN (:id_1_1)
;

-- ledger.upkeep._follow
-- Of some subscriptions, disabled, enabled or removed, what has not followed them.
SELECT
  webhook_deliveries.id,
  webhook_deliveries.group_id,
  webhook_deliveries.subscription_id,
  webhook_deliveries.topic,
  webhook_deliveries.partition_no,
  webhook_deliveries.order_key
FROM webhook_deliveries
WHERE
  webhook_deliveries.subscription_id IN (:subscription_id_1_1)
  AND webhook_deliveries.status IN (:status_1_1)
FETCH FIRST 1000 ROWS ONLY
;

-- ledger.upkeep._follow
-- Hold them, an array.
UPDATE webhook_deliveries SET status = :status, updated_at = CURRENT_TIMESTAMP
WHERE
  webhook_deliveries.id = :b_id AND webhook_deliveries.status = :status_1
;

-- ledger.upkeep._follow
-- What was held is due, an array.
UPDATE webhook_deliveries SET status = :status, next_attempt_at = :b_now, updated_at = CURRENT_TIMESTAMP
WHERE
  webhook_deliveries.id = :b_id AND webhook_deliveries.status = :status_1
;

-- ledger.upkeep._follow
-- What nobody can get is given up, an array.
UPDATE webhook_deliveries SET status = :status, next_attempt_at = :next_attempt_at, last_error = :last_error, updated_at = CURRENT_TIMESTAMP
WHERE
  webhook_deliveries.id = :b_id
  AND (
    webhook_deliveries.status = :status_1
    OR webhook_deliveries.status = :status_2
    OR webhook_deliveries.status = :status_3
  )
;

-- ledger.upkeep.prune
-- Delivered rows below the committed offset.
SELECT
  webhook_deliveries.id,
  webhook_deliveries.topic,
  webhook_deliveries.partition_no,
  webhook_deliveries.record_offset,
  webhook_deliveries.record_ts
FROM webhook_deliveries
WHERE
  webhook_deliveries.group_id = :group_id_1
  AND webhook_deliveries.status = :status_1
  AND webhook_deliveries.topic = :topic_1
  AND webhook_deliveries.partition_no = :partition_no_1
  AND (
    webhook_deliveries.record_offset < :record_offset_1
    OR webhook_deliveries.replay != :replay_1
  )
FETCH FIRST 1000 ROWS ONLY
;

-- ledger.upkeep.prune
-- Delete them, an array.
DELETE FROM webhook_deliveries
WHERE
  webhook_deliveries.id = :b_id AND webhook_deliveries.status = :status_1
;

-- ledger.upkeep.drop_payloads
-- Delete payloads that nothing refers to any more, an array.
DELETE FROM webhook_payloads
WHERE
  webhook_payloads.group_id = :b_group_id
  AND webhook_payloads.topic = :b_topic
  AND webhook_payloads.partition_no = :b_partition_no
  AND webhook_payloads.record_offset = :b_record_offset
  AND webhook_payloads.record_ts = :b_record_ts
  AND NOT (
    EXISTS(
      SELECT
        *
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.group_id = :b_group_id
        AND webhook_deliveries.topic = :b_topic
        AND webhook_deliveries.partition_no = :b_partition_no
        AND webhook_deliveries.record_offset = :b_record_offset
        AND webhook_deliveries.record_ts = :b_record_ts
    )
  )
;

-- ledger.marks._delete
-- Are there decisions below the committed offset?
SELECT
  webhook_marks.topic
FROM webhook_marks
WHERE
  webhook_marks.group_id = :group_id_1
  AND webhook_marks.topic = :topic_1
  AND webhook_marks.partition_no = :partition_no_1
  AND webhook_marks.record_offset > :record_offset_1
  AND webhook_marks.record_offset < :record_offset_2
FETCH FIRST 1 ROWS ONLY
;

-- ledger.marks._delete
-- Forget them.
DELETE FROM webhook_marks
WHERE
  webhook_marks.group_id = :group_id_1
  AND webhook_marks.topic = :topic_1
  AND webhook_marks.partition_no = :partition_no_1
  AND webhook_marks.record_offset > :record_offset_1
  AND webhook_marks.record_offset < :record_offset_2
;

-- ledger.marks._delete
-- Is anything that is asked a week old?
SELECT
  webhook_marks.topic
FROM webhook_marks
WHERE
  webhook_marks.group_id = :group_id_1
  AND SYS_EXTRACT_UTC(webhook_marks.marked_at) < :param_1
FETCH FIRST 1 ROWS ONLY
;

-- ledger.marks._delete
-- Forget it.
DELETE FROM webhook_marks
WHERE
  webhook_marks.group_id = :group_id_1
  AND SYS_EXTRACT_UTC(webhook_marks.marked_at) < :param_1
;

-- ledger.upkeep.waiting
-- How many rows of a partition wait, for a gauge.
SELECT
  COUNT(*) AS count_1
FROM webhook_deliveries
WHERE
  webhook_deliveries.group_id = :group_id_1
  AND webhook_deliveries.status IN (:status_1_1, :status_1_2)
  AND webhook_deliveries.topic = :topic_1
  AND webhook_deliveries.partition_no = :partition_no_1
;

-- ledger.upkeep.by_id
-- What commands say or do of any rows: the last id. They are gone through by the primary key.
-- Of the conditions, those that were asked for.
SELECT
  MAX(webhook_deliveries.id) AS max_1
FROM webhook_deliveries
;

-- ledger.upkeep.by_id
-- The next id.
-- Of the conditions, those that were asked for.
SELECT
  MIN(webhook_deliveries.id) AS min_1
FROM webhook_deliveries
WHERE
  webhook_deliveries.id > :id_1 AND webhook_deliveries.id <= :id_2
;

-- ledger.upkeep.by_id
-- `redeliver`, `adopt`: those of a step.
-- Of the conditions, those that were asked for.
SELECT
  webhook_deliveries.id
FROM webhook_deliveries
WHERE
  CASE WHEN (
    webhook_deliveries.group_id = :group_id_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.status IN (:status_1_1, :status_1_2)
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.subscription_id = :subscription_id_1
  ) THEN 1 END = 1
  AND CASE
    WHEN (
      SYS_EXTRACT_UTC(webhook_deliveries.updated_at) >= :param_1
    )
    THEN 1
  END = 1
  AND CASE
    WHEN (
      SYS_EXTRACT_UTC(webhook_deliveries.updated_at) < :param_2
    )
    THEN 1
  END = 1
  AND webhook_deliveries.id BETWEEN :id_1 AND :id_2
ORDER BY
  webhook_deliveries.id
;

-- ledger.upkeep.by_id
-- Of an event type.
-- Of the conditions, those that were asked for.
SELECT
  webhook_deliveries.id
FROM webhook_deliveries
JOIN webhook_payloads
  ON webhook_payloads.group_id = webhook_deliveries.group_id
  AND webhook_payloads.topic = webhook_deliveries.topic
  AND webhook_payloads.partition_no = webhook_deliveries.partition_no
  AND webhook_payloads.record_offset = webhook_deliveries.record_offset
  AND webhook_payloads.record_ts = webhook_deliveries.record_ts
WHERE
  CASE WHEN (
    webhook_payloads.event_type = :event_type_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.group_id = :group_id_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.status IN (:status_1_1, :status_1_2)
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.subscription_id = :subscription_id_1
  ) THEN 1 END = 1
  AND CASE
    WHEN (
      SYS_EXTRACT_UTC(webhook_deliveries.updated_at) >= :param_1
    )
    THEN 1
  END = 1
  AND CASE
    WHEN (
      SYS_EXTRACT_UTC(webhook_deliveries.updated_at) < :param_2
    )
    THEN 1
  END = 1
  AND webhook_deliveries.id BETWEEN :id_1 AND :id_2
ORDER BY
  webhook_deliveries.id
;

-- ledger.upkeep.by_id
-- Of a topic and a tenant.
-- Of the conditions, those that were asked for.
SELECT
  webhook_deliveries.id
FROM webhook_deliveries
WHERE
  CASE WHEN (
    webhook_deliveries.group_id = :group_id_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.status IN (:status_1_1, :status_1_2)
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.subscription_id = :subscription_id_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.topic = :topic_1
  ) THEN 1 END = 1
  AND CASE
    WHEN (
      EXISTS(
        SELECT
          *
        FROM webhook_subscriptions webhook_subscriptions_1
        WHERE
          webhook_subscriptions_1.id = webhook_deliveries.subscription_id
          AND webhook_subscriptions_1.tenant = :tenant_1
      )
    )
    THEN 1
  END = 1
  AND CASE
    WHEN (
      SYS_EXTRACT_UTC(webhook_deliveries.updated_at) >= :param_1
    )
    THEN 1
  END = 1
  AND CASE
    WHEN (
      SYS_EXTRACT_UTC(webhook_deliveries.updated_at) < :param_2
    )
    THEN 1
  END = 1
  AND webhook_deliveries.id BETWEEN :id_1 AND :id_2
ORDER BY
  webhook_deliveries.id
;

-- ledger.upkeep.by_id
-- Of an event type, a topic and a tenant.
-- Of the conditions, those that were asked for.
SELECT
  webhook_deliveries.id
FROM webhook_deliveries
JOIN webhook_payloads
  ON webhook_payloads.group_id = webhook_deliveries.group_id
  AND webhook_payloads.topic = webhook_deliveries.topic
  AND webhook_payloads.partition_no = webhook_deliveries.partition_no
  AND webhook_payloads.record_offset = webhook_deliveries.record_offset
  AND webhook_payloads.record_ts = webhook_deliveries.record_ts
WHERE
  CASE WHEN (
    webhook_payloads.event_type = :event_type_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.group_id = :group_id_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.status IN (:status_1_1, :status_1_2)
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.subscription_id = :subscription_id_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.topic = :topic_1
  ) THEN 1 END = 1
  AND CASE
    WHEN (
      EXISTS(
        SELECT
          *
        FROM webhook_subscriptions webhook_subscriptions_1
        WHERE
          webhook_subscriptions_1.id = webhook_deliveries.subscription_id
          AND webhook_subscriptions_1.tenant = :tenant_1
      )
    )
    THEN 1
  END = 1
  AND CASE
    WHEN (
      SYS_EXTRACT_UTC(webhook_deliveries.updated_at) >= :param_1
    )
    THEN 1
  END = 1
  AND CASE
    WHEN (
      SYS_EXTRACT_UTC(webhook_deliveries.updated_at) < :param_2
    )
    THEN 1
  END = 1
  AND webhook_deliveries.id BETWEEN :id_1 AND :id_2
ORDER BY
  webhook_deliveries.id
;

-- ledger.upkeep.by_id
-- A replay: when those of a step are due.
-- Of the conditions, those that were asked for.
SELECT
  webhook_deliveries.status,
  COUNT(*) AS "number"
FROM webhook_deliveries
WHERE
  CASE WHEN (
    webhook_deliveries.replay = :replay_1
  ) THEN 1 END = 1
  AND webhook_deliveries.id BETWEEN :id_1 AND :id_2
GROUP BY
  webhook_deliveries.status
;

-- ledger.upkeep.by_id
-- The same: how many of a step are in which state.
-- Of the conditions, those that were asked for.
SELECT
  SYS_EXTRACT_UTC(webhook_deliveries.next_attempt_at) AS next_attempt_at
FROM webhook_deliveries
WHERE
  CASE WHEN (
    webhook_deliveries.replay = :replay_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.status = :status_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.attempt = :attempt_1
  ) THEN 1 END = 1
  AND webhook_deliveries.id BETWEEN :id_1 AND :id_2
;

-- ledger.upkeep.by_id
-- `purge`: those of a step that have ended long ago.
-- Of the conditions, those that were asked for.
SELECT
  webhook_deliveries.id,
  webhook_deliveries.status,
  webhook_deliveries.group_id,
  webhook_deliveries.topic,
  webhook_deliveries.partition_no,
  webhook_deliveries.record_offset,
  webhook_deliveries.record_ts
FROM webhook_deliveries
WHERE
  CASE WHEN (
    webhook_deliveries.status IN (:status_1_1, :status_1_2)
  ) THEN 1 END = 1
  AND CASE
    WHEN (
      SYS_EXTRACT_UTC(webhook_deliveries.updated_at) < :param_1
    )
    THEN 1
  END = 1
  AND webhook_deliveries.id BETWEEN :id_1 AND :id_2
ORDER BY
  webhook_deliveries.id
;

-- ledger.upkeep._purge
-- Delete them, an array.
DELETE FROM webhook_deliveries
WHERE
  webhook_deliveries.status = :b_status AND webhook_deliveries.id = :b_id
;

-- ledger.upkeep.purge_replays
-- Delete replays that ended long ago.
DELETE FROM webhook_replays
WHERE
  SYS_EXTRACT_UTC(webhook_replays.finished_at) < :param_1
;

-- ledger.upkeep.replays_finished_before
-- How many that would be.
SELECT
  COUNT(*) AS count_1
FROM webhook_replays
WHERE
  SYS_EXTRACT_UTC(webhook_replays.finished_at) < :param_1
;
