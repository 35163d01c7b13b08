"""Properties of networks in VNN-LIB files: which inputs, and which outputs would be wrong for them."""

from __future__ import annotations

import gzip
import itertools
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

MAX_CASES = 200_000
"""How many conjunctions a property may have once ``or`` is multiplied out."""


class VnnlibError(ValueError):
    """A file that is not understood; the message names the line."""


@dataclass(frozen=True)
class Polytope:
    """All outputs ``y`` with ``matrix @ y <= bound``.

    Parameters
    ----------
    matrix : array of float64, shape (rows, n_outputs)
    bound : array of float64, shape (rows,)
    """

    matrix: Float[np.ndarray, "rows n_outputs"]
    bound: Float[np.ndarray, " rows"]


@dataclass(frozen=True)
class Case:
    """A box of inputs, and polytopes of outputs: an input of the box whose output is in one is a counterexample.

    Parameters
    ----------
    lower, upper : array of float64, shape (n_inputs,)
        Ends of the box.
    polytopes : tuple of Polytope
        Any of them makes it a counterexample.
    """

    lower: Float[np.ndarray, " n_inputs"]
    upper: Float[np.ndarray, " n_inputs"]
    polytopes: tuple[Polytope, ...]


@dataclass(frozen=True)
class Property:
    """What a counterexample would be: any of the cases. The property holds where there is none.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Inputs and outputs of the network are flattened to these.
    cases : tuple of Case
        Without a case there can be no counterexample.
    """

    n_inputs: int
    n_outputs: int
    cases: tuple[Case, ...]

    def violated(
        self, inputs: Float[np.ndarray, "batch n_inputs"], outputs: Float[np.ndarray, "batch n_outputs"]
    ) -> Bool[np.ndarray, " batch"]:
        """Return which pairs of an input and its output are counterexamples, exactly as written: no tolerance.

        Parameters
        ----------
        inputs : array of float, shape (batch, n_inputs)
        outputs : array of float, shape (batch, n_outputs)

        Returns
        -------
        array of bool, shape (batch,)

        Raises
        ------
        ValueError
            If a shape does not fit.

        Examples
        --------
        >>> robust = Property(1, 2, (Case(np.zeros(1), np.ones(1), (Polytope(np.array([[1.0, -1.0]]), np.zeros(1)),)),))
        >>> robust.violated(np.array([[0.5], [0.5], [2.0]]), np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]]))
        array([ True, False, False])
        """
        for name, given, n in (("inputs", inputs, self.n_inputs), ("outputs", outputs, self.n_outputs)):
            if given.ndim != 2 or given.shape[1] != n or len(given) != len(inputs):
                raise ValueError(f"{name}: expected shape ({len(inputs)}, {n}), got {given.shape}")
        found = np.zeros(len(inputs), dtype=bool)
        exact_inputs, exact_outputs = inputs.astype(np.float64), outputs.astype(np.float64)
        for case in self.cases:
            inside = ((exact_inputs >= case.lower) & (exact_inputs <= case.upper)).all(axis=1)
            for polytope in case.polytopes:
                found |= inside & (exact_outputs @ polytope.matrix.T <= polytope.bound).all(axis=1)
        return found


def robustness(
    x: Float[np.ndarray, "..."],
    label: int,
    radius: float,
    n_outputs: int,
    *,
    lower: float = -math.inf,
    upper: float = math.inf,
) -> Property:
    """Return the property that a classifier gives no other label within ``radius`` of ``x`` in any element.

    Parameters
    ----------
    x : array of float, any shape
        Flattened; finite.
    label : int
        The output that must be the greatest, in [0, n_outputs).
    radius : float
        Largest change of an element, at least 0.
    n_outputs : int
        At least 2.
    lower, upper : float
        What an element may be anyway, such as 0 and 1 for pixels.

    Returns
    -------
    Property
        One box, and one polytope for each other label; equal outputs count as wrong.

    Raises
    ------
    ValueError
        If an argument is out of its range.

    Examples
    --------
    >>> found = robustness(np.array([0.1, 0.5]), label=1, radius=0.2, n_outputs=2, lower=0.0, upper=1.0)
    >>> found.cases[0].lower, found.cases[0].polytopes[0].matrix
    (array([0. , 0.3]), array([[-1.,  1.]]))
    """
    centre = np.asarray(x, dtype=np.float64).reshape(-1)
    if not np.isfinite(centre).all() or centre.size == 0:
        raise ValueError("x: expected finite numbers")
    if n_outputs < 2 or not 0 <= label < n_outputs:
        raise ValueError(f"label: expected a number from 0 to below n_outputs = {n_outputs} (at least 2), got {label}")
    if not (radius >= 0 and math.isfinite(radius)):
        raise ValueError(f"radius: expected a finite number of at least 0, got {radius}")
    low, high = np.maximum(centre - radius, lower), np.minimum(centre + radius, upper)
    if not (low <= high).all():
        raise ValueError(f"lower, upper: nothing of the ball is between {lower} and {upper}")
    polytopes = []
    for other in range(n_outputs):
        if other != label:
            row = np.zeros((1, n_outputs))
            row[0, label], row[0, other] = 1.0, -1.0
            polytopes.append(Polytope(row, np.zeros(1)))
    return Property(centre.size, n_outputs, (Case(low, high, tuple(polytopes)),))


