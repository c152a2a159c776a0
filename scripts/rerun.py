"""agerank rerun: a logged decision, computed again from the log and the version on disk."""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from models.features import item_hashes
from models.types import Array, Batch, Scores
from scripts.served_log import UNREADABLE, connected, find_served
from service.checkpoints import open_store
from service.errors import CheckpointError
from service.events import Served
from service.scoring.engines import Kind, SeededNoise
from service.scoring.loading import load
from service.settings import Settings, SettingsError, read


def rerun(
    request_id: Annotated[str, typer.Argument(help="Of the request, as its answer named it.")],
    config: Annotated[
        Path | None, typer.Option(help="Settings file. Default: AGERANK_CONFIG, else agerank.toml where there is one.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="native, onnx or torch. Default: the setting `engine`.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compute a logged decision again, and compare every bit.

    The served record holds what the ranking depended on: the features as they were encoded, the seed, lambda, the
    impression counts and the version. The candidates that were not shown are not in it, so what comes out again is the
    prediction and the score of each shown item, and that they stand in this order.

    Exits with 1 where anything differs. Another engine than the one that served, or onnxruntime with another number of
    candidates, may differ in the last bits; the largest difference is told.
    """
    try:
        settings = read(config, engine=engine)
        with connected(settings) as client:
            served = find_served(settings, client, request_id)
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from None
    except UNREADABLE as error:
        typer.echo(f"rerun cannot read the log: {error}", err=True)
        raise typer.Exit(1) from None
    if served is None:
        typer.echo(f"the served stream does not hold request {request_id!r}, or not any more", err=True)
        raise typer.Exit(1)
    try:
        scores = recompute(settings, served)
    except (CheckpointError, OSError) as error:
        typer.echo(f"version {served.version} cannot be loaded: {error}", err=True)
        raise typer.Exit(1) from None
    found = _compare(served, scores)
    if as_json:
        print(json.dumps(found))
    else:
        _print(served, scores, found)
    raise typer.Exit(0 if found["to_the_bit"] else 1)


def recompute(settings: Settings, served: Served) -> Scores:
    """The scores of the shown items. Raises CheckpointError, OSError: the version is gone or spoilt."""
    kind: Kind = settings.engine
    loaded = load(
        open_store(settings.store),
        served.version,
        kind=kind,
        threads=settings.threads,
        lane=served.lane,
        strategies={served.strategy},
        max_items=settings.max_items,
    )
    item_hash = item_hashes(served.item_ids)
    noise = SeededNoise(
        loaded.manifest.strategies[served.strategy].noise,
        request_seed=served.seed,
        version=served.version,
        item_hash=item_hash,
    )
    batch = Batch(*served.context(), *served.items())
    impressions = np.array(served.impressions, dtype=np.int64)
    return loaded.engine.scores(served.strategy, batch, noise, served.lambda_, impressions)


def _compare(served: Served, scores: Scores) -> dict[str, Any]:
    gaps = {
        name: float(np.abs(np.array(logged) - again).max())
        for name, logged, again in (
            ("p_click", served.p_click, _double(scores.p_click)),
            ("score", served.score, _double(scores.score)),
        )
    }
    return {
        "request_id": served.request_id,
        "version": served.version,
        "strategy": served.strategy,
        "to_the_bit": not any(gaps.values()),
        "largest_difference": gaps,
    }


def _double(column: Array) -> Array:
    return column.astype(np.float64)


def _print(served: Served, scores: Scores, found: dict[str, Any]) -> None:
    table = Table(title=f"{served.request_id}: {served.strategy}, version {served.version}, lambda {served.lambda_:g}")
    for name in ("item", "p_click logged", "again", "score logged", "again"):
        table.add_column(name, justify="left" if name == "item" else "right")
    columns = served.item_ids, served.p_click, scores.p_click, served.score, scores.score
    for item, *numbers in zip(*columns, strict=True):
        table.add_row(item, *(f"{number:.9g}" for number in numbers))
    console = Console()
    console.print(table)
    gaps = found["largest_difference"]
    console.print(
        "the same to the bit"
        if found["to_the_bit"]
        else f"differs by up to {gaps['p_click']:.3g} in p_click and {gaps['score']:.3g} in score"
    )
