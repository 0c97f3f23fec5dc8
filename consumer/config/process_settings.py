"""Settings of the processes themselves: their ports, log and traces. settings.py lists them with the others."""

from typing import Self

from pydantic import model_validator

from consumer.config.group import Group, installed, setting
from consumer.config.types import HttpUrl, LogLevel, Port, Token, is_loopback

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 (probes, and requests that carry the token, come from outside)
OTLP_EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class OpsSettings(Group):
    """The worker's own port, for metrics and probes."""

    ops_host: str = setting("OPS_HOST", ANY_ADDRESS, "Address of /metrics, /healthz and /readyz.", "127.0.0.1")
    ops_port: Port = setting("OPS_PORT", 9464, "Port of /metrics, /healthz and /readyz; 0: off.")


class TraceSettings(Group):
    """Whether and where traces are sent. OpenTelemetry reads its other variables itself."""

    endpoint: HttpUrl | None = setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        None,
        "OpenTelemetry collector; if set, workers send traces there by OTLP over HTTP. Needs the extra `otel`.",
        "http://collector:4318",
        repr=False,
    )
    disabled: bool = setting("OTEL_SDK_DISABLED", False, "No traces, even if there is a collector.", "true")

    @property
    def enabled(self) -> bool:
        """Traces are sent."""
        return self.endpoint is not None and not self.disabled

    @model_validator(mode="after")
    def _can_be_sent(self) -> Self:
        if self.enabled and not installed("opentelemetry.sdk.trace", OTLP_EXPORTER):
            raise ValueError(
                "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed. "
                'Install it (in the checkout: pip install ".[otel]"), or set OTEL_SDK_DISABLED=true'
            )
        return self


class SearchSettings(Group):
    """What `find`, the API and the console search the log for."""

    search_fields: str | None = setting(
        "WEBHOOK_SEARCH_FIELDS",
        None,
        "CEL expressions over an event, separated by `;`: business ids by which it is found in the log. None: any text "
        "in its value.",
        "data.order_id; data.customer.id",
    )


class ApiSettings(Group):
    """The admin HTTP API."""

    api_host: str | None = setting(
        "API_HOST", None, "Address to bind; by default 127.0.0.1, or 0.0.0.0 if there is a token.", "127.0.0.1"
    )
    api_port: Port = setting("API_PORT", 8080, "Port to bind.")
    api_token: Token | None = setting(
        "API_TOKEN",
        None,
        "Bearer token that requests must carry. Without one the API binds loopback only.",
        "a-long-random-string",
    )
    api_tokens_file: str | None = setting(
        "API_TOKENS_FILE",
        None,
        "File of hashed tokens, each with its scopes; read again when it changes.",
        "/run/secrets/api-tokens.toml",
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


class LogSettings(Group):
    """The level of the log."""

    log_level: LogLevel = setting("LOG_LEVEL", "INFO", "Lowest level to log; DEBUG logs each success too.")
