"""The Helm chart, rendered by helm without a cluster, checked against Kubernetes' schemas and our code."""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import yaml

from consumer import __version__
from consumer.config import settings
from consumer.config.environment import check, load
from consumer.database.engine import create_engine
from consumer.intake import source
from consumer.kafka.client import known_properties
from consumer.telemetry import tracing
from consumer.worker import attempt_log, ownership, wiring, worker
from tests.deploy import schemas
from tests.deploy.go_tools import module_folder
from tests.deploy.helm_kit import CHART, VALUES, Helm, HelmError, PodOf, one, pod, pods, set_to
from tests.processes import ROOT

pytestmark = pytest.mark.timeout(2_000)  # the first run builds Helm

NAMES = [path.name.removesuffix("-values.yaml") for path in VALUES]
WORKER: tuple[type[Any], ...] = tuple(settings.WorkerSettings.__annotations__.values())
GROUPS: dict[str, tuple[type[Any], ...]] = {
    "run": WORKER,
    "check": WORKER,
    "migrate": (settings.DatabaseSettings,),
    "api": (
        settings.ApiSettings,
        settings.DatabaseSettings,
        settings.DeliverySettings,
        settings.KafkaSettings,
        settings.TopicSettings,
    ),
}
# Contents of the Secret's keys that programs can read.
SECRETS = {
    "webhook-secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "database-password": "password",
    "owner-password": "password",
    "database-url": "oracle+oracledb://webhooks:password@db.example.com:1521/?service_name=FREEPDB1",
    "encryption-key": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    "api-token": "a-long-random-string",
    "kafka-password": "password",
    "password": "password",
}
FOLDER, VAULT = "/run/secrets/kafka-webhooks", "/vault/secrets"
# Invalid values, and a part of the message.
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"image.digest": "latest"}, "/image/digest"),
    ({"kafka.properties": {"sasl.password": "written-down"}}, "name its key in kafka.secretProperties"),
    ({"kafka.properties": {"bootstrap.servers": "b:1"}}, "set kafka.bootstrapServers"),
    ({"kafka.secretProperties": {"group.id": "key"}}, "set kafka.groupId"),
    ({"database.url": "oracle+oracledb://webhooks:password@db:1521/?service_name=S"}, "/database/url"),
    ({"database.url": ""}, "database.url is empty"),
    ({"commonLabels": {"team": "a"}, "pod.labels": {"team": "b"}}, "commonLabels team: it is in pod.labels too"),
    ({"commonLabels": {"helm.sh/chart": "a"}}, "invalid propertyName 'helm.sh/chart'"),
    ({"commonAnnotations": {"helm.sh/hook": "a"}}, "invalid propertyName 'helm.sh/hook'"),
    ({"egress.allowNetworks": ["10.0.0.0"]}, "/egress/allowNetworks"),
    ({"egress.proxy": "http://user:password@proxy:3128"}, "/egress/proxy"),
    ({"settings": {"WEBHOOK_DRAIN": "60s"}}, "set worker.drainSeconds"),
    ({"settings": {"DATABASE_WALLET_PASSWORD": "written-down"}}, "name that in extraEnv"),
    ({"settings": {"PATH": "/bin"}}, "'PATH' does not match"),
    ({"extraEnv": [{"name": "OPS_PORT", "value": "1"}]}, "extraEnv OPS_PORT: probes"),
    ({"worker.replica": 2}, "'replica' not allowed"),
    ({"api.enabled": True, "secret.keys.apiToken": ""}, "set secret.keys.apiToken"),
    ({"secret.name": ""}, "name a Secret, or the file"),
    (
        {"secret.name": "", "settings": {"WEBHOOK_SECRET_FILE": "/a"}, "migration.database.urlKey": "url"},
        "migration.database: its keys",
    ),
    (
        {"secret.keys.databaseUrl": "url", "migration.database.passwordKey": "owner-password"},
        "so set migration.database.url",
    ),
    ({"settings": {"SCHEMA_REGISTRY_PASSWORD": "written-down"}}, "name that in extraEnv"),
    ({"api.ingress.enabled": True}, "set api.enabled too"),
    ({"api.enabled": True, "api.ingress.enabled": True}, "name a host in api.ingress.hosts"),
    ({"pod.securityContext.runAsUser": 0}, "/pod/securityContext"),
    ({"pod.securityContext.runAsNonRoot": False}, "/pod/securityContext"),
    ({"prometheusRule.enabled": True, "prometheusRule.thresholds": {"WebhooksLag": 1}}, "there is no such alert"),
    ({"keda.maxReplicas": 1}, "keda.minReplicas is more"),
]


