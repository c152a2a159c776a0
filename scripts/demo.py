"""agerank demo: the whole loop on this machine, with users whose minds we know."""

import asyncio
import json
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from importlib import resources
from pathlib import Path
from typing import Annotated

import httpx
import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.live import Live

from models.evaluation.worlds.r6b import R6bWorld
from scripts.demo_figures import Seen
from scripts.demo_processes import Child, DemoError, environment, free_port
from scripts.demo_users import IN_FLIGHT, TIMEOUT_S, Users
from service import checkpoints
from service.checkpoints import LocalStore
from service.errors import CheckpointError, ServiceError
from service.valkey import EmbeddedServer

READY_TIMEOUT_S = 120.0  # torch takes seconds to import, on a busy machine many
LINE_EVERY_S = 5.0  # where there is no terminal to redraw
TOP_K = 8

#: What `agerank train` and `agerank serve` read. Paced for a minute: an hour's traffic would want calmer figures.
CONFIG = """\
# Written by `agerank demo`. Every setting: docs/operations.md.
data_dir = {data}
features = {features}
redis_url = "{redis_url}"
port = {port}
trainer_port = {trainer_port}

hidden = [64, 32, 16]
initial_ctr = 0.07
learning_rate = 0.002
batch_size = 32
attribution_window_s = 1.5
publish_interval_s = 2.0
keep_versions = 10
deadline_s = 10.0

[traffic] # sticky by user
greedy = 0.4
item_posterior = 0.3
age_ts = 0.3

[strategies.greedy]
method = "greedy"

[strategies.item_posterior] # what an item's own clicks say beyond the model: may change 5 % of the slots
method = "item_posterior"
budget = 0.05

[strategies.age_ts] # AGE, Thompson sampling: likewise
method = "age"
uncertainty = "thompson"
budget = 0.05
"""


def demo(
    seconds: Annotated[float, typer.Option(min=1, help="How long the users come.")] = 60.0,
    rate: Annotated[float, typer.Option(min=1, help="Visits a second; slower where the machine is.")] = 100.0,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Keep settings, logs, stream and versions in this new folder.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulated world.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Only the JSON on stdout; the rest goes to stderr.")] = False,
) -> None:
    """Watch the service explore, learn from clicks and get better, on this machine alone.

    Starts an embedded Valkey, `agerank train` and `agerank serve` as separate processes, and sends simulated users to
    them over HTTP. Two fifths of the users are served by `greedy`, the others by `item_posterior` and `age_ts`, which
    explore. The world knows every click probability, so the table can tell how far random display (the start) and an
    oracle (the end) are away.

    **CTR** clicks per shown item. **PCOC** predicted clicks over clicks, in the last third of the impressions: 1 is
    calibrated. **explored** slots that hold another item than greedy would have put there. **click to serving** from a
    click to the first answer of a model that learned from it.

    The last line of output is one JSON object. Exits with 1 if any request failed. All processes are stopped at the
    end, on Ctrl-C too, and without --dir the folder goes with them.
    """
    console = Console(stderr=as_json, highlight=False)
    told: list[int] = []  # signals
    try:
        with _folder(directory) as folder:
            seen = asyncio.run(_run(console, folder, told, seconds=seconds, rate=rate, seed=seed))
    except (DemoError, ServiceError) as error:
        console.print(f"The demo failed: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except asyncio.CancelledError:
        console.print("Stopped.")
        raise typer.Exit(128 + told[0]) from None
    for failure, count in seen.failures.most_common():
        console.print(f"failed {count} times: {failure}", style="red", markup=False, soft_wrap=True)
    print(msgspec.json.encode(seen.report()).decode())
    raise typer.Exit(1 if seen.failed else 0)


async def _run(console: Console, folder: Path, told: list[int], *, seconds: float, rate: float, seed: int) -> Seen:
    _cancel_on_signals(told)
    root = folder / "data" / "checkpoints" / "default"
    seen = Seen(lambda after, version: _clicks_learned(root, after, version))
    # A world in a hurry: items live for minutes, and tastes are strong enough to be seen in one.
    world = R6bWorld(seed=seed, users=2_000, lifetime_s=150.0, ctr=0.05, quality_sd=0.6, affinity_sd=0.4)
    async with _service(console, folder) as (url, children):
        limits = httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, limits=limits, trust_env=False) as client:
            await _ready(client, children)
            console.print(f"Ready. Users come for {seconds:g} s.")
            users = Users(client, world=world, seen=seen, rate=rate, top_k=TOP_K, generator=np.random.default_rng(seed))
            visits = asyncio.create_task(users.run(seconds))
            try:
                await _watch(console, visits, children, seen)
                await visits
            finally:
                visits.cancel()
                await asyncio.wait([visits])
    return seen


