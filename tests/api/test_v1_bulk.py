"""/v1/subscriptions/bulk."""

from typing import Any

import pytest

from consumer.api import backing
from consumer.api.tokens import ANYONE
from tests.api.v1_kit import Api

PATH = "/subscriptions/bulk"


def test_each_subscription_has_an_outcome(api: Api) -> None:
    """A tenant's token changes its own; another tenant's is like one that is not there, and stays as it is."""
    mine, theirs = api.create(tenant="acme")["id"], api.create(tenant="other")["id"]
    wanted = {"subscription_ids": [theirs, mine, 999], "action": "pause", "reason": "moves"}
    items = api.call("POST", PATH, wanted, token="acme").json()["items"]
    done = {"subscription_id": mine, "result": "done", "why": None}
    absent = {"result": "not_found", "why": None}
    assert items == [{"subscription_id": theirs} | absent, done, {"subscription_id": 999} | absent]
    assert api.call("GET", f"/subscriptions/{mine}").json()["paused_reason"] == "moves"
    assert api.call("GET", f"/subscriptions/{theirs}").json()["state"] == "enabled"
    assert [event.data["actor"] for event in api.events()] == ["api:all"] * 2 + ["api:acme"]
    gone = {"subscription_ids": [mine, theirs], "action": "remove", "if_owed": "exhaust"}
    assert [item["result"] for item in api.call("POST", PATH, gone).json()["items"]] == ["done"] * 2
    assert api.call("GET", "/subscriptions").json()["items"] == []


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"subscription_ids": []}, "/subscription_ids"),
        ({"subscription_ids": list(range(101))}, "/subscription_ids"),
        ({"action": "rotate"}, "/action"),
        ({"action": "enable", "reason": "why"}, "/reason"),
    ],
)
def test_an_invalid_request_changes_nothing(api: Api, change: dict[str, Any], pointer: str) -> None:
    """It names the member that is wrong."""
    created = api.create()["id"]
    refused = api.call("POST", PATH, {"subscription_ids": [created], "action": "pause"} | change)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer)
    assert api.call("GET", f"/subscriptions/{created}").json()["state"] == "enabled"


def test_few_requests_change_many_at_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds a thread for up to 20 s; the requests of other tenants need one too."""
    monkeypatch.setattr(backing.changing_many, "most", 1)
    wanted = {"subscription_ids": [api.create()["id"]], "action": "disable"}
    with backing.changing_many(ANYONE):
        assert api.call("POST", PATH, wanted).json()["code"] == "busy"
    assert api.call("POST", PATH, wanted).status_code == 200
