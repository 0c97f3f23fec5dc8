"""Helm for the tests of the chart."""

import pytest

from tests.deploy.go_tools import GoUnavailable, helm_program, module_folder, or_skip
from tests.deploy.helm_kit import Helm
from tests.deploy.schemas import DEFINITIONS


@pytest.fixture(scope="session")
def helm() -> Helm:
    """The helm program, with the definitions of kinds that are not Kubernetes' own."""
    try:
        program = helm_program()
        for module, _ in DEFINITIONS.values():
            module_folder(module)
    except GoUnavailable as error:
        or_skip(error)
    return Helm(program)
