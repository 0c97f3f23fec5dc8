"""Helm and promtool for the tests."""

from pathlib import Path

import pytest

from tests.deploy.go_tools import helm_program, module_folder, promtool
from tests.deploy.helm_kit import Helm
from tests.deploy.schemas import DEFINITIONS
from tests.provided import or_skip


@pytest.fixture(scope="session")
def helm() -> Helm:
    """The helm program, with the definitions of kinds that are not Kubernetes' own."""
    or_skip(lambda: [module_folder(module) for module, _ in DEFINITIONS.values()], "HELM")
    return Helm(or_skip(helm_program, "HELM"))


@pytest.fixture(scope="session")
def checker() -> Path:
    """Promtool, built the first time, which takes minutes."""
    return or_skip(promtool, "PROMTOOL")
