"""Replay, redelivery and adoption from the command line, with real workers."""

import json
import signal
import time
from collections import Counter

from tests.end_to_end.command_line import CommandLine, end_of
from tests.end_to_end.service_rig import Deployment
from tests.end_to_end.webhook_receiver import Answer, always
from tests.waiting import eventually


def bodies(deployment: Deployment, path: str) -> Counter[bytes]:
    """How often each body was accepted."""
    return Counter(each.body for each in deployment.receiver.at(path) if each.accepted)


def events(deployment: Deployment, event_type: str) -> list[bytes]:
    return [body for body, each in deployment.published.items() if each == event_type]


def replayed(deployment: Deployment) -> int:
    return sum(1 for _ in deployment.sql("SELECT id FROM webhook_deliveries WHERE replay > 0"))


def matched(deployment: Deployment) -> int:
    """The count of the replay itself."""
    return sum(int(str(row[0])) for row in deployment.sql("SELECT matched FROM webhook_replays"))


def test_a_replay_sends_each_matching_record_once(deployment: Deployment, command_line: CommandLine) -> None:
    """Killed twice in the middle, once without any worker, it misses and repeats nothing.

    Bodies and ids are the original ones, and the group's offsets do not move.
    """
    deployment.subscribe("a", "/first")
    worker = deployment.start()
    deployment.publish(["a", "b", "a"] * 600)
    eventually(lambda: not deployment.missing() and not deployment.lag())
    worker.stop()
    committed = deployment.committed()
    past = events(deployment, "a")
    late = deployment.subscribe("a", "/late")
    begin = ["replay", "--subscription", str(late), "--since", "1h", "--rate", "150", "--yes"]

    process = command_line.start(*begin)
    eventually(lambda: matched(deployment) >= 200, every=0.02)
    process.kill()
    assert replayed(deployment) < len(past)
    assert deployment.committed() == committed
    assert not deployment.receiver.at("/late")

    worker = deployment.start()
    with deployment.publishing("a", per_second=40):
        process = command_line.start("replay", "--resume", "1")
        eventually(lambda: matched(deployment) >= 600, every=0.02)
        process.kill()
        assert matched(deployment) < len(past)
        status, output, errors = command_line.run("replay", "--resume", "1")
    assert (status, output.splitlines()) == (
        0,
        [f"replay 1: {len(past):,} matching records stored", f"{len(past):,} delivered"],
    ), errors
    eventually(lambda: not deployment.missing() and not deployment.lag())
    received = bodies(deployment, "/late")
    assert {body: received[body] for body in past} == dict.fromkeys(past, 1)
    assert received.keys() == set(events(deployment, "a"))
    assert bodies(deployment, "/first") == Counter(events(deployment, "a"))
    deployment.assert_true_to_what_was_published()
    at = sorted(each.at for each in deployment.receiver.at("/late"))
    assert len(at) / (at[-1] - at[0]) < 150 + 40 + 30
    worker.stop()


def test_a_replay_reports_its_progress(deployment: Deployment, command_line: CommandLine) -> None:
    """It is previewed, then stopped, resumed, and watched to its end."""
    subscription = deployment.subscribe("a", "/late")
    deployment.publish(["a"] * 300 + ["b"] * 20)
    deployment.write(b"{")
    deployment.flush()
    words = ["replay", "--subscription", str(subscription), "--since", "1h"]
    status, output, errors = command_line.run(*words, "--dry-run")
    read = [line.split() for line in output.splitlines()[1:]]
    assert (status, sum(int(records) for *_, records in read)) == (0, 321)
    assert "321 records from " in errors
    assert "would be read; nothing was stored" in errors
    status, output, _ = command_line.run(*words, "--dry-run", "--json")
    document = json.loads(output)
    assert (status, document["records"], document["stored"]) == (0, 321, 0)
    assert [[str(value) for value in each.values()] for each in document["partitions"]] == read
    assert not deployment.rows()

    status, _, errors = command_line.run(*words, "--no-wait")
    assert status == 2
    assert "--yes" in errors
    process = command_line.start(*words, "--yes", "--rate", "10")
    eventually(lambda: replayed(deployment) >= 20, every=0.02)
    process.send_signal(signal.SIGTERM)
    status, output, errors = end_of(process)
    assert status == 0
    assert "kafka-webhooks replay --resume 1 goes on with the rest" in errors
    stored = replayed(deployment)
    assert f"replay 1: {stored} matching records stored" in output
    assert stored < 300

    deployment.sql("UPDATE webhook_replays SET rate = 1000")
    status, output, errors = command_line.run("replay", "--resume", "1", "--no-wait")
    assert (status, output) == (0, "replay 1: 300 matching records stored\n")
    assert "1 record skipped: not an event" in errors or stored > 0
    deployment.start()
    status, output, errors = command_line.run("replay", "--resume", "1")
    assert (status, output) == (0, "300 delivered\n")
    assert "has already stored all matching events" in errors


