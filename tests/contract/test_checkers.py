"""The checks themselves can fail: each is shown a method or record with exactly the fault that it looks for."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checks import documentation, floors, refusals
from checks.estimators import is_plain_estimator
from checks.examples import cpu_seconds, differences, rehearse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline

GOOD = '''
from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def shrink(
    values: Float[Tensor, "n d"], weights: Float[Tensor, " n"], strength: float = 0.5, seed: int = 0
) -> Float[Tensor, "n d"]:
    """Scale rows by their weights and move them toward zero.

    Parameters
    ----------
    values : tensor of float, shape (n, d)
        Rows.
    weights : tensor of float, shape (n,)
        One weight per row.
    strength : float
        In [0, 1].
    seed : int
        Determines the noise.

    Returns
    -------
    tensor, shape (n, d)
        The rows, smaller.

    Raises
    ------
    ValueError
        If an argument is not finite or shapes do not match.

    Notes
    -----
    O(n d).

    Examples
    --------
    >>> import torch
    >>> shrink(torch.ones(2, 3), torch.ones(2)).shape
    torch.Size([2, 3])

    References
    ----------
    A. Author, *A title*, arXiv 2501.00001, section 1.
    """
    if values.ndim != 2 or not values.isfinite().all():
        raise ValueError(f"values must be a finite matrix; got shape {tuple(values.shape)}")
    if weights.shape != values.shape[:1] or not weights.isfinite().all():
        raise ValueError(f"weights must be {len(values)} finite numbers; got shape {tuple(weights.shape)}")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be in [0, 1]; got {strength}")
    noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(seed))
    return (1 - strength) * weights[:, None] * values + 0.01 * noise
'''

LAYER = '''
from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Scale(nn.Module):
    """Scale features.

    Parameters
    ----------
    n_features : int
        Features.
    slope : float
        Slope.

    Examples
    --------
    >>> Scale(3)(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """

    def __init__(self, n_features: int, slope: float = 1.0) -> None:
        super().__init__()
        if not math.isfinite(slope):
            raise ValueError(f"slope must be finite; got {slope}")
        self.weight = nn.Parameter(torch.full((n_features,), slope))

    def forward(self, values: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        """Return scaled features."""
        if values.shape[-1] != len(self.weight):
            raise ValueError(f"values must have {len(self.weight)} features; got {values.shape[-1]}")
        return values * self.weight
'''

Build = Callable[..., Any]


@pytest.fixture
def build(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Build]:
    """Return a function that makes a method from source, with some text in it replaced."""
    made: list[str] = []

    def make(source: str, name: str, *replaced: tuple[str, str]) -> Any:
        for old, new in replaced:
            assert old in source, old
            source = source.replace(old, new)
        module = types.ModuleType(f"made_up_{len(made)}_{abs(hash(request.node.name))}")
        path = tmp_path / f"{module.__name__}.py"
        path.write_text(source, encoding="utf-8")
        module.__file__ = str(path)
        sys.modules[module.__name__] = module
        made.append(module.__name__)
        exec(compile(source, str(path), "exec"), vars(module))
        return vars(module)[name]

    yield make
    for name in made:
        del sys.modules[name]


def refused(method: Any) -> list[str]:
    return refusals.findings(method, rehearse(method)[0].calls)


def test_a_good_method_has_no_findings(build: Build) -> None:
    shrink = build(GOOD, "shrink")
    first, second = rehearse(shrink)
    assert documentation.findings(shrink) == []
    assert floors.upward_imports(shrink) == []
    assert first.calls
    assert first.printed == ""
    assert differences(first, second) == []
    assert refused(shrink) == []


def test_a_good_layer_has_no_findings(build: Build) -> None:
    assert refused(build(LAYER, "Scale")) == []


@pytest.mark.parametrize("section", ["Returns", "Raises", "Notes", "Examples", "References"])
def test_a_missing_section_is_noticed(build: Build, section: str) -> None:
    start = GOOD.index(f"    {section}\n    ---")
    end = GOOD.find("\n\n    ", start)
    end = GOOD.index('    """', start) if end < 0 or section == "References" else end + 2
    findings = documentation.findings(build(GOOD, "shrink", (GOOD[start:end], "")))
    assert f"docstring has no section {section}" in findings


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("toward zero.\n", "toward zero\n", "summary is not a sentence"),
        ("    strength : float\n        In [0, 1].\n", "", "parameter strength is not documented"),
        ("    strength : float\n        In", "    force : float\n        In", "documents force, which is no parameter"),
        ('values: Float[Tensor, "n d"]', "values: Tensor", "parameter values is an array without a shape"),
        ('values: Float[Tensor, "n d"]', "values: Tensor | None", "parameter values is an array without a shape"),
        (') -> Float[Tensor, "n d"]:', ") -> torch.Tensor:", "returns an array without a shape"),
        ("values : tensor of float, shape (n, d)", "values : tensor", "whose shape the docstring does not state"),
        ("seed: int = 0", "seed=0", "parameter seed is not annotated"),
        ("    Notes\n    -----", "    Remarks\n    -------", "cannot be read"),
    ],
)
def test_poor_documentation_is_noticed(build: Build, old: str, new: str, finding: str) -> None:
    assert any(finding in found for found in documentation.findings(build(GOOD, "shrink", (old, new))))


