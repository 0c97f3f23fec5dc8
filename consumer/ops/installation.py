"""Whether the installed packages are ours alone: `consumer` and `models` are names that others use too."""

from collections.abc import Mapping, Sequence
from importlib.metadata import packages_distributions

OURS = "kafka-webhooks"


def sharing(distributions: Mapping[str, Sequence[str]] | None = None) -> str | None:
    """A sentence that names other distributions with files in our packages, and says what to do; or None.

    `distributions`: those of each top-level package; by default the installed ones.
    """
    found = packages_distributions() if distributions is None else distributions
    others = sorted({name for package in ("consumer", "models") for name in found.get(package, ())} - {OURS})
    if not others:
        return None
    return f"{', '.join(others)} has files in the same packages: install {OURS} into an environment of its own"
