"""The words on the wire of the admin port; what it answers is in `service.lanes`."""

from msgspec import Struct


class Activation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a version is made current. pin: until it is unpinned. force: although the guard refused it."""

    pin: bool = True
    force: bool = False
