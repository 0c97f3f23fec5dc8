"""Forms that add, change and remove subscriptions, many at once too, and pages that confirm what hurts."""

from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from consumer.api.backing import Backing, changing_many, check_move
from consumer.api.backtest import TRIED
from consumer.api.context import etag
from consumer.api.problems import Code, RequestRefused
from consumer.console import backtests
from consumer.console.app import PageRoute, Said, Visit, to
from consumer.console.overview import bounded
from consumer.console.search import HOURS
from consumer.crypto.keys import generate, receiver_key
from consumer.errors import Conflict, InvalidSubscription
from consumer.ledger import search
from consumer.ops.bulk import ACTIONS, act_on_all
from consumer.ops.changes import MOST_OWED
from consumer.ops.replay_request import NO_KAFKA
from consumer.ops.reported import masked
from consumer.sending.trace import MASK
from consumer.subscriptions.options import OPTIONS
from consumer.subscriptions.subscribed import Subscribed
from models import Subscription

OVERLAPS = {"86400": "a day", "604800": "a week", "3600": "an hour", "0": "no time"}  # by their seconds
_COLUMNS = Subscription.__table__.columns
_STATES = ("enable", "pause", "resume", "disable")  # of ACTIONS, those with a button


def _form(
    backing: Backing, visit: Visit, given: Mapping[str, str], wrong: InvalidSubscription | None = None, **more: Any
) -> Response:
    """The page with the form of a new subscription, or of one that is changed."""
    values = {"own_secret": backing.deployment.rules.own_secret, "tried": None, "wrong": wrong, **more}
    fields = {name: (OPTIONS[name], _COLUMNS[name], text) for name, text in given.items()}
    status = HTTPStatus.OK if wrong is None else HTTPStatus.BAD_REQUEST
    missing = NO_KAFKA if backing.log is None else None
    return visit.render("subscription_form.html", status, fields=fields, missing=missing, choices=HOURS, **values)


def _given(visit: Visit) -> dict[str, str]:
    """The texts of the form; browsers end lines with CR and LF."""
    return {name: _text(visit.form.get(name)) for name in _names(visit)}


def _names(visit: Visit) -> list[str]:
    return [name for name in OPTIONS if visit.caller.tenant is None or name != "tenant"]


def _texts(visit: Visit, item: Subscribed) -> dict[str, str]:
    """The options as the form shows them, without confidential values."""
    shown = masked(item.options) or {}
    return {name: _text(shown[name]) for name in _names(visit)} | {"event_type": "\n".join(item.event_types)}


def _text(value: object) -> str:
    """A value in the form."""
    text = "" if value is None else f"{value:.12g}" if isinstance(value, float) else str(value)
    return text.replace("\r", "").strip()


def _stored(name: str, text: str) -> Any:
    """The text of a field in the form of its column. A text that is no number is left, to be refused with a reason."""
    if MASK in text:
        raise InvalidSubscription("has values that are not shown: write each of them again", name)
    try:
        return _COLUMNS[name].type.python_type(text) if text else None
    except ValueError:
        return text


