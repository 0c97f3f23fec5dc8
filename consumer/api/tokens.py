"""The tokens of the HTTP API, from a file of their hashes (API_TOKENS_FILE).

The file is TOML, with a line for each token:

    grafana = { sha256 = "9f86d0…", scopes = ["read"] }
    acme = { sha256 = "60303a…", scopes = ["read", "write", "secrets"], tenant = "acme" }

A token has 256 random bits, so its hash needs neither a salt nor the slowness of bcrypt, which protect passwords.
"""

import hmac
import json
import os
import re
import secrets
import tomllib
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

import structlog
from cryptography.fernet import Fernet, InvalidToken
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from consumer.errors import SettingsError
from consumer.subscriptions.options import parse_tenant
from models.subscription import EVERY_TENANT, TENANT_LENGTH

log = structlog.get_logger(__name__)

Scope = Literal["read", "write", "secrets"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
SINGLE = "API_TOKEN"  # the name of the token of that setting
LOCAL = "local"  # the name of requests without a token, from this machine
_NAME = re.compile("[A-Za-z0-9_-]{1,64}")
_BYTES = 1024 * 1024  # the largest file; a token takes 130 bytes
_SAFE_LENGTH = 32  # characters of API_TOKEN, a third of them different: at least 128 random bits, written in hex
_PREFIX = "kwt_"  # so that people and scanners recognise a token


class Caller(NamedTuple):
    """The sender of a request: the token's name, its scopes, and its tenant (None: all), by the `way` it comes."""

    name: str
    scopes: frozenset[Scope]
    tenant: str | None = None
    way: Literal["api", "console"] = "api"

    @property
    def actor(self) -> str:
        """The caller in operational events."""
        return f"{self.way}:{self.name}"


ANYONE = Caller(LOCAL, frozenset(SCOPES))  # if no token is set, so that only this machine is served
STRANGER = Caller("stranger", frozenset())  # a receiver without a token, which may read public keys


def _tenant(name: str) -> str:
    if name == EVERY_TENANT:
        raise ValueError("leave it out for a token of all tenants")
    return str(parse_tenant(name))


class _TokenLine(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    scopes: Annotated[list[Scope], Field(min_length=1)]
    tenant: Annotated[str, Field(max_length=TENANT_LENGTH), AfterValidator(_tenant)] | None = None


_ENTRIES = TypeAdapter(dict[str, _TokenLine])
Tokens = Mapping[bytes, Caller]  # by the SHA-256 of the token


def check_name(name: str) -> None:
    """Raise ValueError for a name that no token may have: operational events show it."""
    if not _NAME.fullmatch(name):
        raise ValueError("a token's name is 1 to 64 letters, digits, _ or -")
    if name in {SINGLE, LOCAL}:
        raise ValueError(f"{name} is the name of requests without a token of the file")


def parse(text: str) -> Tokens:
    """The tokens of a file's text. Raises ValueError, with the line or the name of the token at fault."""
    try:
        entries = _ENTRIES.validate_python(tomllib.loads(text))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    for name in entries:
        check_name(name)
    tokens = {
        bytes.fromhex(entry.sha256): Caller(name, frozenset(entry.scopes), entry.tenant)
        for name, entry in entries.items()
    }
    if len(tokens) != len(entries):
        raise ValueError("two names have the same token")
    return tokens


def find(tokens: Tokens, token: bytes) -> Caller | None:
    """The caller with this token. The time depends neither on the token nor on how many of its characters are right."""
    digest = sha256(token).digest()
    found = None
    for known, caller in tokens.items():
        if hmac.compare_digest(known, digest):
            found = caller
    return found


def generate() -> str:
    """A new token: `kwt_` and 256 random bits."""
    return _PREFIX + secrets.token_urlsafe(32)


def line_of(name: str, token: str, scopes: Iterable[str], tenant: str | None) -> str:
    """The file's line for a token. Raises ValueError for a name, scope or tenant that it cannot have."""
    check_name(name)
    if unknown := [scope for scope in scopes if scope not in SCOPES]:
        raise ValueError(f"there is no scope {unknown[0]}; there are {', '.join(SCOPES)}")
    of = "" if tenant is None else f", tenant = {json.dumps(_tenant(tenant), ensure_ascii=False)}"
    digest = sha256(token.encode()).hexdigest()
    return f'{name} = {{ sha256 = "{digest}", scopes = {json.dumps([*scopes])}{of} }}'


class TokenFile:
    """The tokens of a file, and API_TOKEN. A changed file is read again; if it is unusable, the last tokens stay."""

    def __init__(self, path: str | None, single: str | None = None) -> None:
        """SettingsError if the file cannot be read or is wrong. `single`: API_TOKEN, which has all scopes."""
        safe = single is not None and len(single) >= _SAFE_LENGTH and len(set(single)) >= _SAFE_LENGTH // 3
        if single is not None and not safe:
            log.warning("API_TOKEN can be guessed", change="API_TOKEN: set what `openssl rand -hex 32` prints")
        self._path = path
        self._single: Tokens = {} if single is None else {sha256(single.encode()).digest(): _SINGLE}
        self._tokens: Tokens = self._single
        self._of_single = [sha256(f"seal {single}".encode()).digest()] if safe else []
        self._of_process = secrets.token_bytes(32)
        self._seen: object = None
        if path is not None:
            try:
                self._seen, self._tokens = _version(path), self._read(path)
            except ValueError as error:
                raise SettingsError(f"API_TOKENS_FILE: {path}: {error}") from None

    @property
    def required(self) -> bool:
        """Whether requests must carry a token."""
        return self._path is not None or bool(self._single)

    def find(self, token: bytes) -> Caller | None:
        """The caller with this token, or None."""
        return find(self.all(), token)

    def sealed(self, text: str) -> str:
        """The text, unreadable to the holders of one tenant's tokens.

        Each process with the same file and API_TOKEN opens it; this one alone, if all tokens of the file are for one
        tenant and API_TOKEN can be guessed or is not set.
        """
        return self._cipher().encrypt(text.encode()).decode()

    def opened(self, sealed: str) -> str:
        """The text that `sealed` has sealed since the file last changed. Raises ValueError for any other text."""
        try:
            return self._cipher().decrypt(sealed).decode()
        except InvalidToken:
            raise ValueError("it was not sealed with these tokens") from None

    def _cipher(self) -> Fernet:
        of_file = {digest: caller for digest, caller in self.all().items() if digest not in self._single}
        known = [*sorted(of_file), *self._of_single]  # without a weak API_TOKEN: its guesses must not be told apart
        owners = {caller.tenant for caller in of_file.values()}
        if not self._of_single and len(owners) == 1 and None not in owners:
            known.append(self._of_process)  # else who has all tokens of the file could open and make cursors
        return Fernet(urlsafe_b64encode(sha256(b"seal" + b"".join(known)).digest()))

    def all(self) -> Tokens:
        """The present tokens."""
        path = self._path
        if path is None:
            return self._tokens
        try:
            version: object = _version(path)
        except ValueError as error:
            version = str(error)
        if version != self._seen:
            self._seen = version
            try:
                self._tokens = self._read(path)
            except ValueError as error:
                why = "the file of tokens cannot be used; the last good ones stay valid"
                log.error(why, file=path, reason=str(error))  # noqa: TRY400 (a traceback says no more)
            else:
                log.info("the file of tokens is read again", file=path, tokens=len(self._tokens))
        return self._tokens

    def _read(self, path: str) -> Tokens:
        try:
            with Path(path).open("rb") as file:
                content = file.read(_BYTES + 1)
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror}") from None
        if len(content) > _BYTES:
            raise ValueError(f"has more than {_BYTES} bytes")
        try:
            return {**parse(content.decode()), **self._single}
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        except UnicodeDecodeError:
            raise ValueError("is not UTF-8") from None


_SINGLE = Caller(SINGLE, frozenset(SCOPES))


def _version(path: str) -> tuple[int, int, int]:
    """A value that changes with the file. Raises ValueError if the file's metadata cannot be read."""
    try:
        found = os.stat(path)  # noqa: PTH116 (on every request)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return found.st_ino, found.st_mtime_ns, found.st_size
