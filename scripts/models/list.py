"""`agerank models list`: what there is."""

from rich.table import Table

from scripts.models.lane import AsJson, Config, opened, print_rows
from scripts.outputs import for_tables
from service.lanes import Version, overview


def list(config: Config = None, json: AsJson = False) -> None:
    """List all versions of the lane, newest first: which one serves, and what became of the others.

    `current` is what the scorers shall serve; a pin says that the trainer leaves it so. `refused` ones were kept aside
    by the guard, with its reason; `unreadable` ones are damaged. Log loss and PCOC are progressive, over what was
    learned since the version before.
    """
    with opened(config) as lane:
        found = overview(lane.store, lane.settings.lane)
    if json:
        print_rows([*found.versions])
        return
    named = "no version" if found.current is None else f"version {found.current}"  # which may not be there
    table = Table(title=f"lane {found.lane}: {named} is current", title_justify="left")
    for title in ("version", "state", "created", "newest event", "rests on", "log loss", "PCOC", "reason"):
        table.add_column(title, justify="right" if title in ("version", "rests on", "log loss", "PCOC") else "left")
    for one in found.versions:
        state = "current, pinned" if one.state == "current" and found.pinned else one.state
        table.add_row(str(one.version), state, *_cells(one), one.reason)
    for_tables().print(table)


def _cells(one: Version) -> tuple[str, ...]:
    times = (f"{time:%Y-%m-%d %H:%M:%S}" if time else "-" for time in (one.created_at, one.data_timestamp))
    figures = (f"{one.metrics[name]:.4f}" if name in one.metrics else "-" for name in ("log_loss", "pcoc"))
    return (*times, "-" if one.base is None else str(one.base), *figures)
