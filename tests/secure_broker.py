"""A real Kafka that authenticates its clients and authorizes them by ACLs, for tests.

Its listeners: PLAINTEXT, where the test is the super user; SASL_PLAINTEXT with PLAIN and SCRAM; SASL_SSL with PLAIN,
SCRAM and OAUTHBEARER; SSL with client certificates. On each, a client is the principal `User:` and its name.
"""

import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path

import trustme
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # not said to be exported
    AclBinding,
    AclBindingFilter,
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives import serialization

from tests.kafka_broker import KafkaBroker
from tests.kafka_kit import QUIET
from tests.processes import free_ports

_OAUTH = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;"
_LISTENERS = ("SASL_PLAINTEXT", "SASL_SSL", "SSL")


class Certificates:
    """PEM files of an authority, of the broker and of clients, in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = trustme.CA()
        self.authority = self._written("authority", self._authority.cert_pem.bytes())
        self.broker_key, self.broker = self._issued("broker", self._authority.issue_cert("127.0.0.1", "localhost"))

    def client(self, name: str) -> tuple[Path, Path]:
        """The key and the certificate of a client whose common name is `name`."""
        return self._issued(name, self._authority.issue_cert(f"{name}@example.com", common_name=name))

    def stranger(self) -> Path:
        """An authority that has not signed any of these."""
        return self._written("stranger", trustme.CA().cert_pem.bytes())

    def server_tls(self) -> ssl.SSLContext:
        """The TLS context of another server on loopback."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
        return context

    def _issued(self, name: str, certificate: trustme.LeafCert) -> tuple[Path, Path]:
        # Kafka reads only PKCS #8.
        key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        chain = b"".join(each.bytes() for each in certificate.cert_chain_pems)
        return self._written(f"{name}-key", key), self._written(name, chain)

    def _written(self, name: str, content: bytes) -> Path:
        path = self._directory / f"{name}.pem"
        path.write_bytes(content)
        return path


class SecureBroker(KafkaBroker):
    """One broker, with no ACLs. PLAIN knows the users of `passwords`; `scram` sets a user's SCRAM password.

    A client with a password must authenticate again every `again_after` seconds, one with a token when it expires.
    """

    def __init__(self, certificates: Certificates, passwords: Mapping[str, str], again_after: float) -> None:
        self._certificates, self._passwords, self._again_after = certificates, passwords, again_after
        self._secure_ports: list[int] = []
        super().__init__()

    def address(self, protocol: str) -> str:
        """The address of the listener for this `security.protocol`."""
        return f"127.0.0.1:{self._secure_ports[_LISTENERS.index(protocol)]}"

    def admin(self) -> AdminClient:
        """A client of the super user. It must live until its requests are answered."""
        return AdminClient({"bootstrap.servers": self.bootstrap, **QUIET})

    def scram(self, user: str, password: str) -> None:
        """Create a user for SCRAM, or change its password."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        change = UserScramCredentialUpsertion(user, info, password.encode())
        admin = self.admin()
        admin.alter_user_scram_credentials([change])[user].result(60)

    def allow(self, acls: Iterable[AclBinding]) -> None:
        """Add ACLs."""
        admin = self.admin()
        for answer in admin.create_acls(list(acls)).values():
            answer.result(60)

    def forbid(self, acls: Iterable[AclBinding]) -> None:
        """Remove ACLs that were added."""
        admin = self.admin()
        for answer in admin.delete_acls([_filter(acl) for acl in acls]).values():
            answer.result(60)

    def _lay_out(self) -> None:
        self._secure_ports = free_ports(len(_LISTENERS))
        super()._lay_out()

    def _properties(self, node: int) -> dict[str, object]:
        properties = super()._properties(node)
        addresses = ",".join(f"{name}://{self.address(name)}" for name in _LISTENERS)
        protocols = ",".join(f"{name}:{name}" for name in _LISTENERS)
        again = int(self._again_after * 1000)
        users = " ".join(f'user_{name}="{password}"' for name, password in self._passwords.items())
        plain = f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        passwords: dict[str, object] = {}
        for name in ("sasl_plaintext", "sasl_ssl"):
            passwords |= {
                f"listener.name.{name}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
                f"listener.name.{name}.plain.sasl.jaas.config": plain,
                f"listener.name.{name}.scram-sha-512.sasl.jaas.config": scram,
                f"listener.name.{name}.plain.connections.max.reauth.ms": again,
                f"listener.name.{name}.scram-sha-512.connections.max.reauth.ms": again,
            }
        return {
            **properties,
            "listeners": f"{properties['listeners']},{addresses}",
            "advertised.listeners": f"{properties['advertised.listeners']},{addresses}",
            "listener.security.protocol.map": f"{properties['listener.security.protocol.map']},{protocols}",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "false",
            "super.users": "User:ANONYMOUS",  # only on PLAINTEXT
            "auto.create.topics.enable": "false",
            **passwords,
            "listener.name.sasl_ssl.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512,OAUTHBEARER",
            "listener.name.sasl_ssl.oauthbearer.sasl.jaas.config": _OAUTH,
            "listener.name.ssl.ssl.client.auth": "required",
            "listener.name.ssl.ssl.principal.mapping.rules": "RULE:^CN=([^,]+),.*$/$1/",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self._key_store(),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self._certificates.authority,
        }

    def _key_store(self) -> Path:
        store = self._certificates.broker.with_name("key-store.pem")
        store.write_bytes(self._certificates.broker_key.read_bytes() + self._certificates.broker.read_bytes())
        return store


def _filter(acl: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        acl.restype, acl.name, acl.resource_pattern_type, acl.principal, acl.host, acl.operation, acl.permission_type
    )
