"""A schema registry in the test's process: the requests of confluent-kafka's client, and ways to fail."""

import json
import re
import time
import uuid
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import SecretStr

from consumer.config.settings import SchemaSettings

Answer = tuple[int, Any]
GLOBAL = 100


class SchemaRegistry:
    """`down`: connections close without an answer. `slow`: seconds before each answer. `status`: of all answers.

    `no_descriptors`: the status of answers to `format=serialized`. `guids`: whether it knows them. Under
    `/apis/ccompat/v7` it is also an Apicurio, whose global ids are the schemas' ids and `GLOBAL`.
    """

    def __init__(self, user: str = "", password: str = "") -> None:
        self.schemas: list[dict[str, Any]] = []
        self.subjects: dict[str, list[int]] = {}
        self.texts: dict[str, str] = {}
        self.asked: list[str] = []  # paths of GET requests
        self.down = False
        self.slow = 0.0
        self.status = self.no_descriptors = 0
        self.guids = True
        self._authorization = "Basic " + b64encode(f"{user}:{password}".encode()).decode() if user else ""
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
                status, answer = registry.answer(self.path, body, self.headers.get("authorization", ""))
                text = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                """Log nothing, to keep the test's output clean."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def settings(self, **more: Any) -> SchemaSettings:
        """The settings of a client that uses it."""
        if isinstance(password := more.pop("password", None), str):
            more["password"] = SecretStr(password)
        return SchemaSettings(**{"url": self.url, **more})

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, subject: str, schema: str, kind: str = "AVRO", references: Any = (), text: str | None = None) -> int:
        """Register a version of a subject. Returns the schema's id. `text`: its form without `format=serialized`."""
        entry = {"schema": schema, "schemaType": kind, "references": list(references)}
        if text is not None:
            self.texts[schema] = text
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
        path, query = unquote(parts.path).removeprefix("/apis/ccompat/v7"), parse_qs(parts.query)
        if authorization != self._authorization and self._authorization:
            return 401, {"error_code": 401, "message": "Unauthorized"}
        if self.status:
            return self.status, "<html>no registry</html>" if self.status == 404 else {"message": "not today"}
        if found := re.fullmatch("/subjects/([^/]+)(/versions)?", path):
            number = self.add(found[1], body["schema"], body.get("schemaType", "AVRO"), body.get("references", ()))
            return 200, self._registered(found[1], number, "serialized")
        form = query.get("format", [""])[0]
        if form and self.no_descriptors:
            return self.no_descriptors, {"error_code": 0, "message": "no descriptors"}
        if path == "/apis/registry/v3/search/versions":
            number = int(query["globalId"][0]) - GLOBAL
            known = [{"globalId": 3, "contentId": 1}, {"globalId": number + GLOBAL, "contentId": number}]
            return 200, {"versions": known if 0 < number <= len(self.schemas) else known[:1]}
        if path == "/subjects":
            return 200, list(self.subjects)
        if found := re.fullmatch("/schemas/ids/([0-9]+)", path):
            return self._schema(int(found[1]), form)
        if self.guids and (found := re.fullmatch("/schemas/guids/(.+)", path)):
            guids = [self.guid(number + 1) for number in range(len(self.schemas))]
            return self._schema(guids.index(found[1]) + 1 if found[1] in guids else 0, form)
        if found := re.fullmatch("/subjects/([^/]+)/versions/([0-9]+|latest)", path):
            latest = len(self.subjects.get(found[1], ()))
            return self._version(found[1], latest if found[2] == "latest" else int(found[2]), form)
        return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}

    def _schema(self, number: int, form: str) -> Answer:
        if not 0 < number <= len(self.schemas):
            return 404, {"error_code": 40403, "message": "Schema not found"}
        return 200, {**self._formed(number, form), "guid": self.guid(number)}

    def _version(self, subject: str, version: int, form: str) -> Answer:
        versions = self.subjects.get(subject, [])
        if not versions:
            return 404, {"error_code": 40401, "message": f"Subject '{subject}' not found."}
        if not 0 < version <= len(versions):
            return 404, {"error_code": 40402, "message": f"Version {version} not found."}
        return 200, self._registered(subject, versions[version - 1], form)

    def _registered(self, subject: str, number: int, form: str) -> dict[str, Any]:
        version = self.subjects[subject].index(number) + 1
        place = {"id": number, "guid": self.guid(number), "subject": subject, "version": version}
        return {**place, **self._formed(number, form)}

    def _formed(self, number: int, form: str) -> dict[str, Any]:
        entry = self.schemas[number - 1]
        return entry if form == "serialized" else {**entry, "schema": self.texts.get(entry["schema"], entry["schema"])}


@contextmanager
def schema_registry(user: str = "", password: str = "") -> Iterator[SchemaRegistry]:
    """A registry that is closed in the end."""
    registry = SchemaRegistry(user, password)
    try:
        yield registry
    finally:
        registry.close()
