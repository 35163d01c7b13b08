"""The learned monoid: commutative, each set by itself, as a Python loop, as PyTorch Geometric's, and trainable."""

from __future__ import annotations

import copy

import pytest
import torch
from jaxtyping import config
from scipy.stats import spearmanr
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from offprint.methods.bags.lcm import CommutativeGRU, LCMAggregation, commutative, permutation_gap
from offprint.methods.bags.lcm_fold import MaxMonoid, TwoSmallestMonoid
from offprint.methods.bags.lcm_sets import in_random_order
from offprint.methods.bags.ragged import RaggedBags


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch shape checking off, as it is for users, so that what refuses bad input is the code itself."""
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def by_loop(aggregate: LCMAggregation, rows: torch.Tensor) -> torch.Tensor:
    """Fold one set as the paper draws it, one pair at a time, both orders of each through the cell by themselves."""
    cell, level = aggregate.op.cell, list(aggregate.encode(rows))
    if not level:
        return aggregate.identity
    while len(level) > 1:
        pairs = [
            (cell(level[i][None], level[i + 1][None]) + cell(level[i + 1][None], level[i][None]))[0] / 2
            for i in range(0, len(level) - 1, 2)
        ]
        level = pairs + level[2 * len(pairs) :]
    return level[0]


def test_the_operator_commutes():
    """1e-7 in float32: the two orders share one matrix product, whose rows may be rounded differently."""
    operator = CommutativeGRU(16, generator=0)
    a, b = normal(64, 16, dtype=torch.float32), normal(64, 16, seed=1, dtype=torch.float32)
    torch.testing.assert_close(operator(a, b), operator(b, a), atol=1e-7, rtol=0)
    assert not torch.allclose(operator(a, b), operator(a, a))


def test_any_operator_can_be_made_to_commute():
    bilinear = commutative(nn.Bilinear(4, 4, 4).double())
    a, b = normal(8, 4), normal(8, 4, seed=1)
    torch.testing.assert_close(bilinear(a, b), bilinear(b, a), atol=1e-15, rtol=0)
    assert len(list(bilinear.parameters())) == 2


def test_sets_in_any_order_with_holes_are_those_of_a_loop_and_so_are_gradients():
    """Float64 throughout, so 1e-10 is far above rounding. Sets 1, 5 and 6 are empty, the last two behind all others."""
    aggregate = LCMAggregation(3, 8, generator=0).double().eval()
    nn.init.normal_(aggregate.identity)
    x = normal(30, 3).requires_grad_()
    index = torch.tensor([4, 0, 2, 2, 3, 4] * 5)
    found = aggregate(x, index, dim_size=7)
    wanted = torch.stack([by_loop(aggregate, x[index == k]) for k in range(7)])
    torch.testing.assert_close(found, wanted, atol=1e-10, rtol=0)
    weights = normal(7, 8, seed=2)
    tensors = [x, *aggregate.parameters()]
    ours = torch.autograd.grad((found * weights).sum(), tensors)
    theirs = torch.autograd.grad((wanted * weights).sum(), tensors)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=0)


def test_gradients_are_those_of_finite_differences():
    aggregate = LCMAggregation(2, 3, generator=0).double().eval()
    # Away from the corner of the ReLU, where differences mean nothing.
    x = (normal(5, 2) + 0.05).requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: aggregate(rows, torch.tensor([0, 0, 0, 0, 0])), (x,))


@pytest.mark.parametrize("identity", ["learned", "zeros"])
def test_a_set_does_not_depend_on_its_companions(identity):
    """Float32; 1e-6 covers matrix products of other heights, which may round differently."""
    aggregate = LCMAggregation(3, 16, identity=identity, generator=0).eval()
    sets = [normal(n, 3, seed=n, dtype=torch.float32) for n in (1, 2, 3, 5, 64, 0)]
    bags = RaggedBags.from_list(sets)
    together = aggregate(bags.values, ptr=bags.offsets)
    for rows, vector in zip(sets, together, strict=True):
        torch.testing.assert_close(aggregate(rows, dim_size=1)[0], vector, atol=1e-6, rtol=0)


def test_ptr_index_and_one_set_agree():
    aggregate = LCMAggregation(3, 4, generator=0).eval()
    x = normal(5, 3, dtype=torch.float32)
    torch.testing.assert_close(
        aggregate(x, torch.tensor([0, 0, 2, 2, 2])), aggregate(x, ptr=torch.tensor([0, 2, 2, 5])), atol=0, rtol=0
    )
    torch.testing.assert_close(aggregate(x), aggregate(x, torch.zeros(5, dtype=torch.int64)), atol=0, rtol=0)


def test_leaves_are_shuffled_within_their_set_and_only_in_training():
    sets = RaggedBags(torch.arange(60.0)[:, None], torch.tensor([0, 1, 20, 20, 60]))
    shuffled = in_random_order(sets)
    for before, after in zip(sets, shuffled, strict=True):
        assert torch.equal(before.sort(0).values, after.sort(0).values)
    assert not torch.equal(sets.values, shuffled.values)
    aggregate = LCMAggregation(1, 4, generator=0)
    x, index = normal(9, 1, dtype=torch.float32), torch.zeros(9, dtype=torch.int64)
    assert not torch.equal(aggregate.train()(x, index), aggregate(x, index))
    assert torch.equal(aggregate.eval()(x, index), aggregate(x, index))
    plain = LCMAggregation(1, 4, shuffle=False, generator=0).train()
    assert torch.equal(plain(x, index), plain(x, index))


def test_exact_operators_drop_in_and_have_no_gap():
    x, index = normal(20, 4), torch.arange(20) % 3
    largest = LCMAggregation(4, 4, project=False, op=MaxMonoid(), identity="operator").double()
    wanted = torch.stack([x[index == k].amax(0) for k in range(3)])
    assert torch.equal(largest(x, index), wanted)
    assert permutation_gap(largest, x, index) == 0
    assert largest(x, index, dim_size=4)[3].tolist() == [-torch.inf] * 4


def test_infinities_of_exact_operators_are_no_error_and_no_gap():
    """States of single elements hold one, as do the results of empty sets, which have no order that could matter."""
    x, monoid = normal(12, 1), TwoSmallestMonoid()
    aggregate = LCMAggregation(2, 2, project=False, op=monoid, identity="operator").double()
    index = torch.arange(12) % 3 * 2  # sets 1 and 3 are empty
    found = aggregate.regularisation(monoid.lift(x), index, generator=0)
    assert (found["assoc"].item(), found["identity"].item()) == (0.0, 0.0)
    largest = LCMAggregation(1, 1, project=False, op=MaxMonoid(), identity="operator").double()
    assert permutation_gap(largest, x, index) == 0.0


def test_the_gap_is_that_of_sets_with_elements():
    """Set 1 has none: neither its distance of 0 nor the size of its result may enter a mean."""
    aggregate = LCMAggregation(3, 4, generator=0).double().eval()
    nn.init.constant_(aggregate.identity, 100.0)
    x, index = normal(20, 3), torch.arange(20) % 2 * 2
    assert permutation_gap(aggregate, x, index) == pytest.approx(permutation_gap(aggregate, x, index // 2), rel=1e-12)


class Largest(TorchDispatchMode):
    """Note the size of the largest tensor that any operation returns."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, torch.Tensor):
                self.size = max(self.size, one.numel())
        return out


