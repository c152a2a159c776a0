"""`agerank models activate`: this one shall serve."""

from typing import Annotated

import typer

from scripts.models.lane import AsJson, Config, Version, opened, tell
from service import lanes


def activate(
    version: Version,
    pin: Annotated[
        bool, typer.Option(help="Keep it until `agerank models unpin`; else until the next publish.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Although the guard refused it.")] = False,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """Make a version the one that the scorers serve, after every file of it was compared with its hash.

    It is pinned: the trainer learns and writes versions on, and they wait. With `--no-pin` the next one takes its
    place, at most `publish_interval_s` later. Scorers swap at once where Redis is up, else within `swap_poll_s`; one
    that finds it unfit for itself goes on with what it has, and counts a refusal.
    """
    with opened(config) as lane:
        tell(lane, lanes.activate(lane.store, version, pin=pin, force=force), as_json=json)
