"""The certificate authorities that this process trusts for connections other than to Kafka's brokers."""

import os
from collections.abc import Mapping

import certifi


def ca_file(environment: Mapping[str, str] = os.environ) -> str:
    """The certificate authorities to trust: SSL_CERT_FILE or REQUESTS_CA_BUNDLE if set, else certifi's."""
    return environment.get("SSL_CERT_FILE") or environment.get("REQUESTS_CA_BUNDLE") or certifi.where()
