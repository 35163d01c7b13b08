"""Seeding torch's global state from a generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from offprint.models.randomness import as_generator, seeded


def draw(generator):
    with seeded(generator):
        return torch.rand(3)


def test_the_generator_decides_and_moves_on():
    generator = torch.Generator().manual_seed(5)
    first, second = draw(generator), draw(generator)
    assert torch.equal(first, draw(5))
    assert not torch.equal(first, second)


def test_the_global_state_is_restored_even_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="shape"), seeded(1):
        torch.rand(1).reshape(2)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_generator_the_global_state_is_used():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(draw(None), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_device_is_seeded_and_restored():
    before = torch.cuda.get_rng_state()
    draws = []
    for _ in range(2):
        with seeded(1, "cuda"):
            draws.append(torch.rand(3, device="cuda"))
    assert torch.equal(*draws)
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.mark.parametrize("wrong", ["0", 1.0, True, np.random.default_rng(0)])
def test_other_kinds_are_refused(wrong):
    with pytest.raises(TypeError, match="generator must be"):
        as_generator(wrong)
