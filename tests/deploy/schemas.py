"""Whether Kubernetes accepts an object, without unknown or misspelt fields.

Kubernetes' own kinds are checked with the schemas of kubernetes-validate, kinds of KEDA and of the Prometheus Operator
with the definitions in their Go modules.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.deploy.go_tools import module_folder

KUBERNETES = ("1.30", "1.37")  # the oldest version that Chart.yaml allows, and the newest
KEDA = "github.com/kedacore/keda/v2@v2.21.0"
OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
_OPERATOR_FILES = "example/prometheus-operator-crd/monitoring.coreos.com"
DEFINITIONS = {
    ("keda.sh/v1alpha1", "ScaledObject"): (KEDA, "config/crd/bases/keda.sh_scaledobjects.yaml"),
    ("monitoring.coreos.com/v1", "PodMonitor"): (OPERATOR, f"{_OPERATOR_FILES}_podmonitors.yaml"),
    ("monitoring.coreos.com/v1", "PrometheusRule"): (OPERATOR, f"{_OPERATOR_FILES}_prometheusrules.yaml"),
}


def faults(thing: dict[str, Any]) -> Iterator[str]:
    """The faults of an object; none if Kubernetes accepts it."""
    kind = thing["apiVersion"], thing["kind"]
    if kind in DEFINITIONS:
        for fault in jsonschema.Draft202012Validator(_strict_schema(kind)).iter_errors(thing):
            yield f"{fault.json_path}: {fault.message}"
        return
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except kubernetes_validate.ValidationError as fault:
            yield f"Kubernetes {version}: {fault.json_path}: {fault.message}"


@cache
def _strict_schema(kind: tuple[str, str]) -> dict[str, Any]:
    module, path = DEFINITIONS[kind]
    definition = yaml.safe_load((module_folder(module) / path).read_text())
    version = kind[0].partition("/")[2]
    (schema,) = [
        each["schema"]["openAPIV3Schema"] for each in definition["spec"]["versions"] if each["name"] == version
    ]
    schema["properties"]["metadata"] = {"type": "object"}
    schema.pop("x-kubernetes-preserve-unknown-fields", None)
    return dict(_closed(schema))


def _closed(schema: Any) -> Any:
    """The schema with `additionalProperties: false` wherever Kubernetes would drop an unknown field."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        closed.pop("type", None)
    return closed
