"""No secret of a deployment appears in anything that it prints, stores, publishes or serves.

Each secret is planted: `canaries.py` recognises any part of it in any usual form. The deployment then meets faults of
receivers, records, settings, requests and its own code, at the lowest log level.
"""

import json
import re
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.end_to_end.canaries import planted, search
from tests.end_to_end.canary_scene import AUTHORITY, IDENTITY, Scene
from tests.end_to_end.command_line import is_up
from tests.end_to_end.service_rig import Deployment, Worker
from tests.end_to_end.webhook_receiver import Answer, Silence, always
from tests.processes import PROGRAM, environment, free_port
from tests.waiting import eventually

LINKS = re.compile(r"(?:href|hx-get|action)=\"(/console[^\"#]*)")
NOT_JSON = b'{"type": "a", "n": NaN}'
CRASH = """
def crash(*_):
    raise RuntimeError("an error of ours")

import consumer.subscriptions.endpoint_row as rows, consumer.delivery.sender as sender
rows.credentials_of = crash
"""
CRASH_SENDING = CRASH.replace("rows.credentials_of", "sender.build")


@pytest.fixture
def scene(deployment: Deployment, tmp_path: Path) -> Iterator[Scene]:
    """The deployment and its API."""
    made = Scene(deployment, tmp_path)
    log = tmp_path / "api.log"
    with log.open("wb") as output:
        api = subprocess.Popen(
            [*PROGRAM, "api"], stdout=output, stderr=subprocess.STDOUT, cwd=tmp_path, env=environment(made.settings)
        )
    yield made
    api.kill()
    api.wait()


def test_no_secret_is_printed_stored_published_or_served(scene: Scene) -> None:
    """The places in MEANT are the only exceptions."""
    deployment = scene.deployment
    ids = subscribe(scene)
    worker = deployment.start(**scene.settings, OPS_PORT=str(port := free_port()))
    worker.port = port
    eventually(worker.ready)
    for partition in range(4):
        deployment.write(json.dumps({"type": "a", "n": partition}).encode(), partition=partition)
    for bad in (NOT_JSON, b"\0\0\0\0\7unknown"):
        deployment.write(bad, partition=1)
    deployment.flush()
    eventually(lambda: len({row.subscription_id for row in deployment.rows()}) >= len(ids) - 1, timeout=120)
    scene.read_worker(worker)
    with ThreadPoolExecutor(3) as pool:
        waited = [pool.submit(scene.command, *words, **more) for words, more in commands(scene, ids)]
        pool.submit(use_api, scene, ids).result()
        pool.submit(look_at_console, scene).result()
        for each in waited:
            each.result()
    worker.terminate()
    worker.process.wait(120)
    crash(scene)
    scene.take_down()
    found = scene.found()
    assert not found, "\n".join(map(str, found))
    assert_something_happened(scene, worker)


