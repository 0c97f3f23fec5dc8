"""Decisions from the cluster's metadata: alone, then compared with the assignments and answers of a real Kafka."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Event

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]  # not said to be exported
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from consumer.config.settings import KafkaSettings
from consumer.intake.topics import (
    CONTINUOUS,
    EVERY,
    FOR_QUIET,
    GONE_AFTER,
    QUIET_AFTER,
    ClusterView,
    Counts,
    TopicWatch,
    consumes,
)
from tests.kafka_broker import KafkaBroker
from tests.kafka_kit import QUIET, Kafka, Member, unique, until
from tests.waiting import eventually


def settings(**properties: str) -> KafkaSettings:
    """Settings of a cluster that gets no requests."""
    kafka = Kafka("nowhere:9092", real=False)
    return kafka.settings(dead_letters="dead", **properties).model_copy(
        update={"attempts_topic": "attempts", "exhausted_topic": "given-up"}
    )


def topics(*names: str) -> ClusterView:
    """Topics without any answer yet. `a` and `b` are consumed unless names are given."""
    return ClusterView(settings(), names or ("a", "b"))


# Names of topics.


@pytest.mark.parametrize(
    ("names", "topic", "protocol", "expected"),
    [
        (["orders"], "orders", "classic", True),
        (["orders"], "orders.eu", "classic", False),
        (["^orders"], "orders.eu", "classic", True),
        (["^orders"], "orders.eu", "consumer", False),
        (["^orders.*"], "orders.eu", "consumer", True),
        (["^orders$"], "orders.eu", "classic", False),
        (["^a|orders"], "my-orders", "classic", True),
        (["^a|orders"], "my-orders", "consumer", False),
        (["^orders[.]"], "orders-eu", "classic", False),
        (["^t[[:digit:]]+$"], "t42", "classic", True),
        (["^t[[:digit:]]+$"], "tx", "classic", False),
        (["^.*"], "dead", "classic", False),
        (["^.*"], "given-up", "classic", False),
        (["dead"], "dead", "classic", False),
        (["^.*"], "attempts", "classic", False),
        (["^attempts"], "attempts", "consumer", False),
        (["attempts"], "attempts", "classic", False),
        (["^.*"], "dead2", "classic", True),
        (["x", "^y"], "yes", "classic", True),
        # The blacklist's patterns match anywhere in a name.
        (["^.*", "private-x"], "private-x", "classic", False),
        (["^.*"], "my-private", "classic", True),
        (["^.*"], "a.tmp.b", "classic", False),
    ],
)
def test_names_and_patterns(names: list[str], topic: str, protocol: str, expected: bool) -> None:  # noqa: FBT001 (a table)
    """Classic patterns match anywhere in a name, those of KIP-848 the whole name. Dead letters are never consumed."""
    kafka = settings(group_protocol=protocol, topic_blacklist="^private,tmp")
    assert consumes(kafka, names)(topic) is expected


def test_an_invalid_pattern_does_not_prevent_a_start() -> None:
    """It matches no topic and is named in the log. The other patterns apply."""
    with capture_logs() as logs:
        matches = consumes(settings(), ["^(orders", "^ok"])
    assert (matches("(orders"), matches("ok")) == (False, True)
    assert [(entry["log_level"], entry["pattern"]) for entry in logs] == [("warning", "^(orders")]


# The leader and the shares.


def test_before_the_first_answer_there_is_no_leader_and_no_reduced_share() -> None:
    """No leader for a moment is better than one per worker. No limit is reduced before the total is known.

    If no pattern is supported, each worker with partitions leads: events announced twice have the same id.
    """
    known = topics()
    assert (known.leads({("a", 0)}), known.share({("a", 0)}), known.lowest) == (False, 1.0, None)
    known = topics("elsewhere")
    known.learn({"a": 3}, 0.0)
    assert (known.leads({("a", 1)}), known.leads(set())) == (True, False)


def test_topics_that_are_not_consumed_do_not_count() -> None:
    """They are neither the lowest topic nor part of the total. Nor is a topic without partitions."""
    known = ClusterView(settings(), ["^[b-z]"])
    known.learn({"a": 7, "b": 0, "dead": 5, "x": 2, "y": 2, "z": None}, 0.0)
    assert known.lowest == ("x", 0)
    assert known.share([("x", 0)]) == 0.25


def test_a_topic_newer_than_the_answer_may_be_the_lowest() -> None:
    """A worker that owns a partition below the lowest known one owns the lowest."""
    known = topics()
    known.learn({"b": 2}, 0.0)
    assert known.leads({("a", 1), ("b", 1)})
    assert not known.leads({("b", 1)})


PARTITIONS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 5), max_size=6)


SEEN = st.lists(st.sets(st.tuples(st.sampled_from("abcdef"), st.integers(0, 4))), max_size=4)


@given(PARTITIONS, SEEN, st.none() | st.sets(st.sampled_from("abcd"), min_size=1), st.randoms(use_true_random=False))
def test_one_worker_leads_and_shares_add_up_to_1_whatever_is_written(
    counts: dict[str, int], written: list[set[tuple[str, int]]], wanted: set[str] | None, chance: object
) -> None:
    """Over all consumed topics or some, busy or not, however Kafka spreads the partitions. No worker's share is 0."""
    known = ClusterView(settings(), ["^[a-d]"])
    places = [(topic, number) for topic, total in counts.items() if topic in "abcd" for number in range(total)]
    ends = dict.fromkeys(places, 0)
    for turn, moved in enumerate([set(), *written]):
        ends |= {place: ends[place] + 1 for place in moved if place in ends}
        known.learn(counts, turn * EVERY, dict(ends))
    owned: list[list[tuple[str, int]]] = [[] for _ in range(3)]
    for place in places:
        owned[chance.randrange(3)].append(place)  # type: ignore[attr-defined]
    assert sum(map(known.leads, owned)) == (1 if places else 0)
    shares = [known.share(each, wanted) for each in owned]
    assert all(0 < share <= 1 for share in shares)
    chosen = [place for place in places if wanted is None or place[0] in wanted]
    if chosen:
        theirs = [share for share, each in zip(shares, owned, strict=True) if set(each) & set(chosen)]
        assert sum(theirs) == pytest.approx(1)


