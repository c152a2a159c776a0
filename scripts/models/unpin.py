"""`agerank models unpin`: the trainer may go on."""

from scripts.models.lane import AsJson, Config, opened, tell
from service import lanes


def unpin(config: Config = None, json: AsJson = False) -> None:
    """Let the trainer's versions serve again, from the next one on. The current one stays until that comes.

    To have the newest one now: `agerank models activate VERSION --no-pin`.
    """
    with opened(config) as lane:
        tell(lane, lanes.pin(lane.store, False), as_json=json)
