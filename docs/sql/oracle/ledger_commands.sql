-- ledger.admin.find
-- A page of deliveries.
-- A call has only the requested conditions.
SELECT
  webhook_deliveries.id,
  webhook_deliveries.group_id,
  webhook_deliveries.topic,
  webhook_deliveries.partition_no,
  webhook_deliveries.record_offset,
  webhook_deliveries.record_ts,
  webhook_deliveries.subscription_id,
  webhook_deliveries.replay,
  webhook_deliveries.url,
  webhook_deliveries.status,
  webhook_deliveries.next_attempt_at,
  webhook_deliveries.order_key,
  webhook_deliveries.created_at,
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
  webhook_payloads.event_type,
  webhook_payloads.webhook_id
FROM webhook_deliveries
JOIN webhook_payloads
  ON webhook_payloads.group_id = webhook_deliveries.group_id
  AND webhook_payloads.topic = webhook_deliveries.topic
  AND webhook_payloads.partition_no = webhook_deliveries.partition_no
  AND webhook_payloads.record_offset = webhook_deliveries.record_offset
  AND webhook_payloads.record_ts = webhook_deliveries.record_ts
JOIN (
  SELECT
    anon_1.id AS id
  FROM (
    SELECT
      webhook_deliveries.id AS id
    FROM webhook_deliveries
    WHERE
      webhook_deliveries.group_id = :group_id_1
      AND webhook_deliveries.status IN (:status_1_1, :status_1_2)
      AND webhook_deliveries.subscription_id = :subscription_id_1
      AND webhook_deliveries.updated_at >= :updated_at_1
      AND webhook_deliveries.updated_at < :updated_at_2
      AND webhook_deliveries.id > :id_1
    ORDER BY
      webhook_deliveries.id
  ) anon_1
  WHERE
    ROWNUM <= 10
) page
  ON page.id = webhook_deliveries.id
ORDER BY
  webhook_deliveries.id
;

-- ledger.admin.find
-- A page of deliveries of an event type.
-- A call has only the requested conditions.
SELECT
  webhook_deliveries.id,
  webhook_deliveries.group_id,
  webhook_deliveries.topic,
  webhook_deliveries.partition_no,
  webhook_deliveries.record_offset,
  webhook_deliveries.record_ts,
  webhook_deliveries.subscription_id,
  webhook_deliveries.replay,
  webhook_deliveries.url,
  webhook_deliveries.status,
  webhook_deliveries.next_attempt_at,
  webhook_deliveries.order_key,
  webhook_deliveries.created_at,
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
  webhook_payloads.event_type,
  webhook_payloads.webhook_id
FROM webhook_deliveries
JOIN webhook_payloads
  ON webhook_payloads.group_id = webhook_deliveries.group_id
  AND webhook_payloads.topic = webhook_deliveries.topic
  AND webhook_payloads.partition_no = webhook_deliveries.partition_no
  AND webhook_payloads.record_offset = webhook_deliveries.record_offset
  AND webhook_payloads.record_ts = webhook_deliveries.record_ts
JOIN (
  SELECT
    anon_1.id AS id
  FROM (
    SELECT
      webhook_deliveries.id AS id
    FROM webhook_deliveries
    JOIN webhook_payloads
      ON webhook_payloads.group_id = webhook_deliveries.group_id
      AND webhook_payloads.topic = webhook_deliveries.topic
      AND webhook_payloads.partition_no = webhook_deliveries.partition_no
      AND webhook_payloads.record_offset = webhook_deliveries.record_offset
      AND webhook_payloads.record_ts = webhook_deliveries.record_ts
    WHERE
      webhook_deliveries.group_id = :group_id_1
      AND webhook_deliveries.status IN (:status_1_1, :status_1_2)
      AND webhook_deliveries.subscription_id = :subscription_id_1
      AND webhook_payloads.event_type = :event_type_1
      AND webhook_deliveries.updated_at >= :updated_at_1
      AND webhook_deliveries.updated_at < :updated_at_2
      AND webhook_deliveries.id > :id_1
    ORDER BY
      webhook_deliveries.id
  ) anon_1
  WHERE
    ROWNUM <= 10
) page
  ON page.id = webhook_deliveries.id
ORDER BY
  webhook_deliveries.id
;

-- ledger.admin.detail
-- One delivery.
SELECT
  webhook_deliveries.id,
  webhook_deliveries.group_id,
  webhook_deliveries.topic,
  webhook_deliveries.partition_no,
  webhook_deliveries.record_offset,
  webhook_deliveries.record_ts,
  webhook_deliveries.subscription_id,
  webhook_deliveries.replay,
  webhook_deliveries.url,
  webhook_deliveries.status,
  webhook_deliveries.next_attempt_at,
  webhook_deliveries.order_key,
  webhook_deliveries.created_at,
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
  webhook_payloads.event_type,
  webhook_payloads.webhook_id
FROM webhook_deliveries
JOIN webhook_payloads
  ON webhook_payloads.group_id = webhook_deliveries.group_id
  AND webhook_payloads.topic = webhook_deliveries.topic
  AND webhook_payloads.partition_no = webhook_deliveries.partition_no
  AND webhook_payloads.record_offset = webhook_deliveries.record_offset
  AND webhook_payloads.record_ts = webhook_deliveries.record_ts
WHERE
  webhook_deliveries.id = :id_1
;

-- ledger.admin.detail
-- Its record.
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
  webhook_deliveries.id = :id_1
;

-- ledger.admin._redeliver
-- The rows of a step that can be sent again.
-- A call has only the requested conditions.
SELECT
  webhook_deliveries.id,
  webhook_deliveries.attempt,
  webhook_deliveries.group_id,
  webhook_deliveries.topic,
  webhook_deliveries.partition_no,
  webhook_deliveries.subscription_id,
  webhook_deliveries.order_key,
  webhook_subscriptions.enabled,
  webhook_subscriptions.paused_at
FROM webhook_deliveries
LEFT OUTER JOIN webhook_subscriptions
  ON webhook_subscriptions.id = webhook_deliveries.subscription_id
WHERE
  webhook_deliveries.id IN (:id_1_1, :id_1_2, :id_1_3, :id_1_4)
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
    webhook_deliveries.updated_at >= :updated_at_1
  ) THEN 1 END = 1
  AND CASE WHEN (
    webhook_deliveries.updated_at < :updated_at_2
  ) THEN 1 END = 1
  AND CASE
    WHEN (
      webhook_deliveries.status IN (:status_2_1, :status_2_2, :status_2_3)
    )
    THEN 1
  END = 1
ORDER BY
  webhook_deliveries.id
;

-- ledger.admin._redeliver
-- Make them due, an array.
-- A call has only the requested conditions.
UPDATE webhook_deliveries SET status = :b_status, next_attempt_at = :b_now, updated_at = :b_now, schedule_start = webhook_deliveries.attempt, unpublished_by = :unpublished_by
WHERE
  webhook_deliveries.id = :b_id
  AND webhook_deliveries.attempt = :b_attempt
  AND (
    webhook_deliveries.status = :status_1
    OR webhook_deliveries.status = :status_2
    OR webhook_deliveries.status = :status_3
  )
;

-- ledger.admin._redeliver
-- The same, of an event type and a tenant.
-- A call has only the requested conditions.
SELECT
  webhook_deliveries.id,
  webhook_deliveries.attempt,
  webhook_deliveries.group_id,
  webhook_deliveries.topic,
  webhook_deliveries.partition_no,
  webhook_deliveries.subscription_id,
  webhook_deliveries.order_key,
  webhook_subscriptions.enabled,
  webhook_subscriptions.paused_at
FROM webhook_deliveries
JOIN webhook_payloads
  ON webhook_payloads.group_id = webhook_deliveries.group_id
  AND webhook_payloads.topic = webhook_deliveries.topic
  AND webhook_payloads.partition_no = webhook_deliveries.partition_no
  AND webhook_payloads.record_offset = webhook_deliveries.record_offset
  AND webhook_payloads.record_ts = webhook_deliveries.record_ts
LEFT OUTER JOIN webhook_subscriptions
  ON webhook_subscriptions.id = webhook_deliveries.subscription_id
WHERE
  webhook_deliveries.id IN (:id_1_1)
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
    webhook_payloads.event_type = :event_type_1
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
  AND CASE
    WHEN (
      webhook_deliveries.status IN (:status_2_1, :status_2_2, :status_2_3)
    )
    THEN 1
  END = 1
ORDER BY
  webhook_deliveries.id
;

-- ledger.given_up._restore
-- `redeliver --from-topic`: the order of these subscriptions, if they exist.
SELECT
  webhook_subscriptions.id,
  webhook_subscriptions.ordering
FROM webhook_subscriptions
WHERE
  webhook_subscriptions.id IN (:id_1_1)
;

-- ledger.given_up._renew
-- `redeliver --from-topic`: the topic has these rows, an array.
UPDATE webhook_deliveries SET updated_at = :b_now, unpublished_by = :unpublished_by, published_attempt = webhook_deliveries.attempt
WHERE
  webhook_deliveries.id = :b_id AND webhook_deliveries.attempt = :b_attempt
;

-- ledger.ordering.ahead
-- One delivery: the first open one of its ordering key, if that precedes it.
SELECT
  anon_1.id
FROM (
  SELECT
    webhook_deliveries_1.id AS id
  FROM webhook_deliveries webhook_deliveries_1
  JOIN webhook_deliveries
    ON webhook_deliveries_1.group_id = webhook_deliveries.group_id
    AND webhook_deliveries_1.topic = webhook_deliveries.topic
    AND webhook_deliveries_1.partition_no = webhook_deliveries.partition_no
    AND webhook_deliveries_1.order_key = webhook_deliveries.order_key
    AND webhook_deliveries_1.subscription_id = webhook_deliveries.subscription_id
  WHERE
    webhook_deliveries.id = :id_1
    AND webhook_deliveries_1.status IN (:status_1_1, :status_1_2)
    AND webhook_deliveries_1.record_offset < webhook_deliveries.record_offset
  ORDER BY
    webhook_deliveries_1.record_offset
) anon_1
WHERE
  ROWNUM <= 1
;

-- ledger.admin.of_record
-- Who got an event: the stored deliveries of its record.
SELECT
  anon_1.id,
  anon_1.group_id,
  anon_1.topic,
  anon_1.partition_no,
  anon_1.record_offset,
  anon_1.record_ts,
  anon_1.subscription_id,
  anon_1.replay,
  anon_1.url,
  anon_1.status,
  anon_1.next_attempt_at,
  anon_1.order_key,
  anon_1.created_at,
  anon_1.updated_at,
  anon_1.attempt,
  anon_1.schedule_start,
  anon_1.first_attempt_at,
  anon_1.first_error,
  anon_1.first_status,
  anon_1.last_attempt_at,
  anon_1.last_error,
  anon_1.last_status,
  anon_1.last_response,
  anon_1.event_type,
  anon_1.webhook_id
