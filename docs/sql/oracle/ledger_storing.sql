-- ledger.store._stored_records
-- Which of these payloads are stored already?
SELECT
  webhook_payloads.record_offset,
  webhook_payloads.record_ts
FROM webhook_payloads
WHERE
  webhook_payloads.group_id = :group_id_1
  AND webhook_payloads.topic = :topic_1
  AND webhook_payloads.partition_no = :partition_no_1
  AND webhook_payloads.record_offset IN (
    :record_offset_1_1,
    :record_offset_1_2,
    :record_offset_1_3,
    :record_offset_1_4,
    :record_offset_1_5,
    :record_offset_1_6,
    :record_offset_1_7,
    :record_offset_1_8
  )
;

-- ledger.store.insert_new
-- Insert payloads, an array.
INSERT INTO webhook_payloads (
  group_id,
  topic,
  partition_no,
  record_offset,
  record_ts,
  event_type,
  webhook_id,
  content_type,
  traceparent,
  has_key,
  body_size,
  record_key,
  body,
  tenant,
  record_headers
)
VALUES
  (
    :b_group_id,
    :b_topic,
    :b_partition_no,
    :b_record_offset,
    :b_record_ts,
    :b_event_type,
    :b_webhook_id,
    :b_content_type,
    :b_traceparent,
    :b_has_key,
    :b_body_size,
    :b_record_key,
    :b_body,
    :b_tenant,
    :b_record_headers
  )
;

-- ledger.store.insert_new
-- Workers, hot: insert the deliveries that are not stored yet, an array.
INSERT INTO webhook_deliveries (
  group_id,
  topic,
  partition_no,
  record_offset,
  record_ts,
  subscription_id,
  replay,
  url,
  status,
  next_attempt_at,
  order_key,
  filter_pending,
  created_at,
  updated_at,
  unpublished_by,
  attempt,
  schedule_start,
  first_attempt_at,
  first_error,
  first_status,
  last_attempt_at,
  last_error,
  last_status,
  last_response
)
SELECT
  :b_group_id AS anon_1,
  :b_topic AS anon_2,
  :b_partition_no AS anon_3,
  :b_record_offset AS anon_4,
  :b_record_ts AS anon_5,
  :b_subscription_id AS anon_6,
  :b_replay AS anon_7,
  :b_url_0 || :b_url_1 || :b_url_2 AS anon_8,
  :b_status AS anon_9,
  :b_next_attempt_at AS anon_10,
  :b_order_key AS anon_11,
  :b_filter_pending AS anon_12,
  :b_created_at AS anon_13,
  :b_updated_at AS anon_14,
  :b_unpublished_by AS anon_15,
  :b_attempt AS anon_16,
  :b_schedule_start AS anon_17,
  :b_first_attempt_at AS anon_18,
  :b_first_error AS anon_19,
  :b_first_status AS anon_20,
  :b_last_attempt_at AS anon_21,
  :b_last_error AS anon_22,
  :b_last_status AS anon_23,
  :b_last_response_0 || :b_last_response_1 AS anon_24
FROM DUAL
WHERE
  NOT (
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
        AND webhook_deliveries.subscription_id = :b_subscription_id
        AND webhook_deliveries.replay = :b_replay
    )
  )
;

-- ledger.store.exhausted
-- Which of these rows are stored as exhausted, need an operational event, or are sent from the topic?
SELECT
  webhook_deliveries.id,
  webhook_deliveries.group_id,
  webhook_deliveries.topic,
  webhook_deliveries.partition_no,
  webhook_deliveries.record_offset,
  webhook_deliveries.record_ts,
  webhook_deliveries.subscription_id,
  webhook_deliveries.replay,
  webhook_deliveries.attempt
FROM webhook_deliveries
WHERE
  webhook_deliveries.group_id = :group_id_1
  AND webhook_deliveries.topic = :topic_1
  AND webhook_deliveries.partition_no = :partition_no_1
  AND webhook_deliveries.record_offset IN (:record_offset_1_1)
  AND webhook_deliveries.status = :status_1
;

-- ledger.store._record
-- Attempts with several outcomes: lock all their rows by id before.
SELECT
  webhook_deliveries.id
FROM webhook_deliveries
WHERE
  webhook_deliveries.id IN (:id_1_1, :id_1_2)
