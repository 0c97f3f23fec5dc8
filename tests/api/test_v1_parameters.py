"""The query parameters of /v1: each route has its own, and refuses the others."""

import requests

from tests.api.test_tenant_isolation import ROUTES
from tests.api.v1_kit import Api


def test_each_route_refuses_unknown_parameters(api: Api) -> None:
    """A 422 names them and the known ones, and nothing changes: a filter is never ignored."""
    created = api.create(secrets=[{"kind": "bearer", "secret": "t"}])["id"]
    before, events = api.call("GET", "/subscriptions").json(), len(api.events())
    described = requests.get(f"{api.url}/openapi.json", timeout=60).json()["paths"]
    for method, path, body, _ in ROUTES:
        parameters = described[f"/v1{path}"][method.lower()].get("parameters", ())
        known = sorted(each["name"] for each in parameters if each["in"] == "query")
        ids = dict.fromkeys(("secret_id", "delivery_id", "replay_id", "topic", "partition", "offset"), 1)
        place = path.format(subscription_id=created, **ids)
        answer = api.call(method, place, body, params={"subscripton_id": "13", "x" * 300: "s3cret"})
        detail = f"is no parameter of this path; it has {', '.join(known) or 'none'}"
        wrong = [{"parameter": name, "detail": detail} for name in ("subscripton_id", "x" * 200)]
        assert (answer.status_code, answer.json().get("errors")) == (422, wrong), place
        assert "s3cret" not in answer.text
    assert api.call("GET", "/subscriptions").json() == before
    assert len(api.events()) == events


def test_a_parameter_has_one_value(api: Api) -> None:
    """A second one is a 422, unless the parameter is a list."""
    twice = api.call("GET", "/deliveries?limit=1&state=parked&state=held&limit=2")
    assert twice.json()["errors"] == [{"parameter": "limit", "detail": "is there more than once"}]
    assert api.call("GET", "/deliveries?state=parked&state=held").status_code == 200


def test_few_of_many_mistakes_are_described(api: Api) -> None:
    """The answer has the first twenty."""
    answer = api.call("GET", "/deliveries", params={f"x{number}": "1" for number in range(100)})
    assert (answer.status_code, len(answer.json()["errors"])) == (422, 20)
