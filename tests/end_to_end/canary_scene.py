"""A deployment with planted secrets, and all of its output."""

import subprocess
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import requests
import trustme
from cryptography.fernet import Fernet

from tests.end_to_end.canaries import Found, planted, search
from tests.end_to_end.service_rig import Deployment, Worker
from tests.kafka_kit import Kafka, read_all
from tests.processes import environment, free_port

# Where a secret may appear: the names of secret and place, and the reason.
MEANT = {
    ("a URL password", "table webhook_subscriptions.url"): "plain SQL wrote it there; the column is plain text",
    ("a URL password", "file webhooks.db"): "the same, in the database's file",
    ("a URL password", "file webhooks.db-wal"): "the same",
    ("the key of rotate-secret", "rotate-secret"): "the receiver needs it; shown once to the caller",
    ("the key of the API rotation", "POST rotate"): "the same",
    ("a console session", "POST sign-in"): "the cookie itself, for the browser that has signed in",
}
AUTHORITY = trustme.CA()
IDENTITY = AUTHORITY.issue_cert("sender.test")


class Secrets(dict[str, str]):
    """By name. One that is missing is planted, of characters that a URL, a token and a header can have."""

    def __missing__(self, name: str) -> str:
        """Plant it."""
        self[name] = planted("-")
        return self[name]


class Scene:
    """A deployment with planted secrets; `texts` has its output by place."""

    def __init__(self, deployment: Deployment, directory: Path) -> None:
        self.deployment = deployment
        self.directory = directory
        self.texts: dict[str, bytes | str] = {}
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        kafka = Kafka(deployment.servers, real=True)
        self.topics = {name: kafka.topic() for name in ("dead", "attempts", "operations")}
        self.secrets = Secrets(
            {
                "the newest signing secret": planted('/+"%\\='),
                "the oldest signing secret": "whsec_" + b64encode(planted().encode()).decode(),
                "the encryption key": Fernet.generate_key().decode(),
                "the registry password": planted(),
                "Kafka password": planted(),
                "the password of Kafka key": planted(),
                "the wallet password": planted(),
                "an own signing secret": planted(),
                "a basic password": planted('/+"%\\ö &'),
                "a bearer token": planted('/+"%='),
                "a confidential header": planted(' /+"%\\'),
                "an OAuth2 client secret": planted(),
                "an argument of a plug-in": planted(),
                "a private key": IDENTITY.private_key_pem.bytes().decode().splitlines()[2],
            }
        )
        tokens = directory / "tokens.toml"
        digest = sha256(self.secrets["a token of the file"].encode()).hexdigest()
        tokens.write_text(f'team = {{ sha256 = "{digest}", scopes = ["read", "write", "secrets"] }}\n')
        self.settings = deployment.settings | {
            "KAFKA_DEAD_LETTER_TOPIC": self.topics["dead"],
            "KAFKA_ATTEMPTS_TOPIC": self.topics["attempts"],
            "KAFKA_OPERATIONS_TOPIC": self.topics["operations"],
            "KAFKA_SASL_USERNAME": "webhooks",
            "KAFKA_SASL_PASSWORD": self.secrets["Kafka password"],
            "KAFKA_SSL_KEY_PASSWORD": self.secrets["the password of Kafka key"],
            "SCHEMA_REGISTRY_URL": "http://127.0.0.1:9",
            "SCHEMA_REGISTRY_USER": "webhooks",
            "SCHEMA_REGISTRY_PASSWORD": self.secrets["the registry password"],
            "WEBHOOK_ENCRYPTION_KEY": self.secrets["the encryption key"],
            "WEBHOOK_SECRET": " ".join(self.secrets[f"the {age} signing secret"] for age in ("newest", "oldest")),
            "WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
            "WEBHOOK_AUTH_PLUGINS": "sigv4=requests_aws4auth:AWS4Auth",
            "WEBHOOK_TIMEOUT": "1s",
            "WEBHOOK_RETRY_SCHEDULE": "0.1s,1h",
            "WEBHOOK_RETRY_IN_MEMORY": "1s",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{self.secrets['the collector token']}",
            "API_TOKEN": self.secrets["the API token"],
            "API_TOKENS_FILE": str(tokens),
            "API_HOST": "127.0.0.1",
            "API_PORT": str(self.port),
            "LOG_LEVEL": "DEBUG",
        }

    # Sources of output.

    def command(self, *words: str, name: str = "", given: str = "", **variables: str) -> str:
        """Runs a command to its end, whatever its status, and returns its stdout."""
        done = subprocess.run(
            [*self.deployment.program, *words],
            input=given,
            capture_output=True,
            text=True,
            cwd=self.directory,
            env=environment(self.settings | variables),
            timeout=200,
            check=False,
        )
        place = name or " ".join(words[:2])
        self.texts[f"{place} #{len(self.texts)}"] = f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def call(self, method: str, path: str, *, name: str = "", token: str | None = None, **more: Any) -> Any:
        """Sends a request to the API or the console and records its answer with the headers."""
        headers = {"authorization": f"Bearer {token or self.secrets['the API token']}", **more.pop("headers", {})}
        answer = requests.request(method, self.url + path, headers=headers, timeout=60, allow_redirects=False, **more)
        head = "\n".join(f"{key}: {value}" for key, value in answer.headers.items())
        place = f"{method} {name or path}"
        self.texts[f"{place} #{len(self.texts)}"] = f"{answer.status_code}\n{head}\n\n".encode() + answer.content
        return answer

    def read_worker(self, worker: Worker) -> None:
        """Records the answers of a worker's port."""
        for path in ("/metrics", "/readyz", "/healthz"):
            self.texts[f"{path} of a worker"] = worker.get(path)[1]

    def take_down(self) -> None:
        """Records all stored and published data."""
        for name, topic in self.topics.items():
            for message in read_all(self.deployment.servers, topic):
                head = repr(message.headers()).encode()
                self.texts[f"topic {name} {message.offset()}"] = b"\n".join(
                    (message.key() or b"", message.value() or b"", head)
                )
        for (table,) in self.deployment.sql("SELECT name FROM sqlite_master WHERE type = 'table'"):
            columns = [str(row[1]) for row in self.deployment.sql(f"PRAGMA table_info({table})")]
            for column in columns:
                values = self.deployment.sql(f"SELECT {column} FROM {table}")  # noqa: S608 (names of the schema)
                self.texts[f"table {table}.{column}"] = "\n".join(
                    value.decode("latin-1") if isinstance(value, bytes) else str(value) for (value,) in values
                )
        database = self.deployment.sqlite.path
        files = {*self.directory.rglob("*"), *database.parent.glob(f"{database.name}*")}
        for path in sorted(each for each in files if each.is_file()):
            self.texts[f"file {path.name.replace(database.name, 'webhooks.db')}"] = path.read_bytes()

    def found(self) -> list[Found]:
        """The secrets found outside the intended places."""
        return [
            each
            for each in search(self.secrets, self.texts)
            if not any(each.secret == name and each.place.startswith(place) for name, place in MEANT)
        ]
