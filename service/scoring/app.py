"""The scoring process: builds the app from the settings, owns every resource, runs it."""

import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from importlib import metadata
from typing import Any

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, ProcessCollector
from starlette.types import ASGIApp

from service import logs, ports
from service.checkpoints import open_store
from service.connections import connect_async
from service.scoring import item_routes, openapi, problems, routes, server
from service.scoring.admin import Admin, create_admin
from service.scoring.catalog import Catalog
from service.scoring.connection import Limits
from service.scoring.engines import kernel
from service.scoring.engines.batching import Batcher
from service.scoring.experiments import Everyone, Split, Traffic
from service.scoring.feedback import Feedback
from service.scoring.guard import Guard
from service.scoring.item_edits import ItemEdits
from service.scoring.item_feed import ItemFeed
from service.scoring.layers import Layered
from service.scoring.loading import load
from service.scoring.outbox import Outbox
from service.scoring.ranker import Ranker
from service.scoring.shortcut import Shortcut
from service.scoring.swap import Swapper
from service.scoring.tasks import running
from service.settings import Settings, SettingsError
from service.streams import StreamNames
from service.telemetry import ScorerMetrics

#: Routes of which each answers `max_in_flight` requests at a time, each of them with one connection to Redis at most.
LIMITED = routes.LIMITED + item_routes.LIMITED

#: Of one request's headers.
MAX_HEAD_BYTES = 64 * 1024

#: A request waits at most so long for a thread that loads a version to let go of the interpreter; Python's own is 5 ms.
SWITCH_S = 0.0005


def create_app(settings: Settings) -> Layered:
    """The app. It touches nothing outside before its lifespan begins.

    Raises SettingsError where a request that names no strategy would get none.
    """
    metrics, traffic = ScorerMetrics(CollectorRegistry()), _traffic(settings)
    ProcessCollector(registry=metrics.registry)
    app = Layered(
        partial(_layers, settings, metrics),
        title="agerank",
        description="Ranks candidates, explores inside the click model, learns from the clicks.",
        version=metadata.version("agerank"),
        lifespan=partial(_lifespan, settings, traffic, metrics),
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    # Not included as routers: a request would pass through each of them first, and that takes time.
    app.router.routes += [*routes.router.routes, *item_routes.router.routes]
    problems.install(app)
    openapi.install(app)
    return app


def _layers(settings: Settings, metrics: ScorerMetrics, app: ASGIApp) -> ASGIApp:
    return Guard(
        Shortcut(app, routes.BUSY),
        limited=LIMITED,
        max_in_flight=settings.max_in_flight,
        max_unread_bytes=settings.max_in_flight * settings.max_body_bytes,
        metrics=metrics,
    )


def configuration(app: Layered, settings: Settings) -> uvicorn.Config:
    """How uvicorn runs the app of these settings."""
    grace_s, keep_alive_s = settings.shutdown_grace_s, settings.keep_alive_s
    return server.configuration(app, _limits(settings), grace_s=grace_s, timeout_keep_alive=keep_alive_s, loop="uvloop")


def serve(settings: Settings, *, announce: Callable[[str], None]) -> None:
    """Runs the scorer until it is told to stop.

    Args:
        settings: with port 0 the system chooses one.
        announce: told the URL, once connections are taken.

    Raises:
        OSError: an address is not ours to listen on, the data directory not ours to write.
        SettingsError: the engine is not installed, or no strategy the default one.
        StreamError: the log's server cannot be started.
    """
    if settings.engine == "native":
        _check_kernel()
    logs.configure(settings.log_format)
    app = create_app(settings)
    config = configuration(app, settings)
    # What is here by now stays: a full collection over it stops everything for 50 ms, without it for none.
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_S)
    listener = ports.listening("port", settings.host, settings.port, backlog=config.backlog)
    with listener, suppress(SystemExit):  # of uvicorn, where the app does not start
        announce(ports.url(listener))
        scorer = server.Draining(config, drain_s=settings.drain_s)
        for stop in (signal.SIGINT, signal.SIGTERM):
            signal.signal(stop, lambda *_: None)  # uvicorn raises it again when all is done: no failure of ours
        scorer.run(sockets=[listener])
    if not scorer.started:
        raise app.failure or SystemExit(3)  # the log has the traceback


