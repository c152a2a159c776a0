"""The benchmark's work: the same for everybody, from a seed, as large as it is said to be."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.bench.naive import NaiveNetwork
from scripts.bench.work import LANE, SPEC, STRATEGIES, Catalogue, Model, publishing, rows
from service import checkpoints
from service.checkpoints import LocalStore
from service.scoring.loading import load
from service.scoring.ranking import Terms, encode_rows, rank


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


def test_the_network_is_the_one_that_was_agreed_on(model: Model) -> None:
    sides = [field.side for field in model.network.spec.fields]
    assert (sides.count("item"), len(sides)) == (12, 25)
    assert {(field.kind, field.buckets, field.width) for field in model.network.spec.fields} == {
        ("categorical", 10_000, 8)
    }
    assert (model.network.width, model.network.config.hidden) == (200, (256, 128, 64))


def test_a_request_is_made_from_its_number_alone() -> None:
    one, other = Catalogue().body(3, 20), Catalogue().body(3, 20)
    assert one == other
    assert Catalogue().body(4, 20) != one
    assert Catalogue(seed=1).body(3, 20) != one


def test_ids_alone_name_the_same_items() -> None:
    catalogue = Catalogue()
    whole, bare = (catalogue.request(5, 40, ids_only=one) for one in (False, True))
    ids = [one["id"] for one in whole["candidates"]]
    assert len(set(ids)) == 40
    assert bare["candidates"] == [{"id": one} for one in ids]
    places = [int(one.removeprefix("item-")) for one in ids]
    assert [catalogue.item(place) for place in places] == whole["candidates"]


def test_more_goes_into_a_request() -> None:
    assert json.loads(Catalogue().body(0, 1, strategy="greedy"))["strategy"] == "greedy"


def test_the_gate_is_open_for_about_half_of_every_request(model: Model) -> None:
    network, shares = NaiveNetwork(model.params), []
    for number in range(100, 120):
        batch = rows(Catalogue().request(number, 450))
        h = network.embed(torch.from_numpy(batch.context_index), torch.from_numpy(batch.item_index))
        shares.append(float((network.click(h) >= network.threshold(h)).float().mean()))
    assert min(shares) > 0.3
    assert max(shares) < 0.7
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)


def test_versions_are_those_of_a_trainer_and_differ_in_their_scores(tmp_path: Path) -> None:
    with publishing(tmp_path, Model(), keep=3) as versions:
        generator = np.random.default_rng(0)
        published = [versions.publish(), versions.publish_next(generator), versions.publish_next(generator)]
    assert [one.version for one in published] == [0, 1, 2] == checkpoints.versions(LocalStore(tmp_path))
    assert checkpoints.current(LocalStore(tmp_path)) == 2
    assert set(published[0].strategies) == set(STRATEGIES)
    assert published[0].spec == SPEC
    scores = []
    for one in published:
        loaded = load(
            LocalStore(tmp_path), one.version, kind="onnx", threads=1, lane=LANE, strategies=STRATEGIES, max_items=1
        )
        request = loaded.decoder.decode(Catalogue().body(0, 20), max_candidates=20)
        ranking = asyncio.run(
            rank(loaded, encode_rows(loaded, request), Terms("r", "greedy", None, 0, 20), check=lambda: None)
        )
        scores.append(ranking.scores.score)
    assert np.abs(scores[0] - scores[1]).max() > 1e-3
    assert np.abs(scores[1] - scores[2]).max() > 1e-3
