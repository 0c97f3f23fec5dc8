"""The file of mappings: parsing, and the error for each mistake."""

from pathlib import Path

import pytest

from consumer.config.settings import KafkaSettings
from consumer.errors import SettingsError
from consumer.intake.mapping_file import MOST_BYTES, Mappings, mappings_of, parse

GOOD = """
[[mapping]]
topics = ["orders"]
type = "topic"

[[mapping]]
topics = ["shop.*", "shop.**"]
type = ["headers.kind", "value.op"]
attributes.subject = 'key'
"""
SAME = 'type = "topic"'


def told(text: str) -> list[str]:
    """The error messages for a file with this text."""
    with pytest.raises(SettingsError) as caught:
        parse(text, "m.toml")
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ('topics = ["orders"]', "", "mapping 1, topics: is missing"),
        ('topics = ["orders"]', "topics = []", "mapping 1, topics: List should have at least 1 item"),
        ('"shop.**"', '"^shop"', "mapping 2 (shop.*), topics: '^shop' is not a topic; write a topic's name, shop.*"),
        ('"shop.**"', '"orders"', "orders has two mappings; take it out of one of them"),
        (SAME, "", "mapping 1 (orders), type: is missing"),
        (SAME, "type = 5", "type: write a text of up to 4000 characters with an expression"),
        (SAME, f"{SAME}\nkind = 'b'", "kind: there is no such key; there are topics, type, id"),
        (SAME, f"type = {['topic'] * 21}", "type: write one expression, or a list of 1 to 20"),
        (
            "value.op",
            "valeu.op",
            "type: 'valeu.op' is not an expression: undeclared reference to 'valeu.op' at column 6; there are value, ",
        ),
        ("value.op", "x" * 4001, "type: write a text of up to 4000 characters"),
        ("'key'", "'kye + 1'", "attributes: 'kye + 1' is not an expression"),
        (SAME, f'{SAME}\nbody = "headers.a"', "body: takes value, the whole value, or a field"),
        (SAME, f'{SAME}\nbody = "[value.a][0]"', "body: takes value, the whole value, or a field"),
        (SAME, f"{SAME}\nid = \"topic + '.x'\"", "id: is the same for each event"),
        (SAME, f'{SAME}\nunwrap = "yes"', "unwrap: Input should be a valid boolean"),
        (SAME, f'{SAME}\ntombstone = "keep"', "tombstone: Input should be 'ignore', 'event' or 'dead_letter'"),
        (SAME, f'{SAME}\ntombstone = "event"', 'tombstone = "event" and tombstone_type'),
        (SAME, f'{SAME}\ntombstone_type = "key"', 'tombstone = "event" and tombstone_type'),
        (
            SAME,
            f'{SAME}\ntombstone = "event"\ntombstone_type = "value.a"',
            "undeclared reference to 'value.a' at column 6; there are headers, key, topic",
        ),
        ("attributes.subject", "attributes.Subject", "attributes: the name of an attribute is"),
        ("attributes.subject", "attributes.type", "attributes: the name of an attribute is"),
        ("[[mapping]]\ntopics", "other = 1\n[[mapping]]\ntopics", "other: Extra inputs are not permitted"),
        (GOOD, "", "mapping: Field required; each mapping begins with [[mapping]]"),
        (GOOD, "mapping = 5", "mapping: Input should be a valid list"),
        (GOOD, "[[mapping]]\ntype = \n", "is not TOML: Invalid value (at line 2, column 8)"),
        (GOOD, "a = " + "[" * 5000, "is nested too deeply"),
        (GOOD, "[[mapping]]\n" * 1001, "mapping: List should have at most 1000 items"),
    ],
)
def test_a_mistake_is_reported_with_its_place(right: str, wrong: str, says: str) -> None:
    """One line each: file, mapping, key, the mistake, and the correction."""
    (said,) = told(GOOD.replace(right, wrong, 1))
    assert said.startswith("KAFKA_MAPPINGS_FILE: m.toml: ")
    assert says in said


def test_all_mistakes_are_reported_at_once() -> None:
    """They come in the order of the file, twenty at most."""
    assert [line.split(": ")[2] for line in told("[[mapping]]\n[[mapping]]\n")] == [
        f"mapping {number}, {key}" for number in (1, 2) for key in ("topics", "type")
    ]
    assert len(told("[[mapping]]\n" * 30)) == 20


@pytest.mark.parametrize(
    ("topic", "expected"),
    [("a.b", "a.b"), ("a.c", "a.*"), ("a.b.c", "a.b.**"), ("a.x.c", "a.**"), ("other", "*"), ("a", "*")],
)
def test_the_most_specific_mapping_counts(topic: str, expected: str) -> None:
    """In this order: the name, one segment below, any depth below with the longest pattern first, all topics."""
    patterns = ["*", "a.**", "a.b.**", "a.*", "a.b"]
    text = "\n".join(f'[[mapping]]\ntopics = ["{pattern}"]\ntype = "topic"' for pattern in patterns)
    found = parse(text, "m.toml").of(topic)
    assert found is not None
    assert found.name == f"the mapping of {expected}"


def test_a_topic_without_a_mapping_has_none() -> None:
    """The default rules apply."""
    mappings = parse(GOOD, "m.toml")
    assert mappings.of("users") is None
    assert mappings.of("shop.x") is mappings.of("shop.y")


def settings(path: object) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers="127.0.0.1:1", mappings_file=None if path is None else str(path))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file or directory; correct the name"),
        (b"\xff", "is not UTF-8; save it as UTF-8"),
        (b" " * (MOST_BYTES + 1), f"has more than {MOST_BYTES} bytes"),
    ],
)
def test_the_setting_names_the_file(tmp_path: Path, content: bytes | None, says: str) -> None:
    """An unusable file is an error of the settings that names it. Without the setting there are no mappings."""
    path = tmp_path / "mappings.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=f"^KAFKA_MAPPINGS_FILE: {path}: {says}"):
        mappings_of(settings(path))
    with pytest.raises(SettingsError, match="cannot be opened"):
        mappings_of(settings("a\0b"))
    path.write_text(GOOD)
    assert isinstance(mappings_of(settings(path)), Mappings)
    assert mappings_of(settings(None)) is None
