"""Settings of the processes themselves: their ports, log and traces. settings.py lists them with the others."""

from importlib.util import find_spec
from typing import Self

from pydantic import Field, model_validator

from consumer.config.group import Group, file_of
from consumer.config.types import HttpUrl, LogLevel, OtlpProtocol, Port, Token, TracesExporter, is_loopback

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 (probes, and requests that carry the token, come from outside)
OTLP_EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class OpsSettings(Group):
    """The worker's own port, for metrics and probes."""

    ops_host: str = Field(
        default=ANY_ADDRESS,
        validation_alias="OPS_HOST",
        description="Address of /metrics, /healthz and /readyz.",
        examples=["127.0.0.1"],
    )
    ops_port: Port = Field(
        default=9464,
        validation_alias="OPS_PORT",
        description="Port of /metrics, /healthz and /readyz; 0: off.",
        examples=["9464"],
    )


class LogSettings(Group):
    """The level of the log."""

    log_level: LogLevel = Field(
        default="INFO",
        validation_alias="LOG_LEVEL",
        description="Lowest level to log; DEBUG logs each success too.",
        examples=["INFO"],
    )


class TraceSettings(Group):
    """Whether and where traces are sent. OpenTelemetry reads its other variables itself."""

    endpoint: HttpUrl | None = Field(
        default=None,
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        repr=False,
        description="OpenTelemetry collector; if set, workers send traces there by OTLP over HTTP. Needs the extra "
        "`otel`.",
        examples=["http://collector:4318"],
    )
    protocol: OtlpProtocol = Field(
        default="http/protobuf",
        validation_alias="OTEL_EXPORTER_OTLP_PROTOCOL",
        description="Protocol of the collector; no other one is supported.",
        examples=["http/protobuf"],
    )
    exporter: TracesExporter = Field(
        default="otlp",
        validation_alias="OTEL_TRACES_EXPORTER",
        description="`none`: no traces, even if there is a collector.",
        examples=["none"],
    )
    disabled: bool = Field(
        default=False,
        validation_alias="OTEL_SDK_DISABLED",
        description="No traces, even if there is a collector.",
        examples=["true"],
    )

    @property
    def enabled(self) -> bool:
        """Traces are sent."""
        return self.endpoint is not None and self.exporter == "otlp" and not self.disabled

    @model_validator(mode="after")
    def _installed(self) -> Self:
        if self.enabled and not _has_opentelemetry():
            raise ValueError(
                "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed. "
                'Install it (pip install "kafka-webhooks[otel]"), or set OTEL_TRACES_EXPORTER=none'
            )
        return self


def _has_opentelemetry() -> bool:
    try:
        return find_spec("opentelemetry.sdk.trace") is not None and find_spec(OTLP_EXPORTER) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False


class ApiSettings(Group):
    """The admin HTTP API."""

    api_host: str | None = Field(
        default=None,
        validation_alias="API_HOST",
        description="Address to bind; by default 127.0.0.1, or 0.0.0.0 if there is a token.",
        examples=["127.0.0.1"],
    )
    api_port: Port = Field(default=8080, validation_alias="API_PORT", description="Port to bind.", examples=["8080"])
    api_token: Token | None = Field(
        default=None,
        validation_alias="API_TOKEN",
        description="Bearer token that requests must carry. Without one the API binds loopback only.",
        examples=["a-long-random-string"],
    )
    api_token_file: str | None = file_of("API_TOKEN")
    api_tokens_file: str | None = Field(
        default=None,
        validation_alias="API_TOKENS_FILE",
        description="File of hashed tokens, each with its scopes; read again when it changes.",
        examples=["/run/secrets/api-tokens.toml"],
    )

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if not self.needs_token and self.api_host and not is_loopback(self.api_host):
            raise ValueError(
                f"API_TOKEN is not set, and API_HOST={self.api_host} can be reached from outside. "
                "Set API_TOKEN to a long random string, or API_HOST=127.0.0.1"
            )
        return self

    @property
    def bind_host(self) -> str:
        """The address to listen on."""
        return self.api_host or (ANY_ADDRESS if self.needs_token else "127.0.0.1")

    @property
    def needs_token(self) -> bool:
        """Whether requests must carry a token."""
        return self.api_token is not None or self.api_tokens_file is not None
