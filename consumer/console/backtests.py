"""The backtest of a subscription's form: its options are tried on the log, a part at a time, before they are saved."""

import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from consumer.api.backing import Backing
from consumer.api.problems import RequestRefused
from consumer.console.app import Visit, reason_for
from consumer.console.search import hours_of
from consumer.errors import InvalidSubscription, WebhooksError
from consumer.ops.backtest import added

BODY = 2_000  # characters of a body that are shown: what was found goes with a form to the next part


class Tried(NamedTuple):
    """What the `options` match in the log of the last `hours`, as far as it was read.

    `found`: of `as_json`; None: nothing was read yet. `left`: the records that are still to be read; None: unknown.
    `state`: for the next part; None: the end. `fault`: why a part could not be read. `runs`: the page asks for the next
    part by itself.
    """

    options: Mapping[str, Any]
    hours: str
    found: Mapping[str, Any] | None = None
    left: int | None = None
    state: str | None = None
    fault: str | None = None
    runs: bool = False


def is_wanted(visit: Visit) -> bool:
    """Whether a button of the backtest has sent the form."""
    return "backtest" in visit.form or "stop" in visit.form


def tried(backing: Backing, visit: Visit, options: Mapping[str, Any]) -> Tried:
    """Try the options on the first part of the log, or those of the form's state on the next one.

    Raises InvalidSubscription, and InvalidPosition for a state that no page has given.
    """
    state = visit.form.get("stop") or visit.form.get("backtest") or None
    if state is None:
        hours = hours_of(visit.form)
        begin, cursor, so_far = backing.deployment.clock() - int(hours) * 3600, None, Tried(options, hours)
    else:
        begin, cursor, *shown = _unpacked(backing.position("backtest", state, str))
        so_far = Tried(*shown)._replace(state=state)
        if "stop" in visit.form:
            return so_far
    try:
        found, left, following = backing.backtest(visit.caller, so_far.options, begin, cursor)
    except InvalidSubscription:
        raise
    except (WebhooksError, RequestRefused) as error:
        return so_far._replace(fault=reason_for(visit.caller, error))
    part: dict[str, Any] = found.as_json()
    for each in part["samples"]:
        each["body"] = each["body"] and each["body"][:BODY]
    whole = part if so_far.found is None else added(so_far.found, part)
    if following is None:
        return Tried(so_far.options, so_far.hours, whole)
    packed = b64encode(zlib.compress(orjson.dumps([begin, following, so_far.options, so_far.hours, whole, left])))
    return so_far._replace(found=whole, left=left, state=backing.cursor("backtest", packed.decode()), runs=True)


def _unpacked(packed: str) -> list[Any]:
    return orjson.loads(zlib.decompress(b64decode(packed)))  # type: ignore[no-any-return]  # as `tried` has packed it
