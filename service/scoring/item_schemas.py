"""The words on the wire of the item store. The docstrings are the descriptions in /openapi.json."""

from typing import Literal, cast

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from service.errors import Invalid, TooLarge
from service.events import Id
from service.scoring import schemas
from service.scoring.schemas import Features

MAX_ITEM_BYTES = 16 * 1024  # of its features as they are kept: many items are read at once


class ItemFeatures(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an item is. It replaces what was there before: what is left out now is missing."""

    features: Features


class Item(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An item and its features, as they were put."""

    id: Id
    features: Features


class ItemsRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A batch of items. Each stands for itself: a wrong one is rejected alone."""

    items: list[Item]


ItemCode = Literal[
    "invalid_item",
    "item_too_large",
    "unknown_feature",
    "feature_type",
    "feature_not_finite",
    "feature_too_many_values",
    "items_full",
]


class ItemResult(Struct, frozen=True, kw_only=True):
    """What became of one item. id is null where the item had none that could be read."""

    id: str | None
    result: Literal["created", "updated", "unchanged", "deleted", "rejected"]
    code: ItemCode | UnsetType = UNSET
    path: str | UnsetType = UNSET
    detail: str | UnsetType = UNSET


class ItemsResponse(Struct, frozen=True, kw_only=True):
    """One result an item, in the order of the request."""

    results: list[ItemResult]


class StoredItem(Struct, frozen=True, kw_only=True):
    """The answer to GET, its features still the JSON that is in Redis."""

    id: str
    features: Raw


class _RawItems(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    items: list[Raw]


_features = msgspec.json.Decoder(ItemFeatures)
_item = msgspec.json.Decoder(Item)
_raw_items = msgspec.json.Decoder(_RawItems)


def check_id(item_id: str) -> str:
    """An id from a path. Raises Invalid invalid_request."""
    try:
        msgspec.convert(item_id, Id)
    except msgspec.ValidationError as error:
        raise Invalid("invalid_request", f"the item's id: {error}") from None
    if "\ufffd" in item_id:  # what a path has where its bytes are no text
        raise Invalid("invalid_request", "the item's id is not UTF-8")
    return item_id


def decode_features(body: bytes) -> Features:
    """Of PUT. Raises BadRequest malformed_json, Invalid invalid_request, TooLarge item_too_large."""
    features = schemas.decode(body, _features).features
    _check_size(features)
    return features


def decode_items(body: bytes, *, max_items: int) -> list[Item | ItemResult]:
    """Each item of a batch, or why it is rejected.

    Raises BadRequest malformed_json, Invalid invalid_request, TooLarge too_many_items.
    """
    items = schemas.decode(body, _raw_items).items
    if len(items) > max_items:
        raise TooLarge("too_many_items", f"{len(items)} items, at most {max_items} allowed", path="items")
    return [_read(raw) for raw in items]


def rejected(item_id: str | None, code: str, detail: str, *, path: str | None = None) -> ItemResult:
    """The result of an item of a batch that has a fault."""
    return ItemResult(id=item_id, result="rejected", code=cast("ItemCode", code), path=path or UNSET, detail=detail)


def _read(raw: Raw) -> Item | ItemResult:
    try:
        item = _item.decode(raw)
        _check_size(item.features)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        fault = schemas.invalid(error)
        return rejected(schemas.id_of(raw), "invalid_item", fault.detail, path=fault.path)
    except TooLarge as error:
        return rejected(item.id, error.code, error.detail, path=error.path)
    return item


def _check_size(features: Features) -> None:
    """Raises TooLarge item_too_large."""
    size = len(schemas.encode(features))
    if size > MAX_ITEM_BYTES:
        raise TooLarge("item_too_large", f"{size} bytes of JSON, at most {MAX_ITEM_BYTES} allowed", path="features")
