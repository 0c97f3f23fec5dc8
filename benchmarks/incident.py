"""An incident in real time: one of fifty receivers fails for more than an hour, and Prometheus evaluates the alert.

    python -m benchmarks.incident [MINUTES]

Each second an event goes to all fifty receivers. After three minutes one of them answers 503 for MINUTES (65, because
the alert WebhooksSubscriptionFails waits for an hour); then it is repaired, and its deliveries are redelivered. The
worker's /metrics is scraped every 15 seconds, and promtool evaluates deploy/prometheus/rules.yaml on these scrapes.
Prints when the console shows the failure, when the alert fires and resolves, and when the backlog is gone. Needs java
17, maven, and Go for promtool.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import rig
from benchmarks.isolation import deployed
from tests.deploy.go_tools import promtool
from tests.end_to_end.command_line import CommandLine
from tests.end_to_end.service_rig import Deployment, Worker
from tests.end_to_end.webhook_receiver import Answer, always
from tests.kafka_kit import Kafka

RECEIVERS = 50
RATE = 1.0  # events a second, each for all receivers
SCRAPE = 15.0  # seconds
CALM = 180.0  # seconds before the fault, and after the end of the alert
ALERT = "WebhooksSubscriptionFails"
RULES = rig.ROOT / "deploy/prometheus/rules.yaml"


class Scrapes:
    """The samples of a worker by series, with a gap where it did not answer."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._series: dict[str, list[str]] = defaultdict(list)
        self.number = 0

    def take(self) -> None:
        """Makes one scrape. A series missing in it is stale at once, as in Prometheus."""
        for family in text_string_to_metric_families(self._worker.get("/metrics")[1]):
            for sample in family.samples:
                if sample.name.startswith("webhooks_"):
                    labels = {**sample.labels, "job": "webhooks", "instance": "worker"}
                    told = ", ".join(f"{name}={json.dumps(value)}" for name, value in sorted(labels.items()))
                    values = self._series[f"{sample.name}{{{told}}}"]
                    values += ["_"] * (self.number - len(values)) + [repr(sample.value)]
        for values in self._series.values():
            if len(values) == self.number:
                values.append("stale")
        self.number += 1

    def firing(self, number: int) -> bool:
        """Whether the alert fires at the time of a scrape, according to Prometheus."""
        expected = {
            "expr": f'count(ALERTS{{alertname="{ALERT}", alertstate="firing"}})',
            "eval_time": f"{number * SCRAPE:.0f}s",
        }
        series = [{"series": name, "values": " ".join(values)} for name, values in self._series.items()]
        test = {
            "rule_files": [str(RULES)],
            "evaluation_interval": f"{SCRAPE:.0f}s",
            "tests": [
                {
                    "interval": f"{SCRAPE:.0f}s",
                    "input_series": series,
                    "promql_expr_test": [{**expected, "exp_samples": [{"labels": "{}", "value": 1}]}],
                }
            ],
        }
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(test, file, width=10**9)
            file.flush()
            done = subprocess.run([promtool(), "test", "rules", file.name], capture_output=True, check=False)
        return done.returncode == 0


def main(minutes: float) -> None:
    """Runs the incident and prints the times."""
    promtool()
    with rig.kafka() as bootstrap, deployed(bootstrap) as deployment, tempfile.TemporaryDirectory() as folder:
        attempts = Kafka(bootstrap, real=True).topic()
        for number in range(RECEIVERS - 1):
            deployment.subscribe("order.paid", f"/service-{number}")
        billing = deployment.subscribe("order.paid", "/billing")
        worker = deployment.start(KAFKA_ATTEMPTS_TOPIC=attempts, WEBHOOK_SUBSCRIPTION_CACHE="2")
        command_line, port = CommandLine(deployment, Path(folder)), rig.free_port()
        api = command_line.start("api", API_PORT=str(port), KAFKA_ATTEMPTS_TOPIC=attempts)
        try:
            with deployment.publishing("order.paid", per_second=RATE):
                console = f"http://127.0.0.1:{port}/console/"
                _watch(deployment, worker, command_line, billing, console, minutes * 60)
        finally:
            api.terminate()
            api.wait(30)
        worker.stop()


def _watch(
    deployment: Deployment, worker: Worker, command_line: CommandLine, billing: int, console: str, seconds: float
) -> None:
    scrapes, begin = Scrapes(worker), time.monotonic()

    def until(done: Callable[[], bool]) -> int:
        """Scrapes at each interval until `done`; returns the number of the last scrape."""
        while not done():
            if time.monotonic() - begin >= scrapes.number * SCRAPE:
                scrapes.take()
            time.sleep(0.5)
        return scrapes.number - 1

    def after(moment: float) -> Callable[[], bool]:
        return lambda: time.monotonic() >= moment

    until(after(begin + CALM))
    deployment.receiver.rules["/billing"] = always(Answer(503, body="upstream is away"))
    fault = time.monotonic()
    until(lambda: f'id="receiver-{billing}"' in requests.get(console, timeout=10).text)
    _say(fault, "the console lists the receiver")
    until(after(fault + seconds))
    _say(fault, f"it is mended; {len(deployment.rows('parked')):,} deliveries are stored for it")
    del deployment.receiver.rules["/billing"]
    repaired = time.monotonic()
    words = ("deliveries", "redeliver", "--subscription", str(billing), "--status", "parked", "--yes", "--no-wait")
    status, said, errors = command_line.run(*words)
    if status:
        sys.exit(said + errors)
    until(lambda: not deployment.rows("parked") and not deployment.rows("blocked"))
    _say(repaired, "the backlog is gone (since the repair)")
    last = until(after(time.monotonic() + CALM))
    fires = [number for number in range(1, last + 1) if scrapes.firing(number)]
    if not fires:
        sys.exit(f"{ALERT} did not fire")
    offset = begin - fault
    print(f"{fires[0] * SCRAPE + offset:8.0f} s  {ALERT} fires (since the fault)")
    print(f"{fires[-1] * SCRAPE + SCRAPE + begin - repaired:8.0f} s  it is resolved (since the repair)")
    print(f"scrapes with the alert before the fault: {sum(number * SCRAPE < -offset for number in fires)}")


def _say(since: float, text: str) -> None:
    print(f"{time.monotonic() - since:8.1f} s  {text}", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 65.0)