ORDER BY
  webhook_deliveries.id   FOR UPDATE
;

-- ledger.store._record
-- Failed attempts that are retried, an array.
UPDATE webhook_deliveries SET attempt = :b_made, next_attempt_at = :b_next_attempt_at, first_attempt_at = CASE
  WHEN (
    webhook_deliveries.attempt = :attempt_1
  )
  THEN :b_last_attempt_at
  ELSE webhook_deliveries.first_attempt_at
END, last_status = :b_last_status, last_error = :b_last_error, updated_at = :b_at, first_status = CASE
  WHEN (
    webhook_deliveries.attempt = :attempt_1
  )
  THEN :b_last_status
  ELSE webhook_deliveries.first_status
END, first_error = CASE
  WHEN (
    webhook_deliveries.attempt = :attempt_1
  )
  THEN :b_last_error
  ELSE webhook_deliveries.first_error
END, last_attempt_at = :b_last_attempt_at, last_response = (
  :b_last_response_0 || :b_last_response_1
)
WHERE
  webhook_deliveries.id = :b_id
  AND webhook_deliveries.attempt = :b_attempt
  AND webhook_deliveries.schedule_start = :b_schedule_start
;

-- ledger.store._record
-- Failed last attempts, an array.
UPDATE webhook_deliveries SET status = :b_status, attempt = :b_made, next_attempt_at = :b_next_attempt_at, first_attempt_at = CASE
  WHEN (
    webhook_deliveries.attempt = :attempt_1
  )
  THEN :b_last_attempt_at
  ELSE webhook_deliveries.first_attempt_at
END, last_status = :b_last_status, last_error = :b_last_error, updated_at = :b_at, first_status = CASE
  WHEN (
    webhook_deliveries.attempt = :attempt_1
  )
  THEN :b_last_status
  ELSE webhook_deliveries.first_status
END, first_error = CASE
  WHEN (
    webhook_deliveries.attempt = :attempt_1
  )
  THEN :b_last_error
  ELSE webhook_deliveries.first_error
END, last_attempt_at = :b_last_attempt_at, last_response = (
  :b_last_response_0 || :b_last_response_1
), unpublished_by = webhook_deliveries.group_id
WHERE
  webhook_deliveries.id = :b_id
  AND webhook_deliveries.attempt = :b_attempt
  AND webhook_deliveries.schedule_start = :b_schedule_start
;

-- ledger.store._record
-- Failed attempts of a schedule that a redelivery has replaced, an array.
UPDATE webhook_deliveries SET attempt = :b_made, first_attempt_at = CASE
  WHEN (
    webhook_deliveries.attempt = :attempt_1
  )
  THEN :b_last_attempt_at
  ELSE webhook_deliveries.first_attempt_at
END, last_status = :b_last_status, last_error = :b_last_error, updated_at = :b_at, schedule_start = (
  webhook_deliveries.schedule_start + :schedule_start_1
), first_status = CASE
  WHEN (
    webhook_deliveries.attempt = :attempt_1
  )
  THEN :b_last_status
  ELSE webhook_deliveries.first_status
END, first_error = CASE
  WHEN (
    webhook_deliveries.attempt = :attempt_1
  )
  THEN :b_last_error
  ELSE webhook_deliveries.first_error
END, last_attempt_at = :b_last_attempt_at, last_response = (
  :b_last_response_0 || :b_last_response_1
)
WHERE
  webhook_deliveries.id = :b_id
  AND webhook_deliveries.attempt = :b_attempt
  AND webhook_deliveries.schedule_start != :b_schedule_start
;

-- ledger.store._record
-- Rows whose filter, evaluated late, does not match the event, an array.
UPDATE webhook_deliveries SET status = :status, next_attempt_at = :next_attempt_at, last_error = :last_error, updated_at = :b_at
WHERE
  webhook_deliveries.id = :b_id
  AND webhook_deliveries.attempt = :b_attempt
  AND (
    webhook_deliveries.status = :status_1
    OR webhook_deliveries.status = :status_2
    OR webhook_deliveries.status = :status_3
  )
;

-- ledger.store._record
-- Successful attempts, an array.
UPDATE webhook_deliveries SET status = :b_status, attempt = :b_made, next_attempt_at = :b_next_attempt_at, first_attempt_at = CASE
  WHEN (
    webhook_deliveries.attempt = :attempt_1
  )
  THEN :b_last_attempt_at
  ELSE webhook_deliveries.first_attempt_at