def variables(found: PodOf, folder: Path) -> dict[str, str]:
    """A pod's environment as its program sees it, with the mounted keys as files in `folder`."""
    elsewhere = {Path(each.get("value", "")) for each in found.environment.values()}
    for key in found.files | {path.name for path in elsewhere if str(path.parent) == VAULT}:
        (folder / key).write_text(SECRETS[key])
    values = {}
    for name, variable in found.environment.items():
        if "valueFrom" in variable:
            values[name] = SECRETS[variable["valueFrom"]["secretKeyRef"]["key"]]
        else:
            values[name] = variable["value"].replace(FOLDER, str(folder)).replace(VAULT, str(folder))
    return values


@pytest.mark.parametrize("name", NAMES)
def test_kubernetes_accepts_every_object(helm: Helm, name: str) -> None:
    """Each object follows the schema of its kind, without unknown fields, and no two have the same name.

    Helm has no warnings either.
    """
    helm("lint", "--strict", str(CHART), "--values", str(CHART / f"ci/{name}-values.yaml"))
    things = helm.render(name)
    found = [
        f"{thing['kind']} {thing['metadata']['name']} {fault}" for thing in things for fault in schemas.faults(thing)
    ]
    assert found == []
    names = [(thing["kind"], thing["metadata"]["name"]) for thing in things]
    assert len(set(names)) == len(names)


def test_a_misspelt_field_is_found(helm: Helm) -> None:
    """The schemas are strict: an unknown field is a fault, in Kubernetes' kinds and in others."""
    things = helm.render("keda-api")
    for kind, end in (("Deployment", "worker"), ("ScaledObject", ""), ("PodMonitor", "")):
        thing = one(things, kind, end)
        thing["spec"]["replicaz"] = 3
        assert "replicaz" in " ".join(schemas.faults(thing))


@pytest.mark.parametrize("name", NAMES)
def test_selectors_find_their_pods(helm: Helm, name: str) -> None:
    """Each selector of pods selects those of one component."""
    things = helm.render(name)
    for thing in things:
        specification = thing.get("spec", {})
        selector = specification.get("podSelector") or specification.get("selector") or {}
        labels = selector.get("matchLabels", selector)
        if labels:
            chosen = {each.component for each in pods(things) if labels.items() <= each.labels.items()}
            assert chosen == {thing["metadata"]["labels"]["app.kubernetes.io/component"]}, thing


@pytest.mark.parametrize("name", NAMES)
def test_every_object_has_the_common_labels(helm: Helm, name: str) -> None:
    """So have the pods; no selector has them, since a selector can never change."""
    things = helm.render(name, *set_to({"commonLabels": {"unit": "shop"}}))
    found = [thing["metadata"]["labels"] for thing in things] + [each.labels for each in pods(things)]
    assert {labels["unit"] for labels in found} == {"shop"}
    assert [thing for thing in things if "shop" in str(thing.get("spec", {}).get("selector"))] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_object_has_the_common_annotations(helm: Helm, name: str) -> None:
    """So have the pods; an annotation of their own with the same name wins."""
    common = dict.fromkeys(("unit", "example.com/role", "example.com/internal", "example.com/a"), "shop")

    def annotations(changes: dict[str, Any]) -> list[dict[str, str]]:
        things = helm.render(name, *set_to(changes))
        own = [thing["metadata"].get("annotations", {}) for thing in things]
        return own + [each.annotations for each in pods(things)]

    assert annotations({"commonAnnotations": common}) == [common | own for own in annotations({})]


