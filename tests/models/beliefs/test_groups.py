"""Groups against sums over their examples, and the posterior of items within them against its formula."""

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from onnxruntime import InferenceSession

from models.beliefs.groups import Groups, group_column
from models.export import export
from models.features import Encoder, Features
from models.learner import Learner
from models.networks.click import ClickNetwork, NetworkConfig, tensors
from models.policy import Policy
from models.registry import build
from models.spec import FeatureSpec, SpecError
from models.types import Batch

FIELDS = """
[[fields]]
name = "story"
side = "item"
kind = "categorical"
buckets = 53
{group}
[[fields]]
name = "id"
side = "item"
kind = "categorical"
source = "id"
buckets = 997
"""
ITEMS, GROUPS, BATCHES, SIZE = 15, 4, 7, 23


def network_of(group: str) -> ClickNetwork:
    return ClickNetwork(FeatureSpec.from_toml(FIELDS.format(group=group)), NetworkConfig(hidden=(6, 5)))


@pytest.fixture
def catalogue() -> Batch:
    """All items, of four stories."""
    spec = network_of("group = true").spec
    return Encoder(spec).batch([f"i{n}" for n in range(ITEMS)], [{"story": f"s{n % GROUPS}"} for n in range(ITEMS)])


def taught(network: ClickNetwork, catalogue: Batch, **options: Any) -> tuple[Learner, dict, dict]:
    """A learner of random examples, and (S, I) by item and by story, from what it said of each before."""
    beliefs = build("item_posterior", {}).beliefs
    learner = Learner(network, learning_rate=0.02, seed=3, beliefs=beliefs, **options)
    rng = np.random.default_rng(0)
    by_item, by_story = (defaultdict(lambda: np.zeros(2)) for _ in range(2))
    for _ in range(BATCHES):
        item, label = rng.integers(0, ITEMS, SIZE), (rng.random(SIZE) < 0.4).astype(np.float32)
        batch = Batch(
            catalogue.context_index, catalogue.context_weight, catalogue.item_index[item], catalogue.item_weight[item]
        )
        p = learner.predict(batch).astype(np.float64)
        learner.learn(batch, label, np.zeros(SIZE, np.int64))
        weight = np.where(label > 0, 1.0, 1.0 / learner._negative_rate)
        for n, y, f, w in zip(item, label, p, weight, strict=True):
            for sums, key in ((by_item, n), (by_story, n % GROUPS)):
                sums[key] += w * (y - f), w * f * (1.0 - f)
    return learner, by_item, by_story


@pytest.mark.parametrize("negative_rate", [1.0, 0.25])
def test_the_score_is_the_formula_of_items_within_their_groups(catalogue: Batch, negative_rate: float) -> None:
    network = network_of("group = true")
    learner, by_item, by_story = taught(network, catalogue, negative_rate=negative_rate)
    strategy = build("item_posterior", {"uncertainty": "ucb", "prior_sd": 0.9, "z": 0.7})
    scores = Policy(network, learner.params, strategy).scores(catalogue, {}, 1.0, np.zeros(ITEMS, np.int64))
    f = learner.predict(catalogue).astype(np.float64)
    expected = []
    for n in range(ITEMS):
        (s, i), (s_g, i_g) = by_item[n], by_story[n % GROUPS]
        c = s_g / (1.0 / 0.9**2 + i_g)
        m_g = f[n] + f[n] * (1.0 - f[n]) * c
        w = m_g * (1.0 - m_g) / (1.0 / 0.3**2 + i * m_g * (1.0 - m_g) / (f[n] * (1.0 - f[n])))
        m = m_g + w * (s - c * i)
        expected.append(m + 0.25 * 0.7 * np.sqrt(w * m * (1.0 - m)))
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(scores.score, expected, rtol=2e-4)
    np.testing.assert_allclose(scores.p_click, f, rtol=1e-6)