def subscribe(scene: Scene) -> dict[str, int]:
    """Adds subscriptions whose receivers each fail in another way; most have all kinds of credentials."""
    deployment, secrets = scene.deployment, scene.secrets
    eventually(lambda: is_up(scene.url))
    token, header = secrets["a bearer token"], secrets["a confidential header"]
    basic = f"shop:{secrets['a basic password']}"
    coded = b64encode(basic.encode()).decode()
    shown = json.dumps({"you": [basic, coded, header]}) + json.dumps([basic], ensure_ascii=False)
    shown += f" {basic} {escape(basic)} {quote(basic)} {quote(header)} {basic.encode().decode('latin-1')}"
    borne = f"{token} {escape(token)} {json.dumps([token, header])} Bearer {token} {quote(token)}"
    receiver = deployment.receiver
    receiver.rules |= {
        "/echo-basic": always(Answer(401, body=shown)),
        "/echo-bearer": always(Answer(401, header=f"www-authenticate: Bearer realm={token}", body=borne)),
        "/redirect": always(Answer(302, header=f"location: https://example.com/{quote(token)}?{quote(header)}")),
        "/hang": always(Silence.HANG),
        "/reset": always(Silence.RESET),
        "/gone": always(Answer(410, body=basic)),
        "/final": always(Answer(400, body=shown)),
    }
    client, access = secrets["an OAuth2 client secret"], secrets["an access token"]
    argument = secrets["an argument of a plug-in"]
    credentials = {"token_url": receiver.url("/token"), "client_id": "shop", "client_secret": client}
    refused = credentials | {"token_url": receiver.url("/no-token")}
    receiver.rules |= {
        "/token": always(Answer(200, body=json.dumps({"access_token": access, "expires_in": 3600}))),
        "/no-token": always(Answer(400, body=json.dumps({"error": client, "error_description": client}))),
        "/echo-oauth2": always(Answer(401, body=f"{client} {json.dumps(client)} {access} Bearer {access}")),
        "/echo-plugin": always(Answer(403, body=f"{argument} {json.dumps([argument])} {escape(argument)}")),
    }
    tls = receiver.url("/tls").replace("http:", "https:")
    urls = {path: receiver.url(path) for path in ("/ok", *receiver.rules) if "token" not in path}
    urls |= {
        "/without-token": receiver.url("/ok"),
        "/tls": tls,
        "/name": "https://nobody.invalid/",
        "/nowhere": "http://127.0.0.1:9/",
    }
    kinds = {"signing": "an own signing secret", "basic": "a basic password", "header": "a confidential header"}
    texts = {"signing": secrets[kinds["signing"]], "basic": basic, "header": f"x-api-key: {header}", "bearer": token}
    texts |= {"plugin": json.dumps({"name": "sigv4", "args": ["AKID", argument, "eu-central-1", "execute-api"]})}
    kind_of = {"/echo-bearer": "bearer", "/redirect": "bearer", "/echo-plugin": "plugin"}
    kind_of |= dict.fromkeys(("/echo-oauth2", "/without-token"), "oauth2")
    ids = {}
    for path, url in urls.items():
        texts["oauth2"] = json.dumps(refused if path == "/without-token" else credentials)
        wanted = ("signing", kind_of.get(path, "basic"), "header")
        body = {"url": url, "event_type": "a", "secrets": [{"kind": kind, "secret": texts[kind]} for kind in wanted]}
        more = {"final_statuses": "400"} if path == "/final" else {}
        answer = scene.call("POST", "/v1/subscriptions", json=body | more)
        assert answer.status_code == 201, answer.text
        ids[path] = answer.json()["id"]
    chain, key = (blob.bytes().decode() for blob in (IDENTITY.cert_chain_pems[0], IDENTITY.private_key_pem))
    for given in (
        {"certificate": chain, "private_key": key},
        {"certificate": AUTHORITY.cert_pem.bytes().decode(), "private_key": key},
        {"private_key": key, "authorities": chain.replace("M", key)},
        {"certificate": key, "private_key": chain},
    ):
        scene.call("PUT", f"/v1/subscriptions/{ids['/tls']}/tls", json=given)
    password = secrets["a URL password"]
    for number, url in enumerate(
        (f"https://shop:{password}@127.0.0.1/", f"https://shop:{password}@127.0.0.1:99999/", f"{password}@host")
    ):
        ids[f"/url-{number}"] = deployment.subscribe("a", url, url)
    ids["/projection"] = deployment.subscribe("a", "/projection", projection="data.(")
    ids["/fails"] = deployment.subscribe("a", "/fails", projection="data.gone")
    return ids


