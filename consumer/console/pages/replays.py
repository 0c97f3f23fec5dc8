"""Replays: what was sent once more from the log, and how far it is."""

from functools import partial
from http import HTTPStatus

from starlette.responses import Response

from consumer.console import charts
from consumer.console.app import Entry, Refusal, Visit, to
from consumer.console.rendering import State
from consumer.console.sources import Sources, for_all_tenants
from consumer.ledger import replays
from consumer.ledger.replays import Replay

SHOWN = 100
_KINDS = {"finished": "good", "cancelled": "warn"}
_COMMAND = "kafka-webhooks replay --subscription 7 --since 2h"


def entries(sources: Sources) -> list[Entry]:
    """Their page and form."""
    return [
        Entry("/replays", partial(_list, sources)),
        Entry("/replays/{id:int}/cancel", partial(_cancel, sources), "write", post=True),
    ]


def _list(sources: Sources, visit: Visit) -> Response:
    for_all_tenants(visit.caller)
    found = replays.find(sources.registry.engine, limit=SHOWN, group=sources.registry.group)
    return visit.render("replays.html", rows=[_row(each) for each in found], command=_COMMAND)


def _row(item: Replay) -> dict[str, object]:
    done = None if not item.record_count else 1 - item.left / item.record_count
    told = f"{item.matched:,} stored, {item.left:,} records left to read"
    return {
        "id": item.id,
        "subscription_id": item.subscription_id,
        "state": State(item.state, _KINDS.get(item.state, "")),
        "chart": "" if done is None else charts.share(done, f"{done:.0%} read"),
        "progress": told,
        "began": item.created_at,
        "running": item.state == "unfinished",
    }


def _cancel(sources: Sources, visit: Visit) -> Response:
    for_all_tenants(visit.caller)
    number = int(visit.path["id"])
    if not replays.cancel(sources.registry.engine, number, sources.clock()):
        raise Refusal(HTTPStatus.CONFLICT, f"Replay {number} has ended already.")
    return to("/replays", "cancelled")
