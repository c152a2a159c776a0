"""agerank replay: what a strategy would have earned on a log of random traffic."""

import json
import os
import statistics
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from models.evaluation.driver import Protocol
from models.registry import Strategy, build
from scripts.outputs import for_tables, to_write
from scripts.replay_inputs import check, readable
from scripts.replay_runs import Format, Log, Model, Work
from scripts.runs import Results, Row, run_all
from service.settings import SettingsError, read

DEFAULTS = Protocol()
COLUMNS = ("events", "matched", "clicks", "ctr", "expected_random_matches", "expected_random_clicks")


def replay(
    log: Annotated[Path, typer.Option(help="The log; unpacked while it is read if it ends in .gz.")],
    format: Annotated[
        Format, typer.Option(help="r6b, the lines of Yahoo! R6B; open_bandit, the csv of the random policy's log.")
    ] = Format.R6B,
    strategies: Annotated[
        str, typer.Option(help="Names from the settings, separated by commas.")
    ] = "random,greedy,epsilon_greedy,item_posterior,age_ts,age_ucb",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each strategy, with seeds 0, 1, ...")] = 1,
    warm_up: Annotated[
        int, typer.Option(min=0, help="Visits at the start that all strategies learn as they were logged.")
    ] = DEFAULTS.warm_up,
    update_every: Annotated[
        int, typer.Option(min=1, help="Visits after which a strategy learns from those it kept.")
    ] = DEFAULTS.update_every,
    limit: Annotated[int | None, typer.Option(min=1, help="Use no more than the first so many visits.")] = None,
    window: Annotated[
        int | None,
        typer.Option(min=1, help="After each update learn anew, from the newest so many examples. Default: each once."),
    ] = None,
    share: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Use the first so large a part of the log, by its bytes.")
    ] = 1.0,
    items: Annotated[
        Path | None,
        typer.Option(help="JSON lines, one an item: its features, and clicks of items of the past. See above."),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(help="Feature spec of --items. Default: the features of users, and the id of items."),
    ] = None,
    learning_rate: Annotated[
        float, typer.Option(min=1e-6, max=1.0, help="Of the click model, while it learns from the log.")
    ] = Model().learning_rate,
    runs: Annotated[
        Path | None,
        typer.Option(callback=to_write, help="JSON lines, one a finished run; runs that are in it are not repeated."),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes. Default: one a CPU.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Settings file with the strategies. Default: AGERANK_CONFIG, else agerank.toml where it is."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON list, a row for each strategy and seed.")
    ] = False,
) -> None:
    """Judge strategies on a log of uniformly random traffic, without bias.

    Each logged visit is put to the strategy. Where it picks the very article that was displayed, the click counts and
    it learns from it; the other visits are ignored. So each strategy rules and learns as if the traffic had been its
    own, and its CTR is comparable with that of any other. Of N visits with K candidates it keeps about N / K.

    A line of the log, one for each visit (Yahoo! R6B; the real one needs a signed agreement with Yahoo):

        1317513291 id-560620 0 |user 1 9 11 13 |id-552077 |id-560620 |id-565822

    the Unix time, the article displayed, 1 if it was clicked, the user's active features of 1 to 136, the candidates.

    Of the Open Bandit Dataset (its sample is in the PyPI package obp, under obp/dataset/obd/random) name the csv of a
    campaign; item_context.csv must stand beside it.

    What else is known of the items comes by --items, and what of that the model reads by --features. Items with
    impressions are of the past: the model learns them before the log begins. They must not be in the log.

        {"id": "id-560620", "features": {"words": ["a", "cat"]}}

        {"id": "id-400123", "features": {"words": ["a", "dog"]}, "impressions": 3412, "clicks": 51}

    Try it, on the first 100,000 visits:

        agerank replay --log LOG.gz --strategies random,greedy,age_ts --warm-up 20000 --limit 100000
    """
    protocol = Protocol(warm_up=warm_up, update_every=update_every, window=window)
    model, chosen = Model(learning_rate, features, items), _strategies(strategies, config)
    work = [
        Work(strategy, seed, Log(log, format, limit, share), protocol, model)
        for strategy, seed in product(chosen, range(seeds))
    ]
    with readable(log):
        check(Log(log, format, limit, share), model, chosen)
        processes = min(jobs or os.cpu_count() or 1, len(work))
        records = run_all(work, title="replay", processes=processes, quiet=as_json, results=Results(runs))
    results = [record.result for record in records]
    _report_tally(results[0]["tally"])  # all have read the same lines
    if results[0]["events"] == 0:
        found = results[0]["tally"]["events"]
        raise typer.BadParameter(
            f"the warm-up takes {warm_up} visits, and {log} has {found}: none is left to judge on",
            param_hint="--warm-up",
        )
    if as_json:
        print(json.dumps([_row(one, result) for one, result in zip(work, results, strict=True)]))
    else:
        for_tables().print(_table(work, results))


def _strategies(names: str, config: Path | None) -> list[Strategy]:
    try:
        known = read(config).strategies
        return [build(name, known[name]) for name in dict.fromkeys(names.split(","))]
    except SettingsError as error:
        raise typer.BadParameter(str(error), param_hint="--config") from None
    except KeyError as error:
        raise typer.BadParameter(
            f"no strategy {error}; there are {', '.join(known)}", param_hint="--strategies"
        ) from None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--strategies") from None


def _report_tally(tally: Row) -> None:
    skipped: Counter[str] = Counter(tally["skipped"])
    if skipped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.most_common())
        typer.echo(f"skipped {skipped.total()} lines: {reasons}", err=True)
    if tally["unsorted"]:
        typer.echo(f"used {tally['unsorted']} visits that are earlier than the one before them", err=True)


def _row(work: Work, result: Row) -> Row:
    return {"strategy": work.strategy.name, "seed": work.seed, **{name: result[name] for name in COLUMNS}}


def _table(work: Sequence[Work], results: Sequence[Row]) -> Table:
    """A row for each strategy: mean and standard deviation over its seeds."""
    first = results[0]
    matches, clicks = first["expected_random_matches"], first["expected_random_clicks"]
    random_ctr = clicks / matches
    table = Table(
        title=f"{first['events']} visits; random display: {matches:.0f} matches, {clicks:.1f} clicks, "
        f"CTR {random_ctr:.4%} expected"
    )
    for name in ("strategy", "matched", "clicks", "CTR", "over random"):
        left = name == "strategy"
        table.add_column(name, justify="left" if left else "right", overflow="fold" if left else "ellipsis")
    by_strategy: dict[str, list[Row]] = {}
    for one, result in zip(work, results, strict=True):
        by_strategy.setdefault(one.strategy.name, []).append(result)
    for name, runs in by_strategy.items():
        if len(runs) > 1:
            table.caption = f"mean \u00b1 standard deviation of a run, over {len(runs)} seeds"
        ctr = [run["ctr"] or 0.0 for run in runs]
        table.add_row(
            name,
            _mean_sd([run["matched"] for run in runs], ".1f"),
            _mean_sd([run["clicks"] for run in runs], ".1f"),
            _mean_sd(ctr, ".4%"),
            _mean_sd([one / random_ctr - 1.0 for one in ctr], "+.1%") if random_ctr else "-",
        )
    return table


def _mean_sd(values: Sequence[float], form: str) -> str:
    mean = format(statistics.fmean(values), form)
    return mean if len(values) == 1 else f"{mean} \u00b1 {format(statistics.stdev(values), form.lstrip('+'))}"
