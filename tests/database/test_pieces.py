"""Long texts in pieces are the same texts."""

import pytest
from sqlalchemy import Engine, select

from consumer.database.pieces import PIECE, in_pieces, pieces, pieces_of
from models import Subscription


@pytest.mark.parametrize("text", [None, "", "x", "x" * PIECE, "é" * (PIECE + 1), "x" * 2048, "x" * 5000])
def test_a_text_is_kept(engine: Engine, text: str | None) -> None:
    """The database puts the pieces together, of a text beyond its column too, which then equals no value there."""
    with engine.connect() as connection:
        assert connection.scalar(select(in_pieces(Subscription.url, text))) == text  # type: ignore[call-overload]
        assert connection.scalar(select(pieces_of("b", 5000)), pieces("b", 5000, text)) == text


def test_a_short_column_takes_its_value_as_it_is() -> None:
    """Numbers and short texts need no pieces."""
    assert in_pieces(Subscription.event_type, "order.created") == "order.created"
    assert in_pieces(Subscription.rate_limit, 1.5) == 1.5
