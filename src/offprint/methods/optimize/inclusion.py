"""What every solver of a monotone inclusion 0 ∈ F(u) + G(u) shares: its result, its accounts and when to stop."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np
from jaxtyping import Float, Int

from offprint.methods.optimize.finite_sum import Constants, FiniteSumOperator, as_vector, checked, estimate_constants

Resolvent = Callable[[Float[np.ndarray, " d"], float], Float[np.ndarray, " d"]]
"""J_{sG}(u) = (I + s G)^{-1}(u) as a function of ``u`` and the step ``s``; a projection ignores the step."""

Callback = Callable[[int, Float[np.ndarray, " d"], float, int], bool | None]
"""Called at each check with iteration, iterate, residual and evaluations so far; returns True to stop."""


class InclusionWarning(RuntimeWarning):
    """Something seen during a solve says that its method or step size does not suit the problem."""


@dataclass(frozen=True)
class History:
    """The residual at each check, with the iteration and the component evaluations at which it was known."""

    iterations: Int[np.ndarray, " checks"]
    evals: Int[np.ndarray, " checks"]
    residuals: Float[np.ndarray, " checks"]


@dataclass(frozen=True)
class Result:
    """What a solver returns.

    Parameters
    ----------
    u : array of float, shape (d,)
        The last iterate whose residual is known.
    residual : float
        ``||F(u)||`` without a resolvent, else the natural residual ``||u - J_G(u - F(u))||``. It is exact, computed
        from a full evaluation.
    n_evals : int
        Evaluations of single components that were spent, residual checks included.
    n_iterations : int
        Index of the iteration at which ``u`` was reached.
    step_size : float
        The step size at the end.
    converged : bool
        Whether ``residual <= tol``.
    message : str
        Why the solver stopped, and whatever it noticed about the problem.
    history : History
        All residuals that were computed on the way.
    """

    u: Float[np.ndarray, " d"]
    residual: float
    n_evals: int
    n_iterations: int
    step_size: float
    converged: bool
    message: str
    history: History


class _Stop(Exception):
    """Leaves the loop of a solver; caught by the ledger."""


@dataclass
class Ledger:
    """Evaluates an operator on behalf of one solve, counts every evaluation and knows when to stop.

    A solver writes its loop inside ``with ledger:``; whichever call finds that the tolerance is reached, the budget is
    spent or the iterates diverge leaves that block. It then returns ``ledger.result(...)``.
    """

    operator: FiniteSumOperator
    resolvent: Resolvent | None
    tol: float
    max_evals: int
    callback: Callback | None
    n_evals: int = 0
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def open(
        cls,
        operator: FiniteSumOperator,
        u0: np.ndarray | Sequence[float],
        resolvent: Resolvent | None,
        tol: float,
        max_evals: int | None,
        callback: Callback | None,
    ) -> tuple[Ledger, Float[np.ndarray, " d"]]:
        """Check what all solvers take; return the ledger and the start as a float64 vector of our own."""
        if not isinstance(operator, FiniteSumOperator):
            raise TypeError(f"operator must be a FiniteSumOperator; got {type(operator).__name__}")
        for name, function in (("resolvent", resolvent), ("callback", callback)):
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be callable; got {type(function).__name__}")
        if not (math.isfinite(tol) and tol > 0):
            raise ValueError(f"tol must be a positive number; got {tol}")
        budget = 1000 * operator.n if max_evals is None else int(max_evals)
        if budget < operator.n:
            raise ValueError(f"max_evals must be at least n = {operator.n}, the cost of one residual; got {max_evals}")
        return cls(operator, resolvent, tol, budget, callback), as_vector("u0", u0)

    def __post_init__(self) -> None:
        self._checks: list[tuple[int, int, float]] = []
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self._growing = 0
        self._reason = ""

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return kind is _Stop

    def constants(self, u: Float[np.ndarray, " d"]) -> Constants:
        """Return the operator's constants, estimated near ``u`` (and paid for) where they are not known."""
        known = self.operator.constants
        if known is None:
            known = estimate_constants(self.operator, u, 1e-3 * (1.0 + float(np.linalg.norm(u))), n_pairs=4)
            self.n_evals += known.n_evals
            if self.n_evals + self.operator.n > self.max_evals:
                needed = self.n_evals + self.operator.n
                raise ValueError(f"max_evals must be at least {needed} for step_size='auto'; got {self.max_evals}")
        if known.lipschitz_on_average == 0:
            raise ValueError("step_size must be a number here: the operator does not vary near u0, so L is 0")
        return known

    def full(self, u: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
        """Return F(u) at the cost of n evaluations, or stop where they are not left."""
        if self.n_evals + self.operator.n > self.max_evals:
            self.stop("max_evals")
        self.n_evals += self.operator.n
        return self._checked(self.operator.full(u), u)

    def batch(self, indices: Int[np.ndarray, " batch"], u: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
        """Return the mean of the components at ``u``, at one evaluation an index."""
        self.n_evals += len(indices)
        return self._checked(self.operator.component(indices, u), u, indices)

    def difference(
        self, indices: Int[np.ndarray, " batch"], u: Float[np.ndarray, " d"], v: Float[np.ndarray, " d"]
    ) -> Float[np.ndarray, " d"]:
        """Return the mean of the components at ``u`` less that at ``v``, at two evaluations an index."""
        self.n_evals += 2 * len(indices)
        return self._checked(self.operator.difference(indices, u, v), u, indices)

    def resolve(self, u: Float[np.ndarray, " d"], step: float) -> Float[np.ndarray, " d"]:
        """Return the resolvent of G at ``u``, which is ``u`` itself where there is no G."""
        if self.resolvent is None:
            return u
        resolved = self.resolvent(u, step)
        if np.shape(resolved) != u.shape:
            raise ValueError(f"resolvent must keep the shape {u.shape} of u; it returned {np.shape(resolved)}")
        return resolved

    def afford(self, cost: int, u: Float[np.ndarray, " d"], k: int) -> None:
        """Stop at iterate k, checking it first if need be, unless ``cost`` and a check after it are in the budget."""
        if self.n_evals + cost + self.operator.n > self.max_evals:
            if self._last is None or self._last[0] is not u:
                self.check(k, u, self.full(u))
            self.stop("max_evals")

    def check(self, k: int, u: Float[np.ndarray, " d"], value: Float[np.ndarray, " d"]) -> float:
        """Record the residual of iterate k, whose F(u) is ``value``; stop if it is small enough or hopeless."""
        residual = float(np.linalg.norm(value if self.resolvent is None else u - self.resolve(u - value, 1.0)))
        if self._last is not None:
            self._watch(u, value, residual)
        self._checks.append((k, self.n_evals, residual))
        self._last = (u, value)
        if residual <= self.tol:
            self.stop("tol")
        if self.callback is not None and self.callback(k, u.copy(), residual, self.n_evals):
            self.stop("callback")
        if residual > 1e12 * max(self._checks[0][2], self.tol):
            self.stop("diverged")
        return residual

    def warn(self, text: str) -> None:
        """Note something about the problem, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def stop(self, reason: str) -> None:
        """Leave the loop."""
        self._reason = reason
        raise _Stop

    def result(self, step_size: float) -> Result:
        """Close the accounts, and raise what was noticed as warnings at the line that called the solver."""
        if self._last is None:
            raise RuntimeError("a solver must check its first iterate")
        iterations, evals, residuals = zip(*self._checks, strict=True)
        residual = residuals[-1]
        why = {
            "tol": f"converged: residual {residual:.3g} is at most tol {self.tol:.3g}",
            "max_evals": f"stopped at max_evals {self.max_evals}: residual {residual:.3g} is above tol {self.tol:.3g}",
            "callback": f"stopped by the callback at residual {residual:.3g}",
            "diverged": f"diverged: the last residual known is {residual:.3g}; take a smaller step_size",
        }[self._reason]
        for text in self.warnings:
            warnings.warn(text, InclusionWarning, stacklevel=3)
        return Result(
            u=self._last[0].copy(),
            residual=residual,
            n_evals=self.n_evals,
            n_iterations=iterations[-1],
            step_size=step_size,
            converged=self._reason == "tol",
            message="; ".join([why, *self.warnings]),
            history=History(np.array(iterations), np.array(evals), np.array(residuals)),
        )

    def _watch(self, u: np.ndarray, value: np.ndarray, residual: float) -> None:
        assert self._last is not None
        moved, changed = u - self._last[0], value - self._last[1]
        if moved @ changed < -1e-9 * np.linalg.norm(moved) * (np.linalg.norm(value) + np.linalg.norm(self._last[1])):
            self.warn("the operator is not monotone: two iterates u, v have <F(u) - F(v), u - v> < 0")
        self._growing = self._growing + 1 if residual > self._checks[-1][2] else 0
        if self._growing >= 10 and residual > self._checks[0][2]:
            self.warn(
                "the residual grew at 10 checks in a row: the step is too large or the operator is not cocoercive; "
                "use a smaller step_size, inexact_vr_halpern or eag"
            )

    def _checked(
        self, value: np.ndarray, u: Float[np.ndarray, " d"], indices: Int[np.ndarray, " batch"] | None = None
    ) -> Float[np.ndarray, " d"]:
        if np.abs(u).max() >= 1e100 or not np.isfinite(u).all():
            self.stop("diverged")
        return checked(self.operator, value, u, indices)


def positive(name: str, value: float) -> float:
    """Return ``value`` as a float, or raise ``ValueError`` naming the argument unless it is positive and finite."""
    if isinstance(value, str) or not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a positive number; got {value!r}")
    return float(value)


def batch_size_or(batch_size: int | None, n: int, default: int) -> int:
    """Return a checked batch size, or ``default`` for ``None``."""
    if batch_size is None:
        return default
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer):
        raise TypeError(f"batch_size must be an integer; got {type(batch_size).__name__}")
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size must be in [1, n = {n}]; got {batch_size}")
    return int(batch_size)