def test_a_star_takes_memory_in_proportion_to_its_edges():
    """One node of 10,000 neighbours, and 10,000 nodes of one. Padded, these would be 10^8 rows; a pair's gates are 12
    numbers for each of its two rows of 4, so that 3 times the elements is the most that a level makes."""
    aggregate = LCMAggregation(4, 4, generator=0).train()
    index = torch.cat([torch.zeros(10_000, dtype=torch.int64), torch.arange(1, 10_001)])
    with Largest() as largest:
        aggregate(torch.ones(20_000, 4), index).sum().backward()
    assert largest.size <= 3 * 20_000 * 4


def test_the_gap_is_that_of_two_elements_by_hand():
    """f(a, b) = a - b / 2, which does not commute."""
    aggregate = LCMAggregation(1, 1, project=False, op=lambda a, b: a - b / 2).eval()
    x, index = torch.tensor([[2.0], [6.0]]), torch.tensor([0, 0])
    gaps = [permutation_gap(aggregate, x, index, trials=1, generator=seed) for seed in range(40)]
    # f(2, 6) = -1 and f(6, 2) = 5: a trial gives 6 / 1 or 0. Of 40 fair coins neither side is missing.
    assert {round(gap, 6) for gap in gaps} == {0.0, 6.0}
    # f(a, b) = a keeps the first of an order: 1, 2 or 4, where X itself gives 1. Two random orders differ by 0, 1, 2 or
    # 3, X and a random one never by 2. In 40 trials each of the four is missing with a probability of at most 1e-4.
    first = LCMAggregation(1, 1, project=False, op=lambda a, b: a).eval()
    x, index = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 0])
    gaps = [permutation_gap(first, x, index, trials=1, generator=seed) for seed in range(40)]
    assert {round(gap, 6) for gap in gaps} == {0.0, 1.0, 2.0, 3.0}


