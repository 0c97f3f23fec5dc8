"""The rights that Kafka's ACLs give this user, as brokers report them."""

from collections.abc import Collection

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient  # type: ignore[attr-defined]  # re-exported

_TIMEOUT = 5.0  # seconds


def without(operation: AclOperation, topics: Collection[str], admin: AdminClient) -> list[str]:
    """The topics on which this user lacks the right to `operation`; a topic that it may not even see is one of them.

    If brokers do not report it, or a topic does not exist, the right counts as given.
    """
    if not topics:
        return []
    asked = admin.describe_topics(
        TopicCollection(list(topics)), include_authorized_operations=True, request_timeout=_TIMEOUT
    )
    found = []
    for topic, answer in asked.items():
        try:
            allowed = answer.result().authorized_operations
        except KafkaException as error:
            denied = error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
        else:
            denied = allowed is not None and operation not in allowed
        if denied:
            found.append(topic)
    return found