def test_owners_of_busy_partitions_get_nearly_all_of_a_limit() -> None:
    """By count, two workers with the six busy of 200 partitions would have a fifth. No setting names the busy ones."""
    known = topics("^.*")
    counts = {"busy": 6, **{f"quiet-{number}": 2 for number in range(97)}}
    ends = {place: 0 for topic, total in counts.items() for place in numbered(topic, total)}
    known.learn(counts, 0.0, ends)
    quiet = [place for place in ends if place[0] != "busy"]
    workers = [
        [*[("busy", 3 * turn + each) for each in range(3)], *quiet[17 * turn : 17 * turn + 17]] for turn in (0, 1)
    ]
    assert [round(known.share(each), 2) for each in workers] == [0.1, 0.1]
    known.learn(counts, EVERY, ends | {("busy", 0): 7})
    assert [round(known.share(each), 2) for each in workers] == [0.46, 0.46]
    assert known.share(workers[0], {"busy"}) == pytest.approx(0.5)
    assert known.share(quiet[40:60]) == pytest.approx(FOR_QUIET * 20 / 200)
    for turn in range(2, int(QUIET_AFTER / EVERY) + 2):
        known.learn(counts, turn * EVERY, ends | {("busy", 0): 7})
    assert [round(known.share(each), 2) for each in workers] == [0.1, 0.1]


# Topics that are gone.


def told(known: ClusterView, answer: Counts, begin: float, seconds: float) -> float:
    """The same answer every half minute, from `begin` on for `seconds`. Returns the time of the last one."""
    now = begin
    while now < begin + seconds:
        known.learn(answer, now)
        now += EVERY
    known.learn(answer, begin + seconds)
    return begin + seconds


def numbered(topic: str, count: int) -> list[tuple[str, int]]:
    """The partitions of a topic that has so many."""
    return [(topic, number) for number in range(count)]


def test_no_topic_is_gone_while_the_cluster_is_silent() -> None:
    """An hour without an answer does not count, since the topic may have existed. Nor is an old answer used."""
    known = topics()
    known.learn({"a": 1, "b": 1}, 0.0)
    now = told(known, {"a": 1}, EVERY, GONE_AFTER / 2)
    assert known.gone([("b", 0)], now + 3600) == []
    now = told(known, {"a": 1}, now + 3600, GONE_AFTER / 2 - 1)
    assert known.gone([("b", 0)], now) == []
    known.learn({"a": 1}, now + 1)
    assert known.gone([("b", 0)], now + 1) == [("b", 0)]
    assert known.gone([("b", 0)], now + 1 + CONTINUOUS) == [("b", 0)]
    assert known.gone([("b", 0)], now + 2 + CONTINUOUS) == []


@pytest.mark.parametrize(("answer", "gone"), [({"other": 1}, []), ({"a": 1, "b": None}, [("b", 3)])])
def test_topics_that_an_account_may_not_see_are_not_gone(answer: Counts, gone: list[tuple[str, int]]) -> None:
    """An answer without any consumed topic is not trusted. A topic with an error keeps its known partitions."""
    known = topics()
    known.learn({"a": 1, "b": 3}, 0.0)
    now = told(known, answer, EVERY, 2 * GONE_AFTER)
    assert known.gone(numbered("b", 4), now) == gone


