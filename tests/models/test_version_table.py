"""Our revision is stored in a table of ours, apart from those of other programs in the same schema."""

import pytest
from alembic import command
from sqlalchemy import Engine

from consumer.database import migrations
from consumer.errors import WebhooksError
from tests.ledger.rows_kit import query, run

THEIRS = "5d1e7c0a9b42"
HEAD = "0002"


def test_another_programs_revisions_stay(engine: Engine) -> None:
    """A revision in Alembic's default table is another program's, whatever its name."""
    theirs = ["0002", THEIRS]
    command.downgrade(migrations._config(engine), "base")
    run(engine, "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    for revision in theirs:
        run(engine, f"INSERT INTO alembic_version (version_num) VALUES ('{revision}')")  # noqa: S608 (written here)
    assert migrations.state(engine).current is None
    migrations.upgrade(engine)
    assert migrations.state(engine).current == HEAD
    assert query(engine, "SELECT version_num FROM alembic_version ORDER BY 1") == [(each,) for each in theirs]


@pytest.mark.parametrize("also", [(), (HEAD,)], ids=["behind ours", "beside ours"])
def test_another_programs_revision_in_our_table_is_refused(engine: Engine, also: tuple[str, ...]) -> None:
    """It is refused instead of our revision or beside it, and the error names it."""
    run(engine, "DELETE FROM webhook_alembic_version")
    for row in (THEIRS, *also):
        run(engine, f"INSERT INTO webhook_alembic_version (version_num) VALUES ('{row}')")  # noqa: S608 (written here)
    with pytest.raises(WebhooksError, match=f"webhook_alembic_version holds .*{THEIRS}"):
        migrations.upgrade(engine)
    assert f"holds {', '.join(sorted((THEIRS, *also)))}: one revision of this" in str(migrations.state(engine).fault)
