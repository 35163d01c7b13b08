"""Every method that a record lists is documented, deterministic under a seed, silent and refuses bad input."""

from __future__ import annotations

import inspect
import warnings

import pytest
from checks import documentation, floors, refusals
from checks.catalogue import exported_references, method_references, resolve
from checks.estimators import is_plain_estimator
from checks.examples import cpu_seconds, differences, rehearse, rehearse_anew
from sklearn.utils.estimator_checks import check_estimator

every_method = pytest.mark.parametrize("reference", method_references())


@every_method
def test_is_documented(reference: str) -> None:
    assert documentation.findings(resolve(reference)) == []


@pytest.mark.parametrize("reference", exported_references())
def test_what_a_family_exports_is_documented(reference: str) -> None:
    found = resolve(reference)
    if callable(found):
        assert documentation.brief_findings(found) == []


@every_method
def test_imports_nothing_from_above(reference: str) -> None:
    assert floors.upward_imports(resolve(reference)) == []


@every_method
def test_example_calls_it(reference: str, as_users_call_it: None) -> None:
    assert rehearse(resolve(reference))[0].calls, "the example in its docstring never calls it"


@every_method
def test_example_takes_less_than_a_second(reference: str, as_users_call_it: None) -> None:
    assert cpu_seconds(resolve(reference), enough=1) < 1


@every_method
def test_is_deterministic_under_a_seed(reference: str, as_users_call_it: None) -> None:
    assert differences(*rehearse(resolve(reference))) == []


@every_method
def test_is_silent(reference: str, as_users_call_it: None, capfd: pytest.CaptureFixture[str]) -> None:
    rehearse.cache_clear()  # so that what is written past Python's own streams is seen here
    runs = rehearse(resolve(reference))
    assert [run.printed for run in runs] == ["", ""]
    assert tuple(capfd.readouterr()) == ("", "")


@every_method
def test_refuses_nan_and_wrong_shapes(reference: str, as_users_call_it: None) -> None:
    method = resolve(reference)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert refusals.findings(method, rehearse_anew(method).calls) == []


@every_method
def test_estimators_pass_the_checks_of_scikit_learn(reference: str, as_users_call_it: None) -> None:
    method = resolve(reference)
    if not (inspect.isclass(method) and is_plain_estimator(method)):
        pytest.skip("no estimator that is fitted to (X, y) or (X) alone")
    outcomes = check_estimator(method(), on_skip=None, on_fail=None)
    failed = {outcome["check_name"]: str(outcome["exception"]) for outcome in outcomes if outcome["status"] == "failed"}
    assert failed == {}