END, last_status = :b_last_status, last_error = :b_last_error, updated_at = :b_at, first_status = CASE
  WHEN (
    webhook_deliveries.attempt = :attempt_1
  )
  THEN :b_last_status
  ELSE webhook_deliveries.first_status
END, first_error = CASE
  WHEN (
    webhook_deliveries.attempt = :attempt_1
  )
  THEN :b_last_error
  ELSE webhook_deliveries.first_error
END, last_attempt_at = :b_last_attempt_at, last_response = (
  :b_last_response_0 || :b_last_response_1
)
WHERE
  webhook_deliveries.id = :b_id AND webhook_deliveries.attempt = :b_attempt
;

-- ledger.store._exhausted_after
-- Which of these rows are exhausted after this attempt?
SELECT
  webhook_deliveries.id,
  webhook_deliveries.attempt
FROM webhook_deliveries
WHERE
  webhook_deliveries.id IN (:id_1_1) AND webhook_deliveries.status = :status_1
;

-- ledger.ordering.normalise
-- Hot with ordering: unblock the first open row of each subscription and key, an array.
UPDATE webhook_deliveries SET status = :status, next_attempt_at = COALESCE(webhook_deliveries.next_attempt_at, :b_now), updated_at = :b_now
WHERE
  webhook_deliveries.group_id = :b_group_id
  AND webhook_deliveries.topic = :b_topic
  AND webhook_deliveries.partition_no = :b_partition_no
  AND webhook_deliveries.order_key = :b_order_key
  AND webhook_deliveries.subscription_id = :b_subscription_id
  AND webhook_deliveries.status = :status_1
  AND webhook_deliveries.record_offset = (
    SELECT
      MIN(webhook_deliveries_1.record_offset) AS min_1
    FROM webhook_deliveries webhook_deliveries_1
    WHERE
      webhook_deliveries_1.group_id = :b_group_id
      AND webhook_deliveries_1.topic = :b_topic
      AND webhook_deliveries_1.partition_no = :b_partition_no
      AND webhook_deliveries_1.order_key = :b_order_key
      AND webhook_deliveries_1.subscription_id = :b_subscription_id
      AND webhook_deliveries_1.status = :status_2
  )
  AND NOT (
    EXISTS(
      SELECT
        *
      FROM webhook_deliveries webhook_deliveries_1
      WHERE
        webhook_deliveries_1.group_id = :b_group_id
        AND webhook_deliveries_1.topic = :b_topic
        AND webhook_deliveries_1.partition_no = :b_partition_no
        AND webhook_deliveries_1.order_key = :b_order_key
        AND webhook_deliveries_1.subscription_id = :b_subscription_id
        AND webhook_deliveries_1.status = :status_3
        AND webhook_deliveries_1.record_offset < webhook_deliveries.record_offset
    )
  )
  AND NOT (
    EXISTS(
      SELECT
        *
      FROM webhook_deliveries webhook_deliveries_1
      WHERE
        webhook_deliveries_1.group_id = :b_group_id
        AND webhook_deliveries_1.topic = :b_topic
        AND webhook_deliveries_1.partition_no = :b_partition_no
        AND webhook_deliveries_1.order_key = :b_order_key
        AND webhook_deliveries_1.subscription_id = :b_subscription_id
        AND webhook_deliveries_1.status = :status_4
        AND webhook_deliveries_1.record_offset < webhook_deliveries.record_offset
    )
  )
;