def test_a_replay_that_finds_nothing_says_so(deployment: Deployment, command_line: CommandLine) -> None:
    """If no record has that time, or none matches, it ends with a hint."""
    deployment.subscribe("A", "/")
    words = ["replay", "--subscription", "1", "--yes"]
    deployment.publish(["a"] * 5)
    status, output, errors = command_line.run(*words, "--since", "2h", "--until", "1h")
    assert (status, output) == (0, "")
    assert "the topics hold no record from" in errors
    status, output, errors = command_line.run(*words, "--since", "1h")
    assert (status, output) == (0, "replay 1: 0 matching records stored\n")
    assert "event types differ by upper and lower case" in errors
    assert not deployment.receiver.requests


def give_up(deployment: Deployment, number: int) -> None:
    """A worker, and so many deliveries exhausted after an attempt, because their receiver never accepts them."""
    deployment.subscribe("a", "/", final_statuses="422", retry_schedule="8s")
    deployment.receiver.rules["/"] = always(Answer(422))
    deployment.start()
    deployment.publish(["a"] * number)
    eventually(lambda: len(deployment.rows("exhausted")) == number)


def test_exhausted_deliveries_are_sent_again(deployment: Deployment, command_line: CommandLine) -> None:
    """Each is sent once with its id and body; the command waits, and reports that all were delivered."""
    give_up(deployment, 40)
    del deployment.receiver.rules["/"]
    status, output, errors = command_line.run("deliveries", "redeliver", "--subscription", "1", "--yes")
    assert (status, output) == (0, "40 deliveries marked; the workers send them\n40 delivered\n"), errors
    assert not deployment.missing()
    assert not deployment.duplicates()
    deployment.assert_true_to_what_was_published()
    status, _, errors = command_line.run("deliveries", "redeliver", "--subscription", "1", "--yes")
    assert (status, errors) == (0, "no such deliveries are stored\n")


def test_a_group_that_was_renamed_takes_its_deliveries_over(deployment: Deployment, command_line: CommandLine) -> None:
    """The new group's workers send them once, though it reads the topic from its beginning."""
    deployment.subscribe("a", "/")
    deployment.receiver.rules["/"] = always(Answer(500))
    old = deployment.start(WEBHOOK_RETRY_SCHEDULE="1h", WEBHOOK_RETRY_IN_MEMORY="0")
    deployment.publish(["a"] * 50)
    eventually(lambda: len(deployment.rows("parked")) == 50)
    old.stop()
    del deployment.receiver.rules["/"]
    adopt = ["deliveries", "adopt", "--from-group", deployment.group]
    status, _, errors = command_line.run(*adopt, "--yes")
    assert (status, len(errors.splitlines())) == (2, 1)
    status, output, errors = command_line.run(*adopt, "--yes", KAFKA_GROUP_ID="renamed")
    assert (status, output) == (0, "50 deliveries moved to renamed\n")
    assert "must have no running workers" in errors
    command_line.run("deliveries", "redeliver", "--status", "parked", "--yes", "--no-wait")
    deployment.start(KAFKA_GROUP_ID="renamed")
    eventually(lambda: not deployment.missing())
    time.sleep(1)
    assert not deployment.duplicates()
    deployment.assert_true_to_what_was_published()