FROM (
  SELECT
    webhook_deliveries.id AS id,
    webhook_deliveries.group_id AS group_id,
    webhook_deliveries.topic AS topic,
    webhook_deliveries.partition_no AS partition_no,
    webhook_deliveries.record_offset AS record_offset,
    webhook_deliveries.record_ts AS record_ts,
    webhook_deliveries.subscription_id AS subscription_id,
    webhook_deliveries.replay AS replay,
    webhook_deliveries.url AS url,
    webhook_deliveries.status AS status,
    webhook_deliveries.next_attempt_at AS next_attempt_at,
    webhook_deliveries.order_key AS order_key,
    webhook_deliveries.created_at AS created_at,
    webhook_deliveries.updated_at AS updated_at,
    webhook_deliveries.attempt AS attempt,
    webhook_deliveries.schedule_start AS schedule_start,
    webhook_deliveries.first_attempt_at AS first_attempt_at,
    webhook_deliveries.first_error AS first_error,
    webhook_deliveries.first_status AS first_status,
    webhook_deliveries.last_attempt_at AS last_attempt_at,
    webhook_deliveries.last_error AS last_error,
    webhook_deliveries.last_status AS last_status,
    webhook_deliveries.last_response AS last_response,
    webhook_payloads.event_type AS event_type,
    webhook_payloads.webhook_id AS webhook_id
  FROM webhook_deliveries
  JOIN webhook_payloads
    ON webhook_payloads.group_id = webhook_deliveries.group_id
    AND webhook_payloads.topic = webhook_deliveries.topic
    AND webhook_payloads.partition_no = webhook_deliveries.partition_no
    AND webhook_payloads.record_offset = webhook_deliveries.record_offset
    AND webhook_payloads.record_ts = webhook_deliveries.record_ts
  WHERE
    webhook_deliveries.group_id = :group_id_1
    AND webhook_deliveries.topic = :topic_1
    AND webhook_deliveries.partition_no = :partition_no_1
    AND webhook_deliveries.record_offset = :record_offset_1
    AND webhook_deliveries.record_ts = :record_ts_1
  ORDER BY
    webhook_deliveries.subscription_id,
    webhook_deliveries.replay
) anon_1
WHERE
  ROWNUM <= 10
;

-- ledger.marks._mark
-- Mark due rows again for the partition's owner, or count an assignment, an array.
UPDATE webhook_marks SET asked = (
  webhook_marks.asked + :asked_1
), marked_at = SYS_EXTRACT_UTC(SYSTIMESTAMP)
WHERE
  webhook_marks.group_id = :b_group_id
  AND webhook_marks.topic = :b_topic
  AND webhook_marks.partition_no = :b_partition_no
  AND webhook_marks.record_offset = :b_record_offset
  AND webhook_marks.subscription_id = :b_subscription_id
;

-- ledger.marks._mark
-- Insert the first mark, an array.
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
  SYS_EXTRACT_UTC(SYSTIMESTAMP) AS anon_7
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

-- ledger.backlogs.count
-- `adopt`: how many cursors a group has.
SELECT
  COUNT(*) AS count_1
FROM webhook_cursors
WHERE
  webhook_cursors.group_id = :group_id_1
;

-- ledger.backlogs.topics
-- `check`: the groups and topics with cursors that owe events.
SELECT DISTINCT
  webhook_cursors.group_id,
  webhook_cursors.topic
FROM webhook_cursors
WHERE
  webhook_cursors.end_offset IS NULL
  OR webhook_cursors.end_offset > webhook_cursors.next_offset
ORDER BY
  webhook_cursors.group_id,
  webhook_cursors.topic
;

-- ledger.backlogs.adopt
-- `adopt`: delete cursors that the other group has itself.
DELETE FROM webhook_cursors
WHERE
  webhook_cursors.group_id = :group_id_1
  AND (
    EXISTS(
      SELECT
        *
      FROM webhook_cursors webhook_cursors_1
      WHERE
        webhook_cursors_1.group_id = :group_id_2
        AND webhook_cursors_1.topic = webhook_cursors.topic
        AND webhook_cursors_1.partition_no = webhook_cursors.partition_no
        AND webhook_cursors_1.subscription_id = webhook_cursors.subscription_id
        AND webhook_cursors_1.replay = webhook_cursors.replay
        AND webhook_cursors_1.first_offset = webhook_cursors.first_offset
    )
  )
;

-- ledger.backlogs.adopt
-- The due keys of the others.
SELECT DISTINCT
  :param_1 AS group_id,
  webhook_cursors.topic,
  webhook_cursors.partition_no,
  webhook_cursors.subscription_id
FROM webhook_cursors
WHERE
  webhook_cursors.group_id = :group_id_1
;

-- ledger.backlogs.adopt
-- Move them.
UPDATE webhook_cursors SET group_id = :group_id, version = (
  webhook_cursors.version + :version_1
)
WHERE
  webhook_cursors.group_id = :group_id_1
;

-- ledger.backlogs.adopt
-- Move their replays.
UPDATE webhook_replays SET group_id = :group_id
WHERE
  webhook_replays.group_id = :group_id_1 AND webhook_replays.finished_at IS NULL
;

-- ledger.backlogs.of_subscription
-- What a subscription's cursors owe it.
SELECT
  anon_1.group_id,
  anon_1.topic,
  anon_1.partition_no,
  anon_1.reason,
  anon_1.replay,
  anon_1.next_offset,
  anon_1.end_offset,
  anon_1.record_ts,
  anon_1.expires_at
FROM (
  SELECT
    webhook_cursors.group_id AS group_id,
    webhook_cursors.topic AS topic,
    webhook_cursors.partition_no AS partition_no,
    webhook_cursors.reason AS reason,
    webhook_cursors.replay AS replay,
    webhook_cursors.next_offset AS next_offset,
    webhook_cursors.end_offset AS end_offset,
    webhook_cursors.record_ts AS record_ts,
    webhook_cursors.expires_at AS expires_at
  FROM webhook_cursors
  WHERE
    webhook_cursors.subscription_id = :subscription_id_1
    AND (
      webhook_cursors.end_offset IS NULL
      OR webhook_cursors.end_offset > webhook_cursors.next_offset
    )
    AND NOT (
      EXISTS(
        SELECT
          *
        FROM webhook_replays
        WHERE
          webhook_replays.id = webhook_cursors.replay
          AND webhook_replays.cancelled_at IS NOT NULL
      )
    )
  ORDER BY
    webhook_cursors.topic,
    webhook_cursors.partition_no,
    webhook_cursors.group_id,
    webhook_cursors.first_offset
) anon_1
WHERE
  ROWNUM <= 1000
;

-- ledger.backlogs.covering
-- `explain`: the cursors that cover an offset, of these subscriptions.
SELECT
  webhook_cursors.subscription_id,
  webhook_cursors.reason
FROM webhook_cursors
WHERE
  webhook_cursors.group_id = :group_id_1
  AND webhook_cursors.topic = :topic_1
  AND webhook_cursors.partition_no = :partition_no_1
  AND webhook_cursors.replay = :replay_1
  AND webhook_cursors.next_offset <= :next_offset_1
  AND (
    webhook_cursors.end_offset IS NULL OR webhook_cursors.end_offset > :end_offset_1
  )
  AND webhook_cursors.subscription_id IN (:subscription_id_1_1)
;

-- ledger.search.progress
-- The number of these rows in each state.
SELECT
  webhook_deliveries.status
FROM webhook_deliveries
WHERE
  webhook_deliveries.id IN (:id_1_1, :id_1_2)
;

-- ledger.admin._adopt
-- A batch of rows, and whether the new group already has each delivery.
SELECT
  webhook_deliveries.id,
  webhook_deliveries.topic,
  webhook_deliveries.partition_no,
  webhook_deliveries.record_offset,
  webhook_deliveries.record_ts,
  webhook_deliveries.subscription_id,
  webhook_deliveries.replay,
  webhook_deliveries.order_key,
  webhook_deliveries_1.id AS theirs
FROM webhook_deliveries
LEFT OUTER JOIN webhook_deliveries webhook_deliveries_1
  ON webhook_deliveries_1.group_id = :group_id_1
  AND webhook_deliveries_1.topic = webhook_deliveries.topic
  AND webhook_deliveries_1.partition_no = webhook_deliveries.partition_no
  AND webhook_deliveries_1.record_offset = webhook_deliveries.record_offset
  AND webhook_deliveries_1.record_ts = webhook_deliveries.record_ts
  AND webhook_deliveries_1.subscription_id = webhook_deliveries.subscription_id
  AND webhook_deliveries_1.replay = webhook_deliveries.replay
WHERE
  CASE WHEN (
    webhook_deliveries.group_id = :group_id_2
  ) THEN 1 END = 1
  AND webhook_deliveries.id IN (:id_1_1, :id_1_2, :id_1_3, :id_1_4, :id_1_5, :id_1_6, :id_1_7, :id_1_8)
;

-- ledger.admin._adopt
-- Copy the payloads, an array.
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
  tenant,
  record_key,
  record_headers,
  body
)
SELECT
  :b_to AS anon_1,
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
      FROM webhook_payloads webhook_payloads_1
      WHERE
        webhook_payloads_1.group_id = :b_to
        AND webhook_payloads_1.topic = :b_topic
        AND webhook_payloads_1.partition_no = :b_partition_no
        AND webhook_payloads_1.record_offset = :b_record_offset
        AND webhook_payloads_1.record_ts = :b_record_ts
    )
  )
;

-- ledger.admin._adopt
-- Move the rows, an array.
UPDATE webhook_deliveries SET group_id = :b_to, updated_at = :b_now, unpublished_by = CASE WHEN (
  webhook_deliveries.unpublished_by IS NOT NULL
) THEN :b_to END, published_attempt = :published_attempt
WHERE
  webhook_deliveries.id = :b_id AND webhook_deliveries.group_id = :b_group_id
;

-- ledger.replays.create
-- Insert a replay.
INSERT INTO webhook_replays (
  group_id,
  subscription_id,
  since_at,
  until_at,
  event_type,
  rate,
  ordered,
  record_count,
  created_at,
  created_by,
  finished_at
)
VALUES
  (
    :group_id,
    :subscription_id,
    :since_at,
    :until_at,
    :event_type,
    :rate,
    :ordered,
    :record_count,
    :created_at,
    :created_by,
    :finished_at
  )
