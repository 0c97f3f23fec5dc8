"""Deployments as described on their pages in docs, run as written on a real Kafka: everything arrives exactly once."""

from pathlib import Path
from shutil import copytree

from tests.docs.walkthrough import run_page
from tests.kafka_kit import Kafka, unique
from tests.processes import ROOT, free_port
from tests.schemas.registry_server import schema_registry


def variables() -> dict[str, str]:
    return {"OPS_PORT": "0", "KAFKA_GROUP_ID": unique("group")}


def test_oauth2_and_mutual_tls(kafka_bootstrap: str, topic: str, tmp_path: Path) -> None:
    """Each documented error appears; then tokens are renewed while events flow."""
    other = {
        "localhost:9092": kafka_bootstrap,
        "8443": str(free_port()),
        " orders": f" {topic}",
        "=orders": f"={topic}",
    }
    run_page("docs/credentials.md", tmp_path, other, variables(), after="## Try it")


def test_avro_with_a_registry(kafka_bootstrap: str, topic: str, tmp_path: Path) -> None:
    """Decimals, times and null arrive as the page describes."""
    with schema_registry() as registry:
        other = {"localhost:9092": kafka_bootstrap, "http://localhost:8081": registry.url, "8000": str(free_port())}
        other |= {'"orders"': f'"{topic}"', "=orders": f"={topic}"}
        run_page("docs/schemas.md", tmp_path, other, variables(), after="## Try it")


def test_debezium_outbox_and_changes(kafka_bootstrap: str, tmp_path: Path) -> None:
    """Types come from a header, or from table and operation; tombstones are no events."""
    kafka, prefix = Kafka(kafka_bootstrap, real=True), unique("shop")
    outbox = kafka.topic(f"outbox.event.{prefix}")
    changes = kafka.topic(f"{prefix}.public.customers", cleanup_policy="compact")
    copytree(ROOT / "docs/mappings", tmp_path / "docs/mappings")
    example = tmp_path / "docs/mappings/debezium-changes.toml"
    example.write_text(example.read_text().replace('"shop.public.*"', f'"{prefix}.public.*"'))
    other = {"localhost:9092": kafka_bootstrap, "8000": str(free_port())}
    other |= {"outbox.event.order": outbox, "shop.public.customers": changes}
    run_page("docs/mappings.md", tmp_path, other, variables(), after="## Try it")
