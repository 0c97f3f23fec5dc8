"""A row that the database never accepts: its record goes to the dead-letter topic, and its offset moves."""

from tests.end_to_end.service_rig import Deployment, eventually
from tests.end_to_end.webhook_receiver import Answer, always
from tests.kafka_kit import Kafka, headers_of, read_all

NEVER = """
CREATE TRIGGER never BEFORE INSERT ON webhook_deliveries WHEN NEW.partition_no = 1 AND NEW.record_offset = 2
BEGIN SELECT RAISE(ABORT, 'a rule of ours'); END
"""


def test_a_row_that_is_never_stored_ends_as_a_dead_letter(deployment: Deployment, kafka_bootstrap: str) -> None:
    """It has the record and the reason. Other deliveries are unaffected, and the worker is ready again."""
    dead = Kafka(kafka_bootstrap, real=True).topic()
    failing = deployment.subscribe("a", "/fails")
    deployment.receiver.rules["/fails"] = always(Answer(503))
    deployment.sql(NEVER)
    worker = deployment.start(
        KAFKA_DEAD_LETTER_TOPIC=dead,
        WEBHOOK_RETRY_IN_MEMORY="0",
        WEBHOOK_RETRY_SCHEDULE="1h",
        WEBHOOK_REFUSED_AFTER="5s",
    )
    deployment.publish(["a"] * 20)
    body = next(body for number, body in enumerate(deployment.published) if number == 9)
    eventually(lambda: f"partition 1, offset 2, subscription {failing}" in worker.unready_because())
    eventually(lambda: not deployment.lag())
    eventually(worker.ready)
    (letter,) = read_all(kafka_bootstrap, dead)
    assert letter.value() == body
    found = headers_of(letter)
    assert (found["dead-letter-reason"], found["dead-letter-offset"]) == (b"not_stored", b"2")
    assert b"a rule of ours" in found["dead-letter-detail"]
    assert len(deployment.rows("parked")) == 19
    worker.stop()