RETURNING webhook_replays.id INTO :ret_0
;

-- ledger.replays.load
-- A replay, its progress, and whether its subscription gets events.
SELECT
  webhook_replays.id,
  webhook_replays.group_id,
  webhook_replays.subscription_id,
  webhook_replays.since_at,
  webhook_replays.until_at,
  webhook_replays.event_type,
  webhook_replays.rate,
  webhook_replays.ordered,
  webhook_replays.record_count,
  webhook_replays.created_at,
  webhook_replays.created_by,
  webhook_replays.finished_at,
  webhook_replays.cancelled_at,
  (
    SELECT
      SUM(webhook_cursors.end_offset - webhook_cursors.next_offset) AS sum_1
    FROM webhook_cursors
    WHERE
      webhook_cursors.subscription_id = webhook_replays.subscription_id
      AND webhook_cursors.replay = webhook_replays.id
  ) AS records_left,
  webhook_subscriptions.enabled,
  webhook_subscriptions.paused_at
FROM webhook_replays
LEFT OUTER JOIN webhook_subscriptions
  ON webhook_subscriptions.id = webhook_replays.subscription_id
WHERE
  webhook_replays.id = :id_1
;

-- ledger.replays.load
-- The same, if its subscription is of a tenant.
SELECT
  webhook_replays.id,
  webhook_replays.group_id,
  webhook_replays.subscription_id,
  webhook_replays.since_at,
  webhook_replays.until_at,
  webhook_replays.event_type,
  webhook_replays.rate,
  webhook_replays.ordered,
  webhook_replays.record_count,
  webhook_replays.created_at,
  webhook_replays.created_by,
  webhook_replays.finished_at,
  webhook_replays.cancelled_at,
  (
    SELECT
      SUM(webhook_cursors.end_offset - webhook_cursors.next_offset) AS sum_1
    FROM webhook_cursors
    WHERE
      webhook_cursors.subscription_id = webhook_replays.subscription_id
      AND webhook_cursors.replay = webhook_replays.id
  ) AS records_left,
  webhook_subscriptions.enabled,
  webhook_subscriptions.paused_at
FROM webhook_replays
LEFT OUTER JOIN webhook_subscriptions
  ON webhook_subscriptions.id = webhook_replays.subscription_id
WHERE
  webhook_subscriptions.tenant = :tenant_1 AND webhook_replays.id = :id_1
;

-- ledger.replays.requests
-- Workers: the requests of replays that go on, and their cursors that are left.
SELECT
  webhook_replays.id,
  webhook_replays.since_at,
  webhook_replays.event_type,
  webhook_replays.rate,
  webhook_replays.ordered,
  (
    SELECT
      COUNT(*) AS count_1
    FROM webhook_cursors
    WHERE
      webhook_cursors.subscription_id = webhook_replays.subscription_id
      AND webhook_cursors.replay = webhook_replays.id
      AND webhook_cursors.next_offset < webhook_cursors.end_offset
  ) AS cursors
FROM webhook_replays
WHERE
  webhook_replays.id IN (:id_1_1)
  AND webhook_replays.finished_at IS NULL
  AND webhook_replays.cancelled_at IS NULL
;

-- ledger.replays.finish
-- Those that go on of the replays whose cursors have ended.
SELECT
  webhook_replays.id,
  webhook_replays.subscription_id
FROM webhook_replays
WHERE
  webhook_replays.id IN (:id_1_1)
  AND webhook_replays.finished_at IS NULL
  AND webhook_replays.cancelled_at IS NULL
;

-- ledger.replays.finish
-- Delete these cursors.
DELETE FROM webhook_cursors
WHERE
  webhook_cursors.subscription_id IN (:subscription_id_1_1)
  AND webhook_cursors.replay IN (:replay_1_1)
  AND webhook_cursors.next_offset = webhook_cursors.end_offset
;

-- ledger.replays.finish
-- Cancel those whose subscription was removed.
UPDATE webhook_replays SET cancelled_at = :cancelled_at
WHERE
  webhook_replays.id IN (:id_1_1)
  AND webhook_replays.finished_at IS NULL
  AND webhook_replays.cancelled_at IS NULL
  AND NOT (
    EXISTS(
      SELECT
        *
      FROM webhook_subscriptions
      WHERE
        webhook_subscriptions.id = webhook_replays.subscription_id
    )
  )
;

-- ledger.replays.finish
-- Finish those without a cursor.
UPDATE webhook_replays SET finished_at = :finished_at
WHERE
  webhook_replays.id IN (:id_1_1)
  AND webhook_replays.finished_at IS NULL
  AND webhook_replays.cancelled_at IS NULL
  AND (
    EXISTS(
      SELECT
        *
      FROM webhook_subscriptions
      WHERE
        webhook_subscriptions.id = webhook_replays.subscription_id
    )
  )
  AND NOT (
    EXISTS(
      SELECT
        *
      FROM webhook_cursors
      WHERE
        webhook_cursors.subscription_id = webhook_replays.subscription_id
        AND webhook_cursors.replay = webhook_replays.id
    )
  )
;

-- ledger.replays.finish
-- All replays that go on.
SELECT
  webhook_replays.id,
  webhook_replays.subscription_id
FROM webhook_replays
WHERE
  webhook_replays.finished_at IS NULL AND webhook_replays.cancelled_at IS NULL
;

-- ledger.replays.find
-- A page of replays, newest first; here of those that go on.
-- A call has only the requested conditions.
SELECT
  anon_1.id,
  anon_1.group_id,
  anon_1.subscription_id,
  anon_1.since_at,
  anon_1.until_at,
  anon_1.event_type,
  anon_1.rate,
  anon_1.ordered,
  anon_1.record_count,
  anon_1.created_at,
  anon_1.created_by,
  anon_1.finished_at,
  anon_1.cancelled_at,
  anon_1.records_left,
  anon_1.enabled,
  anon_1.paused_at
FROM (
  SELECT
    webhook_replays.id AS id,
    webhook_replays.group_id AS group_id,
    webhook_replays.subscription_id AS subscription_id,
    webhook_replays.since_at AS since_at,
    webhook_replays.until_at AS until_at,
    webhook_replays.event_type AS event_type,
    webhook_replays.rate AS rate,
    webhook_replays.ordered AS ordered,
    webhook_replays.record_count AS record_count,
    webhook_replays.created_at AS created_at,
    webhook_replays.created_by AS created_by,
    webhook_replays.finished_at AS finished_at,
    webhook_replays.cancelled_at AS cancelled_at,
    (
      SELECT
        SUM(webhook_cursors.end_offset - webhook_cursors.next_offset) AS sum_1
      FROM webhook_cursors
      WHERE
        webhook_cursors.subscription_id = webhook_replays.subscription_id
        AND webhook_cursors.replay = webhook_replays.id
    ) AS records_left,
    webhook_subscriptions.enabled AS enabled,
    webhook_subscriptions.paused_at AS paused_at
  FROM webhook_replays
  LEFT OUTER JOIN webhook_subscriptions
    ON webhook_subscriptions.id = webhook_replays.subscription_id
  WHERE
    webhook_replays.finished_at IS NULL
    AND webhook_replays.cancelled_at IS NULL
    AND webhook_replays.group_id = :group_id_1
    AND webhook_replays.subscription_id = :subscription_id_1
    AND webhook_replays.id < :id_1
  ORDER BY
    webhook_replays.id DESC
) anon_1
WHERE
  ROWNUM <= 10
;

-- ledger.replays.find
-- Here of those that are running.
-- A call has only the requested conditions.
SELECT
  anon_1.id,
  anon_1.group_id,
  anon_1.subscription_id,
  anon_1.since_at,
  anon_1.until_at,
  anon_1.event_type,
  anon_1.rate,
  anon_1.ordered,
  anon_1.record_count,
  anon_1.created_at,
  anon_1.created_by,
  anon_1.finished_at,
  anon_1.cancelled_at,
  anon_1.records_left,
  anon_1.enabled,
  anon_1.paused_at
FROM (
  SELECT
    webhook_replays.id AS id,
    webhook_replays.group_id AS group_id,
    webhook_replays.subscription_id AS subscription_id,
    webhook_replays.since_at AS since_at,
    webhook_replays.until_at AS until_at,
    webhook_replays.event_type AS event_type,
    webhook_replays.rate AS rate,
    webhook_replays.ordered AS ordered,
    webhook_replays.record_count AS record_count,
    webhook_replays.created_at AS created_at,
    webhook_replays.created_by AS created_by,
    webhook_replays.finished_at AS finished_at,
    webhook_replays.cancelled_at AS cancelled_at,
    (
      SELECT
        SUM(webhook_cursors.end_offset - webhook_cursors.next_offset) AS sum_1
      FROM webhook_cursors
      WHERE
        webhook_cursors.subscription_id = webhook_replays.subscription_id
        AND webhook_cursors.replay = webhook_replays.id
    ) AS records_left,
    webhook_subscriptions.enabled AS enabled,
    webhook_subscriptions.paused_at AS paused_at
  FROM webhook_replays
  LEFT OUTER JOIN webhook_subscriptions
    ON webhook_subscriptions.id = webhook_replays.subscription_id
  WHERE
    webhook_replays.finished_at IS NULL
    AND webhook_replays.cancelled_at IS NULL
    AND webhook_subscriptions.enabled = :enabled_1
    AND webhook_subscriptions.paused_at IS NULL
    AND webhook_replays.group_id = :group_id_1
    AND webhook_replays.subscription_id = :subscription_id_1
    AND webhook_replays.id < :id_1
  ORDER BY
    webhook_replays.id DESC
) anon_1
WHERE
  ROWNUM <= 10
;

-- ledger.replays.find
-- Here of those that are waiting.
-- A call has only the requested conditions.
SELECT
  anon_1.id,
  anon_1.group_id,
  anon_1.subscription_id,
  anon_1.since_at,
  anon_1.until_at,
  anon_1.event_type,
  anon_1.rate,
  anon_1.ordered,
  anon_1.record_count,
  anon_1.created_at,
  anon_1.created_by,
  anon_1.finished_at,
  anon_1.cancelled_at,
  anon_1.records_left,
  anon_1.enabled,
  anon_1.paused_at
