"""The scorer with the torch engine, over HTTP: requests at once, and versions swapped in while they come."""

import itertools
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import httpx
import numpy as np
import pytest

from service import checkpoints
from service.checkpoints import LocalStore, Manifest
from service.settings import Settings

Publish = Callable[..., Manifest]
Serving = Callable[..., AbstractContextManager[httpx.Client]]
Until = Callable[..., None]
Answers = Mapping[int, list[dict[str, Any]]]

STRATEGIES = ("greedy", "age_ts", "age_ucb", "epsilon_greedy", "random")
#: Of different sizes and strategies; the answers are told by the request's id alone.
REQUESTS = [
    {
        "request_id": f"r{number}",
        "strategy": STRATEGIES[number % len(STRATEGIES)],
        "candidates": [{"id": f"{number}-{place}"} for place in range(1 + 29 * number % 150)],
    }
    for number in range(30)
]


@pytest.fixture
def manifests(settings: Settings, publish: Publish) -> list[Manifest]:
    return [publish(settings.checkpoints, version, seed=version, current=version == 0) for version in range(2)]


@pytest.fixture
def expected(settings: Settings, manifests: list[Manifest], serving: Serving, until: Until) -> Answers:
    """What onnxruntime answers to one request after the other, by version."""
    found = {}
    with serving(settings) as client:
        for manifest in manifests:
            switch(settings, manifest, client, until)
            found[manifest.version] = [ask(client, request) for request in REQUESTS]
    checkpoints.set_current(LocalStore(settings.checkpoints), manifests[0])
    return found


def switch(settings: Settings, manifest: Manifest, client: httpx.Client, until: Until) -> None:
    checkpoints.set_current(LocalStore(settings.checkpoints), manifest)
    until(lambda: client.get("/readyz").json()["version"] == manifest.version)


def ask(client: httpx.Client, request: Mapping[str, Any]) -> dict[str, Any]:
    response = client.post("/v1/rank", json=request)
    assert response.status_code == 200, response.text
    return response.json()


def scores(answer: Mapping[str, Any]) -> np.ndarray:
    """(B, 2) of the candidates in the order of their ids."""
    return np.array([(item["p_click"], item["score"]) for item in sorted(answer["items"], key=lambda one: one["id"])])


def test_at_once_as_one_by_one_while_versions_change(
    settings: Settings, manifests: list[Manifest], expected: Answers, serving: Serving, until: Until
) -> None:
    answers: list[tuple[int, dict[str, Any]]] = []
    enough = threading.Event()

    def caller(first: int) -> None:
        for number in itertools.cycle([*range(first, len(REQUESTS)), *range(first)]):
            if enough.is_set():
                return
            answers.append((number, ask(client, REQUESTS[number])))

    mine = settings.model_copy(update={"engine": "torch", "batch_rows": 256, "deadline_s": 30.0})
    with serving(mine) as client, ThreadPoolExecutor(8) as pool:
        callers = [pool.submit(caller, 4 * first) for first in range(8)]
        for manifest in (*manifests, *manifests):
            switch(settings, manifest, client, until)
            several = len(answers) + 20
            until(lambda several=several: len(answers) > several or any(one.done() for one in callers))
        enough.set()
        for one in callers:
            one.result()
        lines = client.get("/metrics").text.splitlines()
    for number, answer in answers:
        of_version = expected[answer["model"]["version"]]
        np.testing.assert_allclose(scores(answer), scores(of_version[number]), rtol=1e-4, atol=1e-5)
    assert {answer["model"]["version"] for _, answer in answers} == {0, 1}
    batches, requests = (
        float(line.split()[1]) for line in lines if re.match(r"agerank_batch_requests_(count|sum) ", line)
    )
    assert requests == len(answers) > batches
