"""What to change when Kafka, or the token server in front of it, refuses this client. Pure.

librdkafka has few error codes for this, so its texts, which the conditions below quote, have to tell causes apart.
"""

from confluent_kafka import KafkaError

IS_IT_UP = "is it up, are KAFKA_BOOTSTRAP_SERVERS and KAFKA_SECURITY_PROTOCOL right?"
OLD_BROKERS = "set KAFKA_GROUP_PROTOCOL=classic: the other protocol needs Kafka 4.0 or newer"
_CUT_SHORT = "mechanism handshake failed"  # by a lost connection, or within a second of the last authentication
_USER = "check KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
_TOKENS_AUTHORITY = "set KAFKA_HTTPS_CA_LOCATION to the authority of the token server's certificate"
_IN_TEXTS = (  # parts of an error's text with their advice; the first match counts
    ("ConsumerGroupHeartbeat fatal error: Broker: API version", OLD_BROKERS),
    ("trust anchors", _TOKENS_AUTHORITY),
    ("certificate OpenSSL verify", _TOKENS_AUTHORITY),
    ("OAuth callback raised", "the log says why KAFKA_OAUTH_CALLBACK gave no token"),
    ("SASL OAUTHBEARER token", "check KAFKA_SASL_OAUTHBEARER_CLIENT_ID, _CLIENT_SECRET and _TOKEN_ENDPOINT_URL"),
    ("invalid_token", "the brokers do not accept its tokens: compare their life, audience, issuer and scope"),
    ("Unsupported SASL mechanism", "set KAFKA_SASL_MECHANISMS to one that the brokers have there"),
    (
        "certificate verify failed",
        "set KAFKA_SSL_CA_LOCATION to the authority of the brokers' certificates",
    ),
    ("SSL alert number", "check KAFKA_SSL_CERTIFICATE_LOCATION and KAFKA_SSL_KEY_LOCATION: the brokers refuse them"),
    (
        "PLAINTEXT broker listener",
        "check KAFKA_SECURITY_PROTOCOL and the port: the brokers use no TLS there",
    ),
)


def remedy(error: KafkaError, *, topic: str | None = None, group: str = "") -> str | None:
    """What an operator should change; None if `error` is about something other than credentials and rights."""
    code, text = error.code(), error.str()
    if topic and code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return f"allow this service's user Read on the topic {topic}"
    if group and (code == KafkaError.GROUP_AUTHORIZATION_FAILED or "Group authorization failed" in text):
        return f"allow this service's user Read on the group {group}"
    found = next((advice for part, advice in _IN_TEXTS if part in text), None)
    if found is None and code == KafkaError._AUTHENTICATION and _CUT_SHORT not in text:  # noqa: SLF001 (its public name)
        return _USER
    return found


def explained(error: KafkaError, *, topic: str | None = None, group: str = "") -> str:
    """The text of `error`, and what to change if it is about credentials and rights."""
    advice = remedy(error, topic=topic, group=group)
    return error.str() if advice is None else f"{error.str()}; {advice}"
