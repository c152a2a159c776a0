"""agerank bench gpu: what exploration costs on an accelerator, against the naive way on the same one."""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer

from models.features import item_hashes
from models.networks.click import Params
from models.noise import seed_of
from models.policy import Policy
from models.registry import Strategy, build
from scripts.bench.measure import Tell, ratio
from scripts.bench.naive import NaiveNetwork, age, full_masks
from scripts.bench.report import AsJson, Candidates, Column, Row, Runs, progress, show, whole_numbers
from scripts.bench.work import STRATEGIES, Catalogue, Model, rows
from service.scoring.engines import SeededNoise
from service.scoring.engines.batching import MAX_REQUESTS, Request
from service.scoring.engines.device import Device

#: Beside the usual ones UCB with masks over all hidden units, which leaves 20 passes but for the first layer.
METHODS: dict[str, dict[str, Any]] = STRATEGIES | {"age_ucb_full": STRATEGIES["age_ucb"] | {"dropout": "full"}}
REQUESTS = 8  # that are taken by turns
VERSION = 1
#: A candidate that stands on the threshold itself has its gate opened or shut by the last bit.
FIRM = 1e-5

COLUMNS = (
    Column("candidates", "candidates", "d"),
    Column("method", "method"),
    Column("fused", "fused"),
    Column("device_us", "device us", ".1f"),
    Column("request_us", "request us", ".1f"),
    Column("over_greedy", "over greedy", ".2f"),
    Column("naive_us", "naive us", ".0f"),
    Column("faster_than_naive", "faster than naive", ".1f"),
    Column("error", "error", ".0e"),
)


