"""Runs the services of docker-compose.yml in containers of the image that `make image` builds: `make compose-check`.

Command, environment, ports, restart policy, health check and order are those of the file. Kafka is a real one and
Oracle the emulated one, in place of their images. Our containers have less than the file gives them: a root file system
that is read-only, and none of root's capabilities. Docker's own part is not shown: its name server, volumes, builder.
"""

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import yaml
from confluent_kafka.admin import AdminClient

from tests.image import containers, stand_ins
from tests.image.containers import ContainerError, podman
from tests.processes import ROOT
from tests.waiting import eventually

PREFIX = "kafka-webhooks-check"
NETWORK = f"{PREFIX}-{os.getpid()}"  # podman may never free the addresses of a network whose containers were killed
SUBNET = "172.29.77"  # of the networks that WEBHOOK_ALLOW_NETWORKS names
OURS = "kafka-webhooks:local"
HARDENED = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges")
EVENT = '{"id": 123, "name": "Jane Doe"}'


class Services:
    """The file's services and their containers."""

    def __init__(self, text: str, folder: Path) -> None:
        filled = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text).replace("$$", "$")
        self.by_name: dict[str, dict[str, Any]] = yaml.safe_load(filled)["services"]
        self.started: list[str] = []
        self._folder = folder
        self._began = time.monotonic()
        names = [each for name in self.by_name for each in self.containers(name)]
        self._addresses = {name: f"{SUBNET}.{number}" for number, name in enumerate(names, 10)}

    def containers(self, name: str) -> list[str]:
        """The containers of a service, by name."""
        replicas = self.by_name[name].get("deploy", {}).get("replicas", 1)
        return [f"{PREFIX}-{name}-{number}" for number in range(1, replicas + 1)]

    def say(self, text: str) -> None:
        """Prints a line with the seconds since the start."""
        sys.stdout.write(f"{time.monotonic() - self._began:6.1f} s  {text}\n")
        sys.stdout.flush()

    def up(self) -> None:
        """Starts each service once what it depends on holds."""
        waiting = dict(self.by_name)
        while waiting:
            name = next(each for each, service in waiting.items() if waiting.keys().isdisjoint(_needs(service)))
            service = waiting.pop(name)
            for other, wait in _needs(service).items():
                self._wait(other, wait["condition"])
            for container in self.containers(name):
                self._start(name, container)
            self.say(f"{name} started")
        for name, service in self.by_name.items():
            if "healthcheck" in service:
                self._wait(name, "service_healthy")
        for worker in self.containers("consumer"):
            if not containers.is_healthy(worker):
                raise self.failed(worker, "does not pass the health check of the image")

    def down(self) -> None:
        """Stops the services that run, the last started first, and checks that ours end by themselves and with 0."""
        for container in reversed(self.started):
            service = self.by_name[self._service(container)]
            if containers.is_running(container):
                podman("stop", "--time", service.get("stop_grace_period", "10s").removesuffix("s"), container)
                if service["image"] == OURS and (code := containers.exit_code(container)):
                    raise self.failed(container, f"ended with {code} after SIGTERM")
                self.say(f"{container} stopped")

    def failed(self, container: str, why: str) -> ContainerError:
        """An error with the end of the container's log."""
        return ContainerError(f"{container} {why}:\n{containers.logs(container)[-3000:]}")

    def _service(self, container: str) -> str:
        return next(name for name in self.by_name if container in self.containers(name))

    def _start(self, name: str, container: str) -> None:
        service = self.by_name[name]
        if service["image"] == OURS:
            image, command = [*HARDENED, OURS], list(service.get("command", ()))
        else:
            image, command = stand_ins.root_of(service["image"], self._folder / container)
            command = [*service["entrypoint"], *service["command"]] if "entrypoint" in service else command
        options = [f"--env={key}={value}" for key, value in service.get("environment", {}).items()]
        options += [f"--publish={ports}" for ports in service.get("ports", ())]
        options += [f"--add-host={self._service(other)}:{address}" for other, address in self._addresses.items()]
        self.started.append(container)
        containers.run(
            container, image, command, f"--network={NETWORK}", f"--ip={self._addresses[container]}",
            f"--restart={service['restart']}", *options,
        )  # fmt: skip

    def _wait(self, name: str, condition: str) -> None:
        healthy = condition == "service_healthy"
        test = self.by_name[name]["healthcheck"]["test"] if healthy else ()
        for container in self.containers(name):

            def holds(container: str = container) -> bool:
                return containers.is_healthy(container, test) if healthy else containers.has_succeeded(container)

            try:
                eventually(holds, every=0.5)
            except AssertionError:
                raise self.failed(container, f"is not {condition}") from None
            self.say(f"{container} is {'healthy' if healthy else 'done'}")


