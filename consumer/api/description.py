"""What /openapi.json says beyond the routes: subjects, scopes, problems, and the request that receivers get."""

from typing import Any

from pydantic.json_schema import models_json_schema

from consumer.api.problems import Problem

SERVERS = [{"url": "/", "description": "The server that has given this description."}]
_SUBJECTS = {
    "subscriptions": "URLs that get events of a type or pattern.",
    "secrets": "Signing secrets, credentials and certificates of a subscription; write-only.",
    "deliveries": "Stored deliveries: they wait, are held, or were given up.",
    "events": "Events of the log: who got them, and sending them again.",
    "search": "What a text names: subscriptions, deliveries, replays and events.",
    "attempts": "Past attempts at deliveries, from the attempts topic.",
    "statistics": "What is owed, what fails, and the lag.",
    "event types": "Types and patterns that subscriptions name.",
    "replays": "Events of a time window that a subscription gets once more.",
    "dead letters": "Records that could not become events, and publishing them again.",
    "audit": "What people changed and the service did by itself, and the proof that no delivery is missing.",
    "registration": "The first way to subscribe, which stays as it is.",
    "health": "Whether the process is alive.",
    "receivers": "The request that a receiver gets.",
}
TAGS = [{"name": name, "description": text} for name, text in _SUBJECTS.items()]
_HEADERS = (
    ("webhook-id", True, "The same on each retry, redelivery and replay of the event."),
    ("webhook-timestamp", True, "Unix seconds of this attempt."),
    ("webhook-signature", True, "`v1,` or `v1a,` and base64, one for each valid secret, separated by spaces."),
    ("x-webhook-signature", False, "Hex HMAC-SHA256 of the body, unless the deployment has it off or renamed."),
    ("x-webhook-event", False, "The event type; a batch has it if all its events have one."),
    ("traceparent", False, "Of the record in Kafka, if it has one."),
)
_EVENT = {
    "operationId": "receive_event",
    "tags": ["receivers"],
    "description": "Verify the signature over the exact bytes of the body (Standard Webhooks), answer with a 2xx, and "
    "work later. An event may come more than once, with the same webhook-id.",
    "parameters": [
        {"name": name, "in": "header", "required": required, "description": text, "schema": {"type": "string"}}
        for name, required, text in _HEADERS
    ],
    "requestBody": {
        "required": True,
        "description": "The record's value, byte for byte, unless the subscription asks for another format.",
        "content": {"application/json": {"schema": {}}},
    },
    "responses": {
        "2XX": {"description": "The event is delivered."},
        "410": {"description": "The subscription is disabled."},
        "default": {"description": "The event is sent again, on the retry schedule."},
    },
}


def complete(description: dict[str, Any]) -> None:
    """Add the models of problems, to which the routes' responses refer, the scopes, and the webhooks."""
    _, models = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
    description["components"]["schemas"].update(models["$defs"])
    for name, schema in description["components"]["schemas"].items():
        schema["title"] = name  # generators of clients take it for the class
    description["webhooks"] = {"event": {"post": _EVENT}}
    for methods in description["paths"].values():
        for operation in methods.values():
            # Viewers of OpenAPI show no scopes of a bearer token.
            scopes = [
                f"`{scope}`" for each in operation.get("security", ()) for named in each.values() for scope in named
            ]
            if scopes:
                operation["description"] = f"{operation['description']}\n\nScope: {', '.join(scopes)}."
