"""The utility and mean-field steps against enumeration of all subsets, differences in full, and permutations."""

from __future__ import annotations

import itertools

import pytest
import torch
from jaxtyping import config
from torch import nn

from offprint.methods.bags.inset_mean_field import mean_field
from offprint.methods.bags.inset_utility import SetUtility

MERGES = ("concat", "sum", "film")
SUMMARIES = ("mean", "sum", "max", "attention")


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch shape checking off, as it is for users, so that what refuses bad input is the code itself."""
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_subsets(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.5


def a_utility(merge: str = "concat", agg: str = "mean", context: bool = True) -> SetUtility:
    """Steeper than a fresh one, so that mistakes show."""
    utility = SetUtility(nn.Linear(3, 6), 6, 16, context=context, merge=merge, agg=agg, generator=0).double()
    torch.manual_seed(0)
    for parameter in utility.parameters():
        nn.init.normal_(parameter, std=0.5)
    return utility


def all_subsets(n: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product([False, True], repeat=n)))


def by_hand(utility: SetUtility, elements: torch.Tensor, subset: torch.Tensor) -> torch.Tensor:
    """F(S; V) from its definition, for one set, with every layer applied to the sum over S itself."""
    encoded = utility.encoder(elements)
    pooled = encoded[subset].sum(0)
    if utility.context is None:
        return utility.rest(utility.first(pooled))[0]
    if utility.agg == "attention":
        whole = utility.score(encoded).softmax(0).T @ encoded
    else:
        whole = {"mean": encoded.mean, "sum": encoded.sum, "max": encoded.amax}[utility.agg](0)[None]
    told = utility.context(whole)[0]
    if utility.merge == "concat":
        return utility.rest(utility.first(pooled) + told)[0]
    if utility.merge == "sum":
        return utility.rest(utility.first(pooled + told))[0]
    scale, shift = told.chunk(2)
    return utility.rest(utility.first(pooled * (1 + scale) + shift))[0]


@pytest.mark.parametrize(
    ("merge", "agg", "context"), [*itertools.product(MERGES, SUMMARIES, [True]), ("sum", "max", False)]
)
def test_values_and_gains_are_those_of_the_definition(merge, agg, context):
    """Padded sets of 4 and 2 elements, one subset after the other; float64, so 1e-10 is far above rounding."""
    utility, x, subsets = a_utility(merge, agg, context), normal(2, 4, 3), random_subsets(2, 5, 4)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    prepared = utility.prepare(x, mask)
    values, gains = utility(x, subsets, mask), prepared.gains(subsets)
    assert torch.equal(values, prepared.values(subsets))
    for k, m in itertools.product(range(2), range(5)):
        own, elements = subsets[k, m] & mask[k], x[k][mask[k]]
        torch.testing.assert_close(values[k, m], by_hand(utility, elements, own[mask[k]]), atol=1e-10, rtol=0)
        for i in range(4):
            wanted = torch.zeros((), dtype=torch.float64)
            if mask[k, i]:
                inside, outside = own.clone(), own.clone()
                inside[i], outside[i] = True, False
                wanted = by_hand(utility, elements, inside[mask[k]]) - by_hand(utility, elements, outside[mask[k]])
            torch.testing.assert_close(gains[k, m, i], wanted, atol=1e-10, rtol=0)


@pytest.mark.parametrize("agg", SUMMARIES)
def test_the_order_of_elements_does_not_matter(agg):
    utility, x, subsets = a_utility("film", agg), normal(2, 5, 3), random_subsets(2, 4, 5)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(utility(x[:, order], subsets[:, :, order]), utility(x, subsets), atol=1e-12, rtol=0)
    gains = utility.prepare(x).gains(subsets)
    moved = utility.prepare(x[:, order]).gains(subsets[:, :, order])
    torch.testing.assert_close(moved, gains[:, :, order], atol=1e-12, rtol=0)


class Centre(nn.Module):
    """An encoder that what is padded would spoil: it takes away the mean of the rows that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(3, 6)

    def forward(self, rows):
        encoded = self.lin(rows)
        return encoded - encoded.mean(0)


