"""The audit of deliveries: a proof for a short time of the log."""

from starlette.responses import Response

from consumer.api.backing import Backing, of_all_tenants
from consumer.api.delivery_audit import proved
from consumer.api.problems import RequestRefused
from consumer.console.app import PageRoute, Visit
from consumer.console.rendering import numbered
from consumer.errors import WebhooksError
from consumer.ops.delivery_audit import COLUMNS, DeliveryAudit

TIMES = {"600": "ten minutes", "3600": "an hour", "86400": "a day", "604800": "a week"}
SHOWN = 200  # missing deliveries


def _audit(backing: Backing, visit: Visit) -> Response:
    of_all_tenants(visit.caller)
    asked = {name: visit.query.get(name, "").strip() for name in ("seconds", "subscription", "tenant")}
    found: DeliveryAudit | None = None
    fault = None
    if asked["seconds"] in TIMES:
        since = backing.deployment.clock() - int(asked["seconds"])
        try:
            number = numbered(asked["subscription"])
            found = proved(visit.caller, backing, since, None, number, asked["tenant"] or None)
        except RequestRefused as error:
            fault = "; ".join(each.detail for each in error.errors) or str(error)
        except (WebhooksError, ValueError) as error:
            fault = str(error)
    missing = found.missing[:SHOWN] if found else []
    return visit.render(
        "delivery_audit.html",
        asked=asked,
        times=TIMES,
        found=found,
        missing=missing,
        known=backing.receivers(visit.caller, {each.subscription_id for each in missing}),
        fault=fault,
        columns=COLUMNS[2:],
    )


ROUTES = (PageRoute("/audit/deliveries", _audit),)
