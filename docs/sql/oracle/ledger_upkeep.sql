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

-- ledger.upkeep._in_batches
-- Rows of one disabled subscription, to be held.
SELECT
  webhook_deliveries.id,
  webhook_deliveries.group_id,
  webhook_deliveries.subscription_id,
  webhook_deliveries.topic,
  webhook_deliveries.partition_no,
  webhook_deliveries.order_key
FROM webhook_deliveries
WHERE
  webhook_deliveries.subscription_id IN (
    SELECT
      webhook_subscriptions.id
    FROM webhook_subscriptions
    WHERE
      webhook_subscriptions.id = :id_1 AND webhook_subscriptions.enabled = :enabled_1
  )
  AND webhook_deliveries.status = :status_1
FETCH FIRST 1000 ROWS ONLY
;

-- ledger.upkeep._in_batches
-- Hold them, an array.
UPDATE webhook_deliveries SET status = :status, updated_at = CURRENT_TIMESTAMP
WHERE
  webhook_deliveries.id = :b_id AND webhook_deliveries.status = :status_1
;

-- ledger.upkeep._in_batches
-- Parked rows of all disabled subscriptions, and, with other binds, held rows of those that are enabled.
SELECT
  webhook_deliveries.id,
  webhook_deliveries.group_id,
  webhook_deliveries.subscription_id,
  webhook_deliveries.topic,
  webhook_deliveries.partition_no,
  webhook_deliveries.order_key
FROM webhook_deliveries
WHERE
  webhook_deliveries.subscription_id IN (
    SELECT
      seen.subscription_id
    FROM (
      SELECT DISTINCT
        webhook_deliveries.subscription_id AS subscription_id
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.status = :status_1
    ) seen
    WHERE
      EXISTS(
        SELECT
          *
        FROM webhook_subscriptions
        WHERE
          webhook_subscriptions.id = seen.subscription_id
          AND webhook_subscriptions.enabled = :enabled_1
      )
  )
  AND webhook_deliveries.status = :status_2
FETCH FIRST 1000 ROWS ONLY
;

-- ledger.upkeep._in_batches
-- Rows of subscriptions that are no more.
SELECT
  webhook_deliveries.id,
  webhook_deliveries.group_id,
  webhook_deliveries.subscription_id,
  webhook_deliveries.topic,
  webhook_deliveries.partition_no,
  webhook_deliveries.order_key
FROM webhook_deliveries
WHERE
  webhook_deliveries.subscription_id IN (
    SELECT
      seen.subscription_id
    FROM (
      SELECT DISTINCT
        webhook_deliveries.subscription_id AS subscription_id
      FROM webhook_deliveries
    ) seen
    WHERE
      NOT (
        EXISTS(
          SELECT
            *
          FROM webhook_subscriptions
          WHERE
            webhook_subscriptions.id = seen.subscription_id
        )
      )
  )
  AND webhook_deliveries.status IN (:status_1_1, :status_1_2, :status_1_3)
FETCH FIRST 1000 ROWS ONLY
;

-- ledger.upkeep._in_batches
-- What was held is due, an array.
UPDATE webhook_deliveries SET status = :status, next_attempt_at = :b_now, updated_at = CURRENT_TIMESTAMP
WHERE
  webhook_deliveries.id = :b_id AND webhook_deliveries.status = :status_1
;

-- ledger.upkeep._in_batches
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

-- ledger.upkeep.counts
-- How many rows are in each state, for a gauge.
SELECT
  webhook_deliveries.status,
  COUNT(*) AS "number"
FROM webhook_deliveries
WHERE
  webhook_deliveries.group_id = :group_id_1
GROUP BY
  webhook_deliveries.status
;

-- ledger.upkeep.ended_before
-- `purge`: the last id.
SELECT
  MAX(webhook_deliveries.id) AS max_1
FROM webhook_deliveries
;

-- ledger.upkeep.ended_before
-- The next id: rows are gone through by the primary key.
SELECT
  MIN(webhook_deliveries.id) AS min_1
FROM webhook_deliveries
WHERE
  webhook_deliveries.id > :id_1 AND webhook_deliveries.id <= :id_2
;

-- ledger.upkeep.ended_before
-- Rows that have ended long ago.
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
  webhook_deliveries.id BETWEEN :id_1 AND :id_2
  AND webhook_deliveries.status IN (:status_1_1, :status_1_2)
  AND SYS_EXTRACT_UTC(webhook_deliveries.updated_at) < :param_1
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