def test_a_group_that_the_model_has_too_low_does_not_favour_what_was_shown(catalogue: Batch) -> None:
    """All examples are of one item, a tenth of them clicked, where 5 % were foreseen: without groups it leads."""
    lead = {}
    for group in ("", "group = true"):
        network = network_of(group)
        strategy = build("item_posterior", {"uncertainty": "ucb", "z": 0.0})
        learner = Learner(network, learning_rate=1e-9, seed=3, beliefs=strategy.beliefs)
        row = np.zeros(200, np.int64)  # the first item
        shown = Batch(*catalogue[:2], catalogue.item_index[row], catalogue.item_weight[row])
        learner.learn(shown, (np.arange(200) % 10 == 0).astype(np.float32), row)
        score = Policy(network, learner.params, strategy).scores(catalogue, {}, 1.0, np.zeros(ITEMS, np.int64)).score
        lead[group] = score[0] / score[GROUPS] - 1.0  # of the same story
    assert lead[""] > 0.5
    assert abs(lead["group = true"]) < 0.05


def test_items_without_a_value_are_no_group() -> None:
    """Beside others that have one, they are scored as if there were no groups."""
    found = {}
    for group in ("", "group = true"):
        network = network_of(group)
        features: list[Features] = [{}, {}, {"story": "s"}, {"story": "s"}]
        batch = Encoder(network.spec).batch([f"i{n}" for n in range(4)], features)
        strategy = build("item_posterior", {"uncertainty": "ucb"})
        learner = Learner(network, learning_rate=1e-9, seed=3, beliefs=strategy.beliefs)
        row = np.arange(300) % 4 // 2 * 2  # the first of each
        learner.learn(
            Batch(*batch[:2], batch.item_index[row], batch.item_weight[row]),
            (np.arange(300) % 10 == 0).astype(np.float32),
            np.zeros(300, np.int64),
        )
        found[group] = Policy(network, learner.params, strategy).scores(batch, {}, 1.0, np.zeros(4, np.int64)).score
    np.testing.assert_allclose(found["group = true"][:2], found[""][:2], rtol=1e-6)
    assert (np.abs(found["group = true"][2:] / found[""][2:] - 1.0) > 0.05).all()


@pytest.mark.parametrize("logit", [-110.0, -40.0, 17.0, 40.0])
def test_a_model_that_is_beyond_doubt_still_scores(catalogue: Batch, logit: float) -> None:
    network = network_of("group = true")
    learner, *_ = taught(network, catalogue)
    with torch.no_grad():
        learner.params["mlp.out.bias"].fill_(logit)
    strategy = build("item_posterior", {"uncertainty": "ucb"})
    shown_and_new = Encoder(network.spec).batch(["i0", "new", "alone"], [{"story": "s0"}, {"story": "s0"}, {}])
    scores = Policy(network, learner.params, strategy).scores(shown_and_new, {}, 1.0, np.zeros(3, np.int64))
    assert np.isfinite(scores.score).all()
    np.testing.assert_allclose(scores.score, float(logit > 0), atol=2e-3)


def test_sums_of_another_field_are_refused(catalogue: Batch) -> None:
    """The spec's hash is the same, and so may the number of rows be."""
    learner, *_ = taught(network_of("group = true"), catalogue)
    moved = FeatureSpec.from_toml(FIELDS.format(group="group = true").replace("story", "campaign"))
    other = Learner(
        ClickNetwork(moved, learner.network.config),
        learning_rate=0.02,
        seed=9,
        beliefs=build("item_posterior", {}).beliefs,
    )
    with pytest.raises(ValueError, match=r"groups\.campaign\.residual.*other options"):
        other.restore(learner.weights(), learner.state(), learner.step)


