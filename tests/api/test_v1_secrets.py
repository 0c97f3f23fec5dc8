"""/v1/subscriptions/{id}/secrets on the real application."""

from base64 import b64encode, urlsafe_b64decode
from contextlib import ExitStack
from typing import Any

import pytest
import trustme
from sqlalchemy import Engine

from consumer.api.backing import reading_keys
from consumer.api.tokens import STRANGER, TokenFile
from consumer.crypto.certificates import TlsIdentity, usable
from consumer.crypto.vault import Vault
from consumer.matching.catalog import find_endpoints
from consumer.subscriptions.endpoint import Endpoint
from tests.api.v1_kit import DEFAULT, Api, make_api


def endpoint(engine: Engine) -> Endpoint:
    """The subscription to order.created, as workers see it."""
    found = find_endpoints(engine, [("order.created", None)], (b"shared",), Vault().decrypt)
    (one,) = found["order.created", None]
    return one


def test_a_rotation_shows_the_key_once_and_keeps_the_previous(api: Api) -> None:
    """The new key and the deployment's sign for the overlap. The list has kinds and ends, and no text."""
    path = f"/subscriptions/{api.create()['id']}/secrets"
    answer = api.call("POST", f"{path}/rotate", {"overlap": "1h"})
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    key = answer.json()["receiver_key"]
    assert key.startswith("whsec_")
    assert answer.json()["previous_until"] is not None
    assert len(endpoint(api.engine).secrets) == 2
    listed = api.call("GET", path)
    assert [(each["kind"], each["signs"], each["expires_at"] is None) for each in listed.json()["items"]] == [
        ("signing", True, True),
        ("signing", True, False),
    ]
    assert key not in listed.text
    assert DEFAULT[0] not in listed.text
    newest, previous = listed.json()["items"]
    assert api.call("DELETE", f"{path}/{newest['id']}").status_code == 409
    assert api.call("DELETE", f"{path}/{previous['id']}").status_code == 204
    assert api.call("DELETE", f"{path}/{previous['id']}").status_code == 404
    assert len(endpoint(api.engine).secrets) == 1


def test_a_given_secret_is_not_shown(api: Api) -> None:
    """The caller has it, so no answer and no event repeats it."""
    path = f"/subscriptions/{api.create()['id']}/secrets"
    secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
    rotated = api.call("POST", f"{path}/rotate", {"secret": secret, "overlap": 0})
    assert rotated.json() == {"algorithm": "hmac", "receiver_key": None, "previous_until": None}
    assert api.call("POST", path, {"kind": "basic", "secret": "user:pass-word"}).status_code == 204
    assert api.call("POST", path, {"kind": "bearer", "secret": "to-ken"}).status_code == 204
    assert [each["kind"] for each in api.call("GET", path).json()["items"]] == ["bearer", "signing"]
    assert [each.type for each in api.events()] == ["subscription.created", *["subscription.secret_rotated"] * 3]
    for text in (secret, "pass-word", "to-ken"):
        assert text not in str(api.events())