def test_regularisers_are_the_formulas_and_vanish_for_a_monoid():
    x, index = normal(12, 2), torch.arange(12) % 2
    exact = LCMAggregation(2, 2, project=False, op=torch.add, identity="zeros").double()
    found = exact.regularisation(x, index, generator=0)
    assert found["assoc"].item() < 1e-20
    assert found["identity"].item() == 0
    # f(a, b) = a is associative too, and does not commute: no grouping may change the order of a triple.
    first = LCMAggregation(2, 2, project=False, op=lambda a, b: a, identity="zeros").double()
    assert first.regularisation(x, index, generator=0)["assoc"].item() == 0
    # (a + b) / 2 folds one element, three times the same, to itself: then both groupings agree. With e = 0 it halves.
    mean = LCMAggregation(2, 2, project=False, op=lambda a, b: (a + b) / 2, identity="zeros").double()
    same = mean.regularisation(torch.full((1, 2), 3.0, dtype=torch.float64), generator=0)
    assert (same["assoc"].item(), same["identity"].item()) == (0.0, 2 * 1.5**2)
    # On elements 0 and 4 of two sets: ((a + b) / 2 + c) / 2 - (a + (b + c) / 2) / 2 = (c - a) / 4, whose square has
    # mean (0 + 1) / 2. Of 4096 draws the mean has a standard error of 0.008.
    two = torch.tensor([[0.0], [4.0]], dtype=torch.float64)
    scalar = LCMAggregation(1, 1, project=False, op=lambda a, b: (a + b) / 2, identity="zeros").double()
    drawn = scalar.regularisation(two, torch.tensor([0, 1]), n_triples=4096, generator=0)
    assert drawn["assoc"].item() == pytest.approx(0.5, abs=0.04)


def test_training_towards_associativity_closes_the_permutation_gap():
    """At least tenfold in 500 steps, and error and gap fall together: rank correlation above 0.8 on the way."""
    torch.manual_seed(0)
    aggregate = LCMAggregation(8, 8, project=False, generator=0)
    optimizer = torch.optim.Adam(aggregate.op.parameters(), 1e-2)
    x, index = normal(64, 8, dtype=torch.float32), torch.arange(64) % 8
    errors, gaps = [], []
    for step in range(501):
        loss = aggregate.regularisation(x, index, 64)["assoc"]
        if step % 50 == 0:
            errors.append(aggregate.regularisation(x, index, 1024, generator=1)["assoc"].item())
            gaps.append(permutation_gap(copy.deepcopy(aggregate).eval(), x, index, trials=5))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert errors[-1] <= errors[0] / 10
    assert spearmanr(errors, gaps).statistic > 0.8


