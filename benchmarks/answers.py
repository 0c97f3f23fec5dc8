"""Parses random valid and nearly valid answers with our parser and with h11, and counts the differences.

    python -m benchmarks.answers [COUNT] [SEED]

A difference without a known reason ends it, with the smallest answer that shows it.
"""

import sys
from collections import Counter

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.sending.answer_grammar import cut, mutated, right
from tests.sending.h11_answers import difference, ours

PART = 5_000  # answers of one seed: later ones resemble earlier ones more and more


def main(total: int = 20_000, first: int = 1) -> None:
    """Runs parts, each with a seed of its own."""
    found: Counter[str] = Counter()
    for part, start in enumerate(range(0, total, PART)):
        _read(min(PART, total - start), first + part, found)
        print(f"{found.total():,} of {total:,} answers", file=sys.stderr, flush=True)
    for name, count in found.most_common():
        print(f"{count:>9,}  {name}")


def _read(count: int, first: int, found: Counter[str]) -> None:
    @seed(first)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(cut(st.one_of(right(), mutated())))
    def read(pieces: list[bytes]) -> None:
        found[difference(b"".join(pieces), ours(pieces)) or "the same"] += 1

    read()


if __name__ == "__main__":
    main(*[int(word) for word in sys.argv[1:]])
