"""`agerank train`: the trainer."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from scripts.launch import is_first, launch
from service.errors import ServiceError
from service.settings import SettingsError, read
from service.training.__main__ import train as run


def train(
    config: Annotated[
        Path | None, typer.Option(help="Settings file. Default: AGERANK_CONFIG, else agerank.toml where there is one.")
    ] = None,
    burst: Annotated[bool, typer.Option("--burst", help="Read the log to its end, publish, and stop.")] = False,
    ranks: Annotated[
        int, typer.Option(min=1, help="Processes that train together on this machine, through torchrun's launcher.")
    ] = 1,
    json: Annotated[
        bool, typer.Option("--json", help="When it stops, say in JSON what was learned: a list with one row.")
    ] = False,
) -> None:
    """Run the trainer: it learns from the clicks and publishes versions of the model for the scorers to serve.

    It reads what scorers and callers wrote to Redis, joins impressions with their clicks, and takes an optimiser step
    on every full batch. Every `publish_interval_s`, if it learned anything, it publishes a version below `data_dir`,
    which scorers of the same lane take over without dropping a request. Its first act is to publish version 0.

    It may be stopped or killed at any time: the next start continues from the newest version and comes to the very
    same weights. Ctrl-C and SIGTERM publish once more before it ends. A lane has one trainer: a second one refuses to
    start.

    Its figures are progressive: each prediction is made before its example is learned from. `pcoc` is predicted over
    observed clicks; 1 is calibrated. GET /metrics on `trainer_port` is for Prometheus.

    Needs a Redis or Valkey: AGERANK_REDIS_URL names it; without one the trainer starts one in `data_dir`, or joins the
    one that the scorer started there.

    With `--ranks 2`, two processes read half of the partitions each and compute half of every gradient; the weights
    are, to the bit, those of one process with `gradient_parts` 2. On several machines, start the ranks with torchrun:
    `torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:PORT -m service.training`.
    """
    try:
        settings = read(config)
        if ranks > 1:
            launch(ranks, ["train", *["--burst"] * burst, *["--json"] * json])
            return
        progress, version = run(settings, burst=burst)
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from None
    except (ServiceError, OSError) as error:
        typer.echo(f"the trainer cannot go on: {error}", err=True)
        raise typer.Exit(1) from None
    if json and is_first():
        measured = {name: progress.metrics().get(name) for name in ("log_loss", "pcoc")}
        row = {"examples": progress.examples, "steps": progress.steps, "version": version, **measured}
        print(msgspec.json.encode([row]).decode(), flush=True)
