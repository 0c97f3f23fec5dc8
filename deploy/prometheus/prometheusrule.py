"""Writes prometheusrule.yaml, the Kubernetes object of Prometheus' operator, from rules.yaml."""

from pathlib import Path
from textwrap import indent

FOLDER = Path(__file__).parent
HEAD = """# Written by deploy/prometheus/prometheusrule.py from rules.yaml: change that file, and run the script.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: kafka-webhooks
  labels:
    app.kubernetes.io/name: kafka-webhooks
spec:
"""


def prometheus_rule() -> str:
    """The object as YAML, with the groups of rules.yaml word for word."""
    rules = (FOLDER / "rules.yaml").read_text()
    return HEAD + indent(rules[rules.index("groups:") :], "  ")


if __name__ == "__main__":
    (FOLDER / "prometheusrule.yaml").write_text(prometheus_rule())
