"""`agerank models pin`: no change for now."""

from typing import Annotated

import typer

from scripts.models.lane import AsJson, Config, opened, tell
from service import lanes


def pin(
    version: Annotated[int | None, typer.Argument(min=0, help="Default: the one that serves.")] = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """Hold on to the current version, or to another one: the trainer writes versions on, and none of them serves.

    `agerank models pin VERSION` is `agerank models activate VERSION`. `agerank models unpin` ends it.
    """
    with opened(config) as lane:
        chosen = lanes.pin(lane.store, True) if version is None else lanes.activate(lane.store, version)
        tell(lane, chosen, as_json=json)
