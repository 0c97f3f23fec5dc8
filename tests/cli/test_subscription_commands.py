"""`subscriptions add`, `edit`, `list` and `show`: options, refusals, and values that are never shown."""

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import Engine, select, text, update

from consumer.cli.subscription_options import FLAGS, flag_of
from consumer.crypto.vault import Owner, Vault
from consumer.subscriptions import repository
from consumer.subscriptions.options import OPTIONS
from models import Subscription, SubscriptionSecret
from tests.processes import Command

URL = "https://example.com/hooks"
ADD = ["subscriptions", "add", URL, "order.*"]
WORDS: dict[str, tuple[Sequence[str], Any]] = {  # by column: the flag's argument, and the stored value
    "tenant": (["acme"], "acme"),
    "topics": (["orders,users"], "orders,users"),
    "event_filter": (["data.amount > 100"], "data.amount > 100"),
    "payload_format": (["cloudevents"], "cloudevents"),
    "projection": (['{"id": data.id}'], '{"id": data.id}'),
    "batch_size": (["100"], 100),
    "batch_wait_ms": (["0.5s"], 500),
    "method": (["PUT"], "PUT"),
    "custom_headers": (["X-A: b: c", "X-D=e"], '{"X-A": "b: c", "X-D": "e"}'),
    "signature_header": (["X-Hub-Signature-256"], "X-Hub-Signature-256"),
    "signature_prefix": (["sha256="], "sha256="),
    "signature_template": (["stripe"], "stripe"),
    "gzip_above": (["1024"], 1024),
    "http_version": (["2"], "2"),
    "timeout_seconds": (["1m"], 60.0),
    "ordering": (["key"], "key"),
    "max_in_flight": (["20"], 20),
    "rate_limit": (["0.5"], 0.5),
    "retry_schedule": (["5s,5m"], "5s,5m"),
    "final_statuses": (["4xx"], "4xx"),
    "name": (["To the warehouse"], "To the warehouse"),
    "external_id": (["crm-4711"], "crm-4711"),
    "metadata": (["team=shop", "stage=live"], '{"team": "shop", "stage": "live"}'),
}
ALONE: dict[str, tuple[Sequence[str], Any]] = {  # the same, of columns that do not go with batches
    "header_expressions": (["X-A: data.id", "X-B=headers['b']"], """{"X-A": "data.id", "X-B": "headers['b']"}"""),
    "pass_headers": (["x-*", "correlation-id"], "x-*,correlation-id"),
    "report_answer": (["true"], "true"),
    "answer_headers": (["etag", "x-*"], "etag,x-*"),
}
ALL_FLAGS, FLAGS_ALONE = (
    [word for column, (words, _) in named.items() for each in words for word in (flag_of(column), each)]
    for named in (WORDS, ALONE)
)
STORED = {column: value for column, (_, value) in WORDS.items()} | {column: OPTIONS[column].default for column in ALONE}


def options(engine: Engine, subscription_id: int = 1) -> dict[str, Any]:
    found = repository.get(engine, subscription_id)
    assert found is not None
    return {column: value for column, value in found.options.items() if column in FLAGS}


def test_add_has_a_flag_for_every_option(called: Command, database: dict[str, str], engine: Engine) -> None:
    """Each argument, with its units, reaches its column; `show` and `--json` print it."""
    assert WORDS.keys() | ALONE.keys() == FLAGS.keys()
    added = called(*ADD, *ALL_FLAGS, **database)
    assert (added.returncode, added.stdout) == (0, "subscription 1 added\n")
    assert options(engine) == STORED
    shown = json.loads(called("subscriptions", "show", "1", "--json", **database).stdout)
    assert {column: shown[column] for column in OPTIONS} == STORED | {"url": URL, "event_type": "order.*"}
    assert [problem["effect"] for problem in shown["problems"]] == ["sent"]  # the projection's warning
    assert (shown["state"][:8], shown["deliveries"]["parked"]) == ("warning:", 0)
    as_text = called("subscriptions", "show", "1", **database).stdout
    assert "event filter        data.amount > 100\n" in as_text


