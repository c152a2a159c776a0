"""What the commands share: the lane that the settings name, its answers, and the announcement of a choice."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import typer
from redis.exceptions import RedisError

from service.appends import append_batch
from service.checkpoints import Store, open_store
from service.connections import connect
from service.errors import ServiceError, StreamError
from service.events import Announcement, encode
from service.lanes import Choice
from service.settings import Settings, SettingsError, read
from service.streams import StreamNames
from service.valkey import running

Config = Annotated[
    Path | None, typer.Option(help="Settings file. Default: AGERANK_CONFIG, else agerank.toml where there is one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Say it in JSON: a list of rows.")]
Version = Annotated[int, typer.Argument(min=0, help="Its number, as `agerank models list` has it.")]


class Lane(NamedTuple):
    """The lane that the settings name."""

    settings: Settings
    store: Store


@contextmanager
def opened(config: Path | None) -> Iterator[Lane]:
    """The lane. What cannot be done ends the command: with 1, or with 2 where the settings are wrong."""
    try:
        settings = read(config)
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from None
    try:
        yield Lane(settings, open_store(settings.store))
    except (ServiceError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def tell(lane: Lane, choice: Choice, *, as_json: bool) -> None:
    """Announces what serves from now on to the scorers, and prints it."""
    _announce(lane, choice.version)
    if as_json:
        print_rows([choice])
        return
    before = "none" if choice.before is None else str(choice.before)
    follows = (
        "the trainer's versions wait for `agerank models unpin`" if choice.pinned else "the trainer's next follows"
    )
    print(f"lane {lane.settings.lane} serves version {choice.version} (before: {before}); {follows}")


def print_rows(rows: list[msgspec.Struct]) -> None:
    """As JSON."""
    print(msgspec.json.encode(rows).decode())


def _announce(lane: Lane, version: int) -> None:
    """A scorer finds the version anyway, at its next poll."""
    settings = lane.settings
    url = settings.redis_url.get_secret_value() if settings.redis_url else running(settings.data_dir / "redis")
    if url is None:
        return
    content = encode(Announcement(lane=settings.lane, version=version))
    entry = (StreamNames(settings.redis_prefix, settings.partitions).models, content, None)
    try:
        with connect(url, name="agerank-models") as client:
            append_batch(client, [entry], maxlen=settings.stream_max_entries)
    except (RedisError, StreamError) as error:  # a cluster that does not answer is the latter
        typer.echo(f"not announced, the scorers find it in {settings.swap_poll_s:g} s: {error}", err=True)
