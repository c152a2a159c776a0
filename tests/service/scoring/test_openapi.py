"""/openapi.json is complete and true: every route is in it, and what the routes answer fits what it says."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from fastapi.routing import APIRoute

from service.scoring import item_routes, item_schemas, routes, schemas, status
from service.scoring.app import create_app
from service.scoring.problems import Problem
from service.settings import Settings


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Through JSON, as a reader gets it."""
    app = create_app(Settings())
    return msgspec.json.decode(msgspec.json.encode(app.openapi()))


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(one)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def test_it_has_every_route_and_no_other(document: dict[str, Any]) -> None:
    both = [*routes.router.routes, *item_routes.router.routes]
    served = {(route.path, method) for route in both if isinstance(route, APIRoute) for method in route.methods}
    assert {(path, method) for path, method, _ in operations(document)} == served
    assert {("/v1/rank", "POST"), ("/v1/events", "POST"), ("/metrics", "GET")} < served


def test_every_reference_leads_somewhere_and_every_component_is_used(document: dict[str, Any]) -> None:
    references = {node["$ref"] for node in nodes(document) if "$ref" in node}
    components = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references == components


def test_it_is_openapi(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "agerank"
    identities = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(identities)) == len(identities)
    for path, _, operation in operations(document):
        named = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path" and one["required"]}
        assert named == set(re.findall(r"{(\w+)}", path))
        assert operation["summary"]
        for code, response in operation["responses"].items():
            assert re.fullmatch(r"\d{3}", code)
            assert response["description"]
            (media_type,) = response["content"]
            assert ("problem" in media_type) == (int(code) >= 400)
            assert media_type == "text/plain" or "$ref" in response["content"][media_type]["schema"]


def test_work_has_a_body_and_all_its_refusals(document: dict[str, Any]) -> None:
    for path, ok in (("/v1/rank", "200"), ("/v1/events", "202"), ("/v1/items:batch", "200")):
        operation = document["paths"][path]["post"]
        assert operation["requestBody"]["required"]
        assert set(operation["responses"]) == {ok, "400", "413", "422", "500", "503"}


def test_limits_and_what_may_be_left_out_are_said(document: dict[str, Any]) -> None:
    components = document["components"]["schemas"]
    request = components["RankRequest"]
    assert request["required"] == ["candidates"]
    assert request["additionalProperties"] is False
    assert request["properties"]["candidates"]["minItems"] == 1
    item_id = {"type": "string", "minLength": 1, "maxLength": 256}
    assert components["Candidate"]["properties"]["id"] == item_id
    for operation in document["paths"]["/v1/items/{id}"].values():
        assert operation["parameters"][0]["schema"] == item_id
    patience = {"type": "integer", "minimum": 1, "exclusiveMaximum": 10**9}
    for path in ("/v1/rank", "/v1/events", "/v1/items:batch"):
        (parameter,) = document["paths"][path]["post"]["parameters"]
        assert parameter == {"name": "X-Deadline-Ms", "in": "header", "required": False, "schema": patience}
    assert set(components["Event"]["required"]) == {"id", "type", "request_id", "item_id"}
    assert "propensity" not in components["RankedItem"]["required"]


STRUCTS = [
    schemas.RankRequest,
    schemas.RankResponse,
    schemas.EventsResponse,
    item_schemas.ItemFeatures,
    item_schemas.ItemsRequest,
    item_schemas.ItemsResponse,
    item_schemas.StoredItem,
    status.ModelSummary,
    status.Ready,
    Problem,
]


@pytest.mark.parametrize("struct", STRUCTS)
def test_a_schema_names_what_is_sent(document: dict[str, Any], struct: Any) -> None:
    """The names on the wire, not those in the code."""
    assert set(document["components"]["schemas"][struct.__name__]["properties"]) == set(struct.__struct_encode_fields__)
    assert document["components"]["schemas"][struct.__name__]["description"]


def test_lambda_is_called_lambda(document: dict[str, Any]) -> None:
    assert "lambda" in document["components"]["schemas"]["StrategySummary"]["properties"]
