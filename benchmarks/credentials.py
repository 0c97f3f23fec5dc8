"""The cost of each kind of credential for a delivery.

    python -m benchmarks.credentials [EVENTS]

In one run, on one real Kafka and one receiver: events a second, CPU for each delivery, and the extra cost. Certificates
are compared with TLS, the others with plain http.
"""

import json
import statistics
import sys
import tempfile
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import trustme
from sqlalchemy import Engine, create_engine

from benchmarks import rig
from benchmarks.events import TYPE, create_topic, fill
from consumer.crypto.certificates import TlsIdentity
from consumer.crypto.vault import Vault
from consumer.subscriptions import secrets, tls

WARM = 0.2  # share of the events before the measurement
RUNS = 3  # runs of each; the median counts
TOKEN = {"access_token": "a" * 800, "token_type": "Bearer", "expires_in": 3600}  # as long as a signed token
SIGV4 = {"name": "sigv4", "args": ["AKID", "s3cret", "eu-central-1", "execute-api"]}


class _TokenServer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps(TOKEN).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


Give = Callable[[Engine], object]


def credential(kind: secrets.Credential, text: str) -> Give:
    """Gives the only subscription a credential."""
    return lambda engine: secrets.set_credential(engine, 1, kind, text, Vault(), datetime.now(UTC))


def main(events: int) -> None:
    """Runs each and prints the table."""
    authority = trustme.CA()
    client, server = authority.issue_cert("sender.test"), authority.issue_cert("127.0.0.1")
    ca, chain, key = (
        blob.bytes().decode() for blob in (authority.cert_pem, client.cert_chain_pems[0], client.private_key_pem)
    )
    with tempfile.TemporaryDirectory(prefix="webhooks-benchmark-") as folder:
        files = rig.Certificate(*(Path(folder) / name for name in ("chain.pem", "key.pem", "ca.pem")))
        for blob, file in zip(
            (server.cert_chain_pems[0], server.private_key_pem, authority.cert_pem), files, strict=True
        ):
            blob.write_to_path(str(file))
        with (
            rig.kafka() as bootstrap,
            rig.sink(certificate=files) as receiver,
            rig.http_server(_TokenServer) as tokens,
        ):
            oauth2 = {"token_url": f"{tokens}/token", "client_id": "me", "client_secret": "s3cret"}
            identities = {
                "TLS, its authority": TlsIdentity(authorities=ca),
                "TLS, client certificate": TlsIdentity(chain, key, ca),
            }
            plain, secure = f"{receiver.url}/hook", f"{receiver.tls_url}/hook"
            variants: dict[str, tuple[str, Give]] = {
                "nothing": (plain, lambda _: None),
                "basic": (plain, credential("basic", "user:password")),
                "bearer": (plain, credential("bearer", "b" * 800)),
                "header": (plain, credential("header", "x-api-key: s3cret")),
                "oauth2": (plain, credential("oauth2", json.dumps(oauth2))),
                "plug-in (AWS signature)": (plain, credential("plugin", json.dumps(SIGV4))),
                "TLS": (secure, lambda _: None),
                **{
                    name: (secure, lambda engine, of=of: tls.set_tls(engine, 1, of, Vault(), datetime.now(UTC)))  # type: ignore[misc]
                    for name, of in identities.items()
                },
            }
            settings = {
                "WEBHOOK_AUTH_PLUGINS": "sigv4=requests_aws4auth:AWS4Auth",
                "SSL_CERT_FILE": str(files.authority),
            }
            runs: dict[str, list[rig.Used]] = {name: [] for name in variants}
            for _ in range(RUNS):  # in turn, because the machine's speed varies
                for name, (url, give) in variants.items():
                    topic = f"bench-{uuid.uuid4().hex[:8]}"
                    create_topic(bootstrap, topic)
                    fill(bootstrap, topic, events)
                    receiver.reset()
                    with rig.database([url], TYPE) as database:
                        give(create_engine(database))
                        with rig.worker(bootstrap, topic, database, **settings) as child:
                            used = rig.measure(child, receiver, int(events * WARM), events)
                    runs[name].append(used)
                    print(f"{name:26}{used.per_second:>10,.0f}/s{used.cpu_us:>8.1f} µs", flush=True)
    medians = {
        name: [statistics.median(values) for values in zip(*(each[:2] for each in found), strict=True)]
        for name, found in runs.items()
    }
    print(f"\n{'':26}{'events/s':>10}{'CPU/delivery':>14}{'more':>10}")
    for name, (rate, cpu) in medians.items():
        usual = medians["TLS" if name.startswith("TLS") else "nothing"][1]
        print(f"{name:26}{rate:>10,.0f}{cpu:>11.1f} µs{cpu - usual:>+7.1f} µs")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
