"""Access tokens by OAuth 2.0 client credentials (RFC 6749, section 4.4): fetched once, shared, and renewed early."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple
from urllib.parse import quote_plus, urlsplit

import orjson
from requests import PreparedRequest, Request, RequestException
from requests.auth import HTTPBasicAuth
from requests.exceptions import InvalidURL

from consumer.crypto.certificates import TlsIdentity
from consumer.crypto.credentials import OAuth2, is_token
from consumer.errors import NotAuthorized
from consumer.loop.backoff import seconds_after
from consumer.sending.transfer import Result, Stage, Transfer, unexpected

_DEFAULT_LIFE = 300.0  # seconds, if the answer does not say (RFC 6749, section 5.1: expires_in is RECOMMENDED)
_SHORTEST_LIFE, _LONGEST_LIFE = 1.0, 30 * 86400.0  # seconds
_AHEAD = 0.8  # of a token's life, after which the next request starts a renewal; the old token serves meanwhile
_MARGIN = 10.0  # seconds before its expiry from which a token is not used: it must be valid when the receiver reads it
FRESH = 10.0  # seconds: a 401 to a token that is younger is not the token's fault
_PAUSES = (1.0, 30.0)  # seconds between two fetches, after one that failed: the first, the longest
_CODES = frozenset(  # errors that may be shown (RFC 6749, 4.1.2.1 and 5.2; RFC 8707): others may echo the secret
    (
        *("access_denied", "invalid_client", "invalid_grant", "invalid_request", "invalid_scope", "invalid_target"),
        *("server_error", "temporarily_unavailable", "unauthorized_client", "unsupported_grant_type"),
    )
)
LONGEST_TOKEN = 8_192  # characters: few servers take a longer header line, and each failed attempt is searched for it
_KEPT = 10_000  # keys

Fetch = Callable[[PreparedRequest, TlsIdentity | None, Callable[[Result], None]], object]
Proceed = Callable[[Transfer, str | NotAuthorized], None]
Post = Callable[[Callable[[], None]], None]


class Token(NamedTuple):
    """An access token that serves until `expires_at` and is renewed from `renew_at` on (monotonic seconds)."""

    text: str
    fetched_at: float
    renew_at: float
    expires_at: float


class Key(NamedTuple):
    """Requests with equal credentials and TLS share a token."""

    credentials: OAuth2
    identity: TlsIdentity | None

    @property
    def host(self) -> str:
        """The token server's."""
        return urlsplit(self.credentials.token_url).netloc


class _State:
    """The token of a key, and its fetch. No fetch begins before `pause_until`; `why`: the last error."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.token: Token | None = None
        self.is_fetching = False
        self.waiting: dict[Grant, None] = {}
        self.failures = 0
        self.pause_until = 0.0
        self.why = ""


class Grant:
    """The access token of a transfer, and its stage while it waits for one.

    `renewed`: the receiver has refused a first token.
    """

    exchanging = False

    def __init__(self, state: _State, transfer: Transfer) -> None:
        self.state, self.transfer = state, transfer
        self.token = ""
        self.renewed = False

    def late(self) -> str:
        """The text of the time-out."""
        return f"no access token from {self.state.key.host}"

    def cancel(self) -> None:
        """Wait no longer. The fetch goes on: others may wait for it, and later requests use the token."""
        self.state.waiting.pop(self, None)


class Tokens:
    """Keeps the token of each key. Belongs to the loop's thread.

    However many requests need a token, one fetch is open for each key. After a fetch that failed, requests fail with
    its error during a pause that doubles from 1 s to 30 s.
    """

    def __init__(self, fetch: Fetch, proceed: Proceed, post: Post, clock: Callable[[], float]) -> None:
        """`fetch` submits a request to a token endpoint; `proceed` gets each transfer with its token, or an error.

        `post` has the loop call a function in its next turn.
        """
        self._fetch, self._proceed = fetch, proceed
        self._post = post
        self._clock = clock
        self._states: dict[Key, _State] = {}  # oldest first

    def authorize(self, transfer: Transfer, credentials: OAuth2) -> None:
        """Have the transfer proceed, at once if a token or an error is known. Else it waits for a fetch."""
        grant = transfer.grant = Grant(self._state(Key(credentials, transfer.identity)), transfer)
        self._obtain(grant)

    def renew(self, grant: Stage) -> bool:
        """A receiver has answered 401. If that may be its token's fault, have the transfer proceed with another one."""
        if not isinstance(grant, Grant) or grant.renewed:
            return False
        token = grant.state.token
        if token is not None and token.text == grant.token:
            if self._clock() - token.fetched_at < FRESH:
                return False
            grant.state.token = None
        grant.renewed = True
        self._obtain(grant)
        return True

    def _obtain(self, grant: Grant) -> None:
        state, now = grant.state, self._clock()
        token = state.token
        may_fetch = not state.is_fetching and now >= state.pause_until
        if token is not None and now < token.expires_at:
            if now >= token.renew_at and may_fetch:
                self._begin(state, now)
            self._pass(grant, token.text, "")
        elif state.is_fetching or (may_fetch and self._begin(state, now)):
            grant.transfer.stage = grant
            state.waiting[grant] = None
        else:
            self._pass(grant, "", state.why)

    def _pass(self, grant: Grant, token: str, why: str) -> None:
        grant.token = token
        grant.transfer.stage = None
        self._proceed(grant.transfer, token or NotAuthorized(why))

    def _state(self, key: Key) -> _State:
        state = self._states.get(key)
        if state is None:
            if len(self._states) >= _KEPT:
                idle = (each for each, its in self._states.items() if not its.is_fetching)
                self._states.pop(next(idle, key), None)
            state = self._states[key] = _State(key)
        return state

    def _begin(self, state: _State, now: float) -> bool:
        """Start a fetch. False if no request can be made, which counts as a fetch that failed."""
        answered = partial(self._answered, state, now)
        try:
            request = token_request(state.key.credentials)
        except RequestException:  # its text may quote the URL
            answered(InvalidURL("the token_url is malformed"))
            return False
        state.is_fetching = True
        self._fetch(request, state.key.identity, answered)
        return True

    def _answered(self, state: _State, began: float, result: Result) -> None:
        state.is_fetching = False
        text = ""
        try:
            state.token = token_of(state.key, result, began)
        except Exception as error:  # noqa: BLE001 (one token server must not end the worker)
            failure = error if isinstance(error, NotAuthorized) else unexpected(error, state.key.host)
            state.failures += 1
            state.pause_until = self._clock() + seconds_after(state.failures, *_PAUSES)
            state.why = str(failure)
        else:
            state.failures, state.pause_until = 0, 0.0
            text = state.token.text
        for grant in state.waiting:  # the poller spreads them over its turns
            self._post(partial(self._continue, grant, text, state.why))
        state.waiting.clear()

    def _continue(self, grant: Grant, token: str, why: str) -> None:
        if grant.transfer.stage is grant:  # else it was cancelled or timed out
            self._pass(grant, token, why)