def commands(scene: Scene, ids: dict[str, int]) -> Iterator[tuple[tuple[str, ...], dict[str, str]]]:
    """Runs users' commands, valid and invalid ones."""
    secrets = scene.secrets
    echo, hook = str(ids["/echo-basic"]), "https://example.com/"
    proxy = f"http://shop:{secrets['the proxy password']}@127.0.0.1:9"
    unread = {"SCHEMA_REGISTRY_URL": "", "SCHEMA_REGISTRY_USER": ""}  # a record waits for the unreachable registry
    yield ("check",), {"WEBHOOK_PROXY": proxy}
    yield ("top", "--once"), {}
    yield ("explain", scene.deployment.topic, "--partition", "0", "--offset", "0"), {}
    yield ("subscriptions", "list", "--broken"), {}
    yield ("subscriptions", "show", echo, "--json"), {}
    yield ("subscriptions", "ping", echo, "--json"), {}
    yield ("subscriptions", "ping", str(ids["/tls"])), {"WEBHOOK_PROXY": proxy}
    yield ("deliveries", "list", "--json"), {}
    yield ("deliveries", "redeliver", "1", "--no-wait"), {}
    yield ("replay", "--subscription", str(ids["/ok"]), "--since", "1h", "--no-wait", "--yes"), unread
    yield ("subscriptions", "encrypt-secrets"), {}
    yield ("subscriptions", "set-credential", str(ids["/reset"]), "--bearer", "-"), {"given": secrets["a bearer token"]}
    for path in ("/echo-oauth2", "/without-token", "/echo-plugin"):
        yield ("subscriptions", "ping", str(ids[path])), {}
    broken = f'{{"client_secret": "{secrets["an OAuth2 client secret"]}"'
    yield ("subscriptions", "add", hook, "b", "--oauth2", broken), {}
    yield ("subscriptions", "add", hook, "b", "--plugin", json.dumps([secrets["an argument of a plug-in"]])), {}
    yield ("subscriptions", "add", hook, "b", "--basic", secrets["a basic password without a user"]), {}
    yield ("subscriptions", "add", hook, "b", "--secret-header", secrets["a header without a name"]), {}
    yield ("subscriptions", "add", f"https://x:{secrets['a password in a URL that is refused']}@h/", "b"), {}
    address = f"oracle+oracledb://shop:{secrets['a database password']}@127.0.0.1:9/?service_name=FREEPDB1"
    yield ("check",), {"DATABASE_URL": address, "DATABASE_WALLET_PASSWORD": secrets["the wallet password"]}
    wrong = {
        "WEBHOOK_SECERT": secrets["a setting with a slip in its name"],
        "WEBHOOK_ENCRYPTION_KEY": secrets["an encryption key that is none"],
        "WEBHOOK_PROXY": f"http//x:{secrets['a proxy password in a URL that is none']}@h",
    }
    yield ("check",), wrong
    wrong["SCHEMA_REGISTRY_URL"] = f"http://x:{secrets['a registry password in its URL']}@h"
    yield ("run",), wrong | {"DATABASE_URL": f"mysql://x:{secrets['a database password without a driver']}@h/x"}


def use_api(scene: Scene, ids: dict[str, int]) -> None:
    """Calls each route that shows data, and provokes its refusals."""
    secrets, echo = scene.secrets, ids["/echo-basic"]
    described = scene.call("GET", "/openapi.json").json()["paths"]
    rows = scene.call("GET", "/v1/deliveries").json()["items"]
    values = {"subscription_id": str(echo), "delivery_id": str(rows[0]["id"]), "replay_id": "1"}
    for path in [each for each, methods in described.items() if "get" in methods]:
        scene.call("GET", re.sub(r"{(\w+)}", lambda name: values.get(name[1], "1"), path))
    scene.call("GET", "/v1/attempts", name="attempts of all", params={"limit": 200})
    scene.call("POST", f"/v1/subscriptions/{echo}/ping", json={})
    scene.call("POST", f"/v1/subscriptions/{ids['/tls']}/ping", json={})
    for token in (secrets["a token that is none"], secrets["a token of the file"]):
        scene.call("GET", "/v1/subscriptions", token=token)
    hook = {"url": "https://example.com/", "event_type": "b"}
    url = f"https://x:{secrets['a password in a URL that is refused']}@h/"
    none, unknown = secrets["a secret that is no text"], secrets["a secret of a kind that is unknown"]
    for body in (
        {"url": url, "event_type": "b"},
        {**hook, "secrets": [{"kind": "bearer", "secret": [none]}]},
        {**hook, "secrets": [{"kind": unknown, "secret": unknown}]},
        {**hook, "secrets": [{"kind": "bearer", "secret": f"{none} two words"}]},
        {**hook, "secrets": {"bearer": none}},
        {**hook, "secrets": none},
        {**hook, "generate_secret": none},
    ):
        assert scene.call("POST", "/v1/subscriptions", json=body).status_code in {400, 422}
    scene.call("PATCH", f"/v1/subscriptions/{echo}", json={"url": url})
    scene.call("POST", "/register-webhook", json={"url": url, "eventType": "b"})
    broken = f'{{"secret": "{secrets["a secret in JSON that is broken"]}'
    scene.call("POST", f"/v1/subscriptions/{echo}/secrets", data=broken, headers={"content-type": "application/json"})
    scene.call("POST", f"/v1/subscriptions/{echo}/secrets", json={"kind": "basic", "secret": none})
    good = {"kind": "header", "secret": f"x-other: {secrets['a confidential header']}"}
    assert scene.call("POST", f"/v1/subscriptions/{ids['/ok']}/secrets", json=good).status_code == 204
    again = {"idempotency-key": "1"}
    for _ in range(2):
        body = {**hook, "secrets": [{"kind": "signing", "secret": secrets["an own signing secret"]}]}
        assert scene.call("POST", "/v1/subscriptions", json=body, headers=again).status_code == 201
    made = scene.call("POST", f"/v1/subscriptions/{ids['/ok']}/secrets/rotate", name="rotate", json={})
    scene.secrets["the key of the API rotation"] = made.json()["receiver_key"]
    shown = scene.command("subscriptions", "rotate-secret", str(ids["/hang"]), name="rotate-secret")
    scene.secrets["the key of rotate-secret"] = shown.split()[0]
    scene.call("PATCH", f"/v1/subscriptions/{ids['/reset']}", json={"state": "disabled", "reason": "moves"})