FROM (
  SELECT
    webhook_replays.id AS id,
    webhook_replays.group_id AS group_id,
    webhook_replays.subscription_id AS subscription_id,
    webhook_replays.since_at AS since_at,
    webhook_replays.until_at AS until_at,
    webhook_replays.event_type AS event_type,
    webhook_replays.rate AS rate,
    webhook_replays.ordered AS ordered,
    webhook_replays.record_count AS record_count,
    webhook_replays.created_at AS created_at,
    webhook_replays.created_by AS created_by,
    webhook_replays.finished_at AS finished_at,
    webhook_replays.cancelled_at AS cancelled_at,
    (
      SELECT
        SUM(webhook_cursors.end_offset - webhook_cursors.next_offset) AS sum_1
      FROM webhook_cursors
      WHERE
        webhook_cursors.subscription_id = webhook_replays.subscription_id
        AND webhook_cursors.replay = webhook_replays.id
    ) AS records_left,
    webhook_subscriptions.enabled AS enabled,
    webhook_subscriptions.paused_at AS paused_at
  FROM webhook_replays
  LEFT OUTER JOIN webhook_subscriptions
    ON webhook_subscriptions.id = webhook_replays.subscription_id
  WHERE
    webhook_replays.finished_at IS NULL
    AND webhook_replays.cancelled_at IS NULL
    AND (
      webhook_subscriptions.enabled IS NULL
      OR webhook_subscriptions.enabled = :enabled_1
      OR webhook_subscriptions.paused_at IS NOT NULL
    )
    AND webhook_replays.group_id = :group_id_1
    AND webhook_replays.subscription_id = :subscription_id_1
    AND webhook_replays.id < :id_1
  ORDER BY
    webhook_replays.id DESC
) anon_1
WHERE
  ROWNUM <= 10
;

-- ledger.replays.find
-- Here of those that are finished.
-- A call has only the requested conditions.
SELECT
  anon_1.id,
  anon_1.group_id,
  anon_1.subscription_id,
  anon_1.since_at,
  anon_1.until_at,
  anon_1.event_type,
  anon_1.rate,
  anon_1.ordered,
  anon_1.record_count,
  anon_1.created_at,
  anon_1.created_by,
  anon_1.finished_at,
  anon_1.cancelled_at,
  anon_1.records_left,
  anon_1.enabled,
  anon_1.paused_at
FROM (
  SELECT
    webhook_replays.id AS id,
    webhook_replays.group_id AS group_id,
    webhook_replays.subscription_id AS subscription_id,
    webhook_replays.since_at AS since_at,
    webhook_replays.until_at AS until_at,
    webhook_replays.event_type AS event_type,
    webhook_replays.rate AS rate,
    webhook_replays.ordered AS ordered,
    webhook_replays.record_count AS record_count,
    webhook_replays.created_at AS created_at,
    webhook_replays.created_by AS created_by,
    webhook_replays.finished_at AS finished_at,
    webhook_replays.cancelled_at AS cancelled_at,
    (
      SELECT
        SUM(webhook_cursors.end_offset - webhook_cursors.next_offset) AS sum_1
      FROM webhook_cursors
      WHERE
        webhook_cursors.subscription_id = webhook_replays.subscription_id
        AND webhook_cursors.replay = webhook_replays.id
    ) AS records_left,
    webhook_subscriptions.enabled AS enabled,
    webhook_subscriptions.paused_at AS paused_at
  FROM webhook_replays
  LEFT OUTER JOIN webhook_subscriptions
    ON webhook_subscriptions.id = webhook_replays.subscription_id
  WHERE
    webhook_replays.finished_at IS NOT NULL
    AND webhook_replays.cancelled_at IS NULL
    AND webhook_replays.group_id = :group_id_1
    AND webhook_replays.subscription_id = :subscription_id_1
    AND webhook_replays.id < :id_1
  ORDER BY
    webhook_replays.id DESC
) anon_1
WHERE
  ROWNUM <= 10
;

-- ledger.replays.find
-- Here of those that are cancelled.
-- A call has only the requested conditions.
SELECT
  anon_1.id,
  anon_1.group_id,
  anon_1.subscription_id,
  anon_1.since_at,
  anon_1.until_at,
  anon_1.event_type,
  anon_1.rate,
  anon_1.ordered,
  anon_1.record_count,
  anon_1.created_at,
  anon_1.created_by,
  anon_1.finished_at,
  anon_1.cancelled_at,
  anon_1.records_left,
  anon_1.enabled,
  anon_1.paused_at
FROM (
  SELECT
    webhook_replays.id AS id,
    webhook_replays.group_id AS group_id,
    webhook_replays.subscription_id AS subscription_id,
    webhook_replays.since_at AS since_at,
    webhook_replays.until_at AS until_at,
    webhook_replays.event_type AS event_type,
    webhook_replays.rate AS rate,
    webhook_replays.ordered AS ordered,
    webhook_replays.record_count AS record_count,
    webhook_replays.created_at AS created_at,
    webhook_replays.created_by AS created_by,
    webhook_replays.finished_at AS finished_at,
    webhook_replays.cancelled_at AS cancelled_at,
    (
      SELECT
        SUM(webhook_cursors.end_offset - webhook_cursors.next_offset) AS sum_1
      FROM webhook_cursors
      WHERE
        webhook_cursors.subscription_id = webhook_replays.subscription_id
        AND webhook_cursors.replay = webhook_replays.id
    ) AS records_left,
    webhook_subscriptions.enabled AS enabled,
    webhook_subscriptions.paused_at AS paused_at
  FROM webhook_replays
  LEFT OUTER JOIN webhook_subscriptions
    ON webhook_subscriptions.id = webhook_replays.subscription_id
  WHERE
    webhook_replays.cancelled_at IS NOT NULL
    AND webhook_replays.group_id = :group_id_1
    AND webhook_replays.subscription_id = :subscription_id_1
    AND webhook_replays.id < :id_1
  ORDER BY
    webhook_replays.id DESC
) anon_1
WHERE
  ROWNUM <= 10
;

-- ledger.replays.find
-- The same of a tenant's subscriptions: those that go on.
-- A call has only the requested conditions.
SELECT
  anon_1.id,
  anon_1.group_id,
  anon_1.subscription_id,
  anon_1.since_at,
  anon_1.until_at,
  anon_1.event_type,
  anon_1.rate,
  anon_1.ordered,
  anon_1.record_count,
  anon_1.created_at,
  anon_1.created_by,
  anon_1.finished_at,
  anon_1.cancelled_at,
  anon_1.records_left,
  anon_1.enabled,
  anon_1.paused_at
FROM (
  SELECT
    webhook_replays.id AS id,
    webhook_replays.group_id AS group_id,
    webhook_replays.subscription_id AS subscription_id,
    webhook_replays.since_at AS since_at,
    webhook_replays.until_at AS until_at,
    webhook_replays.event_type AS event_type,
    webhook_replays.rate AS rate,
    webhook_replays.ordered AS ordered,
    webhook_replays.record_count AS record_count,
    webhook_replays.created_at AS created_at,
    webhook_replays.created_by AS created_by,
    webhook_replays.finished_at AS finished_at,
    webhook_replays.cancelled_at AS cancelled_at,
    (
      SELECT
        SUM(webhook_cursors.end_offset - webhook_cursors.next_offset) AS sum_1
      FROM webhook_cursors
      WHERE
        webhook_cursors.subscription_id = webhook_replays.subscription_id
        AND webhook_cursors.replay = webhook_replays.id
    ) AS records_left,
    webhook_subscriptions.enabled AS enabled,
    webhook_subscriptions.paused_at AS paused_at
  FROM webhook_replays
  LEFT OUTER JOIN webhook_subscriptions
    ON webhook_subscriptions.id = webhook_replays.subscription_id
  WHERE
    webhook_subscriptions.tenant = :tenant_1
    AND webhook_replays.finished_at IS NULL
    AND webhook_replays.cancelled_at IS NULL
    AND webhook_replays.group_id = :group_id_1
    AND webhook_replays.subscription_id = :subscription_id_1
    AND webhook_replays.id < :id_1
  ORDER BY
    webhook_replays.id DESC
) anon_1
WHERE
  ROWNUM <= 10
;

-- ledger.replays.find
-- A tenant's that are running.
-- A call has only the requested conditions.
SELECT
  anon_1.id,
  anon_1.group_id,
  anon_1.subscription_id,
  anon_1.since_at,
  anon_1.until_at,
  anon_1.event_type,
  anon_1.rate,
  anon_1.ordered,
  anon_1.record_count,
  anon_1.created_at,
  anon_1.created_by,
  anon_1.finished_at,
  anon_1.cancelled_at,
  anon_1.records_left,
  anon_1.enabled,
  anon_1.paused_at
FROM (
  SELECT
    webhook_replays.id AS id,
    webhook_replays.group_id AS group_id,
    webhook_replays.subscription_id AS subscription_id,
    webhook_replays.since_at AS since_at,
    webhook_replays.until_at AS until_at,
    webhook_replays.event_type AS event_type,
    webhook_replays.rate AS rate,
    webhook_replays.ordered AS ordered,
    webhook_replays.record_count AS record_count,
    webhook_replays.created_at AS created_at,
    webhook_replays.created_by AS created_by,
    webhook_replays.finished_at AS finished_at,
    webhook_replays.cancelled_at AS cancelled_at,
    (
      SELECT
        SUM(webhook_cursors.end_offset - webhook_cursors.next_offset) AS sum_1
      FROM webhook_cursors
      WHERE
        webhook_cursors.subscription_id = webhook_replays.subscription_id
        AND webhook_cursors.replay = webhook_replays.id
    ) AS records_left,
    webhook_subscriptions.enabled AS enabled,
    webhook_subscriptions.paused_at AS paused_at
  FROM webhook_replays
  LEFT OUTER JOIN webhook_subscriptions
    ON webhook_subscriptions.id = webhook_replays.subscription_id
  WHERE
    webhook_subscriptions.tenant = :tenant_1
    AND webhook_replays.finished_at IS NULL
    AND webhook_replays.cancelled_at IS NULL
    AND webhook_subscriptions.enabled = :enabled_1
    AND webhook_subscriptions.paused_at IS NULL
    AND webhook_replays.group_id = :group_id_1
    AND webhook_replays.subscription_id = :subscription_id_1
    AND webhook_replays.id < :id_1
  ORDER BY
    webhook_replays.id DESC
) anon_1
WHERE
  ROWNUM <= 10
;

-- ledger.replays.find
-- A tenant's that are waiting.
-- A call has only the requested conditions.
SELECT
  anon_1.id,
  anon_1.group_id,
  anon_1.subscription_id,
  anon_1.since_at,
  anon_1.until_at,
  anon_1.event_type,
  anon_1.rate,
  anon_1.ordered,
  anon_1.record_count,
  anon_1.created_at,
  anon_1.created_by,
  anon_1.finished_at,
  anon_1.cancelled_at,
  anon_1.records_left,
  anon_1.enabled,
  anon_1.paused_at
