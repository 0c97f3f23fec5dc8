"""The chart on a real API server (`make kube`): installed, several times in one namespace, and upgraded."""

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.deploy.cluster import RESTRICTED, Cluster, cluster_in, named
from tests.deploy.go_tools import api_server
from tests.deploy.helm_kit import CHART, VALUES, Helm, HelmError, HelmWarning, Object, pods
from tests.processes import ROOT
from tests.provided import extract, or_skip

pytestmark = pytest.mark.timeout(4_000)  # the first run builds the server


def git(*words: str) -> bytes:
    """The output of git; empty if it fails or if there is none."""
    if not shutil.which("git"):
        return b""
    return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, check=False).stdout  # noqa: S607 (any git)


# The newest release before this commit.
RELEASE = git("describe", "--tags", "--abbrev=0", "--match", "v*", "HEAD^").decode().strip()
WORKER = "apis/apps/v1/namespaces/{}/deployments/{}-kafka-webhooks-worker"
# A file of the chart, a fault in it, and what is said of that.
BROKEN = [
    ("_helpers.tpl", "component: {{ index . 1 }}\n", "component: {{ index . 1 }}s\n", "field is immutable"),
    ("worker-deployment.yaml", "revisionHistoryLimit:", "revisionHistory:", "field not declared in schema"),
    ("_pod.tpl", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "would violate PodSecurity"),
    ("worker-scaling.yaml", "pollingInterval:", "pollInterval:", "field not declared in schema"),
    ("disruption.yaml", "policy/v1", "policy/v1beta1", "no matches for kind"),
    (
        "api-service.yaml",
        "kind:",
        "kind: Endpoints\nmetadata: {name: old}\n---\napiVersion: v1\nkind:",
        "deprecated in",
    ),
]


class Space(NamedTuple):
    """A namespace in which helm runs."""

    program: Helm
    cluster: Cluster
    name: str

    def helm(self, *words: str) -> str:
        """Helm's output. Raises HelmError, for a warning of the server too."""
        return self.program(*words, "--namespace", self.name, *self.cluster.helm_options)

    def put(self, release: str, values: Path, *options: str, chart: Path = CHART) -> None:
        """Install or upgrade a release, without hooks: nothing would run the migration."""
        self.helm("upgrade", "--install", "--no-hooks", release, str(chart), "--values", str(values), *options)

    def ask(self, things: Iterable[Object]) -> None:
        """Ask the server whether it would create each object. Raises RefusedError."""
        for thing in things:
            self.cluster.create(thing, self.name, dry=True)


