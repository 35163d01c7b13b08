"""Extremes of linear functions over sets, against brute force and closed forms."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from offprint.methods.certify.lirpa.perturbations import Box, LpBall
from offprint.methods.certify.lirpa.substitutions import L0, Synonym


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_word_substitution_is_brute_force_over_all_substitutions(budget: int) -> None:
    generator = torch.Generator().manual_seed(budget)
    words = torch.randn(2, 6, 3, dtype=torch.float64, generator=generator)
    others = torch.randn(2, 6, 3, 3, dtype=torch.float64, generator=generator)
    mask = torch.rand(2, 6, 3, generator=generator) < 0.7
    rows = torch.randn(4, 2, 6, 3, dtype=torch.float64, generator=generator)
    region = Synonym(others, budget, mask)
    for sample in range(2):
        choices = [[-1, *mask[sample, i].nonzero().flatten().tolist()] for i in range(6)]
        values = []
        for picked in itertools.product(*choices):
            if sum(one >= 0 for one in picked) <= budget:
                sentence = [words[sample, i] if one < 0 else others[sample, i, one] for i, one in enumerate(picked)]
                values.append((rows[:, sample] * torch.stack(sentence)).sum((1, 2)))
        values = torch.stack(values)
        torch.testing.assert_close(region.minimum(rows, words)[:, sample], values.amin(0), atol=1e-9, rtol=0)
        torch.testing.assert_close(region.maximum(rows, words)[:, sample], values.amax(0), atol=1e-9, rtol=0)


@pytest.mark.parametrize("k", [0, 1, 3])
def test_changed_pixels_are_brute_force_over_all_choices(k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    x = torch.rand(1, 5, dtype=torch.float64, generator=generator)
    rows = torch.randn(1, 1, 5, dtype=torch.float64, generator=generator)
    values = []
    for picked in itertools.combinations(range(5), k):
        for ends in itertools.product((0.0, 1.0), repeat=k):
            changed = x[0].clone()
            changed[list(picked)] = torch.tensor(ends, dtype=torch.float64)
            values.append((rows[0, 0] * changed).sum())
    values = torch.stack([*values, (rows[0, 0] * x[0]).sum()])
    torch.testing.assert_close(L0(k).minimum(rows, x)[0, 0], values.min(), atol=1e-12, rtol=0)
    torch.testing.assert_close(L0(k).maximum(rows, x)[0, 0], values.max(), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("norm", "dual"), [(1, math.inf), (2, 2), (3, 1.5), (math.inf, 1)])
def test_balls_have_the_dual_norm(norm: float, dual: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, rows = torch.randn(2, 4, generator=generator), torch.randn(3, 2, 4, generator=generator)
    eps = torch.tensor([0.1, 0.3])
    expected = (rows * x).sum(-1) + eps * torch.linalg.vector_norm(rows, dual, dim=-1)
    torch.testing.assert_close(LpBall(norm, eps).maximum(rows, x), expected)


def test_a_ball_with_limits_of_pixels_is_a_box() -> None:
    generator = torch.Generator().manual_seed(0)
    x, rows = torch.rand(2, 4, generator=generator), torch.randn(3, 2, 4, generator=generator)
    box = Box((x - 0.4).clamp(min=0), (x + 0.4).clamp(max=1))
    torch.testing.assert_close(LpBall(math.inf, 0.4, 0.0, 1.0).minimum(rows, x), box.minimum(rows, x))
    sharper = LpBall(2, 0.4, 0.0, 1.0).minimum(rows, x)
    assert (sharper >= LpBall(2, 0.4).minimum(rows, x)).all()


def test_bad_sets_are_refused() -> None:
    x = torch.rand(2, 4)
    with pytest.raises(ValueError, match="eps"):
        LpBall(2, torch.ones(3)).check("x", x)
    with pytest.raises(ValueError, match="x_U"):
        LpBall(2, 0.1, x_U=-1.0).check("x", x)
    with pytest.raises(ValueError, match="k:"):
        L0(-1)
    with pytest.raises(ValueError, match="elements in"):
        L0(1).check("x", x + 2)
    with pytest.raises(ValueError, match="budget"):
        Synonym(torch.zeros(1, 2, 1, 3), -1)
    with pytest.raises(ValueError, match="candidates"):
        Synonym(torch.zeros(1, 2, 1, 3), 1).check("x", torch.zeros(1, 3, 3))
