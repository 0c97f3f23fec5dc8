"""The id of a request: in its answer, in a problem, and in what is logged meanwhile."""

import re

import pytest
import requests
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from tests.api.v1_kit import Api
from tests.delivery.store_kit import rename


@pytest.mark.parametrize("sent", ["a", "4f1c0d9b-e2a8.4c6f_Z", "x" * 64])
def test_the_clients_id_is_taken_over(api: Api, sent: str) -> None:
    """The answer has it, good or bad."""
    for path, status in (("/subscriptions", 200), ("/subscriptions/999", 404), ("/subscriptions?x=1", 422)):
        answer = api.call("GET", path, headers={"x-request-id": sent})
        assert (answer.status_code, answer.headers["x-request-id"]) == (status, sent)
        assert answer.json().get("request_id") == (None if status == 200 else sent)


@pytest.mark.parametrize("sent", [None, "", "x" * 65, "a b", 'a"b', "a\x7f", "é"])
def test_another_id_is_made(api: Api, sent: str | None) -> None:
    """For each request that has none, or one that is not fit for a log; also where no token is needed."""
    headers = {} if sent is None else {"x-request-id": sent.encode("latin-1")}
    url = f"{api.url}/v1/subscriptions"
    answers = [requests.get(url, headers=headers, timeout=60) for _ in range(2)]
    answers.append(requests.get(f"{api.url}/healthz", headers=headers, timeout=60))
    assert [answer.status_code for answer in answers] == [401, 401, 200]
    made = [answer.headers["x-request-id"] for answer in answers]
    assert len({*made}) == 3
    assert all(re.fullmatch("[0-9a-f]{16}", each) for each in made)
    assert [answer.json()["request_id"] for answer in answers[:2]] == made[:2]


def test_the_log_has_it(api: Api) -> None:
    """A line that a request has logged in a thread is found by the id of its answer."""
    path = f"/subscriptions/{api.create()['id']}"
    rename(api.engine, "webhook_subscriptions", "away")
    with capture_logs(processors=[merge_contextvars]) as lines:
        for number in range(3):
            assert api.call("GET", path, headers={"x-request-id": f"id-{number}"}).status_code == 503
    assert [line["request_id"] for line in lines] == ["id-0", "id-1", "id-2"]


def test_each_problem_has_its_code(api: Api) -> None:
    """It is the end of the type."""
    for path, code in (("/nothing", "not_found"), ("/subscriptions?x=1", "invalid")):
        problem = api.call("GET", path).json()
        assert (problem["code"], problem["type"]) == (code, f"urn:kafka-webhooks:problem:{code}")
    refused = api.call("POST", "/subscriptions", headers={"content-type": "text/plain"}, data=b"{}").json()
    assert refused["code"] == "unsupported_media_type"
