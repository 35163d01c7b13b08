"""Proposals against torch's Bernoulli, the Gaussian copula by quadrature-free limits, and the bound by enumeration."""

from __future__ import annotations

import itertools

import pytest
import torch
from jaxtyping import config
from scipy import stats
from torch import nn

from offprint.methods.bags.inset_recognition import CopulaRecognition, Proposal
from offprint.methods.bags.inset_utility import SetUtility


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def a_proposal(n: int, deviation: float, factor: float) -> Proposal:
    logits = torch.linspace(-2, 2, n, dtype=torch.float64)[None]
    return Proposal(
        logits,
        torch.full_like(logits, deviation),
        torch.full((1, n, 1), factor, dtype=torch.float64),
        torch.ones(1, n, dtype=torch.bool),
    )


def test_the_entropy_is_that_of_torch_and_leaves_padding_out():
    proposal = a_proposal(5, 1.0, 0.0)
    every = torch.distributions.Bernoulli(logits=proposal.logits[0]).entropy()
    torch.testing.assert_close(proposal.entropy()[0], every.sum())
    short = Proposal(
        proposal.logits, proposal.deviation, proposal.factors, torch.tensor([[True, True, False, True, True]])
    )
    torch.testing.assert_close(short.entropy()[0], every.sum() - every[2])
    assert short.probabilities[0, 2] == 0
    assert short.sample(50, generator=0)[:, :, 2].abs().max() == 0


def test_independent_draws_are_as_likely_as_they_say():
    """Of 40000 draws a share has a standard error of at most 0.0025: 0.0125 is five of them."""
    proposal = a_proposal(5, 1.0, 0.9)
    drawn = proposal.sample(40_000, noise="ind", generator=0)[0].detach()
    torch.testing.assert_close(drawn.mean(0), proposal.probabilities[0], atol=0.0125, rtol=0)
    correlation = torch.corrcoef(drawn.T) - torch.eye(5, dtype=torch.float64)
    assert correlation.abs().max() < 0.025


def test_copula_draws_are_those_of_a_gaussian_threshold():
    """An element is chosen where Φ(g) > σ(-l). With variance 0.6² + 0.8² = 1 that has probability σ(l) exactly, and
    pairs have the bivariate normal's chance, here from SciPy. 40000 draws as above."""
    proposal = a_proposal(4, 0.6, 0.8)
    drawn = proposal.sample(40_000, noise="copula", generator=0)[0].detach()
    chances = proposal.probabilities[0]
    torch.testing.assert_close(drawn.mean(0), chances, atol=0.0125, rtol=0)
    for i, j in itertools.combinations(range(4), 2):
        together = stats.multivariate_normal([0, 0], [[1, 0.64], [0.64, 1]])
        wanted = together.cdf([stats.norm.ppf(chances[i].item()), stats.norm.ppf(chances[j].item())])
        assert (drawn[:, i] * drawn[:, j]).mean().item() == pytest.approx(wanted, abs=0.0125)


def test_draws_are_zero_or_one_and_carry_gradients_to_every_part():
    recognition = CopulaRecognition(nn.Linear(3, 6), 6, 8, 2, generator=0).double()
    proposal = recognition(normal(2, 4, 3))
    drawn = proposal.sample(5, 0.5, generator=0)
    assert set(drawn.detach().unique().tolist()) == {0.0, 1.0}
    utility = SetUtility(nn.Linear(3, 6), 6, 8, generator=1).double()
    utility.prepare(normal(2, 4, 3)).values(drawn).mean().backward()
    gradients = [parameter.grad for parameter in recognition.parameters()]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


def test_the_bound_stays_below_the_log_partition_function_and_touches_it():
    """log Σ_S exp F(S) over all 2^8 subsets. 10^5 draws of utilities that vary by about 1: standard error 0.003."""
    utility = SetUtility(nn.Linear(3, 6), 6, 16, generator=0).double()
    x, subsets = normal(1, 8, 3), torch.tensor(list(itertools.product([0.0, 1.0], repeat=8)), dtype=torch.float64)[None]
    log_z = utility(x, subsets).logsumexp(1).item()
    recognition = CopulaRecognition(nn.Linear(3, 6), 6, 8, generator=0).double()
    proposal = recognition(x)
    drawn = proposal.sample(100_000, noise="ind", generator=0)
    bound = (utility.prepare(x).values(drawn).mean(1) + proposal.entropy()).item()
    assert log_z - 1.0 < bound <= log_z + 1e-3
    # Where F is a sum over elements, the marginals are the answer and nothing is lost.
    weights = torch.linspace(-2, 2, 5, dtype=torch.float64)
    exact = a_proposal(5, 1.0, 0.0)
    reached = (exact.sample(100_000, noise="ind", generator=0)[0] @ weights).mean() + exact.entropy()[0]
    assert reached.item() == pytest.approx(nn.functional.softplus(weights).sum().item(), abs=0.02)


def test_proposals_follow_a_permutation_and_ignore_padding():
    recognition = CopulaRecognition(nn.Linear(3, 6), 6, 8, generator=0).double()
    x, order = normal(2, 5, 3), torch.tensor([4, 2, 0, 1, 3])
    logits = recognition(x).logits
    torch.testing.assert_close(recognition(x[:, order]).logits, logits[:, order], atol=1e-12, rtol=0)
    padded, mask = nn.functional.pad(x, (0, 0, 0, 2), value=9.0), torch.arange(7).expand(2, 7) < 5
    torch.testing.assert_close(recognition(padded, mask).logits[:, :5], logits, atol=1e-12, rtol=0)


def test_only_with_context_does_an_element_hear_of_the_others():
    one, other = normal(1, 3, 3), normal(1, 3, 3, seed=1)
    other[:, 0] = one[:, 0]
    for context in (True, False):
        recognition = CopulaRecognition(nn.Linear(3, 6), 6, 8, context=context, generator=0).double()
        gap = (recognition(one).logits - recognition(other).logits)[0, 0].abs().item()
        assert (gap > 1e-3) == context


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: CopulaRecognition(nn.Linear(3, 6), 6, rank=0), ValueError, "rank"),
        (lambda: CopulaRecognition(nn.Linear(3, 6), 6, agg="attention"), ValueError, "agg"),
        (lambda: CopulaRecognition(None, 6), TypeError, "encoder"),
        (lambda: CopulaRecognition(nn.Linear(3, 6), 6)(torch.full((1, 2, 3), torch.nan)), ValueError, "x"),
        (lambda: a_proposal(3, 1.0, 0.0).sample(0), ValueError, "n_samples"),
        (lambda: a_proposal(3, 1.0, 0.0).sample(1, 0.0), ValueError, "temperature"),
        (lambda: a_proposal(3, 1.0, 0.0).sample(1, noise="shared"), ValueError, "noise"),
    ],
)
def test_what_is_refused(call, error, named, monkeypatch):
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)
    with pytest.raises(error, match=named):
        call()
