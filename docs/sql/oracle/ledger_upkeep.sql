-- ledger.upkeep.disable
-- Disable a subscription, after a 410.
-- A call has only the requested conditions.
UPDATE webhook_subscriptions SET enabled = :enabled, disabled_reason = :disabled_reason, failing_since = :failing_since
WHERE
  webhook_subscriptions.id = :id_1
  AND webhook_subscriptions.enabled = :enabled_1
  AND webhook_subscriptions.url = (
    :url_0_1 || :url_1_1 || :url_2_1
  )
;

-- ledger.upkeep.failing
-- A subscription has begun to fail.
UPDATE webhook_subscriptions SET failing_since = :failing_since
WHERE
  webhook_subscriptions.id = :id_1
  AND webhook_subscriptions.enabled = :enabled_1
  AND webhook_subscriptions.paused_at IS NULL
  AND webhook_subscriptions.failing_since IS NULL
;

-- ledger.upkeep.recovered
-- A subscription has recovered.
UPDATE webhook_subscriptions SET failing_since = :failing_since
WHERE
  webhook_subscriptions.id = :id_1
  AND webhook_subscriptions.failing_since IS NOT NULL
;

-- ledger.upkeep._enabled
-- Which of these subscriptions exist, and which are enabled?
SELECT
  webhook_subscriptions.id,
  webhook_subscriptions.enabled,
  webhook_subscriptions.paused_at
FROM webhook_subscriptions
WHERE
  webhook_subscriptions.id IN (:id_1_1)
;

-- ledger.upkeep._follow
-- Rows that have not followed subscriptions that were disabled, enabled or removed.
SELECT
  anon_1.id,
  anon_1.group_id,
  anon_1.subscription_id,
  anon_1.topic,
  anon_1.partition_no,
  anon_1.order_key
FROM (
  SELECT
    webhook_deliveries.id AS id,
    webhook_deliveries.group_id AS group_id,
    webhook_deliveries.subscription_id AS subscription_id,
    webhook_deliveries.topic AS topic,
    webhook_deliveries.partition_no AS partition_no,
    webhook_deliveries.order_key AS order_key
  FROM webhook_deliveries
  WHERE
    webhook_deliveries.subscription_id IN (:subscription_id_1_1)
    AND webhook_deliveries.status IN (:status_1_1)
) anon_1
WHERE
  ROWNUM <= 1000
;

-- ledger.upkeep._follow
-- Hold rows, an array.
UPDATE webhook_deliveries SET status = :status, updated_at = SYS_EXTRACT_UTC(SYSTIMESTAMP)
WHERE
  webhook_deliveries.id = :b_id AND webhook_deliveries.status = :status_1
;

-- ledger.upkeep._follow
-- Resume held rows, an array.
UPDATE webhook_deliveries SET status = :status, next_attempt_at = :b_now, updated_at = SYS_EXTRACT_UTC(SYSTIMESTAMP)
WHERE
  webhook_deliveries.id = :b_id AND webhook_deliveries.status = :status_1
;

-- ledger.upkeep._follow
-- Exhaust rows of removed subscriptions, an array.
UPDATE webhook_deliveries SET status = :status, next_attempt_at = :next_attempt_at, last_error = :last_error, updated_at = SYS_EXTRACT_UTC(SYSTIMESTAMP), unpublished_by = webhook_deliveries.group_id
WHERE
  webhook_deliveries.id = :b_id
  AND (
    webhook_deliveries.status = :status_1
    OR webhook_deliveries.status = :status_2
    OR webhook_deliveries.status = :status_3
  )
;

-- ledger.backlogs.look_at
-- The due keys of a subscription's cursors.
SELECT DISTINCT
  webhook_cursors.group_id,
  webhook_cursors.topic,
  webhook_cursors.partition_no,
  webhook_cursors.subscription_id
FROM webhook_cursors
WHERE
  webhook_cursors.subscription_id = :subscription_id_1
  AND (
    webhook_cursors.end_offset IS NULL
    OR webhook_cursors.end_offset > webhook_cursors.next_offset
  )
;

-- ledger.pauses.pause
-- Pause a subscription, after days of failures.
UPDATE webhook_subscriptions SET paused_at = :paused_at, paused_reason = :paused_reason, probed_at = :probed_at, failing_since = :failing_since
WHERE
  webhook_subscriptions.id = :id_1
  AND webhook_subscriptions.enabled = :enabled_1
  AND webhook_subscriptions.paused_at IS NULL
  AND webhook_subscriptions.failing_since <= :failing_since_1
  AND webhook_subscriptions.url = (
    :url_0_1 || :url_1_1 || :url_2_1
  )
