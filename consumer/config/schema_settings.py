"""Settings of the schema registry. settings.py lists them with the others."""

from importlib.util import find_spec
from typing import Self

from pydantic import Field, model_validator

from consumer.config.group import Group, file_of
from consumer.config.types import Duration, RegistryUrl, Token

_PACKAGES = ("attr", "authlib", "cachetools", "fastavro", "google.protobuf", "google.type", "grpc_tools")
_CLIENTS = ("httpx2", "httpx")  # confluent-kafka takes either


class SchemaSettings(Group):
    """The registry of the schemas of Avro, Protobuf and JSON Schema records."""

    url: RegistryUrl | None = Field(
        default=None,
        validation_alias="SCHEMA_REGISTRY_URL",
        description="Schema registry, or several, comma-separated; if set, records in Confluent's wire format are "
        "decoded to JSON. Needs the extra `schemas`.",
        examples=["https://schema-registry:8081"],
    )
    user: str | None = Field(
        default=None,
        validation_alias="SCHEMA_REGISTRY_USER",
        description="User, or API key, for basic authentication at the registry.",
        examples=["webhooks"],
    )
    password: Token | None = Field(
        default=None,
        validation_alias="SCHEMA_REGISTRY_PASSWORD",
        description="Password, or API secret, of that user.",
        examples=["the-password-of-that-user"],
    )
    password_file: str | None = file_of("SCHEMA_REGISTRY_PASSWORD")
    ca_file: str | None = Field(
        default=None,
        validation_alias="SCHEMA_REGISTRY_CA_FILE",
        description="Certificates (PEM) of the authorities that the registry's certificate may be from, instead of "
        "the public ones.",
        examples=["/etc/ssl/company-ca.pem"],
    )
    timeout: Duration = Field(
        default=5.0,
        validation_alias="SCHEMA_REGISTRY_TIMEOUT",
        gt=0,
        le=60,
        description="Time limit of connecting to the registry, and of each wait for its answer.",
        examples=["5s"],
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.url is None:
            return self
        if (self.user is None) != (self.password is None):
            given, missing = ("USER", "PASSWORD") if self.password is None else ("PASSWORD", "USER")
            raise ValueError(f"SCHEMA_REGISTRY_{given} is set without SCHEMA_REGISTRY_{missing}. Set both, or neither")
        if not all(map(_has, _PACKAGES)) or not any(map(_has, _CLIENTS)):
            raise ValueError(
                "SCHEMA_REGISTRY_URL is set, but the packages that read schemas are not installed. "
                'Install them (pip install "kafka-webhooks[schemas]"), or unset SCHEMA_REGISTRY_URL'
            )
        return self


def _has(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ModuleNotFoundError, ValueError):  # not even the package around it; or it is switched off
        return False
