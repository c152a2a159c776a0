"""HTTP of the item store."""

import re
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.events import Id
from service.scoring.item_schemas import ItemFeatures, ItemResult, ItemsRequest, ItemsResponse, StoredItem
from service.scoring.openapi import operation
from service.scoring.routes import PATIENCE, Direct, Scorer

ITEM, BATCH = "/v1/items/{id}", "/v1/items:batch"

#: As in `routes`.
LIMITED = (ITEM, BATCH)


class _OfItem(Direct):
    """A route that ends with an item's id, in which a slash and a line break are as good as any character."""

    def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self.path_regex = re.compile("(?s)" + re.escape(path).replace(r"\{id\}", "(?P<id>.*)") + r"\Z")


router = APIRouter(route_class=_OfItem)


@router.put(
    ITEM,
    **operation(
        "Store an item",
        ItemResult,
        body=ItemFeatures,
        refusals=(400, 413, 422, 503, 507),
        parameters={"id": Id},
        headers=PATIENCE,
    ),
)
async def put(request: Request) -> Response:
    scorer: Scorer = request.state.scorer
    async with scorer.patience(request) as patience:
        body = await scorer.body(request)
    return _json(await scorer.items.put(request.path_params["id"], body, left_s=patience.left_s))


@router.get(ITEM, **operation("An item as it was stored", StoredItem, refusals=(404, 422, 503), parameters={"id": Id}))
async def get(request: Request) -> Response:
    scorer: Scorer = request.state.scorer
    return _json(await scorer.items.get(request.path_params["id"]))


@router.delete(ITEM, **operation("Forget an item", ItemResult, refusals=(404, 422, 503), parameters={"id": Id}))
async def delete(request: Request) -> Response:
    scorer: Scorer = request.state.scorer
    return _json(await scorer.items.delete(request.path_params["id"]))


@router.post(
    BATCH, **operation("Store items", ItemsResponse, body=ItemsRequest, refusals=(400, 413, 422, 503), headers=PATIENCE)
)
async def put_batch(request: Request) -> Response:
    scorer: Scorer = request.state.scorer
    async with scorer.patience(request) as patience:
        body = await scorer.body(request)
    return _json(await scorer.items.put_batch(body, left_s=patience.left_s))


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
