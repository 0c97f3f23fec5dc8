"""A decrypt function for tests that are not about encryption: stored secrets are in the clear."""

from consumer.crypto.vault import Owner


def in_the_clear(stored: str, _owner: Owner) -> str:
    """A `Decrypt`."""
    return stored
