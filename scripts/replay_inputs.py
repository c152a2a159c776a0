"""Whatever is wrong with the files of `agerank replay` becomes a sentence and exit status 2, before anything runs."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import typer

from models.beliefs.belief import begin
from models.evaluation.catalogue import Catalogue
from models.evaluation.r6b import Tally
from models.networks.click import ClickNetwork
from models.registry import Strategy, beliefs
from models.spec import Field, SpecError
from scripts.replay_runs import NETWORK, Log, Model, read_log


@contextmanager
def readable(path: Path, option: str = "--log") -> Iterator[None]:
    """While a file is read, packed or not."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise typer.BadParameter(f"{path} is not an intact gzip file: {error}", param_hint=option) from None
    except OSError as error:
        raise typer.BadParameter(f"cannot read {error.filename or path}: {error.strerror}", param_hint=option) from None


def check(log: Log, model: Model, strategies: Sequence[Strategy]) -> None:
    """Says on stderr how many items of the log are known.

    Raises:
        BadParameter: a file is not what it should be, or they do not belong together.
    """
    users = _check_spec(model)
    _check_strategies(model, strategies)
    if model.features is None and model.items is None:
        survey(log._replace(limit=1))
        return
    found = survey(log)
    if found.features > users.max_values:
        message = f'{model.features}: a visit has {found.features} of "features", whose max_values are fewer'
        raise typer.BadParameter(message, param_hint="--features")
    if model.items is not None:
        _check_items(found.items, _catalogue(model))


class Survey(NamedTuple):
    """What stands in a log."""

    items: set[str]  # ids
    features: int  # most of a visit


def survey(log: Log) -> Survey:
    """Reads it all. Raises BadParameter: it has no visit."""
    items: set[str] = set()
    features = 0
    try:
        for event in read_log(log, Tally()):
            items.update(event.candidates)
            features = max(features, len(event.features))
    except ValueError as error:
        raise typer.BadParameter(f"{log.path}: {error}", param_hint="--log") from None
    if not items:
        raise typer.BadParameter(f"{log.path} has no usable line of the format {log.format}", param_hint="--log")
    return Survey(items, features)


def _check_spec(model: Model) -> Field:
    """Returns what the log's users have."""
    try:
        with readable(model.features or Path(), "--features"):
            fields, users = model.spec.fields, model.users
    except (SpecError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{model.features}: {error}", param_hint="--features") from None
    unknown = [one.name for one in fields if one.side == "item" and one.source != "id"]
    if unknown and model.items is None:
        message = f"{model.features}: the log says nothing of its items' {', '.join(unknown)}; give --items, too"
        raise typer.BadParameter(message, param_hint="--features")
    return users


def _check_strategies(model: Model, strategies: Sequence[Strategy]) -> None:
    network = ClickNetwork(model.spec, NETWORK)
    for strategy in strategies:
        try:
            for belief in beliefs([strategy]):
                begin(belief, network, seed=0)
        except ValueError as error:
            raise typer.BadParameter(f"{strategy.name}: {error}", param_hint="--strategies") from None


def _catalogue(model: Model) -> Catalogue:
    try:
        with readable(model.items or Path(), "--items"):
            return model.catalogue
    except ValueError as error:
        hint = "" if model.features else "; what of the items is read, --features says"
        raise typer.BadParameter(f"{model.items}: {error}{hint}", param_hint="--items") from None


def _check_items(shown: set[str], catalogue: Catalogue) -> None:
    if told := shown.intersection(one.id for one in catalogue.past):
        message = f"{min(told)} is in the log: its impressions are no past, they would tell the outcome"
        raise typer.BadParameter(message, param_hint="--items")
    known = len(shown & catalogue.features.keys())
    if not known:
        raise typer.BadParameter(f"none of the log's {len(shown)} items is in it", param_hint="--items")
    typer.echo(f"{known} of the log's {len(shown)} items are known, and {len(catalogue.past)} of the past", err=True)
