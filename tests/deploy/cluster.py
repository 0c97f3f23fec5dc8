"""etcd and kube-apiserver on loopback: they judge and store objects, and nothing runs these."""

import json
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import requests
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.deploy.go_tools import module_folder
from tests.deploy.helm_kit import Object
from tests.deploy.schemas import DEFINITIONS
from tests.kafka_broker import die_with_parent
from tests.processes import free_ports
from tests.waiting import eventually

RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}


class RefusedError(Exception):
    """The API server refuses an object or warns of it; the text has its words."""


class Cluster:
    """An API server, in which `token` may do everything."""

    def __init__(self, url: str, token: str, authority: Path) -> None:
        self.helm_options = ("--kube-apiserver", url, "--kube-token", token, "--kube-ca-file", str(authority))
        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = str(authority)
        self._session.headers["authorization"] = f"Bearer {token}"

    def is_ready(self) -> bool:
        """Whether it serves."""
        with suppress(OSError):  # not yet: it has no port or no certificate
            return self._session.get(f"{self._url}/readyz", timeout=10).ok
        return False

    def create(self, thing: Object, namespace: str = "", *, dry: bool = False) -> None:
        """Create an object, or only ask whether that would do. Raises RefusedError, for an unknown field too."""
        api = thing["apiVersion"]
        base = f"{self._url}/{'apis' if '/' in api else 'api'}/{api}"
        kinds = self._session.get(base, timeout=60).json()["resources"]
        (kind,) = [each for each in kinds if each["kind"] == thing["kind"] and "/" not in each["name"]]
        place = f"{base}/namespaces/{namespace}" if kind["namespaced"] else base
        options = {"fieldValidation": "Strict", **({"dryRun": "All"} if dry else {})}
        answer = self._session.post(f"{place}/{kind['name']}", json=thing, params=options, timeout=60)
        if not answer.ok or "warning" in answer.headers:
            raise RefusedError(f"{thing['kind']}: {answer.headers.get('warning')} {answer.text}")

    def has(self, path: str) -> bool:
        """Whether there is something at this path."""
        return self._session.get(f"{self._url}/{path}", timeout=60).ok

    def get(self, path: str) -> Any:
        """The object at this path."""
        return self._session.get(f"{self._url}/{path}", timeout=60).json()

    def scale(self, path: str, replicas: int) -> None:
        """As `kubectl scale` does it."""
        change, kind = json.dumps({"spec": {"replicas": replicas}}), "application/merge-patch+json"
        where = f"{self._url}/{path}/scale?fieldManager=kubectl"
        self._session.patch(where, data=change, headers={"content-type": kind}, timeout=60).raise_for_status()


def named(kind: str, name: str, version: str = "v1", **more: object) -> Object:
    """An object that has little but its name."""
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **more}


@contextmanager
def cluster_in(folder: Path, programs: Path) -> Iterator[Cluster]:
    """A cluster that has the kinds of KEDA and of the Prometheus Operator."""
    token = secrets.token_hex(16)
    (folder / "tokens").write_text(f'{token},tests,1,"system:masters"\n')
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / "key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    client, peer, port = free_ports(3)
    database = f"http://127.0.0.1:{client}"
    commands: dict[str, Object] = {
        "server": {
            "data-dir": folder / "data",
            "unsafe-no-fsync": "true",
            "listen-client-urls": database,
            "advertise-client-urls": database,
            "listen-peer-urls": f"http://127.0.0.1:{peer}",
            "initial-advertise-peer-urls": f"http://127.0.0.1:{peer}",
            "initial-cluster": f"default=http://127.0.0.1:{peer}",
        },
        "kube-apiserver": {
            "etcd-servers": database,
            "bind-address": "127.0.0.1",
            "endpoint-reconciler-type": "none",  # its endpoint is on loopback
            "secure-port": port,
            "cert-dir": folder,
            "token-auth-file": folder / "tokens",
            "service-account-issuer": "https://127.0.0.1",
            "service-account-key-file": folder / "key",
            "service-account-signing-key-file": folder / "key",
            "service-cluster-ip-range": "10.96.0.0/16",
        },
    }
    with ExitStack() as stack:
        for name, options in commands.items():
            log = stack.enter_context((folder / f"{name}.log").open("w"))
            words = [str(programs / name), *(f"--{option}={value}" for option, value in options.items())]
            process = subprocess.Popen(
                words,
                cwd=folder,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509 (one system call, looked up before)
            )
            stack.callback(_end, process)
        cluster = Cluster(f"https://127.0.0.1:{port}", token, folder / "apiserver.crt")
        eventually(cluster.is_ready, otherwise=lambda: (folder / "kube-apiserver.log").read_text()[-3000:])
        for module, path in DEFINITIONS.values():
            cluster.create(yaml.safe_load((module_folder(module) / path).read_text()))
        served = [f"apis/{version}/{kind.lower()}s" for version, kind in DEFINITIONS]
        eventually(lambda: all(map(cluster.has, served)))
        yield cluster


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    process.wait(60)