def test_edit_sets_and_unsets_every_option(called: Command, database: dict[str, str], engine: Engine) -> None:
    """Only named options change, and an unset one has its default again."""
    first, other = (repository.add(engine, URL, "a") for _ in range(2))
    untouched = options(engine, other)
    edit = ["subscriptions", "edit", str(first)]
    assert called(*edit, *ALL_FLAGS, **database).stdout == f"subscription {first} is changed\n"
    assert options(engine) == STORED
    assert called(*edit, "--timeout", "250ms", "--event-type", "b.**", **database).returncode == 0
    assert options(engine) == STORED | {"timeout_seconds": 0.25}
    assert options(engine, other) == untouched
    names = [word for column in FLAGS for word in ("--unset", flag_of(column).removeprefix("--"))]
    edited = json.loads(called(*edit, *names, "--url", f"{URL}/new", "--json", **database).stdout)
    assert options(engine) == untouched
    assert (edited["url"], edited["event_type"]) == (f"{URL}/new", "b.**")
    assert called(*edit, *FLAGS_ALONE, **database).returncode == 0
    assert options(engine) == untouched | {column: value for column, (_, value) in ALONE.items()}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name at least one option to change"),
        (["--unset", "colour"], "'colour' is not one of tenant, topics, filter"),
        (["--unset", "filter", "--filter", "true"], "filter is both set and unset"),
        (["--unset", "batch-size"], "kafka-webhooks: --batch-wait: needs --batch-size, which is not set\n"),
        (["--timeout", "soon"], "'--timeout': 'soon' is not a duration; write 10s"),
        (
            ["--timeout", "10m"],
            "--timeout: is 600.0 seconds; it must be from 0.001 to 300 seconds; for example --timeout 5s",
        ),
        (["--format", "xml"], "--format: is 'xml'; it must be record, standard, cloudevents or cloudevents-binary"),
        (["--header", "X-A"], "--header: write 'NAME: VALUE'"),
        (["--header", "X-A: 1", "--header", "X-A: 2"], "X-A is given twice"),
        (
            ["--header", "Authorization: Bearer abc"],
            "Authorization is a credential; store it in webhook_secrets (--basic, --bearer",
        ),
    ],
)
def test_an_invalid_change_is_refused(
    called: Command, database: dict[str, str], engine: Engine, words: list[str], said: str
) -> None:
    """The status is 2 and one line shows a valid value; nothing changes, and no header's value is repeated."""
    repository.add(engine, URL, "a", batch_size=5, batch_wait_ms=5)
    before = tuple(repository.walk(engine))
    ended = called("subscriptions", "edit", "1", *words, **database)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert said in ended.stderr
    assert "abc" not in ended.stderr
    assert not re.search("[a-z]_[a-z]|Value error|Input should", ended.stderr.replace("webhook_secrets", ""))
    assert tuple(repository.walk(engine)) == before


def test_if_not_exists_compares_url_type_and_tenant(called: Command, database: dict[str, str], engine: Engine) -> None:
    """If a subscription has the same three, nothing is added, and its options stay unchanged."""
    add = [*ADD, "--if-not-exists"]
    assert called(*add, "--timeout", "5s", **database).stdout == "subscription 1 added\n"
    again = called(*add, "--timeout", "9s", **database)
    assert again.stdout == "subscription 1 exists already, and is unchanged\n"
    assert options(engine)["timeout_seconds"] == 5
    assert json.loads(called(*add, "--tenant", "acme", "--json", **database).stdout)["added"] is True
    assert json.loads(called(*add, "--tenant", "*", "--json", **database).stdout)["added"] is False
    assert len(tuple(repository.walk(engine))) == 2


def test_several_types_are_added_and_replaced(called: Command, database: dict[str, str]) -> None:
    """`add` takes several, and `--event-type`, repeated, replaces all; each of them finds the subscription."""
    add = ["subscriptions", "add", URL, "a", "b.*", "--name", "To the Warehouse", "--if-not-exists"]
    assert called(*add, **database).stdout == "subscription 1 added\n"
    assert called(*add, **database).stdout == "subscription 1 exists already, and is unchanged\n"
    assert called("subscriptions", "add", URL, "a", "--if-not-exists", **database).stdout == "subscription 2 added\n"
    refused = called("subscriptions", "add", URL, "a", "b,c", **database)
    assert (refused.returncode, refused.stderr.split(":")[1]) == (2, " EVENT_TYPE")
    edit = ["subscriptions", "edit", "1", "--event-type", "c", "--event-type", "d", "--json"]
    assert json.loads(called(*edit, **database).stdout)["event_types"] == ["c", "d"]
    for search in (["--event-type", "d"], ["--name", "warehouse"]):
        listed = json.loads(called("subscriptions", "list", *search, "--json", **database).stdout)
        assert [each["id"] for each in listed] == [1]