def read(path: str | os.PathLike[str]) -> Property:
    """Read a VNN-LIB file, plain or gzipped (``.gz``).

    Parameters
    ----------
    path : path
        See `parse` for what may be in it.

    Returns
    -------
    Property

    Raises
    ------
    VnnlibError
        If the file is not understood; the message names the line.

    Notes
    -----
    Linear in the file, and in the number of conjunctions that it multiplies out to.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> text = "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (>= X_0 0))(assert (<= X_0 1))"
    >>> _ = (folder / "at_most_3.vnnlib").write_text(text + "(assert (>= Y_0 3))")
    >>> read(folder / "at_most_3.vnnlib").cases[0].upper
    array([1.])

    References
    ----------
    VNN-LIB, https://www.vnnlib.org, version 1.0.
    """
    path = Path(path)
    data = path.read_bytes()
    try:
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise VnnlibError(f"{path} is not a VNN-LIB file ({error})") from error
    try:
        return parse(text)
    except VnnlibError as error:
        raise VnnlibError(f"{path}: {error}") from error


def parse(text: str) -> Property:
    """Parse a property in VNN-LIB 1.0.

    Understood are declarations of real inputs ``X_0, X_1, …`` and outputs ``Y_0, Y_1, …``, and assertions made of
    ``and``, ``or``, ``<=``, ``>=``, ``<``, ``>`` and ``=`` between sums, differences and multiples of inputs or of
    outputs. Inputs may only be bounded one by one; where bounds are in a disjunction there are several boxes.

    Parameters
    ----------
    text : str

    Returns
    -------
    Property

    Raises
    ------
    VnnlibError
        If the text is not understood, an input has no bound, or ``or`` multiplies out to more than `MAX_CASES`.

    Notes
    -----
    Assertions are brought to disjunctive normal form; conjunctions with the same box share a `Case`, and those that
    no input fulfils are dropped.

    Examples
    --------
    >>> found = parse('''
    ... (declare-const X_0 Real)
    ... (declare-const Y_0 Real)
    ... (declare-const Y_1 Real)
    ... (assert (and (>= X_0 -1) (<= X_0 1)))
    ... (assert (or (<= Y_0 Y_1) (>= Y_1 2.5)))
    ... ''')
    >>> [(p.matrix.tolist(), p.bound.tolist()) for p in found.cases[0].polytopes]
    [([[1.0, -1.0]], [0.0]), ([[0.0, -1.0]], [-2.5])]

    References
    ----------
    VNN-LIB, https://www.vnnlib.org, version 1.0.
    """
    declared: dict[str, int] = {"X": 0, "Y": 0}
    names: set[str] = set()
    formulas: list[_Formula] = []
    for expression in _read_all(_tokens(text)):
        if not isinstance(expression, _List) or not expression.items:
            raise _error(expression, "expected a command in parentheses")
        command, *rest = expression.items
        word = command.text if isinstance(command, _Atom) else ""
        if word in ("declare-const", "declare-fun"):
            name = _declared(expression, rest, word)
            if name in names:
                raise _error(expression, f"{name} is declared twice")
            names.add(name)
            declared[name[0]] += 1
        elif word == "assert":
            if len(rest) != 1:
                raise _error(expression, f"assert takes one condition, got {len(rest)}")
            formulas.append(_formula(rest[0], names))
        elif word not in ("set-logic", "set-info", "check-sat", "exit"):
            raise _error(expression, f"unknown command {word!r}")
    for kind, n in declared.items():
        missing = [i for i in range(n) if f"{kind}_{i}" not in names]
        if missing or n == 0:
            raise VnnlibError(f"{kind}_{missing[0] if missing else 0} is not declared")
    return _property(declared["X"], declared["Y"], formulas)


@dataclass(frozen=True)
class _Atom:
    text: str
    line: int


@dataclass(frozen=True)
class _List:
    items: list[_Atom | _List]
    line: int


@dataclass(frozen=True)
class _Row:
    """``sum of coefficients * variables <= bound``."""

    coefficients: dict[str, float]
    bound: float
    line: int


@dataclass
class _Formula:
    """A row, or a conjunction or disjunction of formulas."""

    kind: str  # "row", "and", "or"
    parts: list[_Formula] = field(default_factory=list)
    row: _Row | None = None