-- ledger.ordering.normalise
-- Block later parked rows, an array.
UPDATE webhook_deliveries SET status = :status, updated_at = :b_now
WHERE
  webhook_deliveries.group_id = :b_group_id
  AND webhook_deliveries.topic = :b_topic
  AND webhook_deliveries.partition_no = :b_partition_no
  AND webhook_deliveries.order_key = :b_order_key
  AND webhook_deliveries.subscription_id = :b_subscription_id
  AND webhook_deliveries.status = :status_1
  AND (
    (
      EXISTS(
        SELECT
          *
        FROM webhook_deliveries webhook_deliveries_1
        WHERE
          webhook_deliveries_1.group_id = :b_group_id
          AND webhook_deliveries_1.topic = :b_topic
          AND webhook_deliveries_1.partition_no = :b_partition_no
          AND webhook_deliveries_1.order_key = :b_order_key
          AND webhook_deliveries_1.subscription_id = :b_subscription_id
          AND webhook_deliveries_1.status = :status_2
          AND webhook_deliveries_1.record_offset < webhook_deliveries.record_offset
      )
    )
    OR (
      EXISTS(
        SELECT
          *
        FROM webhook_deliveries webhook_deliveries_1
        WHERE
          webhook_deliveries_1.group_id = :b_group_id
          AND webhook_deliveries_1.topic = :b_topic
          AND webhook_deliveries_1.partition_no = :b_partition_no
          AND webhook_deliveries_1.order_key = :b_order_key
          AND webhook_deliveries_1.subscription_id = :b_subscription_id
          AND webhook_deliveries_1.status = :status_3
          AND webhook_deliveries_1.record_offset < webhook_deliveries.record_offset
      )
    )
    OR (
      EXISTS(
        SELECT
          *
        FROM webhook_deliveries webhook_deliveries_1
        WHERE
          webhook_deliveries_1.group_id = :b_group_id
          AND webhook_deliveries_1.topic = :b_topic
          AND webhook_deliveries_1.partition_no = :b_partition_no
          AND webhook_deliveries_1.order_key = :b_order_key
          AND webhook_deliveries_1.subscription_id = :b_subscription_id
          AND webhook_deliveries_1.status = :status_4
          AND webhook_deliveries_1.record_offset < webhook_deliveries.record_offset
      )
    )
  )
;

-- ledger.ordering.open_ones
-- Which of these ordering keys have open rows?
SELECT DISTINCT
  webhook_deliveries.order_key,
  webhook_deliveries.subscription_id
FROM webhook_deliveries
WHERE
  webhook_deliveries.group_id = :group_id_1
  AND webhook_deliveries.status IN (:status_1_1, :status_1_2)
  AND webhook_deliveries.topic = :topic_1
  AND webhook_deliveries.partition_no = :partition_no_1
  AND webhook_deliveries.order_key >= :order_key_1
  AND webhook_deliveries.order_key IN (:order_key_2_1)
;

-- ledger.ordering.repair
-- Among some keys, ordering keys whose first open row is blocked.
SELECT
  anon_1.group_id,
  anon_1.topic,
  anon_1.partition_no,
  anon_1.order_key,
  anon_1.subscription_id,
  anon_1.record_offset
FROM (
  SELECT
    first_blocked.group_id AS group_id,
    first_blocked.topic AS topic,
    first_blocked.partition_no AS partition_no,
    first_blocked.order_key AS order_key,
    first_blocked.subscription_id AS subscription_id,
    first_blocked.record_offset AS record_offset
  FROM (
    SELECT
      webhook_deliveries.group_id AS group_id,
      webhook_deliveries.topic AS topic,
      webhook_deliveries.partition_no AS partition_no,
      webhook_deliveries.order_key AS order_key,
      webhook_deliveries.subscription_id AS subscription_id,
      MIN(webhook_deliveries.record_offset) AS record_offset
    FROM webhook_deliveries
    WHERE
      webhook_deliveries.group_id = :group_id_1
      AND webhook_deliveries.topic = :topic_1
      AND webhook_deliveries.partition_no = :partition_no_1
      AND webhook_deliveries.order_key > :order_key_1
      AND webhook_deliveries.order_key <= :order_key_2
      AND webhook_deliveries.status = :status_1
    GROUP BY
      webhook_deliveries.group_id,
      webhook_deliveries.topic,
      webhook_deliveries.partition_no,
      webhook_deliveries.order_key,
      webhook_deliveries.subscription_id
  ) first_blocked
  WHERE
    NOT (
      EXISTS(
        SELECT
          *
        FROM webhook_deliveries webhook_deliveries_1
        WHERE
          webhook_deliveries_1.group_id = first_blocked.group_id
          AND webhook_deliveries_1.topic = first_blocked.topic
          AND webhook_deliveries_1.partition_no = first_blocked.partition_no
          AND webhook_deliveries_1.order_key = first_blocked.order_key
          AND webhook_deliveries_1.subscription_id = first_blocked.subscription_id
          AND webhook_deliveries_1.status = :status_2
          AND webhook_deliveries_1.record_offset < first_blocked.record_offset
      )
    )
    AND NOT (
      EXISTS(
        SELECT
          *
        FROM webhook_deliveries webhook_deliveries_1
        WHERE
          webhook_deliveries_1.group_id = first_blocked.group_id
          AND webhook_deliveries_1.topic = first_blocked.topic
          AND webhook_deliveries_1.partition_no = first_blocked.partition_no
          AND webhook_deliveries_1.order_key = first_blocked.order_key
          AND webhook_deliveries_1.subscription_id = first_blocked.subscription_id
          AND webhook_deliveries_1.status = :status_3
          AND webhook_deliveries_1.record_offset < first_blocked.record_offset
      )
    )
) anon_1
WHERE
  ROWNUM <= 1000