@pytest.mark.parametrize("agg", SUMMARIES)
def test_padding_never_matters_whatever_lies_there(agg):
    utility = a_utility("concat", agg)
    utility.encoder = Centre().double()
    x, subsets = normal(2, 4, 3), random_subsets(2, 3, 4)
    padded, mask = nn.functional.pad(x, (0, 0, 0, 3), value=torch.nan), torch.arange(7).expand(2, 7) < 4
    more = torch.cat([subsets, torch.ones(2, 3, 3, dtype=torch.bool)], 2)
    torch.testing.assert_close(utility(padded, more, mask), utility(x, subsets), atol=1e-12, rtol=0)
    start = torch.full((2, 7), 0.5, dtype=torch.float64)
    found = mean_field(utility, padded, start, 2, 4000, mask, generator=0)
    alone = mean_field(utility, x, start[:, :4], 2, 4000, generator=0)
    # Another number of draws goes through the generator: the means of 4000 differ by chance, at most about 5 / 63.
    torch.testing.assert_close(found.probabilities[:, :4], alone.probabilities, atol=0.08, rtol=0)
    assert found.probabilities[:, 4:].abs().max() == 0


def test_a_summary_of_ones_own():
    """The mean, as a callable; and one that looks at another set."""
    x, subsets = normal(3, 4, 3), random_subsets(3, 2, 4)
    utility = a_utility("sum", "mean")
    wanted = utility(x, subsets)
    utility.agg = lambda encoded, mask: encoded.sum(1) / mask.sum(1, keepdim=True)
    torch.testing.assert_close(utility(x, subsets), wanted)
    utility.agg = lambda encoded, mask: encoded.mean(1).roll(1, 0)
    assert (utility(x, subsets) - wanted).abs().min() > 1e-6
    utility.agg = lambda encoded, mask: encoded.mean(2)
    with pytest.raises(ValueError, match="agg"):
        utility(x, subsets)


def test_without_context_only_the_subset_counts():
    with_context, without = a_utility(), a_utility(context=False)
    one = normal(1, 6, 3)
    other = torch.cat([one[:, :2], normal(1, 4, 3, seed=1)], 1)
    same = torch.tensor([[[True, True, False, False, False, False]]])
    assert (with_context(one, same) - with_context(other, same)).abs().item() > 1e-3
    torch.testing.assert_close(without(one, same), without(other, same), atol=1e-12, rtol=0)


def test_one_step_is_exact_for_a_sum_over_elements():
    """Exact marginals of p(S) ∝ exp F(S) from all 2^8 subsets; the logits must not depend on the draws at all."""
    weights, subsets = normal(1, 8, 1), all_subsets(8)[None]
    chance = (subsets * weights[:, None, :, 0]).sum(2).softmax(1)
    exact = (chance[..., None] * subsets).sum(1)
    torch.testing.assert_close(exact, weights[..., 0].sigmoid())

    def utility(x, chosen):
        return (chosen * x[:, None, :, 0]).sum(2)

    for q in (0.0, 0.3, 1.0):
        found = mean_field(utility, weights, torch.full((1, 8), q, dtype=torch.float64), n_samples=1, generator=0)
        torch.testing.assert_close(found.probabilities, exact, atol=1e-6, rtol=0)


