"""Does a method refuse bad input: its example's calls are made once more, each with one argument spoilt.

Spoilt arguments are NaN in a float or in an array of floats, an array with a dimension too many, and an array shorter
than another that shares a dimension with it. The answer must be a ``ValueError`` or ``TypeError`` that names the
argument.

What does not apply, by its nature:

- NaN where the argument's description says what NaN does (that is handling it on purpose);
- a dimension too many where neither the annotation nor the docstring fixes their number (``"..."``);
- NaN in what flows through a ``torch.nn.Module``: a layer inside a network must not look at every activation. A module
  with parameters must refuse a wrong last dimension instead;
- naming an array of a wrong shape in a scikit-learn estimator: their own validation words that error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator

from checks.documentation import Argument, arguments
from checks.examples import Call

Array = np.ndarray | torch.Tensor


def findings(method: Callable[..., Any], calls: list[Call]) -> list[str]:
    """Return the bad inputs that a method does not refuse as it should."""
    found = [finding for call in calls for finding in _call_findings(method, call)]
    return list(dict.fromkeys(found))


def _call_findings(method: Callable[..., Any], call: Call) -> Iterator[str]:
    described = arguments(method if call.target.is_constructor else call.target.function)
    given = {name: value for name, value in call.arguments.items() if name in described}
    if isinstance(call.owner, torch.nn.Module) and call.target.name == "forward":
        for name, value in given.items():
            if _is_float_array(value) and value.ndim and any(True for _ in call.owner.parameters()):
                wider = _resized(value, -1, value.shape[-1] + 1)
                yield from _accepted(call, name, wider, "a wrong last dimension", names=[name])
        return
    for name, value in given.items():
        if not _handles_nan(described[name]):
            for spoilt in _with_nan(value):
                yield from _accepted(call, name, spoilt, "NaN", names=[name])
        if isinstance(value, Array):
            yield from _shape_findings(call, name, given, described)
    if isinstance(call.owner, BaseEstimator) and call.target.name == "fit":
        yield from _parameter_findings(call, arguments(type(call.owner)))


def _shape_findings(call: Call, name: str, given: dict[str, Any], described: dict[str, Argument]) -> Iterator[str]:
    value, dimensions = given[name], described[name].dimensions
    names: list[str] | None = None if isinstance(call.owner, BaseEstimator) else [name]
    if dimensions is None or len(dimensions) != value.ndim:
        return
    yield from _accepted(call, name, value[..., None], "a dimension too many", names=names)
    for axis, dimension in enumerate(dimensions):
        sharing = [
            other
            for other, argument in described.items()
            if other != name and isinstance(given.get(other), Array) and dimension in (argument.dimensions or ())
        ]
        if dimension.isidentifier() and sharing and value.shape[axis]:
            size = value.shape[axis] - 1 or 2
            spoilt = _resized(value, axis, size)
            what = f"{size} instead of {value.shape[axis]} along {dimension}, which {sharing[0]} shares,"
            yield from _accepted(call, name, spoilt, what, names=names and [name, *sharing])


def _parameter_findings(call: Call, described: dict[str, Argument]) -> Iterator[str]:
    """``fit`` of an estimator checks what the constructor was given."""
    for name, value in call.owner.get_params(deep=False).items():
        if isinstance(value, float) and name in described and not _handles_nan(described[name]):
            spoilt = type(call.owner)(**{**call.owner.get_params(deep=False), name: math.nan})
            yield from _refusal(Call(call.target, spoilt, call.arguments).again, name, "NaN", names=[name])


def _accepted(call: Call, name: str, spoilt: Any, what: str, *, names: list[str] | None) -> Iterator[str]:
    label = name if call.target.owner is None or call.target.is_constructor else f"{call.target.name}: {name}"
    yield from _refusal(lambda: call.again(**{name: spoilt}), label, what, names=names)


def _refusal(attempt: Callable[[], Any], label: str, what: str, *, names: list[str] | None) -> Iterator[str]:
    try:
        attempt()
    except (ValueError, TypeError) as error:
        if names is not None and not any(re.search(rf"\b{re.escape(name)}\b", str(error)) for name in names):
            yield f"{label}: refuses {what} without naming the argument: {error}"
    except Exception as error:
        yield f"{label}: {what} ends in {type(error).__name__}, not in ValueError or TypeError: {error}"
    else:
        yield f"{label}: accepts {what}"


def _handles_nan(argument: Argument) -> bool:
    return "NaN" in argument.text and "refuse" not in argument.text


def _is_float_array(value: Any) -> bool:
    return (isinstance(value, torch.Tensor) and value.is_floating_point()) or (
        isinstance(value, np.ndarray) and value.dtype.kind == "f"
    )


def _with_nan(value: Any) -> Iterator[Any]:
    if isinstance(value, float):
        yield math.nan
    elif isinstance(value, list | tuple) and value and all(isinstance(item, float) for item in value):
        yield type(value)([math.nan, *value[1:]])
    elif _is_float_array(value) and math.prod(value.shape):
        spoilt = value.detach().clone() if isinstance(value, torch.Tensor) else value.copy()
        spoilt[(0,) * value.ndim] = math.nan
        yield spoilt


def _resized(value: Array, axis: int, size: int) -> Array:
    """Shorten an axis, or lengthen it by repeating."""
    rows = [i % value.shape[axis] for i in range(size)]
    if isinstance(value, torch.Tensor):
        return value.detach().index_select(axis, torch.tensor(rows, device=value.device))
    return np.take(value, rows, axis=axis)
