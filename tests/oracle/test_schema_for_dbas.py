"""The schema as a DBA reviews it: comments, names, keys, checks, and the migration that created them."""

import re

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine, insert
from sqlalchemy.exc import IntegrityError

from consumer.ledger import outbox
from consumer.ledger.rows import OperationalEvent
from models import Base, StoredOperation
from models.base import Flag
from models.subscription import UNIQUE
from tests.databases import on_oracle

TABLES = Base.metadata.tables


# Comments.


def test_everything_has_a_comment_that_any_tool_can_print() -> None:
    """Comments are one line of plain ASCII, without characters that SQL*Plus interprets."""
    comments = [
        comment for table in TABLES.values() for comment in (table.comment, *(c.comment for c in table.columns))
    ]
    for comment in comments:
        assert comment
        assert re.fullmatch(r"[ -~]{5,200}\.", comment), comment
        assert not re.search(r"[&;'\"]", comment), comment


# Names and checks.


@on_oracle
def test_names_are_those_of_the_models(engine: Engine) -> None:
    """No key, check or index has a generated name, except NOT NULL constraints (SYS_C…)."""
    inspector = sa.inspect(engine)
    for table in TABLES.values():
        checks = {each.name for each in table.constraints if isinstance(each, sa.CheckConstraint)}
        uniques = {each.name for each in table.constraints if isinstance(each, sa.UniqueConstraint)}
        foreign = {each.name for each in table.foreign_key_constraints}
        assert inspector.get_pk_constraint(table.name)["name"] == table.primary_key.name
        assert {each["name"] for each in inspector.get_check_constraints(table.name)} == checks
        assert {each["name"] for each in inspector.get_foreign_keys(table.name)} == foreign
        assert {each["name"] for each in inspector.get_unique_constraints(table.name)} - UNIQUE == uniques
        indexes = {each["name"] for each in inspector.get_indexes(table.name)}
        assert indexes - uniques - UNIQUE == {each.name for each in table.indexes}


def test_each_flag_is_a_number_that_is_checked() -> None:
    """A check allows only 0 and 1."""
    flags = [column for table in TABLES.values() for column in table.columns if column.type is Flag]
    assert len(flags) == 5
    for flag in flags:
        checks = [str(each.sqltext) for each in flag.table.constraints if isinstance(each, sa.CheckConstraint)]
        assert f"{flag.name} IN (0, 1)" in checks


def test_foreign_keys_are_indexed() -> None:
    """Without an index that starts with its columns, in any order, deleting a parent locks the whole child table."""
    for table in TABLES.values():
        begins = [[column.name for column in index.columns] for index in table.indexes]
        begins += [
            [c.name for c in each.columns]
            for each in table.constraints
            if isinstance(each, sa.UniqueConstraint | sa.PrimaryKeyConstraint)
        ]
        for key in table.foreign_key_constraints:
            columns = [column.name for column in key.columns]
            assert any({*each[: len(columns)]} == {*columns} for each in begins), key.name


def test_keys_of_indexes_fit_a_block() -> None:
    """The longest key of each index, in UTF-8, fits: Oracle allows 6,398 bytes in blocks of 8 KiB (ORA-01450)."""
    for table in TABLES.values():
        keys: list[sa.Index | sa.PrimaryKeyConstraint | sa.UniqueConstraint] = [*table.indexes, table.primary_key]
        keys += [each for each in table.constraints if isinstance(each, sa.UniqueConstraint)]
        for key in keys:
            lengths = [getattr(column.type, "length", None) for column in key.columns]
            longest = sum(min(4 * length, 4000) if length else 22 for length in lengths)  # a number: 22, an instant: 13
            assert longest + 2 * len(lengths) < 3118, key.name  # fits blocks of 4 KiB too


@pytest.mark.parametrize("data", ["", "{", "{'a': 1}", "nothing", "[1, 2"])
def test_invalid_json_is_refused(engine: Engine, data: str) -> None:
    """The database refuses it from any writer: a worker could not publish it."""
    statement = insert(StoredOperation).values(group_id="g", event_id="1", event_type="a", data=data)
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(statement)


def test_stored_values_are_valid_json(engine: Engine) -> None:
    """The checks accept everything that we store: quotes, letters of any script, long lists."""
    data = {"error": "é \u2028 \"'\\ 好 \U0001f600", "none": None, "long": "x" * 100_000}
    with engine.begin() as connection:
        outbox.add(connection, "g", [OperationalEvent("a", "1", data)])
    ((_, pending, _),) = outbox.pending(engine, "g", 1)
    assert pending.data == data


# Migrations.
