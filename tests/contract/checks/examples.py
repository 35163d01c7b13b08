"""Calling any method without knowing it: by the example in its own docstring.

The example is run twice, with the global random generators in different states. What the method was called with and
what it returned is taken down on the way: that is what the checks for determinism, silence and refusals look at.
"""

from __future__ import annotations

import contextlib
import dataclasses
import doctest
import inspect
import io
import random
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import CodeType, FrameType
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator

CALL_LIMIT = 4
"""How many calls of a function in one example are taken down for the refusals."""


@dataclasses.dataclass(frozen=True)
class Target:
    """A function whose calls are taken down: the method itself, or a public function of the class it is."""

    name: str
    function: Callable[..., Any]
    owner: type | None = None

    @property
    def is_constructor(self) -> bool:
        """Whether this is the ``__init__`` of a class."""
        return self.owner is not None and self.name == "__init__"


@dataclasses.dataclass(frozen=True)
class Call:
    """One call as the example made it: ``self`` (if any) apart from the other arguments, by name."""

    target: Target
    owner: Any
    arguments: Mapping[str, Any]

    def again(self, **changed: Any) -> Any:
        """Make the call once more, with some arguments changed."""
        values = {**self.arguments, **changed}
        positional: list[Any] = [] if self.owner is None or self.target.is_constructor else [self.owner]
        keywords: dict[str, Any] = {}
        for name, parameter in inspect.signature(self.target.function).parameters.items():
            if name not in values:
                continue
            if parameter.kind is parameter.VAR_POSITIONAL:
                positional += values[name]
            elif parameter.kind is parameter.VAR_KEYWORD:
                keywords.update(values[name])
            elif parameter.kind is parameter.KEYWORD_ONLY:
                keywords[name] = values[name]
            else:
                positional.append(values[name])
        function = type(self.owner) if self.target.is_constructor else self.target.function
        return function(*positional, **keywords)


@dataclasses.dataclass
class Rehearsal:
    """What one run of an example showed."""

    displayed: list[str] = dataclasses.field(default_factory=list)
    returned: list[Any] = dataclasses.field(default_factory=list)
    calls: list[Call] = dataclasses.field(default_factory=list)
    printed: str = ""


def targets(method: Callable[..., Any]) -> list[Target]:
    """Return the functions that a method's users call: itself, or a class's constructor and public functions.

    The constructor of a scikit-learn estimator is left out: by their convention it only stores, and ``fit`` checks.
    """
    if not inspect.isclass(method):
        return [Target(method.__name__, method)]
    stores_only = issubclass(method, BaseEstimator)
    found = []
    for base in method.__mro__:
        if base.__module__.split(".")[0] != method.__module__.split(".")[0]:
            continue
        for name, member in vars(base).items():
            function = getattr(member, "__func__", member)
            public = not name.startswith("_") or name == "__call__" or (name == "__init__" and not stores_only)
            if public and inspect.isfunction(function):
                found.append(Target(name, function, method))
    return found


@cache
def rehearse(method: Callable[..., Any]) -> tuple[Rehearsal, Rehearsal]:
    """Run a method's example twice, with the global random generators seeded with 0 and with 1.

    An example that must be deterministic whatever those are either passes a seed to the method, or seeds them itself.
    """
    return _rehearsed(method, 0), _rehearsed(method, 1)


def differences(first: Rehearsal, second: Rehearsal) -> list[str]:
    """Return where two runs of one example differ."""
    found = []
    for before, after in zip(first.displayed, second.displayed, strict=False):
        if before != after:
            found.append(f"the example shows {before} once and {after} the next time")
    if not all(alike(a, b) for a, b in zip(first.returned, second.returned, strict=False)):
        found.append("the same call returned something else the second time: its example must fix a seed")
    if len(first.returned) != len(second.returned):
        found.append(f"was called {len(first.returned)} times once and {len(second.returned)} times the next time")
    return found


