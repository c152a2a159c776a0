"""The training process: builds everything from the settings, owns every resource, runs it."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FrameType

import redis
import structlog
import torch
from prometheus_client import CollectorRegistry, ProcessCollector

from models.export import export
from models.learner import Learner
from models.networks.click import ClickNetwork, NetworkConfig
from models.registry import Strategy, beliefs, build
from models.spec import FeatureSpec, SpecError
from service import logs
from service.checkpoints import Store, open_store
from service.connections import connect
from service.errors import ServiceError
from service.ports import listening
from service.settings import Settings, SettingsError, read
from service.streams import StreamNames
from service.telemetry import TrainerMetrics, exposed
from service.training.guard import Bounds, Guard
from service.training.heap import settle
from service.training.join import Join
from service.training.joins import Joins
from service.training.outcome import Outcome, Progress
from service.training.publisher import Publisher
from service.training.ranks import Ranks, joined
from service.training.sampling import Sampler
from service.training.trainer import Trainer
from service.training.worker import Worker

_log = structlog.get_logger()


def train(settings: Settings, *, burst: bool = False) -> tuple[Progress, int]:
    """Runs the trainer until SIGTERM or SIGINT, or with `burst` until the log is read to its end.

    Where torchrun started it, it is one of several ranks: see `service.training.ranks`.

    Returns:
        What this run learned, and the version that it reached.

    Raises:
        SettingsError: a feature spec or a strategy that will not do.
        CheckpointError: locked, spec_mismatch, network_mismatch, no_usable_version.
        StreamError: the log's server cannot be started, or cannot hold the log.
        OSError: a port is taken, a version cannot be written, or another rank is gone.
    """
    logs.configure(settings.log_format)
    metrics = TrainerMetrics(CollectorRegistry())
    ProcessCollector(registry=metrics.registry)
    # Opens in this order and closes in the other: the embedded server goes last.
    with ExitStack() as stack:
        ranks = stack.enter_context(joined())
        # Not before: a signal ends at once who waits in vain for the others to come.
        stop = stack.enter_context(_stopped_by_signals())
        trainer, spec = create_trainer(settings, ranks)
        store = open_store(settings.store)
        if ranks.rank == 0:
            stack.enter_context(store.lock())
        port = settings.trainer_port and settings.trainer_port + ranks.rank
        listener = listening("trainer_port", settings.trainer_host, port)
        stack.enter_context(exposed(metrics.registry, listener))
        client = stack.enter_context(connect(redis_url(settings, stack), name="agerank-trainer"))
        who = {"rank": ranks.rank, "ranks": ranks.size} if ranks.size > 1 else {}
        _log.info("training", lane=settings.lane, checkpoints=str(store), metrics_port=listener.getsockname()[1], **who)
        worker = create_worker(settings, trainer, spec, store=store, client=client, metrics=metrics, stop=stop)
        settle()
        return worker.run(burst=burst), trainer.learner.step


def create_trainer(settings: Settings, ranks: Ranks | None = None) -> tuple[Trainer, str]:
    """A fresh trainer, and its feature spec as TOML. Raises SettingsError.

    Args:
        ranks: that train together, None for one alone.
    """
    try:
        text = settings.feature_text()
        spec = FeatureSpec.from_toml(text)
        strategies = {name: build(name, options) for name, options in settings.strategies.items()}
        learner = _learner(settings, spec, strategies, ranks)
    except SpecError as error:
        raise SettingsError(f"{settings.features}: {error}") from None
    except ValueError as error:
        raise SettingsError(str(error)) from None
    join = partial(
        Join,
        window_ms=round(settings.attribution_window_s * 1000),
        mode=settings.impressions,
        max_pending=max(settings.max_pending // settings.partitions, 1),
    )
    trainer = Trainer(
        learner=learner,
        joins=Joins(join),
        lane=settings.lane,
        strategies=strategies,
        batch_size=settings.batch_size,
        mature_impressions=settings.mature_impressions,
        sampler=Sampler(rate=settings.negative_rate, seed=settings.seed),
        ranks=ranks,
    )
    return trainer, text


def _learner(settings: Settings, spec: FeatureSpec, strategies: Mapping[str, Strategy], ranks: Ranks | None) -> Learner:
    """Raises ValueError: what the strategies want learned cannot be, with these features or for all of them."""
    config = NetworkConfig(
        hidden=settings.hidden,
        dropout=settings.dropout,
        gate_hidden=settings.gate_hidden,
        initial_ctr=settings.initial_ctr,
    )
    options = {"table_learning_rate": settings.table_learning_rate, "half_life": settings.adagrad_half_life}
    return Learner(
        ClickNetwork(spec, config),
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        optimizer=settings.optimizer,
        negative_rate=settings.negative_rate,
        options={name: value for name, value in options.items() if value is not None},
        beliefs=beliefs(strategies.values()),
        peers=ranks.peers if ranks else None,
        parts=settings.gradient_parts,
    )


def create_worker(
    settings: Settings,
    trainer: Trainer,
    spec: str,
    *,
    store: Store,
    client: redis.Redis,
    metrics: TrainerMetrics,
    stop: threading.Event,
    observe: Callable[[Outcome], None] | None = None,
) -> Worker:
    """What drives a trainer from `create_trainer`. Whoever runs it holds the store's lock.

    Args:
        observe: is shown the outcome of every feed.
    """
    torch.set_num_threads(settings.threads)
    graphs = {name: export(trainer.learner.network, one) for name, one in trainer.strategies.items()}
    bounds = Bounds(
        window_examples=settings.guard_window_examples,
        min_examples=settings.guard_min_examples,
        pcoc_low=settings.guard_pcoc_low,
        pcoc_high=settings.guard_pcoc_high,
        normalised_entropy=settings.guard_normalised_entropy,
    )
    publisher = Publisher(
        store,
        trainer,
        spec=spec,
        graphs=graphs,
        keep=settings.keep_versions,
        guard=Guard(bounds),
        refused=metrics.refused,
        full_every=settings.full_every,
    )
    return Worker(
        trainer=trainer,
        publisher=publisher,
        client=client,
        names=StreamNames(settings.redis_prefix, settings.partitions),
        window_ms=round(settings.attribution_window_s * 1000),
        maxlen=settings.stream_max_entries,
        publish_interval_s=settings.publish_interval_s,
        metrics=metrics,
        stop=stop,
        clock=time.time,
        observe=observe,
    )


def redis_url(settings: Settings, stack: ExitStack) -> str:
    """The configured one, or that of an embedded server, which `stack` stops if it was started here."""
    if settings.redis_url:
        return settings.redis_url.get_secret_value()
    from service.valkey import connect_or_start  # an extra that a trainer with a Redis of its own does without

    return stack.enter_context(connect_or_start(settings.data_dir / "redis")).url


def main() -> int:
    """0 after a stop that was asked for, 1 with the reason on stderr where it cannot go on, 2 for wrong settings."""
    try:
        train(read())
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    except (ServiceError, OSError) as error:
        _log.critical("the trainer cannot go on", error=str(error))
        return 1
    return 0


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, for as long as the context lasts."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    raise SystemExit(main())
