"""The optimisers against torch's own, on tables of which a batch reads a few rows."""

from collections.abc import Callable
from functools import partial
from itertools import permutations

import numpy as np
import pytest
import torch
from torch.nn import functional

from models.denormals import without_denormals
from models.optimizers import OPTIMIZERS, Adam, Optimizer, RowwiseAdagrad, SparseAdam
from models.rows import sparse

RATE = 0.05
TABLE, OTHER = "embedding.item_3", "mlp.0.bias"


def parameters() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    params = {TABLE: torch.randn(40, 3, generator=generator), OTHER: torch.randn(5, generator=generator)}
    return {name: value.requires_grad_() for name, value in params.items()}


def backward(params: dict[str, torch.Tensor], step: int, *, sparse: bool) -> None:
    """Gradients of something that reads rows 0 to 29, some of them twice, and no others."""
    generator = torch.Generator().manual_seed(100 + step)
    rows = torch.randint(30, (11,), generator=generator)
    read = functional.embedding(rows, params[TABLE], sparse=sparse)
    weight = torch.randn(read.shape, generator=generator)
    (weight * read.tanh()).sum().add(params[OTHER].square().sum()).backward()


def run(make: Callable[[dict[str, torch.Tensor]], list[object]], *, sparse: bool) -> dict[str, np.ndarray]:
    params = parameters()
    movers = make(params)
    for step in range(30):
        for value in params.values():
            value.grad = None
        backward(params, step, sparse=sparse)
        for mover in movers:
            mover.step()
    return {name: value.detach().numpy() for name, value in params.items()}


def test_adam_is_torch_s_on_dense_gradients() -> None:
    found = run(lambda params: [Adam(params, learning_rate=RATE)], sparse=True)
    expected = run(lambda params: [torch.optim.Adam(params.values(), lr=RATE)], sparse=False)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)


def test_sparse_adam_is_torch_s() -> None:
    found = run(lambda params: [SparseAdam(params, learning_rate=RATE)], sparse=True)

    def of_torch(params: dict[str, torch.Tensor]) -> list[object]:
        return [torch.optim.SparseAdam([params[TABLE]], lr=RATE), torch.optim.Adam([params[OTHER]], lr=RATE)]

    expected = run(of_torch, sparse=True)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)


