"""Replay, redelivery and adoption by commands in processes of their own, which a kill or a signal ends."""

import signal
from collections import Counter
from collections.abc import Collection

from tests.end_to_end.command_line import Api, CommandLine, end_of
from tests.end_to_end.service_rig import Deployment
from tests.end_to_end.webhook_receiver import Answer, always
from tests.waiting import eventually

KEYS = [f"key {number}".encode() for number in range(24)]


def events(deployment: Deployment) -> list[bytes]:
    """The published events of type `a`."""
    return [body for body, each in list(deployment.published.items()) if each == "a"]


def replayed(deployment: Deployment, past: Collection[bytes]) -> Counter[bytes]:
    """How often `/late` has accepted each of the events that were there before it."""
    return Counter(each.body for each in deployment.receiver.at("/late") if each.accepted and each.body in past)


def has_finished(deployment: Deployment) -> bool:
    """Whether the replay has finished, and left no cursor."""
    ((finished, cursors),) = deployment.sql(
        "SELECT finished_at, (SELECT COUNT(*) FROM webhook_cursors) FROM webhook_replays"
    )
    return finished is not None and not cursors


def test_a_replay_sends_each_matching_record_once(deployment: Deployment, command_line: CommandLine) -> None:
    """Begun by the API and watched by the command, it sends the events of a time with their bodies and ids.

    The group's offsets do not move, no delivery is stored, and the API's process is not needed any more.
    """
    deployment.subscribe("a", "/first")
    worker = deployment.start()
    deployment.publish(["a", "b", "a"] * 300)
    eventually(deployment.finished)
    committed = deployment.committed()
    past = events(deployment)
    late = deployment.subscribe("a", "/late")
    status, output, errors = command_line.run("replay", "--subscription", str(late), "--since", "1h", "--dry-run")
    assert (status, sum(int(line.split()[-1]) for line in output.splitlines()[1:])) == (0, 900)
    assert "would be read; nothing was stored" in errors

    api = Api(command_line)
    begun = api.call("POST", "/replays", {"subscription_id": late, "since": "1h", "rate": 1000}, 201)
    assert begun["records"] == 900
    api.process.kill()
    status, output, errors = command_line.run("replay", "--watch", str(begun["id"]))
    assert (status, output) == (0, "replay 1: 900 records read, and finished\n"), errors
    assert replayed(deployment, past) == Counter(past)
    assert deployment.committed() == committed
    assert not deployment.rows()
    assert has_finished(deployment)
    deployment.assert_true_to_what_was_published()
    worker.stop()


def test_a_replay_in_order_outlives_a_killed_worker(deployment: Deployment, command_line: CommandLine) -> None:
    """Each event comes, few twice, in the order of its key, beside new events; no delivery is stored."""
    workers = [deployment.start(KAFKA_SESSION_TIMEOUT_MS="2000") for _ in range(2)]
    for worker in workers:
        eventually(worker.ready)
    deployment.publish(["a"] * 2000, keys=KEYS)
    eventually(lambda: not deployment.lag())
    past = events(deployment)
    late = str(deployment.subscribe("a", "/late", ordering="key"))
    words = ["replay", "--subscription", late, "--since", "1h", "--rate", "400", "--ordered", "--yes", "--no-wait"]
    with deployment.publishing("a", per_second=100, keys=KEYS):
        assert command_line.run(*words)[0] == 0
        eventually(lambda: len(replayed(deployment, past)) > 400)
        workers[0].kill()
        eventually(lambda: has_finished(deployment), meanwhile=lambda: _assert_no_rows(deployment), every=0.2)
    times = replayed(deployment, past)
    assert times.keys() == set(past)
    assert times.total() - len(past) <= 500
    first = {each.body: number for number, each in reversed(list(enumerate(deployment.receiver.at("/late"))))}
    for key in KEYS:
        mine = [first[body] for body in past if deployment.keys[body] == key]
        assert mine == sorted(mine)
    eventually(deployment.finished)
    deployment.assert_true_to_what_was_published()
    workers[1].stop()


def _assert_no_rows(deployment: Deployment) -> None:
    assert not deployment.rows()


def test_a_replay_is_cancelled_and_resumed(deployment: Deployment, command_line: CommandLine) -> None:
    """Cancelled, it soon sends no more, while new events come; resumed, it sends the rest, and nothing twice."""
    worker = deployment.start()
    eventually(worker.ready)
    deployment.publish(["a"] * 600)
    eventually(lambda: not deployment.lag())
    past = events(deployment)
    words = ["replay", "--subscription", str(deployment.subscribe("a", "/late")), "--since", "1h", "--rate", "60"]
    process = command_line.start(*words, "--yes")
    eventually(lambda: len(replayed(deployment, past)) >= 60)
    process.send_signal(signal.SIGTERM)
    status, output, errors = end_of(process)
    assert (status, output) == (0, "")
    assert "the workers send the rest" in errors
    status, output, _ = command_line.run("replay", "--cancel", "1")
    assert (status, "replay 1 is cancelled" in output) == (0, True)
    with deployment.publishing("a", per_second=20):
        eventually(lambda: worker.metric("webhooks_in_flight") == 0 and _rests(deployment, past))
        sent = len(replayed(deployment, past))
        assert sent < len(past)
        new = len(deployment.receiver.at("/late"))
        eventually(lambda: len(deployment.receiver.at("/late")) > new + 60)
        assert len(replayed(deployment, past)) == sent
    deployment.sql("UPDATE webhook_replays SET rate = 1000")
    status, output, errors = command_line.run("replay", "--resume", "1")
    assert (status, output) == (0, "replay 1: 600 records read, and finished\n"), errors
    assert replayed(deployment, past) == Counter(past)
    worker.stop()


def _rests(deployment: Deployment, past: Collection[bytes]) -> bool:
    """Whether the replay sends nothing while ten new events come, of twenty a second; its own are sixty a second."""
    sent, new = len(replayed(deployment, past)), len(deployment.receiver.at("/late"))
    eventually(lambda: len(deployment.receiver.at("/late")) > new + 10)
    return len(replayed(deployment, past)) == sent


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


def test_exhausted_deliveries_are_sent_again_from_their_topic(
    deployment: Deployment, command_line: CommandLine
) -> None:
    """Also after their rows are deleted, with their ids and bodies; a second time sends none of them."""
    deployment.subscribe("a", "/", final_statuses="422", ordering="key")
    deployment.receiver.rules["/"] = always(Answer(422))
    topic = {"KAFKA_EXHAUSTED_TOPIC": f"given-up-{deployment.topic}"}
    deployment.start(**topic)
    deployment.publish(["a"] * 40, keys=KEYS)
    there = "SELECT COUNT(*) FROM webhook_deliveries WHERE status = 'exhausted' AND unpublished_by IS NULL"
    eventually(lambda: deployment.sql(there) == [(40,)])
    for table in ("webhook_deliveries", "webhook_payloads"):
        deployment.sql(f"DELETE FROM {table}")  # noqa: S608 (constants)
    del deployment.receiver.rules["/"]
    command = ["deliveries", "redeliver", "--from-topic", "--since", "1h", "--subscription", "1", "--yes"]
    status, output, errors = command_line.run(*command, **topic)
    assert (status, output) == (0, "40 deliveries due now; the workers send them\n40 delivered\n"), errors
    status, output, errors = command_line.run(*command, **topic)
    assert (status, output) == (0, "")
    assert "they were sent again from there before" in errors
    assert command_line.run(*command)[0] == 2, "without the topic's name"
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
