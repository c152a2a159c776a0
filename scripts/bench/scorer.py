"""Our own processes as a benchmark runs them: `agerank serve` on one core, its log's server and trainer on another."""

import json
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.bench.load import post, send_all
from scripts.bench.processes import Cores, Server, pinned
from scripts.bench.report import BenchError
from scripts.bench.work import LANE, SPEC, STRATEGIES, Catalogue
from scripts.demo_processes import environment, free_port
from service.valkey import EmbeddedServer

RANK, ITEMS = "/v1/rank", "/v1/items:batch"
BATCH = 1_000  # items of one request


def checkpoints(folder: Path) -> Path:
    """Where the scorer in this folder looks for its versions."""
    return folder / "data" / "checkpoints" / LANE


@contextmanager
def log_server(folder: Path, cores: Cores) -> Iterator[str]:
    """The URL of an embedded Valkey in this folder."""
    with pinned(cores.others), EmbeddedServer(folder / "data" / "redis") as server:
        yield server.url


@contextmanager
def scorer(
    folder: Path, redis_url: str, cores: Cores, *, spec: str = SPEC, **settings: str | float | list[int]
) -> Iterator[Server]:
    """`agerank serve` in this folder, ready once it is waited for: its version must be there by then.

    Args:
        spec: features of a trainer that is to run in this folder, too.
        settings: besides ours.
    """
    folder.mkdir(parents=True, exist_ok=True)
    features, config = folder / "features.toml", folder / "agerank.toml"
    features.write_text(spec, encoding="utf-8")
    port = free_port(0)
    given = {
        "data_dir": str(folder / "data"),
        "features": str(features),
        "redis_url": redis_url,
        "port": port,
        "default_strategy": "age_ts",
        **settings,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in given.items()]
    for name, options in STRATEGIES.items():
        lines += [f"[strategies.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in options.items())]
    config.write_text("\n".join(lines), encoding="utf-8")
    with Server(
        "agerank serve",
        (sys.executable, "-m", "scripts.cli", "serve"),
        port=port,
        ready="/readyz",
        core=cores.server,
        log=folder / "serve.log",
        environment=environment(folder, config),
    ) as server:
        yield server


@contextmanager
def trainer(folder: Path, cores: Cores) -> Iterator[Server]:
    """`agerank train` beside the scorer in this folder, with the same settings: they must name `trainer_port`."""
    config = folder / "agerank.toml"
    with Server(
        "agerank train",
        (sys.executable, "-m", "scripts.cli", "train"),
        port=tomllib.loads(config.read_text(encoding="utf-8"))["trainer_port"],
        ready="/metrics",
        core=min(cores.others),
        log=folder / "train.log",
        environment=environment(folder, config),
    ) as server:
        yield server


def put_items(server: Server, catalogue: Catalogue, count: int) -> None:
    """Puts the first items of the catalogue into the store. Raises BenchError where one is refused."""
    starts = range(0, count, BATCH)
    batches = ([catalogue.item(place) for place in range(start, min(start + BATCH, count))] for start in starts)
    bodies = (json.dumps({"items": items}, separators=(",", ":")).encode() for items in batches)
    outcome = send_all(server.port, (post(ITEMS, body) for body in bodies))
    refused = [answer for answer in outcome.answers if b'"rejected"' in answer]
    if outcome.failures or refused:
        raise BenchError(f"items were refused: {dict(outcome.failures) or refused[0][:500]!r}")