;

-- ledger.ordering.repair
-- Among some keys, ordering keys with a parked row behind another open one.
SELECT
  anon_1.group_id,
  anon_1.topic,
  anon_1.partition_no,
  anon_1.order_key,
  anon_1.subscription_id
FROM (
  SELECT DISTINCT
    webhook_deliveries.group_id AS group_id,
    webhook_deliveries.topic AS topic,
    webhook_deliveries.partition_no AS partition_no,
    webhook_deliveries.order_key AS order_key,
    webhook_deliveries.subscription_id AS subscription_id
  FROM webhook_deliveries
  WHERE
    webhook_deliveries.group_id = :group_id_1
    AND webhook_deliveries.topic = :topic_1
    AND webhook_deliveries.partition_no = :partition_no_1
    AND webhook_deliveries.order_key > :order_key_1
    AND webhook_deliveries.order_key <= :order_key_2
    AND webhook_deliveries.status = :status_1
    AND (
      (
        EXISTS(
          SELECT
            *
          FROM webhook_deliveries webhook_deliveries_1
          WHERE
            webhook_deliveries_1.group_id = webhook_deliveries.group_id
            AND webhook_deliveries_1.topic = webhook_deliveries.topic
            AND webhook_deliveries_1.partition_no = webhook_deliveries.partition_no
            AND webhook_deliveries_1.order_key = webhook_deliveries.order_key
            AND webhook_deliveries_1.subscription_id = webhook_deliveries.subscription_id
            AND webhook_deliveries_1.status = :status_2
            AND webhook_deliveries_1.record_offset < webhook_deliveries.record_offset
        )
      )
      OR (
        EXISTS(
          SELECT
            *
          FROM webhook_deliveries webhook_deliveries_1
          WHERE
            webhook_deliveries_1.group_id = webhook_deliveries.group_id
            AND webhook_deliveries_1.topic = webhook_deliveries.topic
            AND webhook_deliveries_1.partition_no = webhook_deliveries.partition_no
            AND webhook_deliveries_1.order_key = webhook_deliveries.order_key
            AND webhook_deliveries_1.subscription_id = webhook_deliveries.subscription_id
            AND webhook_deliveries_1.status = :status_3
            AND webhook_deliveries_1.record_offset < webhook_deliveries.record_offset
        )
      )
      OR (
        EXISTS(
          SELECT
            *
          FROM webhook_deliveries webhook_deliveries_1
          WHERE
            webhook_deliveries_1.group_id = webhook_deliveries.group_id
            AND webhook_deliveries_1.topic = webhook_deliveries.topic
            AND webhook_deliveries_1.partition_no = webhook_deliveries.partition_no
            AND webhook_deliveries_1.order_key = webhook_deliveries.order_key
            AND webhook_deliveries_1.subscription_id = webhook_deliveries.subscription_id
            AND webhook_deliveries_1.status = :status_4
            AND webhook_deliveries_1.record_offset < webhook_deliveries.record_offset
        )
      )
    )
) anon_1
WHERE
  ROWNUM <= 1000
;

-- ledger.ordering._thousandth
-- The last key of a step: the step has a thousand rows of a state.
SELECT
  anon_1.order_key
FROM (
  SELECT
    webhook_deliveries.order_key AS order_key
  FROM webhook_deliveries
  WHERE
    webhook_deliveries.group_id = :group_id_1
    AND webhook_deliveries.topic = :topic_1
    AND webhook_deliveries.partition_no = :partition_no_1
    AND webhook_deliveries.order_key > :order_key_1
    AND webhook_deliveries.status = :status_1
  ORDER BY
    webhook_deliveries.order_key
) anon_1
WHERE
  ROWNUM <= 1000