FROM (
  SELECT
    webhook_replays.id AS id,
    webhook_replays.group_id AS group_id,
    webhook_replays.subscription_id AS subscription_id,
    webhook_replays.since_at AS since_at,
    webhook_replays.until_at AS until_at,
    webhook_replays.event_type AS event_type,
    webhook_replays.rate AS rate,
    webhook_replays.ordered AS ordered,
    webhook_replays.record_count AS record_count,
    webhook_replays.created_at AS created_at,
    webhook_replays.created_by AS created_by,
    webhook_replays.finished_at AS finished_at,
    webhook_replays.cancelled_at AS cancelled_at,
    (
      SELECT
        SUM(webhook_cursors.end_offset - webhook_cursors.next_offset) AS sum_1
      FROM webhook_cursors
      WHERE
        webhook_cursors.subscription_id = webhook_replays.subscription_id
        AND webhook_cursors.replay = webhook_replays.id
    ) AS records_left,
    webhook_subscriptions.enabled AS enabled,
    webhook_subscriptions.paused_at AS paused_at
  FROM webhook_replays
  LEFT OUTER JOIN webhook_subscriptions
    ON webhook_subscriptions.id = webhook_replays.subscription_id
  WHERE
    webhook_subscriptions.tenant = :tenant_1
    AND webhook_replays.finished_at IS NULL
    AND webhook_replays.cancelled_at IS NULL
    AND (
      webhook_subscriptions.enabled IS NULL
      OR webhook_subscriptions.enabled = :enabled_1
      OR webhook_subscriptions.paused_at IS NOT NULL
    )
    AND webhook_replays.group_id = :group_id_1
    AND webhook_replays.subscription_id = :subscription_id_1
    AND webhook_replays.id < :id_1
  ORDER BY
    webhook_replays.id DESC
) anon_1
WHERE
  ROWNUM <= 10
;

-- ledger.replays.find
-- A tenant's that are finished.
-- A call has only the requested conditions.
SELECT
  anon_1.id,
  anon_1.group_id,
  anon_1.subscription_id,
  anon_1.since_at,
  anon_1.until_at,
  anon_1.event_type,
  anon_1.rate,
  anon_1.ordered,
  anon_1.record_count,
  anon_1.created_at,
  anon_1.created_by,
  anon_1.finished_at,
  anon_1.cancelled_at,
  anon_1.records_left,
  anon_1.enabled,
  anon_1.paused_at
FROM (
  SELECT
    webhook_replays.id AS id,
    webhook_replays.group_id AS group_id,
    webhook_replays.subscription_id AS subscription_id,
    webhook_replays.since_at AS since_at,
    webhook_replays.until_at AS until_at,
    webhook_replays.event_type AS event_type,
    webhook_replays.rate AS rate,
    webhook_replays.ordered AS ordered,
    webhook_replays.record_count AS record_count,
    webhook_replays.created_at AS created_at,
    webhook_replays.created_by AS created_by,
    webhook_replays.finished_at AS finished_at,
    webhook_replays.cancelled_at AS cancelled_at,
    (
      SELECT
        SUM(webhook_cursors.end_offset - webhook_cursors.next_offset) AS sum_1
      FROM webhook_cursors
      WHERE
        webhook_cursors.subscription_id = webhook_replays.subscription_id
        AND webhook_cursors.replay = webhook_replays.id
    ) AS records_left,
    webhook_subscriptions.enabled AS enabled,
    webhook_subscriptions.paused_at AS paused_at
  FROM webhook_replays
  LEFT OUTER JOIN webhook_subscriptions
    ON webhook_subscriptions.id = webhook_replays.subscription_id
  WHERE
    webhook_subscriptions.tenant = :tenant_1
    AND webhook_replays.finished_at IS NOT NULL
    AND webhook_replays.cancelled_at IS NULL
    AND webhook_replays.group_id = :group_id_1
    AND webhook_replays.subscription_id = :subscription_id_1
    AND webhook_replays.id < :id_1
  ORDER BY
    webhook_replays.id DESC
) anon_1
WHERE
  ROWNUM <= 10
;

-- ledger.replays.find
-- A tenant's that are cancelled.
-- A call has only the requested conditions.
SELECT
  anon_1.id,
  anon_1.group_id,
  anon_1.subscription_id,
  anon_1.since_at,
  anon_1.until_at,
  anon_1.event_type,
  anon_1.rate,
  anon_1.ordered,
  anon_1.record_count,
  anon_1.created_at,
  anon_1.created_by,
  anon_1.finished_at,
  anon_1.cancelled_at,
  anon_1.records_left,
  anon_1.enabled,
  anon_1.paused_at
FROM (
  SELECT
    webhook_replays.id AS id,
    webhook_replays.group_id AS group_id,
    webhook_replays.subscription_id AS subscription_id,
    webhook_replays.since_at AS since_at,
    webhook_replays.until_at AS until_at,
    webhook_replays.event_type AS event_type,
    webhook_replays.rate AS rate,
    webhook_replays.ordered AS ordered,
    webhook_replays.record_count AS record_count,
    webhook_replays.created_at AS created_at,
    webhook_replays.created_by AS created_by,
    webhook_replays.finished_at AS finished_at,
    webhook_replays.cancelled_at AS cancelled_at,
    (
      SELECT
        SUM(webhook_cursors.end_offset - webhook_cursors.next_offset) AS sum_1
      FROM webhook_cursors
      WHERE
        webhook_cursors.subscription_id = webhook_replays.subscription_id
        AND webhook_cursors.replay = webhook_replays.id
    ) AS records_left,
    webhook_subscriptions.enabled AS enabled,
    webhook_subscriptions.paused_at AS paused_at
  FROM webhook_replays
  LEFT OUTER JOIN webhook_subscriptions
    ON webhook_subscriptions.id = webhook_replays.subscription_id
  WHERE
    webhook_subscriptions.tenant = :tenant_1
    AND webhook_replays.cancelled_at IS NOT NULL
    AND webhook_replays.group_id = :group_id_1
    AND webhook_replays.subscription_id = :subscription_id_1
    AND webhook_replays.id < :id_1
  ORDER BY
    webhook_replays.id DESC
) anon_1
WHERE
  ROWNUM <= 10
;

-- ledger.replays._set
-- Cancel a replay.
UPDATE webhook_replays SET cancelled_at = :cancelled_at
WHERE
  webhook_replays.id = :id_1
  AND webhook_replays.finished_at IS NULL
  AND webhook_replays.cancelled_at IS NULL
;

-- ledger.replays._set
-- The places of its cursors, whose owners look.
SELECT
  webhook_replays.group_id,
  webhook_cursors.topic,
  webhook_cursors.partition_no,
  webhook_cursors.subscription_id
FROM webhook_cursors
JOIN webhook_replays
  ON webhook_cursors.subscription_id = webhook_replays.subscription_id
  AND webhook_cursors.replay = webhook_replays.id
WHERE
  webhook_replays.id = :id_1
  AND webhook_cursors.next_offset < webhook_cursors.end_offset
;

-- ledger.replays._set
-- Resume it.
UPDATE webhook_replays SET cancelled_at = :cancelled_at
WHERE
  webhook_replays.id = :id_1
  AND webhook_replays.cancelled_at IS NOT NULL
  AND webhook_replays.finished_at IS NULL
  AND (
    EXISTS(
      SELECT
        *
      FROM webhook_subscriptions
      WHERE
        webhook_subscriptions.id = webhook_replays.subscription_id
    )
  )
;

-- ledger.request_keys.find
-- The creation of an earlier request with this idempotency key.
SELECT
  webhook_request_keys.resource_id,
  webhook_request_keys.request_digest,
  webhook_request_keys.created_at
FROM webhook_request_keys
WHERE
  webhook_request_keys.key_digest = :key_digest_1
;

-- ledger.request_keys.note
-- A bounded number of idempotency keys older than a day.
SELECT
  anon_1.key_digest
FROM (
  SELECT
    webhook_request_keys.key_digest AS key_digest
  FROM webhook_request_keys
  WHERE
    webhook_request_keys.created_at <= :created_at_1
  ORDER BY
    webhook_request_keys.created_at
) anon_1
WHERE
  ROWNUM <= 100
;

-- ledger.request_keys.note
-- Delete them, and this key if it is that old, an array.
DELETE FROM webhook_request_keys
WHERE
  webhook_request_keys.key_digest = :b_key_digest
  AND webhook_request_keys.created_at <= :created_at_1
;

-- ledger.request_keys.note
-- Insert a request's key and creation; fails if another request with the key was faster.
INSERT INTO webhook_request_keys (
  key_digest,
  request_digest,
  resource_id,
  created_at
)
VALUES
  (:key_digest, :request_digest, :resource_id, :created_at)
;

-- ledger.search.statuses
-- `audit deliveries`: the rows of a thousand offsets.
SELECT
  webhook_deliveries.subscription_id,
  webhook_deliveries.record_offset,
  webhook_deliveries.record_ts,
  webhook_deliveries.status
FROM webhook_deliveries
WHERE
  webhook_deliveries.group_id = :group_id_1
  AND webhook_deliveries.topic = :topic_1
  AND webhook_deliveries.partition_no = :partition_no_1
  AND webhook_deliveries.replay = :replay_1
  AND webhook_deliveries.record_offset >= :record_offset_1
  AND webhook_deliveries.record_offset < :record_offset_2
;

-- ledger.search.by_state
-- The number of rows in each state, up to a bound.
SELECT
  (
    SELECT
      COUNT(*) AS count_1
    FROM (
      SELECT
        anon_3.id AS id
      FROM (
        SELECT
          webhook_deliveries.id AS id
        FROM webhook_deliveries
        WHERE
          webhook_deliveries.status = :status_1
      ) anon_3
      WHERE
        ROWNUM <= 10001
    ) anon_2
  ) AS anon_1,
  (
    SELECT
      COUNT(*) AS count_2
    FROM (
      SELECT
        anon_6.id AS id
      FROM (
        SELECT
          webhook_deliveries.id AS id
        FROM webhook_deliveries
        WHERE
          webhook_deliveries.status = :status_2
      ) anon_6
      WHERE
        ROWNUM <= 10001
    ) anon_5
  ) AS anon_4,
  (
    SELECT
      COUNT(*) AS count_3
    FROM (
      SELECT
        anon_9.id AS id
      FROM (
        SELECT
          webhook_deliveries.id AS id
        FROM webhook_deliveries
        WHERE
          webhook_deliveries.status = :status_3
      ) anon_9
      WHERE
        ROWNUM <= 10001
    ) anon_8
  ) AS anon_7,
  (
    SELECT
      COUNT(*) AS count_4
    FROM (
      SELECT
        anon_12.id AS id
      FROM (
        SELECT
          webhook_deliveries.id AS id
        FROM webhook_deliveries
        WHERE
          webhook_deliveries.status = :status_4
      ) anon_12
      WHERE
        ROWNUM <= 10001
    ) anon_11
  ) AS anon_10,
  (
    SELECT
      COUNT(*) AS count_5
    FROM (
      SELECT
        anon_15.id AS id
      FROM (
        SELECT
          webhook_deliveries.id AS id
        FROM webhook_deliveries
        WHERE
          webhook_deliveries.status = :status_5
      ) anon_15
      WHERE
        ROWNUM <= 10001
    ) anon_14
  ) AS anon_13
