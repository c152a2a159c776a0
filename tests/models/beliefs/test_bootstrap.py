"""Resampling, fakes and history; and the example with which GuideBoot begins."""

import numpy as np
import pytest
import torch

from models.beliefs import history
from models.beliefs.belief import Lesson
from models.beliefs.bootstrap import Bootstrap, Weights, counted
from models.networks.click import ClickNetwork, NetworkConfig, tensors
from models.registry import build
from models.spec import FeatureSpec
from models.types import Batch

IDS = '[[fields]]\nname = "id"\nside = "item"\nkind = "categorical"\nsource = "id"\nbuckets = 9\nwidth = 4\n'
#: Two ads, 50 impressions each; the first has been clicked once, the second never.
AD = np.repeat([3, 7], 50)
CLICK = np.zeros(100, dtype=np.float32)
CLICK[0] = 1.0
MEMBERS = 1_500


def belief(**options):
    return Bootstrap(**{"name": "any", "members": MEMBERS, "tables": "own", "resampling": "poisson", **options})


def estimates(one, guide):
    """Each member's click rate of both ads, (K, 2), were it to learn its examples by heart."""
    drawn = one.draw(100, np.random.default_rng(0))
    clicked, unclicked = counted(drawn, torch.from_numpy(CLICK), torch.full((100,), guide))
    ads = [clicked[rows].sum(0) / (clicked + unclicked)[rows].sum(0) for rows in (slice(0, 50), slice(50, 100))]
    return torch.stack(ads, dim=1)


def test_bootstrap_never_shows_the_second_ad_and_guideboot_does():
    plain = estimates(belief(), 0.0)
    assert (plain[:, 1] == 0).all()
    assert not (plain[:, 1] > plain[:, 0]).any()
    guided = estimates(belief(alpha=1.0), 1.0 / 50.0)
    shown = (guided[:, 1] > guided[:, 0]).float().mean()
    assert 0.1 < shown < 0.4  # the worse evidence is followed less often
    # The estimator's mean is (s + alpha) / (n + 2 alpha), up to that of a ratio.
    torch.testing.assert_close(guided.mean(0), torch.tensor([2.0, 1.0]) / 52.0, rtol=0.1, atol=0.0)


@pytest.mark.parametrize("method", ["bootstrap", "guideboot"])
def test_so_do_the_networks_that_learn_from_them(method):
    network = ClickNetwork(FeatureSpec.from_toml(IDS), NetworkConfig(hidden=(8,), initial_ctr=0.05))
    (one,) = build(method, {"members": 30, "replayed": 100}).beliefs
    fresh = one.init(network, torch.Generator().manual_seed(0))
    state = fresh.trained | fresh.private
    rows = AD[:, None].astype(np.int32)
    empty = np.zeros((100, 0))
    batch = tensors(Batch(empty.astype(np.int32), empty.astype(np.float32), rows, np.ones_like(rows, np.float32)))
    generator = np.random.default_rng(1)
    lesson = Lesson(batch, torch.from_numpy(CLICK), None, None)
    one.note(network, {}, state, lesson, generator)
    for value in fresh.trained.values():
        value.requires_grad_()
    optimizer = torch.optim.Adam([value for name, value in fresh.trained.items() if "embedding" not in name], lr=0.05)
    for _ in range(200):
        one.loss(network, {}, state, lesson, generator).backward()
        optimizer.step()
        optimizer.zero_grad()
    ads = Batch(*(column[[0, 99]] for column in batch))
    first, second = torch.sigmoid(one.shape.logits(network, {}, state, ads).detach()).T
    if method == "bootstrap":
        assert second.median() < 0.005
        assert not (second > first + 0.001).any()
    else:
        assert (second > first + 0.005).any()
        assert (second < first).any()


def test_how_often_an_example_counts():
    y, g = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.1])
    ones = torch.ones(2, 1)
    weights = Weights(3.0 * ones, 0.4 * ones, 0.05 * ones, 2.0 * ones, 4.0 * ones)
    clicked, unclicked = counted(weights, y, g)
    # Real 3; both fakes of the first (0.4 and 0.05 < 0.5), the clicked one of the second (0.05 < 0.1 < 0.4).
    assert clicked.flatten().tolist() == [3 * 2 + 4, 3 * 1 + 4]
    assert unclicked.flatten().tolist() == [3 * 1 + 2, 3 * 1 + 2]


