"""Replays run by API processes on a real Kafka outlive each process, and send each event once."""

import signal
from collections import Counter

from tests.end_to_end.command_line import Api, CommandLine, end_of
from tests.end_to_end.service_rig import Deployment
from tests.waiting import eventually


def stored(deployment: Deployment, replay: int) -> int:
    """The deliveries of a replay, by its own count."""
    ((matched,),) = deployment.sql("SELECT matched FROM webhook_replays WHERE id = ?", replay)
    return int(str(matched))


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
    eventually(lambda: stored(deployment, number) >= 40)
    assert first.call("GET", path)["state"] == "running"
    status, _, errors = command_line.run("replay", "--resume", str(number))
    assert (status, "is run by the API's processes" in errors) == (1, True)

    first.process.kill()
    second = Api(command_line)
    before = stored(deployment, number)
    assert before < len(past)
    eventually(lambda: stored(deployment, number) > before)

    second.process.send_signal(signal.SIGTERM)
    assert end_of(second.process)[0] == 0
    before = stored(deployment, number)
    assert before < len(past)
    third = Api(command_line)
    eventually(lambda: third.call("GET", path)["state"] == "finished")
    eventually(lambda: sum(each.accepted for each in deployment.receiver.at("/late")) >= len(past))
    assert third.call("GET", path)["stored"] == len(past)
    assert Counter(each.body for each in deployment.receiver.at("/late") if each.accepted) == past
    worker.stop()
