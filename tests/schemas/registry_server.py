"""A schema registry in the test's process: the requests of confluent-kafka's client, and ways to fail."""

import json
import re
import ssl
import time
import uuid
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from consumer.config.settings import SchemaSettings

Answer = tuple[int, Any]


class SchemaRegistry:
    """`down`: connections close without an answer. `slow`: seconds before each answer. `status`: of all answers.

    `guids`: whether it knows them. `authorization`: the header that requests must have, if any. `tls`: it is reached by
    https.
    """

    def __init__(self, user: str = "", password: str = "", tls: ssl.SSLContext | None = None) -> None:
        self.schemas: list[dict[str, Any]] = []
        self.subjects: dict[str, list[int]] = {}
        self.asked: list[str] = []  # paths of GET requests
        self.down = False
        self.slow = 0.0
        self.status = 0
        self.guids = True
        self.headers: dict[str, str] = {}  # of the last request; names in lower case
        self.answer_headers: dict[str, str] = {}
        self.authorization = "Basic " + b64encode(f"{user}:{password}".encode()).decode() if user else ""
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                registry.asked.append(self.path)
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

            def _answer(self, body: Any) -> None:
                if registry.slow:
                    time.sleep(registry.slow)
                if registry.down:
                    self.close_connection = True
                    return
                registry.headers = {name.lower(): value for name, value in self.headers.items()}
                status, answer = registry.answer(self.path, body, self.headers.get("authorization", ""))
                text = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {"content-length": str(len(text)), **registry.answer_headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                """Log nothing, to keep the test's output clean."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_port}"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def settings(self, **more: Any) -> SchemaSettings:
        """The settings of a client that uses it."""
        for name in {"password", "bearer_token", "client_secret", "key_password"} & more.keys():
            more[name] = SecretStr(more[name])
        return SchemaSettings(**{"url": self.url, **more})

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, subject: str, schema: str, kind: str = "AVRO", references: Any = ()) -> int:
        """Register a version of a subject. Returns the schema's id."""
        entry = {"schema": schema, "schemaType": kind, "references": list(references)}
        if entry not in self.schemas:
            self.schemas.append(entry)
        number = self.schemas.index(entry) + 1
        versions = self.subjects.setdefault(subject, [])
        if number not in versions:
            versions.append(number)
        return number

    def guid(self, number: int) -> str:
        """The GUID of the schema with this id."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.url}/{number}"))

    def answer(self, target: str, body: Any, authorization: str) -> Answer:  # noqa: PLR0911 (one for each path)
        """The registry's answer to a request."""
        parts = urlsplit(target)
        path = unquote(parts.path)
        if authorization != self.authorization and self.authorization:
            return 401, {"error_code": 401, "message": "Unauthorized"}
        if self.status:
            return self.status, "<html>no registry</html>" if self.status == 404 else {"message": "not today"}
        if found := re.fullmatch("/subjects/([^/]+)(/versions)?", path):
            number = self.add(found[1], body["schema"], body.get("schemaType", "AVRO"), body.get("references", ()))
            return 200, self._registered(found[1], number)
        if found := re.fullmatch("/schemas/ids/([0-9]+)", path):
            return self._schema(int(found[1]))
        if self.guids and (found := re.fullmatch("/schemas/guids/(.+)", path)):
            guids = [self.guid(number + 1) for number in range(len(self.schemas))]
            return self._schema(guids.index(found[1]) + 1 if found[1] in guids else 0)
        if found := re.fullmatch("/subjects/([^/]+)/versions/([0-9]+)", path):
            return self._version(found[1], int(found[2]))
        return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}

    def _schema(self, number: int) -> Answer:
        if not 0 < number <= len(self.schemas):
            return 404, {"error_code": 40403, "message": "Schema not found"}
        return 200, {**self.schemas[number - 1], "guid": self.guid(number)}

    def _version(self, subject: str, version: int) -> Answer:
        versions = self.subjects.get(subject, [])
        if not versions:
            return 404, {"error_code": 40401, "message": f"Subject '{subject}' not found."}
        if not 0 < version <= len(versions):
            return 404, {"error_code": 40402, "message": f"Version {version} not found."}
        return 200, self._registered(subject, versions[version - 1])

    def _registered(self, subject: str, number: int) -> dict[str, Any]:
        version = self.subjects[subject].index(number) + 1
        place = {"id": number, "guid": self.guid(number), "subject": subject, "version": version}
        return {**place, **self.schemas[number - 1]}


@contextmanager
def schema_registry(user: str = "", password: str = "", tls: ssl.SSLContext | None = None) -> Iterator[SchemaRegistry]:
    """A registry that is closed in the end."""
    registry = SchemaRegistry(user, password, tls)
    try:
        yield registry
    finally:
        registry.close()
