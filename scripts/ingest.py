"""agerank ingest: warm start from a historical log, through the very streams and trainer of live traffic."""

import heapq
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import redis
import typer
from prometheus_client import CollectorRegistry
from redis.exceptions import RedisError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from models.features import FeatureError
from models.spec import FeatureSpec
from scripts.history import LogError, Logged, Skipped, count_lines, read_csv, read_jsonl
from scripts.ingest_report import Report, table
from scripts.kuairand import count_impressions, read_kuairand
from scripts.recorder import Entries, Recorder
from service import logs
from service.appends import append_batch
from service.checkpoints import open_store
from service.connections import connect
from service.errors import ServiceError
from service.events import from_millis
from service.settings import Settings, SettingsError, read
from service.streams import StreamNames, order
from service.telemetry import TrainerMetrics
from service.training.__main__ import create_trainer, create_worker, redis_url

CHUNK = 25_000  # impressions written before the trainer reads on: bounds the unread part of the log
BATCH = 1_000  # impressions appended at once


class Format(StrEnum):
    """Of the files."""

    CSV = "csv"
    JSONL = "jsonl"
    KUAIRAND = "kuairand"


def ingest(
    files: Annotated[
        list[Path],
        typer.Argument(exists=True, dir_okay=False, help="The log. Several csv or jsonl files are merged by time."),
    ],
    format: Annotated[Format, typer.Option(help="Of the files; docs/ingest.md describes each.")],
    spec: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Feature spec. Default: the setting `features`.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings file. Default: AGERANK_CONFIG, else agerank.toml where there is one.")
    ] = None,
    timezone: Annotated[str, typer.Option(help="Whose midnight divides the days.")] = "UTC",
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Leave out what is older than this day.")
    ] = None,
    evaluate_from: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Report everything from this day on in one row, too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list, a row for each window.")] = False,
) -> None:
    """Warm start: learn from a historical impression log, before the first request is served.

    The log is written to the served and feedback streams as live traffic would have left it, at the times that it
    names, and the very trainer of `agerank train` learns from it and publishes versions. A scorer and a trainer started
    afterwards with the same settings continue from there.

    The report is progressive: the model predicts each impression before it learns whether it was clicked.

    A csv file has the columns time, user_id, item_id, click, and one for each field of the spec:

        agerank ingest --format csv --spec features.toml log-2026-05-01.csv.gz log-2026-05-02.csv.gz

    Lines that cannot be used are counted by reason, and the first of each is named. A file that does not fit the spec
    is refused before anything is written. So is a log that begins before something the streams already hold.
    """
    zone = _zone(timezone)
    try:
        settings = read(config, features=spec)
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from None
    report = Report(zone, since=evaluate_from.date() if evaluate_from else None)
    skipped = Skipped()
    console = Console(stderr=True, highlight=False)
    try:
        since_ms = round(since.replace(tzinfo=zone).timestamp() * 1000) if since else 0
        written = _ingest(settings, format, files, since_ms, report=report, skipped=skipped, console=console)
    except (LogError, SettingsError, ServiceError, RedisError, OSError) as error:
        console.print(f"ingest cannot go on: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    finally:
        for reason, count in skipped.counts.items():
            console.print(
                f"skipped {count:,} {reason}, the first at {skipped.first[reason]}", markup=False, soft_wrap=True
            )
    rows = report.rows()
    waiting = written - rows[0]["examples"]
    waits = "still wait for their window or for a full batch" + (
        "" if settings.negative_rate == 1.0 else ", or were left out"
    )
    console.print(f"{written:,} impressions written; {waiting:,} {waits}")
    if as_json:
        print(msgspec.json.encode(rows).decode())
    else:
        Console().print(table(rows))
    if not written:
        raise typer.Exit(1)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):  # not there, or a path out of the zones
        raise typer.BadParameter(f"there is no time zone {name!r}", param_hint="--timezone") from None