@pytest.mark.parametrize(
    ("action", "body", "place"),
    [
        ("/secrets/rotate", {"overlap": "soon"}, "/overlap"),
        ("/secrets/rotate", {"overlap": "367d"}, "/overlap"),
        ("/secrets/rotate", {"secret": "whsec_s3cret!"}, ""),
        ("/secrets/rotate", {"secret": "s3cret", "algorithm": "hmac"}, "/algorithm"),
        ("/secrets", {"kind": "signing", "secret": "s3cret"}, "/kind"),
        ("/secrets", {"kind": "basic", "secret": "s3cret"}, ""),
        ("/tls", {}, ""),
        ("/tls", {"certificate": "x", "private_key": "s3cret"}, ""),
    ],
)
def test_a_wrong_secret_is_not_quoted(api: Api, action: str, body: Any, place: str) -> None:
    """The answer is a 422 that points at the mistake and repeats no secret; nothing is stored."""
    path = f"/subscriptions/{api.create()['id']}"
    answer = api.call("PUT" if action == "/tls" else "POST", path + action, body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == place
    assert "s3cret" not in answer.text
    assert api.call("GET", f"{path}/secrets").json()["items"] == []


def test_a_rotation_needs_the_previous_secret(engine: Engine) -> None:
    """Without WEBHOOK_SECRET the API cannot let it sign for the overlap: a 409 names the setting."""
    api = make_api(engine, TokenFile(None))
    registry = api.app.state.backing.deployment._replace(default=())
    api.app.state.backing = api.app.state.backing._replace(deployment=registry)
    path = f"/subscriptions/{api.create()['id']}/secrets/rotate"
    answer = api.call("POST", path, {}, token=None)
    assert answer.status_code == 409
    assert "WEBHOOK_SECRET" in answer.json()["detail"]


def test_certificates(api: Api) -> None:
    """They are shown without the key, parts that are null stay, and the change is in the audit log."""
    authority = trustme.CA()
    issued = authority.issue_cert("sender.test")
    ca, certificate, key = (
        blob.bytes().decode() for blob in (authority.cert_pem, issued.cert_chain_pems[0], issued.private_key_pem)
    )
    created = api.create()
    path = f"/subscriptions/{created['id']}/tls"
    tag = api.call("GET", f"/subscriptions/{created['id']}").headers["etag"]
    answer = api.call("PUT", path, {"certificate": certificate, "private_key": key}, headers={"if-match": tag})
    assert (answer.status_code, answer.json()["authorities"], answer.headers["cache-control"]) == (200, [], "no-store")
    assert api.call("PUT", path, {"authorities": ca}, headers={"if-match": tag}).status_code == 412
    assert api.call("PUT", path, {"authorities": ca}).status_code == 200
    assert endpoint(api.engine).tls == usable(TlsIdentity(certificate, key, ca))
    shown = api.call("GET", f"/subscriptions/{created['id']}").json()["tls"]
    assert (shown["certificate"], len(shown["authorities"])) == (answer.json()["certificate"], 1)
    assert api.call("DELETE", path).status_code == 204
    assert api.call("DELETE", path).status_code == 404
    assert endpoint(api.engine).tls is None
    assert [each.type for each in api.events()][1:] == ["subscription.secret_rotated"] * 3
    assert key.splitlines()[1] not in str(api.events())


def test_public_keys_are_a_json_web_key_set(api: Api) -> None:
    """Those that sign now, of the subscriptions that the token sees; in pages, and without private parts."""
    keys = {}
    for tenant in ("acme", "other", "acme"):
        created = api.create(tenant=tenant, generate_secret="ed25519")
        keys[created["id"]] = created["receiver_key"]
    api.create(tenant="acme", generate_secret="hmac")

    def listed(path: str = "/jwks", **more: Any) -> dict[int, str]:
        answer = api.call("GET", path, **more).json()
        found = {
            int(each["kid"].partition("-")[0]): "whpk_" + b64encode(urlsafe_b64decode(each["x"] + "==")).decode()
            for each in answer["keys"]
        }
        assert all(each.keys() == {"kty", "crv", "alg", "use", "kid", "x"} for each in answer["keys"])
        if answer["next"] is not None:
            found |= listed(f"/jwks?limit=1&cursor={answer['next']}", **more)
        return found

    assert listed() == listed("/jwks?limit=1") == keys
    acme = {1: keys[1], 3: keys[3]}
    assert listed(token="acme") == acme
    rotated = api.call("POST", "/subscriptions/1/secrets/rotate", {"overlap": 0}).json()
    assert listed(token="acme") == acme | {1: rotated["receiver_key"]}


def test_receivers_read_public_keys_without_a_token(api: Api) -> None:
    """Those of a tenant or subscription that they name, of any one; an unknown one has none. All need a token."""
    acme, other = (api.create(tenant=each, generate_secret="ed25519")["id"] for each in ("acme", "other"))
    silent = api.create(tenant="acme", secrets=[{"kind": "bearer", "secret": "s3cret"}], generate_secret="hmac")["id"]
    for query, expected in {
        "tenant=acme": [acme],
        f"subscription_id={other}": [other],
        f"subscription_id={other}&tenant=other": [other],
        f"subscription_id={other}&tenant=acme": [],
        f"subscription_id={silent}": [],
        "subscription_id=99": [],
        "tenant=nobody": [],
        "tenant=": [],
    }.items():
        answers = [api.call("GET", f"/jwks?{query}", token=token) for token in (None, "other", "all")]
        found = answers[0].json()
        assert (answers[0].status_code, answers[0].headers["cache-control"]) == (200, "public, max-age=300")
        assert (found.keys(), [int(each["kid"].partition("-")[0]) for each in found["keys"]]) == (
            {"keys", "next"},
            expected,
        )
        assert [each.content for each in answers] == [answers[0].content] * 3
    page = api.call("GET", "/jwks?tenant=acme&limit=1", token=None).json()
    assert api.call("GET", f"/jwks?tenant=acme&cursor={page['next']}", token=None).json() == {"keys": [], "next": None}
    for query in ("", "?limit=1", f"?cursor={page['next']}"):
        refused = api.call("GET", f"/jwks{query}", token=None)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert api.call("GET", "/jwks?subscription_id=", token=None).status_code == 422
    assert api.call("GET", "/jwks?tenant=acme", token="wrong").status_code == 401
    assert api.call("POST", "/jwks?tenant=acme", {}, token=None).status_code == 401
    assert api.call("GET", "/subscriptions?tenant=acme", token=None).status_code == 401
    assert api.call("GET", "/jwks").headers["cache-control"] == "no-store"


def test_few_read_public_keys_without_a_token_at_once(api: Api) -> None:
    """Further ones are told to come again, without a look into the database; a token is not refused."""
    with ExitStack() as others:
        for _ in range(reading_keys.most):
            others.enter_context(reading_keys(STRANGER))
        refused = api.call("GET", "/jwks?tenant=acme", token=None)
        assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (503, "busy", "5")
        assert refused.headers["cache-control"] == "no-store"
        assert api.call("GET", "/jwks?tenant=acme").status_code == 200
    assert api.call("GET", "/jwks?tenant=acme", token=None).status_code == 200
