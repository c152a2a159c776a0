"""The rivals do the work: the plain network's scores for the very body that we take, best first."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from scripts.bench.contenders import Case, check, rival
from scripts.bench.load import closed_loop, post
from scripts.bench.naive import NaiveNetwork, plain_graph
from scripts.bench.plain import PlainNetwork
from scripts.bench.processes import Server, cores
from scripts.bench.report import BenchError
from scripts.bench.rivals import RIVALS
from scripts.bench.rivals.ranking import save
from scripts.bench.work import SPEC, Catalogue, Model, rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rivals")
    save(folder, spec=SPEC, graph=plain_graph(NaiveNetwork(Model().params)))
    return folder


@pytest.fixture(params=RIVALS)
def server(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[Server, str]]:
    name = request.param
    if importlib.util.find_spec(RIVALS[name].module) is None:
        pytest.skip(f"{RIVALS[name].module} is not installed")
    with ExitStack() as stack:
        yield stack.enter_context(rival(name, folder, Path(sys.executable), cores(None))).wait(), RIVALS[name].path


def test_it_answers_ids_and_scores_best_first(server: tuple[Server, str], folder: Path) -> None:
    running, path = server
    request = Catalogue().request(1, 30, strategy="greedy")
    outcome = closed_loop(
        running.port, [post(path, json.dumps(request).encode())], connections=2, seconds=0.2, keep=True
    )
    assert outcome.failures == {}
    batch = rows(request)
    scores = PlainNetwork((folder / "plain.onnx").read_bytes())(batch.context_index, batch.item_index)
    expected = {one["id"]: score for one, score in zip(request["candidates"], scores.tolist(), strict=True)}
    for answer in set(outcome.answers):
        items = json.loads(answer)["items"]
        found = [one["score"] for one in items]
        assert found == sorted(found, reverse=True)
        assert {one["id"] for one in items} == expected.keys()
        assert np.allclose(found, [expected[one["id"]] for one in items], rtol=0.0, atol=1e-6)


def test_one_that_does_not_do_the_work_is_refused(folder: Path) -> None:
    other = PlainNetwork(plain_graph(NaiveNetwork(Model(seed=1).params)))
    with rival("bare", folder, Path(sys.executable), cores(None)) as running:
        case = Case("bare", "0", "greedy", "full", running.wait(), RIVALS["bare"].path)
        check(case, PlainNetwork((folder / "plain.onnx").read_bytes()))
        with pytest.raises(BenchError, match="bare greedy full does not do the work"):
            check(case, other)
        with pytest.raises(BenchError, match="bare failed: .*status 404"):
            check(case._replace(path="/nowhere"), other)
