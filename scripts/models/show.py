"""`agerank models show`: all about one version."""

import msgspec

from scripts.models.lane import AsJson, Config, Version, opened, print_rows
from service.lanes import detail


def show(version: Version, config: Config = None, json: AsJson = False) -> None:
    """Show what a version is, after every file of it was compared with its hash.

    Exits with 1 where it is damaged: then no scorer would take it either.
    """
    with opened(config) as lane:
        found = detail(lane.store, version)
    if json:
        print_rows([found])
        return
    for name, value in msgspec.to_builtins(found).items():
        if value in ("", {}):  # no reason, nothing read yet
            continue
        text = "\n".join(f"  {key}: {one}" for key, one in value.items()) if isinstance(value, dict) else str(value)
        print(f"{name}:{chr(10) if isinstance(value, dict) else ' '}{text}")