def _types(text: str) -> list[str]:
    """The event types of the form's field, one in a line."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def _new(backing: Backing, visit: Visit) -> Response:
    return _form(backing, visit, {name: OPTIONS[name].default or "" for name in _names(visit)}, it=None)


def _create(backing: Backing, visit: Visit) -> Response:
    given, required = _given(visit), backing.deployment.rules.own_secret
    if backtests.is_wanted(visit):
        return _try(backing, visit, given, it=None)
    own = generate("hmac") if required or visit.form.get("own_secret") else None
    try:
        values = {name: _stored(name, text) for name, text in given.items()}
        values["event_type"], *further = _types(given["event_type"]) or [""]
        if visit.caller.tenant is not None:
            values["tenant"] = visit.caller.tenant
        backing.check_url(visit.caller, given["url"])
        new_secrets = [("signing", own)] if own else ()
        added = backing.changes(visit.caller).add(new_secrets=new_secrets, further_types=further, **values)
    except InvalidSubscription as error:
        return _form(backing, visit, given, error, it=None)
    there = f"/subscriptions/{added.id}?said=created"
    return visit.tell(there, {"kind": "key", "key": receiver_key(own)}) if own else to(there)


def _edit(backing: Backing, visit: Visit) -> Response:
    item = _subscription(backing, visit)
    return _form(backing, visit, _texts(visit, item), it=item, version=etag(item))


def _save(backing: Backing, visit: Visit) -> Response:
    """Change the options whose texts were changed."""
    item, given = _subscription(backing, visit), _given(visit)
    if backtests.is_wanted(visit):
        return _try(backing, visit, given, it=item, version=visit.form.get("version", ""))

    def is_as_read(found: Subscribed) -> None:
        if etag(found) != visit.form.get("version"):
            raise Conflict("somebody has changed it since the page was loaded: go back, reload it, and change it again")

    shown = _texts(visit, item)
    try:
        values = {name: _stored(name, text) for name, text in given.items() if text != shown[name]}
        if "event_type" in values:
            values["event_types"] = _types(given["event_type"])
            del values["event_type"]
        if "url" in values:
            check_move(visit.caller, item, values["url"])
            backing.check_url(visit.caller, values["url"])
        backing.changes(visit.caller, is_as_read).edit(item.id, lambda _: values)
    except InvalidSubscription as error:
        return _form(backing, visit, given, error, it=item, version=visit.form.get("version", ""))
    return to(f"/subscriptions/{item.id}", "changed", tab="options")


def _try(backing: Backing, visit: Visit, given: Mapping[str, str], **more: Any) -> Response:
    """The form as it was typed, with what its options match in the log; nothing is saved."""
    named = {name: given[name] for name in TRIED if given.get(name) not in {None, "", OPTIONS[name].default}}
    options = {"event_types": _types(given["event_type"]), **named}
    try:
        return _form(backing, visit, given, tried=backtests.tried(backing, visit, options), **more)
    except InvalidSubscription as error:
        return _form(backing, visit, given, error, **more)


def _subscription(backing: Backing, visit: Visit) -> Subscribed:
    return backing.deployment.subscription(int(visit.path["id"]), visit.caller.tenant)


def _confirm(what: str, backing: Backing, visit: Visit) -> Response:
    """The page that asks before something that hurts, with the number of deliveries concerned."""
    item = _subscription(backing, visit)
    owed = search.loads(backing.deployment.engine, [item.id], MOST_OWED + 1)[item.id]
    behind = len(backing.owed(visit.caller, item.id))
    return visit.render("confirm.html", what=what, it=item, owed=bounded(owed), behind=behind, overlaps=OVERLAPS)


def _act(word: str, backing: Backing, visit: Visit) -> Response:
    number = int(visit.path["id"])
    change = ACTIONS[word](backing.changes(visit.caller), number, visit.form.get("reason") or None)
    still = word == "enable" and change.after.mode == "paused"
    said = "still_paused" if still else f"{word.removesuffix('e')}ed"
    return to(f"/subscriptions/{number}", said, tab=visit.query.get("tab", ""))


def _rotate(backing: Backing, visit: Visit) -> Response:
    number, seconds = int(visit.path["id"]), visit.form.get("overlap", "")
    if seconds not in OVERLAPS:
        raise RequestRefused(Code.BAD_REQUEST, "The form does not say how long the previous secret signs too.")
    rotation = backing.changes(visit.caller).rotate(number, overlap=float(seconds))
    told = {"kind": "key", "key": receiver_key(rotation.secret), "before": OVERLAPS[seconds]}
    return visit.tell(f"/subscriptions/{number}?tab=secrets", told)


def _remove(backing: Backing, visit: Visit) -> Response:
    backing.changes(visit.caller).remove(int(visit.path["id"]), give_up=True)
    return to("/subscriptions", "removed")


def _several(backing: Backing, visit: Visit) -> Response:
    """Enable, pause, resume or disable the selected ones; before it disables them, it asks."""
    ids, word, form = visit.selected(), visit.form.get("do", ""), visit.form
    if word not in _STATES:
        raise RequestRefused(Code.BAD_REQUEST, "The form does not say what to do.")
    if word == "disable" and "sure" not in form:
        known = backing.receivers(visit.caller, ids)
        return visit.render(
            "confirm.html", what="disable_several", ids=ids, known=known, return_to=form.get("back", "")
        )
    with changing_many(visit.caller):
        found = list(act_on_all(backing.changes(visit.caller), word, ids, form.get("reason") or None))
    others = {each.why or "there is no such subscription any more" for each in found if each.result != "done"}
    number = sum(each.result == "done" for each in found)
    done = f"{word.removesuffix('e')}ed: {number} of {len(ids)} subscriptions.".capitalize()
    why = f"The others: {'; '.join(sorted(others))}." if others else ""
    return visit.back("/subscriptions", Said(done, "warn" if others else "good", why))


ROUTES = (
    PageRoute("/subscriptions/new", _new),
    PageRoute("/subscriptions/new", _create, "write", post=True),
    PageRoute("/subscriptions/several", _several, "write", post=True),
    PageRoute("/subscriptions/{id:number}/edit", _edit, "write"),
    PageRoute("/subscriptions/{id:number}/edit", _save, "write", post=True),
    PageRoute("/subscriptions/{id:number}/disable", partial(_confirm, "disable"), "write"),
    *(PageRoute(f"/subscriptions/{{id:number}}/{each}", partial(_act, each), "write", post=True) for each in _STATES),
    PageRoute("/subscriptions/{id:number}/remove", partial(_confirm, "remove"), "write"),
    PageRoute("/subscriptions/{id:number}/remove", _remove, "write", post=True),
    PageRoute("/subscriptions/{id:number}/rotate-secret", partial(_confirm, "rotate-secret"), "secrets"),
    PageRoute("/subscriptions/{id:number}/rotate-secret", _rotate, "secrets", post=True),
)