;

-- ledger.pauses.claim
-- Paused subscriptions that are to be probed.
SELECT
  anon_1.id,
  anon_1.paused_at,
  anon_1.probed_at
FROM (
  SELECT
    webhook_subscriptions.id AS id,
    webhook_subscriptions.paused_at AS paused_at,
    webhook_subscriptions.probed_at AS probed_at
  FROM webhook_subscriptions
  WHERE
    webhook_subscriptions.probed_at <= :probed_at_1
    AND webhook_subscriptions.probed_at >= webhook_subscriptions.paused_at
    AND webhook_subscriptions.enabled = :enabled_1
    AND webhook_subscriptions.id + :id_1 > :param_1
  ORDER BY
    webhook_subscriptions.id + :id_1
) anon_1
WHERE
  ROWNUM <= 17
;

-- ledger.pauses.claim
-- Claim a probe.
UPDATE webhook_subscriptions SET probed_at = :probed_at
WHERE
  webhook_subscriptions.id = :id_1
  AND webhook_subscriptions.paused_at = :paused_at_1
  AND webhook_subscriptions.probed_at = :probed_at_1
;

-- ledger.pauses._owed
-- Which of these subscriptions have rows that may be sent?
SELECT
  webhook_subscriptions.id
FROM webhook_subscriptions
WHERE
  webhook_subscriptions.id IN (:id_1_1)
  AND (
    (
      EXISTS(
        SELECT
          *
        FROM webhook_deliveries
        WHERE
          webhook_deliveries.subscription_id = webhook_subscriptions.id
          AND webhook_deliveries.status = :status_1
      )
    )
    OR (
      EXISTS(
        SELECT
          *
        FROM webhook_deliveries
        WHERE
          webhook_deliveries.subscription_id = webhook_subscriptions.id
          AND webhook_deliveries.status = :status_2
      )
    )
  )
;

-- ledger.pauses._owed
-- Where their cursors are.
SELECT
  webhook_cursors.topic,
  webhook_cursors.partition_no,
  webhook_cursors.subscription_id,
  webhook_cursors.next_offset
FROM webhook_cursors
WHERE
  webhook_cursors.group_id = :group_id_1
  AND webhook_cursors.replay = :replay_1
  AND webhook_cursors.subscription_id IN (:subscription_id_1_1)
  AND (
    webhook_cursors.end_offset IS NULL
    OR webhook_cursors.end_offset > webhook_cursors.next_offset
  )
;

-- ledger.pauses.resume
-- Resume a subscription, after a probe that succeeded.
UPDATE webhook_subscriptions SET paused_at = :paused_at, paused_reason = :paused_reason, probed_at = :probed_at, failing_since = :failing_since
WHERE
  webhook_subscriptions.id = :id_1
  AND webhook_subscriptions.paused_at = :paused_at_1
  AND webhook_subscriptions.probed_at >= webhook_subscriptions.paused_at
;

-- ledger.pauses.count
-- How many subscriptions have failures paused?
SELECT
  COUNT(*) AS count_1
FROM webhook_subscriptions
WHERE
  webhook_subscriptions.probed_at >= :probed_at_1
  AND webhook_subscriptions.probed_at >= webhook_subscriptions.paused_at
  AND webhook_subscriptions.enabled = :enabled_1
;

-- ledger.upkeep.prune
-- Delivered rows below the committed offset.
SELECT
  anon_1.id,
  anon_1.topic,
  anon_1.partition_no,
  anon_1.record_offset,
  anon_1.record_ts
FROM (
  SELECT
    webhook_deliveries.id AS id,
    webhook_deliveries.topic AS topic,
    webhook_deliveries.partition_no AS partition_no,
    webhook_deliveries.record_offset AS record_offset,
    webhook_deliveries.record_ts AS record_ts
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
) anon_1
WHERE
  ROWNUM <= 1000
;

-- ledger.upkeep.prune
-- Delete these rows, an array.
DELETE FROM webhook_deliveries
WHERE
  webhook_deliveries.id = :b_id AND webhook_deliveries.status = :status_1
;

-- ledger.upkeep.drop_payloads
-- Delete payloads without rows, an array.
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
-- Are there marks of refused deliveries below the committed offset?
SELECT
  anon_1.topic
