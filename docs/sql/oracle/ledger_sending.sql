-- ledger.assigned.scan
-- Is any row parked?
SELECT
  anon_1.id
FROM (
  SELECT
    webhook_deliveries.id AS id
  FROM webhook_deliveries
  WHERE
    webhook_deliveries.group_id = :group_id_1
    AND webhook_deliveries.status = :status_1
  ORDER BY
    webhook_deliveries.topic
) anon_1
WHERE
  ROWNUM <= 1
;

-- database.statements.leaps
-- Workers, hot: the partitions of a topic with parked rows.
WITH leap(step, found) AS (
  SELECT
    1 AS step,
    MIN(webhook_deliveries.partition_no) AS found
  FROM webhook_deliveries
  WHERE
    webhook_deliveries.group_id = :group_id_1
    AND webhook_deliveries.status = :status_1
    AND webhook_deliveries.topic = :topic_1
    AND webhook_deliveries.partition_no > :partition_no_1
  UNION ALL
  SELECT
    leap.step + 1 AS anon_1,
    (
      SELECT
        MIN(webhook_deliveries.partition_no) AS min_1
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.group_id = :group_id_1
        AND webhook_deliveries.status = :status_1
        AND webhook_deliveries.topic = :topic_1
        AND webhook_deliveries.partition_no > leap.found
    ) AS anon_2
  FROM leap
  WHERE
    leap.step < :step_1 AND leap.found IS NOT NULL
)
SELECT
  leap.found
FROM leap
WHERE
  leap.found IS NOT NULL
;

-- database.statements.leaps
-- Workers, hot: the next subscriptions with parked rows in a partition.
WITH leap(step, found) AS (
  SELECT
    1 AS step,
    MIN(webhook_deliveries.subscription_id) AS found
  FROM webhook_deliveries
  WHERE
    webhook_deliveries.group_id = :group_id_1
    AND webhook_deliveries.status = :status_1
    AND webhook_deliveries.topic = :topic_1
    AND webhook_deliveries.partition_no = :partition_no_1
    AND webhook_deliveries.subscription_id > :subscription_id_1
  UNION ALL
  SELECT
    leap.step + 1 AS anon_1,
    (
      SELECT
        MIN(webhook_deliveries.subscription_id) AS min_1
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.group_id = :group_id_1
        AND webhook_deliveries.status = :status_1
        AND webhook_deliveries.topic = :topic_1
        AND webhook_deliveries.partition_no = :partition_no_1
        AND webhook_deliveries.subscription_id > leap.found
    ) AS anon_2
  FROM leap
  WHERE
    leap.step < :step_1 AND leap.found IS NOT NULL
)
SELECT
  leap.found
FROM leap
WHERE
  leap.found IS NOT NULL
;

-- database.statements.leaps
-- Upkeep: the next subscriptions with rows.
WITH leap(step, found) AS (
  SELECT
    1 AS step,
    MIN(webhook_deliveries.subscription_id) AS found
  FROM webhook_deliveries
  WHERE
    webhook_deliveries.subscription_id > :subscription_id_1
  UNION ALL
  SELECT
    leap.step + 1 AS anon_1,
    (
      SELECT
        MIN(webhook_deliveries.subscription_id) AS min_1
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.subscription_id > leap.found
    ) AS anon_2
  FROM leap
  WHERE
    leap.step < :step_1 AND leap.found IS NOT NULL
)
SELECT
  leap.found
FROM leap
WHERE
  leap.found IS NOT NULL
;

-- database.statements.of_each
-- Workers, hot: the earliest due rows of many due keys (partition and subscription), with a part for each.
SELECT
  anon_1.topic,
  anon_1.partition_no,
  anon_1.subscription_id,
  anon_1.next_attempt_at,
  anon_1.id
FROM (
  SELECT
    anon_2.topic AS topic,
    anon_2.partition_no AS partition_no,
    anon_2.subscription_id AS subscription_id,
    anon_2.next_attempt_at AS next_attempt_at,
    anon_2.id AS id
  FROM (
    SELECT
      webhook_deliveries.topic AS topic,
      webhook_deliveries.partition_no AS partition_no,
      webhook_deliveries.subscription_id AS subscription_id,
      webhook_deliveries.next_attempt_at AS next_attempt_at,
      webhook_deliveries.id AS id
    FROM webhook_deliveries
    WHERE
      webhook_deliveries.group_id = :b_group_id_0
      AND webhook_deliveries.status = :status_1
      AND webhook_deliveries.topic = :b_topic_0
      AND webhook_deliveries.partition_no = :b_partition_no_0
      AND webhook_deliveries.subscription_id = :b_subscription_id_0
    ORDER BY
      webhook_deliveries.next_attempt_at,
      webhook_deliveries.id
  ) anon_2
  WHERE
    ROWNUM <= 1
) anon_1
WHERE
  :b_asked_0 = 1