def test_short_lived_topics_take_no_memory_for_long() -> None:
    """In a cluster with topics that live an hour, only the last ten minutes are remembered."""
    known = topics("a")
    for number in range(1000):
        known.learn({"a": 1, f"passing-{number}": 10}, number * EVERY)
    assert len(known._missing) <= 10 * GONE_AFTER / EVERY


ANSWERS = st.lists(
    st.tuples(
        st.sampled_from([1.0, EVERY, CONTINUOUS, CONTINUOUS + 1, GONE_AFTER, 3600.0]),
        st.fixed_dictionaries({"a": st.just(1)}, optional={"b": st.integers(0, 3), "c": st.integers(0, 3)}),
    ),
    min_size=1,
    max_size=40,
)


@given(ANSWERS, st.integers(0, 3))
def test_gone_topics_are_absent_for_ten_minutes_of_answers(
    answers: list[tuple[float, dict[str, int]]], highest: int
) -> None:
    """Compared with a plain reference: for each partition, the time between answers since the last one that had it."""
    known = topics("a")
    now = 0.0
    absent: dict[tuple[str, int], float] = {}
    for gap, answer in answers:
        now += gap
        known.learn(answer, now)
        for place in ((topic, number) for topic in "bc" for number in range(highest + 1)):
            if place[1] < answer.get(place[0], 0):
                absent.pop(place, None)
            else:
                absent[place] = absent[place] + (gap if gap <= CONTINUOUS else 0.0) if place in absent else 0.0
        gone = known.gone([*numbered("b", highest + 1), *numbered("c", highest + 1)], now)
        assert set(gone) == {place for place, seconds in absent.items() if seconds >= GONE_AFTER}


# The thread that requests metadata.

Watch = Callable[..., tuple[ClusterView, Callable[[], None], TopicWatch]]


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Makes a worker's parts: the view, a call that waits for the next answer, and the watch."""
    made: list[TopicWatch] = []

    def make(kafka: KafkaSettings, *names: str) -> tuple[ClusterView, Callable[[], None], TopicWatch]:
        known, posted = ClusterView(kafka, names), SimpleQueue[Callable[[], None]]()
        made.append(TopicWatch(kafka, posted.put, known.learn, known.consumed, every=0.05))

        def answer() -> None:
            posted.get(timeout=60)()

        return known, answer, made[-1]

    yield make
    for each in made:
        assert each.close(10)


def test_new_and_deleted_topics_are_seen(real_kafka: Kafka, watch: Watch) -> None:
    """A new topic is seen at once with its partitions, and later more partitions and its deletion."""
    kafka = real_kafka.settings(topic_blacklist="t-")
    here, later = real_kafka.topic(unique("t-a"), partitions=2), unique("t-b")
    known, answer, _ = watch(kafka, here, later)
    answer()
    assert known._counts[here] == 2  # also a topic that librdkafka ignores is known
    assert later not in known._counts
    real_kafka.topic(later, partitions=3)
    eventually(lambda: known._counts.get(later) == 3, meanwhile=answer)
    admin = AdminClient({"bootstrap.servers": real_kafka.servers, **QUIET})
    admin.delete_topics([later])[later].result(60)
    eventually(lambda: later not in known._counts, meanwhile=answer)


