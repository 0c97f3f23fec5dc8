"""The simulated fleet, compared with measured figures, with the product's own parts, and with itself."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select

from benchmarks.fleet import __main__ as command
from benchmarks.fleet import statements
from benchmarks.fleet.costs import MEASURED
from benchmarks.fleet.deploy import cut_off, rolling
from benchmarks.fleet.failing import _Pod, suffer
from benchmarks.fleet.killed import Offered, Run, run
from benchmarks.fleet.measure import counting, ledger
from benchmarks.fleet.measure import statements as counted
from benchmarks.fleet.world import TIMEOUT, Failure, Outage, World, seeded, waits
from consumer.delivery.breaker import Breaker
from consumer.subscriptions import repository
from models import ParkedDelivery
from tests.simulation.deployment import result
from tests.simulation.world import THREADS
from tests.simulation.world import World as RealWorld

SMALL = World(pods=4, receivers=2_000, partitions=12, rate=400.0)
WORDS = ["--pods", "2", "--receivers", "300", "--rate", "20"]


def full_speed(opened: int, delay: float, seed: int, seconds: float = 1.0) -> Run:
    """A worker of four partitions, as in the measured runs, with a backlog; its receiver answers after `delay`."""
    cpu = (MEASURED.delivery + MEASURED.each_open * opened) / 1e6
    return run(Offered(inf, lambda: delay, opened, 4, cpu), seconds, Random(seed))


@pytest.mark.parametrize(
    ("opened", "delay", "measured"), [(204, 0.0, 29_100), (800, 0.02, 23_500), (1600, 0.1, 15_500), (8000, 1.0, 7_140)]
)
def test_a_worker_has_the_measured_speed(opened: int, delay: float, measured: float) -> None:
    """docs/performance.md, one worker: receivers that answer at once, after 20 ms, 100 ms and 1 s."""
    seconds = 1.0 + 3 * delay
    assert full_speed(opened, delay, 1, seconds).per_second == pytest.approx(measured, rel=0.15)


def test_a_kill_at_full_speed_repeats_as_much_as_was_measured() -> None:
    """Deliveries since the last commit and open ones are repeated: 136, 229, 347 and 453 were measured."""
    repeated = [full_speed(204, 0.0, seed, 0.5).repeated for seed in range(10)]
    assert 80 <= min(repeated) <= max(repeated) <= 500
    assert sum(repeated) / len(repeated) == pytest.approx((136 + 229 + 347 + 453) / 4, rel=0.2)


def test_statements_are_as_many_as_the_ledger_makes() -> None:
    """The costs equal the statements that the product's own functions send to the database."""
    with ledger(2) as engine:
        found = counted(engine)
    costs = MEASURED
    assert found == {
        "lookup": costs.lookup_statements,
        "marks_poll": costs.marks_statements,
        "scan_empty": costs.scan_statements,
        "relay_look": costs.relay_statements,
        "find_idle": costs.find_statements,
        "find": costs.find_statements + costs.find_partition_statements,
        "repair": costs.repair_statements,
        "prune_idle": costs.prune_statements,
        "topics_idle": costs.topics_statements,
        "reconcile_idle": costs.reconcile_leap_statements,
        "expire": costs.expire_statements,
        "count_partition": costs.count_statements,
        "assigned": costs.assigned_statements,
        "store": statements.storing(costs, 1),
        "scan_two_keys": statements.scanning(costs, 2, 1),
        "topics": costs.topics_statements + costs.topics_found_statements,
        "reconcile_two": costs.reconcile_leap_statements
        + costs.reconcile_statements
        + 2,  # one is removed, which costs two more
        "fetch_two_keys": statements.taking_up(costs, 2, found=True),
        "result_again": statements.results(costs, 1),
        "result_delivered": statements.results(costs, 1),
        "result_first": statements.results(costs, 1),
        "cursor_begun": costs.cursor_begun_statements,
        "cursor_look": costs.cursor_look_statements,
        "cursor_look_new": costs.cursor_look_statements + costs.cursor_new_statements,
        "cursor_saved": costs.cursor_saved_statements,
        "prune": costs.prune_statements + costs.prune_found_statements,
    }


def real_outage(engine: Engine, world: World, seconds: float) -> tuple[int, Counter[str]]:
    """The real worker in a simulated world whose receivers are all down: its requests, and statements by thread."""
    for rank in range(world.receivers):
        repository.add(engine, f"https://down-{rank}.example/", f"t{rank}")
    real = RealWorld(engine, partitions=1, retry_schedule=waits(), retry_jitter=0.2)
    real.start(0)
    shares = [world.share(rank) for rank in range(world.receivers)]
    random, seen, events = Random(1), Counter[str](), 0
    while real.now < seconds:
        if real.now * world.rate > events:  # evenly: all events in one step of the clock are stored in one transaction
            real.write(0, b'{"type": "t%d"}' % random.choices(range(world.receivers), shares)[0])
            events += 1
        real.turn()
        while real.transport.open:
            real.transport.answer(0, result("fails"))
        for thread in THREADS:
            with counting(engine) as statements_of:
                while real.run_job(thread):
                    continue
            seen[thread] += statements_of.total()
        real.now += 0.2
    return len(real.sent), seen


