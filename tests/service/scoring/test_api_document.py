"""docs/api.md says what the scorer does: its examples are sent, its tables are compared."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import httpx
import pytest
from fastapi.testclient import TestClient

from service.checkpoints import LocalStore, Manifest
from service.connections import connect_async
from service.events import Event
from service.scoring.admin import Admin, create_admin
from service.scoring.item_schemas import ItemCode, ItemResult
from service.scoring.problems import TITLES
from service.scoring.schemas import (
    Candidate,
    Context,
    EventResult,
    Explain,
    Gate,
    Model,
    RankedItem,
    RankRequest,
    RankResponse,
    User,
    WarningCode,
)
from service.settings import Settings
from service.streams import StreamNames

TEXT = (Path(__file__).parents[3] / "docs/api.md").read_text()
(SPEC,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)


class Example(NamedTuple):
    method: str
    path: str
    body: str
    status: int
    answer: Any


EXAMPLES = [
    Example(method, path, body, int(status), json.loads(answer))
    for method, path, body, status, answer in re.findall(
        r"```http\n(\w+) (\S+)\n\n?(.*?)```\n\n```json (\d+)\n(.*?)```", TEXT, re.DOTALL
    )
]


@pytest.fixture(scope="module")
def api(
    tmp_path_factory: pytest.TempPathFactory,
    redis_url: str,
    publish: Callable[..., Manifest],
    serving: Callable[..., AbstractContextManager[httpx.Client]],
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("document")
    settings = Settings(data_dir=folder, redis_url=redis_url, redis_prefix=folder.name, swap_poll_s=0.02)
    publish(settings.checkpoints, spec=SPEC)
    with serving(settings) as client:
        yield client


@pytest.fixture
def admin(tmp_path: Path, redis_url: str, publish: Callable[..., Manifest]) -> Iterator[TestClient]:
    publish(tmp_path, spec=SPEC)
    client, names = connect_async(redis_url, name="test-admin"), StreamNames(tmp_path.name, 1)
    admin = Admin(store=LocalStore(tmp_path), lane="default", client=client, names=names, maxlen=1)
    app = create_admin(admin, "a token")
    with TestClient(app, headers={"Authorization": "Bearer a token"}) as answers:
        yield answers
        assert answers.portal is not None
        answers.portal.call(client.aclose)


def shape(value: Any) -> Any:
    """A document without its numbers, and without what follows from them: which item stands where."""
    if isinstance(value, dict):
        return {key: "an item" if key == "id" else shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shape(one) for one in value]
    return type(value).__name__ if isinstance(value, int | float) else value


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: f"{one.method} {one.path} {one.status}")
def test_every_example_is_answered_as_printed(request: pytest.FixtureRequest, example: Example) -> None:
    port = "admin" if example.path.startswith("/v1/models/default/") else "api"
    answer = request.getfixturevalue(port).request(example.method, example.path, content=example.body or None)
    assert answer.status_code == example.status
    assert shape(answer.json()) == shape(example.answer), json.dumps(answer.json(), indent=2)


def test_every_route_has_an_example() -> None:
    assert len(EXAMPLES) == TEXT.count("```http\n") >= 10


def named(heading: str) -> set[str]:
    """What the first cells of the tables below a heading name, without the mark of what may be left out."""
    section = re.split(r"^#+ ", TEXT.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    cells = re.findall(r"^\| (`[^|]+`) \|", section, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+?)\??`", cell)}


def fields_of(struct: Any, prefix: str = "") -> set[str]:
    return {prefix + name for name in struct.__struct_encode_fields__}


def test_every_error_code_is_explained() -> None:
    assert named("Errors") == set(TITLES)


def test_every_field_of_a_ranking_is_explained() -> None:
    whole = (fields_of(RankRequest) | fields_of(RankResponse)) - {"user", "context", "model"}
    whole |= fields_of(User, "user.") | fields_of(Context, "context.") | fields_of(Candidate, "candidates[].")
    whole |= fields_of(Model, "model.") | fields_of(RankedItem, "items[].")
    assert named("POST /v1/rank") == whole
    assert named("explain") == fields_of(Explain) - {"gate"} | fields_of(Gate, "gate.")
    assert named("Warnings") == set(get_args(WarningCode))


def test_every_field_of_an_event_is_explained() -> None:
    codes = set(get_args(get_args(get_type_hints(EventResult)["code"])[0]))
    results = set(get_args(get_type_hints(EventResult)["result"]))
    assert named("POST /v1/events") == fields_of(Event) | results | codes


def test_every_result_of_an_item_is_explained() -> None:
    results = set(get_args(get_type_hints(ItemResult)["result"]))
    assert named("Items") == results | set(get_args(ItemCode))