FROM (
  SELECT
    webhook_marks.topic AS topic
  FROM webhook_marks
  WHERE
    webhook_marks.group_id = :group_id_1
    AND webhook_marks.topic = :topic_1
    AND webhook_marks.partition_no = :partition_no_1
    AND webhook_marks.record_offset > :record_offset_1
    AND webhook_marks.record_offset < :record_offset_2
) anon_1
WHERE
  ROWNUM <= 1
;

-- ledger.marks._delete
-- Delete these.
DELETE FROM webhook_marks
WHERE
  webhook_marks.group_id = :group_id_1
  AND webhook_marks.topic = :topic_1
  AND webhook_marks.partition_no = :partition_no_1
  AND webhook_marks.record_offset > :record_offset_1
  AND webhook_marks.record_offset < :record_offset_2
;

-- ledger.marks._delete
-- Are there marks older than a week?
SELECT
  anon_1.topic
FROM (
  SELECT
    webhook_marks.topic AS topic
  FROM webhook_marks
  WHERE
    webhook_marks.group_id = :group_id_1
    AND webhook_marks.marked_at < :marked_at_1
    AND webhook_marks.kind != :kind_1
) anon_1
WHERE
  ROWNUM <= 1
;

-- ledger.marks._delete
-- Delete these marks.
DELETE FROM webhook_marks
WHERE
  webhook_marks.group_id = :group_id_1
  AND webhook_marks.marked_at < :marked_at_1
  AND webhook_marks.kind != :kind_1
;

-- ledger.upkeep.waiting
-- The number of waiting rows of a partition, for a gauge.
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
-- Commands on any rows, in steps by primary key: the last id.
-- A call has only the requested conditions.
SELECT
  MAX(webhook_deliveries.id) AS max_1
FROM webhook_deliveries
;

-- ledger.upkeep.by_id
-- The first id of the next step.
-- A call has only the requested conditions.
SELECT
  MIN(webhook_deliveries.id) AS min_1
FROM webhook_deliveries
WHERE
  webhook_deliveries.id > :id_1 AND webhook_deliveries.id <= :id_2
;

-- ledger.upkeep.by_id
-- `redeliver`, `adopt`: the rows of a step.
-- A call has only the requested conditions.
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
    webhook_deliveries.updated_at >= :updated_at_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.updated_at < :updated_at_2
  ) THEN 1 END = 1
  AND webhook_deliveries.id BETWEEN :id_1 AND :id_2
ORDER BY
  webhook_deliveries.id
;

-- ledger.upkeep.by_id
-- The same, of an event type.
-- A call has only the requested conditions.
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
    webhook_deliveries.group_id = :group_id_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.status IN (:status_1_1, :status_1_2)
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.subscription_id = :subscription_id_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_payloads.event_type = :event_type_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.updated_at >= :updated_at_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.updated_at < :updated_at_2
  ) THEN 1 END = 1
  AND webhook_deliveries.id BETWEEN :id_1 AND :id_2
ORDER BY
  webhook_deliveries.id
;

-- ledger.upkeep.by_id
-- The same, of a topic and a tenant.
-- A call has only the requested conditions.
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
  AND CASE WHEN (
    webhook_payloads.tenant = :tenant_2
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.topic = :topic_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.updated_at >= :updated_at_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.updated_at < :updated_at_2
  ) THEN 1 END = 1
  AND webhook_deliveries.id BETWEEN :id_1 AND :id_2
ORDER BY
  webhook_deliveries.id
;

-- ledger.upkeep.by_id
-- A replay: its rows of a step by state.
-- A call has only the requested conditions.
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
-- A replay: the due times of its rows in a step.
-- A call has only the requested conditions.
SELECT
  webhook_deliveries.next_attempt_at
FROM webhook_deliveries
WHERE
  CASE WHEN (
    webhook_deliveries.replay = :replay_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.status = :status_1
  ) THEN 1 END = 1
  AND webhook_deliveries.id BETWEEN :id_1 AND :id_2
;

-- ledger.upkeep.by_id
-- `purge`: the rows of a step that ended long ago.
-- A call has only the requested conditions.
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
  AND CASE WHEN (
    webhook_deliveries.updated_at < :updated_at_1
  ) THEN 1 END = 1
  AND webhook_deliveries.id BETWEEN :id_1 AND :id_2
ORDER BY
  webhook_deliveries.id
;

-- ledger.upkeep._purge
-- Delete these rows, an array.
DELETE FROM webhook_deliveries
WHERE
  webhook_deliveries.status = :b_status
  AND webhook_deliveries.id = :b_id
  AND webhook_deliveries.updated_at < :b_before
