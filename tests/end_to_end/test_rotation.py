"""A secret is changed while events flow: both sign until the overlap ends, and no output shows either."""

import json
import subprocess
import time
from base64 import b64decode
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from standardwebhooks import Webhook

from consumer.crypto.keys import parse_verifying_key
from consumer.ops.receiver import verify
from tests.end_to_end.service_rig import SECRET, Deployment, eventually
from tests.end_to_end.webhook_receiver import Request, in_turn
from tests.processes import PROGRAM, environment

OVERLAP = 4  # seconds
TOKEN = "hidden-token"


def test_receivers_change_whenever_they_like(deployment: Deployment, tmp_path: Path) -> None:
    """From the deployment's HMAC to an own private key, either key verifies every request of its time.

    Keys and secrets are in files, attempts fail at times, and everything is logged. No secret is in the log.
    """
    key = Fernet.generate_key().decode()
    files = {"WEBHOOK_ENCRYPTION_KEY_FILE": tmp_path / "key", "WEBHOOK_SECRET_FILE": tmp_path / "secret"}
    for file, text in zip(files.values(), (key, SECRET), strict=True):
        file.write_text(f"{text}\n")
    settings: Any = {"WEBHOOK_SECRET": "", "LOG_LEVEL": "DEBUG", "WEBHOOK_RETRY_SCHEDULE": "300ms"}
    settings |= {name: str(file) for name, file in files.items()}
    subscription = deployment.subscribe("a", "/hooks")
    deployment.receiver.rules["/hooks"] = in_turn(400, 200)
    worker = deployment.start(**settings)
    output = ""

    def command(*words: str, given: str = "") -> str:
        nonlocal output
        done = subprocess.run(
            [*PROGRAM, "subscriptions", *words],
            input=given,
            capture_output=True,
            text=True,
            check=True,
            env=environment({"DATABASE_URL": deployment.database.url, **settings}),
        )
        output += done.stdout + done.stderr
        return done.stdout

    with deployment.publishing("a", per_second=20):
        eventually(lambda: words_of(deployment) == ["v1"])
        command("set-credential", str(subscription), "--bearer", "-", given=TOKEN)
        rotated = json.loads(
            command("rotate-secret", str(subscription), "--algorithm", "ed25519", "--overlap", f"{OVERLAP}s", "--json")
        )
        eventually(lambda: words_of(deployment) == ["v1", "v1a"])
        both_at = time.time()
        eventually(lambda: words_of(deployment) == ["v1a"])
    eventually(lambda: not deployment.missing())
    eventually(lambda: not deployment.lag())
    worker.stop()

    public = parse_verifying_key(rotated["receiver_key"])
    requests = deployment.receiver.requests
    for request in requests:
        words = versions(request)
        if "v1" in words:
            Webhook(SECRET).verify(request.body, request.headers)
            assert "x-webhook-signature" in request.headers
        if "v1a" in words:
            assert verify(request.headers, request.body, [public], request.at) is None
            assert request.headers["authorization"] == f"Bearer {TOKEN}"
    together = [request.at for request in requests if versions(request) == ["v1", "v1a"]]
    assert together[0] <= both_at
    assert max(together) - min(together) < OVERLAP + 2
    assert len({tuple(versions(request)) for request in requests}) == 3
    seen = worker.log + output
    assert "attempt" in worker.log
    for secret in (key, SECRET, SECRET.removeprefix("whsec_"), TOKEN, "whsk_", "fernet:"):
        assert secret not in seen
    assert b64decode(SECRET.removeprefix("whsec_")).hex() not in seen


def versions(request: Request) -> list[str]:
    """The versions of a request's signatures, in order."""
    return [word.partition(",")[0] for word in request.headers["webhook-signature"].split()]


def words_of(deployment: Deployment) -> list[str]:
    """The signatures of the latest request."""
    requests = deployment.receiver.requests
    return versions(requests[-1]) if requests else []
