"""The look-up of subscriptions by id, for cursors."""

from sqlalchemy import Engine

from consumer.matching.catalog import find_endpoints
from consumer.matching.subscribers import Subscriber, find_subscribers
from consumer.subscriptions import repository
from tests.crypto.vaults import in_the_clear
from tests.ledger.rows_kit import DEFAULT, URL, run, statements


def test_subscriptions_are_found_by_id(engine: Engine) -> None:
    """They are as the look-up by type finds them, in one statement. A disabled one matches nothing; one may be gone."""
    usual = repository.add(engine, URL, "user.*", "a secret", tenant="acme", ordering="key")
    paused, disabled = (repository.add(engine, URL, "user.created") for _ in range(2))
    run(engine, "UPDATE webhook_subscriptions SET paused_at = CURRENT_TIMESTAMP WHERE id = :id", id=paused)
    repository.set_enabled(engine, disabled, enabled=False)
    (live,) = find_endpoints(engine, [("user.created", "acme")], DEFAULT, in_the_clear).values()
    assert [(each.subscription_id, each.paused) for each in live] == [(usual, False), (paused, True)]
    found: dict[int, Subscriber] = {}
    sent = statements(
        engine, lambda: found.update(find_subscribers(engine, DEFAULT, in_the_clear, [disabled, 99, paused, usual]))
    )
    assert len([sql for sql in sent if "SELECT" in sql]) == 1
    assert found == {
        usual: Subscriber((("user.*", "acme"),), enabled=True, endpoint=live[0]),
        paused: Subscriber((("user.created", "*"),), enabled=True, endpoint=live[1]),
        disabled: Subscriber((("user.created", "*"),), enabled=False, endpoint=None),
    }


def test_a_subscriber_has_all_of_its_types(engine: Engine) -> None:
    """One that cannot be used is left out; further types cost a second statement."""
    number = repository.add(engine, URL, "user.*", "a secret", tenant="acme", further_types=["order.*"])
    wrong = "INSERT INTO webhook_event_types (subscription_id, tenant, event_type) VALUES (:id, 'acme', 'a,b')"
    run(engine, wrong, id=number)
    found: dict[int, Subscriber] = {}
    sent = statements(engine, lambda: found.update(find_subscribers(engine, DEFAULT, in_the_clear, [number])))
    assert len([sql for sql in sent if "SELECT" in sql]) == 2
    assert found[number].patterns == (("user.*", "acme"), ("order.*", "acme"))