@pytest.mark.parametrize("words", [("add", "https://10.0.0.1/", "a"), ("edit", "1", "--url", "https://10.0.0.1/")])
def test_the_deployments_rules_refuse(
    called: Command, database: dict[str, str], engine: Engine, words: Sequence[str]
) -> None:
    """By `add` and `edit`: status 2, one line that names the setting, and no change."""
    repository.add(engine, f"{URL}/old", "a")
    refused = called("subscriptions", *words, **database)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "10.0.0.1 is not a public address; to allow it, add its network to WEBHOOK_ALLOW" in refused.stderr
    assert [row.url for row in repository.walk(engine)] == [f"{URL}/old"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://localhost/", "resolves to "),
        ("https://nowhere.invalid/", "'nowhere.invalid' does not resolve"),
        ("https://1.1.1.1/", None),
    ],
)
def test_a_name_that_does_not_resolve_is_a_warning(
    called: Command, database: dict[str, str], engine: Engine, url: str, said: str | None
) -> None:
    """Workers may use another DNS, and the receiver may come later, so it is added with a warning on stderr."""
    for words in (["add", url, "a"], ["edit", "1", "--url", url]):
        done = called("subscriptions", *words, **database)
        assert done.returncode == 0
        assert (said is None and done.stderr == "") or (
            done.stderr.startswith("warning: url: ") and str(said) in done.stderr
        )
    assert called("subscriptions", "edit", "1", "--timeout", "5s", **database).stderr == ""
    assert [row.url for row in repository.walk(engine)] == [url]


def test_what_is_valid_and_hardly_meant_is_a_warning(called: Command, database: dict[str, str]) -> None:
    """A fragment is never sent, and an empty segment matches an empty one alone; both are stored as they were given."""
    given = ("https://1.1.1.1/#hook", "a..b")
    for words in (["add", *given], ["edit", "1", "--url", given[0], "--event-type", given[1]]):
        told = called("subscriptions", *words, **database).stderr.splitlines()
        assert [line.partition(";")[0] for line in told] == [
            "warning: event type: a..b gets only events whose type has both dots in a row, too",
            "warning: url: what follows # is never sent",
        ]


def test_list_shows_broken_subscriptions(called: Command, database: dict[str, str], engine: Engine) -> None:
    """Each line has the state and its reason; `--broken` lists those that need attention, and ends with 1 then."""
    assert called("subscriptions", "list", "--broken", **database).returncode == 0
    for event_type in ("a", "b", "c", "d"):
        repository.add(engine, URL, event_type)
    repository.set_enabled(engine, 2, enabled=False, reason="moving")
    with engine.begin() as connection:
        changes: dict[int, dict[str, Any]] = {
            3: {"event_filter": "1 +"},
            4: {"failing_since": text("'2026-01-01 00:00:00'")},
        }
        for each, values in changes.items():
            connection.execute(update(Subscription).where(Subscription.id == each).values(values))
        connection.execute(
            update(Subscription).where(Subscription.id == 2).values(topics="^a", signature_header="no no")
        )
    lines = called("subscriptions", "list", **database).stdout.splitlines()
    states = [line.split(URL)[1].strip() for line in lines[1:]]
    assert states[0] == "enabled"
    assert states[1] == (
        "disabled: moving; broken: topics: a pattern of topics cannot be used here; it matches no event (and 1 more)"
    )
    assert states[2].startswith("broken: event_filter: Syntax error")
    assert states[2].endswith("; its events are stored, not sent")
    assert states[3] == "failing since 2026-01-01T00:00:00Z"
    listed = called("subscriptions", "list", "--broken", **database)
    assert (listed.returncode, len(listed.stdout.splitlines())) == (1, 3)
    assert called("subscriptions", "list", **database).returncode == 0
    broken = json.loads(called("subscriptions", "list", "--broken", "--json", **database).stdout)
    assert [(item["id"], [problem["option"] for problem in item["problems"]]) for item in broken] == [
        (2, ["topics", "signature_header"]),
        (3, ["event_filter"]),
    ]
    disabled = json.loads(called("subscriptions", "list", "--disabled", "--json", **database).stdout)
    assert [item["id"] for item in disabled] == [2]
    for each in (1, 2):
        repository.pause(engine, each)
    paused = json.loads(called("subscriptions", "list", "--paused", "--json", **database).stdout)
    assert [item["id"] for item in paused] == [1]
    assert called("subscriptions", "list", "--paused", "--disabled", **database).returncode == 2
    assert called("subscriptions", "list", "--tenant", "acme", **database).stderr == "no subscriptions\n"
    shown = called("subscriptions", "show", "2", **database).stdout
    assert "problem 2           signature_header: 'no no' is not a valid header name; its events are stored" in shown


