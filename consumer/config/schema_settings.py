"""Settings of the schema registry and of the credentials that it takes. settings.py lists them with the others."""

from typing import Self

from pydantic import SecretStr, model_validator

from consumer.config.group import Group, installed, setting
from consumer.config.types import HeaderValue, RegistryUrl, Token, TokenUrl

_PACKAGES = ("attr", "authlib", "cachetools", "fastavro", "google.protobuf", "google.type", "grpc_tools")
_CLIENTS = ("httpx2", "httpx")  # confluent-kafka takes either
_TOKENS = ("bearer_token", "token_url")
_NEEDS = {  # fields that are of no use without one of these
    "user": ("password",),
    "password": ("user",),
    "token_url": ("client_id",),
    "client_id": ("client_secret",),
    "client_secret": ("token_url",),
    "scope": ("token_url",),
    "logical_cluster": _TOKENS,
    "identity_pool_id": _TOKENS,
    "key_file": ("certificate_file",),
    "key_password": ("certificate_file",),
}


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
    bearer_token: Token | None = setting(
        "SCHEMA_REGISTRY_BEARER_TOKEN", None, "Bearer token for the registry.", "the-token-of-this-service"
    )
    token_url: TokenUrl | None = setting(
        "SCHEMA_REGISTRY_TOKEN_URL", None, "OAuth 2.0 token server for the registry.", "https://id.example.com/token"
    )
    client_id: str | None = setting("SCHEMA_REGISTRY_CLIENT_ID", None, "Client at the token server.", "webhooks")
    client_secret: SecretStr | None = setting(
        "SCHEMA_REGISTRY_CLIENT_SECRET", None, "Secret of that client.", "the-secret-of-that-client"
    )
    scope: str | None = setting("SCHEMA_REGISTRY_SCOPE", None, "Scope of the tokens, if the server wants one.", "read")
    logical_cluster: HeaderValue | None = setting(
        "SCHEMA_REGISTRY_LOGICAL_CLUSTER",
        None,
        "Confluent Cloud's id of the registry, sent with tokens.",
        "lsrc-abc123",
    )
    identity_pool_id: HeaderValue | None = setting(
        "SCHEMA_REGISTRY_IDENTITY_POOL_ID", None, "Confluent Cloud's identity pool, sent with tokens.", "pool-abc1"
    )
    certificate_file: str | None = setting(
        "SCHEMA_REGISTRY_CERTIFICATE_FILE", None, "Client certificate for the registry (PEM).", "/etc/ssl/client.pem"
    )
    key_file: str | None = setting(
        "SCHEMA_REGISTRY_KEY_FILE", None, "Its key (PEM); none: the same file has the key.", "/etc/ssl/client.key"
    )
    key_password: SecretStr | None = setting(
        "SCHEMA_REGISTRY_KEY_PASSWORD", None, "Password of that key, if it is encrypted.", "the-password-of-that-key"
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
        for given, others in _NEEDS.items():
            if self._has(given) and not any(map(self._has, others)):
                missing = " or ".join(map(_name, others))
                raise ValueError(f"{_name(given)} is set without {missing}. Set both, or neither")
        if len(found := [_name(each) for each in ("user", *_TOKENS) if self._has(each)]) > 1:
            raise ValueError(f"{' and '.join(found)} are set, and a request carries one of them. Unset the others")
        if not (installed(*_PACKAGES) and any(map(installed, _CLIENTS))):
            raise ValueError(
                "SCHEMA_REGISTRY_URL is set, but the packages that read schemas are not installed. "
                'Install them (in the checkout: pip install ".[schemas]"), or unset SCHEMA_REGISTRY_URL'
            )
        return self

    def _has(self, field: str) -> bool:
        return getattr(self, field) is not None


def _name(field: str) -> str:
    return f"SCHEMA_REGISTRY_{field.upper()}"