@pytest.mark.parametrize("seconds", [160.0, 400.0])
def test_a_pod_in_an_outage_is_like_the_real_worker(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Requests, rows and statements in the first minutes of an outage, and once cursors take events, equal those of
    the real worker with its real SQL.
    """  # noqa: D205 (one sentence)
    behind = seconds > 300.0  # the first breakers have been open for long
    if not behind:
        monkeypatch.setattr(Breaker, "is_long_open", False)
    world = World(pods=1, receivers=8, partitions=1, rate=0.5)
    with seeded("real"):
        sent, seen = real_outage(engine, world, seconds)
    outages = [(rank, Outage(0.0, inf, Failure.REFUSED)) for rank in range(world.receivers)]
    stories = [suffer(world, outages, seconds, str(name), until=seconds) for name in range(8)]

    def mean(*kinds: str) -> float:
        return sum(minute[kind] for each in stories for minute in each.minutes for kind in kinds) / len(stories)

    leading = statements.leading(MEASURED, world, world.receivers) * seconds
    reading = seen["taking-up"] + seen["upkeep"]
    begun = sum(each.cursors for each in stories) / len(stories)
    assert (begun > 0) is behind
    with engine.connect() as connection:
        rows = connection.scalar(select(func.count()).select_from(ParkedDelivery))
    assert sum(each.stored for each in stories) / len(stories) == pytest.approx(rows, rel=0.2)
    beginning = begun * MEASURED.cursor_begun_statements
    assert sum(each.attempts for each in stories) / len(stories) == pytest.approx(sent, rel=0.1)
    assert mean("storing", "results") + beginning == pytest.approx(seen["storing"], rel=0.15)
    assert mean("taking up", "polling", "upkeep", "cursors") - beginning + leading == pytest.approx(reading, rel=0.2)


def test_a_deploy_repeats_what_outlasts_its_drain() -> None:
    """Each partition leaves a pod that stops and one that goes on; with a drain as long as the limit of an exchange
    only the second cuts anything off.
    """  # noqa: D205 (one sentence)
    world = replace(SMALL, pods=40, partitions=120, rate=40_000.0)
    usual, hasty = rolling(world, 1), rolling(world, 1, drain=1.0)
    assert usual == rolling(world, 1)
    assert (usual.moved, usual.revoked) == (240, 120)
    assert 0 < usual.repeated < hasty.repeated
    assert cut_off(1e6, TIMEOUT, Random(1)) == 0


outages = st.lists(
    st.tuples(st.integers(0, 49), st.floats(0, 600), st.floats(1, 900), st.sampled_from(Failure)), max_size=12
)


@given(drawn=outages, rate=st.floats(0.1, 5.0), until=st.floats(0, 2000), name=st.text("ab", max_size=3))
def test_nothing_is_lost_and_nothing_is_owed_twice(
    drawn: Sequence[tuple[int, float, float, Failure]], rate: float, until: float, name: str
) -> None:
    """At any time each offered delivery is in exactly one state: delivered, stored, in memory or exhausted."""
    world = World(pods=1, receivers=50, partitions=3, rate=rate)
    mine = [(rank, Outage(begin, begin + length, failure)) for rank, begin, length, failure in drawn]
    with seeded(name):
        pod = _Pod(world, mine, 600.0, Random(name), MEASURED)
        pod.run(until)
    parts = [pod.delivered, set(pod.owed), set(pod.behind), set(pod.in_hand), pod.exhausted]
    assert sum(map(len, parts)) == len(set().union(*parts)) == pod.offered
    story = pod.story()
    assert story.offered == story.delivered + story.owed + story.behind + story.in_hand + story.exhausted
    assert story == suffer(world, mine, 600.0, name, until=until)


def test_the_same_seed_prints_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It also writes the same JSON; another seed gives other output."""
    stored = tmp_path / "fleet.json"
    printed = []
    for seed in ("7", "7", "8"):
        assert command.main([*WORDS, "--seed", seed, "--json", str(stored)]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != printed[2]
    figures = json.loads(stored.read_text(encoding="utf-8"))
    assert figures["world"] == {"pods": 2, "receivers": 300, "partitions": 6, "rate": 20.0, "https": 1.0}
    assert figures["binds"] in printed[2]
    assert figures["seed"] == 8


def test_impossible_arguments_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A rate above the pods' capacity, pods without a partition, and more killed pods than exist are errors."""
    assert command.main(["--pods", "2", "--rate", "1e6"]) == 2
    assert "below" in capsys.readouterr().err
    for words in (["--partitions", "5"], ["--pods", "3", "--killed", "4"], ["--down", "2"], ["--receivers", "0"]):
        with pytest.raises(SystemExit):
            command.main(words)
