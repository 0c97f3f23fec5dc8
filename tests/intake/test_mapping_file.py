"""The file of mappings: parsing, and the error for each mistake."""

from pathlib import Path

import pytest

from consumer.config.settings import KafkaSettings
from consumer.errors import SettingsError
from consumer.intake.mapping_file import MOST_BYTES, Mappings, mappings_of, parse

GOOD = """# comments = and [[mapping]] in them do not count
[[mapping]]
topics = ["orders"]
type = "a"

[[mapping]]
topics = [
  "shop.*",
  "shop.**",
]
type = [
  "{header.kind}",
  "{value.op}",
]

[mapping.words]
"value.op" = { c = "created" }
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
        ('"shop.**"', '"shop.*.x"', 9, "topics: 'shop.*.x' is no topic"),
        ('"shop.**"', '"orders"', 9, "topics: orders has a mapping already, in line 3; take it out"),
        ('"shop.**"', '"shop.*"', 8, "topics: shop.* has a mapping already, in line 8"),
        ('type = "a"', "", 2, "mapping: has no type; write"),
        ('type = "a"', "type = 5", 4, "type: is neither a text nor a list of texts"),
        ('type = "a"', 'type = "a"\nkind = "b"', 5, "kind: there is no key kind; there are topics, type"),
        ('"{value.op}",\n]', '"{valeu.op}",\n]', 13, "type: {valeu.op} is no reference; write {topic}"),
        ('"{value.op}",\n]', '"{value}",\n]', 13, "type: {value} is the whole value, which only body takes"),
        ('"{value.op}",\n]', '"{header}",\n]', 13, "type: {header} is no reference"),
        ('"{value.op}",\n]', '"{value.a..b}",\n]', 13, "type: {value.a..b} has a field without a name"),
        ('"{value.op}",\n]', '"value.op}",\n]', 13, "type: has a single } in"),
        ('"{value.op}",\n]', f'"{{value.{"a." * 16}b}}",\n]', 13, "names 17 fields; at most 16 are taken"),
        ('"{value.op}",\n]', f'"{"x" * 501}",\n]', 13, "type: has 501 characters; at most 500 are taken"),
        ('"{value.op}",\n]', f'"{"{topic}" * 21}",\n]', 13, "type: has more than 20 references"),
        ('"{value.op}",\n]', "'',\n]", 11, "type: is empty; write a text or a reference"),
        ('type = "a"', 'type = "a"\nbody = "x{value.a}"', 5, "body: 'x{value.a}' is no body; write {value}"),
        ('type = "a"', 'type = "a"\nid = "{topic}"', 5, "id: is the same for each event"),
        ('type = "a"', 'type = "a"\nid = "fixed"', 5, "id: is the same for each event"),
        ('type = "a"', 'type = "a"\nconnect_envelope = "yes"', 5, "connect_envelope: is neither true nor false"),
        ('type = "a"', 'type = "a"\ntombstone = "keep"', 5, "tombstone: is none of ignore, event, dead_letter"),
        ('type = "a"', 'type = "a"\ntombstone = "event"', 5, "tombstone: needs tombstone_type"),
        ('type = "a"', 'type = "a"\ntombstone_type = "b"', 5, 'tombstone_type: needs tombstone = "event"'),
        (
            'type = "a"',
            'type = "a"\ntombstone = "event"\ntombstone_type = "{value.a}"',
            6,
            "tombstone_type: a tombstone has no value; use {key}",
        ),
        ('type = "a"', 'type = "a"\nattributes.Subject = "{key}"', 5, "attributes: is no attribute of CloudEvents"),
        ('type = "a"', 'type = "a"\nattributes.type = "b"', 5, "attributes: cannot be set here: it is the field type"),
        ('"value.op" = {', '"value.po" = {', 17, "words: no template refers to {value.po}; correct the name"),
        ('"value.op" = {', '"valeu.op" = {', 17, "words: {valeu.op} is no reference"),
        ('{ c = "created" }', '{ c = "" }', 17, "words: is no table of words"),
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
    text = "\n".join(f'[[mapping]]\ntopics = ["{pattern}"]\ntype = "a"' for pattern in patterns)
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
