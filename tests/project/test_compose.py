"""docker-compose.yml and Dockerfile against the specification and our code. `make compose-check` runs them."""

import json
import re
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from consumer import __version__
from consumer.cli.app import main
from consumer.config import settings
from consumer.config.environment import check, load
from consumer.http.server import BackgroundServer, listen
from consumer.kafka.client import known_properties
from consumer.worker.service import STALLED, LoopState, create_app
from tests import processes

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if service["image"] == "kafka-webhooks:local")
GROUPS: dict[str, tuple[type[Any], ...]] = {
    "run": tuple(settings.WorkerSettings.__annotations__.values()),
    "migrate": (settings.DatabaseSettings,),
    "subscriptions": (settings.DatabaseSettings, settings.RuleSettings),
    "api": (settings.ApiSettings, settings.DatabaseSettings, settings.RuleSettings),
    "listen": (settings.SigningSettings,),
}


def environment(service: dict[str, Any]) -> dict[str, str]:
    """A service's environment if the shell sets no variable."""
    return {
        name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value)) for name, value in service.get("environment", {}).items()
    }


def test_it_follows_the_specification() -> None:
    """The file is valid under the Compose Specification's JSON schema, which is part of check-jsonschema."""
    options = ["--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]
    command = [sys.executable, "-m", "check_jsonschema", *options]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("name", OURS)
def test_our_services_set_existing_settings(name: str) -> None:
    """Every variable is a setting or a property of librdkafka, and each command exists and has all that it requires."""
    values = environment(SERVICES[name])
    assert not [variable for variable in values if "$" in values[variable]]
    unknown = {name for name in values if name not in settings.known_names() and not name.startswith("KAFKA_")}
    assert not unknown
    check(GROUPS[SERVICES[name]["command"][0]], values)
    assert main([*SERVICES[name]["command"], "--help"]) == 0
    if "KAFKA_BOOTSTRAP_SERVERS" in values:
        assert known_properties(load(settings.KafkaSettings, values).properties)[1] == []


def test_the_image_is_built_once() -> None:
    """Compose builds services side by side, and a tag that two of them export is an error; no registry has it."""
    built = [name for name in OURS if "build" in SERVICES[name]]
    assert built == ["migrate"]
    assert {SERVICES[name]["pull_policy"] for name in OURS if name not in built} == {"never"}


def test_start_order() -> None:
    """A dependency on a healthy service needs a health check there. One on a finished job needs a job that ends."""
    for service in SERVICES.values():
        for other, wait in service.get("depends_on", {}).items():
            match wait["condition"]:
                case "service_healthy":
                    assert "healthcheck" in SERVICES[other]
                case "service_completed_successfully":
                    assert SERVICES[other]["restart"].startswith("on-failure")
                case condition:
                    pytest.fail(f"{condition} waits for nothing")


@pytest.mark.parametrize("name", OURS)
def test_health_checks_are_programs(name: str) -> None:
    """A health check in Python compiles, and uses the port of its service."""
    test = SERVICES[name].get("healthcheck", {}).get("test")
    if test is None:
        assert SERVICES[name]["restart"].startswith("on-failure")
        return
    kind, program, option, code = test
    assert (kind, program, option) == ("CMD", "python", "-c")
    compile(code, name, "exec")
    values = environment(SERVICES[name])
    match SERVICES[name]["command"]:
        case ["run"]:
            port = load(settings.OpsSettings, values).ops_port
        case ["api"]:
            port = load(settings.ApiSettings, values).api_port
        case ["listen", *options]:
            port = int(options[options.index("--port") + 1])
    assert f"http://127.0.0.1:{port}/" in code


def test_the_topics_are_created() -> None:
    """They are the consumer's input topic and its three output topics, because this Kafka creates none by itself."""
    (script,) = SERVICES["topics"]["command"]
    created = re.findall(r"for topic in (.*); do", script)[0].split()
    values = environment(SERVICES["consumer"])
    ours = {values[f"KAFKA_{name}_TOPIC"] for name in ("DEAD_LETTER", "OPERATIONS", "ATTEMPTS")}
    assert set(created) == {*load(settings.TopicSettings, values).topics, *ours}
    assert environment(SERVICES["kafka"])["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_there_are_two_workers_that_may_drain() -> None:
    """There are two replicas, and Docker waits longer than they drain."""
    service = SERVICES["consumer"]
    assert service["deploy"]["replicas"] == 2
    assert not {"container_name", "ports"} & set(service)
    drain = load(settings.DeliverySettings, environment(service)).drain
    assert int(service["stop_grace_period"].removesuffix("s")) >= drain + 35


def test_ports_are_on_loopback_only() -> None:
    """The passwords are written in the file."""
    for service in SERVICES.values():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")


def instructions() -> list[tuple[str, str]]:
    lines = DOCKERFILE.splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    return [(word, rest) for word, rest in pairs]


def test_the_image_copies_existing_files() -> None:
    """Each copied path exists and is in the build's context."""
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [rest.split()[0] for word, rest in instructions() if word == "COPY" and not rest.startswith("--from")]
    assert sorted(copied) == sorted(kept)
    for path in copied:
        assert (ROOT / path).exists(), path


def test_the_image_runs_a_real_command_unprivileged() -> None:
    """It is in exec form, so that SIGTERM reaches Python, and not as root; it exposes the port of the probes."""
    found = dict(instructions())
    assert json.loads(found["ENTRYPOINT"]) == ["kafka-webhooks"]
    assert json.loads(found["CMD"]) == ["run"]
    assert int(found["USER"]) > 0
    ports = found["EXPOSE"].split()
    assert ports == [str(settings.OpsSettings().ops_port), str(settings.ApiSettings().api_port)]


def test_the_image_has_the_compiled_build_and_no_compiler() -> None:
    """A stage builds its wheel; the final stage takes over the installed packages alone."""
    *_, wheel, program, final = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)
    assert "HATCH_BUILD_HOOK_ENABLE_MYPYC=true" in wheel
    assert "COPY --from=wheel /wheel /wheel" in program
    assert "COPY --from=program /venv /venv" in final
    assert not re.search(r"gcc|apt-get|COPY (?!--from)", final)


def test_the_label_of_the_image_has_the_programs_version() -> None:
    """The licence is the project's."""
    labels = dict(re.findall(r'^LABEL org[.]opencontainers[.]image[.](\S+)="(.*)"$', DOCKERFILE, re.MULTILINE))
    assert (labels["version"], labels["licenses"]) == (__version__, "Apache-2.0")


@pytest.mark.parametrize(("alive", "status"), [(True, 0), (False, 1)])
def test_the_image_checks_a_workers_health(alive: bool, status: int) -> None:  # noqa: FBT001 (a parameter of pytest)
    """Its health check ends with 0 if the loop of the worker on OPS_PORT turns, ready or not, and otherwise with 1."""
    options, command = dict(instructions())["HEALTHCHECK"].split(" CMD ")
    assert "--timeout=5s" in options
    _, *arguments = json.loads(command)
    turned = time.monotonic() - (0 if alive else 2 * STALLED)
    listener = listen("127.0.0.1", 0)
    with closing(
        BackgroundServer(create_app(lambda: LoopState(turned, ["waits"]), CollectorRegistry()), listener, "health")
    ):
        ran = subprocess.run(
            [sys.executable, *arguments],
            env=processes.environment({"OPS_PORT": str(listener.getsockname()[1])}),
            capture_output=True,
            timeout=30,
            check=False,
        )
    assert ran.returncode == status