@pytest.mark.parametrize("in_full", [False, True])
def test_many_draws_are_the_mean_over_all_subsets(in_full):
    """Gains of up to 5 averaged over 5000 draws have a standard error of at most 0.04, a quarter of it after σ."""
    utility, x, q = a_utility("film"), normal(1, 6, 3), torch.tensor([[0.1, 0.3, 0.5, 0.6, 0.8, 0.95]])
    subsets = all_subsets(6)[None]
    chance = torch.where(subsets, q, 1 - q).prod(2).double()
    given = utility.prepare(x).gains(subsets)
    wanted = (chance[..., None] * given).sum(1).sigmoid()
    assert given.std() > 0.2  # so that the draws matter
    found = mean_field(
        (lambda rows, chosen: utility(rows, chosen)) if in_full else utility, x, q.double(), 1, 5000, generator=0
    )
    torch.testing.assert_close(found.probabilities, wanted, atol=0.01, rtol=0)


def test_a_second_step_starts_where_the_first_ended():
    utility, x = a_utility(), normal(2, 5, 3)
    half = torch.full((2, 5), 0.5, dtype=torch.float64)
    source = torch.Generator().manual_seed(3)
    first = mean_field(utility, x, half, 1, 7, generator=source)
    second = mean_field(utility, x, first.probabilities, 1, 7, generator=source)
    both = mean_field(utility, x, half, 2, 7, generator=3)
    assert torch.equal(both.probabilities, second.probabilities)
    assert (both.n_steps, both.change) == (2, second.change)
    assert second.change == (second.probabilities - first.probabilities).abs().max().item()


def test_gradients_flow_through_the_last_step_alone():
    utility, x = a_utility(), normal(1, 4, 3)
    start = torch.full((1, 4), 0.5, dtype=torch.float64, requires_grad=True)
    found = mean_field(utility, x, start, 2, 3, generator=0)
    found.logits.sum().backward()
    assert start.grad is None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in utility.encoder.parameters())


X, HALF = torch.zeros(2, 3, 4), torch.full((2, 3), 0.5)


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: SetUtility(nn.Linear(4, 5), 0), ValueError, "features"),
        (lambda: SetUtility(nn.Linear(4, 5), 5, merge="add"), ValueError, "merge"),
        (lambda: SetUtility(nn.Linear(4, 5), 5, agg="median"), ValueError, "agg"),
        (lambda: SetUtility(len, 5), TypeError, "encoder"),
        (lambda: SetUtility(nn.Linear(4, 5), 6).prepare(X), ValueError, "encoder"),
        (lambda: SetUtility(nn.Flatten(0), 6).prepare(X), ValueError, "encoder"),
        (lambda: a_utility()(X.long(), HALF[:, None]), TypeError, "x"),
        (lambda: SetUtility(nn.Linear(4, 5), 5)(X * torch.nan, torch.ones(2, 1, 3)), ValueError, "x"),
        (lambda: SetUtility(nn.Linear(4, 5), 5)(X, torch.ones(2, 1, 4)), ValueError, "subsets"),
        (lambda: SetUtility(nn.Linear(4, 5), 5)(X, HALF[:, None]), ValueError, "subsets"),
        (lambda: SetUtility(nn.Linear(4, 5), 5).prepare(X, HALF > 1), ValueError, "mask"),
        (lambda: SetUtility(nn.Linear(4, 5), 5).prepare(X, HALF), ValueError, "mask"),
        (lambda: mean_field(SetUtility(nn.Linear(4, 5), 5), X, HALF[:, :2]), ValueError, "q"),
        (lambda: mean_field(SetUtility(nn.Linear(4, 5), 5), X, HALF * torch.nan), ValueError, "q"),
        (lambda: mean_field(SetUtility(nn.Linear(4, 5), 5), X, HALF, 0), ValueError, "n_steps"),
        (
            lambda: mean_field(lambda x, s: s.sum(2)[..., None], X, HALF),
            ValueError,
            r"utility must return shape .* got \(2, 15, 1\)",
        ),
        (lambda: mean_field(lambda x, s: s.sum(2) / 0.0, X, HALF), ValueError, "utility must be finite"),
        (lambda: mean_field(SetUtility(nn.Linear(4, 5), 5), X + 3e38, HALF), FloatingPointError, "utility gives gains"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_refused(call, error, named):
    with pytest.raises(error, match=named):
        call()