;

-- ledger.cursors.begin
-- Delete cursors that ended where these begin, an array.
DELETE FROM webhook_cursors
WHERE
  webhook_cursors.group_id = :b_group_id
  AND webhook_cursors.topic = :b_topic
  AND webhook_cursors.partition_no = :b_partition_no
  AND webhook_cursors.subscription_id = :b_subscription_id
  AND webhook_cursors.replay = :b_replay
  AND webhook_cursors.first_offset = :b_first_offset
  AND (
    webhook_cursors.end_offset = webhook_cursors.first_offset
    OR webhook_cursors.topic_identity != :b_topic_identity
  )
;

-- ledger.cursors.begin
-- Insert the cursors that are not stored yet, an array.
INSERT INTO webhook_cursors (
  group_id,
  topic,
  partition_no,
  subscription_id,
  replay,
  first_offset,
  next_offset,
  end_offset,
  reason,
  record_ts,
  topic_identity,
  created_at,
  updated_at,
  settled_runs
)
SELECT
  :b_group_id AS anon_1,
  :b_topic AS anon_2,
  :b_partition_no AS anon_3,
  :b_subscription_id AS anon_4,
  :b_replay AS anon_5,
  :b_first_offset AS anon_6,
  :b_next_offset AS anon_7,
  :b_end_offset AS anon_8,
  :b_reason AS anon_9,
  :b_record_ts AS anon_10,
  :b_topic_identity AS anon_11,
  :b_created_at AS anon_12,
  :b_updated_at AS anon_13,
  :b_runs_0 || :b_runs_1 || :b_runs_2 || :b_runs_3 AS anon_14
FROM DUAL
WHERE
  NOT (
    EXISTS(
      SELECT
        *
      FROM webhook_cursors
      WHERE
        webhook_cursors.group_id = :b_group_id
        AND webhook_cursors.topic = :b_topic
        AND webhook_cursors.partition_no = :b_partition_no
        AND webhook_cursors.subscription_id = :b_subscription_id
        AND webhook_cursors.replay = :b_replay
        AND webhook_cursors.first_offset = :b_first_offset
    )
  )
  AND (
    EXISTS(
      SELECT
        *
      FROM webhook_subscriptions
      WHERE
        webhook_subscriptions.id = :b_subscription_id
    )
  )
;

-- ledger.cursors.begin
-- If some were there: has another owner moved them?
SELECT
  webhook_cursors.id,
  webhook_cursors.group_id,
  webhook_cursors.topic,
  webhook_cursors.partition_no,
  webhook_cursors.subscription_id,
  webhook_cursors.replay,
  webhook_cursors.reason,
  webhook_cursors.first_offset,
  webhook_cursors.next_offset,
  webhook_cursors.end_offset,
  webhook_cursors.settled_runs,
  webhook_cursors.record_ts,
  webhook_cursors.expires_at,
  webhook_cursors.version,
  webhook_cursors.topic_identity,
  webhook_cursors.created_at,
  webhook_cursors.updated_at
FROM webhook_cursors
WHERE
  webhook_cursors.group_id = :group_id_1
  AND (
    webhook_cursors.topic,
    webhook_cursors.partition_no,
    webhook_cursors.subscription_id
  ) IN ((:param_1_1_1, :param_1_1_2, :param_1_1_3))
ORDER BY
  webhook_cursors.topic,
  webhook_cursors.partition_no,
  webhook_cursors.subscription_id,
  webhook_cursors.first_offset
;

-- ledger.cursors.save
-- Workers, each second: positions of cursors that have moved, an array.
UPDATE webhook_cursors SET next_offset = :b_next_offset, end_offset = :b_end_offset, settled_runs = (
  :b_runs_0 || :b_runs_1 || :b_runs_2 || :b_runs_3
), record_ts = :b_record_ts, expires_at = :b_expires_at, version = (
  webhook_cursors.version + :b_assignment
), topic_identity = COALESCE(webhook_cursors.topic_identity, :b_topic_identity), updated_at = :b_updated_at
WHERE
  webhook_cursors.id = :b_id AND webhook_cursors.version = :b_version
;

