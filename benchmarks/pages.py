"""The response times of the console and the API with 100,000 subscriptions and a million stored deliveries in SQLite.

    python -m benchmarks.pages

Each path is requested 21 times: the first time, and the median and the maximum of the others. Requests go to a
`kafka-webhooks api` on loopback, one after the other.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import requests

from benchmarks import rig

REPEATED = 20
START = 20.0  # seconds within which the server must answer
PATHS = (
    "/console/",
    "/console/subscriptions",
    "/console/subscriptions?state=failing",
    "/console/subscriptions?url=99999",
    "/console/subscriptions?tenant=rare",
    "/console/subscriptions/1",
    "/console/subscriptions/77777",
    "/console/deliveries",
    "/console/deliveries?state=held",
    "/console/deliveries?subscription_id=1&state=exhausted",
    "/console/deliveries?event_type=type.7",
    "/console/deliveries?since=2023-11-20T00:00&until=2023-11-20T03:00",
    "/console/deliveries/500000",
    "/console/types",
    "/console/replays",
    "/v1/subscriptions?limit=200",
    "/v1/subscriptions?url=99999",
    "/v1/deliveries?limit=200",
    "/v1/deliveries?subscription_id=1&limit=200",
    "/v1/deliveries?tenant=rare",
    "/v1/deliveries?tenant=tenant-1&limit=200",
    "/v1/statistics",
    "/v1/event-types?limit=200",
)


def main() -> None:
    """Fills the database, requests each path and prints the table."""
    with tempfile.TemporaryDirectory(prefix="webhooks-pages-") as folder:
        settings = {"DATABASE_URL": f"sqlite:///{folder}/webhooks.db", "LOG_LEVEL": "WARNING"}
        print("making the rows …", flush=True)
        _make(settings)
        with _server(settings) as base, requests.Session() as session:
            print(f"\n{'':72}{'first':>8}{'median':>8}{'slowest':>8}  ms")
            for path in PATHS:
                first, *others = [_milliseconds(session, base + path) for _ in range(REPEATED + 1)]
                print(f"{path:72}{first:>8.1f}{statistics.median(others):>8.1f}{max(others):>8.1f}", flush=True)


def _make(settings: dict[str, str]) -> None:
    from sqlalchemy import create_engine  # noqa: PLC0415 (a second of the start)

    from tests.large_estate import fill  # noqa: PLC0415 (the same)

    command = [sys.executable, "-m", "consumer", "migrate"]
    subprocess.run(command, cwd=rig.ROOT, env={**os.environ, **settings}, check=True, stdout=subprocess.DEVNULL)
    engine = create_engine(settings["DATABASE_URL"])
    fill(engine)
    engine.dispose()


@contextmanager
def _server(settings: dict[str, str]) -> Iterator[str]:
    port = rig.free_port()
    base = f"http://127.0.0.1:{port}"
    with rig.process([sys.executable, "-m", "consumer", "api"], **settings, API_PORT=str(port)):
        end = time.monotonic() + START
        while not _answers(base):
            if time.monotonic() > end:
                sys.exit("the server did not start")
            time.sleep(0.1)
        yield base


def _answers(base: str) -> bool:
    try:
        return requests.get(base + "/healthz", timeout=5).ok
    except requests.ConnectionError:
        return False


def _milliseconds(session: requests.Session, url: str) -> float:
    began = time.perf_counter()
    answer = session.get(url, timeout=60)
    took = (time.perf_counter() - began) * 1000
    answer.raise_for_status()
    return took


if __name__ == "__main__":
    main()
