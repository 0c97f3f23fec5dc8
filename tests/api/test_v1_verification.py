"""POST /v1/subscriptions with `verify`, and /v1/subscriptions/{id}/verify."""

import threading

import pytest

from consumer.sending.validation_request import Declined, Granted, Permission
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.repository import AWAITS_VERIFICATION
from tests.api.v1_kit import NEW, Api

NO = Declined("the receiver answered 405: it does not implement the validation request (OPTIONS)", "see the page")


class Receiver:
    """Gives the test's answers; `asked` has the URL and rate of each request."""

    def __init__(self) -> None:
        self.answer: Permission = Granted(90)
        self.asked: list[tuple[str, int | None]] = []

    def __call__(self, endpoint: Endpoint, rate: int | None) -> Permission:
        """Records a validation request and returns the answer."""
        self.asked.append((endpoint.url, rate))
        return self.answer


@pytest.fixture
def receiver(api: Api) -> Receiver:
    """The receiver of all subscriptions of the API."""
    made = Receiver()
    api.app.state.backing = api.app.state.backing._replace(ask=made)
    return made


def test_a_creation_is_verified_at_once(api: Api, receiver: Receiver) -> None:
    """A creation with `verify` answers with the subscription after its receiver has agreed."""
    created = api.create(verify=True, generate_secret="hmac")
    assert (created["enabled"], created["verified"], created["rate_limit"]) == (True, True, 1.5)
    assert created["verification"] == {"granted": True, "allowed_rate": 90, "reason": None, "advice": None}
    assert created["receiver_key"].startswith("whsec_")
    assert receiver.asked == [(NEW["url"], None)]
    plain = api.create()
    assert (plain["enabled"], plain["verified"], "verification" in plain) == (True, False, False)


def test_a_creation_without_consent_is_disabled(api: Api, receiver: Receiver) -> None:
    """The answer is a 201 with the reason.

    A repetition creates and asks nothing; the verify route asks again and enables it.
    """
    receiver.answer = NO
    key = {"idempotency-key": "once"}
    first = api.call("POST", "/subscriptions", NEW | {"verify": True}, headers=key)
    created = first.json()
    assert first.status_code == 201
    assert (created["enabled"], created["disabled_reason"]) == (False, AWAITS_VERIFICATION)
    assert created["verification"] == {"granted": False, "allowed_rate": None, "reason": NO.why, "advice": NO.advice}
    again = api.call("POST", "/subscriptions", NEW | {"verify": True}, headers=key)
    assert (again.status_code, again.json()["id"], len(receiver.asked)) == (201, created["id"], 1)
    path = f"/subscriptions/{created['id']}/verify"
    refused = api.call("POST", path, {})
    assert (refused.status_code, refused.json()["verification"]["granted"]) == (200, False)
    receiver.answer = Granted(None)
    granted = api.call("POST", path, {"rate": 600}, token="writer")
    assert granted.json()["verification"]["granted"] is True
    shown = granted.json()["subscription"]
    assert (shown["enabled"], shown["verified"], shown["disabled_reason"]) == (True, True, None)
    assert receiver.asked[-1] == (NEW["url"], 600)
    assert api.events()[-1].data["actor"] == "api:writer"


def test_a_process_without_an_origin_refuses(api: Api) -> None:
    """The answer is a 409 that names the settings; nothing is created."""
    path = f"/subscriptions/{api.create()['id']}/verify"
    for place, body in ((path, {}), ("/subscriptions", NEW | {"verify": True})):
        answer = api.call("POST", place, body)
        assert (answer.status_code, "WEBHOOK_ORIGIN" in answer.json()["detail"]) == (409, True)
    assert len(api.call("GET", "/subscriptions").json()["items"]) == 1


def test_the_outcome_is_all_that_a_token_without_read_sees(api: Api, receiver: Receiver) -> None:
    """The subscription is not shown to it."""
    number = api.create()["id"]
    answer = api.call("POST", f"/subscriptions/{number}/verify", {}, token="blind").json()
    assert (answer["verification"]["granted"], answer["subscription"]) == (True, {"id": number})
    assert receiver.asked


def test_few_receivers_are_asked_at_once(api: Api) -> None:
    """The limit is that of test events, so hanging receivers hold few threads, and the next request is told to wait.

    A tenant has two of the places, so that it leaves some for others.
    """
    hanging, end = threading.Semaphore(0), threading.Event()

    def ask(_endpoint: Endpoint, _rate: int | None) -> Permission:
        hanging.release()
        end.wait(60)
        return NO

    api.app.state.backing = api.app.state.backing._replace(ask=ask)
    paths = {token: f"/subscriptions/{api.create(token=token)['id']}/verify" for token in ("acme", "other", "all")}
    threads = []
    try:
        for token, places in (("acme", 2), ("other", 2), ("all", 4)):
            more = [
                threading.Thread(target=api.call, args=("POST", paths[token], {}), kwargs={"token": token})
                for _ in range(places)
            ]
            threads += more
            for thread in more:
                thread.start()
            for _ in more:
                assert hanging.acquire(timeout=60)
            for busy, body in ((paths[token], {}), ("/subscriptions", NEW | {"verify": True})):
                answer = api.call("POST", busy, body, token=token)
                assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    finally:
        end.set()
        for thread in threads:
            thread.join()
    assert len(api.call("GET", "/subscriptions").json()["items"]) == 3
    assert api.call("POST", paths["acme"], {}, token="acme").status_code == 200
