"""An authorization server for tests: it issues short-lived tokens for the client credentials grant.

They are unsecured JWTs (RFC 7519, section 6), as a broker takes them that is told nothing else.
"""

import base64
import json
import ssl
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs


class Tokens:
    """Issues tokens to clients. `clients` maps a client's id to its secret; the id is the token's subject.

    `seconds` is the life of a token issued from now on. While `down`, the server answers 503. `issued` counts tokens;
    `newest` is the last one.
    """

    def __init__(self, clients: dict[str, str]) -> None:
        self.clients = clients
        self.seconds = 3600.0
        self.down = False
        self.issued = 0
        self.newest = ""
        self.port = 0

    def issue(self, subject: str) -> str:
        """A token for this principal, valid for `seconds`."""
        self.issued += 1
        now = time.time()
        claims = {"sub": subject, "iat": now, "exp": now + self.seconds, "jti": uuid.uuid4().hex}
        self.newest = f"{_encoded({'alg': 'none'})}.{_encoded(claims)}."
        return self.newest


@contextmanager
def token_server(clients: dict[str, str], tls: ssl.SSLContext) -> Iterator[Tokens]:
    """Serve tokens by https at `/token` of `port` on loopback."""
    tokens = Tokens(clients)

    class Handler(BaseHTTPRequestHandler):
        """One request for a token."""

        def do_POST(self) -> None:
            """RFC 6749, section 4.4."""
            body = parse_qs(self.rfile.read(int(self.headers["content-length"] or 0)).decode())
            client = _authenticated(tokens, self.headers["authorization"], body)
            if tokens.down:
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "temporarily_unavailable"})
            elif client is None:
                self._answer(HTTPStatus.UNAUTHORIZED, {"error": "invalid_client"})
            else:
                token = tokens.issue(client)
                answer = {"access_token": token, "token_type": "Bearer", "expires_in": int(tokens.seconds)}
                self._answer(HTTPStatus.OK, answer)

        def _answer(self, status: HTTPStatus, document: dict[str, Any]) -> None:
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        tokens.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="tokens")
        thread.start()
        try:
            yield tokens
        finally:
            server.shutdown()
            thread.join()


def _authenticated(tokens: Tokens, authorization: str | None, body: dict[str, list[str]]) -> str | None:
    """The client whose id and secret are in the request's header or body; None if they are wrong."""
    client, secret = body.get("client_id", [""])[0], body.get("client_secret", [""])[0]
    scheme, _, credentials = (authorization or "").partition(" ")
    if scheme == "Basic":
        client, _, secret = base64.b64decode(credentials).decode().partition(":")
    return client if tokens.clients.get(client) == secret else None


def _encoded(document: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()
