"""A row that the database never accepts: its offset is held until an operator decides, with a command."""

import pytest

from tests.end_to_end.command_line import CommandLine, end_of
from tests.end_to_end.service_rig import Deployment, eventually
from tests.end_to_end.webhook_receiver import Answer, always
from tests.kafka_kit import Kafka, headers_of, read_all

NEVER = """
CREATE TRIGGER never BEFORE INSERT ON webhook_deliveries WHEN NEW.partition_no = 1 AND NEW.record_offset = 2
BEGIN SELECT RAISE(ABORT, 'a rule of ours'); END
"""


@pytest.mark.parametrize("decision", ["--give-up", "--dead-letter"])
def test_an_operator_decides_on_a_row_that_is_never_stored(
    deployment: Deployment, command_line: CommandLine, kafka_bootstrap: str, decision: str
) -> None:
    """/readyz names the command, which releases the offset, also across a restart; other deliveries are unaffected."""
    dead = Kafka(kafka_bootstrap, real=True).topic()
    settings = {"KAFKA_DEAD_LETTER_TOPIC": dead, "WEBHOOK_RETRY_IN_MEMORY": "0", "WEBHOOK_RETRY_SCHEDULE": "1h"}
    failing = deployment.subscribe("a", "/fails")
    deployment.receiver.rules["/fails"] = always(Answer(503))
    deployment.subscribe("b", "/good")
    deployment.sql(NEVER)
    worker = deployment.start(**settings)
    deployment.publish(["a"] * 20)
    body = next(body for number, body in enumerate(deployment.published) if number == 9)
    place = f"{deployment.topic} 1 2"
    eventually(lambda: f"kafka-webhooks deliveries settle {place} --subscription {failing}" in worker.unready_because())
    eventually(lambda: len(deployment.rows("parked")) == 19)
    eventually(lambda: deployment.lag() == 3)
    assert deployment.committed()[1] == 2
    worker.stop()

    words = ["deliveries", "settle", *place.split(), "--subscription", str(failing), decision, "--yes"]
    process = command_line.start(*words, KAFKA_DEAD_LETTER_TOPIC=dead)
    eventually(lambda: deployment.sql("SELECT wish FROM webhook_marks WHERE record_offset = 2"))
    assert process.poll() is None, "no worker can act on it yet"
    worker = deployment.start(**settings)
    status, said, errors = end_of(process)
    assert (status, said.splitlines()[-1]) == (0, f"settled by decision: {decision[2:].replace('-', ' ')}"), errors
    eventually(lambda: not deployment.lag())
    eventually(worker.ready)
    eventually(lambda: worker.metric("webhooks_set_aside") == 0)  # counted each second
    letters = read_all(kafka_bootstrap, dead)
    if decision == "--dead-letter":
        (letter,) = letters
        assert letter.value() == body
        found = headers_of(letter)
        assert (found["dead-letter-reason"], found["dead-letter-offset"]) == (b"not_stored", b"2")
        assert b"a rule of ours" in found["dead-letter-detail"]
    else:
        assert letters == []
        assert "a delivery is settled by decision" in worker.log
    deployment.publish(["b"] * 20)
    eventually(lambda: len(deployment.receiver.at("/good")) == 20)
    eventually(lambda: not deployment.lag())
    assert len(deployment.rows("parked")) == 19
    worker.stop()
    again = command_line.run(*words[:-2], decision, "--yes", "--no-wait")
    assert again[0] == 0, "the same command twice does no harm"
