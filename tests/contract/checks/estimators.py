"""Where scikit-learn's own checks apply, decided by signatures."""

from __future__ import annotations

import inspect

from sklearn.base import BaseEstimator

EMPTY = inspect.Parameter.empty


def is_plain_estimator(cls: type) -> bool:
    """Whether scikit-learn's checks can be run on a class.

    They construct it without arguments and call ``fit(X, y)`` on tables that they make up. So they apply to a
    ``BaseEstimator`` whose constructor needs nothing and whose ``fit`` needs nothing beside ``X`` and ``y``. An
    estimator that is given a network, a bag for each row or the like needs more and is left to the other checks.
    """
    if not issubclass(cls, BaseEstimator) or not hasattr(cls, "fit"):
        return False
    constructor = list(inspect.signature(cls).parameters.values())
    fit = list(inspect.signature(cls.fit).parameters.values())[1:]
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [parameter.name for parameter in fit if parameter.default is EMPTY and parameter.kind not in variadic]
    return (
        all(parameter.default is not EMPTY for parameter in constructor)
        and [parameter.name for parameter in fit][:1] == ["X"]
        and set(needed) <= {"X", "y"}
    )
