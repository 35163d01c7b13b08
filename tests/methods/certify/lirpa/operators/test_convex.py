"""What exponentials, powers and softplus promise beyond sound lines: their domains, signs and conventions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from offprint.methods.certify.lirpa.operators.bumped import GELU
from offprint.methods.certify.lirpa.operators.convex import Exp, Log, Softplus
from offprint.methods.certify.lirpa.operators.elementwise import Elementwise
from offprint.methods.certify.lirpa.operators.elu import CELU, ELU
from offprint.methods.certify.lirpa.operators.powers import power


def tensor(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_exponential_touches_in_the_middle_or_less_than_one_from_the_lower_end() -> None:
    lower, upper = tensor(-1, 0, 0, 2), tensor(-0.5, 1.5, 8, 2)
    middle = torch.minimum((lower + upper) / 2, lower + 0.99)
    torch.testing.assert_close(Exp().relax(lower, upper).lower_slope, middle.exp())
    share = torch.linspace(0, 1, 21, dtype=torch.float64).unsqueeze(-1).expand(21, 4)
    lines = Exp().relax(lower, upper, torch.stack([share, share]))
    assert (lines.lower_slope * lower + lines.lower_offset > 0).all()  # so that a reciprocal may follow


def test_even_powers_touch_nearest_to_zero_and_stay_non_negative() -> None:
    lower, upper = tensor(1, -3, -1), tensor(2, -2, 4)
    for exponent in (2, 4):
        lines = power(exponent).relax(lower, upper)
        torch.testing.assert_close(lines.lower_slope, exponent * tensor(1, -2, 0) ** (exponent - 1))
        assert (lines.lower_slope * lower + lines.lower_offset >= 0).all()
        assert (lines.lower_slope * upper + lines.lower_offset >= 0).all()


def test_reciprocal_and_square_root_have_the_slopes_of_their_formulas() -> None:
    lower, upper = tensor(0.5, 1, 2), tensor(1, 1, 7)
    lines = power(-1).relax(lower, upper)
    torch.testing.assert_close(lines.upper_slope, -1 / (lower * upper))
    torch.testing.assert_close(lines.lower_slope, -4 / (lower + upper) ** 2)
    lines = power(0.5).relax(lower, upper)
    torch.testing.assert_close(lines.lower_slope, 1 / (lower.sqrt() + upper.sqrt()))
    torch.testing.assert_close(lines.upper_slope, 0.5 / ((lower + upper) / 2).sqrt())


def test_softplus_keeps_below_its_straight_branch_too() -> None:
    generator = torch.Generator().manual_seed(0)
    for beta, threshold in ((1.0, 20.0), (3.0, 2.0), (0.5, 0.0)):
        ours = Softplus(beta, threshold)
        lower = torch.rand(500, generator=generator, dtype=torch.float64) * 10 / beta + threshold / beta - 8 / beta
        upper = lower + torch.rand(500, generator=generator, dtype=torch.float64) * 5
        share = torch.linspace(0, 1, 400, dtype=torch.float64).unsqueeze(-1)
        points = torch.cat([lower * (1 - share) + upper * share, torch.full((1, 500), threshold / beta).double()])
        points = points.clamp(lower, upper)
        values = F.softplus(points, beta, threshold)
        lines = ours.relax(lower, upper)
        assert (values - lines.lower_slope * points - lines.lower_offset >= -1e-12).all()
        assert (lines.upper_slope * points + lines.upper_offset - values >= -1e-12).all()
        low, high = ours.interval(lower, upper)
        assert (low <= values + 1e-12).all()
        assert (high >= values - 1e-12).all()


@pytest.mark.parametrize(
    ("function", "lower", "upper"),
    [
        (Log(), 0.0, 1.0),
        (Log(), -1.0, 1.0),
        (power(0.5), -1e-9, 1.0),
        (power(2.5), -1e-9, 1.0),
        (power(-1), -1.0, 1.0),
        (power(-1), 0.0, 1.0),
        (power(-2), -1.0, 0.0),
        (power(-0.5), -2.0, -1.0),
        (Exp(), 0.0, 800.0),
        (Log(), math.nan, 1.0),
        (power(0.5), math.nan, 1.0),
    ],
)
def test_intervals_that_leave_the_domain_are_refused(function: Elementwise, lower: float, upper: float) -> None:
    with pytest.raises(ValueError, match="takes"):
        function.check_domain(tensor(1, lower), tensor(1, upper))
    function.check_domain(tensor(1), tensor(2))


def test_bad_constants_are_refused() -> None:
    for make, bad in ((power, 0), (power, math.inf), (Softplus, -1.0), (ELU, -1.0), (CELU, 0.0)):
        with pytest.raises(ValueError, match="expected"):
            make(bad)
    with pytest.raises(ValueError, match="approximate"):
        GELU("fast")
