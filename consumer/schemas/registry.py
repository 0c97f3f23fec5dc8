"""Asks the schema registry, with confluent-kafka's client. Blocking; the only module that imports that client."""

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import urlsplit

import orjson
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from consumer.config.settings import SchemaSettings
from consumer.errors import NotAuthorized, RegistryUnavailable, SettingsError, Undecodable
from consumer.schemas.avro import avro_decoder
from consumer.schemas.protobuf import protobuf_decoder
from consumer.schemas.registry_access import AccessTokens, authorization, client_certificate, token_key
from consumer.schemas.wire_format import Decode, Framed, SchemaId

NOT_FOUND = 404
NO_SUBJECT, NO_VERSION, NO_SCHEMA = 40401, 40402, 40403  # error codes of the registry; a proxy's 404 has none
_REFUSED = (401, 403)
_MOST_REFERENCES = 500  # schemas that one schema refers to, directly or not
_NO_ID = 2**31 - 1  # a valid id that no registry has given out yet
_TEXT_LENGTH = 200
TIMEOUT = 5.0  # seconds to connect, and for each wait: the partition is held meanwhile, and the look-up is repeated

T = TypeVar("T")


class Registry:
    """The schemas of a registry. Several threads may ask at once."""

    def __init__(self, settings: SchemaSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """SettingsError: a file of certificates or of a key cannot be used."""
        url = settings.url or ""
        hosts = [urlsplit(each.strip()).netloc for each in url.split(",")]
        self._place = f"schema registry at {', '.join(hosts)}"
        config: dict[str, object] = {"url": url, "timeout": TIMEOUT, "max.retries": 0}
        config |= client_certificate(settings)
        if settings.ca_file is not None:
            config["ssl.ca.location"] = settings.ca_file
        try:
            key = token_key(settings)
            self._tokens = None if key is None else AccessTokens(key, TIMEOUT, clock)
            self._client = SchemaRegistryClient(config | authorization(settings, self._tokens))
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"SCHEMA_REGISTRY_CA_FILE: {settings.ca_file} cannot be used: {error}") from None
        kinds = {"BEARER_TOKEN": settings.bearer_token, "CLIENT_ID, SCHEMA_REGISTRY_SCOPE": settings.token_url}
        self._checked = next((each for each, given in kinds.items() if given), "USER, SCHEMA_REGISTRY_PASSWORD")

    def decoder(self, schema_id: SchemaId) -> Decode:
        """The function that makes JSON of payloads of a schema.

        Undecodable: unknown_schema, bad_schema. RegistryUnavailable: ask again.
        """
        schema = self._get(schema_id)
        kind = schema.schema_type or "AVRO"
        if kind == "JSON":
            return _as_it_is
        if kind not in {"AVRO", "PROTOBUF"}:
            raise Undecodable("bad_schema", f"schema {schema_id} is of the type {kind[:_TEXT_LENGTH]!r}")
        texts = [(name, each.schema_str or "") for name, each in self._references(schema_id, schema, set())]
        text = schema.schema_str or ""
        try:
            if kind == "PROTOBUF":
                return protobuf_decoder(text, texts)
            return avro_decoder(orjson.loads(text), [orjson.loads(each) for _, each in texts])
        except Exception as error:  # noqa: BLE001 (a wrong schema may cause any error of its library)
            why = " ".join(f"{type(error).__name__}: {error}"[:_TEXT_LENGTH].split())
            raise Undecodable("bad_schema", f"schema {schema_id} cannot be used: {why}") from None

    def ping(self) -> str:
        """Request a schema that does not exist, as workers request schemas. Returns a line that names the registry.

        RegistryUnavailable: a worker's requests would fail.
        """
        with suppress(Undecodable):  # an answer: there is no such schema
            self._get(_NO_ID)
        return f"{self._place} answers"

    def close(self) -> None:
        """Close the connections."""
        if (close := getattr(self._client, "close", None)) is not None:  # since 2.16
            close()

    def _get(self, schema_id: int | str) -> Schema:
        if isinstance(schema_id, str):
            return self._ask(schema_id, lambda: self._client.get_schema_by_guid(schema_id))
        return self._ask(schema_id, lambda: self._client.get_schema(schema_id))

    def _references(self, schema_id: SchemaId, schema: Schema, seen: set[str]) -> Iterator[tuple[str, Schema]]:
        """The schemas that a schema refers to, with the names that it gives them; each after its own references."""
        for reference in schema.references or ():
            name = reference.name or ""
            if name in seen:
                continue
            seen.add(name)
            if len(seen) > _MOST_REFERENCES:
                raise Undecodable("bad_schema", f"schema {schema_id} refers to more than {_MOST_REFERENCES} others")
            get = partial(self._client.get_version, reference.subject or "", reference.version or 1, True)
            found = self._ask(schema_id, get).schema
            yield from self._references(schema_id, found, seen)
            yield name, found

    def _ask(self, schema_id: SchemaId, question: Callable[[], T]) -> T:
        try:
            return self._renewing(question)
        except SchemaRegistryError as error:
            raise self._meant(schema_id, error) from None
        except NotAuthorized as error:
            raise RegistryUnavailable(
                f"{self._place} cannot be asked: {error}; check SCHEMA_REGISTRY_TOKEN_URL, SCHEMA_REGISTRY_CLIENT_ID, "
                "SCHEMA_REGISTRY_CLIENT_SECRET"
            ) from None
        except Exception as error:  # noqa: BLE001 (the errors of the client and its HTTP library are not documented)
            raise RegistryUnavailable(f"{self._place} does not answer: {self._reason(error)}") from None

    def _renewing(self, question: Callable[[], T]) -> T:
        """The answer; a 401 may be the fault of an old access token, so one more request has a new token."""
        try:
            return question()
        except SchemaRegistryError as error:
            if self._tokens is None or error.http_status_code != HTTPStatus.UNAUTHORIZED:
                raise
            self._tokens.refused()
            return question()

    def _meant(self, schema_id: SchemaId, error: SchemaRegistryError) -> Undecodable | RegistryUnavailable:
        status, code = error.http_status_code, error.error_code
        if code == NO_SCHEMA:
            return Undecodable("unknown_schema", f"the {self._place} has no schema {schema_id}")
        if code in {NO_SUBJECT, NO_VERSION}:
            return Undecodable("bad_schema", f"schema {schema_id} refers to one that is gone: {_line(error)}")
        answer = f"{self._place} answers {status}"
        if status in _REFUSED:
            return RegistryUnavailable(
                f"{answer}: check SCHEMA_REGISTRY_{self._checked}, and that this user may read schemas"
            )
        if status == NOT_FOUND:
            if not isinstance(schema_id, int):
                self.ping()  # whether it is a registry, though one that does not know such ids
                return Undecodable(
                    "unknown_schema",
                    f"the record names the schema {schema_id}, and the {self._place} does not know such ids: let its "
                    "producer write the schema's id (Apicurio's: use-id=contentId)",
                )
            return RegistryUnavailable(f"{answer}: SCHEMA_REGISTRY_URL leads to no registry")
        return RegistryUnavailable(f"{answer}: {_line(error)}")

    def _reason(self, error: Exception) -> str:
        text = f"{type(error).__name__}: {error}"[:_TEXT_LENGTH]
        advice = "SCHEMA_REGISTRY_CA_FILE" if "CERTIFICATE" in text.upper() else "SCHEMA_REGISTRY_URL"
        if " ALERT " in text.upper().replace("_", " "):  # the registry's own refusal
            advice = "SCHEMA_REGISTRY_CERTIFICATE_FILE"
        return f"{' '.join(text.split())}; check {advice}"


def _as_it_is(framed: Framed) -> bytes:
    return framed.payload


def _line(error: SchemaRegistryError) -> str:
    return " ".join(str(error.error_message)[:_TEXT_LENGTH].split())
