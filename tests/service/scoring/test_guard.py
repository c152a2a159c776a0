"""The outermost layer: nothing unexpected leaves it, and everything is counted once."""

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

from service.scoring.guard import Guard
from service.telemetry import ScorerMetrics


@pytest.fixture
def metrics() -> ScorerMetrics:
    return ScorerMetrics(CollectorRegistry())


@pytest.fixture
def client(metrics: ScorerMetrics) -> TestClient:
    app = FastAPI()

    @app.get("/fine")
    async def fine() -> Response:
        return Response(status_code=204)

    @app.get("/fault")
    async def fault() -> Response:
        raise ZeroDivisionError("the secret of /etc")

    @app.get("/half")
    async def half(request: Request) -> Response:
        async def parts():
            yield b"half"
            raise ZeroDivisionError

        return StreamingResponse(parts())

    app.add_middleware(Guard, limited={"/fine"}, max_in_flight=1, max_unread_bytes=9, metrics=metrics)
    return TestClient(app)


def counted(metrics: ScorerMetrics, route: str, status: str) -> float | None:
    return metrics.registry.get_sample_value("agerank_requests_total", {"route": route, "status": status})


def test_a_fault_is_a_problem_that_gives_nothing_away(
    client: TestClient, metrics: ScorerMetrics, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = client.get("/fault")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text
    assert "secret" in capsys.readouterr().out  # the log has it
    assert counted(metrics, "/fault", "500") == 1


def test_a_fault_in_the_middle_of_an_answer_sends_no_second_one(client: TestClient, metrics: ScorerMetrics) -> None:
    answer = client.get("/half")
    assert (answer.status_code, answer.content) == (200, b"half")
    assert counted(metrics, "/half", "200") == 1


def test_every_place_is_given_back(client: TestClient, metrics: ScorerMetrics) -> None:
    assert [client.get("/fine").status_code for _ in range(3)] == [204] * 3  # one at a time fits
    client.get("/fault")
    assert metrics.registry.get_sample_value("agerank_requests_in_flight") == 0
    assert metrics.registry.get_sample_value("agerank_request_seconds_count", {"route": "/fine"}) == 3