def test_secrets_go_in_and_are_not_shown(called: Command, database: dict[str, str], engine: Engine) -> None:
    """They are encrypted if there is a key; list, show and JSON print their number and kinds."""
    key = Fernet.generate_key().decode()
    words = ["--secret", "sign-a", "--bearer", "-", "--secret-header", "X-Key: head-c", "--secret-header", "X-Z=head-d"]
    added = called(*ADD, *words, stdin="bear-b\n", **database, WEBHOOK_ENCRYPTION_KEY=key)
    assert (added.returncode, added.stdout) == (0, "subscription 1 added\n")
    with engine.connect() as connection:
        rows = connection.execute(select(SubscriptionSecret.kind, SubscriptionSecret.secret)).all()
    assert sorted(kind for kind, _ in rows) == ["bearer", "header", "header", "signing"]
    headers = [Vault(key).decrypt(stored, Owner(1, "header")) for kind, stored in rows if kind == "header"]
    assert sorted(headers) == ["X-Key: head-c", "X-Z: head-d"]
    assert all(stored.startswith("fernet:") for _, stored in rows)
    shown = called("subscriptions", "show", "1", "--json", **database, WEBHOOK_ENCRYPTION_KEY=key)
    assert (json.loads(shown.stdout)["secrets"], json.loads(shown.stdout)["credentials"]) == (1, ["bearer", "header"])
    assert (json.loads(shown.stdout)["state"], json.loads(shown.stdout)["problems"]) == ("enabled", [])
    assert "WEBHOOK_ENCRYPTION_KEY is not set" in called("subscriptions", "list", "--broken", **database).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--secret", "x"], "WEBHOOK_ENCRYPTION_KEY is not set"),
        (["--secret", "whsec_?", "--unencrypted"], "is not base64"),
        (["--basic", "no-colon", "--unencrypted"], "user:password"),
        (["--secret-header", "no-colon==", "--unencrypted"], "--secret-header: write 'NAME: VALUE'"),
        (["--secret", "-", "--bearer", "-", "--unencrypted"], "only one secret can be read from the standard input"),
        (["--secret", "x", "--generate-secret", "hmac"], "a secret is either given or generated"),
        (["--generate-secret", "rsa"], "'rsa' is not one of 'hmac', 'ed25519'"),
    ],
)
def test_an_invalid_secret_is_refused(
    called: Command, database: dict[str, str], engine: Engine, words: list[str], said: str
) -> None:
    """The status is 2, no subscription is added, and the text is not repeated."""
    ended = called(*ADD, *words, stdin="secret", **database)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "no-colon" not in ended.stderr
    assert tuple(repository.walk(engine)) == ()


def test_a_generated_secret_is_shown_once(called: Command, database: dict[str, str], engine: Engine) -> None:
    """The receiver's key is printed on creation and never again."""
    added = called(*ADD, "--generate-secret", "hmac", "--unencrypted", **database).stdout
    first, second = added.splitlines()
    assert first == "subscription 1 added"
    key = second.rpartition(" ")[2]
    with engine.connect() as connection:
        assert connection.execute(select(SubscriptionSecret.secret)).scalar_one() == key
    made = json.loads(called(*ADD, "--generate-secret", "ed25519", "--unencrypted", "--json", **database).stdout)
    assert made["receiver_key"].startswith("whpk_")
    assert key not in called("subscriptions", "list", "--json", **database).stdout