def alike(a: Any, b: Any, depth: int = 6) -> bool:
    """Whether two results are the same, looking inside arrays, containers and objects."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.shape == b.shape and torch.equal(torch.nan_to_num(a.detach()), torch.nan_to_num(b.detach()))
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))
    if isinstance(a, float):
        return a == b or (a != a and b != b)
    if isinstance(a, str | int | bytes | bool) or a is None:
        return bool(a == b)
    if depth == 0 or callable(getattr(a, "send", None)) or isinstance(a, torch.Generator | np.random.Generator):
        return True
    if isinstance(a, torch.nn.Module):
        return alike(dict(a.state_dict()), dict(b.state_dict()), depth - 1)
    if isinstance(a, Mapping):
        return list(map(str, a)) == list(map(str, b)) and alike(list(a.values()), list(b.values()), depth - 1)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(alike(x, y, depth - 1) for x, y in zip(a, b, strict=True))
    return alike(vars(a), vars(b), depth - 1) if hasattr(a, "__dict__") and not callable(a) else True


def cpu_seconds(method: Callable[..., Any], enough: float) -> float:
    """Return the processor time that a method's example takes: the best of three runs, or the first below ``enough``.

    The first run may compile, and a busy machine slows any of them; neither makes the example slow.
    """
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        _run_example(method, Rehearsal())
        best = min(best, time.process_time() - start)
        if best < enough:
            break
    return best


def rehearse_anew(method: Callable[..., Any]) -> Rehearsal:
    """Run a method's example once more, for a test that spoils what the example made."""
    return _rehearsed(method, 1)


def _rehearsed(method: Callable[..., Any], seed: int) -> Rehearsal:
    run = Rehearsal()
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  the global state is what must not matter
    torch.manual_seed(seed)
    with _taking_down(targets(method), run):
        _run_example(method, run)
    return run


def _run_example(method: Callable[..., Any], run: Rehearsal) -> None:
    """Run the example of a docstring where its module is the namespace, as doctest does."""
    module = sys.modules[method.__module__]
    namespace = {**vars(module), "print": lambda *values, **_: run.displayed.append(" ".join(map(str, values)))}
    heard = io.StringIO()
    with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard), _displaying(run.displayed):
        for example in doctest.DocTestParser().get_examples(inspect.getdoc(method) or ""):
            if example.options.get(doctest.SKIP):
                continue
            with contextlib.suppress(*([Exception] if example.exc_msg else [])):
                exec(compile(example.source, f"<example of {method.__name__}>", "single"), namespace)
    run.printed = heard.getvalue()


@contextlib.contextmanager
def _displaying(into: list[str]) -> Iterator[None]:
    """Take down what an expression on its own would show, instead of printing it."""

    def show(value: Any) -> None:
        if value is not None:
            into.append(re.sub(r"0x[0-9a-f]+", "0x", repr(value)))

    before, sys.displayhook = sys.displayhook, show
    try:
        yield
    finally:
        sys.displayhook = before


@contextlib.contextmanager
def _taking_down(watched: list[Target], run: Rehearsal) -> Iterator[None]:
    """Take down arguments and results of the outermost calls of these functions, however the example reaches them."""
    codes: dict[CodeType, Target] = {inspect.unwrap(target.function).__code__: target for target in watched}
    inside: list[FrameType] = []

    def watch(frame: FrameType, event: str, value: Any) -> None:
        if event == "call" and not inside and frame.f_code in codes:
            inside.append(frame)
            target = codes[frame.f_code]
            if sum(call.target.name == target.name for call in run.calls) < CALL_LIMIT:
                run.calls.append(_call(target, frame))
        elif event == "return" and inside and frame is inside[-1]:
            inside.pop()
            run.returned.append(value)

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(before)


def _call(target: Target, frame: FrameType) -> Call:
    names, starred, keywords, values = inspect.getargvalues(frame)
    taken = {name: values[name] for name in (*names, starred, keywords) if name is not None}
    code = frame.f_code
    keyword_only = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    taken.update({name: values[name] for name in keyword_only})
    owner = taken.pop(names[0]) if target.owner is not None and names and names[0] in ("self", "cls") else None
    return Call(target, owner, taken)
