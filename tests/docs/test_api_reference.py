"""docs/api-reference.md against the API."""

from consumer.api.reference import reference
from tests.docs.api_reference import PAGE, description, written


def test_the_reference_is_up_to_date() -> None:
    """`make reference` would write the same page."""
    assert PAGE.read_text() == written(reference(description()))