def gpu(
    candidates: Candidates = "100,1024",
    runs: Runs = 5,
    calls: Annotated[int, typer.Option(min=1, help="Of one method in one run.")] = 100,
    fuse: Annotated[bool, typer.Option("--fuse", help="Also compiled with torch.compile: minutes more.")] = False,
    cpu: Annotated[bool, typer.Option("--cpu", help="Run on the CPU where there is no GPU.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure the torch engine on a GPU: one request at a time, as the service captures and replays it.

    **age_ts** is Thompson with one mask over all hidden units, **age_ucb** has 20 masks of the last layer,
    **age_ucb_full** 20 over all; T = 3, and every candidate is worked on, whatever its gate says. **naive** is AGE in
    torch as the paper is read: autograd for every gradient, a full pass for every mask.

    **device us** is the time between two events on the device around one request's computation, median of the runs'
    medians; **request us** is the wall's, with filling, both copies and waiting. **faster than naive** compares device
    times. **error** is the largest difference of any score from the CPU's.

    Exits with 2 where there is no GPU; `--cpu` then runs the same code without it, and its times are the CPU's.
    """
    if not cpu and not torch.cuda.is_available():
        typer.echo("No CUDA device is here: nothing was measured. --cpu runs the same code on the CPU.", err=True)
        raise typer.Exit(2)
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else "the CPU, not a GPU"
    with progress(as_json=as_json, versions=("numpy", "torch", "triton")) as tell:
        tell(f"on {name}")
        found = run(candidates=whole_numbers(candidates), runs=runs, calls=calls, fuse=fuse, where=where, tell=tell)
    show(found, COLUMNS, title=f"One request on {name}, median of {runs} runs", as_json=as_json)


def run(*, candidates: Sequence[int], runs: int, calls: int, fuse: bool, where: torch.device, tell: Tell) -> list[Row]:
    """A row for each number of candidates and method, compiled or not; docs/benchmarks.md explains the keys."""
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")  # as the engine does
    tell("making the network")
    subject = _Subject(Model(), where)
    found: list[Row] = []
    for fused in (False, True) if fuse else (False,):
        tell("compiling" if fused else "capturing")
        device = subject.device(max(candidates), fused=fused)
        for count in candidates:
            requests = {name: [subject.request(name, number, count) for number in range(REQUESTS)] for name in METHODS}
            ways = {name: _ours(device, name, requests[name]) for name in METHODS}
            ways |= {f"naive {name}": subject.naive(name, requests[name]) for name in METHODS if name != "greedy"}
            taken: dict[str, list[float]] = {name: [] for name in ways}
            for number in range(runs):
                tell(f"{count} candidates, run {number + 1} of {runs}")
                for name, way in ways.items():  # by turns, so that noise of the machine hits all
                    taken[name].append(float(np.median([_seconds(way, where) for _ in range(calls)])))
            for name in METHODS:
                checked = subject.check(device, name, requests[name])
                found.append({"candidates": count, "fused": fused} | _row(name, taken) | checked)
    return found


class _Way(NamedTuple):
    """Something to be timed."""

    prepare: Callable[[], object]  # untimed
    work: Callable[[], object]
    stream: torch.cuda.Stream | None = None


class _Subject:
    """The benchmark's network on the device and on the CPU."""

    def __init__(self, model: Model, where: torch.device) -> None:
        self._network, self._where = model.network, where
        self._here: Params = {name: value.detach() for name, value in model.params.items()}
        self._there = model.network.prepare({name: value.to(where) for name, value in self._here.items()})
        self._naive = NaiveNetwork({name: value.to(where) for name, value in self._here.items()})
        self._strategies: dict[str, Strategy] = {name: build(name, options) for name, options in METHODS.items()}

    def device(self, max_rows: int, *, fused: bool) -> Device:
        """With everything captured."""
        explorations = {name: one.exploration for name, one in self._strategies.items()}
        return Device(
            self._network, self._there, explorations, max_rows=max_rows, max_requests=MAX_REQUESTS, fuse=fused
        )

    def request(self, method: str, number: int, count: int) -> Request:
        asked = Catalogue().request(number, count)
        strategy = self._strategies[method]
        noise = SeededNoise(
            strategy.exploration.noise(self._network),
            request_seed=seed_of(asked["request_id"]),
            version=VERSION,
            item_hash=item_hashes([one["id"] for one in asked["candidates"]]),
        )
        return Request(rows(asked), noise, strategy.lambda_, np.zeros(count, dtype=np.int64))

    def naive(self, method: str, requests: Sequence[Request]) -> _Way:
        """Its inputs are on the device beforehand."""
        turns = cycle(
            [
                (
                    torch.from_numpy(one.batch.context_index).to(self._where),
                    torch.from_numpy(one.batch.item_index).to(self._where),
                    self._masks(one),
                    one.lambda_,
                )
                for one in requests
            ]
        )
        return _Way(lambda: None, lambda: age(self._naive, *next(turns)))

    def _masks(self, request: Request) -> torch.Tensor:
        return full_masks(torch.from_numpy(request.noise["masks"]).to(self._where), self._naive)

    def check(self, device: Device, method: str, requests: Sequence[Request]) -> Row:
        """Whole requests: how long they take by the wall's clock, and how far their scores are from the CPU's."""
        policy = Policy(self._network, self._here, self._strategies[method])
        taken, errors = [], []
        for one in requests:
            started = time.perf_counter()
            (found,) = device.run(self._there, method, [one])
            taken.append(time.perf_counter() - started)
            expected = policy.scores(*one)
            firm = np.abs(expected.p_click - expected.gate_threshold) > FIRM
            errors.append(np.abs(found.score - expected.score)[firm].max())
        return {"request_us": float(np.median(taken)) * 1e6, "error": float(max(errors))}


def _ours(device: Device, method: str, requests: Sequence[Request]) -> _Way:
    plan, turns = device.plan(method, requests[0].rows), cycle(requests)
    return _Way(lambda: plan.slots.fill([next(turns)]), plan.run, device.stream)


def _seconds(way: _Way, where: torch.device) -> float:
    """Of the work alone, by events on the device where there is one."""
    if where.type == "cpu":
        way.prepare()
        started = time.perf_counter()
        way.work()
        return time.perf_counter() - started
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    with torch.inference_mode(way.stream is not None), torch.cuda.stream(way.stream):
        way.prepare()
        begin.record()
        way.work()
        end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def _row(method: str, taken: Mapping[str, Sequence[float]]) -> Row:
    ours, greedy = np.array(taken[method]), np.array(taken["greedy"])
    naive = np.array(taken[f"naive {method}"]) if f"naive {method}" in taken else None
    return {
        "method": method,
        "device_us": float(np.median(ours)) * 1e6,
        "over_greedy": ratio(ours, greedy),
        "naive_us": None if naive is None else float(np.median(naive)) * 1e6,
        "faster_than_naive": None if naive is None else ratio(naive, ours),
    }