def gradients(step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows, some of them twice, and the gradients of the table at each and of the other parameter."""
    generator = torch.Generator().manual_seed(step)
    rows = torch.randint(30, (11,), generator=generator)
    # From 1e-6, where only sums over many steps count, to 1e3.
    size = 10.0 ** torch.randint(-6, 4, (11, 1), generator=generator)
    return rows, torch.randn(11, 3, generator=generator) * size, torch.randn(5, generator=generator)


@pytest.mark.parametrize("half_life", [None, 3.0])
def test_rowwise_adagrad_is_its_formula_in_float64(half_life: float | None) -> None:
    params = parameters()
    optimizer = RowwiseAdagrad(params, learning_rate=RATE, table_learning_rate=0.2, half_life=half_life)
    table = params[TABLE].detach().double().numpy()
    v = np.zeros(len(table))
    for step in range(40):
        rows, g, other = gradients(step)
        ((functional.embedding(rows, params[TABLE], sparse=True) * g).sum() + (params[OTHER] * other).sum()).backward()
        optimizer.step()
        if half_life:
            v *= 0.5 ** (1.0 / half_life)  # of every row in every step
        summed = np.zeros(table.shape)
        np.add.at(summed, rows.numpy(), g.double().numpy())
        for row in set(rows.tolist()):
            v[row] += np.mean(summed[row] ** 2)
            table[row] -= 0.2 * summed[row] / (np.sqrt(v[row]) + 1e-8)
    np.testing.assert_allclose(params[TABLE].detach().numpy(), table, rtol=1e-4, atol=1e-5)
    assert not np.allclose(table[:30], parameters()[TABLE].detach().numpy()[:30], atol=0.1)


@pytest.mark.parametrize("half_life", [None, 20.0])
def test_steps_shrink_for_ever_unless_adagrad_forgets(half_life: float | None) -> None:
    """Under gradients of 1, v is the number of steps; halved in h of them, it is no more than 1 / (1 - 0.5^(1/h))."""
    params = parameters()
    optimizer = RowwiseAdagrad(params, learning_rate=RATE, half_life=half_life)
    for _ in range(400):
        before = float(params[TABLE][0, 0].detach())
        functional.embedding(torch.tensor([0]), params[TABLE], sparse=True).sum().backward()
        optimizer.step()
    v = 400 if half_life is None else 1.0 / (1.0 - 0.5 ** (1.0 / half_life))
    assert before - float(params[TABLE][0, 0].detach()) == pytest.approx(RATE / v**0.5, rel=1e-3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_tables_may_have_a_rate_of_their_own(name: str) -> None:
    moved = {}
    for table_rate in (None, 0.2):
        params = parameters()
        optimizer = OPTIMIZERS[name](params, learning_rate=RATE, table_learning_rate=table_rate)
        before = {key: value.detach().clone() for key, value in params.items()}
        backward(params, 0, sparse=True)
        optimizer.step()
        moved[table_rate] = {key: float((value.detach() - before[key]).abs().max()) for key, value in params.items()}
    assert moved[0.2][OTHER] == moved[None][OTHER]
    assert moved[0.2][TABLE] == pytest.approx(4 * moved[None][TABLE], rel=1e-4)  # RATE is 0.05


def test_only_adam_moves_what_the_last_batch_did_not_read() -> None:
    for kind, moves in ((Adam, True), (SparseAdam, False), (RowwiseAdagrad, False)):
        params = parameters()
        optimizer = kind(params, learning_rate=RATE)
        functional.embedding(torch.tensor([1, 2]), params[TABLE], sparse=True).sum().backward()
        optimizer.step()
        before = params[TABLE].detach().clone()
        functional.embedding(torch.tensor([2]), params[TABLE], sparse=True).sum().backward()
        optimizer.step()
        changed = (params[TABLE].detach() != before).any(1).nonzero().flatten().tolist()
        assert changed == ([1, 2] if moves else [2])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_restored_one_goes_on_with_the_same_bits(name: str) -> None:
    def after(optimizer: Optimizer, params: dict[str, torch.Tensor], steps: range) -> None:
        for step in steps:
            backward(params, step, sparse=True)
            optimizer.step()
            assert all(value.grad is None for value in params.values())

    straight, stopped = parameters(), parameters()
    make = partial(RowwiseAdagrad, half_life=5.0) if name == "rowwise_adagrad" else OPTIMIZERS[name]
    one, two = make(straight, learning_rate=RATE), make(stopped, learning_rate=RATE)
    assert one.state() == {}
    after(one, straight, range(9))
    after(two, stopped, range(4))
    again = {key: value.detach().clone().requires_grad_() for key, value in stopped.items()}
    three = make(again, learning_rate=RATE)
    three.restore({"another": np.zeros(1), **two.state()})
    after(three, again, range(4, 9))
    for key, value in straight.items():
        assert torch.equal(value, again[key])
    assert one.state().keys() == three.state().keys()
    assert all(np.array_equal(value, three.state()[key]) for key, value in one.state().items())


@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in OPTIMIZERS), ("rowwise_adagrad", {"half_life": 11.0})]
)
def test_a_row_moves_alike_whoever_else_moves(name: str, options: dict[str, float]) -> None:
    """To the bit, as ranks that divide a table need it; of so many rows, kernels take most several at a time."""
    whole = torch.randn(208, 3, generator=torch.Generator().manual_seed(0))
    parts = [whole[:64].clone(), whole[64:].clone()]
    movers = [OPTIMIZERS[name]({TABLE: table}, learning_rate=RATE, **options) for table in (whole, *parts)]
    for step in range(40):
        generator = torch.Generator().manual_seed(step)
        rows = torch.randint(208, (150,), generator=generator).sort().values
        g = torch.randn(150, 3, generator=generator)
        first = int((rows < 64).sum())
        whole.grad = sparse(rows, g, whole)
        parts[0].grad = sparse(rows[:first], g[:first], parts[0])
        parts[1].grad = sparse(rows[first:] - 64, g[first:], parts[1])
        for mover in movers:
            mover.step()
        assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize(("name", "other"), list(permutations(OPTIMIZERS, 2)))
def test_the_state_of_another_is_refused(name: str, other: str) -> None:
    params = parameters()
    stepped = OPTIMIZERS[name](params, learning_rate=RATE)
    backward(params, 0, sparse=True)
    stepped.step()
    with pytest.raises(ValueError, match="another optimiser"):
        OPTIMIZERS[other](parameters(), learning_rate=RATE).restore(stepped.state())


@pytest.mark.parametrize("name", ["adam", "sparse_adam"])
def test_moments_that_die_away_end_at_zero(name: str) -> None:
    """Denormal numbers would never get there: 0.9 times the smallest is rounded to the smallest."""
    params = parameters()
    optimizer = OPTIMIZERS[name](params, learning_rate=RATE)
    for rows in [[1, 2]] + 1_000 * [[2]]:
        read = functional.embedding(torch.tensor(rows), params[TABLE], sparse=True)
        (read.sum() * float(len(rows) == 2)).backward()
        with without_denormals():  # as the learner takes it
            optimizer.step()
    moments = np.concatenate([value.ravel() for key, value in optimizer.state().items() if "exp_avg" in key])
    tiny = np.finfo(np.float32).tiny
    assert not np.any((moments != 0) & (np.abs(moments) < tiny))
    assert torch.tensor(1e-40) * 1.0 > 0  # and the thread is as it was