_TOKEN = re.compile(r"[()]|;[^\n]*|\n|\|[^|]*\||\"[^\"]*\"|[^\s();]+")
_VARIABLE = re.compile(r"[XY]_\d+")


def _error(at: _Atom | _List, message: str) -> VnnlibError:
    return VnnlibError(f"line {at.line}: {message}")


def _tokens(text: str) -> Iterator[_Atom]:
    line = 1
    for found in _TOKEN.finditer(text):
        token = found.group()
        if token == "\n":
            line += 1
        elif not token.startswith(";"):
            yield _Atom(token, line)
            line += token.count("\n")


def _read_all(tokens: Iterator[_Atom]) -> list[_Atom | _List]:
    """Nest tokens by their parentheses; without recursion, files nest deep."""
    top: list[_Atom | _List] = []
    stack: list[_List] = []
    for token in tokens:
        into = stack[-1].items if stack else top
        if token.text == "(":
            opened = _List([], token.line)
            into.append(opened)
            stack.append(opened)
        elif token.text == ")":
            if not stack:
                raise _error(token, "a ')' without its '('")
            stack.pop()
        else:
            into.append(token)
    if stack:
        raise _error(stack[-1], "a '(' is never closed")
    return top


def _declared(expression: _List, rest: Sequence[_Atom | _List], word: str) -> str:
    parts = list(rest)
    if word == "declare-fun" and len(parts) == 3 and isinstance(parts[1], _List) and not parts[1].items:
        del parts[1]
    words = [part.text if isinstance(part, _Atom) else "(" for part in parts]
    if len(words) != 2 or words[1] != "Real":
        raise _error(expression, "expected a declaration such as (declare-const X_0 Real)")
    if not _VARIABLE.fullmatch(words[0]):
        raise _error(expression, f"variables are called X_0, X_1, … and Y_0, Y_1, …, got {words[0]!r}")
    return words[0]


def _formula(expression: _Atom | _List, names: set[str]) -> _Formula:
    if not isinstance(expression, _List) or not expression.items or not isinstance(expression.items[0], _Atom):
        raise _error(expression, "expected a condition such as (<= Y_0 Y_1)")
    word, parts = expression.items[0].text, expression.items[1:]
    if word in ("and", "or"):
        return _Formula(word, [_formula(part, names) for part in parts])
    if word not in ("<=", ">=", "=", "<", ">"):
        raise _error(expression, f"unknown condition {word!r}; known are and, or, <=, >=, <, >, =")
    if len(parts) != 2:
        raise _error(expression, f"'{word}' takes two sides, got {len(parts)}")
    left, right = (_linear(part, names) for part in parts)
    difference = _combined([(1.0, left), (-1.0, right)])
    rows = []
    if word in ("<=", "<", "="):
        rows.append(_row(difference, 1.0, expression, strict=word == "<"))
    if word in (">=", ">", "="):
        rows.append(_row(difference, -1.0, expression, strict=word == ">"))
    formulas = [_Formula("row", row=row) for row in rows]
    return formulas[0] if len(formulas) == 1 else _Formula("and", formulas)


_Linear = dict[str, float]  # the constant is under ""


def _row(linear: _Linear, sign: float, at: _List, *, strict: bool) -> _Row:
    coefficients = {name: sign * c for name, c in linear.items() if name and c != 0}
    if len({name[0] for name in coefficients}) > 1:
        raise _error(at, "a condition between inputs and outputs is not supported")
    if len(coefficients) > 1 and next(iter(coefficients)).startswith("X"):
        raise _error(at, "a condition between inputs is not supported; inputs are bounded one by one")
    constant = linear.get("", 0.0)
    bound = -sign * constant if constant else 0.0
    # Below a number is at most the next smaller one: networks compute with nothing in between.
    return _Row(coefficients, math.nextafter(bound, -math.inf) if strict else bound, at.line)


def _combined(parts: Sequence[tuple[float, _Linear]]) -> _Linear:
    total: _Linear = {}
    for factor, linear in parts:
        for name, c in linear.items():
            total[name] = total.get(name, 0.0) + factor * c
    return total


def _linear(expression: _Atom | _List, names: set[str]) -> _Linear:
    if isinstance(expression, _Atom):
        if expression.text in names:
            return {expression.text: 1.0}
        return {"": _number(expression)}
    if not expression.items or not isinstance(expression.items[0], _Atom):
        raise _error(expression, "expected a number, a variable or a sum of them")
    word, parts = expression.items[0].text, [_linear(part, names) for part in expression.items[1:]]
    if word == "+" and parts:
        return _combined([(1.0, part) for part in parts])
    if word == "-" and len(parts) == 1:
        return _combined([(-1.0, parts[0])])
    if word == "-" and parts:
        return _combined([(1.0, parts[0])] + [(-1.0, part) for part in parts[1:]])
    if word == "*" and len(parts) == 2:
        for factor, other in (parts, reversed(parts)):
            if set(factor) == {""}:
                return _combined([(factor[""], other)])
        raise _error(expression, "a product of variables is not linear")
    if word == "/" and len(parts) == 2:
        divisor = parts[1].get("", 0.0)
        if set(parts[1]) != {""} or divisor == 0:
            raise _error(expression, "only division by a number other than 0 is linear")
        return {name: c / divisor for name, c in parts[0].items()}
    known = "+, -, * by a number and / by a number"
    raise _error(expression, f"unknown term {word!r} with {len(parts)} parts; known are {known}")


