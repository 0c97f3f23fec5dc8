"""The consumer of a typical tutorial: for each event one poll, query, `requests.post` with tenacity, and commit.

python tutorial_loop.py BOOTSTRAP TOPIC DATABASE_URL SECRET
"""

import hashlib
import hmac
import json
import os
import sys

import requests
from confluent_kafka import Consumer
from sqlalchemy import create_engine, text
from tenacity import retry, stop_after_attempt, wait_exponential


@retry(stop=stop_after_attempt(5), wait=wait_exponential(multiplier=0.5, max=10))
def deliver(url: str, webhook_id: str, body: bytes, secret: bytes) -> None:
    """POSTs one event to one subscriber."""
    signature = hmac.new(secret, body, hashlib.sha256).hexdigest()
    headers = {"content-type": "application/json", "webhook-id": webhook_id, "x-webhook-signature": signature}
    requests.post(url, data=body, headers=headers, timeout=10).raise_for_status()


def main(bootstrap: str, topic: str, database: str, secret: str) -> None:
    """Consumes for ever."""
    engine = create_engine(database)
    session = int(os.environ.get("SESSION_TIMEOUT_MS", "45000"))
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"tutorial-{topic}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": session,
            "heartbeat.interval.ms": min(3000, session // 4),
        }
    )
    consumer.subscribe([topic])
    query = text("SELECT url FROM webhook_subscriptions WHERE event_type = :type")
    while True:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        body = message.value() or b""
        with engine.connect() as connection:
            urls = connection.execute(query, {"type": json.loads(body)["type"]}).scalars().all()
        for url in urls:
            deliver(url, f"{message.partition()}-{message.offset()}", body, secret.encode())
        consumer.commit(message=message, asynchronous=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
