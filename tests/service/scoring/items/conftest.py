"""What tests of the item store ask of a scorer."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest


@pytest.fixture(scope="session")
def path() -> Callable[[str], str]:
    """Of an item, whatever stands in its id."""
    return lambda item_id: f"/v1/items/{quote(item_id, safe='')}"


@pytest.fixture(scope="session")
def put(path: Callable[[str], str]) -> Callable[..., httpx.Response]:
    """(client, id, features)."""
    return lambda client, item_id, features: client.put(path(item_id), json={"features": features})


@pytest.fixture(scope="session")
def put_batch() -> Callable[..., list[dict[str, Any]]]:
    """(client, *items) -> the result of each."""

    def put_batch(client: httpx.Client, *items: Any) -> list[dict[str, Any]]:
        answer = client.post("/v1/items:batch", json={"items": items})
        assert answer.status_code == 200, answer.text
        return answer.json()["results"]

    return put_batch


@pytest.fixture(scope="session")
def knows() -> Callable[..., bool]:
    """(client, *ids) -> whether none of them is ranked by its id alone."""

    def knows(client: httpx.Client, *ids: str) -> bool:
        answer = client.post("/v1/rank", json={"candidates": [{"id": one} for one in ids]}).json()
        return "item_unknown" not in answer.get("warnings", [])

    return knows
