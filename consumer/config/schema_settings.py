"""Settings of the schema registry. settings.py lists them with the others."""

from typing import Self

from pydantic import model_validator

from consumer.config.group import Group, installed, setting
from consumer.config.types import RegistryUrl, Token

_PACKAGES = ("attr", "authlib", "cachetools", "fastavro", "google.protobuf", "google.type", "grpc_tools")
_CLIENTS = ("httpx2", "httpx")  # confluent-kafka takes either


class SchemaSettings(Group):
    """The registry of the schemas of Avro, Protobuf and JSON Schema records."""

    url: RegistryUrl | None = setting(
        "SCHEMA_REGISTRY_URL",
        None,
        "Schema registry, or several, comma-separated; if set, records in Confluent's wire format are "
        "decoded to JSON. Needs the extra `schemas`.",
        "https://schema-registry:8081",
    )
    user: str | None = setting(
        "SCHEMA_REGISTRY_USER", None, "User, or API key, for basic authentication at the registry.", "webhooks"
    )
    password: Token | None = setting(
        "SCHEMA_REGISTRY_PASSWORD", None, "Password, or API secret, of that user.", "the-password-of-that-user"
    )
    ca_file: str | None = setting(
        "SCHEMA_REGISTRY_CA_FILE",
        None,
        "Certificates (PEM) of the authorities that the registry's certificate may be from, instead of the "
        "public ones.",
        "/etc/ssl/company-ca.pem",
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.url is None:
            return self
        if (self.user is None) != (self.password is None):
            given, missing = ("USER", "PASSWORD") if self.password is None else ("PASSWORD", "USER")
            raise ValueError(f"SCHEMA_REGISTRY_{given} is set without SCHEMA_REGISTRY_{missing}. Set both, or neither")
        if not (installed(*_PACKAGES) and any(map(installed, _CLIENTS))):
            raise ValueError(
                "SCHEMA_REGISTRY_URL is set, but the packages that read schemas are not installed. "
                'Install them (pip install "kafka-webhooks[schemas]"), or unset SCHEMA_REGISTRY_URL'
            )
        return self