FROM DUAL
;

-- ledger.search.by_state
-- The same, of a tenant's subscriptions.
SELECT
  (
    SELECT
      COUNT(*) AS count_1
    FROM (
      SELECT
        anon_3.id AS id
      FROM (
        SELECT
          webhook_deliveries.id AS id
        FROM webhook_deliveries
        WHERE
          webhook_deliveries.subscription_id IN (
            SELECT
              webhook_subscriptions.id
            FROM webhook_subscriptions
            WHERE
              webhook_subscriptions.tenant = :tenant_1
          )
          AND webhook_deliveries.status = :status_1
      ) anon_3
      WHERE
        ROWNUM <= 10001
    ) anon_2
  ) AS anon_1,
  (
    SELECT
      COUNT(*) AS count_2
    FROM (
      SELECT
        anon_6.id AS id
      FROM (
        SELECT
          webhook_deliveries.id AS id
        FROM webhook_deliveries
        WHERE
          webhook_deliveries.subscription_id IN (
            SELECT
              webhook_subscriptions.id
            FROM webhook_subscriptions
            WHERE
              webhook_subscriptions.tenant = :tenant_1
          )
          AND webhook_deliveries.status = :status_2
      ) anon_6
      WHERE
        ROWNUM <= 10001
    ) anon_5
  ) AS anon_4,
  (
    SELECT
      COUNT(*) AS count_3
    FROM (
      SELECT
        anon_9.id AS id
      FROM (
        SELECT
          webhook_deliveries.id AS id
        FROM webhook_deliveries
        WHERE
          webhook_deliveries.subscription_id IN (
            SELECT
              webhook_subscriptions.id
            FROM webhook_subscriptions
            WHERE
              webhook_subscriptions.tenant = :tenant_1
          )
          AND webhook_deliveries.status = :status_3
      ) anon_9
      WHERE
        ROWNUM <= 10001
    ) anon_8
  ) AS anon_7,
  (
    SELECT
      COUNT(*) AS count_4
    FROM (
      SELECT
        anon_12.id AS id
      FROM (
        SELECT
          webhook_deliveries.id AS id
        FROM webhook_deliveries
        WHERE
          webhook_deliveries.subscription_id IN (
            SELECT
              webhook_subscriptions.id
            FROM webhook_subscriptions
            WHERE
              webhook_subscriptions.tenant = :tenant_1
          )
          AND webhook_deliveries.status = :status_4
      ) anon_12
      WHERE
        ROWNUM <= 10001
    ) anon_11
  ) AS anon_10,
  (
    SELECT
      COUNT(*) AS count_5
    FROM (
      SELECT
        anon_15.id AS id
      FROM (
        SELECT
          webhook_deliveries.id AS id
        FROM webhook_deliveries
        WHERE
          webhook_deliveries.subscription_id IN (
            SELECT
              webhook_subscriptions.id
            FROM webhook_subscriptions
            WHERE
              webhook_subscriptions.tenant = :tenant_1
          )
          AND webhook_deliveries.status = :status_5
      ) anon_15
      WHERE
        ROWNUM <= 10001
    ) anon_14
  ) AS anon_13
FROM DUAL
;

-- ledger.search.most_loaded
-- The subscriptions of the oldest and the newest rows of each open state.
SELECT
  anon_1.subscription_id
FROM (
  SELECT
    anon_2.subscription_id AS subscription_id
  FROM (
    SELECT
      anon_3.subscription_id AS subscription_id
    FROM (
      SELECT
        anon_4.subscription_id AS subscription_id
      FROM (
        SELECT
          webhook_deliveries.subscription_id AS subscription_id
        FROM webhook_deliveries
        WHERE
          webhook_deliveries.status = :status_1
        ORDER BY
          webhook_deliveries.id ASC
      ) anon_4
      WHERE
        ROWNUM <= 1000
    ) anon_3
    UNION ALL
    SELECT
      anon_5.subscription_id AS subscription_id
    FROM (
      SELECT
        anon_6.subscription_id AS subscription_id
      FROM (
        SELECT
          webhook_deliveries.subscription_id AS subscription_id
        FROM webhook_deliveries
        WHERE
          webhook_deliveries.status = :status_2
        ORDER BY
          webhook_deliveries.id DESC
      ) anon_6
      WHERE
        ROWNUM <= 1000
    ) anon_5
    UNION ALL
    SELECT
      anon_7.subscription_id AS subscription_id
    FROM (
      SELECT
        anon_8.subscription_id AS subscription_id
      FROM (
        SELECT
          webhook_deliveries.subscription_id AS subscription_id
        FROM webhook_deliveries
        WHERE
          webhook_deliveries.status = :status_3
        ORDER BY
          webhook_deliveries.id ASC
      ) anon_8
      WHERE
        ROWNUM <= 1000
    ) anon_7
    UNION ALL
    SELECT
      anon_9.subscription_id AS subscription_id
    FROM (
      SELECT
        anon_10.subscription_id AS subscription_id
      FROM (
        SELECT
          webhook_deliveries.subscription_id AS subscription_id
        FROM webhook_deliveries
        WHERE
          webhook_deliveries.status = :status_4
        ORDER BY
          webhook_deliveries.id DESC
      ) anon_10
      WHERE
        ROWNUM <= 1000
    ) anon_9
    UNION ALL
    SELECT
      anon_11.subscription_id AS subscription_id
    FROM (
      SELECT
        anon_12.subscription_id AS subscription_id
      FROM (
        SELECT
          webhook_deliveries.subscription_id AS subscription_id
        FROM webhook_deliveries
        WHERE
          webhook_deliveries.status = :status_5
        ORDER BY
          webhook_deliveries.id ASC
      ) anon_12
      WHERE
        ROWNUM <= 1000
    ) anon_11
    UNION ALL
    SELECT
      anon_13.subscription_id AS subscription_id
    FROM (
      SELECT
        anon_14.subscription_id AS subscription_id
      FROM (
        SELECT
          webhook_deliveries.subscription_id AS subscription_id
        FROM webhook_deliveries
        WHERE
          webhook_deliveries.status = :status_6
        ORDER BY
          webhook_deliveries.id DESC
      ) anon_14
      WHERE
        ROWNUM <= 1000
    ) anon_13
  ) anon_2
  GROUP BY
    anon_2.subscription_id
  ORDER BY
    COUNT(*) DESC,
    anon_2.subscription_id
) anon_1
WHERE
  ROWNUM <= 1
;

-- ledger.search.loads
-- The number of open rows of each of some subscriptions, up to a bound.
SELECT
  MAX(anon_1.subscription_id) AS subscription_id,
  COUNT(*) AS "number"
FROM (
  SELECT
    anon_2.subscription_id AS subscription_id
  FROM (
    SELECT
      webhook_deliveries.subscription_id AS subscription_id
    FROM webhook_deliveries
    WHERE
      webhook_deliveries.subscription_id = :b_0
      AND webhook_deliveries.status IN (:status_1_1, :status_1_2, :status_1_3)
  ) anon_2
  WHERE
    ROWNUM <= :b_most
) anon_1
UNION ALL
SELECT
  MAX(anon_3.subscription_id) AS subscription_id,
  COUNT(*) AS "number"
FROM (
  SELECT
    anon_4.subscription_id AS subscription_id
  FROM (
    SELECT
      webhook_deliveries.subscription_id AS subscription_id
    FROM webhook_deliveries
    WHERE
      webhook_deliveries.subscription_id = :b_1
      AND webhook_deliveries.status IN (:status_2_1, :status_2_2, :status_2_3)
  ) anon_4
  WHERE
    ROWNUM <= :b_most
) anon_3
;

-- ledger.search.last_failures
-- The last failures of the newest and oldest rows of each of some subscriptions.
SELECT
  anon_1.subscription_id,
  anon_1.updated_at,
  anon_1.attempt,
  anon_1.schedule_start,
  anon_1.first_attempt_at,
  anon_1.first_error,
  anon_1.first_status,
  anon_1.last_attempt_at,
  anon_1.last_error,
  anon_1.last_status,
  anon_1.last_response
FROM (
  SELECT
    anon_2.subscription_id AS subscription_id,
    anon_2.updated_at AS updated_at,
    anon_2.attempt AS attempt,
    anon_2.schedule_start AS schedule_start,
    anon_2.first_attempt_at AS first_attempt_at,
    anon_2.first_error AS first_error,
    anon_2.first_status AS first_status,
    anon_2.last_attempt_at AS last_attempt_at,
    anon_2.last_error AS last_error,
    anon_2.last_status AS last_status,
    anon_2.last_response AS last_response
  FROM (
    SELECT
      webhook_deliveries.subscription_id AS subscription_id,
      webhook_deliveries.updated_at AS updated_at,
      webhook_deliveries.attempt AS attempt,
      webhook_deliveries.schedule_start AS schedule_start,
      webhook_deliveries.first_attempt_at AS first_attempt_at,
      webhook_deliveries.first_error AS first_error,
      webhook_deliveries.first_status AS first_status,
      webhook_deliveries.last_attempt_at AS last_attempt_at,
      webhook_deliveries.last_error AS last_error,
      webhook_deliveries.last_status AS last_status,
      webhook_deliveries.last_response AS last_response
    FROM webhook_deliveries
    WHERE
      webhook_deliveries.subscription_id = :b_0
      AND webhook_deliveries.status = :status_1
    ORDER BY
      webhook_deliveries.id DESC
  ) anon_2
  WHERE
    ROWNUM <= 10
) anon_1
UNION ALL
SELECT
  anon_3.subscription_id,
  anon_3.updated_at,
  anon_3.attempt,
  anon_3.schedule_start,
  anon_3.first_attempt_at,
  anon_3.first_error,
  anon_3.first_status,
  anon_3.last_attempt_at,
  anon_3.last_error,
  anon_3.last_status,
  anon_3.last_response
