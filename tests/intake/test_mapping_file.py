"""The file of mappings: parsing, and the error for each mistake."""

from pathlib import Path

import pytest

from consumer.config.settings import KafkaSettings
from consumer.errors import SettingsError
from consumer.intake.mapping_file import MOST_BYTES, Mappings, mappings_of, parse

GOOD = """# comments = and [[mapping]] in them do not count
[[mapping]]
topics = ["orders"]
type = "topic"

[[mapping]]
topics = [
  "shop.*",
  "shop.**",
]
type = [
  "headers.kind",
  "value.op",
]
attributes.subject = 'key'
"""


def told(text: str) -> list[str]:
    """The error messages for a file with this text."""
    with pytest.raises(SettingsError) as caught:
        parse(text, "m.toml")
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("right", "wrong", "line", "says"),
    [
        ('topics = ["orders"]', "", 2, "mapping: has no topics; write"),
        ('topics = ["orders"]', 'topics = "orders"', 3, "topics: is no list of names"),
        ('topics = ["orders"]', "topics = []", 3, "topics: is no list of names"),
        ('"shop.**"', '"^shop"', 9, "topics: '^shop' is no topic; write a topic's name, shop.*"),
        ('"shop.**"', '"orders"', 9, "topics: orders has a mapping already, in line 3; take it out"),
        ('"shop.**"', '"shop.*"', 8, "topics: shop.* has a mapping already, in line 8"),
        ('type = "topic"', "", 2, "mapping: has no type; write"),
        ('type = "topic"', "type = 5", 4, "type: is neither an expression nor a list of them"),
        ('type = "topic"', 'type = "topic"\nkind = "b"', 5, "kind: there is no key kind; there are topics, type"),
        ('type = "topic"', f"type = {['topic'] * 21}", 4, "type: has 21 expressions; at most 20 are taken"),
        (
            '"value.op",\n]',
            "'valeu.op',\n]",
            13,
            (
                "type: 'valeu.op' is not an expression: undeclared reference to 'valeu.op' at column 6;"
                " there are value, headers, key, topic; a text has quotes of its own: \"'valeu.op'\""
            ),
        ),
        ('"value.op",\n]', '"value.op + ",\n]', 13, "type: 'value.op + ' is not an expression: Syntax error"),
        ('"value.op",\n]', f'"{"x" * 4001}",\n]', 13, "type: has 4001 characters; at most 4000 are taken"),
        ("'key'", "'kye'", 15, "attributes: 'kye' is not an expression: undeclared reference to 'kye'"),
        ("'key'", "'kye + 1'", 15, "attributes: 'kye + 1' is not an expression"),
        ('type = "topic"', 'type = "topic"\nbody = "headers.a"', 5, "body: takes value, the whole value, or a field"),
        ('type = "topic"', 'type = "topic"\nbody = "[value.a][0]"', 5, "body: takes value, the whole value, or a"),
        ('type = "topic"', 'type = "topic"\nid = "topic + \'.x\'"', 5, "id: is the same for each event"),
        ('type = "topic"', 'type = "topic"\nunwrap = "yes"', 5, "unwrap: is neither true nor false"),
        ('type = "topic"', 'type = "topic"\ntombstone = "keep"', 5, "tombstone: is none of ignore, event, dead_letter"),
        ('type = "topic"', 'type = "topic"\ntombstone = "event"', 5, "tombstone: needs tombstone_type"),
        ('type = "topic"', 'type = "topic"\ntombstone_type = "key"', 5, 'tombstone_type: needs tombstone = "event"'),
        (
            'type = "topic"',
            'type = "topic"\ntombstone = "event"\ntombstone_type = "value.a"',
            6,
            "undeclared reference to 'value.a' at column 6; there are headers, key, topic",
        ),
        ("attributes.subject", "attributes.Subject", 15, "attributes: is no attribute of CloudEvents"),
        ("attributes.subject", "attributes.type", 15, "attributes: cannot be set here: it is the field type"),
        ("attributes.subject", "attributes", 15, "attributes: is no table of at most 20 attributes, such as"),
        ("# comments =", "other = 1 #", 1, "mapping: there is no key other; each mapping begins with [[mapping]]"),
    ],
)
def test_a_mistake_is_reported_with_its_line(right: str, wrong: str, line: int, says: str) -> None:
    """One line each: file, line, key, the mistake, and the correction."""
    assert GOOD.count(right) == 1
    (said,) = told(GOOD.replace(right, wrong))
    assert said.startswith(f"KAFKA_MAPPINGS_FILE: m.toml:{line}: ")
    assert says in said


def test_all_mistakes_are_reported_at_once() -> None:
    """They come in the order of the file, twenty at most."""
    assert [line.split(": ")[1] for line in told("[[mapping]]\n[[mapping]]\n")] == ["m.toml:1"] * 2 + ["m.toml:2"] * 2
    assert len(told("[[mapping]]\n" * 30)) == 20


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[mapping]]\ntype = \n", "is not TOML: Invalid value (at line 2, column 8)"),
        ("", "m.toml:1: mapping: the file has no mapping"),
        ("mapping = 5", "m.toml:1: mapping: is no list of tables"),
        ("a = " + "[" * 5000, "is nested too deeply"),
        ("[[mapping]]\n" * 1001, "there are more than 1000 mappings"),
    ],
)
def test_an_invalid_file(text: str, says: str) -> None:
    """The file is broken, empty or too large."""
    (said,) = told(text)
    assert says in said


@pytest.mark.parametrize(
    ("topic", "expected"),
    [("a.b", "a.b"), ("a.c", "a.*"), ("a.b.c", "a.b.**"), ("a.x.c", "a.**"), ("other", "*"), ("a", "*")],
)
def test_the_most_specific_mapping_counts(topic: str, expected: str) -> None:
    """In this order: the name, one segment below, any depth below with the longest pattern first, all topics."""
    patterns = ["*", "a.**", "a.b.**", "a.*", "a.b"]
    text = "\n".join(f'[[mapping]]\ntopics = ["{pattern}"]\ntype = "topic"' for pattern in patterns)
    found = Mappings(parse(text, "m.toml")).of(topic)
    assert found is not None
    assert found.name == f"the mapping of {expected}"


def test_a_topic_without_a_mapping_has_none() -> None:
    """The default rules apply."""
    mappings = Mappings(parse(GOOD, "m.toml"))
    assert mappings.of("users") is None
    assert mappings.patterns == ("orders", "shop.*", "shop.**")
    assert mappings.of("shop.x") is mappings.of("shop.y")


def settings(path: object) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers="127.0.0.1:1", mappings_file=None if path is None else str(path))


def test_the_setting(tmp_path: Path) -> None:
    """It names the file. Without it there are no mappings."""
    path = tmp_path / "mappings.toml"
    path.write_text(GOOD)
    assert mappings_of(settings(None)) is None
    assert isinstance(mappings_of(settings(path)), Mappings)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file or directory; correct the name"),
        (b"\xff", "is not UTF-8; save it as UTF-8"),
        (b" " * (MOST_BYTES + 1), f"has more than {MOST_BYTES} bytes"),
    ],
)
def test_an_unusable_file(tmp_path: Path, content: bytes | None, says: str) -> None:
    """It is an error of the settings that names the file."""
    path = tmp_path / "mappings.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=f"^KAFKA_MAPPINGS_FILE: {path}: {says}"):
        mappings_of(settings(path))
    with pytest.raises(SettingsError, match="cannot be opened"):
        mappings_of(settings("a\0b"))