def test_retention_is_asked_for_topics_with_cursors(
    real_kafka: Kafka, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal is logged once, with the right that is missing, and once more if the right is taken later."""
    here, other = real_kafka.topic(), real_kafka.topic()
    known, answer, asking = watch(real_kafka.settings(), here, other)
    asking.ask_retention(lambda: {here})
    eventually(lambda: known.retentions == {here: 7 * 86_400.0}, meanwhile=answer)
    describe = AdminClient.describe_configs

    def refused(_: AdminClient, resources: Sequence[ConfigResource], **_options: float) -> object:
        answers: dict[ConfigResource, Future[object]] = {each: Future() for each in resources}
        for each in answers.values():
            each.set_exception(KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)))
        return answers

    with capture_logs() as lines:
        for denied in (True, False, True):
            monkeypatch.setattr(AdminClient, "describe_configs", refused if denied else describe)
            for _ in range(5):
                answer()
    assert [line["advice"] for line in lines] == [f"allow this service's user DescribeConfigs on the topic {here}"] * 2


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_consumed_topics_are_those_that_kafka_assigns(
    real_kafka: Kafka, join: Callable[..., Member], watch: Watch, protocol: str
) -> None:
    """With names, patterns, dead letters and ignored topics, in both protocols. One member leads and has them all."""
    prefix = unique("t")
    names = [f"{prefix}{end}" for end in ("", ".eu", "7", "-dead", "-tmp", "-other")]
    for name in names:
        real_kafka.topic(name, partitions=2)
    kafka = real_kafka.settings(dead_letters=names[3], group_protocol=protocol, topic_blacklist="-tmp")
    wanted = [f"^{prefix}", f"^{prefix}[.].*", f"^{prefix}[[:digit:]]", f"^{prefix}-dead"]
    wanted = wanted if protocol == "consumer" else wanted[:1]
    member = join(kafka, wanted)
    known, answer, _ = watch(kafka, *wanted)
    answer()
    expected = {(name, number) for name in names if known.consumed(name) for number in range(2)}
    until(lambda: set(member.source.partitions) == expected, member)
    assert len(expected) == (6 if protocol == "consumer" else 8)
    for _ in range(10):
        member.turn()
    assert set(member.source.partitions) == expected
    assert (known.leads(member.source.partitions), known.share(member.source.partitions)) == (True, 1.0)


def test_the_cluster_shows_which_topics_are_written_to(real_kafka: Kafka, watch: Watch) -> None:
    """A record in one of them gives its owner a larger share of the limits, whichever member asks."""
    busy, quiet = (real_kafka.topic(unique(name), partitions=2) for name in ("busy", "quiet"))
    known, answer, _ = watch(real_kafka.settings(), busy, quiet)
    answer()
    assert known.share({(busy, 0)}) == 0.25
    real_kafka.write(busy, [b"event"])
    while known.share({(busy, 0)}) == 0.25:
        answer()
    assert known.share({(busy, 0)}) == pytest.approx(FOR_QUIET / 4 + (1 - FOR_QUIET) / 2)


def test_a_silent_cluster_changes_nothing_and_is_logged_once(
    real_kafka: Kafka, brokers: KafkaBroker, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last answer stays valid. The log has one line when answers stop and one when they are back."""
    monkeypatch.setattr("consumer.intake.topics.TIMEOUT", 0.1)
    topic = real_kafka.topic(partitions=3)
    known, answer, _ = watch(real_kafka.settings(), topic)
    answer()
    with capture_logs() as logs:
        brokers.kill()
        try:
            eventually(lambda: any("does not list" in entry["event"] for entry in logs))
            assert (known.lowest, known.share({(topic, 0), (topic, 1)})) == ((topic, 0), 2 / 3)
        finally:
            brokers.restart()
        eventually(lambda: any("again" in entry["event"] for entry in logs), meanwhile=answer)
    said = [entry["log_level"] for entry in logs if "its topics" in entry["event"]]
    assert said == ["warning", "info"]


def test_topics_are_learnt_without_the_ends_that_do_not_come(
    kafka: Kafka, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker may stop between the two requests, so that a future never gets a result. The next ends come again."""
    monkeypatch.setattr("consumer.intake.topics.TIMEOUT", 0.5)
    monkeypatch.setattr("consumer.intake.topics.MARGIN", 0.0)
    topic = kafka.topic(partitions=4)
    kafka.write(topic, [b"event"])
    with monkeypatch.context() as silent:
        silent.setattr(AdminClient, "list_offsets", lambda _self, asked, **_: {each: Future[None]() for each in asked})
        known, answer, _ = watch(kafka.settings(), topic)
        answer()
        answer()
        assert (known._counts[topic], dict(known._ends)) == (4, {})
    while (topic, 0) not in known._ends:
        answer()


def test_an_unexpected_exception_does_not_end_the_requests(
    kafka: Kafka, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged with its traceback. Without further answers there would be no leader."""

    def fails(_self: AdminClient, **_: float) -> None:
        raise RuntimeError("a bug")

    topic = kafka.topic(partitions=4)
    kafka.write(topic, [b"event"])
    with capture_logs() as logs, monkeypatch.context() as failing:
        failing.setattr(AdminClient, "list_topics", fails)
        known, answer, _ = watch(kafka.settings(), topic)
        until(lambda: logs)
    answer()
    assert known._counts[topic] == 4
    assert (logs[0]["log_level"], logs[0]["exc_info"]) == ("error", True)


@pytest.mark.parametrize(("protocol", "fault"), [("classic", None), ("consumer", "no topic of KAFKA_TOPICS exists")])
def test_a_worker_without_any_topic_is_not_ready(
    mock_kafka: str, watch: Watch, protocol: str, fault: str | None
) -> None:
    """Both protocols need that: with the classic one, librdkafka reports each missing topic, with KIP-848 none."""
    _, answer, subject = watch(Kafka(mock_kafka, real=False).settings(group_protocol=protocol), unique("none"))
    answer()
    assert subject.fault == fault


def test_closing_does_not_wait_for_a_pending_request(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that does not answer does not keep a process from stopping."""
    asked = Event()

    def hang(*_: object, **__: object) -> None:
        asked.set()
        Event().wait(2.0)
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    monkeypatch.setattr("consumer.intake.topics.AdminClient.list_topics", hang)
    _, _, subject = watch(KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    assert asked.wait(60)
    assert not subject.close(0.2)