@asynccontextmanager
async def _lifespan(
    settings: Settings, traffic: Split, metrics: ScorerMetrics, _: FastAPI
) -> AsyncIterator[dict[str, Any]]:
    """Opens in this order, closes in the other: no record is left behind, and the embedded server goes last."""
    async with AsyncExitStack() as stack:
        url = settings.redis_url.get_secret_value() if settings.redis_url else await _embedded(settings, stack)
        # What runs all the time has connections of its own: it never waits for requests, however many there are.
        client = connect_async(url, name="agerank-scorer")
        requests = connect_async(url, name="agerank-scorer-requests", most=len(LIMITED) * settings.max_in_flight)
        stack.push_async_callback(client.aclose)
        stack.push_async_callback(requests.aclose)
        names = StreamNames(settings.redis_prefix, settings.partitions)
        maxlen = settings.stream_max_entries
        outbox = Outbox(
            client,
            names,
            capacity=settings.served_queue_entries,
            max_bytes=settings.served_queue_bytes,
            maxlen=maxlen,
            metrics=metrics,
        )
        stack.push_async_callback(outbox.flush, settings.shutdown_grace_s)
        await stack.enter_async_context(running(outbox.run()))
        batcher = None
        if settings.engine == "torch":
            batcher = Batcher(
                wait_s=settings.batch_wait_s,
                max_rows=settings.batch_rows,
                grace_s=settings.shutdown_grace_s,
                metrics=metrics,
            )
            await stack.enter_async_context(batcher)
        ranker = Ranker(
            lane=settings.lane,
            traffic=traffic,
            max_candidates=settings.max_candidates,
            outbox=outbox,
            metrics=metrics,
        )
        catalog = partial(Catalog, names=names, max_items=settings.max_items, maxlen=maxlen)
        feed = ItemFeed(catalog(client), metrics)
        await stack.enter_async_context(running(feed.run()))
        store = open_store(settings.store)
        swapper = Swapper(
            store=store,
            load=partial(
                load,
                store,
                kind=settings.engine,
                threads=settings.threads,
                lane=settings.lane,
                strategies=traffic.strategies,
                max_items=settings.max_items,
                batcher=batcher,
                fuse=settings.batch_fuse,
            ),
            ranker=ranker,
            items=feed,
            poll_s=settings.swap_poll_s,
            metrics=metrics,
        )
        await stack.enter_async_context(running(swapper.run(client, names)))
        feedback = Feedback(
            requests,
            names,
            max_events=settings.max_events,
            remember_s=settings.remember_events_s,
            timeout_s=settings.deadline_s,
            maxlen=maxlen,
            metrics=metrics,
        )
        items = ItemEdits(
            catalog(requests),
            feed,
            store=lambda: ranker.ready().items,
            max_batch=settings.max_item_batch,
            timeout_s=settings.deadline_s,
            metrics=metrics,
        )
        scorer = routes.Scorer(
            ranker=ranker,
            feedback=feedback,
            items=items,
            outbox=outbox,
            metrics=metrics,
            deadline_s=settings.deadline_s,
            max_body_bytes=settings.max_body_bytes,
        )
        if settings.admin_token:
            admin = Admin(store=store, lane=settings.lane, client=requests, names=names, maxlen=maxlen)
            app = create_admin(admin, settings.admin_token.get_secret_value())
            address, grace_s = (settings.admin_host, settings.admin_port), settings.shutdown_grace_s
            port = server.listening(app, *address, _limits(settings), grace_s=grace_s)
            await stack.enter_async_context(port)
        yield {"scorer": scorer, "draining": False}


def _traffic(settings: Settings) -> Split:
    if settings.traffic:
        return Traffic(settings.traffic, salt=settings.traffic_salt)
    return Everyone(settings.strategy_of_all())


def _limits(settings: Settings) -> Limits:
    return Limits(settings.head_timeout_s, settings.answer_timeout_s, MAX_HEAD_BYTES, settings.max_body_bytes)


def _check_kernel() -> None:
    try:
        kernel.library()
    except OSError as error:
        advice = 'install agerank where there is a C compiler, or set engine = "onnx"'
        raise SettingsError(f"engine: native has no compiled kernel ({error}): {advice}") from None


async def _embedded(settings: Settings, stack: AsyncExitStack) -> str:
    """URL of the embedded server, shared with the trainer of the same data_dir."""
    from service.valkey import connect_or_start  # an extra that a scorer with a Redis of its own does without

    embedded = await asyncio.to_thread(connect_or_start, settings.data_dir / "redis")
    stack.push_async_callback(asyncio.to_thread, embedded.stop)
    return embedded.url
