"""The threat model against the tests: each defence names an existing test."""

import re

from tests.docs.documentation import ROOT, TEXTS

NAMED = re.compile(r"`([a-z_0-9]+/[a-z_0-9]+\.py)::(test_\w+)`")


def test_each_defence_has_a_test() -> None:
    """Every row of the tables of threats names tests, and all of them exist."""
    text = TEXTS["docs/threat-model.md"]
    threats = [
        line
        for part in re.split(r"^## ", text, flags=re.MULTILINE)
        if "| threat |" in part
        for line in part.splitlines()
        if line.startswith("| ") and not line.startswith(("| threat |", "| --- |"))
    ]
    assert len(threats) > 20
    for threat in threats:
        named = NAMED.findall(threat)
        assert named, threat
        for path, name in named:
            assert re.search(rf"^(async )?def {name}\(", (ROOT / "tests" / path).read_text(), re.MULTILINE), (
                path,
                name,
            )