;

-- database.statements.of_each
-- The rows that may go right behind the first of many ordering keys, with a part for each.
SELECT
  anon_1.topic,
  anon_1.partition_no,
  anon_1.order_key,
  anon_1.subscription_id,
  anon_1.record_offset,
  anon_1.next_attempt_at,
  anon_1.id
FROM (
  SELECT
    anon_2.topic AS topic,
    anon_2.partition_no AS partition_no,
    anon_2.order_key AS order_key,
    anon_2.subscription_id AS subscription_id,
    anon_2.record_offset AS record_offset,
    anon_2.next_attempt_at AS next_attempt_at,
    anon_2.id AS id
  FROM (
    SELECT
      webhook_deliveries.topic AS topic,
      webhook_deliveries.partition_no AS partition_no,
      webhook_deliveries.order_key AS order_key,
      webhook_deliveries.subscription_id AS subscription_id,
      webhook_deliveries.record_offset AS record_offset,
      webhook_deliveries.next_attempt_at AS next_attempt_at,
      webhook_deliveries.id AS id
    FROM webhook_deliveries
    WHERE
      webhook_deliveries.group_id = :b_group_id_0
      AND webhook_deliveries.topic = :b_topic_0
      AND webhook_deliveries.partition_no = :b_partition_no_0
      AND webhook_deliveries.order_key = :b_order_key_0
      AND webhook_deliveries.subscription_id = :b_subscription_id_0
      AND webhook_deliveries.status = :status_1
      AND webhook_deliveries.record_offset > :b_record_offset_0
      AND NOT (
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
    ORDER BY
      webhook_deliveries.record_offset
  ) anon_2
  WHERE
    ROWNUM <= 8
) anon_1
WHERE
  :b_asked_0 = 1
;

-- database.statements.of_each
-- Probes: a row of many due keys that no open row of its ordering key precedes, with a part for each.
SELECT
  anon_1.topic,
  anon_1.partition_no,
  anon_1.subscription_id,
  anon_1.record_offset,
  anon_1.id
FROM (
  SELECT
    anon_2.topic AS topic,
    anon_2.partition_no AS partition_no,
    anon_2.subscription_id AS subscription_id,
    anon_2.record_offset AS record_offset,
    anon_2.id AS id
  FROM (
    SELECT
      webhook_deliveries.topic AS topic,
      webhook_deliveries.partition_no AS partition_no,
      webhook_deliveries.subscription_id AS subscription_id,
      webhook_deliveries.record_offset AS record_offset,
      webhook_deliveries.id AS id
    FROM webhook_deliveries
    WHERE
      webhook_deliveries.group_id = :b_group_id_0
      AND webhook_deliveries.topic = :b_topic_0
      AND webhook_deliveries.partition_no = :b_partition_no_0
      AND webhook_deliveries.subscription_id = :b_subscription_id_0
      AND webhook_deliveries.status = :status_1
      AND NOT (
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
      AND NOT (
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
      AND NOT (
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
    ORDER BY
      webhook_deliveries.next_attempt_at,
      webhook_deliveries.id
  ) anon_2
  WHERE
    ROWNUM <= 1
) anon_1
WHERE
  :b_asked_0 = 1
;

-- ledger.due._read
-- These rows, and those that may go right behind the first of their key.
SELECT
  webhook_deliveries.id,
  webhook_deliveries.topic,
  webhook_deliveries.partition_no,
  webhook_deliveries.record_offset,
  webhook_deliveries.record_ts,
  webhook_deliveries.subscription_id,
  webhook_deliveries.replay,
  webhook_deliveries.order_key,
  webhook_deliveries.filter_pending,
  webhook_deliveries.updated_at,
  webhook_deliveries.attempt,
  webhook_deliveries.schedule_start,
  webhook_deliveries.first_attempt_at,
  webhook_deliveries.first_error,
  webhook_deliveries.first_status,
  webhook_deliveries.last_attempt_at,
  webhook_deliveries.last_error,
  webhook_deliveries.last_status,
  webhook_deliveries.last_response,
  webhook_payloads.body_size
FROM webhook_deliveries
JOIN webhook_payloads
  ON webhook_payloads.group_id = webhook_deliveries.group_id
  AND webhook_payloads.topic = webhook_deliveries.topic
  AND webhook_payloads.partition_no = webhook_deliveries.partition_no
  AND webhook_payloads.record_offset = webhook_deliveries.record_offset
  AND webhook_payloads.record_ts = webhook_deliveries.record_ts
WHERE
  webhook_deliveries.id IN (:id_1_1)
  AND webhook_deliveries.status IN (:status_1_1, :status_1_2)
;

-- ledger.due._endpoints
-- Their subscriptions, with the signing secrets.
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
  webhook_tls.subscription_id AS tls_of
FROM webhook_subscriptions
LEFT OUTER JOIN webhook_secrets
  ON webhook_secrets.subscription_id = webhook_subscriptions.id
LEFT OUTER JOIN webhook_tls
  ON webhook_tls.subscription_id = webhook_subscriptions.id
WHERE
  webhook_subscriptions.id IN (:id_1_1)
  AND webhook_subscriptions.enabled = :enabled_1
  AND webhook_subscriptions.paused_at IS NULL
ORDER BY
  webhook_subscriptions.id,
  webhook_secrets.created_at DESC,
  webhook_secrets.id DESC
;

-- ledger.due._endpoints
-- A paused subscription is probed: likewise.
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
  webhook_tls.subscription_id AS tls_of
FROM webhook_subscriptions
LEFT OUTER JOIN webhook_secrets
  ON webhook_secrets.subscription_id = webhook_subscriptions.id
LEFT OUTER JOIN webhook_tls
  ON webhook_tls.subscription_id = webhook_subscriptions.id
WHERE
  webhook_subscriptions.id IN (:id_1_1)
  AND webhook_subscriptions.enabled = :enabled_1
ORDER BY
  webhook_subscriptions.id,
  webhook_secrets.created_at DESC,
  webhook_secrets.id DESC
;

-- ledger.due._events
-- Their records.
SELECT
  webhook_payloads.topic,
  webhook_payloads.partition_no,
  webhook_payloads.record_offset,
  webhook_payloads.record_ts,
  webhook_payloads.event_type,
  webhook_payloads.webhook_id,
  webhook_payloads.content_type,
  webhook_payloads.traceparent,
  webhook_payloads.has_key,
  webhook_payloads.body_size,
  webhook_payloads.tenant,
  webhook_payloads.record_key,
  webhook_payloads.record_headers,
  webhook_payloads.body
FROM webhook_payloads
JOIN webhook_deliveries
  ON webhook_payloads.group_id = webhook_deliveries.group_id
  AND webhook_payloads.topic = webhook_deliveries.topic
  AND webhook_payloads.partition_no = webhook_deliveries.partition_no
  AND webhook_payloads.record_offset = webhook_deliveries.record_offset
  AND webhook_payloads.record_ts = webhook_deliveries.record_ts
WHERE
  webhook_deliveries.id IN (:id_1_1, :id_1_2)
;

-- ledger.due.postpone
-- Rows whose subscription has no usable secret, but for locked ones.
SELECT
  webhook_deliveries.id
FROM webhook_deliveries
WHERE
  webhook_deliveries.id IN (:id_1_1, :id_1_2, :id_1_3, :id_1_4)   FOR UPDATE SKIP LOCKED
;

-- ledger.due.postpone
-- Postpone them, an array.
UPDATE webhook_deliveries SET next_attempt_at = :b_next_attempt_at
WHERE
  webhook_deliveries.id = :b_id AND webhook_deliveries.status = :status_1
;

-- ledger.due.postpone
-- Not all were free: the rows that still exist.
SELECT
  webhook_deliveries.id
FROM webhook_deliveries
WHERE
  webhook_deliveries.id IN (:id_1_1, :id_1_2, :id_1_3, :id_1_4)
;

-- ledger.marks.own
-- A partition is assigned, which a mark counts: the number of this assignment.
SELECT
  webhook_marks.asked
FROM webhook_marks
WHERE
  webhook_marks.group_id = :b_group_id
  AND webhook_marks.topic = :b_topic
  AND webhook_marks.partition_no = :b_partition_no
  AND webhook_marks.record_offset = :b_record_offset
  AND webhook_marks.subscription_id = :b_subscription_id
;

-- ledger.marks.is_owned
-- Before cursors are inserted: lock that count, if it is still this assignment's.
UPDATE webhook_marks SET asked = webhook_marks.asked
WHERE
  webhook_marks.group_id = :b_group_id
  AND webhook_marks.topic = :b_topic
  AND webhook_marks.partition_no = :b_partition_no
  AND webhook_marks.record_offset = :b_record_offset
  AND webhook_marks.subscription_id = :b_subscription_id
  AND webhook_marks.asked = :b_asked
;

-- ledger.marks.recent
-- A worker starts: the time of the newest mark.
SELECT
  anon_1.marked_at
FROM (
  SELECT
    webhook_marks.marked_at AS marked_at
  FROM webhook_marks
  WHERE
    webhook_marks.group_id = :group_id_1 AND webhook_marks.kind = :kind_1
  ORDER BY
    webhook_marks.marked_at DESC
) anon_1
WHERE
  ROWNUM <= 1
;

-- ledger.marks.recent
-- Workers, every few seconds: the new marks for owners of partitions.
SELECT
  webhook_marks.topic,
  webhook_marks.partition_no,
  webhook_marks.subscription_id,
  webhook_marks.asked,
  webhook_marks.marked_at
FROM webhook_marks
WHERE
  webhook_marks.group_id = :group_id_1
  AND webhook_marks.marked_at >= :marked_at_1
  AND webhook_marks.kind = :kind_1
;

-- ledger.marks.published
-- The console: the dead letters that were published again.
SELECT
  webhook_marks.partition_no,
  webhook_marks.record_offset,
  webhook_marks.marked_at
FROM webhook_marks
WHERE
  webhook_marks.group_id = :group_id_1
  AND webhook_marks.topic = :topic_1
  AND webhook_marks.record_offset >= :record_offset_1
;

-- ledger.marks.refused_since
-- Forget what was noted of an earlier topic's record.
DELETE FROM webhook_marks
WHERE
  webhook_marks.group_id = :b_group_id
  AND webhook_marks.topic = :b_topic
  AND webhook_marks.partition_no = :b_partition_no
  AND webhook_marks.record_offset = :b_record_offset
  AND webhook_marks.subscription_id = :b_subscription_id
  AND webhook_marks.marked_at < :marked_at_1
;

-- ledger.marks.refused_since
-- A delivery that the database refuses: note since when.
INSERT INTO webhook_marks (
  group_id,
  topic,
  partition_no,
  record_offset,
  subscription_id,
  kind,
  marked_at
)
SELECT
  :b_group_id AS anon_1,
  :b_topic AS anon_2,
  :b_partition_no AS anon_3,
  :b_record_offset AS anon_4,
  :b_subscription_id AS anon_5,
  :b_kind AS anon_6,
  :b_marked_at AS anon_7
FROM DUAL
WHERE
  NOT (
    EXISTS(
      SELECT
        *
      FROM webhook_marks
      WHERE
        webhook_marks.group_id = :b_group_id
        AND webhook_marks.topic = :b_topic
        AND webhook_marks.partition_no = :b_partition_no
        AND webhook_marks.record_offset = :b_record_offset
        AND webhook_marks.subscription_id = :b_subscription_id
    )
  )
;

-- ledger.marks.refused_since
-- Since when.
SELECT
  webhook_marks.marked_at
FROM webhook_marks
WHERE
  webhook_marks.group_id = :b_group_id
  AND webhook_marks.topic = :b_topic
  AND webhook_marks.partition_no = :b_partition_no
  AND webhook_marks.record_offset = :b_record_offset
  AND webhook_marks.subscription_id = :b_subscription_id
;

-- ledger.assigned.settled_keys
-- A partition is assigned or resumed: a page of its stored deliveries at or above an offset.
SELECT
  anon_1.record_offset,
  anon_1.record_ts,
  anon_1.subscription_id
FROM (
  SELECT
    webhook_deliveries.record_offset AS record_offset,
    webhook_deliveries.record_ts AS record_ts,
    webhook_deliveries.subscription_id AS subscription_id
  FROM webhook_deliveries
  WHERE
    webhook_deliveries.group_id = :group_id_1
    AND webhook_deliveries.topic = :topic_1
    AND webhook_deliveries.partition_no = :partition_no_1
    AND webhook_deliveries.replay = :replay_1
    AND webhook_deliveries.record_offset >= :record_offset_1
  ORDER BY
    webhook_deliveries.record_offset
) anon_1
WHERE
  ROWNUM <= 1
;

-- ledger.assigned.settled_keys
-- The same, for one record with more rows than a page.
SELECT
  webhook_deliveries.record_offset,
  webhook_deliveries.record_ts,
  webhook_deliveries.subscription_id
FROM webhook_deliveries
WHERE
  webhook_deliveries.group_id = :group_id_1
  AND webhook_deliveries.topic = :topic_1
  AND webhook_deliveries.partition_no = :partition_no_1
  AND webhook_deliveries.replay = :replay_1
  AND webhook_deliveries.record_offset = :record_offset_1
;

-- ledger.assigned.open_keys
-- A partition is assigned: its ordering keys with open rows.
SELECT
  anon_1.order_key,
  anon_1.subscription_id
FROM (
  SELECT DISTINCT
    webhook_deliveries.order_key AS order_key,
    webhook_deliveries.subscription_id AS subscription_id
  FROM webhook_deliveries
  WHERE
    webhook_deliveries.group_id = :group_id_1
    AND webhook_deliveries.status IN (:status_1_1, :status_1_2)
    AND webhook_deliveries.topic = :topic_1
    AND webhook_deliveries.partition_no = :partition_no_1
    AND webhook_deliveries.order_key >= :order_key_1
) anon_1
WHERE
  ROWNUM <= 11
;

-- ledger.assigned.open_topics
-- Upkeep: the first topic with rows of a state.
SELECT
  MIN(webhook_deliveries.topic) AS min_1
FROM webhook_deliveries
WHERE
  webhook_deliveries.group_id = :group_id_1
  AND webhook_deliveries.status = :status_1
;

-- ledger.assigned.open_topics
-- The next topic.
SELECT
  MIN(webhook_deliveries.topic) AS min_1
FROM webhook_deliveries
WHERE
  webhook_deliveries.group_id = :group_id_1
  AND webhook_deliveries.status = :status_1
  AND webhook_deliveries.topic > :topic_1
;

-- ledger.assigned.open_topics
-- Upkeep: the first topic with cursors.
SELECT
  MIN(webhook_cursors.topic) AS min_1
FROM webhook_cursors
WHERE
  webhook_cursors.group_id = :group_id_1
;

-- ledger.assigned.open_topics
-- The next topic.
SELECT
  MIN(webhook_cursors.topic) AS min_1
FROM webhook_cursors
WHERE
  webhook_cursors.group_id = :group_id_1 AND webhook_cursors.topic > :topic_1
;

-- ledger.assigned.next_partition
-- Upkeep: the next partition of a topic that has rows.
SELECT
  MIN(webhook_deliveries.partition_no) AS min_1
FROM webhook_deliveries
WHERE
  webhook_deliveries.group_id = :group_id_1
  AND webhook_deliveries.topic = :topic_1
  AND webhook_deliveries.partition_no > :partition_no_1
;

-- ledger.assigned.next_partition
-- Upkeep: the next partition of a topic that has cursors.
SELECT
  MIN(webhook_cursors.partition_no) AS min_1
FROM webhook_cursors
WHERE
  webhook_cursors.group_id = :group_id_1
  AND webhook_cursors.topic = :topic_1
  AND webhook_cursors.partition_no > :partition_no_1
;

-- ledger.assigned._numbers
-- Upkeep: the next of these partitions that has rows.
SELECT
  MIN(webhook_deliveries.partition_no) AS min_1
FROM webhook_deliveries
WHERE
  webhook_deliveries.group_id = :group_id_1
  AND webhook_deliveries.topic = :topic_1
  AND webhook_deliveries.partition_no >= :partition_no_1
;

-- ledger.assigned._numbers
-- Upkeep: the next of these partitions that has marks.
SELECT
  MIN(webhook_marks.partition_no) AS min_1
FROM webhook_marks
WHERE
  webhook_marks.group_id = :group_id_1
  AND webhook_marks.topic = :topic_1
  AND webhook_marks.record_offset > :record_offset_1
  AND webhook_marks.partition_no >= :partition_no_1
;

-- ledger.assigned._numbers
-- Upkeep: the next of these partitions that has cursors.
SELECT
  MIN(webhook_cursors.partition_no) AS min_1
FROM webhook_cursors
WHERE
  webhook_cursors.group_id = :group_id_1
  AND webhook_cursors.topic = :topic_1
  AND webhook_cursors.partition_no >= :partition_no_1
;
