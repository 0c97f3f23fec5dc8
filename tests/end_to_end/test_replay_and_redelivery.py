"""Replay, redelivery and adoption by commands in processes of their own, which a kill or a signal ends."""

import signal
from collections import Counter

from tests.end_to_end.command_line import Api, CommandLine, end_of
from tests.end_to_end.service_rig import Deployment
from tests.end_to_end.webhook_receiver import Answer, always
from tests.waiting import eventually


def bodies(deployment: Deployment, path: str) -> Counter[bytes]:
    """How often each body was accepted."""
    return Counter(each.body for each in deployment.receiver.at(path) if each.accepted)


def events(deployment: Deployment) -> list[bytes]:
    """The published events of type `a`."""
    return [body for body, each in deployment.published.items() if each == "a"]


def matched(deployment: Deployment) -> int:
    """The count of the replay itself."""
    return sum(int(str(row[0])) for row in deployment.sql("SELECT matched FROM webhook_replays"))


def test_a_replay_sends_each_matching_record_once(deployment: Deployment, command_line: CommandLine) -> None:
    """Killed in the middle and resumed beside live events, it misses and repeats nothing.

    Bodies and ids are the original ones, and the group's offsets do not move.
    """
    deployment.subscribe("a", "/first")
    worker = deployment.start()
    deployment.publish(["a", "b", "a"] * 300)
    eventually(deployment.finished)
    worker.stop()
    committed = deployment.committed()
    past = events(deployment)
    late = str(deployment.subscribe("a", "/late"))

    process = command_line.start("replay", "--subscription", late, "--since", "1h", "--rate", "150", "--yes")
    eventually(lambda: matched(deployment) >= 200, every=0.02)
    process.kill()
    assert matched(deployment) < len(past)
    assert deployment.committed() == committed
    assert not deployment.receiver.at("/late")

    worker = deployment.start()
    with deployment.publishing("a", per_second=40):
        status, output, errors = command_line.run("replay", "--resume", "1")
    assert (status, output.splitlines()) == (
        0,
        [f"replay 1: {len(past):,} matching records stored", f"{len(past):,} delivered"],
    ), errors
    eventually(deployment.finished)
    received = bodies(deployment, "/late")
    assert {body: received[body] for body in past} == dict.fromkeys(past, 1)
    assert received.keys() == set(events(deployment))
    assert bodies(deployment, "/first") == Counter(events(deployment))
    deployment.assert_true_to_what_was_published()
    worker.stop()


def test_a_replay_is_previewed_stopped_and_resumed(deployment: Deployment, command_line: CommandLine) -> None:
    """SIGTERM ends it with status 0 and the command that resumes it. A record that is not an event is skipped."""
    words = ["replay", "--subscription", str(deployment.subscribe("a", "/late")), "--since", "1h"]
    deployment.publish(["a"] * 300 + ["b"] * 20)
    deployment.write(b"{")
    deployment.flush()
    status, output, errors = command_line.run(*words, "--dry-run")
    assert (status, sum(int(line.split()[-1]) for line in output.splitlines()[1:])) == (0, 321)
    assert "would be read; nothing was stored" in errors

    process = command_line.start(*words, "--yes", "--rate", "10")
    eventually(lambda: matched(deployment) >= 20, every=0.02)
    process.send_signal(signal.SIGTERM)
    status, output, errors = end_of(process)
    assert status == 0
    assert "kafka-webhooks replay --resume 1 goes on with the rest" in errors
    assert f"replay 1: {matched(deployment)} matching records stored" in output
    assert matched(deployment) < 300

    deployment.sql("UPDATE webhook_replays SET rate = 1000")
    status, output, _ = command_line.run("replay", "--resume", "1", "--no-wait")
    assert (status, output) == (0, "replay 1: 300 matching records stored\n")


def test_a_replay_outlives_the_processes_that_run_it(deployment: Deployment, command_line: CommandLine) -> None:
    """After a kill another process goes on once the lease expires, after a stop at once."""
    worker = deployment.start()
    deployment.publish(["a", "b", "a"] * 200)
    eventually(lambda: not deployment.lag())
    late = deployment.subscribe("a", "/late")
    past = Counter(body for body, kind in deployment.published.items() if kind == "a")
    first = Api(command_line)
    body = {"subscription_id": late, "since": "1h", "rate": 20}
    begun = first.call("POST", "/replays", body, 201)
    number, path = begun["id"], f"/replays/{begun['id']}"
    eventually(lambda: matched(deployment) >= 40)
    assert first.call("GET", path)["state"] == "running"
    status, _, errors = command_line.run("replay", "--resume", str(number))
    assert (status, "is run by the API's processes" in errors) == (1, True)

    first.process.kill()
    second = Api(command_line)
    before = matched(deployment)
    assert before < len(past)
    eventually(lambda: matched(deployment) > before)

    second.process.send_signal(signal.SIGTERM)
    assert end_of(second.process)[0] == 0
    before = matched(deployment)
    assert before < len(past)
    third = Api(command_line)
    eventually(lambda: third.call("GET", path)["state"] == "finished")
    eventually(lambda: sum(each.accepted for each in deployment.receiver.at("/late")) >= len(past))
    assert third.call("GET", path)["stored"] == len(past)
    assert Counter(each.body for each in deployment.receiver.at("/late") if each.accepted) == past
    worker.stop()


def test_exhausted_deliveries_are_sent_again(deployment: Deployment, command_line: CommandLine) -> None:
    """Each is sent once with its id and body; the command waits, and reports that all were delivered."""
    deployment.subscribe("a", "/", final_statuses="422", retry_schedule="8s")
    deployment.receiver.rules["/"] = always(Answer(422))
    deployment.start()
    deployment.publish(["a"] * 40)
    eventually(lambda: len(deployment.rows("exhausted")) == 40)
    del deployment.receiver.rules["/"]
    status, output, errors = command_line.run("deliveries", "redeliver", "--subscription", "1", "--yes")
    assert (status, output) == (0, "40 deliveries due now; the workers send them\n40 delivered\n"), errors
    assert not deployment.missing()
    assert not deployment.duplicates()
    deployment.assert_true_to_what_was_published()


def test_a_group_that_was_renamed_takes_its_deliveries_over(deployment: Deployment, command_line: CommandLine) -> None:
    """The new group's workers send them once, though it reads the topic from its beginning."""
    deployment.subscribe("a", "/")
    deployment.receiver.rules["/"] = always(Answer(500))
    old = deployment.start(WEBHOOK_RETRY_SCHEDULE="1h", WEBHOOK_RETRY_IN_MEMORY="0")
    deployment.publish(["a"] * 50)
    eventually(lambda: len(deployment.rows("parked")) == 50)
    old.stop()
    del deployment.receiver.rules["/"]
    adopt = ["deliveries", "adopt", "--from-group", deployment.group, "--yes"]
    status, output, errors = command_line.run(*adopt, KAFKA_GROUP_ID="renamed")
    assert (status, output) == (0, "50 deliveries moved to renamed\n")
    assert "must have no running workers" in errors
    deployment.group = "renamed"
    command_line.run("deliveries", "redeliver", "--status", "parked", "--yes", "--no-wait")
    deployment.start()
    eventually(deployment.finished)
    assert not deployment.duplicates()
    deployment.assert_true_to_what_was_published()
