"""A secured Kafka, the settings of its users, and the rights of docs/kafka-security.md."""

import os
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import NamedTuple

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # not said to be exported
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from tests.docs.documentation import BLOCKS
from tests.processes import ROOT
from tests.secure_broker import Certificates, SecureBroker
from tests.token_server import Tokens, token_server

PAGE = "docs/kafka-security.md"
USERS = ("webhooks", "webhooks-api", "webhooks-cli")
PASSWORD = "secret-of-the-broker"
AGAIN_AFTER = 2.0  # seconds
_ALLOW = AclPermissionType.ALLOW
# As a signer of a cloud provider: a token, and its end.
_SIGNER = """\
import json, ssl, time, urllib.parse, urllib.request

def token(config):
    context = ssl.create_default_context(cafile={0!r})
    form = urllib.parse.urlencode(dict(client_id={2!r}, client_secret={3!r})).encode()
    with urllib.request.urlopen({1!r}, form, 5, context=context) as answer:
        found = json.load(answer)
    return found["access_token"], time.time() + found["expires_in"]
"""


class SecureKafka(NamedTuple):
    """A broker that authenticates clients, and their credentials."""

    broker: SecureBroker
    certificates: Certificates
    tokens: Tokens

    def settings(self, way: str, user: str = "webhooks") -> dict[str, str]:
        """The variables with which `user` connects.

        `way` is a mechanism, `SSL` for a client certificate, or `callback` for tokens of a function.
        """
        trust = {"KAFKA_SSL_CA_LOCATION": str(self.certificates.authority)}
        protocol = {"PLAIN": "SASL_PLAINTEXT", "SSL": "SSL"}.get(way, "SASL_SSL")
        common = {"KAFKA_BOOTSTRAP_SERVERS": self.broker.address(protocol), "KAFKA_SECURITY_PROTOCOL": protocol}
        if way == "SSL":
            key, certificate = self.certificates.client(user)
            files = {"KAFKA_SSL_CERTIFICATE_LOCATION": str(certificate), "KAFKA_SSL_KEY_LOCATION": str(key)}
            return common | trust | files
        if way == "callback":
            folder = self.certificates.authority.parent
            server = f"https://127.0.0.1:{self.tokens.port}/token"
            (folder / "signer.py").write_text(_SIGNER.format(str(self.certificates.authority), server, user, PASSWORD))
            found = {"KAFKA_OAUTH_CALLBACK": "signer:token", "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
            return common | trust | found | {"KAFKA_SASL_MECHANISMS": "OAUTHBEARER"}
        common["KAFKA_SASL_MECHANISMS"] = way
        if way != "OAUTHBEARER":
            password = {"KAFKA_SASL_USERNAME": user, "KAFKA_SASL_PASSWORD": PASSWORD}
            return common | password | ({} if way == "PLAIN" else trust)
        return {
            **common,
            **trust,
            "KAFKA_SASL_OAUTHBEARER_METHOD": "oidc",
            "KAFKA_SASL_OAUTHBEARER_CLIENT_ID": user,
            "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET": PASSWORD,
            "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL": f"https://127.0.0.1:{self.tokens.port}/token",
            "KAFKA_HTTPS_CA_LOCATION": str(self.certificates.authority),
        }


@contextmanager
def secure_kafka() -> Iterator[SecureKafka]:
    """Starts a secured broker. Raises NotProvided if that fails."""
    with tempfile.TemporaryDirectory(prefix="kafka-security-") as directory:
        certificates, passwords = Certificates(Path(directory)), dict.fromkeys(USERS, PASSWORD)
        with (
            token_server(passwords, certificates.server_tls()) as tokens,
            SecureBroker(certificates, passwords, AGAIN_AFTER) as broker,
        ):
            broker.scram("webhooks", PASSWORD)
            yield SecureKafka(broker, certificates, tokens)


def documented(user: str, names: Mapping[str, str]) -> list[AclBinding]:
    """The ACLs that the page's commands give a user; `names` has the test's name for each of the page's."""
    return [
        AclBinding(acl.restype, names[acl.name], acl.resource_pattern_type, acl.principal, "*", acl.operation, _ALLOW)
        for acl in _ACLS
        if acl.principal == f"User:{user}" and acl.name in names
    ]


def _acls() -> Iterator[AclBinding]:
    for page, info, text in BLOCKS:
        for line in text.replace("\\\n", " ").splitlines() if (page, info) == (PAGE, "sh") else ():
            if line.startswith("kafka-acls.sh "):
                yield from _given(line)


def _given(line: str) -> Iterator[AclBinding]:
    words = shlex.split(line)
    options = list(zip(words, [*words[1:], ""], strict=True))
    assert "--add" in words, line
    by_name = {name: value for name, value in options if name.startswith("--")}
    pattern = by_name.get("--resource-pattern-type", "literal")
    operations = [value for name, value in options if name == "--operation"]
    for operation, (kind, name) in product(operations, options):
        if kind in {"--topic", "--group"}:
            yield AclBinding(
                ResourceType[kind[2:].upper()],
                name,
                ResourcePatternType[pattern.upper()],
                by_name["--allow-principal"],
                "*",
                AclOperation[re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation).upper()],
                _ALLOW,
            )


_ACLS = list(_acls())