-- ledger.cursors.save
-- Some of these were moved by another worker, or are gone: as they are now.
SELECT
  webhook_cursors.id,
  webhook_cursors.version,
  webhook_cursors.next_offset,
  webhook_cursors.end_offset
FROM webhook_cursors
WHERE
  webhook_cursors.id IN (:id_1_1)
;

-- ledger.cursors.of_partition
-- A partition is assigned: its cursors.
SELECT
  webhook_cursors.id,
  webhook_cursors.group_id,
  webhook_cursors.topic,
  webhook_cursors.partition_no,
  webhook_cursors.subscription_id,
  webhook_cursors.replay,
  webhook_cursors.reason,
  webhook_cursors.first_offset,
  webhook_cursors.next_offset,
  webhook_cursors.end_offset,
  webhook_cursors.settled_runs,
  webhook_cursors.record_ts,
  webhook_cursors.expires_at,
  webhook_cursors.version,
  webhook_cursors.topic_identity,
  webhook_cursors.created_at,
  webhook_cursors.updated_at
FROM webhook_cursors
WHERE
  webhook_cursors.group_id = :group_id_1
  AND webhook_cursors.topic = :topic_1
  AND webhook_cursors.partition_no = :partition_no_1
ORDER BY
  webhook_cursors.topic,
  webhook_cursors.partition_no,
  webhook_cursors.subscription_id,
  webhook_cursors.first_offset
;

-- ledger.cursors.of_due_keys
-- The cursors of these due keys (partition and subscription).
SELECT
  webhook_cursors.id,
  webhook_cursors.group_id,
  webhook_cursors.topic,
  webhook_cursors.partition_no,
  webhook_cursors.subscription_id,
  webhook_cursors.replay,
  webhook_cursors.reason,
  webhook_cursors.first_offset,
  webhook_cursors.next_offset,
  webhook_cursors.end_offset,
  webhook_cursors.settled_runs,
  webhook_cursors.record_ts,
  webhook_cursors.expires_at,
  webhook_cursors.version,
  webhook_cursors.topic_identity,
  webhook_cursors.created_at,
  webhook_cursors.updated_at
FROM webhook_cursors
WHERE
  webhook_cursors.group_id = :group_id_1
  AND (
    webhook_cursors.topic,
    webhook_cursors.partition_no,
    webhook_cursors.subscription_id
  ) IN ((:param_1_1_1, :param_1_1_2, :param_1_1_3))
ORDER BY
  webhook_cursors.topic,
  webhook_cursors.partition_no,
  webhook_cursors.subscription_id,
  webhook_cursors.first_offset
;

-- ledger.cursors.stored
-- The stored deliveries of cursors' due keys, in any state.
SELECT
  webhook_deliveries.subscription_id,
  webhook_deliveries.replay,
  webhook_deliveries.record_offset,
  webhook_deliveries.record_ts
FROM webhook_deliveries
WHERE
  webhook_deliveries.group_id = :group_id_1
  AND webhook_deliveries.topic = :topic_1
  AND webhook_deliveries.partition_no = :partition_no_1
  AND webhook_deliveries.status IN (:status_1_1, :status_1_2, :status_1_3, :status_1_4, :status_1_5)
  AND webhook_deliveries.subscription_id IN (:subscription_id_1_1)
  AND webhook_deliveries.record_offset + :record_offset_1 >= (
    SELECT
      MIN(webhook_cursors.next_offset) AS min_1
    FROM webhook_cursors
    WHERE
      webhook_cursors.group_id = :group_id_2
      AND webhook_cursors.topic = :topic_2
      AND webhook_cursors.partition_no = :partition_no_2
      AND webhook_cursors.subscription_id IN (:subscription_id_2_1)
  )
;

-- ledger.cursors.open_rows
-- Workers: how many rows the subscriptions of a partition have.
SELECT
  webhook_deliveries.subscription_id,
  COUNT(*) AS open_rows
FROM webhook_deliveries
WHERE
  webhook_deliveries.group_id = :group_id_1
  AND webhook_deliveries.topic = :topic_1
  AND webhook_deliveries.partition_no = :partition_no_1
  AND webhook_deliveries.status IN (:status_1_1, :status_1_2, :status_1_3)
GROUP BY
  webhook_deliveries.subscription_id
;

