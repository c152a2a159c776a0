"""The error model is held to what its drawing says."""

import re

import pytest

from service import errors
from service.errors import (
    BadRequest,
    CheckpointError,
    Conflict,
    EventError,
    Full,
    Internal,
    Invalid,
    MethodNotAllowed,
    NotFound,
    ServiceError,
    StreamError,
    TooLarge,
    Unauthorized,
    Unavailable,
)

STATUS = {
    BadRequest: 400,
    NotFound: 404,
    MethodNotAllowed: 405,
    Unauthorized: 401,
    Conflict: 409,
    TooLarge: 413,
    Invalid: 422,
    Full: 507,
    Internal: 500,
    Unavailable: 503,
}
INTERNAL = (EventError, CheckpointError, StreamError)


@pytest.mark.parametrize(("kind", "status"), STATUS.items(), ids=lambda one: getattr(one, "__name__", str(one)))
def test_each_class_answers_with_its_status(kind: type[ServiceError], status: int) -> None:
    assert kind("code", "detail").status == status


def test_every_class_is_known_here() -> None:
    assert set(ServiceError.__subclasses__()) == {*STATUS, *INTERNAL}


def test_the_drawing_at_the_top_is_the_tree() -> None:
    drawn = dict(re.findall(r"^    [|`]-- (\w+) +(\d{3})?", errors.__doc__ or "", re.MULTILINE))
    assert drawn == {kind.__name__: str(STATUS.get(kind, "")) for kind in ServiceError.__subclasses__()}


def test_an_error_tells_people_and_machines() -> None:
    error = Invalid("duplicate_candidate", "item-7 is listed twice", path="candidates[3].id")
    assert (error.code, error.detail, error.path) == (
        "duplicate_candidate",
        "item-7 is listed twice",
        "candidates[3].id",
    )
    assert str(error) == "duplicate_candidate: item-7 is listed twice"


def test_only_what_may_pass_by_itself_asks_to_be_sent_again() -> None:
    again = {kind for kind in (*STATUS, *INTERNAL) if kind.retry_after_s is not None}
    assert again == {Unavailable}