def _ingest(
    settings: Settings,
    format: Format,
    files: list[Path],
    since_ms: int,
    *,
    report: Report,
    skipped: Skipped,
    console: Console,
) -> int:
    """Writes the log and learns from it, in turns. Returns how many impressions were written."""
    logs.configure(settings.log_format)
    trainer, text = create_trainer(settings)
    spec = trainer.learner.network.spec
    names = StreamNames(settings.redis_prefix, settings.partitions)
    with ExitStack() as stack:
        store = open_store(settings.store)
        stack.enter_context(store.lock())
        client = stack.enter_context(connect(redis_url(settings, stack), name="agerank-ingest"))
        newest_ms = _newest_ms(client, names)
        recorder = Recorder(spec=spec, names=names, lane=settings.lane, confirm=settings.impressions == "events")
        impressions = _in_order(_read(format, files, spec, skipped), skipped, since_ms=since_ms, after_ms=newest_ms)
        recorded = _recorded(recorder, impressions, skipped)
        size = min(CHUNK, max(settings.stream_max_entries // 2, 1))  # what is trimmed was read, confirmations or not
        chunk = list(islice(recorded, size))  # a file that does not fit is found out before anything is written
        worker = create_worker(
            settings,
            trainer,
            text,
            store=store,
            client=client,
            metrics=TrainerMetrics(CollectorRegistry()),
            stop=threading.Event(),
            observe=lambda outcome: report.add(outcome.predictions),
        )
        worker.run(burst=True)  # and so is a folder that was trained with something else
        written = 0
        with _progress(console, format, files) as advance:
            while chunk:
                for start in range(0, len(chunk), BATCH):
                    batch = [entry for entries in chunk[start : start + BATCH] for entry in entries]
                    append_batch(client, batch, maxlen=settings.stream_max_entries)
                worker.run(burst=True)
                written += len(chunk)
                advance(len(chunk))
                chunk = list(islice(recorded, size))
        return written


def _read(format: Format, files: list[Path], spec: FeatureSpec, skipped: Skipped) -> Iterator[Logged]:
    if format is Format.KUAIRAND:
        return read_kuairand(files, spec, skipped)
    reader = read_csv if format is Format.CSV else read_jsonl
    return heapq.merge(*(reader(path, spec, skipped) for path in files), key=lambda logged: logged.time_ms)


def _in_order(impressions: Iterator[Logged], skipped: Skipped, *, since_ms: int, after_ms: int) -> Iterator[Logged]:
    """Those that the streams can take: each no older than the one before, the first newer than all that is there."""
    now_ms, last_ms = round(time.time() * 1000), 0
    for one in impressions:
        if one.time_ms < since_ms:
            skipped.add("before_since", one.where)
            continue
        if not last_ms and one.time_ms <= after_ms:
            begins, ends = (f"{from_millis(ms):%Y-%m-%d %H:%M:%S} UTC" for ms in (one.time_ms, after_ms))
            raise LogError(
                f"{one.where} is of {begins}, but the streams have had entries up to {ends} and take only newer ones."
                " Ingest before the first request, or anew: into another data_dir, or another redis_prefix and lane"
            )
        if one.time_ms < last_ms:
            skipped.add("time_goes_back", one.where, "sort the file by time")
        elif one.time_ms > now_ms:
            skipped.add("in_the_future", one.where, str(one.time_ms))
        else:
            last_ms = one.time_ms
            yield one


def _recorded(recorder: Recorder, impressions: Iterator[Logged], skipped: Skipped) -> Iterator[Entries]:
    for one in impressions:
        try:
            yield recorder.entries(one)
        except FeatureError as error:
            skipped.add(error.code, one.where, str(error))


def _newest_ms(client: redis.Redis, names: StreamNames) -> int:
    """Time of the newest entry that the input streams ever had, 0 for none."""
    there = [stream for stream in names.inputs if client.exists(stream)]
    return max((order(client.xinfo_stream(one)["last-generated-id"].decode())[0] for one in there), default=0)


@contextmanager
def _progress(console: Console, format: Format, files: list[Path]) -> Iterator[Callable[[int], None]]:
    """A bar for whoever watches."""
    if not console.is_terminal:
        yield lambda impressions: None
        return
    total = count_impressions(files) if format is Format.KUAIRAND else sum(map(count_lines, files))
    columns = TextColumn("learning"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total)
        yield lambda impressions: bar.advance(task, impressions)