def token_request(credentials: OAuth2) -> PreparedRequest:
    """The request for a token (RFC 6749, sections 2.3.1 and 4.4.2). Raises InvalidURL."""
    form = {"grant_type": "client_credentials", **dict(credentials.parameters)}
    if credentials.scope is not None:
        form["scope"] = credentials.scope
    auth = None
    if credentials.method == "client_secret_basic":
        parts = quote_plus(credentials.client_id), quote_plus(credentials.client_secret)
        auth = HTTPBasicAuth(*parts)
    else:
        form |= {"client_id": credentials.client_id, "client_secret": credentials.client_secret}
    headers = {"accept": "application/json"}
    return Request("POST", credentials.token_url, headers=headers, data=form, auth=auth).prepare()


def token_of(key: Key, result: Result, began: float) -> Token:
    """The token in the answer to a request that `began` then (RFC 6749, section 5.1).

    Raises NotAuthorized, whose text quotes only the error code of the answer (section 5.2).
    """
    where = f"no access token from {key.host}"
    if isinstance(result, RequestException):
        raise NotAuthorized(f"{where}: {result}")
    try:
        found = orjson.loads(result.content or b"")
    except orjson.JSONDecodeError:
        found = None
    given = found if isinstance(found, dict) else {}
    if result.status_code != 200:  # noqa: PLR2004 (section 5.1)
        code = given.get("error")
        shown = f" ({code})" if isinstance(code, str) and code in _CODES else ""
        raise NotAuthorized(f"{where}: status {result.status_code}{shown}")
    text = given.get("access_token")
    if not isinstance(text, str) or not is_token(text):
        raise NotAuthorized(f"{where}: its answer has no access_token")
    if len(text) > LONGEST_TOKEN:
        raise NotAuthorized(f"{where}: its access_token has {len(text)} characters; at most {LONGEST_TOKEN} are sent")
    if str(given.get("token_type", "bearer")).lower() != "bearer":
        raise NotAuthorized(f"{where}: its token is not of the type Bearer")
    life = _life(given.get("expires_in"))
    return Token(text, began, began + _AHEAD * life, began + life - min(_MARGIN, life / 10))


def _life(given: object) -> float:
    try:
        life = float(given) if isinstance(given, int | float | str) else _DEFAULT_LIFE  # some servers send a text
    except ValueError:
        life = _DEFAULT_LIFE
    return min(max(life, _SHORTEST_LIFE), _LONGEST_LIFE) if life > 0 else _DEFAULT_LIFE
