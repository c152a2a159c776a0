"""`agerank serve`: the scorer."""

import os
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from service.errors import ServiceError
from service.scoring import app
from service.settings import SettingsError, read


def serve(
    config: Annotated[
        Path | None, typer.Option(help="Settings file. Default: AGERANK_CONFIG, else agerank.toml where there is one.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 0.0.0.0 for all. Overrules `host`.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on, 0 for a free one. Overrules `port`.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Announce the URL as JSON: a list with one row.")] = False,
) -> None:
    """Run the scorer: it ranks candidates over HTTP, takes feedback and follows the trainer's versions.

    It runs until Ctrl-C or SIGTERM and then answers what it has begun. Without a version it is live but not ready,
    and `GET /readyz` says why: start `agerank train` with the same settings beside it.

    Try it:

        curl localhost:8000/v1/rank -d '{"candidates": [{"id": "a"}, {"id": "b"}]}'

    Then report a click, under an id of your own, so that it counts once however often you send it:

        curl localhost:8000/v1/events -d '{"events": [{"id": "click-1", "type": "click",
        "request_id": "THE request_id OF THE ANSWER", "item_id": "a"}]}'

    GET /metrics is for Prometheus, GET /openapi.json describes every route, docs/api.md explains them.

    Needs a Redis or Valkey: AGERANK_REDIS_URL names it; without one the scorer starts one in `data_dir`, or joins the
    one that the trainer started there.
    """
    try:
        settings = read(config, host=host, port=port)
        app.serve(settings, announce=lambda url: _announce(url, settings.lane, json))
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from None
    except (ServiceError, OSError) as error:
        typer.echo(f"the scorer cannot start: {error}", err=True)
        raise typer.Exit(1) from None


def _announce(url: str, lane: str, json: bool) -> None:
    row = {"url": url, "lane": lane, "pid": os.getpid()}
    text = msgspec.json.encode([row]).decode() if json else f"agerank serves lane {lane} at {url}"
    print(text, flush=True)
