"""Every way the service says no.

    ServiceError                    code, HTTP status, a sentence for a person
    |-- BadRequest            400   malformed_json, invalid_header
    |-- NotFound              404   not_found
    |-- MethodNotAllowed      405   method_not_allowed
    |-- Unauthorized          401   unauthorized
    |-- Conflict              409   version_unusable, version_refused, no_current_version, no_earlier_version
    |-- TooLarge              413   body_too_large, item_too_large, too_many_candidates, too_many_events, too_many_items
    |-- Invalid               422   invalid_request, duplicate_candidate, unknown_strategy, unknown_feature, feature_*
    |-- Internal              500   internal
    |-- Full                  507   items_full
    |-- Unavailable           503   not_ready, draining, overloaded, deadline_exceeded, log_*, store_* (Retry-After)
    |-- EventError                  a stream entry that cannot be read: dead-lettered with its code
    |-- CheckpointError             a version that may not be served: refused with its code
    `-- StreamError                 Redis cannot do what the log needs

The HTTP classes are answered as RFC 9457 problems by `service.scoring.app`; the last three never reach a caller.
"""

from typing import ClassVar


class ServiceError(Exception):
    """Base of all errors that the service raises on purpose.

    Args:
        code: stable and machine-readable; documented in docs/api.md.
        detail: what is wrong with this very request, for a person.
        path: where in the body, e.g. "candidates[3].id".
    """

    status: ClassVar[int] = 500
    retry_after_s: ClassVar[int | None] = None

    def __init__(self, code: str, detail: str, *, path: str | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.detail, self.path = code, detail, path


class BadRequest(ServiceError):
    """The body is not JSON, or a header is wrong."""

    status = 400


class NotFound(ServiceError):
    """No such route or resource."""

    status = 404


class MethodNotAllowed(ServiceError):
    """The route exists, the method does not."""

    status = 405


class Unauthorized(ServiceError):
    """The admin port is for who has the token."""

    status = 401


class Conflict(ServiceError):
    """What is there does not allow it."""

    status = 409


class TooLarge(ServiceError):
    """More bytes, candidates, events or items than a request may carry, or an item may have."""

    status = 413


class Invalid(ServiceError):
    """JSON that does not say what the API asks for."""

    status = 422


class Internal(ServiceError):
    """A fault of ours."""

    status = 500


class Full(ServiceError):
    """There is no room for more."""

    status = 507


class Unavailable(ServiceError):
    """Not now; the same request may succeed later."""

    status = 503
    retry_after_s = 1


class EventError(ServiceError):
    """A stream entry that cannot be read or used. Goes to the dead-letter stream."""


class CheckpointError(ServiceError):
    """A checkpoint that is missing, corrupt or not for this scorer."""


class StreamError(ServiceError):
    """Redis cannot do what the log needs of it."""