FROM (
  SELECT
    anon_4.subscription_id AS subscription_id,
    anon_4.updated_at AS updated_at,
    anon_4.attempt AS attempt,
    anon_4.schedule_start AS schedule_start,
    anon_4.first_attempt_at AS first_attempt_at,
    anon_4.first_error AS first_error,
    anon_4.first_status AS first_status,
    anon_4.last_attempt_at AS last_attempt_at,
    anon_4.last_error AS last_error,
    anon_4.last_status AS last_status,
    anon_4.last_response AS last_response
  FROM (
    SELECT
      webhook_deliveries.subscription_id AS subscription_id,
      webhook_deliveries.updated_at AS updated_at,
      webhook_deliveries.attempt AS attempt,
      webhook_deliveries.schedule_start AS schedule_start,
      webhook_deliveries.first_attempt_at AS first_attempt_at,
      webhook_deliveries.first_error AS first_error,
      webhook_deliveries.first_status AS first_status,
      webhook_deliveries.last_attempt_at AS last_attempt_at,
      webhook_deliveries.last_error AS last_error,
      webhook_deliveries.last_status AS last_status,
      webhook_deliveries.last_response AS last_response
    FROM webhook_deliveries
    WHERE
      webhook_deliveries.subscription_id = :b_0
      AND webhook_deliveries.status = :status_2
    ORDER BY
      webhook_deliveries.id ASC
  ) anon_4
  WHERE
    ROWNUM <= 10
) anon_3
UNION ALL
SELECT
  anon_5.subscription_id,
  anon_5.updated_at,
  anon_5.attempt,
  anon_5.schedule_start,
  anon_5.first_attempt_at,
  anon_5.first_error,
  anon_5.first_status,
  anon_5.last_attempt_at,
  anon_5.last_error,
  anon_5.last_status,
  anon_5.last_response
FROM (
  SELECT
    anon_6.subscription_id AS subscription_id,
    anon_6.updated_at AS updated_at,
    anon_6.attempt AS attempt,
    anon_6.schedule_start AS schedule_start,
    anon_6.first_attempt_at AS first_attempt_at,
    anon_6.first_error AS first_error,
    anon_6.first_status AS first_status,
    anon_6.last_attempt_at AS last_attempt_at,
    anon_6.last_error AS last_error,
    anon_6.last_status AS last_status,
    anon_6.last_response AS last_response
  FROM (
    SELECT
      webhook_deliveries.subscription_id AS subscription_id,
      webhook_deliveries.updated_at AS updated_at,
      webhook_deliveries.attempt AS attempt,
      webhook_deliveries.schedule_start AS schedule_start,
      webhook_deliveries.first_attempt_at AS first_attempt_at,
      webhook_deliveries.first_error AS first_error,
      webhook_deliveries.first_status AS first_status,
      webhook_deliveries.last_attempt_at AS last_attempt_at,
      webhook_deliveries.last_error AS last_error,
      webhook_deliveries.last_status AS last_status,
      webhook_deliveries.last_response AS last_response
    FROM webhook_deliveries
    WHERE
      webhook_deliveries.subscription_id = :b_0
      AND webhook_deliveries.status = :status_3
    ORDER BY
      webhook_deliveries.id DESC
  ) anon_6
  WHERE
    ROWNUM <= 10
) anon_5
UNION ALL
SELECT
  anon_7.subscription_id,
  anon_7.updated_at,
  anon_7.attempt,
  anon_7.schedule_start,
  anon_7.first_attempt_at,
  anon_7.first_error,
  anon_7.first_status,
  anon_7.last_attempt_at,
  anon_7.last_error,
  anon_7.last_status,
  anon_7.last_response
FROM (
  SELECT
    anon_8.subscription_id AS subscription_id,
    anon_8.updated_at AS updated_at,
    anon_8.attempt AS attempt,
    anon_8.schedule_start AS schedule_start,
    anon_8.first_attempt_at AS first_attempt_at,
    anon_8.first_error AS first_error,
    anon_8.first_status AS first_status,
    anon_8.last_attempt_at AS last_attempt_at,
    anon_8.last_error AS last_error,
    anon_8.last_status AS last_status,
    anon_8.last_response AS last_response
  FROM (
    SELECT
      webhook_deliveries.subscription_id AS subscription_id,
      webhook_deliveries.updated_at AS updated_at,
      webhook_deliveries.attempt AS attempt,
      webhook_deliveries.schedule_start AS schedule_start,
      webhook_deliveries.first_attempt_at AS first_attempt_at,
      webhook_deliveries.first_error AS first_error,
      webhook_deliveries.first_status AS first_status,
      webhook_deliveries.last_attempt_at AS last_attempt_at,
      webhook_deliveries.last_error AS last_error,
      webhook_deliveries.last_status AS last_status,
      webhook_deliveries.last_response AS last_response
    FROM webhook_deliveries
    WHERE
      webhook_deliveries.subscription_id = :b_1
      AND webhook_deliveries.status = :status_4
    ORDER BY
      webhook_deliveries.id DESC
  ) anon_8
  WHERE
    ROWNUM <= 10
) anon_7
UNION ALL
SELECT
  anon_9.subscription_id,
  anon_9.updated_at,
  anon_9.attempt,
  anon_9.schedule_start,
  anon_9.first_attempt_at,
  anon_9.first_error,
  anon_9.first_status,
  anon_9.last_attempt_at,
  anon_9.last_error,
  anon_9.last_status,
  anon_9.last_response
FROM (
  SELECT
    anon_10.subscription_id AS subscription_id,
    anon_10.updated_at AS updated_at,
    anon_10.attempt AS attempt,
    anon_10.schedule_start AS schedule_start,
    anon_10.first_attempt_at AS first_attempt_at,
    anon_10.first_error AS first_error,
    anon_10.first_status AS first_status,
    anon_10.last_attempt_at AS last_attempt_at,
    anon_10.last_error AS last_error,
    anon_10.last_status AS last_status,
    anon_10.last_response AS last_response
  FROM (
    SELECT
      webhook_deliveries.subscription_id AS subscription_id,
      webhook_deliveries.updated_at AS updated_at,
      webhook_deliveries.attempt AS attempt,
      webhook_deliveries.schedule_start AS schedule_start,
      webhook_deliveries.first_attempt_at AS first_attempt_at,
      webhook_deliveries.first_error AS first_error,
      webhook_deliveries.first_status AS first_status,
      webhook_deliveries.last_attempt_at AS last_attempt_at,
      webhook_deliveries.last_error AS last_error,
      webhook_deliveries.last_status AS last_status,
      webhook_deliveries.last_response AS last_response
    FROM webhook_deliveries
    WHERE
      webhook_deliveries.subscription_id = :b_1
      AND webhook_deliveries.status = :status_5
    ORDER BY
      webhook_deliveries.id ASC
  ) anon_10
  WHERE
    ROWNUM <= 10
) anon_9
UNION ALL
SELECT
  anon_11.subscription_id,
  anon_11.updated_at,
  anon_11.attempt,
  anon_11.schedule_start,
  anon_11.first_attempt_at,
  anon_11.first_error,
  anon_11.first_status,
  anon_11.last_attempt_at,
  anon_11.last_error,
  anon_11.last_status,
  anon_11.last_response
FROM (
  SELECT
    anon_12.subscription_id AS subscription_id,
    anon_12.updated_at AS updated_at,
    anon_12.attempt AS attempt,
    anon_12.schedule_start AS schedule_start,
    anon_12.first_attempt_at AS first_attempt_at,
    anon_12.first_error AS first_error,
    anon_12.first_status AS first_status,
    anon_12.last_attempt_at AS last_attempt_at,
    anon_12.last_error AS last_error,
    anon_12.last_status AS last_status,
    anon_12.last_response AS last_response
  FROM (
    SELECT
      webhook_deliveries.subscription_id AS subscription_id,
      webhook_deliveries.updated_at AS updated_at,
      webhook_deliveries.attempt AS attempt,
      webhook_deliveries.schedule_start AS schedule_start,
      webhook_deliveries.first_attempt_at AS first_attempt_at,
      webhook_deliveries.first_error AS first_error,
      webhook_deliveries.first_status AS first_status,
      webhook_deliveries.last_attempt_at AS last_attempt_at,
      webhook_deliveries.last_error AS last_error,
      webhook_deliveries.last_status AS last_status,
      webhook_deliveries.last_response AS last_response
    FROM webhook_deliveries
    WHERE
      webhook_deliveries.subscription_id = :b_1
      AND webhook_deliveries.status = :status_6
    ORDER BY
      webhook_deliveries.id DESC
  ) anon_12
  WHERE
    ROWNUM <= 10
) anon_11
;

-- ledger.search._range
-- Searches by time: the first and the last row.
SELECT
  (
    SELECT
      MIN(webhook_deliveries.id) AS min_1
    FROM webhook_deliveries
  ) AS anon_1,
  (
    SELECT
      MAX(webhook_deliveries.id) AS max_1
    FROM webhook_deliveries
  ) AS anon_2
FROM DUAL
;

