"""A receiver behind OAuth2 and mutual TLS, as its page in docs tells it, on real Kafka."""

from pathlib import Path

from tests.docs.walkthrough import free_port, run_page
from tests.kafka_kit import unique


def test_the_page_runs_as_written(kafka_bootstrap: str, topic: str, tmp_path: Path) -> None:
    """Each of its errors is seen, then all is delivered once, while tokens are renewed."""
    other = {"localhost:9092": kafka_bootstrap, "8443": free_port(), " orders": f" {topic}", "=orders": f"={topic}"}
    variables = {"OPS_PORT": "0", "KAFKA_GROUP_ID": unique("group")}
    run_page("docs/credentials.md", tmp_path, other, variables, after="## Try it")