@asynccontextmanager
async def _service(console: Console, folder: Path) -> AsyncIterator[tuple[str, Sequence[Child]]]:
    """(URL of the scorer, its process and the trainer's). Whatever happens, nothing is left running.

    They stop in this order: scorer, so that its last records reach the log; trainer; log server.
    """
    async with AsyncExitStack() as stack:
        server = stack.enter_context(EmbeddedServer(folder / "data" / "valkey"))
        port, trainer_port = free_port(8000), free_port(8001)
        config = folder / "agerank.toml"
        quoted = {name: json.dumps(str(folder / name)) for name in ("data", "features.toml")}
        config.write_text(
            CONFIG.format(
                data=quoted["data"],
                features=quoted["features.toml"],
                redis_url=server.url,
                port=port,
                trainer_port=trainer_port,
            ),
            encoding="utf-8",
        )
        spec = resources.files("scripts") / "specs" / "r6b.toml"
        (folder / "features.toml").write_text(spec.read_text(encoding="utf-8"), encoding="utf-8")
        url = f"http://127.0.0.1:{port}"
        console.print(f"folder    {folder}  (agerank.toml, features.toml, train.log, serve.log, data/)", soft_wrap=True)
        console.print(f"scorer    {url}  (/v1/rank, /v1/events, /readyz, /metrics, /openapi.json)", soft_wrap=True)
        console.print(f"trainer   http://127.0.0.1:{trainer_port}/metrics", soft_wrap=True)
        console.print(f"log       {server.url}  (embedded Valkey)", soft_wrap=True)
        console.print("Waiting for the trainer's first version and for the scorer to load it ...")
        children, variables = [], environment(folder, config)
        for command in ("train", "serve"):
            child = Child(command, log=folder / f"{command}.log")
            stack.push_async_callback(child.stop)
            children.append(await child.start(variables))
        yield url, children


async def _ready(client: httpx.AsyncClient, children: Sequence[Child]) -> None:
    """Waits for a scorer that lacks nothing. Raises DemoError where it takes too long."""
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            while True:
                for child in children:
                    child.check()
                try:
                    answer = await client.get("/readyz")
                    if answer.status_code == 200 and not answer.json()["degraded"]:
                        return
                except httpx.TransportError:
                    pass  # it does not listen yet
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise DemoError(f"the scorer was not ready after {READY_TIMEOUT_S:g} s; see the logs in the folder") from None


async def _watch(console: Console, visits: "asyncio.Task[None]", children: Sequence[Child], seen: Seen) -> None:
    """Shows the figures while there are visits. Raises DemoError where a process ends."""
    period_s = 1.0 if console.is_terminal else LINE_EVERY_S
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    with live or nullcontext():
        while not visits.done():
            await asyncio.wait([visits], timeout=period_s)
            for child in children:
                child.check()
            if live:
                live.update(seen.table("Served so far"), refresh=True)
            else:
                console.print(seen.line(), soft_wrap=True)
    if not live:
        console.print(seen.table("Served"))


def _clicks_learned(root: Path, after: int, version: int) -> list[int]:
    """Unix milliseconds of the clicks that the versions above `after` up to `version` were the first to learn from."""
    clicks: list[int] = []
    for one in checkpoints.versions(LocalStore(root)):
        if after < one <= version:
            try:
                clicks += checkpoints.load_manifest(LocalStore(root), one).click_times_ms
            except CheckpointError:
                continue  # pruned while we looked
    return clicks


@contextmanager
def _folder(chosen: Path | None) -> Iterator[Path]:
    """The chosen folder, which must be new or empty, or one that is removed at the end."""
    if chosen is None:
        with tempfile.TemporaryDirectory(prefix="agerank-demo-") as name:
            yield Path(name)
        return
    chosen.mkdir(parents=True, exist_ok=True)
    if any(chosen.iterdir()):
        raise DemoError(f"{chosen} is not empty: name a new folder")
    yield chosen.resolve()


def _cancel_on_signals(told: list[int]) -> None:
    """The first signal cancels the running task, so that everything is cleaned up; more of them change nothing.

    Args:
        told: where they are noted.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def stop(number: int) -> None:
        if not told:
            task.cancel()
        told.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
