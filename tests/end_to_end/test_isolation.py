"""One bad receiver never slows another: latency beside each kind of bad one, compared with the calm part of the run."""

from pathlib import Path

import pytest

from tests.end_to_end.bad_receivers import Kind, bad_receiver
from tests.end_to_end.isolation_rig import LATEST, Company, Latencies, Names, come_back, meet, neighbours
from tests.end_to_end.service_rig import Deployment, percentile

# Seconds of p95 that a slow machine may show in any case, with broker, worker and receivers on it. Waiting for bad
# receivers would cost more; benchmarks.isolation measures their real effect.
FLOOR = 1.5
FACTOR = 3


def assert_undisturbed(latencies: Latencies) -> None:
    """All events arrived, and the 95th percentile has not grown."""
    assert latencies.beside[-1] < LATEST
    alone, beside = (percentile(values, 0.95) for values in latencies)
    assert beside <= max(FACTOR * alone, FLOOR), f"p95 {alone * 1e3:.1f} ms alone, {beside * 1e3:.1f} ms in company"


@pytest.mark.parametrize(
    ("bad", "number"),
    [
        (Kind.HANG, 100),  # an equal share for each would leave nine slots to the good ones
        (Kind.DRIP_BODY, 10),
        (Kind.FLAP, 10),  # resets connections, then refuses them
        (Kind.FAIL, 10),
        (Kind.TLS_CLOSE, 2),  # 400 new connections a second
        (Names.HUNG, 50),
    ],
)
def test_bad_receivers_leave_the_latency_of_good_ones_as_it_was(
    deployment: Deployment, tmp_path: Path, bad: Kind | Names, number: int
) -> None:
    """At 200 events a second and up to 2,000 bad deliveries, good receivers get theirs as fast as alone."""
    with neighbours(bad, number, tmp_path) as company:
        # A flapping receiver may be away, or behind an open breaker, for all of four seconds.
        beside = 8.0 if bad is Kind.FLAP else 4.0
        meeting = meet(deployment, company, Company.SAME_EVENTS, alone=1.5, beside=beside)
    assert meeting.requests  # the bad receivers got some
    for latencies in meeting.good.values():
        assert_undisturbed(latencies)


def test_a_recovered_receiver_is_not_overloaded_by_its_backlog(deployment: Deployment) -> None:
    """It serves 400 requests a second with a queue of 50: it refuses few, gets all, and others are not slowed."""
    with bad_receiver(Kind.LIMITED, "400", "50") as receiver:
        recovery = come_back(deployment, receiver, backlog=3000, live=100, within=60)
    served = sum(each.served for each in recovery.seconds)
    assert not recovery.owed, recovery.seconds
    assert recovery.refused < served / 10, recovery.seconds
    for latencies in recovery.good.values():
        assert_undisturbed(latencies)


def test_a_burst_for_a_slow_receiver_delays_no_other(deployment: Deployment, tmp_path: Path) -> None:
    """Events behind 5,000 events for a receiver that does not keep up do not wait for it."""
    with neighbours(Kind.SLOW, 10, tmp_path) as company:
        meeting = meet(deployment, company, Company.OWN_EVENTS, alone=1.5, beside=8.0, burst=5000)
    for latencies in meeting.good.values():
        assert_undisturbed(latencies)