def _needs(service: dict[str, Any]) -> dict[str, dict[str, str]]:
    needs: dict[str, dict[str, str]] = service.get("depends_on", {})
    return needs


def _tries(services: Services) -> Iterator[str]:
    """Takes the steps that a user takes next, and yields a report of each."""
    worker, receiver = services.containers("consumer")[0], services.containers("receiver")[0]
    wanted = ("-type", "f", "(", "-perm", "/6000", "-o", "-name", "apt-get", ")")
    found = podman("exec", worker, "find", "/", "-xdev", *wanted, check=False)  # it may not look everywhere
    _must(not found.stdout, f"the image has programs that give rights or install others: {found.stdout}")
    yield "the image has no setuid program and no apt-get"
    topics = AdminClient({"bootstrap.servers": "127.0.0.1:9094"}).list_topics(timeout=20).topics
    partitions = {name: len(topic.partitions) for name, topic in topics.items() if not name.startswith("__")}
    _must(sorted(partitions.values()) == [6] * 5, f"the topics are {partitions}")
    yield f"Kafka answers on the published port: {partitions}"
    podman("exec", worker, "kafka-webhooks", "publish", "users", EVENT, "--type", "user.created")
    eventually(lambda: "Jane Doe" in containers.logs(receiver), otherwise=lambda: containers.logs(receiver))
    yield "the receiver got the event:\n" + containers.logs(receiver)
    answer = requests.post(
        "http://127.0.0.1:8080/register-webhook",
        json={"url": "http://receiver:8000/more", "eventType": "user.created"},
        headers={"authorization": "Bearer local-only"},
        timeout=20,
    )
    _must(answer.status_code == 201, f"the API answers {answer.status_code}: {answer.text}")
    yield f"the API answers {answer.status_code} {answer.text}"
    again = EVENT.replace("Jane", "Joan")
    podman("exec", worker, "kafka-webhooks", "publish", "users", again, "--type", "user.created")
    eventually(lambda: containers.logs(receiver).count("Joan Doe") >= 2, otherwise=lambda: containers.logs(receiver))
    yield "the receiver got the second event twice, for both subscriptions"
    page = requests.get("http://127.0.0.1:8080/console", timeout=20)
    _must(page.ok and "kafka-webhooks" in page.text, f"the console answers {page.status_code}")
    yield f"the console answers {page.status_code}"


def _must(holds: bool, otherwise: str) -> None:  # noqa: FBT001 (a condition)
    if not holds:
        raise ContainerError(otherwise)


@contextmanager
def _removed(services: Services) -> Iterator[None]:
    """Removes the containers and their network at the end, and at the beginning: a killed check has left its own."""
    everything = [each for name in services.by_name for each in services.containers(name)]

    def remove() -> None:
        podman("rm", "--force", "--ignore", "--time", "0", *everything)
        containers.remove_networks(PREFIX, f"{SUBNET}.1")

    remove()
    try:
        yield
    finally:
        remove()


def main() -> None:
    """Raises ContainerError."""
    containers.enter()
    folder = ROOT / ".cache/compose-check"
    containers.mount_memory(folder)
    services = Services((ROOT / "docker-compose.yml").read_text(), folder)
    with _removed(services):
        podman("network", "create", "--disable-dns", "--subnet", f"{SUBNET}.0/24", NETWORK)
        services.up()
        for seen in _tries(services):
            services.say(seen)
        services.down()


if __name__ == "__main__":
    try:
        main()
    except (ContainerError, AssertionError) as error:
        sys.exit(f"failed: {error}")
