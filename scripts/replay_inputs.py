"""Whatever is wrong with the files of `agerank replay` becomes a sentence and exit status 2, before anything runs."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from models.evaluation.catalogue import Catalogue
from models.evaluation.r6b import Tally
from models.spec import SpecError
from scripts.replay_runs import Log, Model, read_log


@contextmanager
def readable(path: Path, option: str = "--log") -> Iterator[None]:
    """While a file is read, packed or not."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise typer.BadParameter(f"{path} is not an intact gzip file: {error}", param_hint=option) from None
    except OSError as error:
        raise typer.BadParameter(f"cannot read {error.filename or path}: {error.strerror}", param_hint=option) from None


def check(log: Log, model: Model) -> None:
    """Says on stderr how many items of the log are known.

    Raises:
        BadParameter: a file is not what it should be, or they do not belong together.
    """
    _check_spec(model)
    if model.items is None:
        shown(log._replace(limit=1))
    else:
        _check_items(shown(log), _catalogue(model))


def shown(log: Log) -> set[str]:
    """Ids of a log's items. Raises BadParameter: it has no visit."""
    try:
        found = {one for event in read_log(log, Tally()) for one in event.candidates}
    except ValueError as error:
        raise typer.BadParameter(f"{log.path}: {error}", param_hint="--log") from None
    if not found:
        raise typer.BadParameter(f"{log.path} has no usable line of the format {log.format}", param_hint="--log")
    return found


def _check_spec(model: Model) -> None:
    try:
        with readable(model.features or Path(), "--features"):
            fields = model.spec.fields
    except (SpecError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{model.features}: {error}", param_hint="--features") from None
    if not any(one.side == "user" and one.name == "features" and one.kind == "multi_hot" for one in fields):
        message = f'{model.features}: the log\'s users need a multi_hot field "features"'
        raise typer.BadParameter(message, param_hint="--features")
    unknown = [one.name for one in fields if one.side == "item" and one.source != "id"]
    if unknown and model.items is None:
        message = f"{model.features}: the log says nothing of its items' {', '.join(unknown)}; give --items, too"
        raise typer.BadParameter(message, param_hint="--features")


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