def test_equal_sets_of_a_power_of_two_are_those_of_pytorch_geometric():
    """There nothing is padded, so both must agree: 1e-6 in float32 for products of other heights."""
    aggr = pytest.importorskip("torch_geometric.nn.aggr")
    ours, theirs = LCMAggregation(3, 16, shuffle=False, generator=0), aggr.LCMAggregation(3, 16)
    theirs.lin.load_state_dict(ours.lin.state_dict())
    theirs.gru_cell.load_state_dict(ours.op.cell.state_dict())
    x, index = normal(7 * 8, 3, dtype=torch.float32), torch.arange(7).repeat_interleave(8)
    torch.testing.assert_close(ours(x, index), theirs(x, index), atol=1e-6, rtol=0)


TWO = torch.ones(4, 2), torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: LCMAggregation(0, 3), ValueError, "in_channels"),
        (lambda: LCMAggregation(2, 3, project=False), ValueError, "out_channels"),
        (lambda: LCMAggregation(2, 2, op="lstm"), TypeError, "op"),
        (lambda: LCMAggregation(2, 2, identity="one"), ValueError, "identity"),
        (lambda: LCMAggregation(2, 2, op=torch.add, identity="operator"), ValueError, "identity"),
        (lambda: LCMAggregation(2, 2, op=lambda a, b: torch.cat([a, b], 1)), ValueError, "op must keep the shape"),
        (lambda: LCMAggregation(2, 2, op=lambda a, b: a / b * b, identity="zeros"), ValueError, "op must be defined"),
        (lambda: LCMAggregation(2, 4)(torch.ones(4, 3), TWO[1]), ValueError, "x"),
        (lambda: LCMAggregation(2, 4)(TWO[0].long(), TWO[1]), TypeError, "x"),
        (lambda: LCMAggregation(2, 4)(TWO[0], TWO[1][:3]), ValueError, "index"),
        (lambda: LCMAggregation(2, 4)(TWO[0], TWO[1] - 1), ValueError, "index"),
        (lambda: LCMAggregation(2, 4)(TWO[0], TWO[1].float()), TypeError, "index"),
        (lambda: LCMAggregation(2, 4)(TWO[0], TWO[1], dim_size=1), ValueError, "dim_size"),
        (lambda: LCMAggregation(2, 4)(TWO[0], ptr=torch.tensor([0, 3])), ValueError, "ptr"),
        (lambda: LCMAggregation(2, 4)(TWO[0], ptr=torch.tensor([0, 4]), dim_size=2), ValueError, "dim_size"),
        (lambda: LCMAggregation(2, 4).regularisation(*TWO, n_triples=0), ValueError, "n_triples"),
        (lambda: LCMAggregation(2, 4).regularisation(TWO[0][:0], TWO[1][:0]), ValueError, "x"),
        (lambda: permutation_gap(LCMAggregation(2, 4), TWO[0] * torch.nan, TWO[1]), ValueError, "x"),
        (lambda: permutation_gap(LCMAggregation(2, 4), *TWO, trials=0), ValueError, "trials"),
        (lambda: commutative(3), TypeError, "operator"),
        (lambda: CommutativeGRU(3)(torch.ones(1, 2), torch.ones(1, 2)), ValueError, "left"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_refused(call, error, named):
    with pytest.raises(error, match=named):
        call()


def test_states_of_exact_monoids_can_be_longer_than_elements():
    """The second minimum of each set, from an operator given as ``op`` and elements lifted beforehand."""
    monoid = TwoSmallestMonoid()
    aggregate = LCMAggregation(2, 2, project=False, op=monoid, identity="operator").double()
    values, index = normal(30, 1), torch.arange(30) % 4
    found = aggregate(monoid.lift(values), index)[:, 1]
    assert torch.equal(found, torch.stack([values[index == k].sort(0).values[1, 0] for k in range(4)]))