def look_at_console(scene: Scene) -> None:
    """Signs in, tries a wrong token, and opens every linked page."""
    right = {"token": scene.secrets["a token of the file"], "next": "/"}
    cookies = scene.call("POST", "/console/sign-in", name="sign-in", data=right).cookies
    wrong = {"token": scene.secrets["a token at the console door"], "next": "/"}
    assert scene.call("POST", "/console/sign-in", name="wrong", data=wrong).status_code == 401
    scene.secrets["a console session"] = next(iter(cookies.values()))
    ahead, seen = ["/console/"], {"/console/sign-out", "/console/sign-in"}
    kinds: dict[str, int] = {}
    while ahead:
        path = ahead.pop(0)
        kind = re.sub(r"\d+|=[^&]*", "_", path)
        if path in seen or kinds.get(kind, 0) >= 12 or "/static/" in path:
            continue
        seen.add(path)
        kinds[kind] = kinds.get(kind, 0) + 1
        answer = scene.call("GET", path, cookies=cookies)
        ahead += [each.replace("&amp;", "&") for each in LINKS.findall(answer.text)]
    assert len(kinds) > 12, kinds


def crash(scene: Scene) -> None:
    """Makes a worker log, and a command end with, a traceback where secrets are in memory."""
    deployment = scene.deployment
    deployment.write(json.dumps({"type": "a", "n": "crash"}).encode())
    deployment.flush()
    deployment.alter(CRASH)
    scene.command("subscriptions", "show", "1", name="a crash")
    deployment.alter(CRASH_SENDING)
    worker = deployment.start(**scene.settings)
    eventually(lambda: "an error of ours" in worker.log)
    worker.terminate()
    worker.process.wait(120)


def assert_something_happened(scene: Scene, worker: Worker) -> None:
    """All intended paths were taken; otherwise the test proves nothing."""
    text = "\n".join(each if isinstance(each, str) else each.decode("latin-1") for each in scene.texts.values())
    taken = (
        *("status 401", "410 Gone", "TLS", "nobody.invalid", "time-out", "(not shown)", "not_json"),
        *("subscription.disabled", "delivery.exhausted", "an error of ours", "Traceback"),
        *("no access token from", "status 403", "private_key: "),
    )
    assert [each for each in taken if each not in text] == []
    assert "debug" in worker.log
    assert all(any(place.startswith(each) for place in scene.texts) for each in ("topic dead", "topic attempts"))


@pytest.mark.parametrize(
    "written",
    [
        str,
        lambda text: text.encode().hex().upper(),
        quote,
        json.dumps,
        lambda text: b64encode(f"ab{text}".encode()).decode(),
    ],
)
def test_a_planted_secret_is_found(written: Any) -> None:
    """It is found within a longer text, in each form, and if only half of it is there."""
    secret = planted()
    for part in (secret, secret[:20], secret[-18:]):
        (found,) = search({"it": secret}, {"a log": f"before {written(part)} behind"})
        assert (found.secret, found.place) == ("it", "a log")
    assert search({"it": secret}, {"a log": f"before {written(planted())} behind"}) == []
