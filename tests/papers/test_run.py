"""What a claim is given, and what it may give back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import offprint.data
from offprint.papers import Measurement, Panel, Progress, Run, Series, Skip, measures


@pytest.mark.parametrize(("scale", "chosen"), [("smoke", 1), ("quick", 2), ("full", 3), ("paper", 4)])
def test_pick_follows_the_scale(scale: str, chosen: int) -> None:
    assert Run(scale=scale).pick(smoke=1, quick=2, full=3, paper=4) == chosen  # type: ignore[arg-type]


def test_paper_scale_falls_back_to_full() -> None:
    assert Run(scale="paper").pick(smoke=1, quick=2, full=3) == 3


def test_false_and_zero_are_settings_too() -> None:
    assert Run(scale="smoke").pick(smoke=0, quick=2, full=3) == 0
    assert Run(scale="paper").pick(smoke=True, quick=True, full=True, paper=False) is False


def test_an_unknown_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="scale must be one of smoke, quick, full, paper; got 'huge'"):
        Run(scale="huge")  # type: ignore[arg-type]


def test_randomness_is_a_function_of_seed_and_stream() -> None:
    settings = [(seed, stream) for seed in range(4) for stream in range(4)]
    drawn = {(seed, stream): Run(seed=seed).rng(stream).integers(2**62) for seed, stream in settings}
    again = {(seed, stream): Run(seed=seed).rng(stream).integers(2**62) for seed, stream in settings}
    assert drawn == again
    assert len(set(drawn.values())) == len(settings)


def test_torch_randomness_is_a_function_of_seed_and_stream() -> None:
    settings = [(seed, stream) for seed in range(4) for stream in range(4)]

    def draw(seed: int, stream: int) -> int:
        return int(torch.randint(2**62, (1,), generator=Run(seed=seed).generator(stream)))

    drawn = [draw(*setting) for setting in settings]
    assert drawn == [draw(*setting) for setting in settings]
    assert len(set(drawn)) == len(settings)


def test_track_reports_before_each_item_and_at_the_end() -> None:
    heard: list[Progress] = []
    run = Run(report=heard.append)
    assert list(run.track("ab", "letters")) == ["a", "b"]
    assert heard == [Progress(0, 2, "letters"), Progress(1, 2, "letters"), Progress(2, 2, "letters")]


def test_track_of_unknown_length_counts() -> None:
    heard: list[Progress] = []
    assert list(Run(report=heard.append).track(iter("ab"))) == ["a", "b"]
    assert [(step.done, step.total) for step in heard] == [(0, 0), (1, 0), (2, 0)]


def test_a_skip_says_why() -> None:
    with pytest.raises(Skip, match="needs a GPU"):
        Run().skip("needs a GPU")


def test_missing_data_skips_the_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, **options: object) -> object:
        raise offprint.data.MissingDataError(f"{name} is not here: run 'offprint data get {name}'")

    monkeypatch.setattr(offprint.data, "load", load)
    with pytest.raises(Skip, match="offprint data get stars"):
        Run().data("stars")


def test_panels_are_collected_in_order() -> None:
    run = Run()
    first, second = (Panel("x", name, [Series("s", [1], [2])]) for name in ("a", "b"))
    run.figure(first, caption="both")
    run.figure(second)
    assert list(run.drawn.panels) == [first, second]
    assert run.drawn.caption == "both"
    assert list(Run().drawn.panels) == []


def test_a_measurement_holds_plain_numbers() -> None:
    measured = Measurement(np.bool_(True), baseline=np.float32(0.5), also={"n": np.int64(3)})  # type: ignore[arg-type]
    assert (measured.value, measured.baseline, measured.also) == (1.0, 0.5, {"n": 3.0})
    assert {type(number) for number in (measured.value, measured.baseline, *measured.also.values())} == {float}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"value": math.nan}, "value"),
        ({"value": 1, "baseline": math.inf}, "baseline"),
        ({"value": 1, "also": {"slope": -math.inf}}, "slope"),
    ],
)
def test_a_number_that_is_not_finite_is_refused(given: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be finite"):
        Measurement(**given)  # type: ignore[arg-type]


def test_measures_binds_and_leaves_the_function_as_it_was() -> None:
    def function(run: Run) -> Measurement:
        return Measurement(run.seed)

    bound = measures("an-id")(function)
    assert bound is function
    assert bound.__claim__ == "an-id"  # type: ignore[attr-defined]
    assert bound(Run(seed=3)).value == 3