def bare_pods(things: Iterable[Object]) -> list[Object]:
    """The pods that the objects lead to, which the server judges as their controllers would send them."""
    return [named("Pod", "p", spec=pod.spec) for pod in pods(list(things))]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster, with the class of priority that ci/full-values.yaml names."""
    programs = or_skip(api_server, "KUBE")
    with cluster_in(tmp_path_factory.mktemp("cluster"), programs) as started:
        started.create(named("PriorityClass", "high", "scheduling.k8s.io/v1", value=1000))
        yield started


def space(helm: Helm, cluster: Cluster, name: str) -> Space:
    """A namespace that enforces `restricted`, with the accounts that are there before an installation."""
    namespace = named("Namespace", name)
    namespace["metadata"]["labels"] = RESTRICTED
    cluster.create(namespace)
    for account in ("default", "migrations", "webhooks"):
        cluster.create(named("ServiceAccount", account), name)
    return Space(helm, cluster, name)


@pytest.fixture(scope="module")
def shared(helm: Helm, cluster: Cluster) -> Space:
    """The namespace of all installations."""
    return space(helm, cluster, "shared")


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_an_installation_is_accepted(shared: Space, values: Path) -> None:
    """Nothing is refused or warned of, beside other releases: the migration first, all objects, each pod, the check."""
    words = ("install", values.stem, str(CHART), "--values", str(values))
    plan = json.loads(shared.helm(*words, "--dry-run=server", "--output", "json"))
    hooks = [(hook["events"], yaml.safe_load(hook["manifest"])) for hook in plan["hooks"]]
    before, after = ([thing for events, thing in hooks if event in events] for event in ("pre-install", "test"))
    assert after
    shared.ask([*before, *bare_pods(before)])
    shared.helm(*words, "--no-hooks")
    shared.ask([*after, *bare_pods(filter(None, yaml.safe_load_all(plan["manifest"])))])


@pytest.mark.parametrize("release", [RELEASE or "HEAD"], ids=[RELEASE or "none yet, so the last commit"])
def test_a_release_is_upgraded(helm: Helm, cluster: Cluster, tmp_path: Path, release: str) -> None:
    """Each installation of the last release is upgraded to this chart with the values that it has."""
    there = space(helm, cluster, "released")
    with tarfile.open(fileobj=io.BytesIO(git("archive", release, "deploy"))) as archive:
        extract(archive, tmp_path)
    chart = tmp_path / CHART.relative_to(ROOT)
    for values in sorted((chart / "ci").glob("*-values.yaml")):
        for each in (chart, CHART):
            with suppress(HelmWarning):  # of the values that it has
                there.put(values.stem, values, chart=each)


def test_values_change_at_an_upgrade(helm: Helm, cluster: Cluster) -> None:
    """One release is upgraded to the values of each file after the other, and rolled back to the first."""
    there = space(helm, cluster, "changing")
    for values in VALUES:
        there.put("r", values, "--set", "fullnameOverride=r")
    there.helm("rollback", "r", "1", "--no-hooks")


def test_the_number_of_workers_is_handed_over(helm: Helm, cluster: Cluster) -> None:
    """Helm sets it to 1 when it leaves it to a scaler, unless somebody else has changed it, as docs/kubernetes.md says.

    Then Helm does not change it again without `--force-conflicts`.
    """
    there, values = space(helm, cluster, "scaling"), CHART / "ci/minimal-values.yaml"

    def number(*changes: str) -> int:
        there.put("r", values, *changes)
        return int(cluster.get(WORKER.format("scaling", "r"))["spec"]["replicas"])

    assert number() == 2
    cluster.scale(WORKER.format("scaling", "r"), 3)
    assert number("--set", "keda.enabled=true") == 3
    with pytest.raises(HelmError, match="conflict"):
        number("--set", "worker.replicas=5")
    assert number("--set", "worker.replicas=5", "--force-conflicts") == 5
    assert number("--set", "keda.enabled=true") == 1


def test_pods_name_the_version_of_their_secret(helm: Helm, cluster: Cluster) -> None:
    """A changed Secret makes new pods at an upgrade; without a Secret of its own nothing does."""
    there = space(helm, cluster, "secrets")
    cluster.create(named("Secret", "kafka-webhooks"), "secrets")
    version = cluster.get("api/v1/namespaces/secrets/secrets/kafka-webhooks")["metadata"]["resourceVersion"]
    for release, expected in {"minimal": version, "vault": None}.items():
        there.put(release, CHART / f"ci/{release}-values.yaml")
        metadata = cluster.get(WORKER.format("secrets", release))["spec"]["template"]["metadata"]
        assert metadata.get("annotations", {}).get("kafka-webhooks/secret-version") == expected


@pytest.mark.parametrize(("file", "old", "new", "message"), BROKEN, ids=lambda text: text[:20])
def test_faults_are_seen(
    helm: Helm, cluster: Cluster, tmp_path: Path, file: str, old: str, new: str, message: str
) -> None:
    """An upgrade to a chart with a fault is refused or warned of."""
    there = space(helm, cluster, file.replace("_", "").replace(".", "-"))
    everything = ("--set", "keda.enabled=true,api.enabled=true")
    there.put("r", CHART / "ci/ingress-values.yaml", *everything)
    chart = shutil.copytree(CHART, tmp_path / "chart")
    path = chart / "templates" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(HelmError, match=message):
        there.put("r", CHART / "ci/ingress-values.yaml", *everything, chart=chart)
