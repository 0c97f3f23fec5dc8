"""New subscriptions from people: the command line's and the API's one way in."""

from ipaddress import ip_network

from sqlalchemy import Engine

from consumer.matching import subscriptions
from consumer.sending.egress import EgressPolicy

# Refuses what no worker's settings can allow. Networks and plain http are the workers' to judge: this process may not
# have their settings.
ANY_SETTINGS = EgressPolicy((ip_network("0.0.0.0/0"), ip_network("::/0")), allow_http=True)


def register(engine: Engine, url: str, event_type: str) -> int:
    """Add a subscription and return its id. InvalidSubscription, before the database is asked, if it cannot work."""
    return subscriptions.add(engine, url, event_type, policy=ANY_SETTINGS)
