"""The search: what a text names, in the database at once, and in the log a part at a time."""

from collections.abc import Mapping
from urllib.parse import quote

from starlette.responses import Response

from consumer.api.backing import Backing
from consumer.api.problems import RequestRefused
from consumer.api.search import RECENT
from consumer.console.app import PageRoute, Visit, reason_for, to
from consumer.errors import WebhooksError
from consumer.ops.find import SHORTEST, place_of

HOURS = (("1", "an hour"), ("24", "a day"), ("168", "a week"), ("720", "thirty days"))


def _search(backing: Backing, visit: Visit) -> Response:
    text = visit.query.get("q", "").strip()
    if (place := place_of(text)) is not None:
        return to(f"/events/{quote(place[0], safe='')}/{place[1]}/{place[2]}")
    return visit.render(
        "search.html",
        q=text,
        hours=hours_of(visit.query),
        choices=HOURS,
        hits=backing.find(visit.caller, text) if text else [],
        in_log=backing.log is not None and len(text) >= SHORTEST and "stop" not in visit.query,
        shortest=SHORTEST,
    )


def _in_log(backing: Backing, visit: Visit) -> Response:
    """A part of the log, for the page that shows the others: it asks for the next part by itself."""
    text, hours = visit.query.get("q", "").strip(), hours_of(visit.query)
    begin = backing.deployment.clock() - int(hours) * 3600
    cursor, found, fault = visit.query.get("cursor") or None, None, None
    try:
        found = backing.find_in_log(visit.caller, text, begin, cursor)
    except (WebhooksError, RequestRefused) as error:  # htmx would not show another status
        fault = reason_for(visit.caller, error)
    return visit.render("search_part.html", q=text, hours=hours, found=found, fault=fault, cursor=cursor)


def hours_of(asked: Mapping[str, str]) -> str:
    """How far back the log is searched: one of HOURS."""
    hours = asked.get("hours", "")
    return hours if hours in dict(HOURS) else str(int(RECENT // 3600))


ROUTES = (PageRoute("/search", _search), PageRoute("/search/log", _in_log))