-- ledger.cursors.remove
-- Delete cursors.
DELETE FROM webhook_cursors
WHERE
  webhook_cursors.id IN (:id_1_1)
;

-- ledger.cursors.prune
-- Upkeep: are there finished cursors below the committed offset?
SELECT
  anon_1.id
FROM (
  SELECT
    webhook_cursors.id AS id
  FROM webhook_cursors
  WHERE
    webhook_cursors.group_id = :group_id_1
    AND webhook_cursors.topic = :topic_1
    AND webhook_cursors.partition_no = :partition_no_1
    AND webhook_cursors.replay = :replay_1
    AND webhook_cursors.end_offset = webhook_cursors.next_offset
    AND (
      webhook_cursors.end_offset <= :end_offset_1
      OR webhook_cursors.end_offset = webhook_cursors.first_offset
    )
) anon_1
WHERE
  ROWNUM <= 1
;

-- ledger.cursors.prune
-- Those of them with which subscriptions began in the past.
SELECT
  webhook_cursors.subscription_id
FROM webhook_cursors
WHERE
  webhook_cursors.group_id = :group_id_1
  AND webhook_cursors.topic = :topic_1
  AND webhook_cursors.partition_no = :partition_no_1
  AND webhook_cursors.replay = :replay_1
  AND webhook_cursors.end_offset = webhook_cursors.next_offset
  AND (
    webhook_cursors.end_offset <= :end_offset_1
    OR webhook_cursors.end_offset = webhook_cursors.first_offset
  )
  AND webhook_cursors.reason = :reason_1
;

-- ledger.cursors.prune
-- Delete these.
DELETE FROM webhook_cursors
WHERE
  webhook_cursors.group_id = :group_id_1
  AND webhook_cursors.topic = :topic_1
  AND webhook_cursors.partition_no = :partition_no_1
  AND webhook_cursors.replay = :replay_1
  AND webhook_cursors.end_offset = webhook_cursors.next_offset
  AND (
    webhook_cursors.end_offset <= :end_offset_1
    OR webhook_cursors.end_offset = webhook_cursors.first_offset
  )
;

-- ledger.cursors.prune
-- Such subscriptions without another one have started.
UPDATE webhook_subscriptions SET starts = :starts
WHERE
  webhook_subscriptions.id IN (:id_1_1)
  AND webhook_subscriptions.starts = :starts_1
  AND NOT (
    EXISTS(
      SELECT
        *
      FROM webhook_cursors
      WHERE
        webhook_cursors.subscription_id = webhook_subscriptions.id
        AND webhook_cursors.reason = :reason_1
    )
  )
;

-- ledger.outbox.add
-- Which of these operational events are stored already?
SELECT
  webhook_operations.event_id
FROM webhook_operations
WHERE
  webhook_operations.group_id = :group_id_1
  AND webhook_operations.event_id IN (:event_id_1_1)
;

-- ledger.outbox.add
-- Insert operational events, an array.
INSERT INTO webhook_operations (
  group_id,
  event_id,
  event_type,
  data
)
VALUES
  (:group_id, :event_id, :event_type, :data)
RETURNING webhook_operations.id INTO :ret_0
;

-- ledger.outbox.pending
-- The next operational events to publish.
SELECT
  anon_1.id,
  anon_1.event_id,
  anon_1.event_type,
  anon_1.created_at,
  anon_1.data
FROM (
  SELECT
    webhook_operations.id AS id,
    webhook_operations.event_id AS event_id,
    webhook_operations.event_type AS event_type,
    webhook_operations.created_at AS created_at,
    webhook_operations.data AS data
  FROM webhook_operations
  WHERE
    webhook_operations.group_id = :group_id_1
  ORDER BY
    webhook_operations.id
) anon_1
WHERE
  ROWNUM <= 10
;

-- ledger.outbox.forget
-- Delete published events.
DELETE FROM webhook_operations
WHERE
  webhook_operations.id = :b_id
;

-- ledger.outbox.expire
-- The oldest operational events and their times.
SELECT
  anon_1.id,
  anon_1.created_at
FROM (
  SELECT
    webhook_operations.id AS id,
    webhook_operations.created_at AS created_at
  FROM webhook_operations
  WHERE
    webhook_operations.group_id = :group_id_1
  ORDER BY
    webhook_operations.id
) anon_1
WHERE
  ROWNUM <= 1000
;
