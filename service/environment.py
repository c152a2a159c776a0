"""AGERANK_ variables, as a source of settings."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from pydantic_settings import BaseSettings, EnvSettingsSource

PREFIX = "AGERANK_"

#: Names the settings file, and is no setting itself.
CONFIG = f"{PREFIX}CONFIG"

#: NAME=value of what Kubernetes tells a pod about each Service of its namespace: of one that is called agerank, or
#: agerank-trainer, they look like ours.
_OF_A_SERVICE = re.compile(
    r"[^=]*(_service_host|_service_port(_\w+)?|_port_\d+_(tcp|udp|sctp)(_(proto|port|addr))?)=.*"
    r"|[^=]*_port=(tcp|udp|sctp)://.*"
)


class Environment(EnvSettingsSource):
    """Also gives those variables that are no settings, by their own names: they are refused like keys of the file."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls)
        self.env_vars = {
            name: value for name, value in self.env_vars.items() if not _OF_A_SERVICE.fullmatch(f"{name}={value}")
        }

    def __call__(self) -> dict[str, Any]:
        known = {CONFIG, *(f"{PREFIX}{name}".upper() for name in self.settings_cls.model_fields)}
        ours = {name.upper(): value for name, value in self.env_vars.items() if name.upper().startswith(PREFIX)}
        return super().__call__() | {name: ours[name] for name in ours.keys() - known}


def misspelt(name: str, settings: Iterable[str]) -> str:
    """What to say of a variable, or of a key of the file, that is none of these settings."""
    (nearest,) = get_close_matches(name.removeprefix(PREFIX).lower(), settings, n=1, cutoff=0.0)
    return f"{name}: there is no such setting; the nearest is {nearest}"
