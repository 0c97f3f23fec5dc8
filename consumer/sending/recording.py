"""An adapter that notes how an exchange went: where it connected, by which TLS, how long each step took.

libcurl is told to be verbose for that, which deliveries must not pay for.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pycurl
from requests import PreparedRequest, RequestException

from consumer.sending.transfer import Result, Slot, Transfer
from consumer.sending.transport import CurlAdapter

_TLS_LINE = b"SSL connection using "


class Certificate(NamedTuple):
    """What the receiver showed, in libcurl's words. It is shown where it was refused, too."""

    subject: str
    issuer: str
    expires: str


@dataclass(slots=True)
class Seen:
    """What was seen of an exchange. Steps that were not reached are not in `seconds`, whose last is the total.

    `started`: there was an address to connect to, or a proxy to ask.
    `addresses`: what the host's name resolved to, or the address that it is. `connected`: address and port at the other
    end, a proxy's where there is one. `tls`: version, cipher, key exchange.
    """

    started: bool = False
    addresses: tuple[str, ...] = ()
    connected: str | None = None
    tls: str | None = None
    certificate: Certificate | None = None
    seconds: dict[str, float] = field(default_factory=dict)


class RecordingAdapter(CurlAdapter):
    """One exchange at a time."""

    def exchange(self, request: PreparedRequest, timeout: float | None) -> tuple[Result, Seen]:
        """Send and wait, as `send` does; an exception of requests is the result."""
        self._seen = Seen()
        self._asked = self._clock()
        try:
            result: Result = self.send(request, timeout=timeout)
        except RequestException as error:
            result = error
        self._seen.seconds["total"] = self._clock() - self._asked
        return result, self._seen

    def _start(self, transfer: Transfer, target: Any, addresses: tuple[str, ...] | None) -> None:
        if addresses is not None:
            self._seen.seconds["name"] = self._clock() - self._asked
        self._seen.started = True
        self._seen.addresses = addresses or ((target.address,) if target.address else ())
        super()._start(transfer, target, addresses)

    def _new_slot(self) -> Slot:
        slot = super()._new_slot()
        slot.curl.setopt(pycurl.OPT_CERTINFO, 1)
        slot.curl.setopt(pycurl.VERBOSE, 1)
        slot.curl.setopt(pycurl.DEBUGFUNCTION, self._told)
        return slot

    def _told(self, kind: int, line: bytes) -> None:
        if kind == pycurl.INFOTYPE_TEXT and line.startswith(_TLS_LINE):
            self._seen.tls = line.removeprefix(_TLS_LINE).decode("latin-1").strip()

    def _take(self, slot: Slot, failure: tuple[int, str] | None) -> tuple[Transfer, Result]:
        info, seen = slot.curl.getinfo, self._seen
        if address := info(pycurl.PRIMARY_IP):
            seen.connected = f"[{address}]" if ":" in address else address
            seen.connected += f":{info(pycurl.PRIMARY_PORT)}"
        if chain := info(pycurl.INFO_CERTINFO):
            fields = dict(chain[0])
            seen.certificate = Certificate(*(fields.get(name, "") for name in ("Subject", "Issuer", "Expire date")))
        done = 0.0
        steps = {"connect": pycurl.CONNECT_TIME, "tls": pycurl.APPCONNECT_TIME}
        if slot.lines:
            steps["first_byte"] = pycurl.STARTTRANSFER_TIME
        for step, option in steps.items():
            if at := info(option):
                seen.seconds[step] = at - done
                done = at
        return super()._take(slot, failure)
