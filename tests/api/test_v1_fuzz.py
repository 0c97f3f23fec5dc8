"""Schemathesis on the whole API: answers agree with the description, and no request causes a server error."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlalchemy import Engine

from consumer.api.tokens import TokenFile
from consumer.ops.overview import overview
from consumer.ops.replay_request import Log
from tests.api.test_v1_observed import History, attempt
from tests.api.v1_kit import GROUP, Api, make_api, token_file
from tests.kafka_kit import Kafka, unique

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 25  # for each operation and mode


@pytest.fixture
def api(engine: Engine, tmp_path: Path, mock_kafka: str) -> Api:
    """The application with a log, an attempt history, and the topics that workers write."""
    kafka = Kafka(mock_kafka, real=False)
    others = {"operations_topic": unique("operations"), "attempts_topic": unique("attempts")}
    where = kafka.settings(group=GROUP).model_copy(update=others)
    topic = kafka.topic()
    kafka.write(topic, [b'{"type": "order.created"}'] * 3, partition=0)
    place = {"topic": topic, "partition": "0", "offset": "0", "reason": "not_json"}
    headers = [(f"dead-letter-{name}", text.encode()) for name, text in place.items()]
    kafka.write(where.dead_letter_topic, [b"\xff"] * 3, partition=0, headers=headers)
    told = {"source": where.event_source, "type": "subscription.created", "time": "2026-07-28T14:00:00Z", "data": {}}
    kafka.write(where.operations_topic, [json.dumps(told).encode()] * 3)
    kafka.write(others["attempts_topic"], [b"{}"])
    return make_api(
        engine,
        TokenFile(token_file(tmp_path / "tokens.toml")),
        kafka=where,
        log=Log(where, [topic]),
        history=History([attempt(1)]),
        look=lambda: overview(engine, None, ()),
    )


UNBATCHED = {"batch_size": None}
BESIDE: dict[str, dict[str, Any]] = {  # members that others need
    "reason": {"state": "paused"},
    "answer_headers": {"report_answer": True} | UNBATCHED,
    **dict.fromkeys(("header_expressions", "pass_headers", "report_answer"), UNBATCHED),
}


def _examples(members: dict[str, Any], required: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each member that has an example, and the values of a request with it and what is required."""
    shown = {name: schema["examples"][0] for name, schema in members.items() if schema.get("examples")}
    for name in shown:
        yield name, {each: shown[each] for each in (*required, name)} | BESIDE.get(name, {})


def test_no_example_of_the_description_is_refused(api: Api) -> None:
    """Each example of a member of a body and of a parameter of a query is sent, with what its request requires."""
    description = requests.get(f"{api.url}/openapi.json", timeout=60).json()
    api.create(external_id="its own")
    sent, wrong = 0, []
    for path, methods in description["paths"].items():
        for method, operation in {} if path.endswith("/tls") else methods.items():  # its PEM is cut
            queries = [each for each in operation.get("parameters", ()) if each["in"] == "query"]
            asked = {each["name"]: each["schema"] | each for each in queries}
            content = operation.get("requestBody", {}).get("content", {})
            schema = next(iter(content.values()))["schema"] if content else {}
            body = description["components"]["schemas"].get(schema.get("$ref", "").rpartition("/")[2], {})
            needed = [each["name"] for each in queries if each.get("required")]
            for kind, members, required in (
                ("params", asked, needed),
                ("json", body.get("properties", {}), body.get("required", [])),
            ):
                for name, values in _examples(members, required):
                    place = re.sub(r"\{[a-z_]+\}", "1", path)
                    headers = {"authorization": "Bearer all"}
                    sending: dict[str, Any] = {"headers": headers, "timeout": 60, kind: values}
                    answer = requests.request(method, api.url + place, **sending)  # noqa: S113 (it has one)
                    problem = answer.json() if answer.status_code == 422 else {}
                    sent += 1
                    wrong += [(path, name, each) for each in problem.get("errors", ()) if name in str(each)]
    assert not wrong, "\n".join(map(str, wrong))
    assert sent > 100


def test_no_request_breaks_it(api: Api) -> None:
    """Each answer has a status, media type and body of the description, and is not a server error."""
    for _ in range(2):
        api.create(secrets=[{"kind": "bearer", "secret": "t"}, {"kind": "signing", "secret": "s"}])
    schema = schemathesis.openapi.from_url(f"{api.url}/openapi.json").include(path_regex="^/(v1/|register)")
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    statuses = set()
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            def call(case: Any) -> None:
                for name, value in case.path_parameters.items():
                    if isinstance(value, int) and value >= 0:
                        case.path_parameters[name] = value % 3  # some are there
                answer = case.call(headers={"authorization": "Bearer all"}, timeout=60)
                statuses.add(answer.status_code)
                case.validate_response(answer, checks=CHECKS)

            strategy: st.SearchStrategy[Any] = operation.as_strategy(generation_mode=mode)
            run = settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            )(given(case=strategy)(call))
            run()
    assert len(operations) == 38
    assert {200, 204, 404, 409, 422} <= statuses
