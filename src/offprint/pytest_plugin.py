"""The pytest plugin: tests of multiple-instance models; it imports nothing heavy until a test asks for it.

It lies outside the packages whose array shapes a test run may want checked, since pytest imports it before they can be.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal

import pytest

TESTS: tuple[Literal["single", "multi", "frequency"], ...] = ("single", "multi", "frequency")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``--mil-model``."""
    group = parser.getgroup("offprint", "multiple-instance models")
    group.addoption(
        "--mil-model",
        action="append",
        default=[],
        metavar="MODULE:NAME",
        help="also test this multiple-instance model, a class or function that takes the length of a row and returns a "
        "model; may be given several times",
    )
    group.addoption("--mil-bags", type=int, default=2000, metavar="N", help="training bags of these tests")
    group.addoption("--mil-epochs", type=int, default=10, metavar="N", help="epochs of these tests")
    group.addoption("--mil-seeds", type=int, default=3, metavar="N", help="seeds of these tests")


@pytest.fixture(scope="session")
def assert_respects_mil() -> Callable[..., Any]:
    """Return the function that raises unless a multiple-instance model passes its unit tests."""
    from offprint.methods.bags.mil_unit_tests import assert_respects_mil as found

    return found


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add three tests for each model that was named on the command line."""
    for reference in config.getoption("--mil-model"):
        for test in TESTS:
            name = f"{reference}[{test}]"
            items.append(MilItem.from_parent(session, name=name, reference=reference, test=test))


class MilItem(pytest.Item):
    """One of the three tests of one model."""

    def __init__(self, *, reference: str, test: Literal["single", "multi", "frequency"], **keywords: Any) -> None:
        super().__init__(**keywords)
        self.reference, self.test = reference, test

    def runtest(self) -> None:
        """Train the model and judge it."""
        from offprint.methods.bags.mil_unit_tests import assert_respects_mil as respects

        module, separator, name = self.reference.partition(":")
        if not separator:
            raise pytest.UsageError(f"--mil-model must be MODULE:NAME; got {self.reference!r}")
        option = self.config.getoption
        sizes = {"n_train": option("--mil-bags"), "n_epochs": option("--mil-epochs"), "seeds": option("--mil-seeds")}
        respects(getattr(import_module(module), name), [self.test], **sizes)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the report alone where a test failed, and where the fault lies otherwise."""
        if isinstance(excinfo.value, AssertionError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[str, None, str]:
        """Name the model where pytest names the file."""
        return self.reference, None, self.name
