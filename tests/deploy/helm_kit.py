"""Renders the chart, and finds the parts of the result."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.processes import ROOT

CHART = ROOT / "deploy/helm/kafka-webhooks"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
Object = dict[str, Any]


class HelmError(Exception):
    """Helm's error for a chart or values that it refuses."""


class HelmWarning(HelmError):
    """What Helm or the API server warns of, in what they have done."""


class Helm(NamedTuple):
    """Runs helm without a cluster and without the user's files."""

    program: Path

    def __call__(self, *words: str) -> str:
        with tempfile.TemporaryDirectory() as home:
            variables = {"PATH": os.environ["PATH"], "HOME": home, "KUBECONFIG": "/nonexistent"}
            done = subprocess.run(
                [self.program, *words], env=variables, capture_output=True, text=True, timeout=200, check=False
            )
        if done.returncode:
            raise HelmError(done.stdout + done.stderr)
        if warnings := [line for line in done.stderr.splitlines() if not line.startswith("level=INFO")]:
            raise HelmWarning("\n".join(warnings))
        return done.stdout

    def render(self, name: str, *options: str, chart: Path = CHART) -> list[Object]:
        """The objects of an installation with the values of ci/`name`-values.yaml and further options."""
        values = str(CHART / f"ci/{name}-values.yaml")
        place = ("--namespace", "n", "--kube-version", "1.30.0")
        text = self("template", "r", str(chart), *place, "--values", values, *options)
        return [thing for thing in yaml.load_all(text, yaml.CSafeLoader) if thing]


def set_to(values: dict[str, Any]) -> list[str]:
    """The options that set these values, such as `{"worker.drainSeconds": 30}`."""
    return [word for path, value in values.items() for word in ("--set-json", f"{path}={json.dumps(value)}")]


def one(things: Sequence[Object], kind: str, end: str = "") -> Object:
    """The only object of a kind whose name ends so."""
    (thing,) = [each for each in things if each["kind"] == kind and each["metadata"]["name"].endswith(end)]
    return thing


class PodOf(NamedTuple):
    """A pod: the object that creates it, its labels and its specification."""

    kind: str
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: Object

    @property
    def component(self) -> str:
        return self.labels["app.kubernetes.io/component"]

    @property
    def container(self) -> Object:
        (container,) = self.spec["containers"]
        return dict(container)

    @property
    def environment(self) -> dict[str, Object]:
        """The pod's variables, each with `value` or `valueFrom`."""
        return {each["name"]: each for each in self.container["env"]}

    @property
    def files(self) -> set[str]:
        """The keys of the Secret that are mounted."""
        (secrets,) = [each for each in self.spec["volumes"] if each["name"] == "secrets"]
        return {item["path"] for source in secrets["projected"]["sources"] for item in source["secret"]["items"]}


def pods(things: Sequence[Object]) -> Iterator[PodOf]:
    """The pods that the objects create."""
    for thing in things:
        template = thing if thing["kind"] == "Pod" else thing.get("spec", {}).get("template")
        if template:
            metadata = template["metadata"]
            yield PodOf(thing["kind"], metadata["labels"], metadata.get("annotations") or {}, template["spec"])


def pod(things: Sequence[Object], component: str) -> PodOf:
    """The pod of a component."""
    (found,) = [each for each in pods(things) if each.component == component]
    return found