@pytest.mark.parametrize("name", NAMES)
def test_pods_have_no_privileges(helm: Helm, name: str) -> None:
    """They have no root user, a read-only root file system, no capability, seccomp, no API token, no service links."""
    for each in pods(helm.render(name)):
        assert each.spec["automountServiceAccountToken"] is False
        assert each.spec["enableServiceLinks"] is False
        assert each.spec["securityContext"]["runAsNonRoot"] is True
        assert each.spec["securityContext"].get("runAsUser") == (None if name == "openshift" else image_user())
        assert each.spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert each.container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= set(each.container["resources"]["requests"])
        assert "memory" in each.container["resources"]["limits"]


def image_user() -> int:
    """The user of the Dockerfile."""
    (user,) = re.findall(r"^USER (\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return int(user)


@pytest.mark.parametrize("name", NAMES)
def test_programs_get_their_settings(helm: Helm, name: str, tmp_path: Path) -> None:
    """Each variable is a setting or a property of librdkafka, set once, and each command's loader accepts them all."""
    for each in pods(helm.render(name)):
        listed = [variable["name"] for variable in each.container["env"]]
        assert len(set(listed)) == len(listed)
        unknown = set(listed) - settings.known_names() - {"SSL_CERT_FILE"}
        assert all(variable.startswith("KAFKA_") for variable in unknown), unknown
        values = variables(each, tmp_path)
        (command,) = each.container["args"]
        check(GROUPS[command], values)
        create_engine(load(settings.DatabaseSettings, values))  # the loader reads the URL's parameters
        if command == "run":
            assert known_properties(load(settings.KafkaSettings, values).properties)[1] == []


@pytest.mark.parametrize("name", NAMES)
def test_pods_mount_the_secrets_that_they_read(helm: Helm, name: str) -> None:
    """A variable names each mounted key of the Secret, and each named key is mounted; no value is in the chart."""
    for each in pods(helm.render(name)):
        named = {
            variable["value"].removeprefix(f"{FOLDER}/")
            for variable in each.environment.values()
            if variable.get("value", "").startswith(FOLDER)
        }
        assert named == each.files
        assert not {"WEBHOOK_SECRET", "API_TOKEN", "WEBHOOK_ENCRYPTION_KEY"} & set(each.environment)


def seconds_to_stop() -> float:
    """The longest time of a stop after the drain: see `Worker._close`."""
    leave = inspect.signature(source.Source.close).parameters["timeout"].default
    threads = re.search(r"([\w, ]+) = self\.threads = \[", inspect.getsource(wiring))
    assert threads
    databases = len(threads[1].split(",")) * worker.LEAVE_DATABASE
    observers = attempt_log.FLUSH + tracing.FLUSH
    return float(2 * ownership.STORE_DRAIN + source._COMMIT_SECONDS + leave + databases + observers)


@pytest.mark.parametrize("drain", [0, 1, 20, 299, 600])
def test_kubernetes_waits_longer_than_a_stop_takes(helm: Helm, drain: int, tmp_path: Path) -> None:
    """The grace period exceeds the drain and all later steps, whatever the drain."""
    found = pod(helm.render("minimal", *set_to({"worker.drainSeconds": drain})), "worker")
    assert load(settings.DeliverySettings, variables(found, tmp_path)).drain == drain
    assert found.spec["terminationGracePeriodSeconds"] > drain + seconds_to_stop()


def test_probes_and_monitors_use_the_configured_port(helm: Helm, tmp_path: Path) -> None:
    """Liveness is /healthz, a worker's readiness is /readyz, on the port of the setting, whatever else is set."""
    things = helm.render("keda-api")
    for component, group, field, ready in (
        ("worker", settings.OpsSettings, "ops_port", "/readyz"),
        ("api", settings.ApiSettings, "api_port", "/healthz"),
    ):
        found = pod(things, component)
        (port,) = found.container["ports"]
        assert port["containerPort"] == getattr(load(group, variables(found, tmp_path)), field)
        live, readiness = found.container["livenessProbe"], found.container["readinessProbe"]
        assert live["httpGet"] == {"path": "/healthz", "port": port["name"]}
        assert readiness["httpGet"] == {"path": ready, "port": port["name"]}
    (endpoint,) = one(things, "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("ops", "/metrics")
    (port,) = one(things, "Service")["spec"]["ports"]
    assert port["targetPort"] == "http"


def test_the_migration_runs_before_everything_else(helm: Helm) -> None:
    """It is a hook, like its network policy, and needs no object that the installation creates later."""
    things = helm.render("minimal")
    before = [
        thing
        for thing in things
        if thing["metadata"].get("annotations", {}).get("helm.sh/hook") == "pre-install,pre-upgrade"
    ]
    assert {(thing["kind"], thing["metadata"]["name"]) for thing in before} == {
        ("Job", "r-kafka-webhooks-migrate"),
        ("NetworkPolicy", "r-kafka-webhooks-migrate"),
    }
    weights = {thing["kind"]: int(thing["metadata"]["annotations"]["helm.sh/hook-weight"]) for thing in before}
    assert weights["NetworkPolicy"] < weights["Job"]
    job = pod(before, "migrate")
    assert job.spec["serviceAccountName"] == "default"
    assert pod(helm.render("vault"), "migrate").spec["serviceAccountName"] == "webhooks", "it exists already"
    assert job.files == {"database-password"}


def test_another_account_migrates(helm: Helm, tmp_path: Path) -> None:
    """The owner of the tables has its own URL and password, which workers do not get.

    If the workers' whole URL is in the Secret, the owner's plain URL is used with the owner's password. If the owner's
    is, the migration alone gets it.
    """
    things = helm.render("full")
    migrate, run = pod(things, "migrate"), pod(things, "worker")
    assert "//webhooks@" in variables(migrate, tmp_path)["DATABASE_URL"]
    assert migrate.files == {"owner-password"}
    assert "//webhooks_rw@" in variables(run, tmp_path)["DATABASE_URL"]
    assert "owner-password" not in run.files
    url = "oracle+oracledb://owner@db:1521/?service_name=S"
    changes = {"migration.database": {"url": url, "passwordKey": "owner-password"}}
    migrate = pod(helm.render("keda-api", *set_to(changes)), "migrate")
    assert (migrate.environment["DATABASE_URL"]["value"], migrate.files) == (url, {"owner-password"})
    changes = {"migration.database": {"urlKey": "owner-url"}}
    things = helm.render("ingress", *set_to(changes))
    assert [each.component for each in pods(things) if "owner-url" in str(each)] == ["migrate"]
    source = pod(things, "migrate").environment["DATABASE_URL"]["valueFrom"]
    assert source == {"secretKeyRef": {"name": "kafka-webhooks", "key": "owner-url"}}
    assert pod(things, "migrate").files == set()


def test_scaling(helm: Helm) -> None:
    """KEDA scales the worker's Deployment, which then has no number of replicas, by the lag of the workers' group."""
    things = helm.render("keda-api")
    scaled, deployment = one(things, "ScaledObject")["spec"], one(things, "Deployment", "worker")
    assert scaled["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]
    (trigger,) = scaled["triggers"]
    metadata, environment = trigger["metadata"], pod(things, "worker").environment
    assert metadata["consumerGroup"] == environment["KAFKA_GROUP_ID"]["value"]
    assert metadata["bootstrapServers"] == environment["KAFKA_BOOTSTRAP_SERVERS"]["value"]
    assert metadata["excludePersistentLag"] == "true"
    scaler = (module_folder(schemas.KEDA) / "pkg/scalers/kafka_scaler.go").read_text()
    assert set(metadata) <= set(re.findall(r'`keda:"name=(\w+),order=triggerMetadata', scaler))


def test_the_number_of_replicas_can_be_left_to_others(helm: Helm) -> None:
    """Null is no number, and not 0, which would stop all delivery: an autoscaler of one's own decides then."""
    things = helm.render("autoscaler", *set_to({"api": {"enabled": True, "replicas": None}}))
    assert "replicas" not in one(things, "Deployment", "worker")["spec"]
    assert "replicas" not in one(things, "Deployment", "api")["spec"]
    stopped = helm.render("minimal", *set_to({"worker.replicas": 0}))
    assert one(stopped, "Deployment", "worker")["spec"]["replicas"] == 0


def test_components_are_scheduled_apart(helm: Helm) -> None:
    """A component's own nodes and tolerations take the place of the pods' common ones, which others keep."""
    common = {"pod.nodeSelector": {"pool": "common"}}
    things = helm.render("autoscaler", *set_to({"api.enabled": True, **common}))
    selectors = {name: pod(things, name).spec["nodeSelector"]["pool"] for name in ("worker", "api", "migrate")}
    assert selectors == {"worker": "webhooks", "api": "common", "migrate": "common"}
    assert pod(helm.render("ingress"), "api").spec["tolerations"] == [{"key": "edge", "operator": "Exists"}]
    assert "tolerations" not in pod(helm.render("ingress"), "worker").spec


def test_an_ingress_leads_to_the_api(helm: Helm) -> None:
    """It has its hosts alone; two pods of the API are spread, and one is there while a node is drained."""
    things = helm.render("ingress")
    specification, service = one(things, "Ingress")["spec"], one(things, "Service")
    (rule,) = specification["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert (rule["host"], backend["name"]) == ("webhooks.example.com", service["metadata"]["name"])
    assert backend["port"]["name"] == service["spec"]["ports"][0]["name"]
    assert one(things, "PodDisruptionBudget", "api")["spec"]["maxUnavailable"] == 1
    spread = pod(things, "api").spec["topologySpreadConstraints"]
    assert {each["topologyKey"] for each in spread} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}


def test_programs_may_write_the_secrets(helm: Helm) -> None:
    """Without a Secret no pod names one; each pod has the program that writes the files, and the sidecar."""
    things = helm.render("vault")
    assert "secretKeyRef" not in json.dumps(things)
    for each in pods(things):
        assert not each.files
        assert [container["name"] for container in each.spec["initContainers"]] == ["vault-agent-init", "vault-agent"]
        assert {"name": "vault", "mountPath": "/vault/secrets", "readOnly": True} in each.container["volumeMounts"]


def test_a_slow_start_is_waited_for(helm: Helm) -> None:
    """Liveness counts from the end of the startup probe, which asks the same path for two minutes."""
    for component in ("worker", "api"):
        container = pod(helm.render("full"), component).container
        probe = container["startupProbe"]
        assert probe["httpGet"] == container["livenessProbe"]["httpGet"]
        assert probe["periodSeconds"] * probe["failureThreshold"] == 120


def unbounded(schema: dict[str, Any], before: str = "") -> Iterator[str]:
    """The paths of integers that have no upper bound."""
    for name, inner in schema["properties"].items():
        if "integer" in inner.get("type", "") and "maximum" not in inner:
            yield before + name
        if "properties" in inner:
            yield from unbounded(inner, f"{before}{name}.")


def test_a_large_number_stays_a_number(helm: Helm) -> None:
    """Helm reads numbers as floating point, but writes none as 2.097152e+06, which Kafka's client would read as 2."""
    large = 2097152
    numbers = dict.fromkeys(unbounded(json.loads((CHART / "values.schema.json").read_text())), large)
    assert "worker.replicas" in numbers
    properties = {"max.partition.fetch.bytes": large, "linger.ms": 0.5}
    changes = {"kafka.properties": properties, "settings.WEBHOOK_MAX_IN_FLIGHT": large, **numbers}
    scaled, plain = (helm.render(name, *set_to(changes)) for name in ("full", "minimal"))
    assert "e+0" not in json.dumps([scaled, plain])
    environment = pod(plain, "worker").environment
    names = ("KAFKA_MAX_PARTITION_FETCH_BYTES", "KAFKA_LINGER_MS", "WEBHOOK_MAX_IN_FLIGHT")
    assert [environment[name]["value"] for name in names] == ["2097152", "0.5", "2097152"]
    (trigger,) = one(scaled, "ScaledObject")["spec"]["triggers"]
    assert trigger["metadata"]["lagThreshold"] == "2097152"


def test_a_rolling_update_never_has_fewer_workers(helm: Helm) -> None:
    """It adds one worker at a time, with a pause. Nodes can be drained although no worker is ready."""
    things = helm.render("minimal")
    specification = one(things, "Deployment", "worker")["spec"]
    assert specification["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert specification["minReadySeconds"] > 0
    budget = one(things, "PodDisruptionBudget")["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


# Values.


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_invalid_values_are_refused(helm: Helm, changes: dict[str, Any], message: str) -> None:
    """Values of a wrong type, unknown, secret or set elsewhere are refused with a helpful message."""
    with pytest.raises(HelmError) as refused:
        helm.render("minimal", *set_to(changes))
    assert message in str(refused.value)


def paths(values: dict[str, Any], properties: dict[str, Any], before: str = "") -> Iterator[str]:
    """Each value by its path, as deep as the schema has names."""
    for name, value in values.items():
        yield before + name
        inner = properties[name].get("properties")
        if inner:
            assert set(value) == set(inner), before + name
            yield from paths(value, inner, f"{before}{name}.")


def test_documented_values() -> None:
    """The schema and values.yaml have the same values, which include those in docs/kubernetes.md."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    there = set(paths(yaml.safe_load((CHART / "values.yaml").read_text()), schema["properties"]))
    assert set(schema["properties"]) - {"global"} <= there
    tops = "|".join(name for name in schema["properties"])
    named = re.findall(rf"`((?:{tops})[.][\w.]+)", (ROOT / "docs/kubernetes.md").read_text())
    assert len(named) > 20
    assert set(named) - {"values.yaml"} <= there


def test_each_variable_has_one_value(helm: Helm) -> None:
    """`settings` refuses each variable that another value sets."""
    set_by_values = set()
    for path, each in zip(VALUES, NAMES, strict=True):
        values = yaml.safe_load(path.read_text())
        named = {*values.get("settings", {}), *(variable["name"] for variable in values.get("extraEnv", ()))}
        set_by_values |= {name for found in pods(helm.render(each)) for name in found.environment} - named
    for name in set_by_values & settings.known_names():
        with pytest.raises(HelmError, match=name):
            helm.render("minimal", *set_to({"settings": {name: "1"}}))


def test_the_rules_are_included(helm: Helm, tmp_path: Path) -> None:
    """files/rules.yaml becomes a PrometheusRule, word for word; without the file the value is refused."""
    chart = copytree(CHART, tmp_path / "chart", ignore=lambda *_: {"files"})
    on = set_to({"prometheusRule.enabled": True})
    with pytest.raises(HelmError, match=r"files/rules\.yaml"):
        helm.render("minimal", *on, chart=chart)
    (chart / "files").mkdir()
    rules = [{"alert": "A", "expr": "up == 0", "annotations": {"summary": "{{ $labels.pod }}"}}]
    text = yaml.safe_dump({"groups": [{"name": "g", "rules": rules}]})
    (chart / "files/rules.yaml").write_text(text)
    rule = one(helm.render("minimal", *on, chart=chart), "PrometheusRule")
    assert list(schemas.faults(rule)) == []
    assert rule["spec"]["groups"][0]["rules"] == rules


def test_alerts_have_thresholds_and_runbooks_of_ones_own(helm: Helm) -> None:
    """A threshold takes the place of the number that the expression compares with; nothing else changes."""
    things = helm.render("registry")
    mine = {rule["alert"]: rule for rule in one(things, "PrometheusRule")["spec"]["groups"][0]["rules"]}
    shipped = yaml.safe_load((CHART / "files/rules.yaml").read_text())["groups"][0]["rules"]
    for rule in shipped:
        rule["annotations"]["runbook_url"] = rule["annotations"]["runbook_url"].replace(
            "docs/runbooks.md", "https://wiki.example.com/webhooks/runbooks"
        )
        if rule["alert"] == "WebhooksLagGrows":
            assert "(webhooks_consumer_lag) > 1000\n" in rule["expr"]
            rule["expr"] = rule["expr"].replace("> 1000\n", "> 50000\n")
        assert mine[rule["alert"]] == rule


def test_the_version_is_the_programs(helm: Helm) -> None:
    """The image's default tag is the version of the program in this repository."""
    assert pod(helm.render("minimal"), "worker").container["image"].endswith(f":{__version__}")
    assert "@sha256:" in pod(helm.render("full"), "worker").container["image"]