;

-- ledger.given_up.unpublished
-- The leader: rows that the exhausted topic lacks.
SELECT
  anon_1.id
FROM (
  SELECT
    webhook_deliveries.id AS id
  FROM webhook_deliveries
  WHERE
    webhook_deliveries.unpublished_by = :unpublished_by_1
    AND CASE WHEN (
      webhook_deliveries.status = :status_1
    ) THEN 1 END = 1
) anon_1
WHERE
  ROWNUM <= 1
;

-- ledger.upkeep.next_exhausted
-- A pass over exhausted rows: the first id of the next step.
SELECT
  MIN(webhook_deliveries.id) AS min_1
FROM webhook_deliveries
WHERE
  webhook_deliveries.status = :status_1 AND webhook_deliveries.id > :id_1
;

-- ledger.given_up.owe
-- The rows of a step that the exhausted topic lacks, and that do not wait for it.
SELECT
  webhook_deliveries.id
FROM webhook_deliveries
WHERE
  webhook_deliveries.id BETWEEN :id_1 AND :id_2
  AND CASE WHEN (
    webhook_deliveries.group_id = :group_id_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.status = :status_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.unpublished_by IS NULL
  ) THEN 1 END = 1
  AND CASE
    WHEN (
      webhook_deliveries.published_attempt IS NULL
      OR webhook_deliveries.published_attempt != webhook_deliveries.attempt
    )
    THEN 1
  END = 1
ORDER BY
  webhook_deliveries.id
;

-- ledger.given_up.owe
-- Let them wait, an array.
UPDATE webhook_deliveries SET unpublished_by = :unpublished_by
WHERE
  webhook_deliveries.id = :b_id
  AND webhook_deliveries.status = :status_1
  AND webhook_deliveries.unpublished_by IS NULL
  AND (
    webhook_deliveries.published_attempt IS NULL
    OR webhook_deliveries.published_attempt != webhook_deliveries.attempt
  )
;

-- ledger.given_up.purge
-- WEBHOOK_KEEP_EXHAUSTED: the rows of a step that ended long ago and that the exhausted topic has.
SELECT
  webhook_deliveries.id,
  webhook_deliveries.group_id,
  webhook_deliveries.topic,
  webhook_deliveries.partition_no,
  webhook_deliveries.record_offset,
  webhook_deliveries.record_ts
FROM webhook_deliveries
WHERE
  webhook_deliveries.id BETWEEN :id_1 AND :id_2
  AND CASE WHEN (
    webhook_deliveries.group_id = :group_id_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.updated_at < :updated_at_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.status = :status_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.unpublished_by IS NULL
  ) THEN 1 END = 1
  AND CASE
    WHEN (
      webhook_deliveries.published_attempt = webhook_deliveries.attempt
    )
    THEN 1
  END = 1
ORDER BY
  webhook_deliveries.id
;

-- ledger.given_up.purge
-- Delete them, an array.
DELETE FROM webhook_deliveries
WHERE
  webhook_deliveries.id = :b_id
  AND webhook_deliveries.updated_at < :b_before
  AND webhook_deliveries.status = :status_1
  AND webhook_deliveries.unpublished_by IS NULL
  AND webhook_deliveries.published_attempt = webhook_deliveries.attempt
;

-- ledger.given_up.note_published
-- The exhausted topic has these rows, an array.
UPDATE webhook_deliveries SET unpublished_by = :unpublished_by, published_attempt = webhook_deliveries.attempt
WHERE
  webhook_deliveries.id = :b_id AND webhook_deliveries.attempt = :b_attempt
;

-- ledger.upkeep.purge_replays
-- Delete replays that ended long ago.
DELETE FROM webhook_replays
WHERE
  webhook_replays.finished_at < :finished_at_1
  OR webhook_replays.cancelled_at < :cancelled_at_1
;

-- ledger.upkeep.purge_replays
-- Delete the cursors of deleted replays.
DELETE FROM webhook_cursors
WHERE
  webhook_cursors.replay != :replay_1
  AND NOT (
    EXISTS(
      SELECT
        *
      FROM webhook_replays
      WHERE
        webhook_replays.id = webhook_cursors.replay
    )
  )
;

-- ledger.upkeep.replays_ended_before
-- The number of replays that this would delete.
SELECT
  COUNT(*) AS count_1
FROM webhook_replays
WHERE
  webhook_replays.finished_at < :finished_at_1
  OR webhook_replays.cancelled_at < :cancelled_at_1
;