-- ledger.search._around
-- The storing times of fifteen ids, or of the next ids.
SELECT
  (
    SELECT
      anon_2.created_at
    FROM (
      SELECT
        webhook_deliveries.created_at AS created_at
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.id >= :id_1
      ORDER BY
        webhook_deliveries.id
    ) anon_2
    WHERE
      ROWNUM <= 1
  ) AS anon_1,
  (
    SELECT
      anon_4.created_at
    FROM (
      SELECT
        webhook_deliveries.created_at AS created_at
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.id >= :id_2
      ORDER BY
        webhook_deliveries.id
    ) anon_4
    WHERE
      ROWNUM <= 1
  ) AS anon_3,
  (
    SELECT
      anon_6.created_at
    FROM (
      SELECT
        webhook_deliveries.created_at AS created_at
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.id >= :id_3
      ORDER BY
        webhook_deliveries.id
    ) anon_6
    WHERE
      ROWNUM <= 1
  ) AS anon_5,
  (
    SELECT
      anon_8.created_at
    FROM (
      SELECT
        webhook_deliveries.created_at AS created_at
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.id >= :id_4
      ORDER BY
        webhook_deliveries.id
    ) anon_8
    WHERE
      ROWNUM <= 1
  ) AS anon_7,
  (
    SELECT
      anon_10.created_at
    FROM (
      SELECT
        webhook_deliveries.created_at AS created_at
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.id >= :id_5
      ORDER BY
        webhook_deliveries.id
    ) anon_10
    WHERE
      ROWNUM <= 1
  ) AS anon_9,
  (
    SELECT
      anon_12.created_at
    FROM (
      SELECT
        webhook_deliveries.created_at AS created_at
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.id >= :id_6
      ORDER BY
        webhook_deliveries.id
    ) anon_12
    WHERE
      ROWNUM <= 1
  ) AS anon_11,
  (
    SELECT
      anon_14.created_at
    FROM (
      SELECT
        webhook_deliveries.created_at AS created_at
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.id >= :id_7
      ORDER BY
        webhook_deliveries.id
    ) anon_14
    WHERE
      ROWNUM <= 1
  ) AS anon_13,
  (
    SELECT
      anon_16.created_at
    FROM (
      SELECT
        webhook_deliveries.created_at AS created_at
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.id >= :id_8
      ORDER BY
        webhook_deliveries.id
    ) anon_16
    WHERE
      ROWNUM <= 1
  ) AS anon_15,
  (
    SELECT
      anon_18.created_at
    FROM (
      SELECT
        webhook_deliveries.created_at AS created_at
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.id >= :id_9
      ORDER BY
        webhook_deliveries.id
    ) anon_18
    WHERE
      ROWNUM <= 1
  ) AS anon_17,
  (
    SELECT
      anon_20.created_at
    FROM (
      SELECT
        webhook_deliveries.created_at AS created_at
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.id >= :id_10
      ORDER BY
        webhook_deliveries.id
    ) anon_20
    WHERE
      ROWNUM <= 1
  ) AS anon_19,
  (
    SELECT
      anon_22.created_at
    FROM (
      SELECT
        webhook_deliveries.created_at AS created_at
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.id >= :id_11
      ORDER BY
        webhook_deliveries.id
    ) anon_22
    WHERE
      ROWNUM <= 1
  ) AS anon_21,
  (
    SELECT
      anon_24.created_at
    FROM (
      SELECT
        webhook_deliveries.created_at AS created_at
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.id >= :id_12
      ORDER BY
        webhook_deliveries.id
    ) anon_24
    WHERE
      ROWNUM <= 1
  ) AS anon_23,
  (
    SELECT
      anon_26.created_at
    FROM (
      SELECT
        webhook_deliveries.created_at AS created_at
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.id >= :id_13
      ORDER BY
        webhook_deliveries.id
    ) anon_26
    WHERE
      ROWNUM <= 1
  ) AS anon_25,
  (
    SELECT
      anon_28.created_at
    FROM (
      SELECT
        webhook_deliveries.created_at AS created_at
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.id >= :id_14
      ORDER BY
        webhook_deliveries.id
    ) anon_28
    WHERE
      ROWNUM <= 1
  ) AS anon_27,
  (
    SELECT
      anon_30.created_at
    FROM (
      SELECT
        webhook_deliveries.created_at AS created_at
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.id >= :id_15
      ORDER BY
        webhook_deliveries.id
    ) anon_30
    WHERE
      ROWNUM <= 1
  ) AS anon_29
FROM DUAL
;

-- ledger.search._newest_of_tenant
-- Searches by tenant: the newest row of each of its subscriptions, by state.
SELECT
  anon_1.id,
  anon_1.anon_2,
  anon_1.anon_3,
  anon_1.anon_4,
  anon_1.anon_5,
  anon_1.anon_6
FROM (
  SELECT
    webhook_subscriptions.id AS id,
    (
      SELECT
        MAX(webhook_deliveries.id) AS max_1
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.subscription_id = webhook_subscriptions.id
        AND webhook_deliveries.id >= :id_1
        AND webhook_deliveries.id < :id_2
        AND webhook_deliveries.status = :status_1
    ) AS anon_2,
    (
      SELECT
        MAX(webhook_deliveries.id) AS max_2
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.subscription_id = webhook_subscriptions.id
        AND webhook_deliveries.id >= :id_1
        AND webhook_deliveries.id < :id_2
        AND webhook_deliveries.status = :status_2
    ) AS anon_3,
    (
      SELECT
        MAX(webhook_deliveries.id) AS max_3
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.subscription_id = webhook_subscriptions.id
        AND webhook_deliveries.id >= :id_1
        AND webhook_deliveries.id < :id_2
        AND webhook_deliveries.status = :status_3
    ) AS anon_4,
    (
      SELECT
        MAX(webhook_deliveries.id) AS max_4
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.subscription_id = webhook_subscriptions.id
        AND webhook_deliveries.id >= :id_1
        AND webhook_deliveries.id < :id_2
        AND webhook_deliveries.status = :status_4
    ) AS anon_5,
    (
      SELECT
        MAX(webhook_deliveries.id) AS max_5
      FROM webhook_deliveries
      WHERE
        webhook_deliveries.subscription_id = webhook_subscriptions.id
        AND webhook_deliveries.id >= :id_1
        AND webhook_deliveries.id < :id_2
        AND webhook_deliveries.status = :status_5
    ) AS anon_6
  FROM webhook_subscriptions
  WHERE
    webhook_subscriptions.tenant = :tenant_1
) anon_1
WHERE
  ROWNUM <= 1001
;

-- ledger.search._ids
-- The ids of a page of a search, newest first, of each state or subscription.
-- A call has only the requested conditions.
SELECT
  anon_1.id
FROM (
  SELECT
    anon_2.id AS id
  FROM (
    SELECT
      webhook_deliveries.id AS id
    FROM webhook_deliveries
    WHERE
      webhook_deliveries.id >= :id_1
      AND webhook_deliveries.id < :id_2
      AND webhook_deliveries.subscription_id = :subscription_id_1
      AND webhook_deliveries.status = :status_1
    ORDER BY
      webhook_deliveries.id DESC
  ) anon_2
  WHERE
    ROWNUM <= 513
) anon_1
UNION ALL
SELECT
  anon_3.id
FROM (
  SELECT
    anon_4.id AS id
  FROM (
    SELECT
      webhook_deliveries.id AS id
    FROM webhook_deliveries
    WHERE
      webhook_deliveries.id >= :id_3
      AND webhook_deliveries.id < :id_4
      AND webhook_deliveries.subscription_id = :subscription_id_2
      AND webhook_deliveries.status = :status_2
    ORDER BY
      webhook_deliveries.id DESC
  ) anon_4
  WHERE
    ROWNUM <= 513
) anon_3
;

-- ledger.search.search
-- The rows of these ids that meet conditions without an index.
-- A call has only the requested conditions.
SELECT
  anon_1.id,
  anon_1.group_id,
  anon_1.topic,
  anon_1.partition_no,
  anon_1.record_offset,
  anon_1.record_ts,
  anon_1.subscription_id,
  anon_1.replay,
  anon_1.url,
  anon_1.status,
  anon_1.next_attempt_at,
  anon_1.order_key,
  anon_1.created_at,
  anon_1.updated_at,
  anon_1.attempt,
  anon_1.schedule_start,
  anon_1.first_attempt_at,
  anon_1.first_error,
  anon_1.first_status,
  anon_1.last_attempt_at,
  anon_1.last_error,
  anon_1.last_status,
  anon_1.last_response,
  anon_1.event_type,
  anon_1.webhook_id
FROM (
  SELECT
    webhook_deliveries.id AS id,
    webhook_deliveries.group_id AS group_id,
    webhook_deliveries.topic AS topic,
    webhook_deliveries.partition_no AS partition_no,
    webhook_deliveries.record_offset AS record_offset,
    webhook_deliveries.record_ts AS record_ts,
    webhook_deliveries.subscription_id AS subscription_id,
    webhook_deliveries.replay AS replay,
    webhook_deliveries.url AS url,
    webhook_deliveries.status AS status,
    webhook_deliveries.next_attempt_at AS next_attempt_at,
    webhook_deliveries.order_key AS order_key,
    webhook_deliveries.created_at AS created_at,
    webhook_deliveries.updated_at AS updated_at,
    webhook_deliveries.attempt AS attempt,
    webhook_deliveries.schedule_start AS schedule_start,
    webhook_deliveries.first_attempt_at AS first_attempt_at,
    webhook_deliveries.first_error AS first_error,
    webhook_deliveries.first_status AS first_status,
    webhook_deliveries.last_attempt_at AS last_attempt_at,
    webhook_deliveries.last_error AS last_error,
    webhook_deliveries.last_status AS last_status,
    webhook_deliveries.last_response AS last_response,
    webhook_payloads.event_type AS event_type,
    webhook_payloads.webhook_id AS webhook_id
  FROM webhook_deliveries
  JOIN webhook_payloads
    ON webhook_payloads.group_id = webhook_deliveries.group_id
    AND webhook_payloads.topic = webhook_deliveries.topic
    AND webhook_payloads.partition_no = webhook_deliveries.partition_no
    AND webhook_payloads.record_offset = webhook_deliveries.record_offset
    AND webhook_payloads.record_ts = webhook_deliveries.record_ts
  WHERE
    webhook_deliveries.id IN (:id_1_1, :id_1_2)
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
      webhook_payloads.event_type = :event_type_1
    ) THEN 1 END = 1
    AND CASE WHEN (
      webhook_payloads.webhook_id = :webhook_id_1
    ) THEN 1 END = 1
    AND CASE WHEN (
      webhook_deliveries.topic = :topic_1
    ) THEN 1 END = 1
    AND CASE WHEN (
      webhook_deliveries.created_at >= :created_at_1
    ) THEN 1 END = 1
    AND CASE WHEN (
      webhook_deliveries.created_at < :created_at_2
    ) THEN 1 END = 1
  ORDER BY
    webhook_deliveries.id DESC
) anon_1
WHERE
  ROWNUM <= 50
;

-- ledger.search.of_subscription
-- A subscription's number of rows by state.
SELECT
  webhook_deliveries.status,
  COUNT(*) AS "number"
FROM webhook_deliveries
WHERE
  webhook_deliveries.subscription_id = :subscription_id_1
GROUP BY
  webhook_deliveries.status
;

-- ledger.search.next_of
-- The earliest due time of these rows.
SELECT
  anon_1.next_attempt_at
FROM (
  SELECT
    webhook_deliveries.next_attempt_at AS next_attempt_at
  FROM webhook_deliveries
  WHERE
    webhook_deliveries.id IN (:id_1_1, :id_1_2)
    AND webhook_deliveries.status = :status_1
  ORDER BY
    webhook_deliveries.next_attempt_at
) anon_1
WHERE
  ROWNUM <= 1
;