@pytest.mark.parametrize(
    ("options", "mean", "variance"),
    [
        ({"resampling": "none"}, 1.0, 0.0),
        ({"resampling": "poisson"}, 1.0, 1.0),
        ({"resampling": "double_or_nothing"}, 1.0, 1.0),
    ],
)
def test_resampling_counts_every_example_once_in_the_mean(options, mean, variance):
    drawn = belief(**options, pseudo=0.5).draw(100, np.random.default_rng(0))
    assert drawn.real.mean() == pytest.approx(mean, abs=0.01)
    assert drawn.real.var() == pytest.approx(variance, abs=0.05)
    for pseudo in (drawn.pseudo_clicked, drawn.pseudo_unclicked):
        assert pseudo.mean() == pytest.approx(0.5, abs=0.1)
    assert not torch.equal(drawn.pseudo_clicked, drawn.pseudo_unclicked)


def test_guidance_by_the_item_or_by_all_fields(network, make_training_batch):
    """Brute force over what was seen, value by value."""
    batch = make_training_batch(31, seed=5)
    batch = batch._replace(**{name: np.concatenate([getattr(batch, name)[:9]] * 3) for name in batch._fields})
    lesson = Lesson(tensors(batch), torch.zeros(27), None, None)
    for guidance in ("item", "fields"):
        one = belief(alpha=0.3, guidance=guidance, members=2)
        state = one.init(network, torch.Generator()).private
        one.note(network, {}, state, lesson, np.random.default_rng())
        found = one.guide(network, state, lesson)
        expected = torch.zeros(27, dtype=torch.float64)
        for layout, index, weight in (
            (network.spec.context, batch.context_index, batch.context_weight),
            (network.spec.item, batch.item_index, batch.item_weight),
        ):
            for column in layout.columns:
                if column.field.kind == "numeric" or (guidance == "item" and column.field.source != "id"):
                    continue
                slots = slice(column.start, column.start + column.field.slots)
                full = (weight[:, slots] != 0) | (column.field.kind == "categorical")
                for row in range(27):
                    for value in index[row, slots][full[row]]:
                        expected[row] += 1.0 / int(((index[:, slots] == value) & full).sum())
        torch.testing.assert_close(found.double(), torch.clamp(0.3 * expected, max=1.0), rtol=1e-5, atol=0)


def test_an_item_without_an_id_has_no_guidance_of_its_own():
    spec = FeatureSpec.from_toml(IDS.replace('source = "id"\n', ""))
    with pytest.raises(ValueError, match='source = "id"'):
        belief(alpha=1.0).init(ClickNetwork(spec, NetworkConfig(hidden=(2,))), torch.Generator())


def test_history_keeps_the_newest_in_their_places(network, make_training_batch):
    state = history.begin(network, 7, 2)
    seen = []
    for seed, count in enumerate((3, 3, 4, 9)):
        batch = tensors(make_training_batch(count, seed=seed))
        own = torch.arange(2.0 * count).reshape(count, 2) + 100 * seed
        history.append(state, Lesson(batch, torch.zeros(count), None, None), own)
        seen += [(*(column[row] for column in batch), own[row]) for row in range(count)]
        size = history.size(state)
        assert size == min(len(seen), 7)
        for number in range(len(seen) - size, len(seen)):
            kept, mine = history.take(state, torch.tensor([number % 7]))
            for one, other in zip((*kept, mine), seen[number], strict=True):
                assert torch.equal(one[0], other)


def test_history_takes_contexts_that_are_shared_or_cut_short(network, make_request):
    state = history.begin(network, 8, 1)
    full = tensors(make_request(3, seed=1)[0])
    rows = torch.zeros(3, dtype=torch.int64)
    history.append(state, Lesson(full, torch.zeros(3), rows, None), torch.ones(3, 1))
    # Room that held a longer context is emptied by a shorter one.
    short = full._replace(context_index=full.context_index[:, :2], context_weight=full.context_weight[:, :2])
    state["history.seen"].zero_()
    history.append(state, Lesson(short, torch.zeros(3), rows, None), torch.ones(3, 1))
    kept, _ = history.take(state, torch.arange(3))
    assert torch.equal(kept.context_index[:, :2], short.context_index.expand(3, -1))
    assert (kept.context_weight[:, 2:] == 0).all()
    assert torch.equal(kept.item_index, full.item_index)
