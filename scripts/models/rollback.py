"""`agerank models rollback`: the one before."""

from scripts.models.lane import AsJson, Config, opened, tell
from service import lanes


def rollback(config: Config = None, json: AsJson = False) -> None:
    """Go back to the newest full version before the current one, and pin it.

    A version that is damaged is passed over, and one that the guard refused is none. Called again, it goes back
    further. When the trouble is over: `agerank models unpin`, and the trainer's next version serves.
    """
    with opened(config) as lane:
        tell(lane, lanes.rollback(lane.store), as_json=json)