def _number(atom: _Atom) -> float:
    try:
        value = float(atom.text)
    except ValueError:
        what = "is not declared" if _VARIABLE.fullmatch(atom.text) else "is not a number"
        raise _error(atom, f"{atom.text} {what}") from None
    if not math.isfinite(value):
        raise _error(atom, f"{atom.text} is not finite")
    return value


def _property(n_inputs: int, n_outputs: int, formulas: Sequence[_Formula]) -> Property:
    boxes: dict[tuple[bytes, bytes], tuple[np.ndarray, np.ndarray, dict[bytes, Polytope]]] = {}
    # What holds everywhere is put into one box first, so that disjunctions multiply only what differs.
    fixed, choices = _normal_form(formulas)
    lower, upper = np.full(n_inputs, -np.inf), np.full(n_inputs, np.inf)
    possible = _narrow(lower, upper, fixed)
    common = [row for row in fixed if _about(row) == "Y"]
    for chosen in itertools.product(*choices) if possible else ():
        rows = [row for one in chosen for row in one]
        low, high = lower.copy(), upper.copy()
        if not _narrow(low, high, rows):
            continue
        for i in np.flatnonzero(~(np.isfinite(low) & np.isfinite(high))):
            raise VnnlibError(f"X_{i} has no {'lower' if not np.isfinite(low[i]) else 'upper'} bound")
        polytope = _polytope([*common, *(row for row in rows if _about(row) == "Y")], n_outputs)
        box = boxes.setdefault((low.tobytes(), high.tobytes()), (low, high, {}))
        box[2].setdefault(polytope.matrix.tobytes() + polytope.bound.tobytes(), polytope)
    cases = tuple(Case(low, high, tuple(polytopes.values())) for low, high, polytopes in boxes.values())
    return Property(n_inputs, n_outputs, cases)


def _about(row: _Row) -> str:
    return next(iter(row.coefficients))[0] if row.coefficients else ""


def _narrow(lower: np.ndarray, upper: np.ndarray, rows: Sequence[_Row]) -> bool:
    """Cut a box by rows about inputs, in place; return whether anything is left."""
    for row in rows:
        if not row.coefficients:
            if row.bound < 0:
                return False
        elif _about(row) == "X":
            ((name, c),) = row.coefficients.items()
            i = int(name[2:])
            if c > 0:
                upper[i] = min(upper[i], row.bound / c)
            else:
                lower[i] = max(lower[i], row.bound / c)
    return bool((lower <= upper).all())


def _polytope(rows: Sequence[_Row], n_outputs: int) -> Polytope:
    matrix = np.zeros((len(rows), n_outputs))
    for k, row in enumerate(rows):
        for name, c in row.coefficients.items():
            matrix[k, int(name[2:])] = c
    return Polytope(matrix, np.array([row.bound for row in rows], dtype=np.float64))


def _normal_form(formulas: Sequence[_Formula]) -> tuple[list[_Row], list[list[list[_Row]]]]:
    """Return rows that all must hold, and choices: of each one conjunction of rows must hold."""
    fixed: list[_Row] = []
    choices: list[list[list[_Row]]] = []
    pending = list(formulas)[::-1]
    while pending:
        formula = pending.pop()
        if formula.row is not None:
            fixed.append(formula.row)
        elif formula.kind == "and":
            pending.extend(reversed(formula.parts))
        else:
            choices.append(_conjunctions(formula))
    if math.prod(len(choice) for choice in choices) > MAX_CASES:
        raise VnnlibError(f"the disjunctions multiply out to more than {MAX_CASES} cases")
    return fixed, choices


def _conjunctions(formula: _Formula) -> list[list[_Row]]:
    """Return a formula's disjunctive normal form."""
    if formula.row is not None:
        return [[formula.row]]
    parts = [_conjunctions(part) for part in formula.parts]
    if formula.kind == "or":
        return [rows for part in parts for rows in part]
    if math.prod(len(part) for part in parts) > MAX_CASES:
        raise VnnlibError(f"the disjunctions multiply out to more than {MAX_CASES} cases")
    return [[row for rows in chosen for row in rows] for chosen in itertools.product(*parts)]
