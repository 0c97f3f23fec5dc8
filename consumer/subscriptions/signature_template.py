"""Signatures in the form that receivers of another service check already. Pure."""

from typing import Any, Literal, NamedTuple, get_args

import orjson

from consumer.http.header_rules import check_name, is_free, is_value

Digest = Literal["sha256", "sha512"]
Encoding = Literal["hex", "base64"]
_IN_VALUE, _IN_SIGNED = ("signature", "timestamp", "id"), ("body", "timestamp", "id")
_MEMBERS = ("header", "value", "signed", "digest", "encoding", "timestamp_header")


class SignatureTemplate(NamedTuple):
    """A `header` whose `value` has an HMAC of what is `signed`.

    Both are texts with names in braces: `{signature}` in the value, `{body}` at the end of what is signed, and in
    either `{timestamp}` (unix seconds) and `{id}` (the webhook-id). `timestamp_header` has the timestamp alone.
    """

    header: str
    value: str = "{signature}"
    signed: str = "{body}"
    digest: Digest = "sha256"
    encoding: Encoding = "hex"
    timestamp_header: str | None = None

    @property
    def headers(self) -> tuple[str, ...]:
        """The names of its headers, in lower case."""
        return tuple(name.lower() for name in (self.header, self.timestamp_header) if name is not None)


# By the documentation of each: docs.stripe.com/webhooks/signature, docs.github.com/webhooks (validating deliveries),
# shopify.dev/docs/apps/build/webhooks (verify deliveries), api.slack.com/authentication/verifying-requests-from-slack,
# developer.paddle.com/webhooks/signature-verification.
PRESETS = {
    "stripe": SignatureTemplate("Stripe-Signature", "t={timestamp},v1={signature}", "{timestamp}.{body}"),
    "github": SignatureTemplate("X-Hub-Signature-256", "sha256={signature}"),
    "shopify": SignatureTemplate("X-Shopify-Hmac-SHA256", encoding="base64"),
    "slack": SignatureTemplate(
        "X-Slack-Signature",
        "v0={signature}",
        "v0:{timestamp}:{body}",
        timestamp_header="X-Slack-Request-Timestamp",
    ),
    "paddle": SignatureTemplate("Paddle-Signature", "ts={timestamp};h1={signature}", "{timestamp}:{body}"),
}


def parse_signature_template(text: str) -> SignatureTemplate:
    """The name of a preset, or a JSON object with the members of a SignatureTemplate. Raises ValueError."""
    if text in PRESETS:
        return PRESETS[text]
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ValueError(f"is neither {', '.join(PRESETS)} nor a JSON object") from None
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        raise ValueError("is not a JSON object of texts")
    if unknown := found.keys() - set(_MEMBERS):
        raise ValueError(f"has {', '.join(sorted(unknown))}; there are {', '.join(_MEMBERS)}")
    if "header" not in found:
        raise ValueError("lacks header, the name of the header")
    return _checked(SignatureTemplate(**found))


def _checked(template: SignatureTemplate) -> SignatureTemplate:
    for name in filter(None, (template.header, template.timestamp_header)):
        check_name(name)
    for name in template.headers:
        if not is_free(name) or name == "user-agent":
            raise ValueError(f"names {name}, which already has another purpose")
    if len(set(template.headers)) != len(template.headers):
        raise ValueError("names a header twice")
    if template.digest not in get_args(Digest) or template.encoding not in get_args(Encoding):
        raise ValueError("has another digest than sha256 and sha512, or another encoding than hex and base64")
    if not template.signed.endswith("{body}") or template.signed.count("{body}") > 1:
        raise ValueError("has something signed that does not end with {body}")
    if "{signature}" not in template.value:
        raise ValueError("has a value without {signature}")
    for text, names in ((template.value, _IN_VALUE), (template.signed, _IN_SIGNED)):
        if not is_value(text) or text != text.strip():
            raise ValueError("may hold visible ASCII only, and spaces inside")
        _filled(text, dict.fromkeys(names, ""))
    return template


def _filled(text: str, values: dict[str, Any]) -> str:
    """The text with its names replaced. Raises ValueError."""
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    if "{" in text or "}" in text:
        raise ValueError(f"has braces around something else than {', '.join(values)}")
    return text