def test_a_method_without_docstring_is_noticed(build: Build) -> None:
    assert documentation.findings(build("def bare():\n    pass\n", "bare")) == ["has no docstring"]


def test_a_part_needs_less_than_a_method_but_not_nothing(build: Build) -> None:
    notes = GOOD[GOOD.index("    Notes\n") : GOOD.index("    Examples\n")]
    returns = GOOD[GOOD.index("    Returns\n") : GOOD.index("    Raises\n")]
    assert documentation.brief_findings(build(GOOD, "shrink", (notes, ""))) == []
    poor = build(GOOD, "shrink", (returns, ""), ("    seed : int\n        Determines the noise.\n", ""))
    assert documentation.brief_findings(poor) == [
        "docstring has no section Returns",
        "parameter seed is not documented",
    ]


@pytest.mark.parametrize(
    "upward", ["import offprint.papers", "from offprint import lab", "from offprint.data import load"]
)
def test_an_upward_import_is_noticed(build: Build, upward: str) -> None:
    shrink = build(GOOD, "shrink", ("    noise = ", f"    if seed < 0:\n        {upward}\n    noise = "))
    assert len(floors.upward_imports(shrink)) == 1


def test_an_example_that_never_calls_the_method_is_noticed(build: Build) -> None:
    shrink = build(GOOD, "shrink", (">>> shrink(torch.ones(2, 3), torch.ones(2)).shape", ">>> torch.ones(2, 3).shape"))
    assert rehearse(shrink)[0].calls == []


def test_a_slow_example_is_noticed(build: Build) -> None:
    busy = "    while time.process_time() < start + 0.2:\n        pass\n"
    slow = build(
        GOOD, "shrink", ("    noise = ", f"    import time\n    start = time.process_time()\n{busy}    noise = ")
    )
    assert cpu_seconds(slow, enough=0.1) >= 0.2
    assert cpu_seconds(build(GOOD, "shrink"), enough=0.1) < 0.1


def test_randomness_from_the_global_generator_is_noticed(build: Build) -> None:
    shrink = build(GOOD, "shrink", (", generator=torch.Generator().manual_seed(seed)", ""))
    [finding] = differences(*rehearse(shrink))
    assert "returned something else the second time" in finding


def test_a_method_that_prints_is_noticed(build: Build) -> None:
    shrink = build(GOOD, "shrink", ("    noise = ", "    print('step 1')\n    noise = "))
    assert rehearse(shrink)[0].printed == "step 1\n"


def test_writing_past_the_streams_of_python_is_noticed(build: Build, capfd: pytest.CaptureFixture[str]) -> None:
    rehearse(build(GOOD, "shrink", ("    noise = ", "    import os\n    os.write(2, b'deep')\n    noise = ")))
    assert capfd.readouterr().err == "deepdeep"


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("values.ndim != 2 or not values.isfinite().all()", "values.ndim != 2", "values: accepts NaN"),
        ("values.ndim != 2 or not", "not", "values: a dimension too many ends in RuntimeError"),
        (" or not weights.isfinite().all()", "", "weights: accepts NaN"),
        ("not 0 <= strength <= 1", "strength < 0 or strength > 1", "strength: accepts NaN"),
        ("strength must be", "it must be", "strength: refuses NaN without naming the argument"),
        ("weights.shape != values.shape[:1] or not", "weights.ndim != 1 or not", "weights: accepts 1 instead of 2"),
        ('raise ValueError(f"strength', 'raise ArithmeticError(f"strength', "strength: NaN ends in ArithmeticError"),
    ],
)
def test_bad_input_that_is_not_refused_is_noticed(build: Build, old: str, new: str, finding: str) -> None:
    found = refused(build(GOOD, "shrink", (old, new)))
    assert any(finding in one for one in found), found


def test_nan_that_is_documented_is_no_finding(build: Build) -> None:
    handled = (" or not weights.isfinite().all()", ""), ("One weight per row.", "One weight per row; NaN gives NaN.")
    assert refused(build(GOOD, "shrink", *handled)) == []


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        (
            "values.shape[-1] != len(self.weight)",
            "False",
            "a wrong last dimension ends in RuntimeError",
        ),
        ("values must have", "there must be", "forward: values: refuses a wrong last dimension without naming"),
        ("not math.isfinite(slope)", "slope < 0", "slope: accepts NaN"),
    ],
)
def test_a_layer_that_takes_anything_is_noticed(build: Build, old: str, new: str, finding: str) -> None:
    found = refused(build(LAYER, "Scale", (old, new)))
    assert any(finding in one for one in found), found


def test_where_the_checks_of_scikit_learn_apply() -> None:
    class Grouped(TransformerMixin, BaseEstimator):
        def fit(self, X: Any, y: Any, groups: Any) -> Any:
            return self

    assert is_plain_estimator(Ridge)
    assert not is_plain_estimator(Pipeline)
    assert not is_plain_estimator(Grouped)
    assert not is_plain_estimator(torch.nn.Linear)
