"""VNN-LIB properties, against a small evaluator of its own that knows nothing of normal forms."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offprint.methods.certify import vnnlib
from offprint.methods.certify.vnnlib import VnnlibError, parse, read

N_IN, N_OUT = 2, 3
VALUES = st.integers(-3, 3).map(float) | st.sampled_from([0.5, -1.5, 1e-3, -2.5e2])


# Formulas are nested tuples: they are written out to be parsed, and evaluated directly.
def outputs_term():
    variable = st.sampled_from([f"Y_{i}" for i in range(N_OUT)])
    leaf = variable | VALUES
    product = st.tuples(st.just("*"), VALUES, variable)
    return st.one_of(
        leaf,
        product,
        st.tuples(st.just("+"), leaf, product),
        st.tuples(st.just("-"), variable, leaf),
        st.tuples(st.just("-"), variable),
        st.tuples(st.just("*"), variable, st.tuples(st.just("+"), VALUES, VALUES)),
        st.tuples(st.just("/"), variable, st.sampled_from([2.0, -0.5, 4.0])),
    )


def conditions():
    relation = st.sampled_from(["<=", ">=", "=", "<", ">"])
    about_outputs = st.tuples(relation, outputs_term(), outputs_term())
    about_inputs = st.tuples(relation, st.sampled_from([f"X_{i}" for i in range(N_IN)]), VALUES)
    flipped = about_inputs.map(lambda c: (c[0], c[2], c[1]))
    leaf = about_outputs | about_inputs | flipped
    return st.recursive(
        leaf,
        lambda parts: st.tuples(st.sampled_from(["and", "or"]), st.lists(parts, min_size=1, max_size=3)).map(
            lambda found: (found[0], *found[1])
        ),
        max_leaves=6,
    )


def written(expression) -> str:
    if isinstance(expression, tuple):
        return "(" + " ".join(map(written, expression)) + ")"
    return expression if isinstance(expression, str) else f"{expression:e}"


def evaluated(expression, values):
    if isinstance(expression, str):
        return values[expression]
    if isinstance(expression, float):
        return expression
    word, *parts = expression
    parts = [evaluated(part, values) for part in parts]
    if word == "-":
        return parts[0] - parts[1] if len(parts) == 2 else -parts[0]
    return {
        "and": all,
        "or": any,
        "<=": lambda p: p[0] <= p[1],
        ">=": lambda p: p[0] >= p[1],
        "=": lambda p: p[0] == p[1],
        "<": lambda p: p[0] < p[1],
        ">": lambda p: p[0] > p[1],
        "+": sum,
        "*": lambda p: p[0] * p[1],
        "/": lambda p: p[0] / p[1],
    }[word](parts)


def declarations() -> str:
    return "".join(f"(declare-const {name} Real)\n" for name in [*(f"X_{i}" for i in range(N_IN)), "Y_0", "Y_1", "Y_2"])


@settings(max_examples=150, deadline=None)
@given(st.lists(conditions(), max_size=3), st.data())
def test_what_is_written_out_means_the_same_when_read(formulas, data) -> None:
    box = [(sign, f"X_{i}", bound) for i in range(N_IN) for sign, bound in (("<=", 3.0), (">=", -3.0))]
    asserted = [*formulas, *box]
    text = declarations() + "".join(f"(assert {written(formula)}) ; a comment\n" for formula in asserted)
    found = parse(text)
    assert (found.n_inputs, found.n_outputs) == (N_IN, N_OUT)
    # Values from the same small set as the constants, so that equalities are met; sums of them are exact enough below.
    points = data.draw(st.lists(st.lists(VALUES, min_size=5, max_size=5), min_size=20, max_size=20))
    points = np.array(points)
    names = ["X_0", "X_1", "Y_0", "Y_1", "Y_2"]
    expected = [all(evaluated(f, dict(zip(names, point, strict=True))) for f in asserted) for point in points]
    decided = np.array([clear(asserted, dict(zip(names, point, strict=True))) for point in points], dtype=bool)
    np.testing.assert_array_equal(found.violated(points[:, :2], points[:, 2:])[decided], np.array(expected)[decided])


def clear(formulas, values) -> bool:
    """Whether no comparison hangs on the last bit: both sides are the same sum of exact numbers, or far apart."""
    for formula in formulas:
        if isinstance(formula, tuple) and formula[0] in ("and", "or"):
            if not clear(formula[1:], values):
                return False
        elif isinstance(formula, tuple):
            sides = [evaluated(part, values) for part in formula[1:]]
            exact = all(float(side * 4).is_integer() for side in sides)
            if not exact and abs(sides[0] - sides[1]) < 1e-9:
                return False
    return True


def property_text(*asserts: str, n_in: int = 1, n_out: int = 2) -> str:
    names = [f"X_{i}" for i in range(n_in)] + [f"Y_{i}" for i in range(n_out)]
    return "\n".join([*(f"(declare-const {name} Real)" for name in names), *(f"(assert {one})" for one in asserts)])


def test_boxes_and_polytopes_of_a_robustness_property() -> None:
    found = parse(
        property_text("(<= X_0 0.5)", "(>= X_0 -2.5e-1)", "(or (and (>= Y_1 Y_0)) (and (>= Y_2 Y_0)))", n_out=3)
    )
    (case,) = found.cases
    assert (case.lower.tolist(), case.upper.tolist()) == ([-0.25], [0.5])
    assert [p.matrix.tolist() for p in case.polytopes] == [[[1.0, -1.0, 0.0]], [[1.0, 0.0, -1.0]]]
    assert [p.bound.tolist() for p in case.polytopes] == [[0.0], [0.0]]


def test_a_disjunction_of_boxes_gives_a_case_for_each() -> None:
    both = "(and (>= X_0 {0}) (<= X_0 {1}) (<= Y_0 {2}))"
    found = parse(property_text(f"(or {both.format(0, 1, 5)} {both.format(2, 3, 6)} {both.format(0, 1, 7)})"))
    assert [(c.lower[0], c.upper[0]) for c in found.cases] == [(0, 1), (2, 3)]
    assert [len(c.polytopes) for c in found.cases] == [2, 1]


def test_what_no_input_fulfils_is_dropped() -> None:
    assert parse(property_text("(<= X_0 0)", "(>= X_0 1)")).cases == ()
    assert parse(property_text("(<= X_0 1)", "(>= X_0 0)", "(<= 2 1)")).cases == ()
    assert len(parse(property_text("(<= X_0 1)", "(>= X_0 0)", "(or (>= X_0 2) (<= Y_0 1))")).cases) == 1


def test_files_plain_and_gzipped(tmp_path) -> None:
    text = property_text("(<= X_0 1)", "(>= X_0 0)", "(<= Y_0 0)")
    (tmp_path / "a.vnnlib").write_text(text)
    (tmp_path / "a.vnnlib.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("a.vnnlib", "a.vnnlib.gz"):
        assert read(tmp_path / name).cases[0].upper.tolist() == [1.0]
    (tmp_path / "b.vnnlib").write_text("(assert")
    with pytest.raises(VnnlibError, match=r"b\.vnnlib: line 1: a '\(' is never closed"):
        read(tmp_path / "b.vnnlib")
    (tmp_path / "c.vnnlib.gz").write_text("not zipped")
    with pytest.raises(VnnlibError, match="is not a VNN-LIB file"):
        read(tmp_path / "c.vnnlib.gz")


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("(< X_0 1 2)", "line 4: '<' takes two sides, got 3"),
        ("(<= X_0 X_9)", "line 4: X_9 is not declared"),
        ("(<= X_0 one)", "line 4: one is not a number"),
        ("(<= X_0 1e999)", "line 4: 1e999 is not finite"),
        ("(<= X_0 Y_0)", "line 4: a condition between inputs and outputs"),
        ("(<= X_0 (* Y_0 Y_1))", "line 4: a product of variables"),
        ("(=> X_0 1)", "line 4: unknown condition '=>'"),
        ("(<= (/ 2 Y_0) 1)", "line 4: only division by a number other than 0"),
        ("(<= (/ Y_0 0) 1)", "line 4: only division by a number other than 0"),
        ("(<= (mod Y_0 2) 1)", "line 4: unknown term 'mod'"),
        ("(<= X_0)", "line 4: '<=' takes two sides, got 1"),
        ("X_0", "line 4: expected a condition"),
        ("(<= Y_0 1)) )", "line 4: a '\\)' without"),
        ("(<= Y_0 1)", "X_0 has no lower bound"),
        ("(>= X_0 1)", "X_0 has no upper bound"),
    ],
)
def test_errors_name_the_line(condition, message) -> None:
    with pytest.raises(VnnlibError, match=message):
        parse(property_text(condition))


def test_conditions_between_inputs_are_refused() -> None:
    with pytest.raises(VnnlibError, match="line 5: a condition between inputs is not"):
        parse(property_text("(<= X_0 X_1)", n_in=2))


def test_declarations_are_checked() -> None:
    with pytest.raises(VnnlibError, match="line 2: X_0 is declared twice"):
        parse("(declare-const X_0 Real)\n(declare-const X_0 Real)")
    with pytest.raises(VnnlibError, match="X_0 is not declared"):
        parse("(declare-const X_1 Real)(declare-const Y_0 Real)")
    with pytest.raises(VnnlibError, match="line 1: variables are called"):
        parse("(declare-const Z_1 Real)")
    with pytest.raises(VnnlibError, match="line 1: unknown command 'declare-network'"):
        parse("(declare-network f)")
    assert parse("(declare-fun X_0 () Real)(declare-const Y_0 Real)(assert (= X_0 1))").cases[0].lower.tolist() == [1.0]


def test_disjunctions_that_multiply_out_to_too_much_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(vnnlib, "MAX_CASES", 7)
    either = "(or (<= Y_0 {0}) (<= Y_1 {0}))"
    with pytest.raises(VnnlibError, match="more than 7 cases"):
        parse(property_text("(= X_0 0)", *(either.format(i) for i in range(3))))


def test_shapes_are_checked() -> None:
    found = parse(property_text("(= X_0 0)"))
    with pytest.raises(ValueError, match=r"outputs: expected shape \(1, 2\)"):
        found.violated(np.zeros((1, 1)), np.zeros((1, 3)))
