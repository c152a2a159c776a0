"""The body of POST /v1/rank, decoded straight into what the encoder takes."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, defstruct

from models.features import Row, Rows
from service.errors import Invalid, TooLarge
from service.scoring import schemas
from service.scoring.schemas import Candidate, Context, RankRequest, User

_plain = msgspec.json.Decoder(RankRequest)


class RankDecoder:
    """Decodes requests whose features are those of one spec.

    Args:
        rows: of its encoder. Features come as these structs, and as dictionaries only where something is wrong: the
            encoder then says what.
    """

    def __init__(self, rows: Rows) -> None:
        user, context, candidate = _with(User, rows.user), _with(Context, rows.context), _with(Candidate, rows.item)
        fields: list[tuple[str, Any, Any] | tuple[str, Any]] = [
            ("candidates", Annotated[list[candidate], Meta(min_length=1)]),  # type: ignore[valid-type]
            ("user", user, user()),
            ("context", context, context()),
        ]
        request: type[Any] = defstruct("RankRequest", fields, bases=(RankRequest,), **_LIKE_OURS)
        self._typed: msgspec.json.Decoder[RankRequest] = msgspec.json.Decoder(request)

    def decode(self, body: bytes, *, max_candidates: int) -> RankRequest:
        """Raises BadRequest malformed_json, Invalid invalid_request, duplicate_candidate, TooLarge too_many_candidates.

        An unknown feature is left to the encoder.
        """
        try:
            request = self._typed.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            request = schemas.decode(body, _plain)
        count = len(request.candidates)
        if count > max_candidates:
            detail = f"{count} candidates, at most {max_candidates} allowed"
            raise TooLarge("too_many_candidates", detail, path="candidates")
        _refuse_duplicates([candidate.id for candidate in request.candidates])
        return request


_LIKE_OURS: dict[str, Any] = {"frozen": True, "kw_only": True, "forbid_unknown_fields": True}


def _with(struct: type[Struct], row: type[Row]) -> type[Struct]:
    """The same struct, its features of one type."""
    return defstruct(struct.__name__, [("features", row | None, None)], bases=(struct,), gc=False, **_LIKE_OURS)


def _refuse_duplicates(ids: Sequence[str]) -> None:
    if len(set(ids)) == len(ids):
        return
    first: dict[str, int] = {}
    for place, one in enumerate(ids):
        if one in first:
            detail = f"candidate {one!r} stands at {first[one]} already"
            raise Invalid("duplicate_candidate", detail, path=f"candidates[{place}].id")
        first[one] = place