def test_without_a_group_nothing_is_kept_and_nothing_changes(catalogue: Batch) -> None:
    plain = network_of("")
    assert group_column(plain.spec) is None
    state = Groups().init(plain, torch.Generator())
    assert (state.trained, state.kept, state.private) == ({}, {}, {})
    learner, by_item, _ = taught(plain, catalogue)
    assert not [name for name in learner.params if name.startswith("groups.")]
    strategy = build("item_posterior", {"uncertainty": "ucb", "z": 0.0})
    found = Policy(plain, learner.params, strategy).scores(catalogue, {}, 1.0, np.zeros(ITEMS, np.int64)).score
    f = learner.predict(catalogue).astype(np.float64)
    sums = np.array([by_item[n] for n in range(ITEMS)])
    np.testing.assert_allclose(found, f + f * (1 - f) / (1.0 + sums[:, 1]) * sums[:, 0], rtol=2e-4)


def test_a_group_changes_neither_the_encoding_nor_its_hash(catalogue: Batch) -> None:
    plain, grouped = network_of("").spec, network_of("group = true").spec
    assert plain.hash == grouped.hash
    assert plain != grouped
    for one, other in zip(
        tensors(catalogue),
        tensors(
            Encoder(plain).batch([f"i{n}" for n in range(ITEMS)], [{"story": f"s{n % GROUPS}"} for n in range(ITEMS)])
        ),
        strict=True,
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FIELDS.format(group="group = true") + "group = true", "only one field can be the group, not 'story' and 'id'"),
        (FIELDS.format(group="") + "group = true", "'id': the group must be a categorical feature of items"),
        (FIELDS.format(group="group = 1"), "bool"),
    ],
)
def test_a_group_that_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        FeatureSpec.from_toml(text)


@pytest.mark.parametrize("name", ["story", "Ä story/of: 2.0"])
def test_the_exported_graph_computes_the_same(catalogue: Batch, name: str) -> None:
    spec = FeatureSpec.from_toml(FIELDS.format(group="group = true").replace("story", name))
    network = ClickNetwork(spec, NetworkConfig(hidden=(6, 5)))
    learner, *_ = taught(network, catalogue)
    strategy = build("item_posterior", {"uncertainty": "ucb"})
    session = InferenceSession(export(network, strategy), providers=["CPUExecutionProvider"])
    given = {
        **{f"param.{name}": value for name, value in learner.prepared().items()},
        **catalogue._asdict(),
        "lambda": np.array(1.0, np.float32),
        "impressions": np.zeros(ITEMS, np.int64),
    }
    found = session.run(["score"], {one.name: given[one.name] for one in session.get_inputs()})[0]
    wanted = Policy(network, learner.params, strategy).scores(catalogue, {}, 1.0, np.zeros(ITEMS, np.int64)).score
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_delta_has_the_groups_that_a_step_changed(catalogue: Batch) -> None:
    network = network_of("group = true")
    learner, *_ = taught(network, catalogue, optimizer="sparse_adam")
    learner.settle()
    before = learner.weights()
    row = np.array([1, 1, 2])
    batch = Batch(*catalogue[:2], catalogue.item_index[row], catalogue.item_weight[row])
    learner.learn(batch, np.array([1, 0, 0], np.float32), np.zeros(3, np.int64))
    touched = learner.touched()
    assert touched is not None
    for name in ("groups.story.residual", "groups.story.information"):
        assert touched[name].tolist() == np.flatnonzero(learner.weights()[name] != before[name]).tolist()
        assert len(touched[name]) == 2


def test_a_restored_learner_goes_on_and_one_without_groups_begins_with_none(catalogue: Batch) -> None:
    learner, *_ = taught(network_of("group = true"), catalogue)
    plain, *_ = taught(network_of(""), catalogue)
    for source, kept in ((learner, True), (plain, False)):
        other = Learner(learner.network, learning_rate=0.02, seed=9, beliefs=build("item_posterior", {}).beliefs)
        other.restore(source.weights(), source.state(), source.step)
        assert bool(other.params["groups.story.information"].any()) is kept
        assert other.params["residuals.information"].any()
        for name, value in source.weights().items():
            np.testing.assert_array_equal(other.params[name].detach().numpy(), value)
